"""How arms differ: effect sizes with intervals, and tests, all paired.

Every difference is an arm minus the reference, of the same seeds on the same windows.
Two questions are told apart, and each has its interval and its test:

- *over seeds*: would other seeds of both trainings differ, too? Student's t of the N
  seeds' paired differences (``statistics.seeds``); this is what is said of an
  objective.
- *over samples*: would these very models differ on other windows? The seeds are taken
  as given, and windows are the independent units: targets of one window, and answers
  of several seeds to one target, depend on each other. Interval: bootstrap of windows.
  Test of all seeds pooled: the signs of the windows' differences, summed over their
  targets and seeds, are flipped. With one seed and one target a window that is
  McNemar's exact test; so it is McNemar's test for clusters, stratified by seeds.

McNemar's exact test of each seed alone, which takes the targets for independent, stands
beside, as the paper has it; of several targets a window its p is too small.

Source: Sahin et al. 2025 (McNemar's test of paired answers, not corrected); Holm 1979.
"""

import dataclasses
import math
from typing import Literal

import numpy as np

from jaxheads.statistics import LEVEL, SAMPLES, Interval
from jaxheads.statistics.paired_tests import mcnemar, sign_flip_p
from jaxheads.statistics.seeds import over_seeds, p_of_zero

Family = Literal["accuracy", "loss", "context", "heads"]
_NAN = math.nan
_UNITS = {"accuracy": "share", "loss": "nats", "context": "nats"}


@dataclasses.dataclass(frozen=True)
class Effect:
    """One quantity of one arm against the reference; NaN: it is not there.

    Attributes:
        name: such as "answer" or "token_loss_difference".
        family: whose tests are adjusted for one another, by Holm's method.
        unit: of the quantity.
        arm: number of the arm, from 1 on.
        targets: that one seed has of it; 0 of heads.
        reference: mean over the reference's seeds.
        other: mean over the arm's seeds.
        difference: ``other - reference``.
        seeds_low: lower end of the difference's 95 % interval over seeds; infinite of
            one seed and where all differ by the same amount.
        seeds_high: upper end.
        samples_low: lower end of that over windows.
        samples_high: upper end.
        by_seed: difference in each of the N seeds.
        p_seeds: of no difference, over seeds.
        p_seeds_adjusted: within the family.
        p_samples: of no difference, over windows, seeds pooled.
        p_samples_adjusted: within the family.
        only_reference: answers that only the reference has right, of each seed.
        only_other: that only the arm has right.
        mcnemar: p of each seed alone.
        mcnemar_adjusted: within the family and over seeds.
    """

    name: str
    family: Family
    unit: str
    arm: int
    targets: int
    reference: float
    other: float
    difference: float
    seeds_low: float
    seeds_high: float
    by_seed: tuple[float, ...]
    p_seeds: float
    samples_low: float = _NAN
    samples_high: float = _NAN
    p_samples: float = _NAN
    only_reference: tuple[int, ...] = ()
    only_other: tuple[int, ...] = ()
    mcnemar: tuple[float, ...] = ()
    p_seeds_adjusted: float = _NAN
    p_samples_adjusted: float = _NAN
    mcnemar_adjusted: tuple[float, ...] = ()


def answer_effect(
    name: str,
    arm: int,
    right: tuple[np.ndarray, np.ndarray],
    where: np.ndarray,
    seed: int,
) -> Effect:
    """An effect on answers, with McNemar's exact test of each seed.

    Args:
        name: of the effect.
        arm: number of the arm.
        right: bool [N, S, T], of the reference and of the arm.
        where: bool [S, T], which answers count.
        seed: of resampling.
    """
    found = window_effect(name, "accuracy", arm, right, where, seed)
    reference, other = (each[:, where] for each in right)
    tests = [mcnemar(*each) for each in zip(reference, other, strict=True)]
    return dataclasses.replace(
        found,
        only_reference=tuple(test.only_a for test in tests),
        only_other=tuple(test.only_b for test in tests),
        mcnemar=tuple(test.p for test in tests),
    )


def window_effect(
    name: str,
    family: Family,
    arm: int,
    values: tuple[np.ndarray, np.ndarray],
    where: np.ndarray,
    seed: int,
) -> Effect:
    """An effect on a mean over targets.

    Args:
        name: of the effect.
        family: likewise.
        arm: number of the arm.
        values: [N, S, T], of the reference and of the arm.
        where: bool [S, T], which targets count.
        seed: of resampling.
    """
    sums = [window_sums(each, where) for each in values]
    return paired_effect(name, family, arm, sums[0], sums[1], where.sum(axis=1), seed)


def window_sums(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Sums over the targets of each window that count.

    Args:
        values: [N, S, T].
        where: bool [S, T].

    Returns:
        float64 [N, S].
    """
    return np.where(where, values, 0).sum(axis=2, dtype=np.float64)


def seed_effect(
    name: str,
    family: Family,
    unit: str,
    arm: int,
    reference: np.ndarray,
    other: np.ndarray,
) -> Effect:
    """An effect over seeds alone.

    Args:
        name: of the effect.
        family: likewise.
        unit: likewise.
        arm: number of the arm.
        reference: [N].
        other: [N].
    """
    by_seed = np.asarray(other, float) - np.asarray(reference, float)
    found = over_seeds(by_seed)
    low, high = found.interval(LEVEL)[1:]
    return Effect(
        name=name,
        family=family,
        unit=unit,
        arm=arm,
        targets=0,
        reference=float(np.mean(reference)),
        other=float(np.mean(other)),
        difference=found.mean,
        seeds_low=float(low),
        seeds_high=float(high),
        by_seed=tuple(by_seed.tolist()),
        p_seeds=p_of_seeds(by_seed),
    )


def p_of_seeds(by_seed: np.ndarray) -> float:
    """Two-sided p of a mean difference of 0, by Student's t over seeds.

    Where all seeds differ by the same amount there is no t, and it is that of the sign
    test: 2^(1 - N). NaN of one seed.

    Args:
        by_seed: differences [N].
    """
    found = over_seeds(by_seed)
    if len(by_seed) > 1 and math.isnan(found.variance):
        return 1.0 if found.mean == 0 else 2.0 ** (1 - len(by_seed))
    return p_of_zero(found)


def paired_effect(
    name: str,
    family: Family,
    arm: int,
    reference: np.ndarray,
    other: np.ndarray,
    counts: np.ndarray,
    seed: int,
) -> Effect:
    """An effect over seeds and over windows.

    ``difference = mean over seeds of sum_s (other - reference) / sum_s counts``

    Args:
        name: of the effect.
        family: likewise.
        arm: number of the arm.
        reference: [N, S], sums over the targets of each window.
        other: [N, S].
        counts: int [S], targets that the sums are over, the same for all.
        seed: of resampling.
    """
    total = counts.sum()
    made = seed_effect(
        name,
        family,
        _UNITS[family],
        arm,
        reference.sum(axis=1) / total,
        other.sum(axis=1) / total,
    )
    differences = (other - reference).mean(axis=0)
    interval = window_interval(differences, counts, seed)
    return dataclasses.replace(
        made,
        targets=int(total),
        samples_low=interval.low,
        samples_high=interval.high,
        p_samples=sign_flip_p(differences[counts > 0], seed),
    )


def window_interval(
    differences: np.ndarray,
    counts: np.ndarray,
    seed: int,
    samples: int = SAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Mean over targets with its percentile bootstrap interval over windows.

    Windows are drawn again; a draw's mean is the sum of their differences over the sum
    of their targets.

    Args:
        differences: [S], sums over targets.
        counts: int [S], of targets; windows without any are left out.
        seed: of the resampling.
        samples: number of resamples.
        level: of the interval.
    """
    used = counts > 0
    sums, sizes = np.asarray(differences, np.float64)[used], counts[used]
    windows = len(sizes)
    drawn = np.random.default_rng(seed).multinomial(
        windows, np.full(windows, 1 / windows), size=samples
    )
    tail = 50 * (1 - level)
    low, high = np.percentile((drawn @ sums) / (drawn @ sizes), [tail, 100 - tail])
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high))
