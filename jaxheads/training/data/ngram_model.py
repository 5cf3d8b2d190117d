"""The n-gram model of a prompt: what its strings say of the next symbol, by counting.

A reference for models that learn a language in context; on the host, numpy only.
"""

import numpy as np


def ngram_predictions(
    tokens: np.ndarray, symbols: int, separator: int, order: int = 3
) -> np.ndarray:
    """Next symbols by n-grams of the prompt so far, backing off to shorter ones.

    With c the last n - 1 symbols of the string, or the beginning of it and all symbols
    since, C counts in the strings up to here, the unfinished one included, and V the
    symbols that have been seen in the prompt:

        p_n(v) = C(c v) / C(c)                             where C(c v) > 0
                 (what is left) p_{n-1}(v) / (sum of p_{n-1} over such v)   else
        p_1(v) = C(v) / C(all symbols)

    C(c) also counts c where nothing has followed it: here, and at ends of strings.
    Where every seen symbol has followed c nothing takes what is left; the result is
    divided by its sum. Symbols that were not seen have 0.

    Args:
        tokens: int [B, T + 1], strings of ids below ``symbols``, a separator between
            them, then other ids as padding.
        symbols: how many ids are symbols.
        separator: id.
        order: N, the largest n.

    Returns:
        float64 [B, T, symbols]: of the target at t from tokens 0 to t; where no symbol
        has been seen, 1 over their number.

    Raises:
        ValueError: the order is below 1.

    Source: Akyürek et al. 2024, arXiv 2401.12973, and its code (N = 3, no smoothing).
    """
    if order < 1:
        raise ValueError(f"order must be 1 or more, but is {order}")
    return np.stack([_row(row, symbols, separator, order) for row in tokens])


def _row(tokens: np.ndarray, symbols: int, separator: int, order: int) -> np.ndarray:
    """``ngram_predictions`` of one prompt: [T + 1] -> [T, symbols]."""
    # A separator before the prompt, so that the first string begins like the others.
    row = np.concatenate([[separator], tokens])
    length = len(row)
    followed = np.append(row[1:], -1)[:, None] == np.arange(symbols)
    followed = followed.astype(np.float64)
    read = (row < symbols) | (row == separator)  # padding is no context of anything
    alike = np.tri(length, dtype=bool) & read
    before = np.tri(length, k=-1, dtype=bool)  # what followed s is known after t > s
    counts = (alike & before).astype(np.float64) @ followed
    seen = counts > 0
    some = seen.any(axis=1, keepdims=True)
    total = counts.sum(axis=1, keepdims=True)
    found = np.where(some, counts / np.maximum(total, 1), 1 / symbols)  # p_1
    for context in _contexts(row, symbols, order - 1):
        alike &= context[:, None] == context
        counts = (alike & before).astype(np.float64) @ followed
        own = counts / np.maximum(alike.sum(axis=1, keepdims=True), 1)
        shorter = np.where(seen & (counts == 0), found, 0.0)
        mass = shorter.sum(axis=1, keepdims=True)
        left = 1 - own.sum(axis=1, keepdims=True)
        shared = shorter * left / np.where(mass > 0, mass, 1.0)
        found = np.where(some, own + shared, found)
    return (found / found.sum(axis=1, keepdims=True))[1:-1]


def _contexts(row: np.ndarray, symbols: int, longest: int) -> list[np.ndarray]:
    """The symbol 0, 1, ... places back in the same string; -1 before its beginning."""
    back, inside = [], np.ones(len(row), bool)
    for shift in range(longest):
        token = np.concatenate([np.full(shift, symbols), row])[: len(row)]
        inside = inside & (token < symbols)
        back.append(np.where(inside, token, -1))
    return back
