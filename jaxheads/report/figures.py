"""What a chart is to the page and to a file: its specification and its numbers."""

import csv
import dataclasses
import io
from collections.abc import Iterator
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


def from_spec(spec: dict[str, Any], named: dict[str, Rows]) -> Rows:
    """Read a chart's own data, its fields named as axes and tooltips name them.

    Args:
        spec: of Vega-Lite, single, layered or concatenated.
        named: rows of data sets that the specification refers to by name only.

    Returns:
        The rows of all data sets; a field without any title is left out.
    """
    sets = named | spec.get("datasets", {})
    columns: dict[str, dict[str, str]] = {}  # data set -> field -> title
    inline: dict[str, Rows] = {}
    for unit, data in _units(spec, {}):
        name = data.get("name") or f"inline {id(data.get('values'))}"
        inline.setdefault(name, data.get("values") or sets.get(name) or [])
        known = columns.setdefault(name, {})
        for field, title in _titles(unit.get("encoding", {})):
            if title not in known.values():  # the axis comes before its tooltip
                known.setdefault(field, title)
    return [
        {columns[name][field]: row[field] for field in columns[name] if field in row}
        for name, rows in inline.items()
        for row in rows
        if isinstance(row, dict) and columns[name].keys() & row.keys()
    ]


def set_names(spec: dict[str, Any]) -> set[str]:
    """Name the data sets that a chart reads by name."""
    return {data["name"] for _, data in _units(spec, {}) if data.get("name")}


def _units(spec: dict, data: dict) -> Iterator[tuple[dict, dict]]:
    """Yield every single chart with the data that it inherits."""
    data = spec.get("data") or data
    parts = [
        part for kind in ("layer", "hconcat", "vconcat", "concat")
        for part in spec.get(kind, [])
    ]  # fmt: skip
    if isinstance(spec.get("spec"), dict):
        parts.append(spec["spec"])
    if not parts:
        yield spec, data
    for part in parts:
        inherited = {**spec.get("encoding", {}), **part.get("encoding", {})}
        yield from _units({**part, "encoding": inherited}, data)


def _titles(encoding: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (field, title): ends of an interval after their axis, tooltips last."""
    for axis in ("x", "y"):
        first, second = encoding.get(axis, {}), encoding.get(f"{axis}2", {})
        if second.get("field"):
            title = first.get("title") or axis
            yield first.get("field", ""), f"{title}, low"
            yield second["field"], f"{title}, high"
    told = encoding.get("tooltip", [])
    told = told if isinstance(told, list) else [told]
    for channel in [*encoding.values(), *told]:
        if isinstance(channel, dict) and channel.get("field") and channel.get("title"):
            title = channel["title"]
            yield channel["field"], title if isinstance(title, str) else " ".join(title)


HEADS = "heads"  # the data set that the heat maps and the scatter share


@dataclasses.dataclass(frozen=True)
class Figure:
    """One chart with its title, a line of explanation and its specification.

    ``name`` tells it from the others of its section in names of files, and ``data``
    is the numbers behind it, one dict a row with columns named for people; without
    them they are made from the titles and read from the specification.
    """

    title: str
    note: str
    spec: dict[str, Any]
    renderer: str = "svg"
    name: str = ""
    data: Rows | None = None
