"""Small statistics of head scores and ablations, by numpy and scipy.

Intervals over prompts stand in ``statistics.units``, tests in
``statistics.paired_tests``. Dims: S bootstrap samples, B prompts, L layers, H heads.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

SAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean with its interval; floats, or arrays of one shape."""

    mean: Any
    low: Any
    high: Any


def bootstrap_mean(
    values: np.ndarray, seed: int, samples: int = SAMPLES, level: float = LEVEL
) -> Interval:
    """Give the mean over the last axis with a percentile bootstrap interval.

    The leading axes share the resamples, so differences between them stay paired.

    Args:
        values: [..., B]; to treat several axes as one population, ravel them first.
        seed: of the resampling.
        samples: number of resamples.
        level: of the interval, 0.95 for 95 %.

    Returns:
        Mean, low and high, each [...] (floats where ``values`` is [B]).
    """
    values = np.asarray(values, np.float64)
    count = values.shape[-1]
    if not count:
        raise ValueError(f"nothing to resample: values have shape {values.shape}")
    # Drawing with replacement is a multinomial count of each value, so all the
    # resamples of all the leading axes are one matrix product.
    counts = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=samples
    )
    tail = 50 * (1 - level)
    low, high = np.percentile(values @ counts.T / count, [tail, 100 - tail], axis=-1)
    parts = (values.mean(-1), low, high)
    return Interval(*(map(float, parts) if values.ndim == 1 else parts))


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Rank from 1 (smallest); equal values share the mean of their ranks.

    Args:
        values: any shape; it is read flat.

    Returns:
        Ranks [values.size]; all nan where one value is.
    """
    from scipy import stats

    return stats.rankdata(np.ravel(values), nan_policy="propagate")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Give Spearman's rank correlation; nan where one side is constant or has a nan.

    Args:
        a: any shape.
        b: the same shape.

    Returns:
        Pearson's correlation of the average ranks, -1 to 1.
    """
    from scipy import stats

    return _correlation(a, b, stats.spearmanr)


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Give Kendall's rank correlation, tau b; nan where one side is constant or nan.

    (pairs in the same order - pairs in opposite order) / sqrt(pairs that differ in
    ``a`` times pairs that differ in ``b``): ties count for neither.

    Args:
        a: any shape.
        b: the same shape.

    Returns:
        -1 to 1.

    Source: Kendall 1945, The treatment of ties in ranking problems.
    """
    from scipy import stats

    return _correlation(a, b, stats.kendalltau)


def _correlation(a: np.ndarray, b: np.ndarray, of: Callable[..., Any]) -> float:
    """Of two lists flat; nan where there is none, without scipy's warning."""
    a, b = np.ravel(a), np.ravel(b)
    if (
        np.isnan(a).any()
        or np.isnan(b).any()
        or (a == a[:1]).all()
        or (b == b[:1]).all()
    ):
        return float("nan")
    return float(of(a, b).statistic)


def percentile_of(scores: np.ndarray, mask: np.ndarray) -> float:
    """Place the mean score of a set of heads in the distribution of all heads.

    Args:
        scores: [L, H].
        mask: bool [L, H], the set.

    Returns:
        Share of heads with a lower score than the set's mean, in percent; heads
        that equal it count half. nan for an empty set, and where a score is nan.

    Source: Yin & Steinhardt 2025, figure 3.
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        return float("nan")
    mean = np.asarray(scores)[mask].mean()
    if np.isnan(scores).any():
        return float("nan")
    return float(50 * ((scores < mean).mean() + (scores <= mean).mean()))


def overlap(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """Give the share of the smaller set that lies in the other one, 0 to 1.

    Args:
        mask_a: bool [L, H].
        mask_b: bool [L, H].

    Returns:
        The share; nan where a set is empty.
    """
    smaller = min(np.sum(mask_a), np.sum(mask_b))
    shared = np.sum(np.asarray(mask_a, bool) & np.asarray(mask_b, bool))
    return float(shared / smaller) if smaller else float("nan")


def overlap_chance(size_a: int, size_b: int, total: int) -> float:
    """Give the expected ``overlap`` of two random sets of these sizes.

    The expected number of shared heads is size_a size_b / total.

    Args:
        size_a: heads in the one set.
        size_b: heads in the other.
        total: heads in the model.

    Returns:
        The expected share of the smaller set, 0 to 1; nan where a set is empty.
    """
    return max(size_a, size_b) / total if size_a and size_b else float("nan")


def overlap_p_value(shared: int, size_a: int, size_b: int, total: int) -> float:
    """Give the probability that two random sets share so many heads or more.

    The tail of the hypergeometric distribution, sum over k >= ``shared`` of
    C(size_a, k) C(total - size_a, size_b - k) / C(total, size_b).

    Args:
        shared: heads that are in both sets.
        size_a: heads in the one set.
        size_b: heads in the other.
        total: heads in the model.

    Returns:
        0 to 1; one-sided.
    """
    from scipy import stats

    return float(stats.hypergeom.sf(shared - 1, total, size_a, size_b))


def jaccard(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """Give the share of the heads of either set that are in both; nan for no heads.

    Args:
        mask_a: bool [L, H].
        mask_b: bool [L, H].
    """
    either = np.sum(mask_a | mask_b)
    return float(np.sum(mask_a & mask_b) / either) if either else float("nan")
