"""Charts of function vectors at work: by condition, by layer, by number of heads."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import charts, words
from jaxheads.report.figures import Figure
from jaxheads.statistics import Interval
from jaxheads.studies.function_vectors.findings import KINDS, PLACES, Executed

_TITLE = "first-token accuracy"
_SERIES = {"function vector": "fv", "random heads": "random"}
_HEIGHT = 230
_NAMES = {"y": _TITLE, "a": f"{_TITLE}, low", "b": f"{_TITLE}, high"}


def conditions(found: Executed, kind: str) -> Figure:
    """Draw the accuracy of each condition with its interval."""
    listed = found.conditions(kind)
    rows = [
        {"k": one.label, "c": one.colour} | _measured(interval)
        for one in listed
        if (interval := found.interval(one.right))
    ]
    x = alt.X("y:Q", title=_TITLE, scale=alt.Scale(domain=[0, 1]))
    shades = charts.colours({one.colour: one.colour for one in listed}, "c")
    texts = charts.tips({"k": "condition", "t": "accuracy"})
    layers = charts.dots(rows, x.axis(tickCount=5), shades, texts, 200)
    data = charts.named(rows, {"k": "condition"} | _NAMES)
    return charts.figure(
        words.sentence(KINDS[kind]), "", layers, 28 * len(rows) + 10,
        name=f"conditions-{kind}", data=data,
    )  # fmt: skip


def by_layer(found: Executed) -> list[Figure]:
    """Draw accuracy against the layer that vectors are added at, for each kind."""
    layers = found.run.arrays["execution/layers"].tolist()
    place, third = PLACES[found.part["place"]].split()[0], found.part["layer"]
    x = alt.X("x:Q", title=f"layer ({place} which the vector is added)")
    x = x.scale(nice=False).axis(grid=False, tickMinStep=1)
    mark = charts.on(
        [{"x": third, "t": f"L // 3 = {third}"}],
        x="x:Q",
        tooltip=charts.tips({"t": "layer"}),
    ).mark_rule(color="@ink", strokeDash=[4, 3], strokeWidth=1)
    panels = [_panel(found, kind, "", layers) for kind in KINDS]
    return _drawn(panels, "layers", x, [mark])


def by_size(found: Executed) -> list[Figure]:
    """Draw accuracy against the number of heads in a vector, for each kind."""
    counts = found.part["counts"]
    order = np.argsort(counts, kind="stable").tolist()
    panels = [_panel(found, kind, "_sizes", counts, order) for kind in KINDS]
    x = alt.X("x:Q", title="heads in the vector (log scale)")
    x = x.scale(type="log", nice=False, padding=8)
    x = x.axis(grid=False, tickMinStep=1, values=sorted(counts))
    return _drawn(panels, "sizes", x, [])


def _panel(
    found: Executed, kind: str, what: str, at: list[int], order: list[int] | None = None
) -> dict[str, Any]:
    """Rows of both lines and the level without a vector, of one kind of prompts."""
    order = order or list(range(len(at)))
    vector = found.interval(found.right(f"{kind}{what or '_vector'}"))
    assert vector is not None
    lines = {"function vector": (vector, "95 % interval")}
    if found.has(f"{kind}_random{what}"):
        values = found.right(f"{kind}_random{what}")  # [Y, X, U, B]
        each = values.mean(axis=(-2, -1))
        mean = Interval(each.mean(0), each.min(0), each.max(0))
        lines["random heads"] = (mean, f"range of {words.plural(len(each), 'draw')}")
    rows = []
    for label, (interval, spread) in lines.items():
        for n in order:
            one = Interval(*(float(part[n]) for part in interval))
            rows.append({"s": label, "x": at[n], "w": spread} | _measured(one))
    level = found.interval(found.right(kind))
    assert level is not None
    return {"kind": kind, "rows": rows, "level": float(level.mean)}


def _drawn(
    panels: list[dict[str, Any]], name: str, x: alt.X, marks: list[alt.Chart]
) -> list[Figure]:
    """Draw panels on one scale."""
    top = max(max(row["b"] for row in panel["rows"]) for panel in panels)
    top = max(top, *(panel["level"] for panel in panels), 0.05)
    y = alt.Y("y:Q", title=_TITLE, scale=alt.Scale(domain=[0, min(1.0, 1.08 * top)]))
    names = {"s": "vector of", "x": x["title"]} | _NAMES | {"w": "low to high"}
    texts = {"s": "vector of", "x:Q": x["title"], "t": "accuracy", "w": "in brackets"}
    made = []
    for panel in panels:
        base = charts.on(panel["rows"], x=x, color=charts.colours(_SERIES))
        lines = charts.curves(base, y, charts.tips(texts), 40)
        data = charts.named(panel["rows"], names)
        data.append({"vector of": "none", _TITLE: panel["level"]})
        made.append(
            charts.figure(
                words.sentence(KINDS[panel["kind"]]), "",
                [charts.level(panel["level"], y, strokeDash=[1, 2]), *marks, *lines],
                _HEIGHT, name=f"{name}-{panel['kind']}", data=data,
            )
        )  # fmt: skip
    return made


def _measured(interval: Interval) -> dict[str, Any]:
    ends = {
        key: charts.plain(value) for key, value in zip("yab", interval, strict=True)
    }
    return ends | {"t": words.with_interval(*interval)}
