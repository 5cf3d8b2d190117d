"""What training reads: windows of tokens, and the sources that give them.

A source gives a batch for a number: no iterator, no state. Row r of a data order
(``stream``) is row ``r - index * size`` of ``batch(index, size, stream=stream)``, so
it is the same row whatever the batch size, and training goes on exactly with the number
of its step alone. Process p of P takes its own share of a batch with
``batch(index * P + p, size // P)``.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jaxheads.errors import MOST_TOKENS, UserError, check_counts

EVALUATION_STREAM = -1
"""A data order that no training seed has: seeds are 0 or more."""


@dataclasses.dataclass(frozen=True)
class Windows:
    """A batch of B windows with T targets each.

    Attributes:
        tokens: int32 [B, T + 1]; the model reads the first T, the targets are the
            last T.
        segments: int32 [B, T + 1], the number of each token's document within the
            window, from 0 on, and -1 for padding: a token sees its own document
            only. None: it sees all before it.
        scored: bool [B, T], the targets that carry loss at all.
        info: what evidence needs to know of the windows, by name; [B] or [B, T], about
            targets like ``scored``.
    """

    tokens: np.ndarray
    segments: np.ndarray | None
    scored: np.ndarray
    info: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def inputs(self) -> np.ndarray:
        """What the model reads, int32 [B, T]."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> np.ndarray:
        """What it is to predict at each of them, int32 [B, T]."""
        return self.tokens[:, 1:]


class Source(Protocol):
    """Gives windows by number."""

    @property
    def sequence_length(self) -> int:
        """Targets in a window, T."""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, ready for JSON, with a hash of its content ("sha256")."""
        ...

    def batch(self, index: int, size: int, *, stream: int = 0) -> Windows:
        """Rows ``index * size`` to ``(index + 1) * size - 1`` of a data order.

        Args:
            index: number of the batch, from 0 on.
            size: windows, B.
            stream: which order; one for each training seed.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Generator:
    """A ``Source`` that draws its windows: a dataclass of its settings."""

    def describe(self: Any) -> dict[str, Any]:
        """Its settings, and a hash of 16 windows."""
        windows = self.batch(0, 16)
        content = windows.tokens.astype("<i4").tobytes() + windows.scored.tobytes()
        return {
            "source": type(self).__name__,
            **dataclasses.asdict(self),
            "sha256": hashlib.sha256(content).hexdigest(),
        }


def seen_bigrams(tokens: np.ndarray) -> np.ndarray:
    """Which targets could be copied: the bigram that ends there occurred before.

    Args:
        tokens: int [B, T + 1].

    Returns:
        bool [B, T]: of target t, whether some s < t has the same token and the same
        one before it.

    Source: Sahin et al. 2025, arXiv 2511.05743, section 2 (the rule of the mask).
    """
    tokens = tokens.astype(np.int64)
    width = int(tokens.max(initial=0)) + 1
    codes = tokens[:, :-1] * width + tokens[:, 1:]  # [B, T]
    order = np.argsort(codes, axis=1, kind="stable")  # equal ones: earlier first
    ranked = np.take_along_axis(codes, order, axis=1)
    again = np.zeros(codes.shape, bool)
    again[:, 1:] = ranked[:, 1:] == ranked[:, :-1]
    seen = np.empty_like(again)
    np.put_along_axis(seen, order, again, axis=1)
    return seen


def check_batch(index: int, size: int) -> None:
    """Refuse a batch that is none.

    Raises:
        UserError: ``index`` is below 0 or ``size`` below 1.
    """
    if index < 0 or size < 1:
        raise UserError(
            f"a batch has a number from 0 on and 1 row or more, not number {index} "
            f"and {size} rows: mend the call"
        )


def check_at_least(lowest: int, **settings: int) -> None:
    """Refuse settings below a number, or too large for any machine.

    Raises:
        UserError: one of them is.
    """
    check_counts(
        *((name, value, lowest) for name, value in settings.items()), most=MOST_TOKENS
    )


def check_range(low_name: str, low: int, high_name: str, high: int) -> None:
    """Refuse a range that begins below 1 or ends before it begins.

    Raises:
        UserError: it does.
    """
    check_counts((high_name, high, 0), most=MOST_TOKENS)
    if not 1 <= low <= high:
        raise UserError(
            f"{low_name} and {high_name} must be a range from 1 on, but are {low} and "
            f"{high}: give 1 <= {low_name} <= {high_name}"
        )


_BLOCK = 4  # 64-bit numbers that Philox gives for one value of its counter


def uniforms(
    name: str, seed: int, stream: int, first_row: int, rows: int, numbers: int
) -> np.ndarray:
    """Uniform numbers in [0, 1) for consecutive rows.

    Args:
        name: who draws; other names give other numbers.
        seed: of the source.
        stream: data order.
        first_row: number of the first row.
        rows: rows, B.
        numbers: numbers a row, N; row r depends on it, not on ``rows``.

    Returns:
        float64 [B, N].
    """
    text = f"{name}/{seed}/{stream}"
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    blocks = -(-numbers // _BLOCK)
    bits = np.random.Philox(
        key=int.from_bytes(key, "little"), counter=first_row * blocks
    ).random_raw(rows * blocks * _BLOCK)
    # The highest 53 bits are what a float64 holds.
    return (bits >> np.uint64(11)).reshape(rows, -1)[:, :numbers] * 2.0**-53


def integers(uniform: np.ndarray, low: int, high: int) -> np.ndarray:
    """Turn uniform numbers into integers from ``low`` to ``high``, both included."""
    return low + (uniform * (high - low + 1)).astype(np.int64)


def without_replacement(uniform: np.ndarray, count: int) -> np.ndarray:
    """Turn rows of N uniform numbers into N different integers from 0 to ``count - 1``.

    The first N steps of a Fisher-Yates shuffle; with N = ``count`` a permutation.

    Args:
        uniform: [B, N], N at most ``count``.
        count: of integers to draw from.

    Returns:
        int32 [B, N].
    """
    rows = np.arange(len(uniform))
    items = np.tile(np.arange(count, dtype=np.int32), (len(uniform), 1))
    for step in range(uniform.shape[1]):
        other = integers(uniform[:, step], step, count - 1)
        drawn = items[rows, other]
        items[rows, other] = items[:, step]
        items[:, step] = drawn
    return items[:, : uniform.shape[1]]
