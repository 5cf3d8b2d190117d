"""Charts of what trainings measured: curves with their windows, positions, sizes."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
from jaxheads.runs import Run
from jaxheads.studies.six_arguments.answers import told
from jaxheads.studies.six_arguments.heads_figures import Part, run_colour

_HEIGHT, _MAP = 200, 240
_SNAPSHOTS = 80
"""Evaluations in a heat map: of more, evenly spaced ones are drawn."""
_CURVES = {
    "prefix_matching": "share of attention",
    "icl_score": "nats",
    "loss": "nats",
}
DATED = ("prefix_matching", "icl_score", "loss_bump")
"""Curves that have a date."""


def of_run(run: Run, part: Part) -> list[Figure]:
    """Draw a training's curves, with the windows of each seed's heads shaded."""
    changes = told(run)["co_occurrence"][part.index]["changes"]["prefix_matching"]
    windows = [
        {"a": one["begin"], "b": one["end"]}
        for one in changes["each"]
        if one["begin"] is not None
    ]
    last = told(run)["runs"][part.index]["last_step"]
    return [
        _curve(part, name, windows, last)
        for name in _CURVES
        if len(part.arrays[f"curves/{name}"])
    ]


def _curve(part: Part, name: str, windows: Rows, last: int) -> Figure:
    """One thin line a seed, and their mean."""
    title, unit = words.sentence(words.curve(name)), _CURVES[name]
    steps, values = _values(part, name)
    rows = [
        {"x": x, "y": y, "n": str(seed)}
        for n, seed in enumerate(part.seeds)
        for x, y in _points(steps, values[:, n])
    ]
    x = charts.steps(domain=[0, last], nice=False)
    layers = charts.seed_lines(rows, title, unit, len(part.seeds) > 1, x)
    if windows:
        shade = {"color": "@muted", "opacity": 0.3 / len(windows), "strokeWidth": 0}
        layers.insert(0, charts.span(charts.on(windows), x).mark_rect(**shade))
    data = charts.named(rows, {"x": "step", "n": "seed", "y": f"{title} ({unit})"})
    name = f"{name}-{part.name}"
    return charts.figure(title, "", layers, _HEIGHT, name=name, data=data)


def together(given: list[Part]) -> list[Figure]:
    """Draw the curves of all runs on one scale, means over seeds."""
    drawn = []
    for name in ("prefix_matching", "icl_score"):
        title, unit = words.sentence(words.curve(name)), _CURVES[name]
        rows = []
        for part in given:
            steps, values = _values(part, name)
            points = _points(steps, values.mean(axis=1))
            rows += [{"x": x, "y": y, "r": part.name} for x, y in points]
        chart = charts.on(
            rows,
            x=charts.steps(),
            y=alt.Y("y:Q", title=unit, scale=alt.Scale(zero=False)),
            color=run_colour(given),
            tooltip=charts.tips({"r": "run", "x:Q": "step", "y:Q .3g": title}),
        ).mark_line(strokeWidth=2)
        data = charts.named(rows, {"r": "run", "x": "step", "y": f"{title} ({unit})"})
        note = "means over seeds"
        drawn.append(charts.figure(title, note, chart, _HEIGHT, name=name, data=data))
    return drawn


def _values(part: Part, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and a curve [E, N]: of heads, the largest."""
    values = np.asarray(part.arrays[f"curves/{name}"], float)
    steps = part.arrays["curves/loss_step" if name == "loss" else "curves/step"]
    return steps, values.max(axis=(2, 3)) if values.ndim == 4 else values


def _points(steps: np.ndarray, values: np.ndarray) -> list[tuple[Any, Any]]:
    return [
        (charts.plain(step, 6), charts.plain(value))
        for step, value in zip(steps, values, strict=True)
        if np.isfinite(value)
    ]


def sizes(run: Run, given: list[Part]) -> list[Figure]:
    """Draw what is held against other sizes, by the number of parameters."""
    wanted = {
        "icl_score": ("In-context learning score at the end", "nats", "mean"),
        "top_prefix": ("Prefix matching of the top head at the end", "share", "mean"),
        "tokens": ("Date of the heads", "tokens of a seed", "tokens"),
    }
    drawn = []
    for name, (title, unit, key) in wanted.items():
        rows: Rows = []
        for part in given:
            row = told(run)["continuity"][part.index]
            made = row if name == "tokens" else row[name]
            if made is None or made[key] is None:
                continue
            low, high = (
                made[key] if made[end] is None else made[end] for end in ("low", "high")
            )
            params = told(run)["runs"][part.index]["num_params"]
            place = {"r": part.name, "x": params}
            rows.append(place | {"y": made[key], "a": low, "b": high})
        if rows:
            drawn.append(_dots(given, rows, name, title, unit))
    return drawn


def _dots(given: list[Part], rows: Rows, name: str, title: str, unit: str) -> Figure:
    x = alt.X("x:Q", title="parameters", scale=alt.Scale(type="log"))
    x = x.axis(format="~s", grid=False, tickCount=4)
    y = alt.Y("y:Q", title=unit, scale=alt.Scale(zero=False))
    base = charts.on(rows, x=x, color=run_colour(given))
    texts = {"r": "run", "x:Q": "parameters", "y:Q .3g": title}
    texts |= {"a:Q .3g": "low", "b:Q .3g": "high"}
    dots = base.encode(y=y, tooltip=charts.tips(texts))
    layers = [
        charts.span(base, y).mark_rule(strokeWidth=2),
        dots.mark_circle(size=70, opacity=1),
    ]
    names = {"r": "run", "x": "parameters", "y": f"{title} ({unit})"}
    data = charts.named(rows, names | {"a": "low", "b": "high"})
    note = "with intervals of 95 % over seeds"
    return charts.figure(title, note, layers, _HEIGHT, name=name, data=data)


def heat_maps(part: Part) -> list[Figure]:
    """Draw the loss by position and its derivative, over training; means over seeds."""
    slope, unit = "Its derivative by ln(position)", "nats per unit of ln(position)"
    return [
        _heat_map(part, "loss", "Loss", "nats", ["cell", "fv", "fv-deep"]),
        _heat_map(part, "derivative", slope, unit, ["negative", "cell", "induction"]),
    ]


def _heat_map(
    part: Part, name: str, title: str, unit: str, shades: list[str]
) -> Figure:
    steps = np.asarray(part.arrays["curves/step"], float)
    index = np.asarray(part.arrays["positions/index"], float)
    values = np.asarray(part.arrays[f"positions/{name}"], float).mean(axis=1)  # [E, P]
    taken = np.linspace(0, len(steps) - 1, min(_SNAPSHOTS, len(steps)))
    taken = np.unique(taken.round().astype(int))
    steps, values = steps[taken], values[taken]
    across, up = _edges(steps), np.exp(_edges(np.log(index)))
    rows = [
        {"x": across[e], "x2": across[e + 1], "y": up[p], "y2": up[p + 1]}
        | {"s": steps[e], "p": index[p], "v": values[e, p]}
        for e, p in np.ndindex(values.shape)
        if np.isfinite(values[e, p])
    ]
    rows = [{key: charts.plain(v) for key, v in row.items()} for row in rows]
    y = alt.Y("y:Q", title="target's position in the window")
    y = y.scale(type="log", nice=False).axis(grid=False, tickCount=5)
    texts = {"s:Q": "step", "p:Q .3~g": "position", "v:Q .3g": unit}
    chart = charts.on(
        rows,
        x=charts.steps(zero=False, nice=False),
        x2="x2:Q",
        y=y,
        y2="y2:Q",
        color=charts.gradient(
            "v", _domain(values, name == "derivative"), shades, gradientLength=180
        ),
        tooltip=charts.tips(texts),
    ).mark_rect(strokeWidth=0)
    names = {"s": "step", "p": "position", "v": f"{title} ({unit})"}
    return charts.figure(
        title, unit, chart, _MAP, len(rows),
        name=f"{name}-{part.name}", data=charts.named(rows, names),
    )  # fmt: skip


def _domain(values: np.ndarray, signed: bool) -> list[float]:
    """Ends (and middle) of the colours; few wild values do not stretch them."""
    known = values[np.isfinite(values)]
    if signed:
        most = float(np.quantile(np.abs(known), 0.99)) or 1.0
        return [-most, 0.0, most]
    low, high = (float(np.quantile(known, q)) for q in (0.01, 0.99))
    return [low, (low + high) / 2, high if high > low else low + 1.0]


def _edges(centres: np.ndarray) -> np.ndarray:
    """Bounds between neighbours; the first and the last reach as far out as in."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def trajectories(given: list[Part], explained: np.ndarray) -> Figure:
    """Draw the paths of all runs in the plane of the first two components."""
    rows: Rows = []
    for part in given:
        steps = part.arrays["components/step"]
        places = part.arrays["components/coordinates"]  # [E, N, 2]
        for n, seed in enumerate(part.seeds):
            marks = _marks(part, n)
            rows += [
                {"r": part.name, "n": str(seed), "k": f"{part.index}:{seed}"}
                | {"s": int(step), "m": marks.get(e, ""), "o": e}
                | {"x": charts.plain(place[0]), "y": charts.plain(place[1])}
                for e, (step, place) in enumerate(zip(steps, places[:, n], strict=True))
                if np.isfinite(place).all()
            ]
    titles = [
        f"component {c + 1} ({share:.0%} of the variance, nats)"
        for c, share in enumerate(explained)
    ]
    base = charts.on(
        rows,
        x=alt.X("x:Q", title=titles[0]),
        y=alt.Y("y:Q", title=titles[1]),
        color=run_colour(given),
    )
    texts = {"r": "run", "n": "seed", "s:Q": "step", "m": "phase change"}
    dots = base.encode(tooltip=charts.tips(texts))
    layers = [
        base.mark_line(strokeWidth=1.3, opacity=0.7).encode(order="o:Q", detail="k:N"),
        dots.mark_circle(size=16, opacity=0.8),
        dots.transform_filter("datum.m != ''")
        .mark_point(filled=True, size=110, opacity=1, stroke="@paper")
        .encode(shape=charts.shapes({"begins": "diamond", "ends": "cross"}, "m")),
    ]
    names = {"r": "run", "n": "seed", "s": "training step", "m": "phase change"}
    names |= {"x": "component 1 (nats)", "y": "component 2 (nats)"}
    return charts.figure(
        "Losses of single tokens, every snapshot", "", layers, 380,
        name="components", data=charts.named(rows, names),
    )  # fmt: skip


def _marks(part: Part, seed: int) -> dict[int, str]:
    """Evaluations nearest to the ends of a seed's phase change."""
    ends = part.arrays.get("before_and_after/step")
    if ends is None or min(ends[seed, :2]) < 0:
        return {}
    steps = part.arrays["components/step"]
    first, last = (int(np.abs(steps - step).argmin()) for step in ends[seed, :2])
    return {last: "ends", first: "begins"}
