"""What every step of a training run said, one line of JSON a step, on the disk."""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads.runs import Arrays, write_text

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
