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
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from jaxheads import runs
from jaxheads.report import words
from jaxheads.statistics import LEVEL, SAMPLES, Interval
from jaxheads.statistics.paired_tests import holm, mcnemar, sign_flip_p
from jaxheads.statistics.seeds import over_seeds, p_of_zero
from jaxheads.studies.compare_runs.config import ArmsConfig

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


HEAD_UNITS = {
    "prefix_top": "share of attention",
    "prefix_first": "share of attention",
    "induction_heads": "heads",
}
"""What says how strong induction heads are, and how many there are; and units."""


def find_effects(arrays: runs.Arrays, config: ArmsConfig) -> list[Effect]:
    """All effects of all arms but the reference.

    Args:
        arrays: of a comparison; see ``arms.result``.
        config: of it.
    """
    arms = sum(name.endswith("/correct") for name in arrays)
    found = []
    for arm in range(1, arms):
        found += _accuracies(arrays, arm, config)
        found += _losses(arrays, arm, config)
        found += _heads(arrays, arm, config)
    return _adjust(found)


def group_names(arrays: runs.Arrays) -> list[str]:
    """The groups of targets of which there are any, early and late ones left out."""
    return [
        name
        for name, where in _masks(arrays).items()
        if not name.startswith(("early", "late")) and where.any()
    ]


def _masks(arrays: runs.Arrays) -> dict[str, np.ndarray]:
    """The groups of targets, bool [S, T], in the order of tables."""
    found = {
        name.removeprefix("targets/"): where
        for name, where in arrays.items()
        if name.startswith("targets/") and where.dtype == bool
    }
    return {name: found[name] for name in sorted(found, key=place)}


def _pair(arrays: runs.Arrays, arm: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """An array of the reference, and of an arm."""
    return arrays[f"arm_0/{name}"], arrays[f"arm_{arm}/{name}"]


def _accuracies(arrays: runs.Arrays, arm: int, config: ArmsConfig) -> Iterator[Effect]:
    right = _pair(arrays, arm, "correct")
    masks = _masks(arrays)
    for name in group_names(arrays):
        yield answer_effect(name, arm, right, masks[name], config.seed)
    repeated = _pair(arrays, arm, "repeated")
    _, sequences, length = repeated[0].shape
    every = np.ones((sequences, length), bool)
    last = every & (np.arange(length) == length - 1)[None]
    yield answer_effect("repetition", arm, repeated, last, config.seed)
    yield answer_effect("repetition_whole", arm, repeated, every, config.seed)


def _losses(arrays: runs.Arrays, arm: int, config: ArmsConfig) -> Iterator[Effect]:
    losses = _pair(arrays, arm, "losses")
    for name, where in _masks(arrays).items():
        if where.any():
            yield window_effect(f"{name}_loss", "loss", arm, losses, where, config.seed)
    masks = _masks(arrays)
    for end in ("", "_non_extractive"):
        early, late = masks[f"early{end}"], masks[f"late{end}"]
        if early.any():
            gained = [
                window_sums(each, early) - window_sums(each, late) for each in losses
            ]
            name = f"token_loss_difference{end}"
            counts = early.any(axis=1).astype(int)
            yield paired_effect(
                name, "context", arm, gained[0], gained[1], counts, config.seed
            )


def _heads(arrays: runs.Arrays, arm: int, config: ArmsConfig) -> Iterator[Effect]:
    reference, other = (
        head_strength(each, config) for each in _pair(arrays, arm, "prefix_matching")
    )
    for name, unit in HEAD_UNITS.items():
        yield seed_effect(name, "heads", unit, arm, reference[name], other[name])


def head_strength(scores: np.ndarray, config: ArmsConfig) -> dict[str, np.ndarray]:
    """Strength and number of induction heads.

    - "prefix_top": mean of the ``config.top`` highest prefix-matching scores, of all
      where there are fewer heads; "prefix_first": the highest;
    - "induction_heads": heads with a score above ``config.induction_above``.

    Args:
        scores: [..., L, H].
        config: of the comparison.

    Returns:
        float64 [...] by name.

    Source: Sahin et al. 2025 (mean of the top 10 heads).
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1).astype(np.float64), axis=-1)
    return {
        "prefix_top": flat[..., -config.top :].mean(axis=-1),
        "prefix_first": flat[..., -1],
        "induction_heads": (flat > config.induction_above).sum(axis=-1, dtype=float),
    }


def _adjust(found: Sequence[Effect]) -> list[Effect]:
    """Adjust the tests of each family, of all arms, by Holm's method."""
    changes: list[dict[str, Any]] = [{} for _ in found]
    for family in dict.fromkeys(one.family for one in found):
        places = [n for n, one in enumerate(found) if one.family == family]
        for name in ("p_seeds", "p_samples"):
            adjusted = holm([getattr(found[n], name) for n in places])
            for n, value in zip(places, adjusted, strict=True):
                changes[n][f"{name}_adjusted"] = float(value)
        every = holm([p for n in places for p in found[n].mcnemar])
        given = iter(every.tolist())
        for n in places:
            changes[n]["mcnemar_adjusted"] = tuple(
                next(given) for _ in found[n].mcnemar
            )
    return [
        dataclasses.replace(one, **change)
        for one, change in zip(found, changes, strict=True)
    ]


_TITLES = {
    "all": "all targets",
    "copyable": "targets that a copy gives",
    "copying_block": "copies of random tokens",
    "copied": "copies of random tokens",
    "not_copyable": "targets that no copy gives",
    "answer": "answers, 1 pair or more before",
    "answer_0": "answers, no pair before",
    "answer_1": "answers, 1 pair before",
    "text": "text",
    "plain": "neither copy nor answer",
    "repetition": "repetition, last token",
    "repetition_whole": "repetition, all tokens",
    "early": "early targets",
    "late": "late targets",
}
_CURVES = ("token_loss_difference", "prefix_top", "prefix_first", "induction_heads")
_WITHOUT = "_non_extractive"


_PAIRS = re.compile(r"answer_(\d+)_(\d+)")


def place(name: str) -> tuple[int, int, str]:
    """What groups of targets are sorted by: as above, and by the pairs before."""
    pairs = _PAIRS.fullmatch(name)
    known = [*_TITLES, *_CURVES]
    listed = "answer_1" if pairs else name.removesuffix(_WITHOUT)
    at = known.index(listed) if listed in known else len(known)
    return at, int(pairs[1]) if pairs else 0, name


def title(name: str) -> str:
    """An effect in words, such as "answers, 2 to 3 pairs before"."""
    if name.endswith("_loss"):
        return f"loss, {title(name.removesuffix('_loss'))}"
    if name.endswith(_WITHOUT):
        return f"{title(name.removesuffix(_WITHOUT))}, no copies"
    pairs = _PAIRS.fullmatch(name)
    if pairs:
        return f"answers, {pairs[1]} to {pairs[2]} pairs before"
    return _TITLES.get(name) or words.curve(name)
