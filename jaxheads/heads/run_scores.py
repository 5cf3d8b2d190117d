"""Scores of heads, and the rankings they make, read from a run."""

import dataclasses
import math

import numpy as np

from jaxheads.heads import count_of, head_name
from jaxheads.runs import Run
from jaxheads.statistics.standing_out import stands_out


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


def samples(run: Run, name: str) -> int | None:
    """Count what the errors of a score rest on: prompts of a task, or sequences.

    Returns:
        0 where the run does not say; None for a score that was not sampled.
    """
    if f"score/{name}_se" not in run.arrays:
        return None
    effects = run.arrays.get("fv/effects_by_prompt")
    if name == "function_vector" and effects is not None:
        return effects.shape[-1]
    told = (run.result.get("config") or {}).get("scores") or {}
    key = "corrupted_prompts" if name == "function_vector" else "sequences"
    return int(told.get(key, 0))


def standing_out(run: Run, name: str) -> np.ndarray:
    """Tell which heads' function-vector or induction score stands out from chance.

    Returns:
        bool [L, H], by ``statistics.standing_out``.
    """
    chance = (run.result["scores"].get(name) or {}).get("chance") or 0.0
    count = samples(run, name)
    return stands_out(score(run, name), errors(run, name), chance, count)


def separated(first: Head, second: Head) -> bool:
    """Tell whether two heads' scores differ by two standard errors or more."""
    spread = math.hypot(
        *(0.0 if math.isnan(head.error) else head.error for head in (first, second))
    )
    return first.score - second.score > 2 * spread
