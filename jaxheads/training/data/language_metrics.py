"""How well a model has found an automaton's language: per target, on the host.

Source: Akyürek et al. 2024, arXiv 2401.12973 (both figures, and the comparison with
n-grams of the prompt).
"""

import numpy as np

from jaxheads.training.data.automata import Automata
from jaxheads.training.data.windows import Windows


def legal_next_symbol(
    predicted: np.ndarray, windows: Windows, automata: Automata
) -> np.ndarray:
    """Whether the predicted token is one that the automaton allows next.

    Chance is the number of legal symbols over the vocabulary; a model that knows the
    automaton has 1.

    Args:
        predicted: int [B, T], the likeliest token for each target.
        windows: of ``RegularLanguages``.
        automata: of the same source.

    Returns:
        bool [B, T]; False where the target is not scored.
    """
    symbols = automata.legal.shape[2]
    legal = automata.legal[windows.info["automaton"][:, None], windows.info["state"]]
    known = windows.scored & (predicted >= 0) & (predicted < symbols)
    chosen = np.clip(predicted, 0, symbols - 1)[:, :, None]
    return known & np.take_along_axis(legal, chosen, axis=2)[:, :, 0]


def total_variation(
    probabilities: np.ndarray, windows: Windows, automata: Automata
) -> np.ndarray:
    """Distance of the model's next-token distribution p from the automaton's q.

    ``1/2 sum over tokens v of |p(v) - q(v)|``: 0 is perfect, 1 is disjoint. What the
    model gives to the separator and to padding counts as wrong.

    Args:
        probabilities: float [B, T, V], for each target; V the source's or more.
        windows: of ``RegularLanguages``.
        automata: of the same source.

    Returns:
        float64 [B, T], 0 to 1; NaN where the target is not scored.
    """
    symbols = automata.legal.shape[2]
    wanted = automata.probabilities[
        windows.info["automaton"][:, None], windows.info["state"]
    ]
    given = np.asarray(probabilities, np.float64)
    distance = np.abs(given[:, :, :symbols] - wanted).sum(axis=2)
    distance += given[:, :, symbols:].sum(axis=2)
    return np.where(windows.scored, distance / 2, np.nan)


def prompt_ngrams(
    tokens: np.ndarray, symbols: int, longest_context: int = 2
) -> np.ndarray:
    """What n-grams of the prompt itself predict: a reference for a model's figures.

    Of the places before where the last c tokens stood in the same order, the symbols
    that followed are counted; c is the longest context, up to ``longest_context``, that
    any symbol followed. Separators are part of contexts, so the beginning of a string
    has one; they are not predicted.

    Args:
        tokens: int [B, T + 1], of ``RegularLanguages``.
        symbols: ids below it are symbols.
        longest_context: c at most; 2 are trigrams.

    Returns:
        float64 [B, T, symbols]: of each target's next symbol; uniform where nothing
        can be counted.
    """
    rows, width = tokens.shape
    length = width - 1
    context, following = tokens[:, :-1], tokens[:, 1:]
    counted = (following[:, :, None] == np.arange(symbols)).astype(np.float64)
    result = np.full((rows, length, symbols), 1 / symbols)
    # What followed position s < t is known at t.
    alike = np.broadcast_to(np.tri(length, k=-1, dtype=bool), (rows, length, length))
    for shift in range(longest_context + 1):  # contexts of `shift` tokens
        if shift:
            back = np.full((rows, length), -shift)  # before the window: no token
            back[:, shift - 1 :] = context[:, : length - shift + 1]
            alike = alike & (back[:, :, None] == back[:, None]) & (back >= 0)[:, None]
        counts = alike.astype(np.float64) @ counted  # [B, T, symbols]
        total = counts.sum(axis=2, keepdims=True)
        result = np.where(total > 0, counts / np.maximum(total, 1), result)
    return result
