"""Random tokens that repeat with a random period: what induction heads form on."""

import dataclasses

import numpy as np

from jaxheads.errors import UserError
from jaxheads.training.data.windows import (
    Generator,
    Windows,
    check_at_least,
    check_batch,
    check_range,
    integers,
    uniforms,
    without_replacement,
)


@dataclasses.dataclass(frozen=True)
class RepeatedTokens(Generator):
    """Windows x[t] = r[t mod p], r random tokens, with a period p of its own each.

    The period is drawn anew for every window, uniformly from ``shortest_period`` to
    ``longest_period``. With one fixed period the task can be solved by position alone
    (attend p - 1 positions back), and no induction head need form: a fixed period is
    for tests of that.

    Attributes:
        vocab_size: ids are below this, V.
        sequence_length: targets in a window, T.
        shortest_period: p at least.
        longest_period: p at most.
        distinct: whether the tokens of a period differ from each other; if not, a
            token may have two successors and only a longer context tells which.
        bos_id: a token that begins every window and occurs nowhere else; None: none.
        seed: of the draws.

    ``info`` of its windows: "period" [B]; "start" [B], the first target that repeats
    one before it, or T if there is none; "copied" bool [B, T], whether the token
    before the target is a repetition too, so that the target can be predicted.
    """

    vocab_size: int = 64
    sequence_length: int = 128
    shortest_period: int = 6
    longest_period: int = 32
    distinct: bool = False
    bos_id: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(
            "shortest_period",
            self.shortest_period,
            "longest_period",
            self.longest_period,
        )
        check_at_least(2, sequence_length=self.sequence_length)
        check_bos(self.bos_id, self.vocab_size)
        drawn = self.vocab_size - (self.bos_id is not None)
        needed = self.longest_period if self.distinct else 2
        if drawn < needed:
            raise UserError(
                f"vocab_size must leave {needed} tokens to draw from, but leaves "
                f"{drawn}: give a larger vocabulary or a shorter period"
            )

    def batch(self, index: int, size: int, *, stream: int = 0) -> Windows:
        """See ``Source``."""
        check_batch(index, size)
        begins = int(self.bos_id is not None)
        length = self.sequence_length + 1 - begins
        longest = min(self.longest_period, length)
        drawn = self.vocab_size - begins
        draws = uniforms(
            "repeated tokens", self.seed, stream, index * size, size, 1 + longest
        )
        period = integers(draws[:, 0], self.shortest_period, self.longest_period)
        if self.distinct:
            pattern = without_replacement(draws[:, 1:], drawn)
        else:
            pattern = integers(draws[:, 1:], 0, drawn - 1)
        position = np.arange(length)
        tokens = np.take_along_axis(pattern, position % period[:, None], axis=1)
        tokens = with_bos(tokens, self.bos_id)
        start = np.minimum(begins + period - 1, self.sequence_length)
        target = np.arange(self.sequence_length)
        return Windows(
            tokens,
            None,
            np.ones((size, self.sequence_length), bool),
            {"period": period, "start": start, "copied": target > start[:, None]},
        )


def with_bos(tokens: np.ndarray, bos_id: int | None) -> np.ndarray:
    """Make room for BOS among the ids, and put it first.

    Args:
        tokens: [B, N], drawn from 0 to V - 2 (V - 1 without BOS).
        bos_id: or None.

    Returns:
        int32 [B, N + 1], or [B, N] without BOS.
    """
    if bos_id is None:
        return tokens.astype(np.int32)
    moved = tokens + (tokens >= bos_id)
    return np.insert(moved, 0, bos_id, axis=1).astype(np.int32)


def check_bos(bos_id: int | None, vocab_size: int) -> None:
    """Refuse a BOS outside the vocabulary.

    Raises:
        UserError: it is.
    """
    if bos_id is not None and not 0 <= bos_id < vocab_size:
        raise UserError(
            f"bos_id must be an id below vocab_size {vocab_size}, but is {bos_id}: "
            "give another or None"
        )
