"""The options of `jaxheads train`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jaxheads.studies.options import ComputingCommand
from jaxheads.training.config import (
    DataChoice,
    EvidenceConfig,
    ModelChoice,
    TrainConfig,
)


@dataclasses.dataclass(frozen=True)
class Train(ComputingCommand):
    """Train small models from scratch, several seeds at once; go on after a stop."""

    model: Annotated[ModelChoice, tyro.conf.arg(name="")] = ModelChoice()
    data: Annotated[DataChoice, tyro.conf.arg(name="")] = DataChoice()
    training: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig()
    evidence: Annotated[EvidenceConfig, tyro.conf.arg(name="")] = EvidenceConfig()
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The run's folder; default: runs/MODEL-OBJECTIVE-train. Its checkpoints are
    sources for the other commands."""
    mesh: str | None = None
    """Devices: data=4,model=2 or 4x2 splits seeds, or a batch, over 4, params over 2;
    default: every accelerator on data, or, of several seeds, every core of a CPU."""


COMMANDS = {"train": Train}
