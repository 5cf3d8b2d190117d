"""Charts of single heads of trainings that are compared: effects, and patching."""

import altair as alt
import numpy as np

from jaxheads.heads import head_name
from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
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
    rows = _effect_rows(run, at, group)
    scale = alt.Scale(domain=domain, nice=False)
    base = charts.on(
        rows,
        x=alt.X("x:Q", title="prefix matching (share of attention)").axis(grid=False),
        y=alt.Y("y:Q", title="P(correct) without the head, minus with it", scale=scale),
    )
    texts = {"h": "head", "s": "seed", "x:Q .3f": "prefix matching"}
    dots = base.mark_point(filled=True, opacity=0.85).encode(
        color=charts.colours(KINDS, "k"),
        shape=charts.shapes(dict(zip(KINDS, _SHAPES, strict=True)), "k"),
        size=charts.either("datum.k == 'unclear'", 26, 70),
        tooltip=charts.tips(texts | {"t": "effect", "p": "p"}),
    )
    ground, text = charts.texts(base.transform_filter("datum.n").encode(text="h:N"))
    zero = charts.level(0, alt.Y("y:Q", title=""))
    counts = {name: sum(row["k"] == name for row in rows) for name in KINDS}
    note = (
        f"{counts['helps']} of {words.plural(len(rows), 'head')} help, "
        f"{counts['harms']} stand in the way"
    )
    names = {"s": "seed", "h": "head", "x": "prefix matching", "y": "effect"}
    names |= {"e": "effect, standard error", "q": "p, Holm", "k": "does"}
    return charts.figure(
        run.result["arms"][at]["name"], note, [zero, ground, dots, text], _HEIGHT,
        len(rows), name=f"effects-{group}-{at}", data=charts.named(rows, names),
    )  # fmt: skip


def _effect_rows(run: Run, at: int, group: str) -> Rows:
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
            {"h": head_name(*place[1:]), "s": str(seeds[place[0]])}
            | {"x": charts.plain(prefix[place]), "y": charts.plain(value)}
            | {"e": charts.plain(spread), "q": charts.plain(q)}
            | {"t": words.with_error(value, spread), "p": words.p_value(q)}
            | {"k": does, "n": n in ends and does != "unclear"}
        )
    return rows


def patched(run: Run, at: int, n: int) -> Figure:
    """Draw prefix matching of later heads by the layer that is patched, of one seed.

    Args:
        run: a comparison.
        at: number of the arm.
        n: of the seed.
    """
    rows = _patch_rows(run, at, n)
    places = list(dict.fromkeys(row["y"] for row in rows))
    heads = list(dict.fromkeys(row["h"] for row in rows))
    shades = ("cell", "induction", "induction-deep")
    some = heads[:: max(1, -(-len(heads) // 24))]
    texts = {"h": "head", "y": "what runs", "t": "prefix matching"}
    chart = charts.on(
        rows,
        x=alt.X("h:N", title="head", sort=heads).axis(
            values=some, labelAngle=-60, ticks=False
        ),
        y=alt.Y("y:N", title=None, sort=places).axis(labelLimit=160, ticks=False),
        color=charts.gradient("v", [0, highest_patched(run)], shades),
        tooltip=charts.tips(texts | {"c": "patched from other tokens"}),
    ).mark_rect()
    arm = run.result["arms"][at]
    names = {"y": "what runs", "h": "head", "v": "prefix matching"}
    return charts.figure(
        f"{arm['name']}, seed {arm['seeds'][n]}", "share of attention", chart,
        round(len(places) * min(34, max(12, 320 / len(places)))), len(rows),
        name=f"patching-{at}-{n}",
        data=charts.named(rows, names | {"d": "patched from other tokens"}),
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


def _patch_rows(run: Run, at: int, n: int) -> Rows:
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
            row = {"h": head_name(l, h), "y": name, "v": charts.plain(values[l, h])}
            row["t"] = words.number(values[l, h])
            row["d"] = None if other is None else charts.plain(other[l, h])
            row["c"] = words.NONE if other is None else words.number(other[l, h])
            rows.append(row)
    return rows
