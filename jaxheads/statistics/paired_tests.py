"""Tests of two sets of heads on the same prompts, and of one set against random ones.

Dims: E tasks, B prompts, R random draws. Tasks and prompts count as in the bootstrap:
every mean is the mean of the tasks' means, and prompts vary within the given tasks.
"""

import dataclasses
import itertools
import math
from typing import Literal, NamedTuple

import numpy as np

from jaxheads.statistics import Interval
from jaxheads.statistics.distributions import (
    binomial_probability,
    binomial_tail,
    student_t_p,
    student_t_quantile,
)

Alternative = Literal["two-sided", "greater", "less"]
FLIPS = 9999
_EXACT = 13  # differences other than 0 up to which every sign pattern is gone through


class Discordant(NamedTuple):
    """Prompts that only one of two sets got right, and McNemar's p value."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: np.ndarray, b: np.ndarray, *, mid_p: bool = False) -> Discordant:
    """Test whether two sets answer the same prompts equally often.

    Of the n prompts on which they differ each is as likely to be A's as B's: p is the
    probability of a split as uneven as this one, or more so, of n fair tosses.

    Args:
        a: 0 or 1, any shape; whether each prompt is right.
        b: as ``a``, the same prompts in the same order.
        mid_p: count splits that are just as uneven half: closer to the level, which the
            exact test keeps below.

    Returns:
        Counts and the two-sided p value, 1 where the sets differ nowhere.

    Raises:
        ValueError: values other than 0 and 1.

    Source: McNemar 1947; Fagerland, Lydersen & Laake 2013 for mid-p.
    """
    a, b = np.asarray(a), np.asarray(b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("McNemar's test takes answers that are 0 or 1")
    only_a, only_b = int(np.sum(a > b)), int(np.sum(b > a))
    trials, fewer = only_a + only_b, min(only_a, only_b)
    if trials == 0:
        return Discordant(0, 0, 1.0)
    p = min(1.0, 2 * binomial_tail(fewer, trials))
    if mid_p:
        as_uneven = 1 if only_a == only_b else 2
        p -= as_uneven * binomial_probability(fewer, trials) / 2
    return Discordant(only_a, only_b, p)


def sign_flip_p(
    differences: np.ndarray,
    seed: int,
    *,
    alternative: Alternative = "two-sided",
    flips: int = FLIPS,
) -> float:
    """Test whether paired differences are centred on 0, by flipping their signs.

    If neither set is better, each prompt's difference might as well have had the other
    sign. p is the share of sign patterns whose mean is as far out as the measured one:
    of all patterns where few differences are not 0, else of random ones, the measured
    one among them. For differences of -1, 0 and 1 in tasks of equal size this is
    McNemar's exact test, and computed as that.

    Args:
        differences: [B], or [E, B]; the statistic is the mean, of tasks' means.
        seed: of random patterns.
        alternative: "greater" for a mean above 0 alone, "less" for below.
        flips: random patterns.

    Returns:
        p, above 0; 1 where every difference is 0, nan where one is.

    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    values = np.ravel(np.asarray(differences, np.float64))
    if np.isnan(values).any():
        return float("nan")
    values = values[values != 0] * (-1 if alternative == "less" else 1)
    if not values.size:
        return 1.0
    sizes = np.unique(np.abs(values))
    if len(sizes) == 1:
        return _sign_test(values, alternative)
    if len(values) <= _EXACT:
        signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
        made, measured = signs @ values, values.sum()
        added = 0
    else:
        rng = np.random.default_rng(seed)
        signs = rng.integers(0, 2, (flips, len(values)), dtype=np.int8)
        made, measured = 2 * (signs @ values) - values.sum(), values.sum()
        added = 1
    # Sums of the same numbers in another order may differ in the last bits.
    close = 1e-9 * np.abs(values).sum()
    if alternative == "two-sided":
        made, measured = np.abs(made), abs(measured)
    beyond = int(np.sum(made >= measured - close))
    return (beyond + added) / (len(made) + added)


def _sign_test(values: np.ndarray, alternative: Alternative) -> float:
    """Differences of one size: a matter of counts."""
    above = int(np.sum(values > 0))
    below = len(values) - above
    if alternative == "two-sided":
        return min(1.0, 2 * binomial_tail(min(above, below), len(values)))
    return binomial_tail(below, len(values))


class Estimate(NamedTuple):
    """A mean that is normally distributed around the true one, its spread estimated.

    Attributes:
        mean: as measured.
        variance: of the mean; nan where the sample says nothing of it.
        freedom: degrees of freedom of the variance.
    """

    mean: float
    variance: float
    freedom: float

    def interval(self, level: float = 0.95) -> Interval:
        """Student's t interval; infinite where the variance is unknown."""
        if math.isnan(self.variance):
            return Interval(self.mean, -math.inf, math.inf)
        if self.variance == 0:
            return Interval(self.mean, self.mean, self.mean)
        half = student_t_quantile(level, self.freedom) * math.sqrt(self.variance)
        return Interval(self.mean, self.mean - half, self.mean + half)

    def with_source(self, variance: float, freedom: float) -> "Estimate":
        """Add an independent source of variance, freedom by Welch and Satterthwaite."""
        total = self.variance + variance
        parts = ((self.variance, self.freedom), (variance, freedom))
        shares = sum(part**2 / free for part, free in parts if part > 0)
        return Estimate(self.mean, total, total**2 / shares if shares else math.inf)

    def p_above(self, bound: float) -> float:
        """One-sided p value of a true mean of ``bound`` or below; small: it is above.

        With ``bound`` = -margin this is the test of non-inferiority.
        """
        distance = self.mean - bound
        if self.variance == 0:
            return 0.0 if distance > 0 else 1.0
        half = student_t_p(distance / math.sqrt(self.variance), self.freedom) / 2
        return half if distance > 0 else 1 - half


def estimate(values: np.ndarray) -> Estimate:
    """Estimate the mean of the tasks' means.

    Args:
        values: [B], or [E, B]: prompts vary within tasks; of tasks with one prompt
            each, the tasks vary.
    """
    rows = strata(values)
    tasks, prompts = rows.shape
    mean = float(rows.mean())
    if prompts < 2:
        return Estimate(mean, float("nan"), 0.0)
    variance = float(rows.var(axis=1, ddof=1).mean() / rows.size)
    return Estimate(mean, variance, float(tasks * (prompts - 1)))


def strata(values: np.ndarray) -> np.ndarray:
    """Give rows to resample within: tasks, or all as one where a task has one prompt.

    Args:
        values: [B] or [E, B].

    Returns:
        [E, B], or [1, E].
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    return values.reshape(1, -1) if values.shape[1] < 2 else values


@dataclasses.dataclass(frozen=True)
class AgainstDraws:
    """One set of heads against random sets, on the same prompts.

    Attributes:
        difference: the set minus the mean over all random sets that might have been
            drawn; it varies with prompts and draws.
        p_prompts: that the set equals the mean of these draws; over prompts.
        p_draws: that it is one more such random set; over draws, nan with one draw.
        below: draws that are below it.
        ties: draws that equal it.
        draws: R.
    """

    difference: Estimate
    p_prompts: float
    p_draws: float
    below: int
    ties: int
    draws: int

    @property
    def p(self) -> float:
        """The larger of both: small where the set is unlike these and further draws."""
        return float(np.max((self.p_prompts, self.p_draws)))  # nan if either is

    @property
    def rank(self) -> float:
        """Place among the draws and itself, 1 the lowest, ties shared."""
        return 1 + self.below + self.ties / 2


def against_draws(values: np.ndarray, draws: np.ndarray, seed: int) -> AgainstDraws:
    """Set one set's values against those of random sets.

    Prompts and draws are both samples. The difference has the variance v / n + s^2 / R,
    where v / n is that of the mean of the prompts' paired differences and s the
    standard deviation of the draws' means (which has the prompts' noise too, so the
    interval is rather too wide); degrees of freedom by Welch and Satterthwaite.
    ``p_draws`` is from t = (x - mean) / (s sqrt(1 + 1 / R)) with R - 1 degrees of
    freedom, exact where the means of random sets are normally distributed: by its rank
    alone a set could never have a p value below 1 / (R + 1).

    Args:
        values: [B] or [E, B].
        draws: [R, B] or [R, E, B], measured on the same prompts.
        seed: of the sign flips.
    """
    values, draws = np.asarray(values, np.float64), np.asarray(draws, np.float64)
    count, own = len(draws), float(values.mean())
    means = draws.reshape(count, -1).mean(1)
    paired = values - draws.mean(0)
    found, spread = estimate(paired), math.nan
    if count > 1:
        spread = float(means.var(ddof=1))
        found = found.with_source(spread / count, count - 1)
    close = 1e-12
    return AgainstDraws(
        difference=found,
        p_prompts=sign_flip_p(paired, seed),
        p_draws=_p_of_another(found.mean, spread, count),
        below=int(np.sum(means < own - close)),
        ties=int(np.sum(np.abs(means - own) <= close)),
        draws=count,
    )


def _p_of_another(difference: float, variance: float, draws: int) -> float:
    if draws < 2:
        return math.nan
    if variance == 0:
        return 1.0 if difference == 0 else 0.0
    t = difference / math.sqrt(variance * (1 + 1 / draws))
    return student_t_p(t, draws - 1)


def equivalence(interval: Interval, margin: float) -> str:
    """Judge a difference by its interval: is it smaller than a margin?

    With a 90 % interval this is two one-sided tests at 5 %.

    Args:
        interval: of the difference.
        margin: largest difference that counts as none, above 0.

    Returns:
        "equal": the interval lies within (-margin, margin); "different": it lies
        outside of it; else "undecided".

    Source: Schuirmann 1987, two one-sided tests.
    """
    if -margin < interval.low and interval.high < margin:
        return "equal"
    if interval.low >= margin or interval.high <= -margin:
        return "different"
    return "undecided"
