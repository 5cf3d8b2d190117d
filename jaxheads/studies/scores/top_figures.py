"""Charts of where the top heads sit, how strong they are, and how far they agree."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from jaxheads import statistics
from jaxheads.heads import run_scores
from jaxheads.report import charts, theme, words
from jaxheads.report.figures import Figure, Rows
from jaxheads.report.layout import Key
from jaxheads.runs import Run

_SHAPES = {"function_vector": "cross"}  # every other ranking has circles
SHARED, RANDOM = "shared by both top sets", "random sets, 95 % of them"
UNDER = "{} heads under the {} score"
DRAWS = 1000
_SIZES = 24  # of sets, along a line


def keys(names: Iterable[str], prefix: str) -> list[Key]:
    """Name the top heads of each ranking in a legend, in its colour and shape."""
    return [
        Key(f"{prefix} {words.short(name)}", theme.colour(name), _shape(name))
        for name in names
    ]


def _shape(name: str) -> str:
    return _SHAPES.get(name, "circle")


def depth(run: Run, names: list[str], named: int = 3) -> Figure:
    """Draw the top heads of each ranking against their layer, an axis a score.

    Args:
        run: with scores.
        names: of the rankings, one or two.
        named: how many heads of each are labelled.
    """
    panels, rows, middles = [], [], []
    for name in names:
        values = run_scores.score(run, name)
        count = min(max(run_scores.top_count(values.size), 3), 10, values.size)
        best = run_scores.top_heads(run, name, count)
        middle = run_scores.weighted_layer(best)
        rows += [
            {"set": f"top {words.short(name)}", "head": head.name, "layer": head.layer}
            | {"score": head.score, "standard error": head.error}
            | {"score-weighted mean layer of the set": middle}
            for head in best
        ]
        panels.append(_by_layer(name, best, middle, len(values), named))
        shown = f"{middle:.1f}" if math.isfinite(middle) else words.NONE
        middles.append(f"{shown} ({words.short(name)})")
    return charts.figure(
        "Top heads by layer",
        f"dashed: score-weighted mean layer, {' and '.join(middles)}",
        alt.layer(*panels).resolve_scale(y="independent"), 250,
        name="depth", data=rows,
    )  # fmt: skip


def _by_layer(
    name: str, best: list[run_scores.Head], middle: float, layers: int, count: int
) -> Any:
    shade = f"@{theme.colour(name)}"
    rows = [
        {"l": head.layer, "y": head.score, "h": head.name, "r": rank}
        | {"t": words.head_score(head)}
        for rank, head in enumerate(best)
    ]
    x = alt.X("l:Q", title="layer").axis(grid=False, tickMinStep=1)
    x = x.scale(domain=[0, max(layers - 1, 1)], nice=False)
    y = alt.Y("y:Q", title=words.title(name), scale=alt.Scale(zero=True)).axis(
        titleColor=shade, grid=False, tickCount=5
    )
    base = charts.on(rows, x=x, y=y)
    named = base.transform_filter(f"datum.r < {count}").encode(text="h:N")
    dots = base.encode(tooltip=charts.tips({"h": "head", "t": "score"})).mark_point(
        shape=_shape(name), filled=True, size=80, color=shade, opacity=0.9
    )
    rule = charts.on([{"l": middle}], x=x)
    rule = rule.mark_rule(color=shade, strokeDash=[4, 3], strokeWidth=1.5)
    return alt.layer(rule, dots, charts.texts(named)[1])


def strength(run: Run, name: str) -> Figure:
    """Draw the box plot of a score over all heads, its top heads as points."""
    values = run_scores.score(run, name)
    count = run_scores.top_count(values.size)
    best = run_scores.top_heads(run, name, count)
    first, middle, third = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (third - first)
    inside = values[(values >= first - reach) & (values <= third + reach)]
    told = {
        "minimum": values.min(),
        "lower whisker": inside.min(),
        "first quartile": first,
        "median": middle,
        "third quartile": third,
        "upper whisker": inside.max(),
        "mean over heads": values.mean(),
        "mean of the top 2 %": np.mean([head.score for head in best]),
        "maximum": values.max(),
    }
    told = {key: float(value) for key, value in told.items()}
    unit = run.result["scores"][name].get("unit", "")
    title = f"score ({unit})" if unit else "score"
    data: Rows = [{"of": key, title: value} for key, value in told.items()]
    top = {"set": f"top 2 % by {words.short(name)}"}
    data += [{"of": f"head {head.name}", title: head.score} | top for head in best]
    return charts.figure(
        words.title(name),
        f"median {words.number(told['median'])}, mean "
        f"{words.number(told['mean over heads'])}, mean of the top 2 % "
        f"{words.number(told['mean of the top 2 %'])}, largest "
        f"{words.number(told['maximum'])}",
        _box_plot(name, title, told, best), 52, name=name, data=data,
    )  # fmt: skip


def _box_plot(
    name: str, title: str, told: dict[str, float], best: list[run_scores.Head]
) -> list[alt.Chart]:
    shade = f"@{theme.colour(name)}"
    x = alt.X("a:Q", title=title, scale=alt.Scale(zero=True)).axis(
        grid=False, tickCount=6
    )
    base = charts.on([dict(zip("iabmcdent", told.values(), strict=True))])
    points = [
        {"x": head.score, "h": head.name, "t": words.head_score(head)} for head in best
    ]
    dots = charts.on(
        points,
        x=alt.X("x:Q", title=title),
        tooltip=charts.tips({"h": "head", "t": "score"}),
    )
    look: dict[str, Any] = {"filled": True, "size": 55, "color": shade, "opacity": 0.8}
    return [
        base.encode(x=x, x2="d:Q").mark_rule(color="@muted"),
        base.encode(x="b:Q", x2="c:Q").mark_bar(
            size=20, color="@cell", stroke="@muted", strokeWidth=1
        ),
        base.encode(x="m:Q").mark_tick(size=20, thickness=2, color="@ink"),
        base.encode(x="e:Q").mark_point(
            shape="diamond", filled=True, size=45, color="@ink", opacity=1
        ),
        base.encode(x="n:Q").mark_tick(size=34, thickness=2, color=shade),
        dots.mark_point(shape=_shape(name), **look),
    ]


def agreement(run: Run, names: tuple[str, str]) -> list[Figure]:
    """Draw the overlap of two rankings' top sets and each one's place in the other.

    Source: Yin & Steinhardt 2025, figure 3, over all sizes of the sets.
    """
    scores = {name: run_scores.score(run, name) for name in names}
    total = scores[names[0]].size
    sizes = set_sizes(total)
    made = [
        _against_size(
            "Heads in both top sets", SHARED, "other-2", "shared (%)",
            shared(scores[names[0]], scores[names[1]], sizes), "shared",
        )
    ]  # fmt: skip
    for name, other in (names, names[::-1]):
        series = UNDER.format(words.short(name), words.short(other))
        made.append(
            _against_size(
                words.sentence(series), series, theme.colour(name), "percentile",
                percentiles(scores[name], scores[other], sizes),
                f"{name}-under-{other}",
            )
        )  # fmt: skip
    return made


def set_sizes(total: int) -> list[int]:
    """Choose numbers of heads from 1 to a fifth of all, with the 2, 5 and 10 % sets."""
    shares = (0.02, 0.05, 0.1, 0.2)
    known = [run_scores.top_count(total, share) for share in shares]
    spaced = np.linspace(1, known[-1], min(_SIZES, known[-1])).round()
    return sorted({int(size) for size in (*spaced, *known)})


class Placed(NamedTuple):
    """A quantity of the sets of one size, and what random sets have of it."""

    size: int
    total: int
    value: float
    random: float
    low: float
    high: float


def shared(one: np.ndarray, other: np.ndarray, sizes: list[int]) -> list[Placed]:
    """Give the shared part of two rankings' top sets, in percent.

    Args:
        one: a score [L, H].
        other: another [L, H].
        sizes: of the sets, in heads.

    Returns:
        One a size; the mean and the 95 % range of random sets are exact.
    """
    total, made = one.size, []
    for size in sizes:
        masks = [run_scores.top_mask(values, size) for values in (one, other)]
        chance = statistics.overlap_chance(size, size, total)
        shares = (statistics.overlap(*masks), chance, *_by_chance(size, total))
        made.append(Placed(size, total, *(100 * share for share in shares)))
    return made


def _by_chance(size: int, total: int) -> tuple[float, float]:
    """Bound the share of heads that 95 % of random pairs of sets have in common."""
    ways = [
        math.comb(size, k) * math.comb(total - size, size - k) for k in range(size + 1)
    ]
    all_ways = math.comb(total, size)
    below = np.cumsum([way / all_ways for way in ways])
    low, high = np.searchsorted(below, [0.025, 0.975])
    return float(low / size), float(min(high, size) / size)


def percentiles(own: np.ndarray, values: np.ndarray, sizes: list[int]) -> list[Placed]:
    """Place the top heads by one score among all heads by another.

    Args:
        own: the score [L, H] that picks the heads.
        values: the score [L, H] in whose distribution their mean is placed.
        sizes: of the sets, in heads.

    Returns:
        One a size, by ``statistics.percentile_of``; random sets over ``DRAWS`` draws.
    """
    rng = np.random.default_rng(theme.SEED)
    draws = rng.permuted(np.tile(values.ravel(), (DRAWS, 1)), axis=1)[:, : max(sizes)]
    means = draws.cumsum(1)[:, np.asarray(sizes) - 1] / np.asarray(sizes)
    chance = _places(values, means)
    low, high = np.percentile(chance, [2.5, 97.5], axis=0)
    tops = [run_scores.top_mask(own, size) for size in sizes]
    placed = [statistics.percentile_of(values, top) for top in tops]
    columns = (placed, chance.mean(0), low, high)
    return [
        Placed(size, values.size, *map(float, row))
        for size, *row in zip(sizes, *columns, strict=True)
    ]


def _places(values: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Give ``statistics.percentile_of`` for many means at once."""
    ordered = np.sort(values, axis=None)
    sides = [np.searchsorted(ordered, means, side) for side in ("left", "right")]
    return 50 * (sides[0] + sides[1]) / values.size


def _against_size(
    title: str, series: str, shade: str, quantity: str, placed: list[Placed], name: str
) -> Figure:
    """Draw a quantity, and what random sets have, against the size of the sets."""
    points, data = [], []
    for one in placed:
        share = 100 * one.size / one.total
        points.append(
            {"n": one.size, "x": share, "y": one.value}
            | {"r": one.random, "a": one.low, "b": one.high}
        )
        at = {"heads in the set": one.size, "heads in the set (%)": share}
        data += [
            {"set": series, **at, quantity: one.value},
            {"set": RANDOM, **at, quantity: one.random}
            | {f"{quantity}, low": one.low, f"{quantity}, high": one.high},
        ]
    x = alt.X("x:Q", title="heads in the set (%)").axis(grid=False)
    y = alt.Y("y:Q", title=quantity, scale=alt.Scale(domain=[0, 100])).axis(tickCount=5)
    texts = {"n:Q": "heads", "y:Q .3~g": quantity, "r:Q .3~g": "random sets, mean"}
    base, colour = charts.on(points, x=x), f"@{shade}"
    mean = base.encode(y=alt.Y("r:Q", title=quantity))
    dots = base.encode(y=y, tooltip=charts.tips(texts))
    layers = [
        charts.span(base, y).mark_area(color="@random", opacity=0.25),
        mean.mark_line(color="@random", strokeDash=[4, 3], strokeWidth=1.5),
        base.encode(y=y).mark_line(color=colour, strokeWidth=2),
        dots.mark_circle(color=colour, size=30, opacity=1),
    ]
    return charts.figure(title, "", layers, 190, name=name, data=data)
