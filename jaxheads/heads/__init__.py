"""Rankings and sets of heads, as arrays [L, H].

A ranking is a float array [L, H], a set of heads a bool array [L, H], N sets together
one of [N, L, H]. Sets are joined by numpy's own operators: ``a | b`` is their union,
``a & b`` what they share, ``a & ~b`` the first without the second, and ``~a`` all other
heads: replacing ``~a`` keeps only ``a``. ``set_files`` writes and reads them.
"""

import dataclasses
import math
import operator
from collections.abc import Iterable
from typing import Literal

import numpy as np

from jaxheads.errors import UserError
from jaxheads.models.head_names import named_heads

By = Literal["largest", "smallest", "magnitude"]
"""Which heads of a ranking come first."""
Rounding = Literal["down", "up"]
"""How a share of all heads is made whole, see ``count_of``."""

MEANING = ("definition", "unit", "chance", "ceiling", "source")
"""What says what a score is."""


@dataclasses.dataclass(frozen=True, eq=False)
class HeadScores:
    """A score of every head, with what it means.

    Attributes:
        name: such as "induction".
        mean: float [L, H], over the samples.
        standard_error: float [L, H], of ``mean`` over the samples.
        definition: what is computed, in a sentence.
        unit: "probability", "nats" or "share of attention".
        chance: the value of a head that does nothing of the kind.
        ceiling: the largest value possible.
        source: paper and section.
    """

    name: str
    mean: np.ndarray
    standard_error: np.ndarray
    definition: str
    unit: str
    chance: float
    ceiling: float
    source: str

    def describe(self) -> dict[str, str | float]:
        """Everything but the arrays, ready for JSON."""
        return {name: getattr(self, name) for name in MEANING}


def from_samples(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and its standard error over the last axis: [L, H, B] -> two [L, H]."""
    samples = np.asarray(samples, np.float64)
    count = samples.shape[-1]
    spread = samples.std(axis=-1, ddof=1) if count > 1 else np.full(1, np.nan)
    error = np.broadcast_to(spread / np.sqrt(count), samples.shape[:-1])
    return samples.mean(axis=-1), error


def head_name(layer: int, head: int) -> str:
    """A head as "layer.head", both counted from 0."""
    return f"{layer}.{head}"


def head_names(heads: np.ndarray) -> list[str]:
    """The heads of a set by name, in order: bool [L, H] -> ["18.6", "20.5"]."""
    return [head_name(layer, head) for layer, head in np.argwhere(_set(heads))]


def parse_heads(names: Iterable[str], shape: tuple[int, int]) -> np.ndarray:
    """A set from names such as "20.5": bool [L, H].

    Raises:
        UserError: a name is not of that form, or the model has no such head.
    """
    try:
        return named_heads(names, shape)
    except ValueError as error:
        raise UserError(str(error)) from error


def count_of(
    fraction: float, total: int, rounding: Rounding = "down", *, least: int = 1
) -> int:
    """Heads in a fraction of all: ``fraction * total``, made whole; none in 0.

    Args:
        fraction: of the heads, 0 to 1.
        total: of heads.
        rounding: "down", as the sets that Yin & Steinhardt's ablation code replaces and
            leaves out: ``int(fraction * total)``; "up", as the top heads of the
            paper's text and figures, and the heads of a function vector in its code:
            ``ceil(fraction * total)``.
        least: so many at least, unless the fraction is 0.

    Raises:
        UserError: the fraction is not between 0 and 1.

    Source: Yin & Steinhardt 2025, code of the ablations (down), of the figures and of
    function vectors (up).
    """
    if not 0 <= fraction <= 1:
        raise UserError(f"a share of heads lies between 0 and 1, not at {fraction}")
    if not fraction:
        return 0
    # Through a rounded product: 0.07 * 100 is 7.000000000000001 in binary.
    exact = round(fraction * total, 9)
    return max(least, math.ceil(exact) if rounding == "up" else int(exact))


def order(scores: np.ndarray, by: By = "largest") -> np.ndarray:
    """All heads, first to last: float [L, H] -> flat indices [L * H].

    Args:
        scores: float [L, H]; ties go to the earlier head.
        by: which heads come first: those with the largest scores, with the smallest
            (most negative) ones, or with the largest magnitudes, whatever their sign.

    Raises:
        UserError: a score is not a number.
    """
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any():
        raise UserError("a ranking must be made of numbers, but some scores are NaN")
    keys = {"largest": -scores, "smallest": scores, "magnitude": -np.abs(scores)}
    if by not in keys:
        raise ValueError(f"by must be one of {', '.join(keys)}, not {by!r}")
    return np.argsort(keys[by], axis=None, kind="stable")


def top(
    scores: np.ndarray,
    count: int,
    excluding: np.ndarray | None = None,
    by: By = "largest",
) -> np.ndarray:
    """The ``count`` heads with the largest scores: [L, H] -> bool [L, H].

    Args:
        scores: float [L, H]; ties go to the earlier head.
        count: how many heads to take; 0 gives the empty set.
        excluding: bool [L, H], heads that may not be taken.
        by: "largest", "smallest" or "magnitude", as for ``order``.

    Raises:
        UserError: fewer heads than ``count`` are left, or a score is not a number.
    """
    return prefixes(scores, [count], excluding=excluding, by=by)[0]


def top_fraction(
    scores: np.ndarray,
    fraction: float,
    excluding: np.ndarray | None = None,
    by: By = "largest",
) -> np.ndarray:
    """``top`` of a fraction of all heads, excluded ones counted: bool [L, H]."""
    return prefixes(scores, fractions=[fraction], excluding=excluding, by=by)[0]


def prefixes(
    scores: np.ndarray,
    counts: Iterable[int] | None = None,
    *,
    fractions: Iterable[float] | None = None,
    excluding: np.ndarray | None = None,
    by: By = "largest",
) -> np.ndarray:
    """Top sets of several sizes, each inside the larger ones: bool [N, L, H].

    Args:
        scores: float [L, H]; ties go to the earlier head.
        counts: heads of each set; None: every size, from 1 to all that may be taken.
        fractions: instead of counts, shares of all heads, by ``count_of``.
        excluding: bool [L, H], heads that may not be taken.
        by: "largest", "smallest" or "magnitude", as for ``order``.

    Raises:
        UserError: a set asks for more heads than are left or for fewer than none, a
            fraction is not between 0 and 1, or a score is not a number.
    """
    if counts is not None and fractions is not None:
        raise ValueError("prefixes take counts or fractions, but both were given")
    scores = np.asarray(scores)
    taken = order(scores, by)
    if excluding is not None:
        _check_shape(excluding, scores.shape)
        taken = taken[~_set(excluding).ravel()[taken]]
    if fractions is not None:
        counts = [count_of(each, scores.size) for each in fractions]
    elif counts is None:
        counts = range(1, len(taken) + 1)
    sizes = np.array([operator.index(count) for count in counts], np.int64)
    for count in sizes:
        if count > len(taken):
            raise UserError(
                f"{count} heads were asked for, but only {len(taken)} of {scores.size} "
                "are left after exclusion: take fewer, or exclude less"
            )
        if count < 0:
            raise UserError(f"the heads of a set are 0 or more, not {count}")
    place = np.full(scores.size, scores.size)
    place[taken] = np.arange(len(taken))
    return (place < sizes[:, None]).reshape(-1, *scores.shape)


def exclude(heads: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """A set without the heads of another, which must leave some: bool [L, H].

    Raises:
        UserError: no head is left, so that replacing the set would change nothing.
    """
    heads, excluded = _set(heads), _set(excluded)
    _check_shape(excluded, heads.shape)
    left = heads & ~excluded
    if not left.any():
        raise UserError(
            f"no head is left of a set of {heads.sum()} after the exclusion of "
            f"{excluded.sum()}: take more heads, or exclude fewer"
        )
    return left


def singles(heads: np.ndarray) -> np.ndarray:
    """Each head of a set alone: bool [L, H] -> [N, L, H]; of all heads: ``np.ones``."""
    return from_indices(np.flatnonzero(_set(heads))[:, None], np.shape(heads))


def pairs(heads: np.ndarray) -> np.ndarray:
    """All pairs of heads of a set, as flat indices: bool [L, H] -> int32 [N, 2].

    Indices, because the sets themselves are large: the 523,776 pairs of 1,024 heads
    are 4 MB here and 536 MB as bool [N, L, H]. Make those a chunk at a time::

        every = pairs(np.ones(shape, bool))
        for rows in np.array_split(every, 100):
            replaced = from_indices(rows, shape)
    """
    chosen = np.flatnonzero(_set(heads)).astype(np.int32)
    first, second = np.triu_indices(len(chosen), 1)
    return np.stack([chosen[first], chosen[second]], axis=1)


def from_indices(indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sets from flat indices of their heads: int [N, M] -> bool [N, L, H].

    Args:
        indices: layer * H + head of each of the M heads of a set.
        shape: (L, H).

    Raises:
        ValueError: an index is below 0 or not below L * H.
    """
    indices, total = np.asarray(indices), int(np.prod(shape))
    if indices.size and not 0 <= indices.min() <= indices.max() < total:
        raise ValueError(
            f"flat indices of {total} heads lie between 0 and {total - 1}, but these "
            f"between {indices.min()} and {indices.max()}"
        )
    chosen = np.zeros((len(indices), total), bool)
    np.put_along_axis(chosen, indices, True, axis=1)
    return chosen.reshape(-1, *shape)


def uniform(rng: np.random.Generator, shape: tuple[int, int], count: int) -> np.ndarray:
    """``count`` heads drawn uniformly: bool [L, H].

    Raises:
        UserError: there are not so many heads.
    """
    chosen = np.zeros(shape[0] * shape[1], bool)
    if not 0 <= count <= chosen.size:
        raise UserError(f"{count} heads were asked for, but there are {chosen.size}")
    chosen[rng.choice(chosen.size, count, replace=False)] = True
    return chosen.reshape(shape)


def layer_matched(rng: np.random.Generator, heads: np.ndarray) -> np.ndarray:
    """Random heads, as many in each layer as a given set has: bool [L, H] -> [L, H].

    The draw may share heads with the set: excluding it would make the control differ
    from a random set in layers where the set takes most heads.

    Source: Crosbie & Shutova 2024, section 3.
    """
    chosen = np.zeros(heads.shape, bool)
    for layer, count in enumerate(_set(heads).sum(axis=1)):
        chosen[layer, rng.choice(heads.shape[1], count, replace=False)] = True
    return chosen


def _set(heads: np.ndarray) -> np.ndarray:
    """The set, if it is one: of scores, say, every head that is not at 0 would count.

    Raises:
        TypeError: it is not bool.
    """
    heads = np.asarray(heads)
    if heads.dtype != bool:
        raise TypeError(
            f"a set of heads is bool [L, H], True for its heads, but is {heads.dtype}: "
            "compare it with a number, or take heads.top"
        )
    return heads


def _check_shape(heads: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(heads) != shape:
        raise UserError(
            f"the excluded heads must be a set of shape [L, H] = {list(shape)}, but "
            f"have {list(np.shape(heads))}: they were chosen for another model"
        )
