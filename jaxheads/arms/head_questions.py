"""Which next tokens are asked for while heads are removed: of probes and of windows.

S samples (sequences or windows), T positions, P of them that are asked in each.
"""

import dataclasses

import numpy as np

from jaxheads.training.evidence_probes import Probes
from jaxheads.training.evidence_windows import HeldOut

TARGETS = 16
"""Of a kind, in a window, that are asked at most: the rest tells little more."""


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """Sequences, and which of their next tokens are asked.

    Attributes:
        tokens: int32 [S, T], what the model reads.
        segments: int32 [S, T], see ``forward``, -1: padding; None: one document each.
        at: int32 [S, P], positions whose next token is asked.
        wanted: int32 [S, P], the right ones.
        weights: float32 [S, P] by group: 1 over its targets in the window at each of
            them, else 0. All zeros where a window has none.
    """

    tokens: np.ndarray
    segments: np.ndarray | None
    at: np.ndarray
    wanted: np.ndarray
    weights: dict[str, np.ndarray]


def of_probes(probes: Probes) -> Questions:
    """Ask for the tokens of each repetition: the last one alone, and all of them."""
    count, length = probes.cut.shape
    asked = probes.wanted.shape[1]
    at = np.arange(length - asked, length, dtype=np.int32)
    last = np.zeros((count, asked), np.float32)
    last[:, -1] = 1
    return Questions(
        tokens=probes.cut,
        segments=None,
        at=np.tile(at, (count, 1)),
        wanted=probes.wanted,
        weights={
            "repetition": last,
            "repetition_whole": np.full_like(last, 1 / asked),
        },
    )


def of_windows(held: HeldOut, targets: int = TARGETS) -> Questions:
    """Ask for targets of every group of the held-out windows, always the same ones.

    Args:
        held: the windows.
        targets: of a group and window at most.
    """
    windows = held.windows
    groups = {"copyable": held.copyable, "plain": ~held.copyable} | held.groups
    groups = {name: group & windows.scored for name, group in groups.items()}
    # One order for all groups, so that those that overlap share targets.
    rank = np.random.default_rng([0, 2]).random(windows.scored.shape)
    drawn = {}
    for name, group in groups.items():
        first = np.argsort(np.where(group, rank, 2.0), axis=1)[:, :targets]
        drawn[name] = np.zeros_like(group)
        np.put_along_axis(drawn[name], first, True, axis=1)
        drawn[name] &= group
    either = np.any(list(drawn.values()), axis=0)
    positions = max(1, int(either.sum(axis=1).max()))
    at = np.argsort(~either, axis=1, kind="stable")[:, :positions].astype(np.int32)
    weights = {}
    for name, group in drawn.items():
        if group.any():
            chosen = np.take_along_axis(group, at, axis=1).astype(np.float32)
            count = np.maximum(chosen.sum(axis=1, keepdims=True), 1)
            weights[name] = (chosen / count).astype(np.float32)
    segments = windows.segments
    return Questions(
        tokens=windows.inputs,
        segments=None if segments is None else segments[:, :-1],
        at=at,
        wanted=np.take_along_axis(windows.targets, at, axis=1),
        weights=weights,
    )
