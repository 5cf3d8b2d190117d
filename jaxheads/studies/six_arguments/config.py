"""What ``jaxheads evidence`` is asked; light to import, for the command line."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import tyro

from jaxheads.errors import UserError, check_counts
from jaxheads.studies.options import ComputingCommand, FiguresCommand

MOST_STEPS = 12
"""Steps at which models are run, where none are named."""


@dataclasses.dataclass(frozen=True)
class ArgumentsConfig:
    """All that decides the numbers, besides the runs."""

    samples: int = 128
    """Held-out windows that every head is ablated on."""
    ablations: bool = True
    """Run the models: ablate every head and read its circuits; without, only what the
    trainings measured is analysed."""
    attribution_steps: tuple[int, ...] = ()
    """Steps whose models are run; default: all that are there, thinned to 12, with the
    ends of the phase changes among them."""
    seed: int = 0
    """Of the random sets of heads."""

    def check(self) -> None:
        """Raise UserError unless the choices make sense, whatever the runs."""
        check_counts(("--samples", self.samples, 1))
        check_counts(("--seed", self.seed, 0), most=math.inf)
        for step in self.attribution_steps:
            if step < 0:
                raise UserError(
                    f"--attribution-steps must be steps from 0 on, but has {step}"
                )
        if self.attribution_steps and not self.ablations:
            raise UserError(
                "--attribution-steps are steps whose models are run, but "
                "--no-ablations runs none: leave one of them out"
            )


@dataclasses.dataclass(frozen=True)
class Evidence(FiguresCommand, ComputingCommand):
    """Ask Olsson et al.'s six arguments on induction heads of finished trainings."""

    run: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `jaxheads train` wrote, measured on the same held-out windows:
    architectures and sizes to compare."""
    arguments: Annotated[ArgumentsConfig, tyro.conf.arg(name="")] = ArgumentsConfig()
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/evidence")
    """The run's folder."""


COMMANDS = {"evidence": Evidence}
