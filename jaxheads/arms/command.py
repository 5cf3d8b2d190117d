"""What ``jaxheads compare-runs`` does."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from jaxheads.arms.run import compare_runs
from jaxheads.arms.terminal import UnitBar, print_comparison
from jaxheads.runs import Run

if TYPE_CHECKING:
    from jaxheads.commands import CompareRuns


def run_command(command: "CompareRuns", console: Console, output: Console) -> Run:
    """Compare trainings as the options say, and print what differs.

    Args:
        command: the options.
        console: of progress.
        output: of the result.
    """
    command.arms.check()  # a mistake in it is told before runs are opened
    out = command.out or _default_folder(command)
    with UnitBar(console) as bar:
        run = compare_runs(command.run, command.arms, out, progress=bar.progress)
    print_comparison(run, output)
    return run


def _default_folder(command: "CompareRuns") -> Path:
    """Such as runs/toy-vanilla-train-toy-hapax-train-compare-runs."""
    words = [Path(path).resolve().name for path in command.run]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([*words, "compare-runs"]))
    return Path("runs") / safe
