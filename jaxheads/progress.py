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


class Bars(contextlib.AbstractContextManager):
    """Shows a study's plan, then a bar for each part.

    Attributes:
        progress: to hand to ``run_study``.
    """

    def __init__(self, console: Console):
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, Any] = {}
        self._current = ""
        self.progress = study.Progress(self._planned, self._started, self._advance)

    def __exit__(self, *error) -> None:
        self._bars.stop()

    def _planned(self, costs: dict[str, plan.Cost]) -> None:
        rate = plan.matmul_rate()
        table = Table(
            title=f"plan, at {rate / 1e9:,.0f} GFLOP/s of matrix product measured now"
        )
        table.add_column("part")
        for name in ("forwards", "tokens", "TFLOP", "seconds, at least"):
            table.add_column(name, justify="right")
        for part, cost in costs.items():
            table.add_row(
                part.replace("_", " "),
                f"{cost.forwards:,.0f}",
                f"{cost.tokens:,.0f}",
                f"{cost.flops / 1e12:,.2f}",
                f"{cost.flops / rate:,.0f}",
            )
        self._console.print(table)
        for part, cost in costs.items():
            name = part.replace("_", " ")
            self._tasks[name] = self._bars.add_task(name, total=cost.flops, start=False)
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
