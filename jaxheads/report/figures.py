"""The page's charts, as Vega-Lite specifications made with Altair.

Colours are written as "@name": the page puts its own palette in, light or dark.
Fields have fixed names, so nothing that comes from a run is read as an expression.
"""

import csv
import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import altair as alt
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


def figure(
    title: str,
    note: str,
    chart: Any,
    height: int,
    cells: int = 0,
    *,
    name: str = "",
    data: Rows | None = None,
) -> Figure:
    """Finish a chart: as wide as its box, ``height`` pixels high.

    Args:
        title: printed above the chart.
        note: a line below the title.
        chart: of Altair, single or layered.
        height: in pixels.
        cells: number of marks; very many are drawn on a canvas instead of as SVG.
        name: as ``Figure.name``.
        data: as ``Figure.data``.
    """
    sized = chart.properties(width="container", height=height)
    spec = sized.to_dict(validate=False)  # against the schema takes as long as the rest
    for unneeded in ("config", "$schema"):
        spec.pop(unneeded, None)
    spec["description"] = f"{title}. {note}"
    return Figure(title, note, spec, "canvas" if cells > 2500 else "svg", name, data)


def label(chart: alt.Chart) -> alt.Chart:
    """Write a text to the upper right of its point."""
    return chart.mark_text(dx=8, dy=-5, align="left", fontSize=11, color="@ink")


def halo(chart: alt.Chart) -> alt.Chart:
    """Clear the ground under a label, so that lines do not strike it through."""
    return chart.mark_text(
        dx=8, dy=-5, align="left", fontSize=11, stroke="@paper", strokeWidth=3
    )
