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
    wanted = automata.probabilities[
        windows.info["automaton"][:, None], windows.info["state"]
    ]
    return distance_between(probabilities, wanted, windows)


def distance_between(
    given: np.ndarray, reference: np.ndarray, windows: Windows
) -> np.ndarray:
    """Total variation distance of two models' next-token distributions.

    Tokens beyond the reference's count as 0 there.

    Args:
        given: float [B, T, V], for each target.
        reference: float [B, T, symbols], for each target; symbols at most V.
        windows: of ``RegularLanguages``.

    Returns:
        float64 [B, T], 0 to 1; NaN where the target is not scored.

    Source: Akyürek et al. 2024; its code gives the sum of differences, twice this.
    """
    given = np.asarray(given, np.float64)
    symbols = reference.shape[2]
    distance = np.abs(given[:, :, :symbols] - reference).sum(axis=2)
    distance += given[:, :, symbols:].sum(axis=2)
    return np.where(windows.scored, distance / 2, np.nan)
