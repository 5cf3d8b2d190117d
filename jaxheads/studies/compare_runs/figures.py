"""Charts of a comparison of trainings: both arms over steps, and at the end."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
from jaxheads.runs import Run
from jaxheads.statistics.paired_tests import estimate
from jaxheads.studies.compare_runs.effects import (
    HEAD_UNITS,
    Effect,
    head_strength,
    title as name_of,
)
from jaxheads.studies.compare_runs.result import config_of

_HEIGHT = 210
_ENDS = {"a": "low", "b": "high"}
_COLOURS = ("induction", "fv", "other-1", "other-2", "other-3")
CURVES = {
    "repetition_accuracy": "share right",
    "prefix_top": "share of attention",
    "induction_heads": "heads",
    "token_loss_difference": "nats",
    "token_loss_difference_non_extractive": "nats",
    "copyable_loss": "nats",
    "plain_loss": "nats",
    "answer_loss": "nats",
    "accuracy_answer": "share right",
    "shot_1": "share right",
    "shot_4": "share right",
    "shot_8": "share right",
}
"""What is drawn over training, where it was measured, and its unit."""
DIFFERENCES = ("copyable_loss", "plain_loss", "answer_loss", "token_loss_difference")


def colour(arm: int) -> str:
    """An arm's colour."""
    return _COLOURS[arm % len(_COLOURS)]


def names(run: Run) -> list[str]:
    """Of the arms."""
    return [arm["name"] for arm in run.result["arms"]]


def curve(run: Run, arm: int, name: str) -> np.ndarray | None:
    """A figure of one arm over its training, float64 [E, N]; None: not measured."""
    if name in HEAD_UNITS:
        scores = run.arrays.get(f"arm_{arm}/train/prefix_matching")
        return None if scores is None else head_strength(scores, config_of(run))[name]
    if name.startswith("shot_"):
        pairs = int(name.removeprefix("shot_"))
        values = run.arrays.get(f"arm_{arm}/train/accuracy_by_shot")
        if values is not None:
            values = values[:, :, pairs] if values.shape[2] > pairs else None
    else:
        values = run.arrays.get(f"arm_{arm}/train/{name}")
    if values is None or values.ndim != 2 or not np.isfinite(values).any():
        return None
    return values.astype(float)


def over_training(run: Run) -> list[Figure]:
    """Draw every arm's seeds, thin, and their mean, against the step."""
    return [_lines(run, name, known) for name in CURVES if (known := _known(run, name))]


def differences(run: Run) -> list[Figure]:
    """Draw every arm minus the reference, with the interval over seeds."""
    if len(run.result["arms"][0]["seeds"]) < 2:
        return []
    return [
        _bands(run, name, known) for name in DIFFERENCES if (known := _known(run, name))
    ]


def _known(run: Run, name: str) -> list[np.ndarray]:
    """A curve [E, N] of every arm; nothing where an arm lacks it."""
    each = [curve(run, arm, name) for arm in range(len(names(run)))]
    known = [one for one in each if one is not None]
    return known if len(known) == len(each) else []


def shots(run: Run) -> Figure | None:
    """Draw the accuracy of functions' answers by the pairs before them, at the end."""
    shot = run.arrays.get("targets/shot")
    if shot is None or shot.max() < 0:
        return None
    rows: Rows = []
    for arm, label in enumerate(names(run)):
        correct = run.arrays[f"arm_{arm}/correct"]
        for pairs in range(int(shot.max()) + 1):
            where = (shot == pairs) & run.arrays["targets/all"]
            if where.any():
                by_seed = correct[:, where].mean(axis=1)
                rows.append({"x": pairs} | _share(label, by_seed))
    x = alt.X("x:Q", title="pairs before").axis(grid=False, tickMinStep=1)
    y = alt.Y("y:Q", title="share right", scale=alt.Scale(zero=True))
    texts = {"s": "arm", "x:Q": "pairs before", "t": "share right"}
    base = charts.on(rows, x=x, color=charts.colours(_shades(run)))
    layers = charts.curves(base, y, charts.tips(texts))
    known = {"s": "arm", "x": "pairs before", "y": "share right"} | _ENDS
    return charts.figure(
        "Answers by the pairs before them", "", layers, _HEIGHT,
        name="shots", data=charts.named(rows, known),
    )  # fmt: skip


def accuracies(run: Run, effects: Sequence[Effect]) -> Figure:
    """Draw the accuracy of every kind of target as bars, with intervals over seeds."""
    found = [one for one in effects if one.family == "accuracy"]
    two = len(names(run)) == 2
    rows: Rows = []
    for one in found:
        p = words.p_value(one.p_seeds_adjusted)
        label = name_of(one.name) + (f" (p {p.replace('< ', '<')})" if two else "")
        by_seed = [_by_seed(run, arm, one.name) for arm in (0, one.arm)]
        for arm, values in zip((0, one.arm), by_seed, strict=True):
            if arm or one.arm == 1:
                place = {"k": label, "o": arm}
                rows.append(place | _share(names(run)[arm], values) | {"p": p})
    y = alt.Y("k:N", title=None, sort=None)
    base = charts.on(
        rows,
        y=y.axis(labelLimit=260, ticks=False, domain=False),
        yOffset=alt.YOffset("o:N", sort=None),
        color=charts.colours(_shades(run)),
    )
    x = alt.X("y:Q", title="share right", scale=alt.Scale(domain=[0, 1]))
    texts = charts.tips({"s": "arm", "k": "of", "t": "share right"})
    ends = charts.span(base, x).encode(color=alt.value("@ink"))
    layers = [
        base.mark_bar(opacity=0.85).encode(x=x, tooltip=texts),
        ends.mark_rule(strokeWidth=1.5),
    ]
    known = {"k": "of", "s": "arm", "y": "share right"} | _ENDS
    height = (12 * len(names(run)) + 8) * len({row["k"] for row in rows})
    return charts.figure(
        "What is right at the end", "", layers, height, name="accuracies",
        data=charts.named(rows, known | {"p": "p over seeds, Holm"}),
    )  # fmt: skip


def _by_seed(run: Run, arm: int, name: str) -> np.ndarray:
    """An accuracy of each seed, float64 [N]."""
    repeated = run.arrays[f"arm_{arm}/repeated"]
    if name == "repetition":
        return repeated[:, :, -1].mean(axis=1)
    if name == "repetition_whole":
        return repeated.mean(axis=(1, 2))
    where = run.arrays[f"targets/{name}"]
    return run.arrays[f"arm_{arm}/correct"][:, where].mean(axis=1)


def _point(label: str, by_seed: np.ndarray) -> dict[str, Any]:
    """A mean over seeds with Student's t interval; of one seed without."""
    mean, low, high = estimate(by_seed).interval()
    known = np.isfinite(low)
    text = words.with_interval(mean, low, high) if known else words.number(mean)
    ends = {"a": charts.plain(low), "b": charts.plain(high)}
    return {"s": label, "y": charts.plain(mean), "t": text} | ends


def _share(label: str, by_seed: np.ndarray) -> dict[str, Any]:
    """The same of a share, whose interval ends at 0 and 1."""
    point = _point(label, by_seed)
    for end in "ab":
        if point[end] is not None:
            point[end] = min(max(point[end], 0.0), 1.0)
    return point


def _shades(run: Run) -> dict[str, str]:
    return {name: colour(arm) for arm, name in enumerate(names(run))}


def _lines(run: Run, name: str, each: Sequence[np.ndarray]) -> Figure:
    """One thin line a seed, and means; values [E, N] of every arm."""
    title, unit = words.sentence(words.curve(name)), CURVES[name]
    steps, seeds = run.arrays["train/step"], run.result["arms"][0]["seeds"]
    rows: Rows = [
        {"x": float(step), "y": charts.plain(value), "s": label, "n": str(seed)}
        for label, values in zip(names(run), each, strict=True)
        for n, seed in enumerate(seeds)
        for step, value in zip(steps, values[:, n], strict=True)
        if np.isfinite(value)
    ]
    layers = charts.seed_lines(rows, title, unit, len(seeds) > 1, shades=_shades(run))
    known = {"s": "arm", "n": "seed", "x": "step", "y": f"{title} ({unit})"}
    data = charts.named(rows, known)
    return charts.figure(title, "", layers, _HEIGHT, name=name, data=data)


def _bands(run: Run, name: str, each: Sequence[np.ndarray]) -> Figure:
    """Every arm minus the reference, mean and interval over seeds."""
    steps, quantity = run.arrays["train/step"], f"difference ({CURVES[name]})"
    rows: Rows = [
        {"x": float(step)} | _point(label, difference)
        for label, values in zip(names(run)[1:], each[1:], strict=True)
        for step, difference in zip(steps, values - each[0], strict=True)
        if np.isfinite(difference).all()
    ]
    y = alt.Y("y:Q", title=quantity)
    base = charts.on(rows, x=charts.steps(), color=charts.colours(_shades(run)))
    texts = charts.tips({"s": "arm", "x:Q": "step", "t": quantity})
    layers = [
        charts.level(0, y, strokeDash=[1, 2]),
        charts.span(base, y).mark_area(opacity=0.16),
        base.mark_line(strokeWidth=2).encode(y=y, tooltip=texts),
    ]
    known = {"s": "arm", "x": "step", "y": quantity} | _ENDS
    return charts.figure(
        words.sentence(words.curve(name)), f"minus {names(run)[0]}", layers, _HEIGHT,
        name=f"difference-{name}", data=charts.named(rows, known),
    )  # fmt: skip
