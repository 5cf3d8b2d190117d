"""The plan as a table and progress bars with an ETA, or lines where nobody watches."""

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress as RichProgress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LOG = logging.getLogger("jaxheads")
EVERY = 30.0
"""Seconds between the lines that stand for bars where there is no terminal."""


def watched(console: Console) -> bool:
    """Whether a person sees what moves; else lines tell it."""
    return console.is_terminal and not console.is_dumb_terminal


@contextlib.contextmanager
def status(console: Console, text: str) -> Iterator[None]:
    """Say what is being done: a spinner, or a line."""
    if not watched(console):
        LOG.info(text)
        yield
        return
    with console.status(Text(text)):
        yield


class Bars(RichProgress):
    """Bars; without a terminal a line every ``EVERY`` seconds besides."""

    _ended: threading.Event | None = None

    def start(self) -> None:
        """Show them from now on."""
        super().start()
        if self._ended is None and not watched(self.console):
            self._ended = threading.Event()
            self._from = time.monotonic(), self._share()
            threading.Thread(target=self._tell, args=[self._ended], daemon=True).start()

    def stop(self) -> None:
        """Show them as they are now, for the last time."""
        if self._ended is not None:
            self._ended.set()
            self._ended = None
        super().stop()

    def _tell(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY):
            share = self._share()
            start, before = self._from
            left = "time left not known yet"
            if share > before:
                seconds = (time.monotonic() - start) * (1 - share) / (share - before)
                left = f"about {duration(seconds)} left"
            running = [
                task.description.strip()
                for task in self.tasks
                if task.started and not task.finished
            ]
            LOG.info("%.0f %% done, %s: %s", 100 * share, left, ", ".join(running))

    def _share(self) -> float:
        """Of all that the bars stand for, 0 to 1."""
        total = sum(task.total or 0.0 for task in self.tasks)
        return sum(task.completed for task in self.tasks) / total if total else 0.0


def bars(console: Console, width: int, **options: Any) -> Bars:
    """Bars with a share done, the time taken and the time left.

    Args:
        console: to show them on.
        width: of the descriptions, in characters.
        options: of ``rich.progress.Progress``.
    """
    return Bars(
        TextColumn(f"{{task.description:<{width}}}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        **options,
    )


def duration(seconds: float) -> str:
    """Such as "40 s", "6 min" or "3.2 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


@dataclasses.dataclass(frozen=True)
class Progress:
    """How a run tells what it does; every field may be replaced.

    Attributes:
        planned: called before anything runs: with a study's plan by part, or with the
            cost of all that is still to be done.
        started: called with the name of a part when it starts.
        advance: called with the cost (a study's in FLOPs) done since the last call.
    """

    planned: Callable[[Any], None] = lambda parts: None
    started: Callable[[str], None] = lambda part: None
    advance: Callable[[float], None] = lambda cost: None
