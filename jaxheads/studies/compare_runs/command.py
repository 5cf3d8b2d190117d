"""What ``jaxheads compare-runs`` does."""

import contextlib
from pathlib import Path

from rich.console import Console
from rich.text import Text

from jaxheads.engine.progress import Progress, bars
from jaxheads.report import words
from jaxheads.report.tables import printed
from jaxheads.runs import Run, default_folder
from jaxheads.studies.compare_runs.config import CompareRuns
from jaxheads.studies.compare_runs.result import TABLES, claims_of, table
from jaxheads.studies.compare_runs.study import compare_runs

WIDTH = 140
"""Of what is printed where no terminal says."""


class UnitBar(contextlib.AbstractContextManager):
    """One bar over all units, with what is left.

    Attributes:
        progress: to hand to ``compare_runs``.
    """

    def __init__(self, console: Console):
        self._bars = bars(console, 40, speed_estimate_period=600)
        self._task = self._bars.add_task("", total=None, visible=False)
        self.progress = Progress(self._planned, self._started, self._done)

    def __exit__(self, *error) -> None:
        self._bars.stop()

    def _planned(self, cost: float) -> None:
        if cost:
            self._bars.update(self._task, total=cost, visible=True)
            self._bars.start()

    def _started(self, name: str) -> None:
        self._bars.update(self._task, description=name)

    def _done(self, cost: float) -> None:
        self._bars.advance(self._task, cost)


def print_comparison(run: Run, console: Console) -> None:
    """Print warnings, a table of effect sizes for every arm, and its claims."""
    told, compared = run.result["arms"], run.result["compared"]
    for text in compared["warnings"]:
        console.print(Text(f"note    {text}"), soft_wrap=True)
    for caption in TABLES:
        console.print(printed(table(run, caption).without("a seed has")))
    console.print("p over seeds and over samples, by Holm's method", highlight=False)
    for arm, claims in zip(told[1:], claims_of(run), strict=True):
        seeds = words.plural(len(arm["seeds"]), "seed")
        console.print(
            f"{arm['name']} against {told[0]['name']}, step {compared['step']:,}, "
            f"{seeds}; {words.percent(arm['dropped'])} of the targets dropped",
            soft_wrap=True,
            highlight=False,
        )
        for claim in claims:
            text = f"{claim.verdict:14s} {claim.statement}. {claim.evidence}"
            console.print(Text(text), soft_wrap=True)


def run_command(command: CompareRuns, console: Console, output: Console) -> Run:
    """Compare trainings as the options say, and print what differs.

    Args:
        command: the options.
        console: of progress.
        output: of the result.
    """
    command.arms.check()  # a mistake in it is told before runs are opened
    names = [Path(path).resolve().name for path in command.run]
    out = command.out or default_folder(*names, "compare-runs")
    with UnitBar(console) as bar:
        run = compare_runs(command.run, command.arms, out, progress=bar.progress)
    print_comparison(run, output)
    return run
