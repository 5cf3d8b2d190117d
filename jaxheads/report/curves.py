"""Charts of what the ablations did: curves over fractions, and heads kept."""

from typing import Any

import altair as alt

from jaxheads.report import outcomes, words
from jaxheads.report.figures import Figure, figure
from jaxheads.report.outcomes import Line, Outcome, Panel, Point

_HEIGHT = 230


def curve_figures(outcome: Outcome, panels: list[Panel]) -> list[Figure]:
    """Draw the panels of one outcome on one scale."""
    lines = [line for panel in panels for line in panel.lines]
    points = [point for line in lines for point in line.points]
    points += [panel.clean for panel in panels if panel.clean]
    low = min(0.0, *(point.low for point in points))
    high = max(point.high for point in points)
    domain = (1.05 * low, 1.05 * high if high > 0 else 1.0)
    return [_curves(panel, domain, outcome.unit) for panel in panels]


def _curves(panel: Panel, domain: tuple[float, float], unit: str) -> Figure:
    title = panel.quantity + (f" ({unit})" if unit else "")
    axes = {
        "x": alt.X("x:Q", title="heads replaced (%)").axis(grid=False),
        "y": alt.Y("y:Q", title=title, scale=alt.Scale(domain=list(domain))),
        "color": alt.Color("s:N", scale=_palette(panel.lines), legend=None),
    }
    layers: list[alt.Chart] = []
    if panel.clean:
        level = alt.Chart(alt.Data(values=[{"y": panel.clean.value}]))
        rule = level.mark_rule(color="@ink", strokeWidth=1, strokeDash=[1, 2])
        layers.append(rule.encode(y=axes["y"]))
    for dashed in (True, False):
        lines = [line for line in panel.lines if line.dashed == dashed]
        if lines:
            layers += _strokes(panel, lines, dashed, axes, title)
    return figure(panel.title, "", alt.layer(*layers), _HEIGHT)


def _strokes(
    panel: Panel, lines: list[Line], dashed: bool, axes: dict[str, Any], title: str
) -> list[alt.Chart]:
    """Draw lines with their dots; the solid ones over their bands."""
    rows = [row for line in lines for row in _line_rows(line, panel)]
    base = alt.Chart(alt.Data(values=rows)).encode(**axes)
    measured = [row for row in rows if row["x"] > 0]
    dots = alt.Chart(alt.Data(values=measured)).encode(**axes, tooltip=_tooltip())
    if dashed:
        stroke = base.mark_line(strokeDash=[4, 3], strokeWidth=1.5)
        return [stroke, dots.mark_circle(size=18, opacity=1)]
    band = base.encode(y=alt.Y("a:Q", title=title), y2="b:Q")
    return [
        band.mark_area(opacity=0.16),
        base.mark_line(strokeWidth=2),
        dots.mark_circle(size=45, opacity=1),
    ]


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("s:N", title="replaced"),
        alt.Tooltip("x:Q", title="share (%)", format=".3~g"),
        alt.Tooltip("n:Q", title="heads"),
        alt.Tooltip("t:N", title="value"),
        alt.Tooltip("w:N", title="in brackets"),
    ]


def _palette(lines: list[Line]) -> alt.Scale:
    return alt.Scale(
        domain=[line.label for line in lines],
        range=[f"@{line.colour}" for line in lines],
    )


def _row(series: str, point: Point, spread: str) -> dict[str, Any]:
    return {
        "s": series,
        "x": 100 * point.fraction,
        "y": point.value,
        "a": point.low,
        "b": point.high,
        "t": words.with_interval(point.value, point.low, point.high),
        "n": point.replaced,
        "w": spread,
    }


def _line_rows(line: Line, panel: Panel) -> list[dict[str, Any]]:
    """Write a line's points, led by the clean value where nothing is replaced."""
    rows = [_row(line.label, point, line.spread) for point in line.points]
    if panel.clean and line.points[0].fraction > 0:
        start = _row(line.label, panel.clean, line.spread) | {"x": 0}
        if line.spread.startswith("range"):  # all draws start from one value
            start |= {"a": panel.clean.value, "b": panel.clean.value}
        rows.insert(0, start)
    return rows


def kept(outcome: Outcome) -> Figure | None:
    """Draw the accuracy that a few heads keep when all others are replaced."""
    lines = outcomes.kept_lines(outcome)
    if not lines:
        return None
    rows = []
    if outcome.clean is not None:
        clean = outcome.point([outcome.clean])
        rows.append(_row("all", clean, "95 % interval") | {"k": "all heads"})
    rows += [
        _row(line.label, point, line.spread)
        | {"k": f"{line.label}, {words.percent(point.fraction)}"}
        for line in sorted(lines, key=lambda line: line.colour == "random")
        for point in line.points
    ]
    palette = _palette([Line("all", "ink", False, "", []), *lines])
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("k:N", title=None, sort=None).axis(
            labelLimit=180, ticks=False, domain=False, grid=True, labelPadding=8
        ),
        color=alt.Color("s:N", scale=palette, legend=None),
        tooltip=[
            alt.Tooltip("k:N", title="kept"),
            alt.Tooltip("n:Q", title="heads replaced"),
            alt.Tooltip("t:N", title="value"),
            alt.Tooltip("w:N", title="in brackets"),
        ],
    )
    title = outcome.quantity
    axis = alt.Axis(tickCount=5, labelOverlap=True)
    x = alt.X("y:Q", title=title, scale=alt.Scale(zero=True), axis=axis)
    chart = alt.layer(
        base.encode(x=alt.X("a:Q", title=title, axis=axis), x2="b:Q").mark_rule(
            strokeWidth=2
        ),
        base.encode(x=x).mark_circle(size=70, opacity=1),
    )
    return figure(words.sentence(title), "", chart, 24 * len(rows) + 10)
