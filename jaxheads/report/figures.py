"""What a chart is to the page and to a file: its specification and its numbers."""

import csv
import dataclasses
import io
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def to_csv(rows: Rows) -> str:
    """Write rows as CSV (RFC 4180, but lines end in a line feed).

    Args:
        rows: one dict a row, by the columns' names; a row may lack a column.

    Returns:
        A header and the rows. Floats have as many digits as they need to be read
        back the same; what is not known is left empty.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (float, np.floating)):
        # str of a float32 is the shortest text that reads back as that float32
        return str(value) if np.isfinite(value) else ""
    return str(value)


HEADS = "heads"  # the data set that the heat maps and the scatter share


@dataclasses.dataclass(frozen=True)
class Figure:
    """One chart with its title, a line of explanation and its specification.

    ``name`` tells it from the others of its section in names of files, and ``data``
    is the numbers behind it, one dict a row with columns named for people.
    """

    title: str
    note: str
    spec: dict[str, Any]
    renderer: str
    name: str
    data: Rows
