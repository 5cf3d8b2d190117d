"""Tests of two sets of heads on the same prompts, and of one set against random ones.

Dims: E tasks, B prompts, C units, R random draws. Prompts count as in
``statistics.units``: every mean is the mean of the tasks' means, and queries, with all
the prompts that ask them, vary within the given tasks.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from jaxheads.statistics import Interval
from jaxheads.statistics.units import Estimate, estimate, student_t_p, units

Alternative = Literal["two-sided", "greater", "less"]
FLIPS = 9999
_EXACT = 13  # differences other than 0 up to which every sign pattern is gone through


class Discordant(NamedTuple):
    """Prompts that only one of two sets got right, and McNemar's p value."""

    only_a: int
    only_b: int
    p: float


def mcnemar(
    a: np.ndarray, b: np.ndarray, queries: np.ndarray | None = None, seed: int = 0
) -> Discordant:
    """Test whether two sets answer the same prompts equally often.

    Of the n prompts on which they differ each is as likely to be A's as B's: p is the
    probability of a split as uneven as this one, or more so, of n fair tosses. Where
    several prompts ask one query it is the query that is tossed: see ``sign_flip_p``.

    Args:
        a: 0 or 1, [B] or [E, B]; whether each prompt is right.
        b: as ``a``, the same prompts in the same order.
        queries: int, as ``a``: prompts of a task with one number ask one query. None:
            each prompt is a query of its own.
        seed: of random tosses, where queries share prompts.

    Returns:
        Counts and the two-sided p value, 1 where the sets differ nowhere.

    Raises:
        ValueError: values other than 0 and 1.

    Source: McNemar 1947; Yang, Sun & Hardin 2010 (clusters).
    """
    a, b = np.asarray(a), np.asarray(b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("McNemar's test takes answers that are 0 or 1")
    difference = a.astype(np.int64) - b
    p = sign_flip_p(difference, seed, queries=queries)
    return Discordant(int(np.sum(a > b)), int(np.sum(b > a)), p)


def sign_flip_p(
    differences: np.ndarray,
    seed: int,
    *,
    queries: np.ndarray | None = None,
    alternative: Alternative = "two-sided",
    flips: int = FLIPS,
) -> float:
    """Test whether paired differences are centred on 0, by flipping their signs.

    If neither set is better, each query's sum of differences might as well have had the
    other sign. p is the share of sign patterns whose mean is as far out as the measured
    one: of all patterns where few sums are not 0, else of random ones, the measured one
    among them. For sums of one size this is the sign test, which for differences of -1,
    0 and 1 is McNemar's exact test, and computed as that.

    Args:
        differences: [B], or [E, B]; the statistic is the mean, of tasks' means.
        seed: of random patterns.
        queries: int, as ``differences``: prompts of a task with one number ask one
            query. None: each prompt is a query of its own.
        alternative: "greater" for a mean above 0 alone, "less" for below.
        flips: random patterns.

    Returns:
        p, above 0; 1 where every sum is 0, nan where a difference is not finite.

    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    if alternative not in get_args(Alternative):
        raise ValueError(
            f"alternative is one of {get_args(Alternative)}, not {alternative!r}"
        )
    differences = np.atleast_2d(np.asarray(differences, np.float64))
    if not differences.size:
        return 1.0
    if not np.isfinite(differences).all():
        return math.nan
    found = units(differences.shape, queries)
    # In units of a prompt's weight, so that sums of whole numbers stay whole.
    values = found.sums(differences) * differences.size
    close = 1e-9 * np.abs(values).max(initial=0)
    values = values[np.abs(values) > close] * (-1 if alternative == "less" else 1)
    if not values.size:
        return 1.0
    if np.ptp(np.abs(values)) <= close:
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
    from scipy import stats

    above = int(np.sum(values > 0))
    made = stats.binomtest(
        above,
        len(values),
        alternative="greater" if alternative == "less" else alternative,
    )
    return float(made.pvalue)


@dataclasses.dataclass(frozen=True)
class AgainstDraws:
    """One set of heads against random sets, on the same prompts.

    Attributes:
        difference: the set minus the mean over all random sets that might have been
            drawn; it varies with queries and draws, and so does its interval.
        p_prompts: that the set equals the mean of these draws; over queries.
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


def against_draws(
    values: np.ndarray,
    draws: np.ndarray,
    seed: int,
    queries: np.ndarray | None = None,
    bounds: tuple[float, float] | None = None,
) -> AgainstDraws:
    """Set one set's values against those of random sets.

    Queries and draws are both samples. The difference has the variance v + s^2 / R,
    where v is that of the mean of the prompts' paired differences and s the standard
    deviation of the draws' means (which has the prompts' noise too, so the interval is
    rather too wide); degrees of freedom by Welch and Satterthwaite. ``p_draws`` is from
    t = (x - mean) / (s sqrt(1 + 1 / R)) with R - 1 degrees of freedom, exact where the
    means of random sets are normally distributed: by its rank alone a set could never
    have a p value below 1 / (R + 1). Where the draws tie, s says nothing, and the rank
    is all there is.

    Args:
        values: [B] or [E, B].
        draws: [R, B] or [R, E, B], measured on the same prompts.
        seed: of the sign flips and, without bounds, of studentised resamples.
        queries: int, as ``values``; see ``units``.
        bounds: of the differences; see ``estimate``.

    Returns:
        p values are nan where a value is not finite.

    Raises:
        ValueError: there is no draw.
    """
    if not len(draws):
        raise ValueError("there must be a random draw or more to compare with")
    with np.errstate(invalid="ignore"):
        return _against(values, draws, seed, queries, bounds)


def _against(values, draws, seed, queries, bounds) -> AgainstDraws:
    values, draws = np.asarray(values, np.float64), np.asarray(draws, np.float64)
    count, own = len(draws), float(values.mean())
    means = draws.reshape(count, -1).mean(1)
    paired = values - draws.mean(0)
    found, spread = estimate(paired, queries, bounds=bounds, seed=seed), math.nan
    close = 1e-12 * float(np.abs(means[np.isfinite(means)]).max(initial=1.0))
    if count > 1:
        tied = np.ptp(means) <= close
        spread = 0.0 if tied else float(means.var(ddof=1))
        found = found.with_source(spread / count, count - 1)
    return AgainstDraws(
        difference=found,
        p_prompts=sign_flip_p(paired, seed, queries=queries),
        p_draws=_p_of_another(own - float(means.mean()), spread, count, close),
        below=int(np.sum(means < own - close)),
        ties=int(np.sum(np.abs(means - own) <= close)),
        draws=count,
    )


def _p_of_another(
    difference: float, variance: float, draws: int, close: float
) -> float:
    if draws < 2:
        return math.nan
    if variance == 0:
        return 1.0 if abs(difference) <= close else 1 / (draws + 1)
    t = difference / math.sqrt(variance * (1 + 1 / draws))
    return float(student_t_p(t, draws - 1))


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


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p values so that the chance of any false finding stays at the level.

    Of m tests with p(1) <= ... <= p(m): adjusted p(i) = max over j <= i of
    (m - j + 1) p(j), at most 1. Valid whatever the tests' dependence.

    Args:
        p_values: [M]; nan counts for no test and stays nan.

    Returns:
        Adjusted p values [M], in the given order.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    return _adjusted(
        p_values, lambda p: np.maximum.accumulate(p * np.arange(len(p), 0, -1))
    )


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p values so that the expected share of false findings stays at the level.

    Of m tests with p(1) <= ... <= p(m): adjusted p(i) = min over j >= i of m p(j) / j,
    at most 1. For tests that are independent or positively dependent.

    Args:
        p_values: [M]; nan counts for no test and stays nan.

    Returns:
        Adjusted p values [M], in the given order.

    Source: Benjamini & Hochberg 1995, Controlling the false discovery rate.
    """
    from scipy import stats

    return _adjusted(p_values, stats.false_discovery_control)


def _adjusted(p_values: Sequence[float] | np.ndarray, rule) -> np.ndarray:
    """Apply a rule of sorted p values, at most 1, and put them back in order."""
    p_values = np.asarray(p_values, np.float64)
    made = np.flatnonzero(~np.isnan(p_values))
    order = made[np.argsort(p_values[made], kind="stable")]
    adjusted = np.full(p_values.shape, np.nan)
    if order.size:
        adjusted[order] = np.minimum(rule(p_values[order]), 1.0)
    return adjusted
