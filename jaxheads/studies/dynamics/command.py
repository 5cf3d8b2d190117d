"""What ``jaxheads dynamics`` does."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from jaxheads.engine import plan
from jaxheads.engine.devices import make_mesh
from jaxheads.engine.progress import bars
from jaxheads.errors import UserError
from jaxheads.report import words
from jaxheads.report.tables import printed
from jaxheads.runs import Run
from jaxheads.studies.dynamics import findings, seeds_page
from jaxheads.studies.dynamics.config import Dynamics
from jaxheads.studies.dynamics.run import StepProgress, run_dynamics
from jaxheads.studies.dynamics.trained import is_training, run_trained
from jaxheads.studies.options import default_folder

WIDTH = 120
"""Of what is printed where no terminal says."""


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
        self.progress = StepProgress(
            self._planned,
            self._started,
            self._advance,
            self._chosen,
            self._loading,
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
def seed_bars(console: Console, seed: int) -> Iterator[StepProgress]:
    """Bars of one seed's run, under its name."""
    console.print(f"seed    {seed}", highlight=False)
    with StepBars(console) as shown:
        yield shown.progress


def print_seeds(run: Run, console: Console) -> None:
    """Print a row a seed, and what the seeds say together."""
    console.print(printed(seeds_page.table(run)))
    for lead, text in seeds_page.say(run):
        console.print(f"{lead}: {text}", soft_wrap=True, highlight=False)


def print_dynamics(run: Run, console: Console) -> None:
    """Print a row a step, what stands out, and what was found."""
    told = run.result["dynamics"]
    table = findings.table(run).without("checkpoint", "flags", "took")
    console.print(printed(table))
    for flag in told["flags"]:
        console.print(Text(f"note    {flag['text']}"), soft_wrap=True)
    for lead, text in findings.say(run):
        console.print(f"{lead}: {text}", soft_wrap=True, highlight=False)


def run_command(command: Dynamics, console: Console, output: Console) -> Run:
    """Score checkpoints as the options say, and print what was found.

    Args:
        command: the options.
        console: of progress.
        output: of the result.
    """
    if command.revision is not None:
        raise UserError(
            "dynamics takes --steps and --revision-pattern instead of --revision "
            f"{command.revision}: leave it out"
        )
    config = command.config()
    out = command.out or default_folder(command, "dynamics")
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
