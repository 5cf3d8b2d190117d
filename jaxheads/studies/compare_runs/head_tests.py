"""Effects of heads with their tests, from what a model answers with and without them.

Light to import: the page reads effects by it too.
"""

import numpy as np

from jaxheads.statistics.paired_tests import holm
from jaxheads.statistics.units import student_t_p

LEVEL = 0.05
"""Adjusted p below which a head is said to do something."""


def effects(
    group: str, values: np.ndarray, heads: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Effects of heads and their tests, from P(correct) of every sample.

    Args:
        group: their name.
        values: float [1 + L H, S], from ``answered``; NaN where a sample has none.
        heads: L and H.

    Returns:
        See ``head_effects``, without the axis N.
    """
    values = values[:, np.isfinite(values).all(axis=0)].astype(np.float64)
    count = values.shape[1]
    differences = values[1:] - values[:1]  # [L H, S]
    mean = differences.mean(axis=1)
    error = np.full(len(mean), np.nan)
    if count > 1:
        error = differences.std(axis=1, ddof=1) / np.sqrt(count)
    p = [_p_value(*each, count - 1) for each in zip(mean, error, strict=True)]
    shaped = lambda each: each.reshape(heads).astype(np.float32)
    return {
        f"probability/{group}": np.asarray(values[0].mean(), np.float32),
        f"effect/{group}": shaped(mean),
        f"effect_se/{group}": shaped(error),
        f"effect_p/{group}": holm(p).reshape(heads),  # may be below float32's least
        f"samples/{group}": np.asarray(count),
    }


def _p_value(mean: float, error: float, freedom: int) -> float:
    """Two-sided p of a mean of 0, by Student's t; nan of a single sample."""
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return student_t_p(mean / error, freedom)


def top_places(scores: np.ndarray, count: int = 10) -> list[tuple[int, ...]]:
    """The heads with the highest scores, best first; of equal ones the first.

    Args:
        scores: [L, H], or [N, L, H] for the best of all seeds.
        count: of heads, at most.

    Returns:
        Indices into ``scores``.
    """
    order = np.argsort(-scores, axis=None, kind="stable")[:count]
    places = np.unravel_index(order, scores.shape)
    return [tuple(map(int, place)) for place in zip(*places, strict=True)]


def what_it_does(effect: float, p: float) -> str:
    """Say "helps" or "harms" of a head by its signed effect, "unclear" by its p."""
    if not p < LEVEL:
        return "unclear"
    return "helps" if effect < 0 else "harms"
