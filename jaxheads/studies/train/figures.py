"""Charts of a run of ``jaxheads train``: what every seed did, against the step."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import words
from jaxheads.report.charts import figure
from jaxheads.report.figures import Figure
from jaxheads.runs import Run

_POINTS = 300
"""Points of a line: a longer curve is drawn by means of that many blocks."""
_HEIGHT = 210

FIGURES = {
    "prefix_matching": "share of attention",
    "previous_token": "share of attention",
    "copying": "-1 to 1",
    "icl_score": "nats",
    "token_loss_difference_non_extractive": "nats",
    "repetition_accuracy_whole": "share right",
    "accuracy": "share right",
    "accuracy_copied": "share right",
    "accuracy_copyable": "share right",
    "accuracy_answer": "share right",
    "accuracy_plain": "share right",
    "accuracy_predictable": "share right",
    "accuracy_first_induction": "share right",
    "fewshot_accuracy": "share right",
    "fewshot_log_probability": "nats",
    "legal_next_symbol": "share",
    "total_variation": "distance",
}
"""What is drawn of the evaluations, where it was measured, and its unit."""


def evaluated(run: Run, name: str) -> np.ndarray | None:
    """An evaluation of every seed, [E, N]; None: not there.

    Of heads it is the largest, of few-shot tasks the mean.
    """
    values = run.arrays.get(f"evaluation/{name}")
    if values is None:
        return None
    values = np.asarray(values, float)
    if values.ndim == 4:  # [E, N, L, H]
        values = values.max(axis=(2, 3))
    if name.startswith("fewshot_") and values.ndim == 3:  # [E, N, A]
        values = values.mean(axis=2)
    return values if values.ndim == 2 and np.isfinite(values).any() else None


def losses(run: Run) -> list[Figure]:
    """Draw the training loss, and the share of targets that an objective drops."""
    arrays = run.arrays
    steps = np.arange(1, len(arrays["train/loss"]) + 1)
    drawn = [_lines("loss", "Loss over kept targets", "nats", steps, run)]
    if np.any(arrays["train/dropped"] > 0):
        drawn.append(_lines("all_loss", "Loss over all targets", "nats", steps, run))
        drawn.append(_lines("dropped", "Targets dropped", "share", steps, run))
    return drawn


def evaluations(run: Run) -> list[Figure]:
    """Draw what was measured at evaluations, one chart a quantity."""
    if "evaluation/step" not in run.arrays:
        return []
    steps = run.arrays["evaluation/step"]
    return [
        _chart(
            name, words.sentence(words.curve(name)), unit, steps, values, _seeds(run)
        )
        for name, unit in FIGURES.items()
        if (values := evaluated(run, name)) is not None
    ]


def _lines(name: str, title: str, unit: str, steps: np.ndarray, run: Run) -> Figure:
    values = np.asarray(run.arrays[f"train/{name}"], float)
    blocks = np.array_split(np.arange(len(steps)), min(_POINTS, len(steps)))
    means = np.stack([values[block].mean(axis=0) for block in blocks])
    middle = np.array([steps[block].mean() for block in blocks])
    return _chart(f"train-{name}", title, unit, middle, means, _seeds(run))


def _seeds(run: Run) -> list[int]:
    return run.result["train"]["seeds"]


def _chart(
    name: str,
    title: str,
    unit: str,
    steps: np.ndarray,
    values: np.ndarray,
    seeds: list[int],
) -> Figure:
    """One thin line a seed, and their mean; values [E, N]."""
    rows: list[dict[str, Any]] = [
        {"x": float(step), "y": float(f"{value:.6g}"), "s": str(seed)}
        for n, seed in enumerate(seeds)
        for step, value in zip(steps, values[:, n], strict=True)
        if np.isfinite(value)
    ]
    x = alt.X("x:Q", title="training step").axis(grid=False)
    y = alt.Y("y:Q", title=unit, scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("s:N", title="seed"),
        alt.Tooltip("x:Q", title="step"),
        alt.Tooltip("y:Q", title=title, format=".3g"),
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y)
    lines = base.mark_line(color="@induction", strokeWidth=1, opacity=0.55).encode(
        detail="s:N", tooltip=tooltip
    )
    layers = [lines]
    if len(seeds) > 1:
        thick = base.mark_line(color="@ink", strokeWidth=2)
        layers.append(thick.encode(y=alt.Y("mean(y):Q", title=unit)))
    data = [{"step": r["x"], "seed": r["s"], f"{title} ({unit})": r["y"]} for r in rows]
    return figure(title, "", alt.layer(*layers), _HEIGHT, name=name, data=data)
