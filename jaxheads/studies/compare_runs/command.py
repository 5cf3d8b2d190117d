"""What ``jaxheads compare-runs`` does."""

import contextlib
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxheads.engine.progress import Progress, bars
from jaxheads.report import words
from jaxheads.runs import Run, default_folder
from jaxheads.studies.compare_runs.config import CompareRuns
from jaxheads.studies.compare_runs.effects import Effect, title
from jaxheads.studies.compare_runs.result import claims_of, effects_of
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
    found = effects_of(run)
    for arm, claims in enumerate(claims_of(run), start=1):
        name, reference = told[arm]["name"], told[0]["name"]
        seeds = words.plural(len(told[arm]["seeds"]), "seed")
        table = Table(
            title=f"{name} against {reference}, step {compared['step']:,}, {seeds}; "
            f"{words.percent(told[arm]['dropped'])} of the targets dropped",
            caption="95 % intervals; p over seeds and over samples, by Holm's method",
        )
        table.add_column("")
        for column in (reference, name, "difference, seeds", "samples"):
            table.add_column(column, justify="right", no_wrap=True)
        for column in ("p, seeds", "samples"):
            table.add_column(column, justify="right", no_wrap=True)
        before = ""
        for one in found:
            if one.arm == arm:
                if before and one.family != before:
                    table.add_section()
                before = one.family
                table.add_row(*_row(one))
        console.print(table)
        for claim in claims:
            text = f"{claim.verdict:14s} {claim.statement}. {claim.evidence}"
            console.print(Text(text), soft_wrap=True)


def _row(one: Effect) -> list[str]:
    samples = words.NONE
    if math.isfinite(one.samples_low):
        low, high = words.aligned(one.samples_low, one.samples_high)
        samples = f"[{low}, {high}]"
    return [
        title(one.name) + (" (nats)" if one.unit == "nats" else ""),
        *words.aligned(one.reference, one.other),
        words.with_interval(one.difference, one.seeds_low, one.seeds_high)
        if math.isfinite(one.seeds_low)
        else words.number(one.difference),
        samples,
        words.p_value(one.p_seeds_adjusted),
        words.p_value(one.p_samples_adjusted),
    ]


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
