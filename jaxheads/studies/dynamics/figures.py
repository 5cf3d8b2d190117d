"""Charts of a training: means over steps, single heads, and heads' paths."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.heads import head_name
from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
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
_NAMES = {"s": "training step", "y": "mean", "a": "low", "b": "high"}
_ERRORS = {"a": "- standard error", "b": "+ standard error"}


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
    ends = [at[0], at[-1]] if len(at) > 1 else [at[0] - 1, at[0] + 1]
    x = alt.X("x:Q", title="training step (log scale)")
    return x.scale(domain=ends, nice=False, padding=8).axis(
        values=[place for place, _ in ticks], labelExpr=text, grid=False,
        labelOverlap=True,
    )  # fmt: skip


def _short(step: int) -> str:
    """A step as its axis has it: 512, 1k, 143k."""
    return f"{step // 1000}k" if step and step % 1000 == 0 else str(step)


def step_rows(run: Run, interval: Interval, **fixed: Any) -> Rows:
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


def up(title: str, field: str = "y") -> alt.Y:
    """A vertical axis from 0."""
    return alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=True))


def _tips(what: str) -> list[alt.Tooltip]:
    return charts.tips({"k": what, "s": "step", "t": "value"})


def mean_score(run: Run, name: str) -> Figure:
    """Draw a score's mean over the top heads, and over all, against the step."""
    rows = [
        row
        for which, (text, mark) in SETS.items()
        for row in step_rows(run, told.curve(run, name, which), k=text, m=mark)
    ]
    base = charts.on(rows, x=step_axis(run), detail="k:N")
    texts, shade = _tips("mean over"), f"@{SHADES[name]}"
    band, line, dots = charts.curves(base, up("mean score"), texts, color=shade)
    scale = alt.Scale(domain=list(_DASHES), range=list(_DASHES.values()))
    line = line.encode(strokeDash=alt.StrokeDash("m:N", legend=None, scale=scale))
    names = {"s": _NAMES["s"], "k": "mean over"} | _NAMES
    return charts.figure(
        words.title(name), "", [band, line, dots], _HEIGHT,
        name=f"mean-{name}", data=charts.named(rows, names),
    )  # fmt: skip


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
    shades = {words.short(name): METRIC_SHADES[name] for name in measured}
    base = charts.on(rows, x=step_axis(run), color=charts.colours(shades, "k"))
    layers = charts.curves(base, up("accuracy"), _tips("metric"))
    names = {"s": _NAMES["s"], "k": "metric"} | _NAMES
    return charts.figure(
        "Few-shot accuracy", "", layers, _HEIGHT,
        name="accuracy", data=charts.named(rows, names),
    )  # fmt: skip


def kinds(run: Run) -> dict[tuple[int, int], str]:
    """The heads that are followed, and whether they lead by induction, FV or both."""
    induction, fv = told.followed(run).values()
    return {
        head: "both" if head in fv and head in induction else kind
        for kind, heads in (("induction", induction), ("FV", fv))
        for head in heads
    }


def _head_rows(run: Run, name: str) -> Rows:
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
    axes = {"x": step_axis(run), "y": up("score")}
    base = charts.on(rows, color=charts.colours(KINDS, "k"), detail="h:N", **axes)
    last = max(row["x"] for row in rows)
    ends = sorted((row for row in rows if row["x"] == last), key=lambda row: -row["y"])
    apart = 0.07 * (max(row["y"] for row in rows) - min(row["y"] for row in rows))
    leads: dict[str, dict[str, Any]] = {}
    for row in ends:  # a name that would stand on another's is left to its tooltip
        if all(abs(row["y"] - other["y"]) >= apart for other in leads.values()):
            leads.setdefault(row["k"], row)
    texts = charts.tips({"h": "head", "k": "top by", "s": "step", "t": "score"})
    layers = [
        base.mark_line(strokeWidth=1.6, opacity=0.9),
        base.mark_circle(size=26, opacity=1).encode(tooltip=texts),
        *charts.texts(
            charts.on(list(leads.values()), text="h:N", **axes),
            dx=-7, dy=-8, align="right",
        ),
    ]  # fmt: skip
    names = {"s": "training step", "h": "head", "k": "kind", "y": "score"} | _ERRORS
    data = charts.named(rows, names)
    for row in data:
        row["kind"] = f"top by {row['kind']}"
    title = words.title(name)
    return charts.figure(title, "", layers, _HEIGHT, name=f"heads-{name}", data=data)


def one_head(run: Run) -> Figure:
    """Draw both scores of one head: the best that turned, or else the best by FV."""
    found = run.result["dynamics"]["transitions"]["followed"]
    chosen = next((one for one in found if one["made"]), found[0])
    layers, data = [], []
    names = {"s": "training step", "k": "score", "y": "value"} | _ERRORS
    for name, side in zip(told.SCORES, ("left", "right"), strict=True):
        shade, title = f"@{SHADES[name]}", words.title(name)
        rows = step_rows(run, _with_errors(run, name, chosen), k=title)
        data += charts.named(rows, names)
        axis = {"titleColor": shade, "labelColor": shade, "grid": False}
        y = up(title).axis(orient=side, **axis)
        base = charts.on(rows, x=step_axis(run), y=y)
        line = base.mark_line(color=shade, strokeWidth=2)
        dots = base.mark_circle(size=40, color=shade, opacity=1)
        layers.append(alt.layer(line, dots.encode(tooltip=_tips("score"))))
    chart = alt.layer(*layers).resolve_scale(y="independent")
    note = "it made the transition" if chosen["made"] else "it made no transition"
    return charts.figure(
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
    x = alt.X("x:Q", title=words.title("induction"), scale=alt.Scale(zero=True))
    axes = {"x": x.axis(grid=False, tickCount=8)}
    axes |= {"y": up(words.title("function_vector"))}
    shade = charts.colours(KINDS, "k")
    texts = {"h": "head", "k": "top by", "s": "step", "t": "induction score"}
    texts = charts.tips(texts | {"u": "FV score"})
    base = charts.on(rows, color=shade, detail="h:N", **axes)
    last = max(row["o"] for row in rows)
    ends = [row for row in rows if row["o"] == last]
    led = {row["k"]: row for row in reversed(ends)}
    names = [row for row in ends if row["d"] or row in led.values()]
    ground, text = charts.texts(charts.on(names, text="h:N", **axes))
    wide, seen, shape = (
        charts.either("datum.d > 0", *looks)
        for looks in ((3, 1.2), (1, 0.55), ("diamond", "circle"))
    )
    layers = [
        base.mark_line().encode(order="o:Q", strokeWidth=wide, opacity=seen),
        base.mark_circle(size=14, opacity=0.8).encode(tooltip=texts),
        ground,
        charts.on(ends, color=shade, tooltip=texts, shape=shape, **axes)
        .mark_point(filled=True, size=90, opacity=1),
        text,
    ]  # fmt: skip
    data = [
        {"head": row["h"], "kind": f"top by {row['k']}", "training step": row["s"]}
        | {"induction score": row["x"], "FV score": row["y"]}
        | {"transition": "made the transition" if row["d"] else "no"}
        for row in rows
    ]
    note = "one line a head, from the first step to the last (large mark)"
    title = "Both scores over training"
    return charts.figure(title, note, layers, 340, name="paths", data=data)
