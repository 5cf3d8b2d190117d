"""The kit that charts are made with: Vega-Lite specifications, by Altair.

Colours are written as "@name": the page puts its own palette in, light or dark.
Fields have fixed names, so nothing that comes from a run is read as an expression:
mostly x and y, a and b for the ends of an interval, s for the series, t for a text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from jaxheads.report.figures import Figure, Rows


def figure(
    title: str,
    note: str,
    chart: Any,
    height: int,
    cells: int = 0,
    *,
    name: str,
    data: Rows,
) -> Figure:
    """Finish a chart: as wide as its box, ``height`` pixels high.

    Args:
        title: printed above the chart.
        note: a line below the title.
        chart: of Altair, or a list of its layers, the lowest first.
        height: in pixels.
        cells: number of marks; very many are drawn on a canvas instead of as SVG.
        name: as ``Figure.name``.
        data: as ``Figure.data``.
    """
    chart = alt.layer(*chart) if isinstance(chart, list) else chart
    sized = chart.properties(width="container", height=height)
    spec = sized.to_dict(validate=False)  # against the schema takes as long as the rest
    for unneeded in ("config", "$schema"):
        spec.pop(unneeded, None)
    spec["description"] = f"{title}. {note}"
    return Figure(title, note, spec, "canvas" if cells > 2500 else "svg", name, data)


def plain(value: Any, digits: int = 5) -> float | None:
    """Round a number as the page keeps it; None: it is not finite."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def named(rows: Rows, names: Mapping[str, str]) -> Rows:
    """Take the fields out of rows that have a name for people, in the names' order."""
    return [{names[key]: row[key] for key in names if key in row} for row in rows]


def on(rows: Rows, **channels: Any) -> alt.Chart:
    """Begin a layer, or what several share: its rows, and what they are drawn by."""
    return alt.Chart(alt.Data(values=rows)).encode(**channels)


def tips(names: Mapping[str, str]) -> list[alt.Tooltip]:
    """Tell fields when pointed at: "s" a text, "x:Q" a number, "y:Q .3g" formatted."""
    made = []
    for key, title in names.items():
        field, _, form = key.partition(" ")
        field = field if ":" in field else f"{field}:N"
        made.append(alt.Tooltip(field, title=title, format=form or alt.Undefined))
    return made


def colours(shades: Mapping[Any, str], field: str = "s") -> alt.Color:
    """Colour by name; the section has the legend."""
    return alt.Color(f"{field}:N", legend=None, scale=_scale(shades, "@"))


def shapes(marks: Mapping[Any, str], field: str = "s") -> alt.Shape:
    """Give a shape by name."""
    return alt.Shape(f"{field}:N", legend=None, scale=_scale(marks))


def _scale(values: Mapping[Any, str], before: str = "") -> alt.Scale:
    drawn = [f"{before}{value}" for value in values.values()]
    return alt.Scale(domain=list(values), range=drawn)


def gradient(
    field: str, domain: Sequence[float], shades: Sequence[str], **legend: Any
) -> alt.Color:
    """Colour by number, from shade to shade, with a legend below the chart."""
    look = {"gradientThickness": 8, "gradientLength": 160, "format": ".2~f"} | legend
    drawn = [f"@{shade}" for shade in shades]
    scale = alt.Scale(domain=list(domain), range=drawn, interpolate="rgb", clamp=True)
    return alt.Color(
        f"{field}:Q",
        scale=scale,
        legend=alt.Legend(orient="bottom", title=None, **look),
    )


def either(test: str, yes: Any, no: Any) -> Any:
    """Look one way where an expression over ``datum`` holds, and else another."""
    return alt.condition(test, alt.value(yes), alt.value(no))


def level(value: float, y: Any = "y:Q", color: str = "@ink", **look: Any) -> alt.Chart:
    """Draw a line across the chart at ``value`` of its vertical axis."""
    return on([{"y": value}], y=y).mark_rule(color=color, **look)


def span(base: alt.Chart, axis: alt.X | alt.Y, ends: str = "ab") -> alt.Chart:
    """Reach along an axis from field to field, as its title says: rules, bands."""
    first, last = (f"{end}:Q" for end in ends)
    if isinstance(axis, alt.X):
        return base.encode(x=alt.X(first, title=axis["title"]), x2=last)
    return base.encode(y=alt.Y(first, title=axis["title"]), y2=last)


def curves(
    base: alt.Chart, y: Any, told: Sequence[alt.Tooltip], size: int = 34, **look: Any
) -> list[alt.Chart]:
    """Draw lines with dots over their bands from a to b."""
    return [
        span(base, y).mark_area(opacity=0.16, **look),
        base.encode(y=y).mark_line(strokeWidth=2, **look),
        base.encode(y=y, tooltip=told).mark_circle(size=size, opacity=1, **look),
    ]


def dashed(
    base: alt.Chart, y: Any, told: Sequence[alt.Tooltip], size: int = 18
) -> list[alt.Chart]:
    """Draw dashed lines with small dots."""
    line = base.encode(y=y).mark_line(strokeDash=[4, 3], strokeWidth=1.5)
    return [line, base.encode(y=y, tooltip=told).mark_circle(size=size, opacity=1)]


def dots(
    rows: Rows, x: alt.X, colour: alt.Color, told: Sequence[alt.Tooltip], limit: int
) -> list[alt.Chart]:
    """Draw a row for each text k, of ``limit`` pixels: a dot on its interval."""
    y = alt.Y("k:N", title=None, sort=None).axis(
        labelLimit=limit, ticks=False, domain=False, grid=True, labelPadding=8
    )
    base = on(rows, y=y, color=colour, tooltip=told)
    ends = span(base, x).mark_rule(strokeWidth=2)
    return [ends, base.encode(x=x).mark_circle(size=70, opacity=1)]


def steps(**scale: Any) -> alt.X:
    """Set training steps out from left to right."""
    scaled = alt.Scale(**scale) if scale else alt.Undefined
    return alt.X("x:Q", title="training step", scale=scaled).axis(grid=False)


def seed_lines(
    rows: Rows,
    title: str,
    unit: str,
    several: bool,
    x: alt.X | None = None,
    shades: Mapping[str, str] | None = None,
) -> list[alt.Chart]:
    """Draw a thin line for each seed n, and their mean, against the step.

    Args:
        rows: with n, x and y.
        title: of what is drawn, when it is pointed at.
        unit: of the vertical axis.
        several: whether there is more than one seed, and so a mean.
        x: the axis of steps, if it is a special one.
        shades: of the arms s, where there are arms.
    """
    y = alt.Y("y:Q", title=unit, scale=alt.Scale(zero=False))
    told = {"s": "arm"} if shades else {}
    told |= {"n": "seed", "x:Q": "step", "y:Q .3g": title}
    base = on(rows, x=x or steps(), y=y)
    thin: dict[str, Any] = {"color": "@induction", "opacity": 0.55}
    thick: dict[str, Any] = {"color": "@ink", "strokeWidth": 2}
    if shades:
        base = base.encode(color=colours(shades))
        thin, thick = {"opacity": 0.4}, {"strokeWidth": 2.5}
    lines = base.encode(detail="n:N", tooltip=tips(told))
    layers = [lines.mark_line(strokeWidth=1, **thin)]
    if several:
        mean = base.encode(y=alt.Y("mean(y):Q", title=unit))
        layers.append(mean.mark_line(**thick))
    return layers


def texts(chart: alt.Chart, **place: Any) -> tuple[alt.Chart, alt.Chart]:
    """Write a text beside its point, and clear the ground under it of lines.

    Returns:
        The ground, for below the marks, and the text.
    """
    place = {"dx": 8, "dy": -5, "align": "left", "fontSize": 11} | place
    ground = chart.mark_text(stroke="@paper", strokeWidth=3, **place)
    return ground, chart.mark_text(color="@ink", **place)
