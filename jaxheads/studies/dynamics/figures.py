"""Charts of a training: means over steps, single heads, and heads' paths."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.heads import head_name
from jaxheads.report import words
from jaxheads.report.charts import figure, halo, label
from jaxheads.report.figures import Figure
from jaxheads.runs import Run
from jaxheads.statistics import Interval
from jaxheads.studies.dynamics import findings as told

SHADES = {"induction": "induction", "function_vector": "fv"}
SETS = {
    "top": ("top 2 % of each step", "line"),
    "final": ("top 2 % of the last step", "dashes"),
    "every": ("all heads", "dots"),
}
METRIC_SHADES = {"first_token": "other-1", "f1": "other-3"}
KINDS = {"induction": "induction", "FV": "fv", "both": "other-2"}
_DASHES = {"line": [1, 0], "dashes": [5, 3], "dots": [1, 2]}
_TICKS = 7
_HEIGHT = 230


def places(steps: list[int]) -> list[float]:
    """Where steps stand on the axis: at log2, and step 0 before the first of them."""
    logs = [float(np.log2(step)) for step in steps if step > 0]
    gap = max(1.0, 0.08 * (logs[-1] - logs[0])) if logs else 1.0
    zero = (logs[0] if logs else 1.0) - gap
    return [zero if step == 0 else float(np.log2(step)) for step in steps]


def step_axis(run: Run) -> alt.X:
    """The axis of steps, labelled at some of them that stand well apart."""
    steps = told.steps(run)
    at = places(steps)
    least = (at[-1] - at[0]) / _TICKS
    ticks: list[tuple[float, int]] = []
    for place, step in zip(at, steps, strict=True):
        if not ticks or place - ticks[-1][0] >= least:
            ticks.append((place, step))
    text = "''"
    for place, step in ticks:  # numbers alone: nothing of a run is read as code
        text = f"abs(datum.value - {place!r}) < 1e-6 ? '{_short(step)}' : {text}"
    axis = alt.Axis(
        values=[place for place, _ in ticks], labelExpr=text, grid=False,
        labelOverlap=True,
    )  # fmt: skip
    ends = [at[0], at[-1]] if len(at) > 1 else [at[0] - 1, at[0] + 1]
    scale = alt.Scale(domain=ends, nice=False, padding=8)
    return alt.X("x:Q", title="training step (log scale)", scale=scale, axis=axis)


def _short(step: int) -> str:
    """A step as its axis has it: 512, 1k, 143k."""
    return f"{step // 1000}k" if step and step % 1000 == 0 else str(step)


def step_rows(run: Run, interval: Interval, **fixed: Any) -> list[dict[str, Any]]:
    """A row a step of one line."""
    steps = told.steps(run)
    parts = [np.asarray(part, float) for part in interval]
    return [
        fixed
        | {"x": place, "s": f"{step:,}"}
        | {key: float(f"{part[u]:.5g}") for key, part in zip("yab", parts, strict=True)}
        | {"t": words.with_interval(*(float(part[u]) for part in parts))}
        for u, (place, step) in enumerate(zip(places(steps), steps, strict=True))
    ]


def named_rows(
    rows: list[dict[str, Any]], names: dict[str, str]
) -> list[dict[str, Any]]:
    """The rows by names for people."""
    names = {"s": "training step"} | names
    return [{names[key]: row[key] for key in names if key in row} for row in rows]


def mean_score(run: Run, name: str) -> Figure:
    """Draw a score's mean over the top heads, and over all, against the step."""
    shade = f"@{SHADES[name]}"
    rows = [
        row
        for which, (text, mark) in SETS.items()
        for row in step_rows(run, told.curve(run, name, which), k=text, m=mark)
    ]
    y = alt.Y("y:Q", title="mean score", scale=alt.Scale(zero=True))
    base = alt.Chart(alt.Data(values=rows)).encode(x=step_axis(run), y=y)
    dash = alt.StrokeDash(
        "m:N",
        legend=None,
        scale=alt.Scale(domain=list(_DASHES), range=list(_DASHES.values())),
    )
    band = base.encode(y=alt.Y("a:Q", title="mean score"), y2="b:Q", detail="k:N")
    chart = alt.layer(
        band.mark_area(opacity=0.16, color=shade),
        base.mark_line(color=shade, strokeWidth=2).encode(strokeDash=dash),
        base.mark_circle(size=34, color=shade, opacity=1).encode(
            tooltip=_tooltip("mean over")
        ),
    )
    data = named_rows(rows, {"k": "mean over", "y": "mean", "a": "low", "b": "high"})
    return figure(words.title(name), "", chart, _HEIGHT, name=f"mean-{name}", data=data)


def _tooltip(what: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("k:N", title=what),
        alt.Tooltip("s:N", title="step"),
        alt.Tooltip("t:N", title="value"),
    ]


def accuracy(run: Run) -> Figure | None:
    """Draw few-shot accuracy of the whole model against the step."""
    measured = told.accuracy(run)
    if not measured:
        return None
    rows = [
        row
        for name, interval in measured.items()
        for row in step_rows(run, interval, k=words.short(name))
    ]
    domain = [words.short(name) for name in measured]
    shades = [f"@{METRIC_SHADES[name]}" for name in measured]
    scale = alt.Scale(domain=domain, range=shades)
    y = alt.Y("y:Q", title="accuracy", scale=alt.Scale(zero=True))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=step_axis(run), y=y, color=alt.Color("k:N", legend=None, scale=scale)
    )
    chart = alt.layer(
        base.encode(y=alt.Y("a:Q", title="accuracy"), y2="b:Q").mark_area(opacity=0.16),
        base.mark_line(strokeWidth=2),
        base.mark_circle(size=34, opacity=1).encode(tooltip=_tooltip("metric")),
    )
    data = named_rows(rows, {"k": "metric", "y": "mean", "a": "low", "b": "high"})
    return figure("Few-shot accuracy", "", chart, _HEIGHT, name="accuracy", data=data)


def kinds(run: Run) -> dict[tuple[int, int], str]:
    """The heads that are followed, and whether they lead by induction, FV or both."""
    induction, fv = told.followed(run).values()
    return {
        head: "both" if head in fv and head in induction else kind
        for kind, heads in (("induction", induction), ("FV", fv))
        for head in heads
    }


def _head_rows(run: Run, name: str) -> list[dict[str, Any]]:
    """A row a step of every head that is followed."""
    mean = run.arrays[f"dynamics/score/{name}"].astype(float)
    error = np.nan_to_num(run.arrays[f"dynamics/score/{name}_se"].astype(float))
    rows = []
    for (layer, head), kind in kinds(run).items():
        line, wide = mean[:, layer, head], error[:, layer, head]
        made = step_rows(
            run, Interval(line, line - wide, line + wide),
            h=head_name(layer, head), k=kind,
        )  # fmt: skip
        for row, value, spread in zip(made, line, wide, strict=True):
            row["t"] = words.with_error(float(value), float(spread))
            rows.append(row)
    return rows


def single_heads(run: Run, name: str) -> Figure:
    """Draw a score of the last step's top heads of both kinds against the step."""
    rows = _head_rows(run, name)
    y = alt.Y("y:Q", title="score", scale=alt.Scale(zero=True))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=step_axis(run), y=y, color=_kind_colour(), detail="h:N"
    )
    last = max(row["x"] for row in rows)
    ends = sorted((row for row in rows if row["x"] == last), key=lambda row: -row["y"])
    apart = 0.07 * (max(row["y"] for row in rows) - min(row["y"] for row in rows))
    leads: dict[str, dict[str, Any]] = {}
    for row in ends:  # a name that would stand on another's is left to its tooltip
        if all(abs(row["y"] - other["y"]) >= apart for other in leads.values()):
            leads.setdefault(row["k"], row)
    named = alt.Chart(alt.Data(values=list(leads.values())))
    named = named.encode(x=step_axis(run), y=y, text="h:N")
    side: dict[str, Any] = {"dx": -7, "dy": -8, "align": "right", "fontSize": 11}
    chart = alt.layer(
        base.mark_line(strokeWidth=1.6, opacity=0.9),
        base.mark_circle(size=26, opacity=1).encode(tooltip=_head_tooltip()),
        named.mark_text(stroke="@paper", strokeWidth=3, **side),
        named.mark_text(color="@ink", **side),
    )
    data = named_rows(rows, {"h": "head", "k": "kind", "y": "score"}
                      | {"a": "- standard error", "b": "+ standard error"})  # fmt: skip
    for row in data:
        row["kind"] = f"top by {row['kind']}"
    return figure(
        words.title(name), "", chart, _HEIGHT, name=f"heads-{name}", data=data
    )


def _kind_colour() -> alt.Color:
    shades = [f"@{shade}" for shade in KINDS.values()]
    return alt.Color(
        "k:N", legend=None, scale=alt.Scale(domain=list(KINDS), range=shades)
    )


def _head_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("h:N", title="head"),
        alt.Tooltip("k:N", title="top by"),
        alt.Tooltip("s:N", title="step"),
        alt.Tooltip("t:N", title="score"),
    ]


def one_head(run: Run) -> Figure:
    """Draw both scores of one head: the best that turned, or else the best by FV."""
    found = run.result["dynamics"]["transitions"]["followed"]
    chosen = next((one for one in found if one["made"]), found[0])
    rows = {
        name: [
            row
            for row in step_rows(
                run, _with_errors(run, name, chosen), k=words.title(name)
            )
        ]
        for name in told.SCORES
    }
    layers = []
    for name, side in zip(told.SCORES, ("left", "right"), strict=True):
        shade = f"@{SHADES[name]}"
        title = words.title(name)
        axis = alt.Axis(orient=side, titleColor=shade, labelColor=shade, grid=False)
        base = alt.Chart(alt.Data(values=rows[name])).encode(
            x=step_axis(run),
            y=alt.Y("y:Q", title=title, axis=axis, scale=alt.Scale(zero=True)),
        )
        line = base.mark_line(color=shade, strokeWidth=2)
        dots = base.mark_circle(size=40, color=shade, opacity=1)
        layers.append(alt.layer(line, dots.encode(tooltip=_tooltip("score"))))
    chart = alt.layer(*layers).resolve_scale(y="independent")
    note = "it made the transition" if chosen["made"] else "it made no transition"
    every = [row for part in rows.values() for row in part]
    data = named_rows(every, {"k": "score", "y": "value"}
                      | {"a": "- standard error", "b": "+ standard error"})  # fmt: skip
    return figure(
        f"Head {chosen['name']}: one head's two scores", note, chart, _HEIGHT,
        name="one-head", data=data,
    )  # fmt: skip


def _with_errors(run: Run, name: str, head: dict[str, Any]) -> Interval:
    at = np.s_[:, head["layer"], head["head"]]
    line = run.arrays[f"dynamics/score/{name}"][at].astype(float)
    wide = np.nan_to_num(run.arrays[f"dynamics/score/{name}_se"][at].astype(float))
    return Interval(line, line - wide, line + wide)


def paths(run: Run) -> Figure:
    """Draw each followed head's way through the plane of both scores."""
    x_rows, y_rows = (_head_rows(run, name) for name in told.SCORES)
    found = run.result["dynamics"]["transitions"]["followed"]
    turned = {one["name"] for one in found if one["made"]}
    rows = [
        {"h": a["h"], "k": a["k"], "s": a["s"], "o": a["x"], "x": a["y"], "y": b["y"]}
        | {"t": a["t"], "u": b["t"], "d": int(a["h"] in turned)}
        for a, b in zip(x_rows, y_rows, strict=True)
    ]
    axes = {
        "x": alt.X(
            "x:Q", title=words.title("induction"), scale=alt.Scale(zero=True)
        ).axis(grid=False, tickCount=8),
        "y": alt.Y(
            "y:Q", title=words.title("function_vector"), scale=alt.Scale(zero=True)
        ),
    }
    base = alt.Chart(alt.Data(values=rows)).encode(
        **axes, color=_kind_colour(), detail="h:N"
    )
    last = max(row["o"] for row in rows)
    ends = [row for row in rows if row["o"] == last]
    led = {kind: row for row in reversed(ends) for kind in (row["k"],)}
    names = [row for row in ends if row["d"] or row in led.values()]
    named = alt.Chart(alt.Data(values=names)).encode(**axes, text="h:N")
    end = alt.Chart(alt.Data(values=ends)).encode(
        **axes, color=_kind_colour(), tooltip=_path_tooltip()
    )
    wide = alt.condition("datum.d > 0", alt.value(3), alt.value(1.2))
    seen = alt.condition("datum.d > 0", alt.value(1), alt.value(0.55))
    shape = alt.condition("datum.d > 0", alt.value("diamond"), alt.value("circle"))
    chart = alt.layer(
        base.mark_line().encode(order="o:Q", strokeWidth=wide, opacity=seen),
        base.mark_circle(size=14, opacity=0.8).encode(tooltip=_path_tooltip()),
        halo(named),
        end.mark_point(filled=True, size=90, opacity=1).encode(shape=shape),
        label(named),
    )
    data = [
        {"head": row["h"], "kind": f"top by {row['k']}", "training step": row["s"]}
        | {"induction score": row["x"], "FV score": row["y"]}
        | {"transition": "made the transition" if row["d"] else "no"}
        for row in rows
    ]
    note = "one line a head, from the first step to the last (large mark)"
    return figure(
        "Both scores over training", note, chart, 340, name="paths", data=data
    )


def _path_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("h:N", title="head"),
        alt.Tooltip("k:N", title="top by"),
        alt.Tooltip("s:N", title="step"),
        alt.Tooltip("t:N", title="induction score"),
        alt.Tooltip("u:N", title="FV score"),
    ]
