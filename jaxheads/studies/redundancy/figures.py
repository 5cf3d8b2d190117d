"""Charts of how heads work together: interactions, Shapley values, greedy paths."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import words
from jaxheads.report.figures import Figure, figure
from jaxheads.runs import Run
from jaxheads.statistics import LEVEL
from jaxheads.statistics.units import student_t_quantile
from jaxheads.studies.redundancy import findings as told


def _plain(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _around(value: float, error: float, freedom: int) -> list[float | None]:
    """Ends of the 95 % interval; the value itself where the error is unknown."""
    wide = float(student_t_quantile(LEVEL, freedom))
    half = wide * error if np.isfinite(error) else 0.0
    return [_plain(value - half), _plain(value + half)]


def heat_map(run: Run) -> Figure:
    """Draw the interaction of every pair; outlined where it stands out from none."""
    names = told.head_names(run)
    pair = np.asarray(run.arrays["redundancy/interaction"], np.float64)
    error = np.asarray(run.arrays["redundancy/interaction_se"], np.float64)
    count = len(names)
    clear = np.abs(pair) > told.threshold(run) * error
    rows = [
        {"a": names[i], "b": names[j], "v": _plain(pair[i, j]), "o": int(clear[i, j])}
        | {"t": words.with_error(pair[i, j], error[i, j])}
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    largest = float(np.nanmax(np.abs(pair))) or 1.0
    scale = alt.Scale(
        domain=[-largest, 0, largest],
        range=["@negative", "@cell", "@other-1"],
        interpolate="rgb",
    )
    legend = alt.Legend(
        orient="bottom", gradientThickness=8, gradientLength=200, title=None,
        format=".2~g",
    )  # fmt: skip
    step = max(1, -(-count // 24))
    axis: dict[str, Any] = {"values": names[::step], "ticks": False}
    outline = alt.condition("datum.o > 0", alt.value("@ink"), alt.value("transparent"))
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("a:N", title="head", sort=names).axis(labelAngle=-60, **axis),
            y=alt.Y("b:N", title="head", sort=names).axis(**axis),
            color=alt.Color("v:Q", scale=scale, legend=legend),
            stroke=outline,
            strokeWidth=alt.value(1.5),
            tooltip=[
                alt.Tooltip("a:N", title="head"),
                alt.Tooltip("b:N", title="and"),
                alt.Tooltip("t:N", title="interaction"),
            ],
        )
    )
    note = (
        f"outlined: {int(np.triu(clear, 1).sum())} of "
        f"{words.plural(count * (count - 1) // 2, 'pair')} stand out from 0 (5 % over "
        "all pairs)"
    )
    height = round(count * min(36, max(8, 400 / count)))
    data = [
        {"head": names[i], "and": names[j], "interaction": pair[i, j]}
        | {"interaction, standard error": error[i, j]}
        for i in range(count)
        for j in range(i + 1, count)
    ]
    return figure(
        "Interaction of every pair", note, chart, height, len(rows),
        name="interaction", data=data,
    )  # fmt: skip


def shapley(run: Run) -> Figure:
    """Draw each head's Shapley value beside what it costs alone."""
    names, part = told.head_names(run), run.result["redundancy"]
    drawn = part["permutations"] // (1 + bool(part.get("antithetic")))  # or pairs
    columns = ("shapley", "shapley_se", "shapley_prompt_se", "effect")
    measured = list(zip(
        names, *(run.arrays[f"redundancy/{name}"].tolist() for name in columns),
        strict=True,
    ))  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"h": name, "y": _plain(value), "e": _plain(-effect)}
        | dict(zip("ab", _around(value, wide, told.freedom(run)), strict=True))
        | dict(zip("cd", _around(value, error, drawn - 1), strict=True))
        | {"t": words.with_error(value, wide), "p": words.with_error(value, error)}
        | {"u": words.number(-effect)}
        for name, value, error, wide, effect in measured
    ]
    rows.sort(key=lambda row: -row["y"])
    title = "Shapley value"
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("h:N", title=None, sort=[row["h"] for row in rows]).axis(
            ticks=False, domain=False, labelPadding=8
        ),
        tooltip=[
            alt.Tooltip("h:N", title="head"),
            alt.Tooltip("t:N", title="Shapley value ± error over queries"),
            alt.Tooltip("p:N", title="± error over permutations"),
            alt.Tooltip("u:N", title="lost when replaced alone"),
        ],
    )
    x = alt.X("y:Q", title=title, scale=alt.Scale(zero=True))
    thin = base.encode(x=alt.X("a:Q", title=title), x2="b:Q")
    thick = base.encode(x=alt.X("c:Q", title=title), x2="d:Q")
    chart = alt.layer(
        base.encode(x=x).mark_bar(color="@other-1", opacity=0.45, height={"band": 0.6}),
        thin.mark_rule(color="@ink", strokeWidth=1.2),
        thick.mark_rule(color="@ink", strokeWidth=5),
        base.encode(x=alt.X("e:Q", title=title)).mark_point(
            shape="diamond", size=70, color="@fv", filled=False, strokeWidth=2
        ),
    )
    count = words.plural(int(part["permutations"]), "permutation")
    note = (
        f"bars: mean over {count}; thin line: 95 % over queries, thick: 95 % over "
        "permutations; diamond: lost when replaced alone"
    )
    data = [
        {"head": name, title: value, f"{title}, standard error over queries": wide}
        | {f"{title}, standard error over permutations": error}
        | {"lost when replaced alone": -effect}
        for name, value, error, wide, effect in measured
    ]
    height = max(120, 28 * len(names))
    return figure("Shapley values", note, chart, height, name="shapley", data=data)


def paths(run: Run) -> Figure:
    """Draw the share that the sets of both searches keep, by their size."""
    rows, held_out, data = [], [], []
    freedom = told.freedom(run)  # the held-out prompts are as many
    for name in told.SEARCHES:
        arrays = {
            key: np.asarray(run.arrays[f"redundancy/{name}_{key}"], np.float64)
            for key in ("share", "share_se", "held_out_share", "held_out_share_se")
        }
        kept = told.num_kept(run, name)
        data += [
            {"search": name, "heads kept": size, "share kept (%)": 100 * share}
            | {"share kept (%), standard error": 100 * wide}
            | {"share kept on other prompts (%)": 100 * other}
            | {"share kept on other prompts (%), standard error": 100 * other_wide}
            for size, share, wide, other, other_wide in zip(
                kept, *arrays.values(), strict=True
            )
        ]
        for kind, listed in (("share", rows), ("held_out_share", held_out)):
            listed += [
                {"s": name, "x": size, "y": _plain(100 * share)}
                | dict(
                    zip("ab", _around(100 * share, 100 * wide, freedom), strict=True)
                )
                | {"t": words.with_error(100 * share, 100 * wide)}
                for size, share, wide in zip(
                    kept, arrays[kind], np.nan_to_num(arrays[f"{kind}_se"]), strict=True
                )
            ]
    scale = alt.Scale(domain=["backward", "forward"], range=["@other-1", "@fv"])
    title = "share kept (%)"
    axes = {
        "x": alt.X("x:Q", title="heads kept, of those searched").axis(
            grid=False, tickMinStep=1
        ),
        "y": alt.Y("y:Q", title=title, scale=alt.Scale(zero=False)),
        "color": alt.Color("s:N", scale=scale, legend=None),
    }
    tooltip = [
        alt.Tooltip("s:N", title="search"),
        alt.Tooltip("x:Q", title="heads kept"),
        alt.Tooltip("t:N", title="share (%) ± error"),
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(**axes)
    other = alt.Chart(alt.Data(values=held_out)).encode(**axes)
    target = alt.Chart(
        alt.Data(values=[{"y": 100 * float(run.result["redundancy"]["share"])}])
    )
    band = base.encode(y=alt.Y("a:Q", title=title), y2="b:Q")
    chart = alt.layer(
        target.mark_rule(color="@ink", strokeWidth=1, strokeDash=[1, 2]).encode(
            y=axes["y"]
        ),
        band.mark_area(opacity=0.16),
        other.mark_line(strokeDash=[4, 3], strokeWidth=1.5),
        base.mark_line(strokeWidth=2),
        other.mark_circle(size=18, opacity=1).encode(tooltip=tooltip),
        base.mark_circle(size=45, opacity=1).encode(tooltip=tooltip),
    )
    return figure(
        "Share that the sets of each search keep", "", chart, 260,
        name="searches", data=data,
    )  # fmt: skip
