"""Scores of heads, and the rankings they make, read from a run."""

import dataclasses
import math
from statistics import NormalDist

import numpy as np

from jaxheads.heads import count_of, head_name
from jaxheads.runs import Run


@dataclasses.dataclass(frozen=True)
class Head:
    """One head with its score under one ranking."""

    layer: int
    head: int
    score: float
    error: float

    @property
    def name(self) -> str:
        """The head as "layer.head", both counted from 0."""
        return head_name(self.layer, self.head)


def score(run: Run, name: str) -> np.ndarray:
    """Give the score [L, H] of a run by name."""
    return np.asarray(run.arrays[f"score/{name}"], np.float64)


def errors(run: Run, name: str) -> np.ndarray:
    """Give the standard errors [L, H] of a score; nan where the run has none."""
    values = run.arrays.get(f"score/{name}_se")
    if values is None:
        return np.full_like(score(run, name), np.nan)
    return np.asarray(values, np.float64)


def names(run: Run) -> list[str]:
    """Name the scores that the run holds, in its own order."""
    listed = run.result.get("scores") or {}
    return [name for name in listed if f"score/{name}" in run.arrays]


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank heads from 1 (largest score); equal scores in order of layer and head.

    Args:
        values: [L, H].

    Returns:
        int [L, H].
    """
    order = np.argsort(-values, axis=None, kind="stable")
    places = np.empty(values.size, int)
    places[order] = np.arange(1, values.size + 1)
    return places.reshape(values.shape)


def top_mask(values: np.ndarray, count: int) -> np.ndarray:
    """Mark the ``count`` best heads: bool [L, H]."""
    return ranks(values) <= count


def top_heads(run: Run, name: str, count: int) -> list[Head]:
    """List the best heads by a score, best first."""
    values, spread = score(run, name), errors(run, name)
    order = np.argsort(-values, axis=None, kind="stable")[:count]
    return [
        Head(int(l), int(h), float(values[l, h]), float(spread[l, h]))
        for l, h in zip(*np.unravel_index(order, values.shape), strict=True)
    ]


def top_count(total: int, share: float = 0.02) -> int:
    """Count the heads at the top of a ranking, rounded up as in the paper's figures."""
    return count_of(share, total, "up")


def weighted_layer(found: list[Head]) -> float:
    """Give the mean layer of heads, weighted by their (positive) scores."""
    weights = np.maximum([head.score for head in found], 0)
    layers = np.array([head.layer for head in found])
    return float(weights @ layers / weights.sum()) if weights.sum() else float("nan")


def detectable(head: Head, chance: float, total: int) -> bool:
    """Tell whether the best of ``total`` heads stands above chance.

    The best of many noisy heads is large by selection, so its z value is held
    against the two-sided 5 % threshold divided by the number of heads.
    """
    if not head.error > 0:
        return head.score > chance
    return (head.score - chance) / head.error > NormalDist().inv_cdf(1 - 0.025 / total)


def separated(first: Head, second: Head) -> bool:
    """Tell whether two heads' scores differ by two standard errors or more."""
    spread = math.hypot(
        *(0.0 if math.isnan(head.error) else head.error for head in (first, second))
    )
    return first.score - second.score > 2 * spread
