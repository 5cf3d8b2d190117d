"""How sure the numbers of a ranking are: scores resampled, heads permuted.

Dims: S resamples, A tasks, B prompts, L layers, H heads.
"""

import math
import sys
from itertools import combinations

import numpy as np

from jaxheads import statistics
from jaxheads.runs import Run
from jaxheads.statistics.units import resampled_means, student_t_p

SAMPLES = 500
_PERMUTATIONS = 9999


def resampled_scores(run: Run, name: str, seed: int, samples: int) -> np.ndarray:
    """Give a score as other prompts might have given it.

    The function-vector score of a run that holds its effects prompt by prompt is the
    mean over queries drawn with replacement within each task; else, each head's score
    is moved by a normal error of its standard error, alone.

    Args:
        run: the loaded run.
        name: of the score.
        seed: of the resampling.
        samples: S.

    Returns:
        [S, L, H].
    """
    effects = run.arrays.get("fv/effects_by_prompt")  # [A, L, H, B]
    if name == "function_vector" and effects is not None and effects.shape[-1] > 1:
        values = np.moveaxis(np.asarray(effects, np.float64), 0, -2)  # [L, H, A, B]
        queries = run.arrays.get("fv/queries")
        return np.moveaxis(resampled_means(values, seed, samples, queries), -1, 0)
    rng = np.random.default_rng(seed)
    mean = np.asarray(run.arrays[f"score/{name}"], np.float64)
    error = run.arrays.get(f"score/{name}_se")
    error = np.zeros_like(mean) if error is None else np.nan_to_num(error)
    return mean + error * rng.normal(size=(samples, *mean.shape))


def ranked_interval(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """Give a 95 % interval of a number of heads that are ranked anew each time.

    Noise makes rankings less alike, and resampling adds as much of it again: the basic
    bootstrap, 2 value - resampled, takes that away. The interval is stretched to hold
    the measured value. nan where nothing was resampled.

    Source: Davison & Hinkley 1997, section 5.2.
    """
    known = resampled[~np.isnan(resampled)]
    if not known.size or math.isnan(value):
        return math.nan, math.nan
    low, high = 2 * value - np.percentile(known, [97.5, 2.5])
    return float(min(low, value)), float(max(high, value))


def over_heads(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[float, float]:
    """Give the 95 % interval of Spearman's correlation with heads resampled."""
    rng = np.random.default_rng(seed)
    a, b = np.ravel(a), np.ravel(b)
    picks = rng.integers(0, a.size, (SAMPLES, a.size))
    made = np.array([statistics.spearman(a[pick], b[pick]) for pick in picks])
    made = made[~np.isnan(made)]
    if not made.size:
        return math.nan, math.nan
    low, high = np.percentile(made, [2.5, 97.5])
    return float(low), float(high)


def depth_p(heads_a: np.ndarray, heads_b: np.ndarray, seed: int = 0) -> float:
    """Test whether two sets of heads lie equally deep, by permuting whose heads are.

    Heads of both sets count for neither. All divisions of the others are gone through
    where they are few, else random ones, the measured one among them.

    Args:
        heads_a: bool [L, H].
        heads_b: bool [L, H].
        seed: of random divisions.

    Returns:
        Two-sided p value of the difference of mean layers; 1 for equal sets, nan where
        one lies within the other.
    """
    only = [np.nonzero(x & ~y)[0] for x, y in ((heads_a, heads_b), (heads_b, heads_a))]
    first, second = map(len, only)
    if not first or not second:
        return 1.0 if first == second else math.nan
    layers = np.concatenate(only).astype(np.float64)
    layers -= layers.mean()  # the difference of means follows the first group's sum
    measured = abs(layers[:first].sum())
    if math.comb(len(layers), first) <= _PERMUTATIONS:
        sums = np.array([sum(pick) for pick in combinations(layers, first)])
        added = 0
    else:
        rng = np.random.default_rng(seed)
        orders = rng.permuted(np.tile(layers, (_PERMUTATIONS, 1)), axis=1)
        sums, added = orders[:, :first].sum(axis=1), 1
    beyond = int(np.sum(np.abs(sums) >= measured - 1e-9))
    return (beyond + added) / (len(sums) + added)


def spearman_p(rho: float, heads: int) -> float:
    """Give the two-sided p value of a rank correlation, by Student's t.

    t = rho sqrt((n - 2) / (1 - rho^2)); for 1 and -1 the exact test's, 2 / n!; nan for
    fewer than three heads.
    """
    if heads < 3 or math.isnan(rho):
        return math.nan
    rest = 1 - rho**2
    if rest <= 0:  # of all orders, only that one and its reverse are as far out
        return min(1.0, max(2 / math.factorial(heads), sys.float_info.min))
    return float(student_t_p(rho * math.sqrt((heads - 2) / rest), heads - 2))
