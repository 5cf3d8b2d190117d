"""Duplicate-token score: attention to an earlier copy of the current token itself."""

import numpy as np

from jaxheads.heads import HeadScores, from_samples
from jaxheads.scores.attention import even_share
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.induction import copy_edges

VALUE_WEIGHTED = False


def edges(length: int, bos: bool, repeats: int = 2) -> np.ndarray:
    """Weights [T, S] of the edges (t, t - s), for ``attention_share``.

    Args:
        length: s of the probe, see ``induction.probe``.
        bos: whether the probe begins with BOS.
        repeats: of the probe; all earlier copies count.
    """
    weights = copy_edges(length, bos, repeats, offset=0)
    return weights / ((repeats - 1) * length)


def chance(length: int, bos: bool, repeats: int = 2) -> float:
    """Score of a head that spreads its attention evenly over what it may see."""
    return even_share(edges(length, bos, repeats))


def head_scores(samples: np.ndarray, length: int, bos: bool) -> HeadScores:
    """Head scores from per-sequence shares.

    Args:
        samples: [L, H, B], from ``attention_share`` on the induction probe.
        length: s of the probe.
        bos: whether the probe begins with BOS.

    Source: Wang et al. 2023 (Interpretability in the Wild), duplicate-token heads.
    """
    where = f"{length} random tokens repeated once" + (" after BOS" if bos else "")
    return HeadScores(
        "duplicate_token",
        *from_samples(samples),
        definition="mean over the second copy of the attention to the first copy of "
        f"the current token, on {where}",
        unit="share of attention",
        chance=chance(length, bos),
        ceiling=1.0,
        source="Wang et al. 2023, duplicate-token heads",
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The score of one head that was never run."""
    return [head_scores(np.zeros((1, 1, 2)), chosen.sequence_length, bos=False)]
