"""Previous-token score: attention to the token just before, on text."""

import numpy as np

from jaxheads.heads import HeadScores, from_samples
from jaxheads.scores.config import ScoresConfig


def edges(length: int) -> np.ndarray:
    """Weights [T, S] of the edges (t, t - 1), for ``attention_share``."""
    return np.eye(length, k=-1, dtype=np.float32) / (length - 1)


def chance(length: int) -> float:
    """Score of a head that spreads its attention evenly over what it may see."""
    return float(np.mean(1 / np.arange(2, length + 1)))


def head_scores(samples: np.ndarray, length: int, text: str) -> HeadScores:
    """Head scores from per-document shares.

    Args:
        samples: [L, H, B], from ``attention_share``.
        length: T of the documents.
        text: what the documents are.

    Source: Olsson et al. 2022, previous-token heads.
    """
    return HeadScores(
        "previous_token",
        *from_samples(samples),
        definition="mean attention to the token just before, over the first "
        f"{length} tokens of documents of {text}",
        unit="share of attention",
        chance=chance(length),
        ceiling=1.0,
        source="Olsson et al. 2022, previous-token score",
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The score of one head that was never run."""
    text = "a text (by default Python's own manual)"
    return [head_scores(np.zeros((1, 1, 2)), chosen.document_length, text)]
