"""Charts of a comparison of trainings: both arms over steps, and at the end."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import words
from jaxheads.report.charts import figure
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
    made = []
    for name, unit in CURVES.items():
        each = [curve(run, arm, name) for arm in range(len(names(run)))]
        known = [one for one in each if one is not None]
        if known and len(known) == len(each):
            made.append(
                _lines(run, name, words.sentence(words.curve(name)), unit, known)
            )
    return made


def differences(run: Run) -> list[Figure]:
    """Draw every arm minus the reference, with the interval over seeds."""
    made = []
    if len(run.result["arms"][0]["seeds"]) < 2:
        return made
    for name in DIFFERENCES:
        each = [curve(run, arm, name) for arm in range(len(names(run)))]
        known = [one for one in each if one is not None]
        if known and len(known) == len(each):
            made.append(_bands(run, name, known))
    return made


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
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title="pairs before").axis(grid=False, tickMinStep=1),
        color=_palette(run),
    )
    y = alt.Y("y:Q", title="share right", scale=alt.Scale(zero=True))
    tooltip = [
        alt.Tooltip("s:N", title="arm"),
        alt.Tooltip("x:Q", title="pairs before"),
        alt.Tooltip("t:N", title="share right"),
    ]
    chart = alt.layer(
        base.mark_area(opacity=0.16).encode(
            y=alt.Y("a:Q", title="share right"), y2="b:Q"
        ),
        base.mark_line(strokeWidth=2).encode(y=y),
        base.mark_circle(size=34, opacity=1).encode(y=y, tooltip=tooltip),
    )
    data = [
        {"arm": row["s"], "pairs before": row["x"], "share right": row["y"]}
        | {"low": row["a"], "high": row["b"]}
        for row in rows
    ]
    title = "Answers by the pairs before them"
    return figure(title, "", chart, _HEIGHT, name="shots", data=data)


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
    y = alt.Y("k:N", title=None, sort=None).axis(
        labelLimit=260, ticks=False, domain=False
    )
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=y, yOffset=alt.YOffset("o:N", sort=None), color=_palette(run)
    )
    tooltip = [
        alt.Tooltip("s:N", title="arm"),
        alt.Tooltip("k:N", title="of"),
        alt.Tooltip("t:N", title="share right"),
    ]
    x = alt.X("y:Q", title="share right", scale=alt.Scale(domain=[0, 1]))
    chart = alt.layer(
        base.mark_bar(opacity=0.85).encode(x=x, tooltip=tooltip),
        base.mark_rule(strokeWidth=1.5).encode(
            x=alt.X("a:Q", title="share right"),
            x2="b:Q",
            color=alt.value("@ink"),
        ),
    )
    data = [
        {"of": row["k"], "arm": row["s"], "share right": row["y"]}
        | {"low": row["a"], "high": row["b"], "p over seeds, Holm": row["p"]}
        for row in rows
    ]
    height = (12 * len(names(run)) + 8) * len({row["k"] for row in rows})
    title = "What is right at the end"
    return figure(title, "", chart, height, name="accuracies", data=data)


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
    known = math.isfinite(low)
    text = words.with_interval(mean, low, high) if known else words.number(mean)
    return {"s": label, "y": _plain(mean), "t": text, "a": _plain(low)} | {
        "b": _plain(high)
    }


def _share(label: str, by_seed: np.ndarray) -> dict[str, Any]:
    """The same of a share, whose interval ends at 0 and 1."""
    point = _point(label, by_seed)
    clipped = {
        end: None if point[end] is None else min(max(point[end], 0.0), 1.0)
        for end in "ab"
    }
    return point | clipped


def _plain(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _palette(run: Run) -> alt.Color:
    shades = [f"@{colour(arm)}" for arm in range(len(names(run)))]
    scale = alt.Scale(domain=names(run), range=shades)
    return alt.Color("s:N", scale=scale, legend=None)


def _lines(
    run: Run, name: str, title: str, unit: str, each: Sequence[np.ndarray]
) -> Figure:
    """One thin line a seed, and means; values [E, N] of every arm."""
    steps, seeds = run.arrays["train/step"], run.result["arms"][0]["seeds"]
    rows: Rows = [
        {"x": float(step), "y": _plain(value), "s": label, "n": str(seed)}
        for label, values in zip(names(run), each, strict=True)
        for n, seed in enumerate(seeds)
        for step, value in zip(steps, values[:, n], strict=True)
        if np.isfinite(value)
    ]
    y = alt.Y("y:Q", title=unit, scale=alt.Scale(zero=False))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title="training step").axis(grid=False), y=y, color=_palette(run)
    )
    tooltip = [
        alt.Tooltip("s:N", title="arm"),
        alt.Tooltip("n:N", title="seed"),
        alt.Tooltip("x:Q", title="step"),
        alt.Tooltip("y:Q", title=title, format=".3g"),
    ]
    thin = base.mark_line(strokeWidth=1, opacity=0.4)
    layers = [thin.encode(detail="n:N", tooltip=tooltip)]
    if len(seeds) > 1:
        thick = base.mark_line(strokeWidth=2.5)
        layers.append(thick.encode(y=alt.Y("mean(y):Q", title=unit)))
    data = [
        {"arm": row["s"], "seed": row["n"], "step": row["x"]}
        | {f"{title} ({unit})": row["y"]}
        for row in rows
    ]
    return figure(title, "", alt.layer(*layers), _HEIGHT, name=name, data=data)


def _bands(run: Run, name: str, each: Sequence[np.ndarray]) -> Figure:
    """Every arm minus the reference, mean and interval over seeds."""
    title, unit = words.sentence(words.curve(name)), CURVES[name]
    rows: Rows = [
        {"x": float(step)} | _point(label, difference)
        for label, values in zip(names(run)[1:], each[1:], strict=True)
        for step, difference in zip(
            run.arrays["train/step"], values - each[0], strict=True
        )
        if np.isfinite(difference).all()
    ]
    y_title = f"difference ({unit})"
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title="training step").axis(grid=False), color=_palette(run)
    )
    y = alt.Y("y:Q", title=y_title)
    tooltip = [
        alt.Tooltip("s:N", title="arm"),
        alt.Tooltip("x:Q", title="step"),
        alt.Tooltip("t:N", title=y_title),
    ]
    level = alt.Chart(alt.Data(values=[{"y": 0}])).mark_rule(
        color="@ink", strokeWidth=1, strokeDash=[1, 2]
    )
    chart = alt.layer(
        level.encode(y=alt.Y("y:Q", title=y_title)),
        base.mark_area(opacity=0.16).encode(y=alt.Y("a:Q", title=y_title), y2="b:Q"),
        base.mark_line(strokeWidth=2).encode(y=y, tooltip=tooltip),
    )
    data = [
        {"arm": row["s"], "step": row["x"], y_title: row["y"]}
        | {"low": row["a"], "high": row["b"]}
        for row in rows
    ]
    note = f"minus {names(run)[0]}"
    return figure(title, note, chart, _HEIGHT, name=f"difference-{name}", data=data)
