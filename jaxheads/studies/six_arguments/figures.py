"""Charts of what trainings measured: curves with their windows, positions, sizes."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import words
from jaxheads.report.charts import figure
from jaxheads.report.figures import Figure
from jaxheads.runs import Run
from jaxheads.studies.six_arguments.heads_figures import Part, plain, run_colour

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


def told(run: Run) -> dict[str, Any]:
    """What the run says of the arguments."""
    return run.result["evidence"]


def of_run(run: Run, part: Part) -> list[Figure]:
    """Draw a training's curves, with the windows of each seed's heads shaded."""
    windows = [
        {"a": one["begin"], "b": one["end"]}
        for one in told(run)["co_occurrence"][part.index]["changes"]["prefix_matching"][
            "each"
        ]
        if one["begin"] is not None
    ]
    last = told(run)["runs"][part.index]["last_step"]
    return [
        _curve(part, name, windows, last)
        for name in _CURVES
        if len(part.arrays[f"curves/{name}"])
    ]


def together(given: list[Part]) -> list[Figure]:
    """Draw the curves of all runs on one scale, means over seeds."""
    drawn = []
    for name in ("prefix_matching", "icl_score"):
        title, unit = words.sentence(words.curve(name)), _CURVES[name]
        rows = [
            {"x": x, "y": y, "r": part.name}
            for part in given
            for x, y in _points(*_mean(part, name))
        ]
        chart = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2)
        chart = chart.encode(
            x=alt.X("x:Q", title="training step").axis(grid=False),
            y=alt.Y("y:Q", title=unit, scale=alt.Scale(zero=False)),
            color=run_colour(given),
            tooltip=[
                alt.Tooltip("r:N", title="run"),
                alt.Tooltip("x:Q", title="step"),
                alt.Tooltip("y:Q", title=title, format=".3g"),
            ],
        )
        data = [
            {"run": r["r"], "step": r["x"], f"{title} ({unit})": r["y"]} for r in rows
        ]
        drawn.append(
            figure(title, "means over seeds", chart, _HEIGHT, name=name, data=data)
        )
    return drawn


def heat_maps(part: Part) -> list[Figure]:
    """Draw the loss by position and its derivative, over training; means over seeds."""
    return [
        _heat_map(part, "loss", "Loss", "nats", ["@cell", "@fv", "@fv-deep"]),
        _heat_map(
            part,
            "derivative",
            "Its derivative by ln(position)",
            "nats per unit of ln(position)",
            ["@negative", "@cell", "@induction"],
        ),
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
        rows = []
        for part in given:
            row = told(run)["continuity"][part.index]
            made = row if name == "tokens" else row[name]
            if made is None or made[key] is None:
                continue
            ends = [
                made[key] if made[end] is None else made[end] for end in ("low", "high")
            ]
            params = told(run)["runs"][part.index]["num_params"]
            rows.append(
                {"x": params, "y": made[key], "a": ends[0], "b": ends[1]}
                | {"r": part.name}
            )
        if rows:
            drawn.append(_dots(given, rows, name, title, unit))
    return drawn


def _dots(
    given: list[Part], rows: list[dict], name: str, title: str, unit: str
) -> Figure:
    x = alt.X("x:Q", title="parameters", scale=alt.Scale(type="log")).axis(
        format="~s", grid=False, tickCount=4
    )
    y = alt.Y("y:Q", title=unit, scale=alt.Scale(zero=False))
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, color=run_colour(given))
    tooltip = [
        alt.Tooltip("r:N", title="run"),
        alt.Tooltip("x:Q", title="parameters"),
        alt.Tooltip("y:Q", title=title, format=".3g"),
        alt.Tooltip("a:Q", title="low", format=".3g"),
        alt.Tooltip("b:Q", title="high", format=".3g"),
    ]
    chart = alt.layer(
        base.encode(y=alt.Y("a:Q", title=unit), y2="b:Q").mark_rule(strokeWidth=2),
        base.encode(y=y, tooltip=tooltip).mark_circle(size=70, opacity=1),
    )
    data = [
        {"run": row["r"], "parameters": row["x"], f"{title} ({unit})": row["y"]}
        | {"low": row["a"], "high": row["b"]}
        for row in rows
    ]
    note = "with intervals of 95 % over seeds"
    return figure(title, note, chart, _HEIGHT, name=name, data=data)


def _curve(part: Part, name: str, windows: list[dict], last: int) -> Figure:
    """One thin line a seed, and their mean."""
    title, unit = words.sentence(words.curve(name)), _CURVES[name]
    steps, values = _values(part, name)
    rows = [
        {"x": x, "y": y, "s": str(seed)}
        for n, seed in enumerate(part.seeds)
        for x, y in _points(steps, values[:, n])
    ]
    x = alt.X(
        "x:Q", title="training step", scale=alt.Scale(domain=[0, last], nice=False)
    ).axis(grid=False)
    y = alt.Y("y:Q", title=unit, scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("s:N", title="seed"),
        alt.Tooltip("x:Q", title="step"),
        alt.Tooltip("y:Q", title=title, format=".3g"),
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y)
    layers = []
    if windows:
        shaded = alt.Chart(alt.Data(values=windows))
        ends = alt.X("a:Q", title="training step")
        opacity = 0.3 / len(windows)
        rect = shaded.mark_rect(color="@muted", opacity=opacity, strokeWidth=0)
        layers.append(rect.encode(x=ends, x2="b:Q"))
    lines = base.mark_line(color="@induction", strokeWidth=1, opacity=0.6)
    layers.append(lines.encode(detail="s:N", tooltip=tooltip))
    if len(part.seeds) > 1:
        thick = base.mark_line(color="@ink", strokeWidth=2)
        layers.append(thick.encode(y=alt.Y("mean(y):Q", title=unit)))
    data = [{"step": r["x"], "seed": r["s"], f"{title} ({unit})": r["y"]} for r in rows]
    return figure(
        title, "", alt.layer(*layers), _HEIGHT, name=f"{name}-{part.name}", data=data
    )


def _values(part: Part, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and a curve [E, N]: of heads, the largest."""
    values = np.asarray(part.arrays[f"curves/{name}"], float)
    steps = part.arrays["curves/loss_step" if name == "loss" else "curves/step"]
    return steps, values.max(axis=(2, 3)) if values.ndim == 4 else values


def _mean(part: Part, name: str) -> tuple[np.ndarray, np.ndarray]:
    steps, values = _values(part, name)
    return steps, values.mean(axis=1)


def _points(steps: np.ndarray, values: np.ndarray) -> list[tuple[float, float]]:
    return [
        (float(f"{step:.6g}"), float(f"{value:.5g}"))
        for step, value in zip(steps, values, strict=True)
        if np.isfinite(value)
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
    logs = np.log(index)
    across, up = _edges(steps), np.exp(_edges(logs))
    rows = [
        {"x": across[e], "x2": across[e + 1], "y": up[p], "y2": up[p + 1]}
        | {"s": float(steps[e]), "p": float(index[p]), "v": float(values[e, p])}
        for e in range(len(steps))
        for p in range(len(index))
        if np.isfinite(values[e, p])
    ]
    rows = [{key: float(f"{v:.5g}") for key, v in row.items()} for row in rows]
    domain = _domain(values, len(shades) > 2 and name == "derivative")
    legend = alt.Legend(
        orient="bottom", gradientThickness=8, gradientLength=180, title=None,
        format=".2~f",
    )  # fmt: skip
    colour = alt.Color(
        "v:Q",
        scale=alt.Scale(domain=domain, range=shades, interpolate="rgb", clamp=True),
        legend=legend,
    )
    chart = alt.Chart(alt.Data(values=rows)).mark_rect(strokeWidth=0)
    chart = chart.encode(
        x=alt.X(
            "x:Q", title="training step", scale=alt.Scale(zero=False, nice=False)
        ).axis(grid=False),
        x2="x2:Q",
        y=alt.Y(
            "y:Q",
            title="target's position in the window",
            scale=alt.Scale(type="log", nice=False),
        ).axis(grid=False, tickCount=5),
        y2="y2:Q",
        color=colour,
        tooltip=[
            alt.Tooltip("s:Q", title="step"),
            alt.Tooltip("p:Q", title="position", format=".3~g"),
            alt.Tooltip("v:Q", title=unit, format=".3g"),
        ],
    )
    data = [
        {"step": row["s"], "position": row["p"], f"{title} ({unit})": row["v"]}
        for row in rows
    ]
    return figure(
        title, unit, chart, _MAP, len(rows), name=f"{name}-{part.name}", data=data
    )


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
    rows: list[dict[str, Any]] = []
    for part in given:
        steps = part.arrays["components/step"]
        places = part.arrays["components/coordinates"]  # [E, N, 2]
        for n, seed in enumerate(part.seeds):
            marks = _marks(part, n)
            rows += [
                {"r": part.name, "n": str(seed), "k": f"{part.index}:{seed}"}
                | {"s": int(step), "m": marks.get(e, ""), "o": e}
                | {key: plain(value) for key, value in zip("xy", place, strict=True)}
                for e, (step, place) in enumerate(zip(steps, places[:, n], strict=True))
                if np.isfinite(place).all()
            ]
    titles = [
        f"component {c + 1} ({share:.0%} of the variance, nats)"
        for c, share in enumerate(explained)
    ]
    tooltip = [
        alt.Tooltip("r:N", title="run"),
        alt.Tooltip("n:N", title="seed"),
        alt.Tooltip("s:Q", title="step"),
        alt.Tooltip("m:N", title="phase change"),
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title=titles[0]),
        y=alt.Y("y:Q", title=titles[1]),
        color=run_colour(given),
    )
    marked = base.transform_filter("datum.m != ''")
    shape = alt.Scale(domain=["begins", "ends"], range=["diamond", "cross"])
    chart = alt.layer(
        base.mark_line(strokeWidth=1.3, opacity=0.7).encode(order="o:Q", detail="k:N"),
        base.mark_circle(size=16, opacity=0.8).encode(tooltip=tooltip),
        marked.mark_point(filled=True, size=110, opacity=1, stroke="@paper").encode(
            shape=alt.Shape("m:N", legend=None, scale=shape), tooltip=tooltip
        ),
    )
    names = {"r": "run", "n": "seed", "s": "training step", "m": "phase change"}
    names |= {"x": "component 1 (nats)", "y": "component 2 (nats)"}
    data = [{names[key]: row[key] for key in names} for row in rows]
    return figure(
        "Losses of single tokens, every snapshot", "", chart, 380,
        name="components", data=data,
    )  # fmt: skip


def _marks(part: Part, seed: int) -> dict[int, str]:
    """Evaluations nearest to the ends of a seed's phase change."""
    ends = part.arrays.get("before_and_after/step")
    if ends is None or min(ends[seed, :2]) < 0:
        return {}
    steps = part.arrays["components/step"]
    first, last = (int(np.abs(steps - step).argmin()) for step in ends[seed, :2])
    return {last: "ends", first: "begins"}
