"""How trainings are compared; light to import, for the command line."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import tyro

from jaxheads.errors import UserError, check_counts
from jaxheads.studies.options import ComputingCommand, FiguresCommand


@dataclasses.dataclass(frozen=True)
class ArmsConfig:
    """What is measured on every arm, and what counts as an effect."""

    step: int | None = None
    """Of the training, whose models are compared; default: the last that all have."""
    samples: int = 512
    """Held-out windows, the same for all arms; a text may have fewer."""
    repetitions: int = 1000
    """Random sequences that are to be repeated."""
    top: int = 10
    """Heads whose mean prefix-matching score is the strength of induction; all heads
    where there are fewer."""
    induction_above: float = 0.3
    """Prefix-matching score above which a head counts as an induction head."""
    smallest: float = 0.1
    """Fall of interest, as a share of what the reference has: smaller ones count as
    none."""
    margin_loss: float = 0.05
    """Rise of a loss, or fall of a gain from context, that counts as none, nats."""
    margin_accuracy: float = 0.05
    """Fall of an accuracy that counts as none, a share of all answers."""
    causal: bool = True
    """Remove every head in turn, and patch layers across checkpoints."""
    causal_samples: int = 128
    """Held-out windows of the heads' effects."""
    donor_step: int | None = None
    """Whose layers are put into another checkpoint; default: --step."""
    recipient_step: int | None = None
    """Into whose; default: the first that all have, the random initial model."""
    seed: int = 0
    """Of resampling and sign flips."""

    def check(self) -> None:
        """Raise UserError unless the choices make sense, whatever the runs."""
        check_counts(
            ("--samples", self.samples, 2),
            ("--repetitions", self.repetitions, 2),
            ("--top", self.top, 1),
            ("--causal-samples", self.causal_samples, 1),
        )
        check_counts(("--seed", self.seed, 0), most=math.inf)
        for name, value in (
            ("--induction-above", self.induction_above),
            ("--smallest", self.smallest),
            ("--margin-loss", self.margin_loss),
            ("--margin-accuracy", self.margin_accuracy),
        ):
            if not 0 < value < math.inf:
                raise UserError(f"{name} must be above 0, but is {value}")


@dataclasses.dataclass(frozen=True)
class CompareRuns(FiguresCommand, ComputingCommand):
    """Compare trainings on the same data and seeds, such as hapax against vanilla."""

    run: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `jaxheads train` wrote, two or more, the reference first."""
    arms: Annotated[ArmsConfig, tyro.conf.arg(name="")] = ArmsConfig()
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The run's folder; default: runs/REFERENCE-OTHER-compare-runs."""


COMMANDS = {"compare-runs": CompareRuns}
