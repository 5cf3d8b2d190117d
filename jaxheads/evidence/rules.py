"""What the rules of the arguments share: answers, limits and intervals over seeds."""

import math
from typing import Any, Literal

import numpy as np

from jaxheads.statistics import bootstrap_mean

Answer = Literal["holds", "refuted", "undecided", "not asked"]

MOST, FEW = 0.75, 0.25  # shares of seeds
FEWEST = 3  # seeds from which on shares of them decide anything


class NotAsked(Exception):
    """Runs that lack what an argument needs; says what that is."""


def interval(values: Any, seed: int) -> dict[str, Any] | None:
    """Mean over seeds with its bootstrap interval of 95 %, ready for JSON.

    Args:
        values: one a seed; those that are not numbers do not count.
        seed: of the resampling.

    Returns:
        "mean", "low", "high", "count"; low and high are None of a single seed. None
        where there is no value.
    """
    known = [float(value) for value in values if math.isfinite(value)]
    if not known:
        return None
    made = bootstrap_mean(np.array(known), seed)
    several = len(known) > 1
    return {
        "mean": made.mean,
        "low": made.low if several else None,
        "high": made.high if several else None,
        "count": len(known),
    }


def against(made: dict[str, Any], limit: float) -> Answer:
    """Whether an interval is above a limit; of a single seed nothing is decided."""
    if made["low"] is None:
        return "undecided"
    if made["low"] > limit:
        return "holds"
    return "refuted" if made["high"] < limit else "undecided"


def spelled(made: dict[str, Any]) -> str:
    """Write a mean with its interval and its number of seeds."""
    ends = ""
    if made["low"] is not None:
        ends = f" [{made['low']:.2f}, {made['high']:.2f}]"
    seeds = f"{made['count']} seed" + ("" if made["count"] == 1 else "s")
    return f"{made['mean']:.2f}{ends} ({seeds})"
