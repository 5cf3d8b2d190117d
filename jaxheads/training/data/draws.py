"""Random numbers by row: any row of any data order, at once and in any order.

A row takes a fixed count of numbers out of the stream of Philox, a generator that
counts: row r begins at counter r x blocks, so rows need not be drawn one after the
other. The stream of its raw bits is the same in every version of numpy.
"""

import hashlib

import numpy as np

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
