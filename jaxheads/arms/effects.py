"""What differs between arms: accuracies, losses, gains from context, induction heads.

How each difference is tested stands in ``arms.paired_effects``.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxheads import runs
from jaxheads.arms.config import ArmsConfig
from jaxheads.arms.names import place
from jaxheads.arms.paired_effects import (
    Effect,
    answer_effect,
    paired_effect,
    seed_effect,
    window_effect,
    window_sums,
)
from jaxheads.statistics.multiple_tests import holm

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
