"""Means over prompts and documents: what varies, how much, and the interval that holds.

The one place of every interval over prompts. Dims: E tasks, B prompts, C units, S
resamples. A *unit* is what might have been drawn otherwise: a query with all the
prompts that ask it, or a document. Every mean is the mean of the tasks' means; units
vary within the given tasks, so an interval speaks of other queries of these tasks.
Queries of two tasks count as two, also where their texts are equal.

What the 95 % intervals cover, in percent, by simulation (``test_coverage.py``):

| values | 19 tasks | one task |
|---|---|---|
| answers, 10 to 90 % right | 94 to 96 | 94 to 97 |
| answers, 5 or 95 % right | 95 to 96 | 98 to 99 |
| differences of answers | 94 to 96 | 94 to 100 |
| answers, prompts counted apart | 67 to 69 | 62 to 70 |

Each task has 100 prompts of 37 queries, drawn with replacement, whose prompts agree
with correlation 0, 0.5 or 1; the last row is of correlation 1. Where events are rare in
one task, intervals are wider than they need be. Documents:

| losses | 10 | 20 | 50 documents | Student's t alone, 10 |
|---|---|---|---|---|
| normal | 95 | 96 | 95 | 94 |
| lognormal, sigma 0.5 | 95 | 96 | 96 | 93 |
| lognormal, sigma 1 | 91 | 93 | 95 | 85 |
| lognormal, sigma 1.5 | 85 | 88 | 91 | 73 |
| difference of two, sigma 1 | 96 | 97 | 96 | 96 |

Percentile intervals cover less than Student's t, and BCa about as much. No interval
holds for 10 documents of sigma 1.5: the page says so of few documents.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxheads.statistics import LEVEL, SAMPLES, Interval


def student_t_p(t: Any, freedom: Any) -> Any:
    """Give the two-sided p value of Student's t: the probability of |T| >= |t|.

    Args:
        t: the statistic, a number or an array; infinite gives 0.
        freedom: degrees of freedom, above 0; infinite gives the normal's.

    Returns:
        0 to 1; nan for nan.
    """
    from scipy import stats

    return 2 * stats.t.sf(abs(t), freedom)


def student_t_quantile(level: float, freedom: Any) -> Any:
    """Give the t with P(|T| <= t) = ``level``: 12.7 for 0.95 and 1 degree of freedom.

    Args:
        level: above 0 and below 1.
        freedom: degrees of freedom, a number or an array, above 0; infinite gives the
            normal's.
    """
    from scipy import stats

    return stats.t.ppf((1 + level) / 2, freedom)


ANSWERS = (0.0, 1.0)
"""Bounds of answers that are right, wrong, or right in part."""
DIFFERENCES = (-1.0, 1.0)
"""Bounds of differences of answers."""
_ADDED = 2.0  # prompts that the interval of bounded values adds at either bound


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """Which prompts belong together, and what each weighs in the mean of tasks' means.

    Attributes:
        order: int [P], the prompts that count, read flat, sorted by unit.
        starts: int [C], where each unit begins in ``order``.
        weight: [P], of a prompt in the mean; they sum to 1.
        strata: the units that are drawn together: those of a task, or all where some
            task has one unit only.
    """

    order: np.ndarray
    starts: np.ndarray
    weight: np.ndarray
    strata: tuple[slice, ...]

    @property
    def size(self) -> np.ndarray:
        """Weight of each unit, [C]."""
        return np.add.reduceat(self.weight, self.starts)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """What each unit adds to the mean: [..., E, B] -> [..., C]."""
        flat = values.reshape(*values.shape[:-2], -1)[..., self.order]
        return np.add.reduceat(flat * self.weight, self.starts, axis=-1)

    def alone(self) -> "Units":
        """The same prompts and strata, each prompt a unit of its own."""
        ends = [*self.starts, len(self.order)]
        strata = tuple(
            slice(int(ends[one.start]), int(ends[one.stop])) for one in self.strata
        )
        return dataclasses.replace(
            self, starts=np.arange(len(self.order)), strata=strata
        )

    def variance(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variance of the mean and its degrees of freedom: [..., C] -> two [...].

        Of a task with G units, of sums u(g) and weights a(g): G / (G - 1) times the
        sum of (u(g) - m a(g))^2, m the task's mean. Freedom by Satterthwaite; units of
        unequal weights have as much as (sum a^2)^2 / sum a^4 equal ones.

        Source: Cochran 1977, Sampling Techniques, section 6.4; Satterthwaite 1946.
        """
        size, parts, free = self.size, [], []
        for at in self.strata:
            u, a = sums[..., at], size[at]
            left = u - u.sum(-1, keepdims=True) / a.sum() * a
            count = a.size
            scale = count / (count - 1) if count > 1 else math.nan
            parts.append(scale * (left**2).sum(-1))
            free.append(max((a**2).sum() ** 2 / (a**4).sum() - 1, min(count - 1, 1)))
        each = np.stack(parts, axis=-1)
        # Sums of equal values in another order differ in the last bits.
        rounding = (1e-12 * np.abs(sums).max(axis=-1, initial=0)) ** 2
        total = each.sum(-1)
        total = np.where(total <= rounding, 0.0, total)
        free = np.array(free)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = total**2 / (each**2 / free).sum(-1)
        return total, np.where(total > 0, found, free.sum())

    def resampled(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The mean where units are drawn again: [..., C] by [S, C] -> [..., S]."""
        made = 0.0
        for at in self.strata:
            a = self.size[at]
            weighed = counts[:, at]
            made = made + a.sum() * (sums[..., at] @ weighed.T) / (weighed @ a)
        return np.asarray(made)

    def drawn(self, seed: int, samples: int) -> np.ndarray:
        """How often each unit is drawn, with replacement within strata: [S, C]."""
        rng = np.random.default_rng(seed)
        counts = [
            rng.multinomial(size, np.full(size, 1 / size), samples)
            for size in (at.stop - at.start for at in self.strata)
        ]
        return np.concatenate(counts, axis=1).astype(np.float64)


def units(
    shape: tuple[int, ...],
    queries: np.ndarray | None = None,
    counted: np.ndarray | None = None,
) -> Units:
    """Sort prompts into the units that they belong to.

    Args:
        shape: (E, B), or (B,).
        queries: int [E, B], or [B]; prompts of a task with one number ask one query.
            None: each prompt is a query, or a document, of its own.
        counted: bool [E, B], prompts that count; a task with none is left out. None:
            all.

    Raises:
        ValueError: no prompt counts, or shapes differ.
    """
    shape = (1, *shape)[-2:]
    tasks, prompts = shape
    if not tasks * prompts:
        raise ValueError(f"there is nothing to take a mean of: the shape is {shape}")
    each = np.tile(np.arange(prompts), (tasks, 1))
    asked = each if queries is None else np.atleast_2d(np.asarray(queries))
    kept = np.ones(shape, bool) if counted is None else np.atleast_2d(counted)
    for name, array in (("queries", asked), ("counted", kept)):
        if array.shape != shape:
            raise ValueError(f"{name} are {array.shape}, but the values {shape}")
    some = np.maximum(kept.sum(axis=1), 1)
    weight = np.repeat(1 / (some * max(int(kept.any(axis=1).sum()), 1)), prompts)
    task = np.repeat(np.arange(tasks), prompts)
    order = np.lexsort((asked.ravel(), task))
    order = order[kept.ravel()[order]]
    if not order.size:
        raise ValueError("no prompt counts: there is nothing to take a mean of")
    of_task, of_query = task[order], asked.ravel()[order]
    new = np.r_[True, (np.diff(of_task) != 0) | (np.diff(of_query) != 0)]
    starts = np.flatnonzero(new)
    _, first, counts = np.unique(of_task[starts], return_index=True, return_counts=True)
    strata = [slice(int(a), int(a + n)) for a, n in zip(first, counts, strict=True)]
    if counts.min() < 2:
        strata = [slice(0, len(starts))]
    return Units(order, starts, weight[order], tuple(strata))


class Estimate(NamedTuple):
    """A mean with what is known of its spread; numbers, or arrays of one shape.

    Attributes:
        mean: as measured.
        variance: of the mean; nan where the sample says nothing of it.
        freedom: degrees of freedom of the variance.
        size: how many independent units the mean is as good as.
        bounds: what a value can be; None: anything.
        tails: [..., S], (resampled mean - mean) / its own error; None: not asked for.
    """

    mean: Any
    variance: Any
    freedom: Any
    size: Any = math.nan
    bounds: tuple[float, float] | None = None
    tails: np.ndarray | None = None

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval that holds; infinite where the variance is unknown, nan of nan.

        Of bounded values: Student's t after two units more at either bound, so that
        units which all agree leave an interval, too. Of others: Student's t; with
        ``tails`` each end is the outer one of Student's and the studentised bootstrap.

        Source: Agresti & Coull 1998; Bonett & Price 2012 (differences); Hall 1988.
        """
        mean, error = self._moments()
        half = student_t_quantile(level, self.freedom)
        below = above = half
        if self.tails is not None:
            ends = [(1 - level) / 2, (1 + level) / 2]
            low, high = np.quantile(self.tails, ends, axis=-1)
            above, below = np.maximum(half, -low), np.maximum(half, high)
        low, high = mean - below * error, mean + above * error
        unknown = np.isnan(self.variance) & ~np.isnan(self.mean)
        low, high = np.where(unknown, -np.inf, low), np.where(unknown, np.inf, high)
        if self.bounds is not None:
            low, high = (np.clip(end, *self.bounds) for end in (low, high))
        if np.ndim(self.mean) == 0:
            return Interval(float(self.mean), float(low), float(high))
        return Interval(self.mean, low, high)

    def _moments(self) -> tuple[Any, Any]:
        """Mean and its error, of bounded values with those added at the bounds."""
        if self.bounds is None:
            return self.mean, np.sqrt(self.variance)
        low, high = self.bounds
        total = self.size + 2 * _ADDED
        mean = (self.size * self.mean + _ADDED * (low + high)) / total
        squares = self.size**2 * self.variance + self.size * (self.mean - mean) ** 2
        squares = squares + _ADDED * ((low - mean) ** 2 + (high - mean) ** 2)
        return mean, np.sqrt(squares) / total

    def with_source(self, variance: float, freedom: float) -> "Estimate":
        """Add an independent source of variance, freedom by Welch and Satterthwaite."""
        total = self.variance + variance
        parts = ((self.variance, self.freedom), (variance, freedom))
        shares = sum(part**2 / free for part, free in parts if part > 0)
        both = total**2 / shares if shares else math.inf
        return self._replace(variance=total, freedom=both)

    def p_above(self, bound: float) -> float:
        """One-sided p value of a true mean of ``bound`` or below; small: it is above.

        With ``bound`` = -margin this is the test of non-inferiority. Where values
        without bounds do not vary it is the sign test's, 2^-size.
        """
        mean, error = self._moments()
        distance = float(mean - bound)
        if error == 0:
            return 0.5**self.size if distance > 0 else 1.0
        half = float(student_t_p(distance / error, self.freedom)) / 2
        return half if distance > 0 else 1 - half

    def p_other(self, value: float = 0.0) -> float:
        """Two-sided p value of a true mean of ``value``; small: it is another."""
        bounds = None if self.bounds is None else (-self.bounds[1], -self.bounds[0])
        mirrored = self._replace(mean=-self.mean, bounds=bounds)
        above, below = self.p_above(value), mirrored.p_above(-value)
        return float(np.minimum(1.0, 2 * np.minimum(above, below)))  # nan stays nan


def estimate(
    values: np.ndarray,
    queries: np.ndarray | None = None,
    *,
    counted: np.ndarray | None = None,
    bounds: tuple[float, float] | None = None,
    seed: int | None = None,
) -> Estimate:
    """Estimate the mean of the tasks' means.

    Args:
        values: [..., E, B], or [B]; leading axes are sets on the same prompts. Of tasks
            with one query each, the tasks vary.
        queries: see ``units``.
        counted: likewise.
        bounds: what a value can be, ``ANSWERS`` or ``DIFFERENCES``; None: anything.
            Values that are not finite leave the variance unknown.
        seed: of studentised resamples, which skewed values without bounds need; None:
            Student's t alone.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    known = values[np.isfinite(values)]
    if bounds is not None and ((known < bounds[0]) | (known > bounds[1])).any():
        raise ValueError(
            f"values must lie within {bounds}, but reach from {known.min()} to "
            f"{known.max()}"
        )
    found = units(values.shape[-2:], queries, counted)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _estimated(found, values, counted is None, bounds, seed)


def _estimated(
    found: Units,
    values: np.ndarray,
    all_count: bool,
    bounds: tuple[float, float] | None,
    seed: int | None,
) -> Estimate:
    """``estimate`` of sorted prompts."""
    sums = found.sums(values)
    # Exact of whole numbers, so that sets with equal values have equal means.
    mean = values.mean((-2, -1)) if all_count else sums.sum(-1)
    variance, freedom = found.variance(sums)
    fewest, most = 1 / (found.size**2).sum(), 1 / (found.weight**2).sum()
    size = np.full(mean.shape, fewest)
    if most > fewest:  # prompts of one query may be as good as independent
        alone = found.alone()
        spread, _ = alone.variance(alone.sums(values))
        size = np.clip(most * spread / variance, fewest, most)
        size = np.where(variance > 0, size, fewest)
    tails = None
    if seed is not None and bounds is None:
        tails = _studentised(found, sums, mean, seed)
    if not mean.ndim:
        mean, variance, freedom, size = map(float, (mean, variance, freedom, size))
    return Estimate(mean, variance, freedom, size, bounds, tails)


def _studentised(
    found: Units, sums: np.ndarray, mean: np.ndarray, seed: int
) -> np.ndarray:
    """(resampled mean - mean) / its own error, [..., S]; 0 where none is known."""
    counts, size = found.drawn(seed, SAMPLES), found.size
    made = found.resampled(sums, counts)
    variance, largest = np.zeros(made.shape), np.zeros((*made.shape[:-1], 1))
    for at in found.strata:
        a, times = size[at], counts[:, at].T
        # Around the task's mean, so that rounding is small beside what varies.
        u = sums[..., at] - sums[..., at].sum(-1, keepdims=True) / a.sum() * a
        total = a @ times
        own = (u @ times) / total
        square = u**2 @ times - 2 * own * ((u * a) @ times) + own**2 * (a**2 @ times)
        scale = a.size / max(a.size - 1, 1) * (a.sum() / total) ** 2
        variance += scale * square
        largest = np.maximum(largest, np.abs(u).max(axis=-1, initial=0)[..., None])
    error = np.sqrt(np.maximum(variance, 0))
    # Of a resample that took one unit alone, the variance is 0 but for rounding.
    least = 1e-6 * largest
    distance = made - mean[..., None]
    return np.divide(distance, error, out=np.zeros_like(distance), where=error > least)


def resampled_means(
    values: np.ndarray,
    seed: int,
    samples: int = SAMPLES,
    queries: np.ndarray | None = None,
) -> np.ndarray:
    """Give the mean of the tasks' means as other queries might have given it.

    Args:
        values: [..., E, B], or [B]; the leading axes share the resamples.
        seed: of the resampling.
        samples: S.
        queries: see ``units``.

    Returns:
        [..., S].
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    found = units(values.shape[-2:], queries)
    return found.resampled(found.sums(values), found.drawn(seed, samples))


def mean_and_error(
    values: np.ndarray, queries: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the tasks' means and its standard error over queries: two [...].

    Args:
        values: [..., E, B].
        queries: see ``units``.
    """
    found = estimate(values, queries)
    return np.asarray(found.mean), np.sqrt(found.variance)


def of_means(
    values: np.ndarray,
    function: Callable[[np.ndarray], Any],
    queries: np.ndarray | None = None,
) -> Estimate:
    """Estimate a smooth function of several means over the same units.

    By the delta method: its variance is that of the mean of sum_m d f / d mean_m x_m.

    Args:
        values: [M, E, B], or [M, B]; sets on the same prompts, in the same order.
        function: of the means, [M], to a number.
        queries: see ``units``.

    Returns:
        The function of the measured means, with its variance; nan where it is not
        finite there.

    Source: Davison & Hinkley 1997, section 2.7.
    """
    values = np.asarray(values, np.float64)
    values = values.reshape(len(values), -1, values.shape[-1])
    found = units(values.shape[1:], queries)
    means = found.sums(values).sum(-1)
    steps = np.diag(1e-6 * np.maximum(np.abs(means), 1e-3))
    with np.errstate(divide="ignore", invalid="ignore"):
        made = float(function(means))
        slopes = [
            (function(means + step) - function(means - step)) / (2 * step.max())
            for step in steps
        ]
    if not np.isfinite((made, *slopes)).all():
        return Estimate(math.nan, math.nan, math.nan)
    linear = estimate(np.tensordot(np.array(slopes, np.float64), values, 1), queries)
    return linear._replace(mean=made)


def mean_where(
    values: np.ndarray, where: np.ndarray, axis: int | None = None
) -> np.ndarray:
    """Mean over the targets, or windows, that count; NaN where none does.

    Args:
        values: [N, S] or [N, S, T].
        where: bool, without N.
        axis: of ``values`` that the mean is over, 1 for the windows; None: all but N.

    Returns:
        float64 [N], or [N, T].
    """
    axes = tuple(range(1, values.ndim)) if axis is None else (axis,)
    count = where.sum(axis=tuple(a - 1 for a in axes))
    total = np.where(where, values, 0.0).sum(axis=axes)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
