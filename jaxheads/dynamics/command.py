"""What ``jaxheads dynamics`` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from jaxheads.devices import make_mesh
from jaxheads.dynamics.run import run_dynamics
from jaxheads.dynamics.terminal import (
    StepBars,
    print_dynamics,
    print_seeds,
    seed_bars,
)
from jaxheads.dynamics.trained import is_training, run_trained
from jaxheads.errors import UserError
from jaxheads.runs import Run
from jaxheads.studies.config import StudyConfig

if TYPE_CHECKING:
    from jaxheads.commands import Dynamics


def run_command(
    command: "Dynamics",
    config: StudyConfig,
    out: Path,
    console: Console,
    output: Console,
) -> Run:
    """Score checkpoints as the options say, and print what was found.

    Args:
        command: the options.
        config: the part of them that decides the numbers.
        out: the run's folder.
        console: of progress.
        output: of the result.
    """
    common: dict[str, Any] = dict(
        steps=command.steps,
        few_shot=command.few_shot,
        dtype=command.dtype,
        mesh=make_mesh(command.mesh),
        memory_gb=command.memory_gb,
    )
    if is_training(command.source):
        run = run_trained(
            command.source,
            config,
            out,
            seeds=command.seeds,
            shown=lambda seed: seed_bars(console, seed),
            **common,
        )
    elif command.seeds:
        raise UserError(
            "--seeds is of a folder that `jaxheads train` wrote, but "
            f"{command.source!r} is none: leave it out"
        )
    else:
        with StepBars(console) as bars:
            run = run_dynamics(
                command.source,
                config,
                out,
                pattern=command.revision_pattern,
                missing=command.missing,
                compare_main=command.compare_main,
                delete=command.delete,
                progress=bars.progress,
                **common,
            )
    (print_seeds if "dynamics_seeds" in run.result else print_dynamics)(run, output)
    return run
