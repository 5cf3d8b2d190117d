"""Charts of function vectors at work: by condition, by layer, by number of heads."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import words
from jaxheads.report.charts import figure
from jaxheads.report.figures import Figure, Rows
from jaxheads.statistics import Interval
from jaxheads.studies.function_vectors.findings import KINDS, PLACES, Executed

_TITLE = "first-token accuracy"
_SERIES = {"function vector": "fv", "random heads": "random"}
_HEIGHT = 230


def conditions(found: Executed, kind: str) -> Figure:
    """Draw the accuracy of each condition with its interval."""
    listed = found.conditions(kind)
    intervals = [found.interval(one.right) for one in listed]
    rows = [
        {"k": one.label, "c": one.colour} | _measured(interval)
        for one, interval in zip(listed, intervals, strict=True)
        if interval
    ]
    shades = list(dict.fromkeys(one.colour for one in listed))
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("k:N", title=None, sort=None).axis(
            labelLimit=200, ticks=False, domain=False, grid=True, labelPadding=8
        ),
        color=alt.Color(
            "c:N",
            legend=None,
            scale=alt.Scale(domain=shades, range=[f"@{shade}" for shade in shades]),
        ),
        tooltip=[
            alt.Tooltip("k:N", title="condition"),
            alt.Tooltip("t:N", title="accuracy"),
        ],
    )
    scale, axis = alt.Scale(domain=[0, 1]), alt.Axis(tickCount=5)
    chart = alt.layer(
        base.encode(x=alt.X("a:Q", title=_TITLE, axis=axis, scale=scale), x2="b:Q")
        .mark_rule(strokeWidth=2),
        base.encode(x=alt.X("y:Q", title=_TITLE, axis=axis, scale=scale))
        .mark_circle(size=70, opacity=1),
    )  # fmt: skip
    data = [{"condition": row["k"]} | _named(row) for row in rows]
    return figure(
        words.sentence(KINDS[kind]), "", chart, 28 * len(rows) + 10,
        name=f"conditions-{kind}", data=data,
    )  # fmt: skip


def by_layer(found: Executed) -> list[Figure]:
    """Draw accuracy against the layer that vectors are added at, for each kind."""
    layers = found.run.arrays["execution/layers"].tolist()
    title = (
        f"layer ({PLACES[found.part['place']].split()[0]} which the vector is added)"
    )
    panels = [_panel(found, kind, "", layers) for kind in KINDS]
    marks = {"x": found.part["layer"], "t": f"L // 3 = {found.part['layer']}"}
    return _drawn(panels, title, "layers", alt.Scale(nice=False), marks)


def by_size(found: Executed) -> list[Figure]:
    """Draw accuracy against the number of heads in a vector, for each kind."""
    counts = found.part["counts"]
    order = np.argsort(counts, kind="stable").tolist()
    panels = [_panel(found, kind, "_sizes", counts, order) for kind in KINDS]
    scale = alt.Scale(type="log", nice=False, padding=8)
    return _drawn(
        panels, "heads in the vector (log scale)", "sizes", scale, None, counts
    )


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
    panels: list[dict[str, Any]],
    x_title: str,
    name: str,
    scale: alt.Scale,
    mark: dict[str, Any] | None,
    ticks: list[int] | None = None,
) -> list[Figure]:
    """Draw panels on one scale."""
    top = max(max(row["b"] for row in panel["rows"]) for panel in panels)
    top = max(top, *(panel["level"] for panel in panels), 0.05)
    y_scale = alt.Scale(domain=[0, min(1.0, 1.08 * top)])
    axis: dict[str, Any] = {"grid": False, "tickMinStep": 1}
    if ticks:
        axis["values"] = sorted(ticks)
    made = []
    for panel in panels:
        base = alt.Chart(alt.Data(values=panel["rows"])).encode(
            x=alt.X("x:Q", title=x_title, scale=scale).axis(**axis),
            color=alt.Color(
                "s:N",
                legend=None,
                scale=alt.Scale(
                    domain=list(_SERIES),
                    range=[f"@{shade}" for shade in _SERIES.values()],
                ),
            ),
        )
        y = alt.Y("y:Q", title=_TITLE, scale=y_scale)
        level = alt.Chart(alt.Data(values=[{"y": panel["level"]}]))
        layers: list[Any] = [
            level.mark_rule(color="@ink", strokeWidth=1, strokeDash=[1, 2]).encode(y=y)
        ]
        if mark:
            third = alt.Chart(alt.Data(values=[mark]))
            layers.append(
                third.mark_rule(color="@ink", strokeDash=[4, 3], strokeWidth=1).encode(
                    x="x:Q", tooltip=[alt.Tooltip("t:N", title="layer")]
                )
            )
        layers += [
            base.encode(y=alt.Y("a:Q", title=_TITLE), y2="b:Q").mark_area(opacity=0.16),
            base.encode(y=y).mark_line(strokeWidth=2),
            base.encode(
                y=y,
                tooltip=[
                    alt.Tooltip("s:N", title="vector of"),
                    alt.Tooltip("x:Q", title=x_title),
                    alt.Tooltip("t:N", title="accuracy"),
                    alt.Tooltip("w:N", title="in brackets"),
                ],
            ).mark_circle(size=40, opacity=1),
        ]
        data: Rows = [
            {"vector of": row["s"], x_title: row["x"]}
            | _named(row)
            | {"low to high": row["w"]}
            for row in panel["rows"]
        ]
        data.append({"vector of": "none", _TITLE: panel["level"]})
        made.append(
            figure(
                words.sentence(KINDS[panel["kind"]]),
                "",
                alt.layer(*layers),
                _HEIGHT,
                name=f"{name}-{panel['kind']}",
                data=data,
            )
        )
    return made


def _measured(interval: Interval) -> dict[str, Any]:
    mean, low, high = (float(f"{value:.5g}") for value in interval)
    text = words.with_interval(*interval)
    return {"y": mean, "a": low, "b": high, "t": text}


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {_TITLE: row["y"], f"{_TITLE}, low": row["a"], f"{_TITLE}, high": row["b"]}
