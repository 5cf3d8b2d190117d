"""The induction toy: every token keeps its successor throughout a window."""

import dataclasses

import numpy as np

from jaxheads.errors import UserError
from jaxheads.training.data.repeats import check_bos, with_bos
from jaxheads.training.data.windows import (
    Generator,
    Windows,
    check_at_least,
    check_batch,
    integers,
    uniforms,
)


@dataclasses.dataclass(frozen=True)
class FixedSuccessors(Generator):
    """Random tokens where one that comes again is followed by what followed it before.

    Tokens are drawn uniformly until one comes again, say x[t] = x[s] with s < t. The
    rule then fixes everything: x[t + k] = x[s + k], so the window goes round a cycle of
    t - s tokens from there on. (Any sequence that obeys the rule ends in a cycle.) The
    first token comes again at about sqrt(pi V / 2): 112 for V = 8000. Both t and t - s
    are random, so position does not solve it.

    Attributes:
        vocab_size: ids are below this, V.
        sequence_length: targets in a window, T.
        bos_id: a token that begins every window and occurs nowhere else; None: none.
        seed: of the draws.

    ``info`` of its windows: "predictable" bool [B, T], the targets that the rule
    fixes; "first" [B], the first of them, or T if there is none. The paper's figure is
    the accuracy there.

    Source: Xu et al. 2024, arXiv 2411.19574 (vocabulary 8000, length 512); how its
    sequences are drawn beyond the rule was not found.
    """

    vocab_size: int = 8000
    sequence_length: int = 512
    bos_id: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(2, sequence_length=self.sequence_length)
        check_bos(self.bos_id, self.vocab_size)
        if self.vocab_size - (self.bos_id is not None) < 2:
            raise UserError(
                f"vocab_size must leave 2 tokens to draw from, but is "
                f"{self.vocab_size}: give a larger vocabulary"
            )

    def batch(self, index: int, size: int, *, stream: int = 0) -> Windows:
        """See ``Source``."""
        check_batch(index, size)
        begins = int(self.bos_id is not None)
        length = self.sequence_length + 1 - begins
        draws = uniforms(
            "fixed successors", self.seed, stream, index * size, size, length
        )
        tokens = integers(draws, 0, self.vocab_size - 1 - begins)
        again, before = _first_repetition(tokens)
        position = np.arange(length)
        beyond = np.maximum(position - before[:, None], 0)
        cycle = np.maximum(again - before, 1)[:, None]
        read = np.where(
            position < again[:, None], position, before[:, None] + beyond % cycle
        )
        tokens = np.take_along_axis(tokens, read, axis=1)
        # Target t stands at token t + 1; the one after the repetition is fixed.
        first = np.minimum(again + begins, self.sequence_length)
        return Windows(
            with_bos(tokens, self.bos_id),
            None,
            np.ones((size, self.sequence_length), bool),
            {
                "first": first,
                "predictable": np.arange(self.sequence_length) >= first[:, None],
            },
        )


def _first_repetition(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each row first repeats a token.

    Args:
        tokens: [B, N].

    Returns:
        The positions [B] of the repetition (N if there is none) and of what it repeats.
    """
    rows, length = tokens.shape
    order = np.argsort(tokens, axis=1, kind="stable")  # equal ones: earlier first
    ranked = np.take_along_axis(tokens, order, axis=1)
    repeated = ranked[:, 1:] == ranked[:, :-1]
    # Of each pair of neighbours in value, the later position, if they are equal.
    later = np.where(repeated, order[:, 1:], length)
    pair = later.argmin(axis=1)
    row = np.arange(rows)
    return later[row, pair], order[row, pair]
