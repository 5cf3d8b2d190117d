"""Charts of single heads of trainings that are compared: effects, and patching."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.heads import head_name
from jaxheads.report import words
from jaxheads.report.charts import figure, halo, label
from jaxheads.report.figures import Figure
from jaxheads.runs import Run
from jaxheads.studies.compare_runs.head_tests import what_it_does

GROUPS = ("repetition", "repetition_whole", "copyable", "answer", "plain")
"""Groups that are drawn and listed, where they are there; arrays have them all."""
KINDS = {"helps": "induction", "harms": "fv", "unclear": "random"}
"""What a head does, and the colour of it."""
_SHAPES = ["circle", "diamond", "circle"]
_HEIGHT = 250
_NAMED = 3  # heads with a name, at either end
_LEAST = 0.2  # share of attention that the scale of prefix matching reaches at least


def arms_with(run: Run, name: str) -> list[int]:
    """Numbers of the arms that have an array "arm_i/NAME"."""
    return [
        at
        for at in range(len(run.result.get("arms") or []))
        if f"arm_{at}/{name}" in run.arrays
    ]


def of_arm(run: Run, at: int, name: str) -> np.ndarray:
    """An array of an arm, float64."""
    return np.asarray(run.arrays[f"arm_{at}/{name}"], np.float64)


def groups(run: Run, at: int) -> list[str]:
    """Groups of targets on which heads of an arm were removed."""
    start = f"arm_{at}/head_effects/effect/"
    return [name for name in GROUPS if f"{start}{name}" in run.arrays]


def effects(run: Run, group: str) -> list[Figure]:
    """Draw effects on a group against prefix matching, one chart an arm, on one scale.

    Args:
        run: a comparison.
        group: of targets.
    """
    found = {
        at: of_arm(run, at, f"head_effects/effect/{group}")
        for at in arms_with(run, f"head_effects/effect/{group}")
    }
    if not found:
        return []
    lowest = min(0.0, *(float(values.min()) for values in found.values()))
    highest = max(0.0, *(float(values.max()) for values in found.values()))
    margin = 0.08 * (highest - lowest) or 0.01
    domain = [lowest - margin, highest + margin]
    return [_scatter(run, at, group, domain) for at in found]


def _scatter(run: Run, at: int, group: str, domain: list[float]) -> Figure:
    arm = run.result["arms"][at]
    rows = _effect_rows(run, at, group)
    x = alt.X("x:Q", title="prefix matching (share of attention)").axis(grid=False)
    scale = alt.Scale(domain=domain, nice=False)
    y = alt.Y("y:Q", title="P(correct) without the head, minus with it", scale=scale)
    base = alt.Chart(alt.Data(values=rows))
    kinds = list(KINDS)
    shades = [f"@{shade}" for shade in KINDS.values()]
    dots = base.mark_point(filled=True, opacity=0.85).encode(
        x=x,
        y=y,
        color=alt.Color(
            "k:N", legend=None, scale=alt.Scale(domain=kinds, range=shades)
        ),
        shape=alt.Shape(
            "k:N", legend=None, scale=alt.Scale(domain=kinds, range=_SHAPES)
        ),
        size=alt.condition("datum.k == 'unclear'", alt.value(26), alt.value(70)),
        tooltip=[
            alt.Tooltip("h:N", title="head"),
            alt.Tooltip("s:N", title="seed"),
            alt.Tooltip("x:Q", title="prefix matching", format=".3f"),
            alt.Tooltip("t:N", title="effect"),
            alt.Tooltip("p:N", title="p"),
        ],
    )
    named = base.transform_filter("datum.n").encode(x=x, y=y, text="h:N")
    zero = alt.Chart(alt.Data(values=[{"y": 0}])).mark_rule(color="@ink")
    chart = alt.layer(
        zero.encode(y=alt.Y("y:Q", title="")), halo(named), dots, label(named)
    )
    counts = {name: sum(row["k"] == name for row in rows) for name in KINDS}
    note = (
        f"{counts['helps']} of {words.plural(len(rows), 'head')} help, "
        f"{counts['harms']} stand in the way"
    )
    data = [
        {
            "seed": row["s"],
            "head": row["h"],
            "prefix matching": row["x"],
            "effect": row["y"],
            "effect, standard error": row["e"],
            "p, Holm": row["q"],
            "does": row["k"],
        }
        for row in rows
    ]
    return figure(
        arm["name"], note, chart, _HEIGHT, len(rows),
        name=f"effects-{group}-{at}", data=data,
    )  # fmt: skip


def _effect_rows(run: Run, at: int, group: str) -> list[dict[str, Any]]:
    """One row a head of every seed; those farthest from 0 are named."""
    parts = ("effect", "effect_se", "effect_p")
    effect, error, p = (
        of_arm(run, at, f"head_effects/{part}/{group}") for part in parts
    )
    prefix = of_arm(run, at, "head_effects/prefix_matching")
    order = np.argsort(effect, axis=None)
    ends = {int(place) for place in (*order[:_NAMED], *order[-_NAMED:])}
    seeds = run.result["arms"][at]["seeds"]
    rows = []
    for n, place in enumerate(np.ndindex(effect.shape)):
        value, spread, q = (float(part[place]) for part in (effect, error, p))
        does = what_it_does(value, q)
        rows.append(
            {
                "h": head_name(*place[1:]),
                "s": str(seeds[place[0]]),
                "x": _plain(float(prefix[place])),
                "y": _plain(value),
                "e": _plain(spread),
                "q": _plain(q),
                "t": words.with_error(value, spread),
                "p": words.p_value(q),
                "k": does,
                "n": n in ends and does != "unclear",
            }
        )
    return rows


def _plain(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def patched(run: Run, at: int, n: int) -> Figure:
    """Draw prefix matching of later heads by the layer that is patched, of one seed.

    Args:
        run: a comparison.
        at: number of the arm.
        n: of the seed.
    """
    rows = _patch_rows(run, at, n)
    places = list(dict.fromkeys(row["y"] for row in rows))
    names = list(dict.fromkeys(row["h"] for row in rows))
    scale = alt.Scale(
        domain=[0, highest_patched(run)],
        range=["@cell", "@induction", "@induction-deep"],
        interpolate="rgb",
    )
    legend = alt.Legend(
        orient="bottom", gradientThickness=8, gradientLength=160, title=None,
        format=".2~f",
    )  # fmt: skip
    axis: dict[str, Any] = {"ticks": False}
    heads = names[:: max(1, -(-len(names) // 24))]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("h:N", title="head", sort=names).axis(
                values=heads, labelAngle=-60, **axis
            ),
            y=alt.Y("y:N", title=None, sort=places).axis(labelLimit=160, **axis),
            color=alt.Color("v:Q", scale=scale, legend=legend),
            tooltip=[
                alt.Tooltip("h:N", title="head"),
                alt.Tooltip("y:N", title="what runs"),
                alt.Tooltip("t:N", title="prefix matching"),
                alt.Tooltip("c:N", title="patched from other tokens"),
            ],
        )
    )
    arm = run.result["arms"][at]
    data = [
        {"what runs": row["y"], "head": row["h"], "prefix matching": row["v"]}
        | {"patched from other tokens": row["d"]}
        for row in rows
    ]
    return figure(
        f"{arm['name']}, seed {arm['seeds'][n]}", "share of attention", chart,
        round(len(places) * min(34, max(12, 320 / len(places)))), len(rows),
        name=f"patching-{at}-{n}", data=data,
    )  # fmt: skip


def patched_arms(run: Run) -> list[int]:
    """Arms in which a layer was patched that others come after."""
    arms = arms_with(run, "patching/prefix_matching")
    name = "patching/prefix_matching"
    return [at for at in arms if np.isfinite(of_arm(run, at, name)).any()]


def control(run: Run, at: int) -> np.ndarray:
    """Scores with activations on other tokens, [N, L, L, H]; NaN: not measured."""
    if f"arm_{at}/patching/control" in run.arrays:
        return of_arm(run, at, "patching/control")
    return np.full_like(of_arm(run, at, "patching/prefix_matching"), np.nan)


def highest_patched(run: Run) -> float:
    """The end of the scale of all heat maps; noise about chance makes no peaks."""
    found = [
        float(np.nanmax(of_arm(run, at, f"patching/{name}")))
        for at in patched_arms(run)
        for name in ("prefix_matching", "baseline", "donor")
    ]
    return max([_LEAST, *found])


def _patch_rows(run: Run, at: int, n: int) -> list[dict[str, Any]]:
    """Cells: the recipient as it is, each layer patched, and the donor."""
    part = lambda name: of_arm(run, at, f"patching/{name}")[n]
    own, given, away = part("baseline"), part("prefix_matching"), control(run, at)[n]
    compared = run.result["compared"]
    lines = [(f"step {compared['recipient_step']} as it is", own, None)]
    lines += [(f"layer {l} patched", given[l], away[l]) for l in range(len(given) - 1)]
    lines += [(f"step {compared['donor_step']}", part("donor"), None)]
    rows = []
    for name, values, other in lines:
        for l, h in np.ndindex(values.shape):
            if l == 0 or not np.isfinite(values[l, h]):
                continue  # nothing before the first layer can be patched
            row = {"h": head_name(l, h), "y": name, "v": _plain(values[l, h])}
            row["t"] = words.number(values[l, h])
            row["d"] = None if other is None else _plain(other[l, h])
            row["c"] = words.NONE if other is None else words.number(other[l, h])
            rows.append(row)
    return rows
