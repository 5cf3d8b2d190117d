"""At which steps a training run keeps its model: fixed steps, and dense stretches."""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads.errors import UserError, check_counts
from jaxheads.runs import Arrays, write_text


def fixed_steps(given: Iterable[str], steps: int) -> tuple[int, ...]:
    """The steps that are known before the run.

    Args:
        given: "powers": 1, 2, 4, ...; "every=100"; or step numbers.
        steps: of the run; its first (0: before any update) and its last always count,
            and what lies beyond is left out.

    Returns:
        Steps, in order.

    Raises:
        UserError: one of the given cannot be read, or makes too many.
    """
    chosen = {0, steps}
    for word in given:
        every = word.removeprefix("every=")
        if word == "powers":
            chosen |= {2**i for i in range(steps.bit_length())}
        elif every.isdecimal() and word != every and int(every):
            check_counts((f"checkpoints of {word}", steps // int(every), 0))
            chosen |= set(range(0, steps, int(every)))
        elif word.isdecimal():
            chosen.add(int(word))
        else:
            raise UserError(
                f"--checkpoints takes powers, every=100, or step numbers, not {word!r}"
            )
    return tuple(sorted(step for step in chosen if step <= steps))


def loss_moves(losses: np.ndarray, window: int, change: float) -> bool:
    """Whether the loss moves fast: its mean over two successive windows of steps.

    Args:
        losses: [steps so far, N]; the last ``2 * window`` decide.
        window: steps.
        change: in nats, in any of the N runs.
    """
    if len(losses) < 2 * window:
        return False
    before = losses[-2 * window : -window].mean(axis=0)
    return bool((np.abs(losses[-window:].mean(axis=0) - before) >= change).any())


def evidence_moves(records: np.ndarray, change: float) -> bool:
    """Whether an evidence, in any of its entries, moved at its last evaluation.

    Args:
        records: [evaluations so far, ...].
        change: in its own unit.
    """
    if len(records) < 2:
        return False
    return bool((np.abs(records[-1] - records[-2]) >= change).any())


NAMES = ("loss", "all_loss", "dropped", "gradient_norm")
"""Of the numbers of each seed, fields of ``step.Metrics``."""


_SUM = "crc32"


def sound_rows(path: Path, seeds: int) -> list[dict[str, Any]]:
    """Rows of an earlier try, of steps 1, 2, ... up to the first that is damaged."""
    rows: list[dict[str, Any]] = []
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for step, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if row.pop(_SUM) != _sum(row):
                break
            values = np.array([row[name] for name in NAMES], np.float64)
            whole = values.shape == (len(NAMES), seeds) and np.isfinite(values).all()
            if row["step"] != step or not whole or not row["learning_rate"] >= 0:
                break
        except (
            ValueError, TypeError, KeyError, AttributeError, ArithmeticError,
            RecursionError,
        ):  # fmt: skip
            break  # cut off when the process was killed, or of no training
        rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    """A row with a checksum, which tells a digit that is not what it was."""
    return json.dumps(row | {_SUM: _sum(row)}, allow_nan=False) + "\n"


def _sum(row: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(row).encode())


class Curves:
    """Rows by step: appended to the file, read again when a run goes on.

    Floats are written so that they come back to the last bit.

    Args:
        path: of the file; made if absent.
        rows: of the steps so far; what else the file holds is dropped.
    """

    def __init__(self, path: Path, rows: list[dict[str, Any]]):
        self._path = path
        self.rows = rows
        write_text(path, "".join(map(_line, self.rows)))

    @property
    def last(self) -> int:
        """The last step that has a row."""
        return len(self.rows)

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write the rows of the next steps; on the disk when this returns."""
        self.rows += rows
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, rows))
            file.flush()
            os.fsync(file.fileno())

    def values(self, name: str, last: int = 0) -> np.ndarray:
        """A curve [steps, N], or of the last steps only."""
        rows = self.rows[-last:] if last else self.rows
        return np.array([row[name] for row in rows])

    def arrays(self) -> Arrays:
        """All curves as a run's arrays."""
        made = {f"train/{name}": self.values(name).astype(np.float32) for name in NAMES}
        made["train/learning_rate"] = self.values("learning_rate")
        return made
