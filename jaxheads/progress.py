"""The plan as a table and progress bars with an ETA, for the terminal."""

import contextlib
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from jaxheads import plan, study


def bars(console: Console, width: int, **options: Any) -> Progress:
    """Bars with a share done, the time taken and the time left.

    Args:
        console: to show them on.
        width: of the descriptions, in characters.
        options: of ``rich.progress.Progress``.
    """
    return Progress(
        TextColumn(f"{{task.description:<{width}}}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        **options,
    )


class Bars(contextlib.AbstractContextManager):
    """Shows a study's plan, then a bar for each part.

    Attributes:
        progress: to hand to ``run_study``.
    """

    def __init__(self, console: Console):
        self._console = console
        self._bars = bars(console, 10)
        self._tasks: dict[str, Any] = {}
        self._current = ""
        self.progress = study.Progress(self._planned, self._started, self._advance)

    def __exit__(self, *error) -> None:
        self._bars.stop()

    def _planned(self, parts: dict[str, plan.Part]) -> None:
        calibrated = [part.seconds for part in parts.values() if part.seconds]
        title = "plan"
        if calibrated:
            title += f": {_duration(sum(calibrated))}, by short runs of its programs"
        table = Table(title=title)
        table.add_column("part")
        for name in ("forwards", "tokens", "TFLOP", "GB a device", "at once", "about"):
            table.add_column(name, justify="right")
        for name, part in parts.items():
            chunks = [str(fitted.chunk) for fitted in part.fits]
            table.add_row(
                name.replace("_", " "),
                f"{part.cost.forwards:,.0f}",
                f"{part.cost.tokens:,.0f}",
                f"{part.cost.flops / 1e12:,.2f}",
                f"{part.bytes / 1e9:,.2f}",
                " ".join(dict.fromkeys(chunks)),
                "" if part.seconds is None else _duration(part.seconds),
            )
        self._console.print(table)
        for name, part in parts.items():
            name = name.replace("_", " ")
            self._tasks[name] = self._bars.add_task(
                name, total=part.cost.flops, start=False
            )
        self._bars.start()

    def _started(self, part: str) -> None:
        self._finish()
        self._current = part
        self._bars.start_task(self._tasks[part])

    def _advance(self, flops: float) -> None:
        self._bars.advance(self._tasks[self._current], flops)

    def _finish(self) -> None:
        if self._current:
            task = self._tasks[self._current]
            self._bars.update(task, completed=self._bars.tasks[task].total)


def _duration(seconds: float) -> str:
    """Such as "40 s", "6 min" or "3.2 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"
