"""The page's tables, as plain text cells with an optional bar behind them."""

import dataclasses

from jaxheads.report import words
from jaxheads.runs import Run


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell: text, a second small line, and a bar of 0 to 1 behind the text."""

    text: str
    small: str = ""
    bar: float | None = None
    colour: str = "random"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; columns from ``numbers`` on hold numbers and are set flush right."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    numbers: int = 1
    stacked: bool = False  # whether a cell's small text stands below, or before it


def plan(run: Run) -> Table | None:
    """Set the planned work against the seconds that it took."""
    listed = (run.result.get("plan") or {}).get("rows") or []
    wall = run.result.get("wall_s") or {}
    planned = [str(row.get("part", "")) for row in listed]
    listed = listed + [{"part": part} for part in wall if part not in planned]
    rows = [
        [
            Cell(str(row.get("part", "")).replace("_", " ")),
            *(
                Cell(words.magnitude(row.get(name)))
                for name in ("forwards", "tokens", "flops", "bytes")
            ),
            Cell(_wall(wall.get(row.get("part")))),
        ]
        for row in listed
    ]
    columns = ["part", "forwards", "tokens", "FLOPs", "bytes", "wall time"]
    return Table("Plan and time", columns, rows) if rows else None


def _wall(value: float | None) -> str:
    return words.NONE if value is None else words.seconds(value)
