"""Small statistics of head scores and ablations, in numpy alone.

Dims: S bootstrap samples, E tasks, B prompts, L layers, H heads.
"""

import math
from typing import Any, NamedTuple

import numpy as np

SAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean with its percentile bootstrap interval; floats, or arrays of one shape."""

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
    return bootstrap_task_mean(values[..., None, :], seed, samples, level)


def bootstrap_task_mean(
    values: np.ndarray, seed: int, samples: int = SAMPLES, level: float = LEVEL
) -> Interval:
    """Give the mean of the tasks' means, with prompts resampled within each task.

    The tasks are taken as given: the interval speaks of other prompts of these
    tasks, not of other tasks.

    Args:
        values: [..., E, B]; the leading axes share the resamples.
        seed: of the resampling.
        samples: number of resamples.
        level: of the interval.

    Returns:
        Mean, low and high, each [...] (floats where ``values`` is [E, B]).
    """
    values = np.asarray(values, np.float64)
    means = resampled_means(values, seed, samples)
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail], axis=-1)
    parts = (values.mean((-2, -1)), low, high)
    if values.ndim == 2:
        return Interval(*(float(part) for part in parts))
    return Interval(*parts)


def resampled_means(
    values: np.ndarray, seed: int, samples: int = SAMPLES
) -> np.ndarray:
    """Give the mean of the tasks' means as other prompts might have given it.

    Args:
        values: [..., E, B]; the leading axes share the resamples.
        seed: of the resampling.
        samples: S.

    Returns:
        [..., S].
    """
    values = np.asarray(values, np.float64)
    tasks, prompts = values.shape[-2:]
    if tasks == 0 or prompts == 0:
        raise ValueError(f"nothing to resample: values have shape {values.shape}")
    flat = values.reshape(-1, tasks * prompts)
    # Drawing with replacement is a multinomial count of each prompt, so all the
    # resamples of all the leading axes are one matrix product.
    counts = np.random.default_rng(seed).multinomial(
        prompts, np.full(prompts, 1 / prompts), size=(samples, tasks)
    )
    weights = counts.reshape(samples, tasks * prompts) / (tasks * prompts)
    return (flat @ weights.T).reshape(*values.shape[:-2], samples)


def paired_difference_interval(
    a: np.ndarray,
    b: np.ndarray,
    seed: int,
    samples: int = SAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Give the mean of ``a - b`` over the same prompts, with its interval.

    Args:
        a: [B], or [E, B] to resample prompts within tasks.
        b: as ``a``, measured on the same prompts in the same order.
        seed: of the resampling.
        samples: number of resamples.
        level: of the interval.

    Returns:
        Mean, low and high of the difference.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    if difference.ndim == 1:
        return bootstrap_mean(difference, seed, samples, level)
    return bootstrap_task_mean(difference, seed, samples, level)


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Rank from 1 (smallest); equal values share the mean of their ranks.

    Args:
        values: any shape; it is read flat.

    Returns:
        Ranks [values.size].
    """
    _, place, counts = np.unique(
        np.ravel(values), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[np.ravel(place)]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Give Spearman's rank correlation; nan where one side is constant.

    Args:
        a: any shape.
        b: the same shape.

    Returns:
        Pearson's correlation of the average ranks, -1 to 1.
    """
    ranks_a, ranks_b = average_ranks(a), average_ranks(b)
    ranks_a, ranks_b = ranks_a - ranks_a.mean(), ranks_b - ranks_b.mean()
    scale = np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum())
    return float((ranks_a * ranks_b).sum() / scale) if scale else float("nan")


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Give Kendall's rank correlation, tau b; nan where one side is constant.

    (pairs in the same order - pairs in opposite order) / sqrt(pairs that differ in
    ``a`` times pairs that differ in ``b``): ties count for neither.

    Args:
        a: any shape.
        b: the same shape.

    Returns:
        -1 to 1.

    Source: Kendall 1945, The treatment of ties in ranking problems.
    """
    # Of ranks, so that the differences of infinite values are numbers.
    ranks_a, ranks_b = average_ranks(a), average_ranks(b)
    agreement, differ_a, differ_b = 0.0, 0, 0
    for n in range(1, len(ranks_a)):  # row by row: memory stays that of the scores
        signs_a = np.sign(ranks_a[n:] - ranks_a[:-n])
        signs_b = np.sign(ranks_b[n:] - ranks_b[:-n])
        agreement += float(signs_a @ signs_b)
        differ_a += np.count_nonzero(signs_a)
        differ_b += np.count_nonzero(signs_b)
    scale = math.sqrt(differ_a * differ_b)
    return agreement / scale if scale else float("nan")


def percentile_of(scores: np.ndarray, mask: np.ndarray) -> float:
    """Place the mean score of a set of heads in the distribution of all heads.

    Args:
        scores: [L, H].
        mask: bool [L, H], the set.

    Returns:
        Share of heads with a lower score than the set's mean, in percent; heads
        that equal it count half. nan for an empty set.

    Source: Yin & Steinhardt 2025, figure 3.
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        return float("nan")
    mean = np.asarray(scores)[mask].mean()
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
    C(size_a, k) C(total - size_a, size_b - k) / C(total, size_b), in whole numbers.

    Args:
        shared: heads that are in both sets.
        size_a: heads in the one set.
        size_b: heads in the other.
        total: heads in the model.

    Returns:
        0 to 1; one-sided.
    """
    ways = sum(
        math.comb(size_a, k) * math.comb(total - size_a, size_b - k)
        for k in range(shared, min(size_a, size_b) + 1)
    )
    return ways / math.comb(total, size_b)


def jaccard(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """Give the share of the heads of either set that are in both; nan for no heads.

    Args:
        mask_a: bool [L, H].
        mask_b: bool [L, H].
    """
    either = np.sum(mask_a | mask_b)
    return float(np.sum(mask_a & mask_b) / either) if either else float("nan")
