"""What the rules of the arguments share: answers, limits and intervals over seeds."""

import math
from collections.abc import Sequence
from typing import Any

from jaxheads.statistics import Interval
from jaxheads.statistics.claims import Verdict, decide
from jaxheads.statistics.seeds import FEWEST, over_seeds, p_of_zero
from jaxheads.statistics.units import Estimate

MOST = 0.75  # share of seeds
WIDE = 0.5
"""Share of the training from which on a window is no phase change of it: what happens
over most of a training happens together with anything."""


class NotAsked(Exception):
    """Runs that lack what an argument needs; says what that is."""


def known(values: Sequence[float | None]) -> list[float]:
    """The values that are there."""
    return [float(x) for x in values if x is not None and math.isfinite(x)]


def interval(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean over seeds with its interval of 95 %, ready for JSON.

    Args:
        values: one a seed; those that are not numbers do not count.

    Returns:
        "mean", "low", "high", "count"; low and high are None where it is unbounded.
        None where there is no value.
    """
    there = known(values)
    if not there:
        return None
    made = over_seeds(there).interval()
    bounded = math.isfinite(made.low)
    return {
        "mean": made.mean,
        "low": made.low if bounded else None,
        "high": made.high if bounded else None,
        "count": len(there),
    }


def against(
    values: Sequence[float | None], limit: float, smallest: float = 0.0
) -> Verdict:
    """Whether the mean over seeds is above a limit, by the rules of all claims.

    Args:
        values: one a seed of one run; undecided of fewer than 3 of them.
        limit: of the mean.
        smallest: distance from the limit below which the mean counts as equal to it.
    """
    above = [value - limit for value in known(values)]
    return decided(over_seeds(above), len(above), smallest)


def decided(found: Estimate, seeds: int, smallest: float) -> Verdict:
    """Whether a mean over so many seeds is above 0."""
    if seeds < FEWEST:
        return "undecided"
    made = found.interval()
    return decide(Interval(*made), p_of_zero(found), smallest)


def over_runs(answers: Sequence[Verdict]) -> Verdict:
    """What all runs say that were asked; "undecided" if they differ, or none was.

    A claim on every run is false as soon as one run's is: the chance of a false verdict
    is that of a single run, however many there are.
    """
    said = set(answers) - {"not measured"}
    return next(iter(said)) if len(said) == 1 else "undecided"


def spelled(made: dict[str, Any]) -> str:
    """Write a mean with its interval and its number of seeds."""
    ends = ""
    if made["low"] is not None:
        ends = f" [{made['low']:.2f}, {made['high']:.2f}]"
    seeds = f"{made['count']} seed" + ("" if made["count"] == 1 else "s")
    return f"{made['mean']:.2f}{ends} ({seeds})"
