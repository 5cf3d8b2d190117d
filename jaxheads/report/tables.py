"""Tables of the page and of the terminal: plain text cells, on the page with bars."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxheads.report import words

if TYPE_CHECKING:
    from rich.table import Table as Printed


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
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]  # of cells; a text given becomes one
    numbers: int = 1
    stacked: bool = False  # whether a cell's small text stands below, or before it

    def __post_init__(self) -> None:
        made = [[c if isinstance(c, Cell) else Cell(c) for c in r] for r in self.rows]
        object.__setattr__(self, "rows", made)

    def without(self, *names: str) -> "Table":
        """The table less some columns, for which there is no room."""
        keep = [n for n, name in enumerate(self.columns) if name not in names]
        return dataclasses.replace(
            self,
            columns=[self.columns[n] for n in keep],
            rows=[[row[n] for n in keep] for row in self.rows],
            numbers=sum(n < self.numbers for n in keep),
        )


def printed(table: Table) -> "Printed":
    """Make a table of the terminal, where only numbers keep their small text."""
    from rich.table import Table as Printed
    from rich.text import Text

    made = Printed(title=Text(table.caption, "table.title") if table.caption else None)
    for n, name in enumerate(table.columns):
        side = "right" if n >= table.numbers else "left"
        made.add_column(Text(name), justify=side, overflow="fold")
    for row in table.rows:
        smalls = [f" {one.small}" * (n >= table.numbers) for n, one in enumerate(row)]
        texts = [one.text + small for one, small in zip(row, smalls, strict=True)]
        made.add_row(*(Text(t.rstrip(" ").replace("\u00a0", " ")) for t in texts))
    return made


def plan(rows: Sequence[dict[str, Any]], wall: dict[str, float], caption: str) -> Table:
    """Set planned work, as a run states it, against the seconds that it took by part.

    What was not planned and took time has a row, too.
    """
    planned = [row["part"] for row in rows]
    made = []
    for row in [*rows, *({"part": part} for part in wall if part not in planned)]:
        chunks = [str(one["chunk"]) for one in row.get("programs", ())]
        seconds = (row.get("expected_s"), wall.get(row["part"]))
        made.append(
            [
                row["part"].replace("_", " "),
                *(
                    words.magnitude(row.get(name))
                    for name in ("forwards", "tokens", "flops", "bytes")
                ),
                " ".join(dict.fromkeys(chunks)) or words.NONE,
                *(words.NONE if s is None else words.seconds(s) for s in seconds),
            ]
        )
    columns = ["part", "forwards", "tokens", "FLOPs", "bytes", "at once", "expected"]
    return Table(caption, [*columns, "wall time"], made)
