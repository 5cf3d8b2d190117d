"""What a few seeds of a training say of further ones: one interval, one least number.

Used by everything that decides over seeds: ``jaxheads evidence``, ``compare-runs`` and
``dynamics``. The interval is Student's t, which covers 95 % from two seeds on if seeds
are normally distributed; a bootstrap of 2, 3, 4 or 8 seeds covers 51, 75, 80, 89 %.

Seeds of different runs are never pooled: they share architecture and data, so that two
seeds of one run are more alike than two of different runs.
"""

import math
from typing import Any

import numpy as np

from jaxheads.statistics.units import Estimate, student_t_p

FEWEST = 3
"""Seeds from which on anything is decided. With two the spread has one degree of
freedom: the interval is 6 times as wide as their range on either side, and where it
decides it does so because the two happen to be nearly equal."""

NOTE = (
    f"Seeds are the units: intervals over seeds are Student's t of 95 %, fewer than "
    f"{FEWEST} seeds decide nothing, and seeds of different runs are not pooled."
)
"""For pages."""


def over_seeds(values: Any) -> Estimate:
    """Estimate the mean over further seeds.

    Args:
        values: [N], one a seed; those that are not finite do not count.

    Returns:
        The mean, nan of no seed, with its variance: nan (an unbounded interval) of
        fewer than two seeds, and where all are equal, for then no spread was seen.
    """
    values = np.asarray(values, np.float64)
    known = values[np.isfinite(values)]
    count = len(known)
    mean = float(known.mean()) if count else math.nan
    spread = count > 1 and np.ptp(known) > 1e-9 * np.abs(known).max()
    variance = float(known.var(ddof=1)) / count if spread else math.nan
    return Estimate(mean, variance, float(max(count - 1, 0)))


def difference_of_runs(values: Any, others: Any) -> Estimate:
    """Estimate the mean of one run's seeds minus that of another's, by Welch.

    Args:
        values: [N], of one run.
        others: [M], of the other, whose seeds are not paired with these.
    """
    one, other = over_seeds(values), over_seeds(others)
    found = one.with_source(other.variance, other.freedom)
    return found._replace(mean=one.mean - other.mean)


def p_of_zero(found: Estimate) -> float:
    """Two-sided p of a true mean of 0, by Student's t; nan where no spread is known."""
    if math.isnan(found.variance):
        return math.nan
    return float(student_t_p(found.mean / math.sqrt(found.variance), found.freedom))
