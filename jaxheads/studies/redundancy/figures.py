"""Charts of how heads work together: interactions, Shapley values, greedy paths."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
from jaxheads.runs import Run
from jaxheads.statistics import LEVEL
from jaxheads.statistics.units import student_t_quantile
from jaxheads.studies.redundancy import findings as told


def _ends(value: float, error: float, freedom: int, fields: str = "ab") -> dict:
    """The 95 % interval's ends; the value itself where the error is unknown."""
    wide = float(student_t_quantile(LEVEL, freedom))
    half = wide * error if np.isfinite(error) else 0.0
    return {
        fields[0]: charts.plain(value - half),
        fields[1]: charts.plain(value + half),
    }


def heat_map(run: Run) -> Figure:
    """Draw the interaction of every pair; outlined where it stands out from none."""
    names = told.head_names(run)
    pair = np.asarray(run.arrays["redundancy/interaction"], np.float64)
    error = np.asarray(run.arrays["redundancy/interaction_se"], np.float64)
    count = len(names)
    clear = np.abs(pair) > told.threshold(run) * error
    rows = [
        {
            "a": names[i],
            "b": names[j],
            "v": charts.plain(pair[i, j]),
            "o": int(clear[i, j]),
        }
        | {"t": words.with_error(pair[i, j], error[i, j])}
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    largest = float(np.nanmax(np.abs(pair))) or 1.0
    shades, look = ("negative", "cell", "other-1"), {"gradientLength": 200}
    axis: dict[str, Any] = {"values": names[:: max(1, -(-count // 24))], "ticks": False}
    chart = charts.on(
        rows,
        x=alt.X("a:N", title="head", sort=names).axis(labelAngle=-60, **axis),
        y=alt.Y("b:N", title="head", sort=names).axis(**axis),
        color=charts.gradient(
            "v", [-largest, 0, largest], shades, format=".2~g", **look
        ),
        stroke=charts.either("datum.o > 0", "@ink", "transparent"),
        strokeWidth=alt.value(1.5),
        tooltip=charts.tips({"a": "head", "b": "and", "t": "interaction"}),
    ).mark_rect()
    note = (
        f"outlined: {int(np.triu(clear, 1).sum())} of "
        f"{words.plural(count * (count - 1) // 2, 'pair')} stand out from 0 (5 % over "
        "all pairs)"
    )
    data = [
        {"head": names[i], "and": names[j], "interaction": pair[i, j]}
        | {"interaction, standard error": error[i, j]}
        for i, j in zip(*np.triu_indices(count, 1), strict=True)
    ]
    return charts.figure(
        "Interaction of every pair", note, chart,
        round(count * min(36, max(8, 400 / count))), len(rows),
        name="interaction", data=data,
    )  # fmt: skip


def shapley(run: Run) -> Figure:
    """Draw each head's Shapley value beside what it costs alone."""
    names, part = told.head_names(run), run.result["redundancy"]
    drawn = part["permutations"] // (1 + bool(part.get("antithetic")))  # or pairs
    columns = ("shapley", "shapley_se", "shapley_prompt_se", "effect")
    columns = (run.arrays[f"redundancy/{name}"].tolist() for name in columns)
    title = "Shapley value"
    rows, data = [], []
    for name, value, error, wide, effect in zip(names, *columns, strict=True):
        rows.append(
            {"h": name, "y": charts.plain(value), "e": charts.plain(-effect)}
            | _ends(value, wide, told.freedom(run))
            | _ends(value, error, drawn - 1, "cd")
            | {"t": words.with_error(value, wide), "p": words.with_error(value, error)}
            | {"u": words.number(-effect)}
        )
        data.append(
            {"head": name, title: value, f"{title}, standard error over queries": wide}
            | {f"{title}, standard error over permutations": error}
            | {"lost when replaced alone": -effect}
        )
    rows.sort(key=lambda row: -row["y"])
    texts = {"h": "head", "t": "Shapley value ± error over queries"}
    texts |= {"p": "± error over permutations", "u": "lost when replaced alone"}
    y = alt.Y("h:N", title=None, sort=[row["h"] for row in rows])
    base = charts.on(
        rows,
        tooltip=charts.tips(texts),
        y=y.axis(ticks=False, domain=False, labelPadding=8),
    )
    x = alt.X("y:Q", title=title, scale=alt.Scale(zero=True))
    bar = {"color": "@other-1", "opacity": 0.45, "height": {"band": 0.6}}
    layers = [
        base.encode(x=x).mark_bar(**bar),
        charts.span(base, x).mark_rule(color="@ink", strokeWidth=1.2),
        charts.span(base, x, "cd").mark_rule(color="@ink", strokeWidth=5),
        base.encode(x=alt.X("e:Q", title=title)).mark_point(
            shape="diamond", size=70, color="@fv", filled=False, strokeWidth=2
        ),
    ]
    count = words.plural(int(part["permutations"]), "permutation")
    note = (
        f"bars: mean over {count}; thin line: 95 % over queries, thick: 95 % over "
        "permutations; diamond: lost when replaced alone"
    )
    height = max(120, 28 * len(names))
    return charts.figure(
        "Shapley values", note, layers, height, name="shapley", data=data
    )


def paths(run: Run) -> Figure:
    """Draw the share that the sets of both searches keep, by their size."""
    data: Rows = []
    drawn: dict[str, Rows] = {"share": [], "held_out_share": []}
    titles = ("share kept (%)", "share kept on other prompts (%)")
    for name in told.SEARCHES:
        kept = told.num_kept(run, name)
        made = [{"search": name, "heads kept": size} for size in kept]
        for (kind, rows), title in zip(drawn.items(), titles, strict=True):
            shares, errors = (
                100 * np.asarray(run.arrays[f"redundancy/{name}_{array}"], np.float64)
                for array in (kind, f"{kind}_se")
            )
            for one, value, wide in zip(made, shares, errors, strict=True):
                one |= {title: value, f"{title}, standard error": wide}
                wide = np.nan_to_num(wide)  # the held-out prompts are as many
                rows.append(
                    {"s": name, "x": one["heads kept"], "y": charts.plain(value)}
                    | _ends(value, wide, told.freedom(run))
                    | {"t": words.with_error(value, wide)}
                )
        data += made
    axes = {
        "x": alt.X("x:Q", title="heads kept, of those searched").axis(
            grid=False, tickMinStep=1
        ),
        "color": charts.colours({"backward": "other-1", "forward": "fv"}),
    }
    y = alt.Y("y:Q", title=titles[0], scale=alt.Scale(zero=False))
    texts = charts.tips({"s": "search", "x:Q": "heads kept", "t": "share (%) ± error"})
    band, line, dots = charts.curves(charts.on(drawn["share"], **axes), y, texts, 45)
    other, small = charts.dashed(charts.on(drawn["held_out_share"], **axes), y, texts)
    goal = charts.level(
        100 * float(run.result["redundancy"]["share"]), y, strokeDash=[1, 2]
    )
    return charts.figure(
        "Share that the sets of each search keep", "",
        [goal, band, other, line, small, dots], 260, name="searches", data=data,
    )  # fmt: skip
