"""Progress over the steps of a dynamics run, and what it found, for the terminal."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxheads import plan, study
from jaxheads.dynamics import run as dynamics
from jaxheads.progress import bars
from jaxheads.report import dynamics_findings, dynamics_seeds, words
from jaxheads.runs import Run


class StepBars(contextlib.AbstractContextManager):
    """Shows what a step will cost, then one bar over all steps with what is left.

    Attributes:
        progress: to hand to ``run_dynamics``.
    """

    def __init__(self, console: Console):
        self._console = console
        # A checkpoint's loading is part of the speed.
        self._bars = bars(console, 34, speed_estimate_period=600)
        self._todo: list[int] = []
        self._flops, self._done, self._step = 0.0, 0, 0
        self._task = self._bars.add_task("", total=None, visible=False)
        self.progress = dynamics.Progress(
            self._chosen,
            self._loading,
            study.Progress(self._planned, self._started, self._advance),
            self._finished,
        )

    def __exit__(self, *error) -> None:
        self._bars.stop()

    def _chosen(self, todo: list[int], there: list[int]) -> None:
        self._todo = todo
        if there and todo:
            done = f"{words.plural(len(there), 'step')} there already"
            self._console.print(done, highlight=False)
        if todo:
            self._bars.update(self._task, visible=True)
            self._bars.start()

    def _loading(self, step: int) -> None:
        self._step = step
        self._describe("loading")

    def _planned(self, parts: dict[str, plan.Part]) -> None:
        if self._flops:
            return
        self._flops = sum(part.cost.flops for part in parts.values())
        seconds = [part.seconds for part in parts.values() if part.seconds]
        about = f", about {words.seconds(sum(seconds))}" if seconds else ""
        self._console.print(
            f"plan    {words.plural(len(self._todo), 'step')} of "
            f"{self._flops / 1e12:,.2f} TFLOP{about} each, besides loading",
            highlight=False,
            soft_wrap=True,
        )
        self._bars.update(self._task, total=self._flops * len(self._todo))

    def _started(self, part: str) -> None:
        self._describe("few-shot accuracy" if part == "ablation" else part)

    def _advance(self, flops: float) -> None:
        self._bars.advance(self._task, flops)

    def _finished(self, step: int, seconds: float) -> None:
        # A step that was gone on with has told less than it cost.
        self._done += 1
        self._bars.update(self._task, completed=self._flops * self._done)

    def _describe(self, what: str) -> None:
        place = self._todo.index(self._step) + 1
        text = f"step {self._step} ({place} of {len(self._todo)}): {what}"
        self._bars.update(self._task, description=text)


@contextlib.contextmanager
def seed_bars(console: Console, seed: int) -> Iterator[dynamics.Progress]:
    """Bars of one seed's run, under its name."""
    console.print(f"seed    {seed}", highlight=False)
    with StepBars(console) as shown:
        yield shown.progress


def print_seeds(run: Run, console: Console) -> None:
    """Print a row a seed, and what the seeds say together."""
    table = Table(title="when the mean scores of the top 2 % of heads emerged, by seed")
    for name in dynamics_seeds.COLUMNS:
        table.add_column(name)
    for row in dynamics_seeds.rows(run):
        table.add_row(*row)
    console.print(table)
    for lead, text in dynamics_seeds.say(run):
        console.print(f"{lead}: {text}", soft_wrap=True, highlight=False)


def print_dynamics(run: Run, console: Console) -> None:
    """Print a row a step, what stands out, and what was found."""
    told = run.result["dynamics"]
    told_rows = dynamics_findings.rows(run)
    table = Table(title="mean scores of the top 2 % of heads, by training step")
    table.add_column("step", justify="right", no_wrap=True, min_width=7)
    titles = {"function vector": "FV", "first_token": "first token", "f1": "F1"}
    for name in ("induction", "function vector", *dynamics_findings.METRICS):
        if name in told_rows[0]:
            table.add_column(titles.get(name, name), justify="right", no_wrap=True)
    table.add_column("leads induction", no_wrap=True)
    table.add_column("leads FV", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    for row in told_rows:
        table.add_row(*row.values())
    console.print(table)
    for flag in told["flags"]:
        console.print(Text(f"note    {flag['text']}"), soft_wrap=True)
    for lead, text in dynamics_findings.say(run):
        console.print(f"{lead}: {text}", soft_wrap=True, highlight=False)
