"""Charts of every head: heat maps of the scores, and one score against another."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.heads import run_scores
from jaxheads.report import charts, theme, words
from jaxheads.report.figures import HEADS, Figure, Rows
from jaxheads.runs import Run


def head_rows(run: Run) -> list[dict[str, Any]]:
    """Describe every head once: name, and value, rank and colour of each score."""
    names = run_scores.names(run)
    if not names:
        return []
    columns: dict[str, np.ndarray] = {}
    for n, name in enumerate(names):
        values, spread = run_scores.score(run, name), run_scores.errors(run, name)
        columns[f"s{n}"] = values
        columns[f"r{n}"] = run_scores.ranks(values)
        columns[f"c{n}"] = _signed_root(values) if _signed(values) else values
        columns[f"t{n}"] = np.vectorize(words.with_error, otypes=[object])(
            values, spread
        )
    layers, width = columns["s0"].shape
    return [
        {"h": f"{l}.{h}", "l": l, "i": h}
        | {key: _plain(values[l, h]) for key, values in columns.items()}
        for l in range(layers)
        for h in range(width)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, np.integer):
        return int(value)
    return value if isinstance(value, str) else charts.plain(value)


def _signed(values: np.ndarray) -> bool:
    return bool(np.min(values) < 0)


def _signed_root(values: np.ndarray) -> np.ndarray:
    """Map to -1..1 by the square root, so that small effects keep some colour."""
    largest = np.abs(values).max()
    return np.sign(values) * np.sqrt(np.abs(values) / largest)


def heat_maps(run: Run) -> list[Figure]:
    """Draw one layer x head map a score."""
    return [_heat_map(run, n, name) for n, name in enumerate(run_scores.names(run))]


def _heat_map(run: Run, n: int, name: str) -> Figure:
    values = run_scores.score(run, name)
    layers, width = values.shape
    count = run_scores.top_count(values.size)
    every = {"l": max(1, -(-layers // 16)), "i": max(1, -(-width // 8))}
    chart = alt.Chart(alt.NamedData(HEADS)).mark_rect()
    chart = chart.encode(
        x=alt.X("l:O", title="layer").axis(
            values=list(range(0, layers, every["l"])), labelAngle=0, ticks=False
        ),
        y=alt.Y("i:O", title="head").axis(
            values=list(range(0, width, every["i"])), ticks=False
        ),
        color=_shade(n, name, values),
        stroke=charts.either(f"datum.r{n} <= {count}", "@ink", "transparent"),
        strokeWidth=alt.value(1 if width * layers > 600 else 1.5),
        tooltip=charts.tips({"h": "head", f"t{n}": "score", f"r{n}:Q": "rank"}),
    )
    best = run_scores.top_heads(run, name, 3)
    note = "highest: " + ", ".join(
        f"{head.name} ({words.number(head.score)})" for head in best
    )
    height = round(width * min(18, max(5, 400 / width)))
    return charts.figure(
        words.title(name), note, chart, height, values.size,
        name=name, data=score_data(run, [name]),
    )  # fmt: skip


def score_data(run: Run, names: list[str]) -> Rows:
    """List every head with its value, standard error and rank by each score."""
    columns: dict[str, np.ndarray] = {}
    for name in names:
        title, unit = words.title(name), run.result["scores"][name].get("unit", "")
        values = run.arrays[f"score/{name}"]
        columns[f"{title} ({unit})" if unit else title] = values
        if f"score/{name}_se" in run.arrays:
            columns[f"{title}, standard error"] = run.arrays[f"score/{name}_se"]
        columns[f"{title}, rank"] = run_scores.ranks(values)
    return [
        {"layer": l, "head": h} | {key: values[l, h] for key, values in columns.items()}
        for l, h in np.ndindex(run_scores.score(run, names[0]).shape)
    ]


def _shade(n: int, name: str, values: np.ndarray) -> alt.Color:
    shade = {"function_vector": "fv"}.get(name, "other-1")
    shade = "induction" if name.startswith("induction") else shade
    if not _signed(values):
        domain = [0, float(values.max()) or 1.0]
        return charts.gradient(f"c{n}", domain, ["cell", shade, f"{shade}-deep"])
    largest = float(np.abs(values).max())
    return charts.gradient(
        f"c{n}", [-1, 0, 1], ["negative", "cell", shade],
        gradientLength=220, values=[-1, 0, 0.5, 1],
        # The colour is the signed square root: square it back for the label.
        labelExpr=f"format(datum.value * abs(datum.value) * {largest!r}, '.2~g')",
    )  # fmt: skip


def scatter(run: Run, x_name: str, y_name: str) -> Figure:
    """Draw every head by two scores, with both top sets marked."""
    names = run_scores.names(run)
    a, b = names.index(x_name), names.index(y_name)
    x_values, y_values = (run_scores.score(run, name) for name in (x_name, y_name))
    count = run_scores.top_count(x_values.size)
    chart = alt.Chart(alt.NamedData(HEADS)).transform_calculate(
        k=f"(datum.r{a} <= {count} ? 1 : 0) + (datum.r{b} <= {count} ? 2 : 0)"
    )
    position = {
        "x": alt.X(f"s{a}:Q", title=words.title(x_name), scale=alt.Scale(zero=True)),
        "y": alt.Y(f"s{b}:Q", **_spread_axis(run, y_name, y_values)),
    }
    shades = ("random", theme.colour(x_name), theme.colour(y_name), "other-2")
    marks = ("circle", "circle", "cross", "diamond")
    short = [words.short(name) for name in (x_name, y_name)]
    texts = {"h": "head", f"t{a}": short[0], f"r{a}:Q": f"rank by {short[0]}"}
    texts |= {f"t{b}": short[1], f"r{b}:Q": f"rank by {short[1]}"}
    dots = chart.mark_point(filled=True, opacity=0.85).encode(
        **position,
        color=charts.colours(dict(enumerate(shades)), "k"),
        shape=charts.shapes(dict(enumerate(marks)), "k"),
        size=charts.either("datum.k > 0", 70, 26),
        tooltip=charts.tips(texts),
    )
    named = chart.transform_filter(f"datum.r{a} <= 3 || datum.r{b} <= 3")
    ground, text = charts.texts(named.encode(**position, text="h:N"))
    rows = score_data(run, [x_name, y_name])
    tops = [
        run_scores.top_mask(values, count).ravel() for values in (x_values, y_values)
    ]
    titles = [f"top {name}" for name in short]
    for row, in_x, in_y in zip(rows, *tops, strict=True):
        which = [t for t, inside in zip(titles, (in_x, in_y), strict=True) if inside]
        row["set"] = which[0] if len(which) == 1 else "both" if which else "neither"
    return charts.figure(
        "Each head by both scores", "", [ground, dots, text], 320,
        name="scatter", data=rows,
    )  # fmt: skip


def _spread_axis(run: Run, name: str, values: np.ndarray) -> dict[str, Any]:
    """Use a symmetric log axis where one head dwarfs the others."""
    largest = float(np.abs(values).max())
    typical = float(np.nanmedian(run_scores.errors(run, name)))
    if not (0 < 20 * typical < largest):
        return {"scale": alt.Scale(zero=True), "title": words.title(name)}
    steps = [10.0**power * first for power in range(-6, 3) for first in (1, 3)]
    ticks = [step for step in steps if 1.5 * typical < step < largest]
    ticks = [-t for t in ticks if t < -float(values.min())] + [0.0] + ticks
    return {
        "scale": alt.Scale(type="symlog", constant=typical),
        "axis": alt.Axis(values=ticks, format="~g"),
        "title": f"{words.title(name)} (symmetric log scale)",
    }
