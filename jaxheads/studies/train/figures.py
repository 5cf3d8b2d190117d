"""Charts of a run of ``jaxheads train``: what every seed did, against the step."""

import numpy as np

from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
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
        _chart(run, name, words.sentence(words.curve(name)), unit, steps, values)
        for name, unit in FIGURES.items()
        if (values := evaluated(run, name)) is not None
    ]


def _lines(name: str, title: str, unit: str, steps: np.ndarray, run: Run) -> Figure:
    values = np.asarray(run.arrays[f"train/{name}"], float)
    blocks = np.array_split(np.arange(len(steps)), min(_POINTS, len(steps)))
    means = np.stack([values[block].mean(axis=0) for block in blocks])
    middle = np.array([steps[block].mean() for block in blocks])
    return _chart(run, f"train-{name}", title, unit, middle, means)


def _chart(
    run: Run, name: str, title: str, unit: str, steps: np.ndarray, values: np.ndarray
) -> Figure:
    """One thin line a seed, and their mean; values [E, N]."""
    seeds = run.result["train"]["seeds"]
    rows: Rows = [
        {"x": float(step), "y": charts.plain(value, 6), "n": str(seed)}
        for n, seed in enumerate(seeds)
        for step, value in zip(steps, values[:, n], strict=True)
        if np.isfinite(value)
    ]
    layers = charts.seed_lines(rows, title, unit, len(seeds) > 1)
    data = charts.named(rows, {"x": "step", "n": "seed", "y": f"{title} ({unit})"})
    return charts.figure(title, "", layers, _HEIGHT, name=name, data=data)
