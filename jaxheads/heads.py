"""Rankings and sets of heads, as arrays [L, H]."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxheads.errors import UserError


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
        return {
            "definition": self.definition,
            "unit": self.unit,
            "chance": self.chance,
            "ceiling": self.ceiling,
            "source": self.source,
        }


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


def parse_heads(names: Iterable[str], shape: tuple[int, int]) -> np.ndarray:
    """A set from names such as "20.5": bool [L, H].

    Raises:
        UserError: a name is not of that form, or the model has no such head.
    """
    chosen = np.zeros(shape, bool)
    for name in names:
        layer, dot, head = name.partition(".")
        if not (dot and layer.isdecimal() and head.isdecimal()):
            raise UserError(f'a head is written "layer.head", like 20.5, not {name!r}')
        if int(layer) >= shape[0] or int(head) >= shape[1]:
            raise UserError(
                f"head {name} is out of range: the model has layers 0 to "
                f"{shape[0] - 1} with heads 0 to {shape[1] - 1}"
            )
        chosen[int(layer), int(head)] = True
    return chosen


def count_of(fraction: float, total: int) -> int:
    """Heads in a fraction of all: ``int(fraction * total)``, at least 1 unless it is 0.

    Source: Yin & Steinhardt 2025, ablation code.
    """
    # Through a rounded product: 0.07 * 100 is 7.000000000000001 in binary.
    return max(1, int(round(fraction * total, 9))) if fraction > 0 else 0


def top(
    scores: np.ndarray, count: int, excluding: np.ndarray | None = None
) -> np.ndarray:
    """The ``count`` heads with the largest scores: [L, H] -> bool [L, H].

    Args:
        scores: float [L, H]; ties go to the earlier head.
        count: how many heads to take.
        excluding: bool [L, H], heads that may not be taken.

    Raises:
        UserError: fewer heads than ``count`` are left, or a score is not a number.
    """
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any():
        raise UserError("a ranking must be made of numbers, but some scores are NaN")
    free = scores.size - (0 if excluding is None else int(np.sum(excluding)))
    if count > free:
        raise UserError(
            f"{count} heads were asked for, but only {free} of {scores.size} are left "
            "after exclusion: take fewer, or exclude less"
        )
    if excluding is not None:
        scores = np.where(excluding, -np.inf, scores)
    order = np.argsort(-scores, axis=None, kind="stable")
    chosen = np.zeros(scores.size, bool)
    chosen[order[:count]] = True
    return chosen.reshape(scores.shape)


def uniform(rng: np.random.Generator, shape: tuple[int, int], count: int) -> np.ndarray:
    """``count`` heads drawn uniformly: bool [L, H]."""
    chosen = np.zeros(shape[0] * shape[1], bool)
    chosen[rng.choice(chosen.size, count, replace=False)] = True
    return chosen.reshape(shape)


def layer_matched(rng: np.random.Generator, heads: np.ndarray) -> np.ndarray:
    """Random heads, as many in each layer as a given set has: bool [L, H] -> [L, H].

    The draw may share heads with the set: excluding it would make the control differ
    from a random set in layers where the set takes most heads.

    Source: Crosbie & Shutova 2024, section 3.
    """
    chosen = np.zeros(heads.shape, bool)
    for layer, count in enumerate(heads.sum(axis=1)):
        chosen[layer, rng.choice(heads.shape[1], count, replace=False)] = True
    return chosen
