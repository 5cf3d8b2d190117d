"""Charts of what the ablations did: curves over fractions, and heads kept."""

import math
from typing import Any

import altair as alt

from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
from jaxheads.studies.ablation import outcomes
from jaxheads.studies.ablation.outcomes import Line, Outcome, Panel, Point

CLEAN = "no head replaced"  # the name of the dotted line
_HEIGHT = 230


def curve_figures(outcome: Outcome, panels: list[Panel]) -> list[Figure]:
    """Draw the panels of one outcome on one scale."""
    return draw(panels, outcome.unit)


def draw(panels: list[Panel], unit: str, height: int = _HEIGHT) -> list[Figure]:
    """Draw panels of one quantity on one scale."""
    if not panels:
        return []
    lines = [line for panel in panels for line in panel.lines]
    points = [point for line in lines for point in _known(line.points)]
    points += [panel.clean for panel in panels if panel.clean]
    low = min([0.0, *(point.low for point in points)])
    high = max([0.0, *(point.high for point in points)])
    domain = (1.05 * low, 1.05 * high if high > 0 else 1.0)
    return [_curves(panel, domain, unit, height) for panel in panels]


def _curves(
    panel: Panel, domain: tuple[float, float], unit: str, height: int
) -> Figure:
    title = panel.quantity + (f" ({unit})" if unit else "")
    axes = {
        "x": alt.X("x:Q", title=panel.axis).axis(grid=False),
        "color": charts.colours(_shades(panel.lines)),
    }
    y = alt.Y("y:Q", title=title, scale=alt.Scale(domain=list(domain)))
    layers: list[alt.Chart] = []
    if panel.clean:
        layers.append(charts.level(panel.clean.value, y, strokeDash=[1, 2]))
    texts = {"s": "replaced", "x:Q .3~g": "share (%)", "n:Q": "heads", "t": "value"}
    texts = charts.tips(texts | {"w": "in brackets"})
    for dashed in (True, False):
        lines = [line for line in panel.lines if line.dashed == dashed]
        if lines:
            rows = [row for line in lines for row in _line_rows(line, panel)]
            base = charts.on(rows, **axes)
            draw_lines = charts.dashed if dashed else charts.curves
            *lines, dots = draw_lines(base, y, texts, 18 if dashed else 45)
            if panel.lead:
                dots = dots.transform_filter("datum.x > 0")
            layers += [*lines, dots]
    return charts.figure(
        panel.title, "", layers, height, name=panel.name, data=_data(panel, title)
    )


def _data(panel: Panel, title: str) -> Rows:
    clean = [(CLEAN, panel.clean, "95 % interval")] if panel.clean else []
    lines = [(line.label, p, line.spread) for line in panel.lines for p in line.points]
    return [
        {"replaced": label, panel.axis: 100 * point.fraction}
        | {"heads replaced": point.replaced, title: point.value}
        | {f"{title}, low": point.low, f"{title}, high": point.high}
        | {"low to high": spread}
        for label, point, spread in [*clean, *lines]
    ]


def _known(points: list[Point]) -> list[Point]:
    """Leave out the points where a quantity of a set is not defined."""
    return [point for point in points if math.isfinite(point.value)]


def _shades(lines: list[Line]) -> dict[str, str]:
    return {line.label: line.colour for line in lines}


def _row(series: str, point: Point, spread: str) -> dict[str, Any]:
    return {
        "s": series,
        "x": 100 * point.fraction,
        "y": point.value,
        "a": point.low,
        "b": point.high,
        "t": words.with_interval(point.value, point.low, point.high)
        if spread
        else words.number(point.value),
        "n": point.replaced,
        "w": spread,
    }


def _line_rows(line: Line, panel: Panel) -> list[dict[str, Any]]:
    """Write a line's points, led by the clean value where nothing is replaced."""
    rows = [_row(line.label, point, line.spread) for point in _known(line.points)]
    if panel.clean and panel.lead and line.points[0].fraction > 0:
        start = _row(line.label, panel.clean, line.spread) | {"x": 0}
        if line.spread.startswith("range"):  # all draws start from one value
            start |= {"a": panel.clean.value, "b": panel.clean.value}
        rows.insert(0, start)
    return rows


def kept(outcome: Outcome) -> Figure | None:
    """Draw the accuracy that a few heads keep when all others are replaced.

    Against the share of heads where there are more than two, else each set alone.
    """
    curve = outcomes.kept_panel(outcome)
    if curve:
        return curve_figures(outcome, [curve])[0]
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
    shades = {"all": "ink"} | _shades(lines)
    title = outcome.quantity
    axis = alt.Axis(tickCount=5, labelOverlap=True)
    x = alt.X("y:Q", title=title, scale=alt.Scale(zero=True), axis=axis)
    texts = {"k": "kept", "n:Q": "heads replaced", "t": "value", "w": "in brackets"}
    layers = charts.dots(rows, x, charts.colours(shades), charts.tips(texts), 180)
    names = {"k": "kept", "n": "heads replaced", "y": title, "a": f"{title}, low"}
    names |= {"b": f"{title}, high", "w": "low to high"}
    return charts.figure(
        words.sentence(title), "", layers, 24 * len(rows) + 10,
        name=f"kept-{outcome.name}", data=charts.named(rows, names),
    )  # fmt: skip
