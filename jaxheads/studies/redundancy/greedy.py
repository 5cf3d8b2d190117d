"""The smallest set of heads that keeps a share of the accuracy, by greedy search.

Each step scores all candidates in one batch. C: heads of a universe; S: sets of a path.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxheads.errors import UserError
from jaxheads.runs.finite import plain
from jaxheads.studies.redundancy.shapley import Evaluate, Universe, over_prompts


@dataclasses.dataclass(frozen=True, eq=False)
class Scale:
    """From values to the share of the accuracy that is left.

    ``share = (value - floor) / (clean - floor)``, of the means over prompts.

    Attributes:
        clean: [B], values with no head replaced.
        floor: [B], values that count as nothing: zeros, or those with the whole
            universe replaced.

    Raises:
        UserError: the clean mean is not above the floor's.
    """

    clean: np.ndarray
    floor: np.ndarray

    def __post_init__(self):
        clean, floor = _mean(self.clean), _mean(self.floor)
        if not clean > floor:
            raise UserError(
                "a share of the clean value needs one above the floor, but the clean "
                f"value is {clean:.3g} and the floor {floor:.3g}: take other tasks, "
                "more prompts or another metric"
            )

    def share(self, values: np.ndarray) -> np.ndarray:
        """Share of each set: values [..., B] -> [...]."""
        clean, floor = _mean(self.clean), _mean(self.floor)
        return (_mean(values) - floor) / (clean - floor)

    def share_error(
        self, values: np.ndarray, queries: np.ndarray | None = None
    ) -> np.ndarray:
        """Standard error of ``share`` over queries, a ratio of means: -> [...].

        By linearisation: the error of the mean of ``(value - floor) - share (clean -
        floor)``, over ``clean - floor``.
        """
        share, gain = self.share(values), self.clean - self.floor
        left = values - self.floor - share[..., None] * gain
        return over_prompts(left, queries)[1] / _mean(gain)


@dataclasses.dataclass(frozen=True, eq=False)
class Path:
    """Sets of a greedy search, in its order.

    Attributes:
        kept: bool [S, C], each set; the first is the start.
        values: [S, B], of the prompts that the search chose by. They flatter the sets:
            each was picked as the best of many on these very prompts.
        share: [S].
        smallest: which set is the smallest found that keeps the target share; None
            where none does.
    """

    kept: np.ndarray
    values: np.ndarray
    share: np.ndarray
    smallest: int | None

    @property
    def order(self) -> np.ndarray:
        """The head that each step changed, as an index into the universe: int [S-1]."""
        return np.argmax(self.kept[1:] != self.kept[:-1], axis=1)


def greedy_backward(
    evaluate: Evaluate, universe: Universe, target: float, scale: Scale
) -> Path:
    """Replace one more head at each step, the one that costs least.

    Starts with the whole universe kept and ends with the first set whose share falls
    below the target, or with none kept. A step scores all candidates in one batch;
    ties go to the earlier head.

    Args:
        evaluate: values of subsets, on the prompts to choose by.
        universe: the candidates.
        target: share to keep, above 0 and at most 1.
        scale: what a share is.

    Raises:
        UserError: the target is out of range.
    """
    path = _walk(evaluate, universe, target, scale, start=True)
    good = np.flatnonzero(path.share >= target)
    smallest = int(good[-1]) if len(good) else None
    return dataclasses.replace(path, smallest=smallest)


def greedy_forward(
    evaluate: Evaluate, universe: Universe, target: float, scale: Scale
) -> Path:
    """Keep one more head at each step, the one that gains most.

    Starts with the whole universe replaced and ends with the first set whose share
    reaches the target, or with all kept. Otherwise as ``greedy_backward``.
    """
    path = _walk(evaluate, universe, target, scale, start=False)
    good = np.flatnonzero(path.share >= target)
    smallest = int(good[0]) if len(good) else None
    return dataclasses.replace(path, smallest=smallest)


def _walk(
    evaluate: Evaluate, universe: Universe, target: float, scale: Scale, start: bool
) -> Path:
    """Turn heads of the universe from ``start``, one a step, until the target."""
    if not 0 < target <= 1:
        raise UserError(
            f"the share to keep must be above 0 and at most 1, but is {target}"
        )
    now = np.full(len(universe), start)
    kept, values = [now], [evaluate(universe.replaced(now[None]))[0]]
    while (scale.share(values[-1]) >= target) == start and (now == start).any():
        candidates = np.flatnonzero(now == start)
        tries = np.repeat(now[None], len(candidates), axis=0)
        tries[np.arange(len(candidates)), candidates] = not start
        made = evaluate(universe.replaced(tries))
        best = int(np.argmax(_mean(made)))
        now = tries[best]
        kept.append(now)
        values.append(made[best])
    values = np.stack(values)
    return Path(np.stack(kept), values, scale.share(values), None)


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """A greedy search and what its sets do on held-out prompts.

    Attributes:
        universe: of the search.
        path: on the prompts that it chose by.
        scale: of the same prompts.
        held_out: [S, B], values on the held-out prompts.
        held_out_scale: of those; None where the clean value is not above the floor.
        queries: of the prompts that it chose by, see ``redundancy.over_prompts``.
        held_out_queries: of the held-out ones.
    """

    universe: Universe
    path: Path
    scale: Scale
    held_out: np.ndarray
    held_out_scale: Scale | None
    queries: np.ndarray | None = None
    held_out_queries: np.ndarray | None = None

    @property
    def share_error(self) -> np.ndarray:
        """Standard error of the path's shares over queries, [S]."""
        return self.scale.share_error(self.path.values, self.queries)

    @property
    def held_out_share(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of each set on the held-out prompts and its error: two [S]."""
        scale, values = self.held_out_scale, self.held_out
        if scale is None:
            return np.full(len(values), np.nan), np.full(len(values), np.nan)
        return scale.share(values), scale.share_error(values, self.held_out_queries)

    def describe(self) -> dict[str, Any]:
        """What was found, ready for JSON."""
        path, at, names = self.path, self.path.smallest, self.universe.names
        said: dict[str, Any] = {
            "order": [names[index] for index in path.order],
            "sets": len(path.kept),
            "reached": at is not None,
        }
        if at is None:
            return said
        shares = {
            "share": (path.share, self.share_error),
            "held_out_share": self.held_out_share,
        }
        for name, (share, error) in shares.items():
            said |= {name: plain(share[at]), f"{name}_se": plain(error[at])}
        return said | {
            "kept": [n for n, kept in zip(names, path.kept[at], strict=True) if kept],
            "smallest": at,
        }


def _mean(values: np.ndarray) -> Any:
    """Over prompts, [..., B] -> [...]; wide enough that equal sets have one share."""
    return np.mean(values, axis=-1, dtype=np.float64)
