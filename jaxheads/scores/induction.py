"""Induction scores: attention to the token after an earlier copy of the current one."""

from collections.abc import Sequence

import numpy as np

from jaxheads.errors import UserError
from jaxheads.heads import HeadScores, from_samples

DEFINITIONS = ("olsson", "yin")


def probe(
    count: int, length: int, vocabulary: Sequence[int], bos_id: int | None, seed: int
) -> np.ndarray:
    """Random tokens, repeated once: [BOS] r_1 ... r_s r_1 ... r_s.

    Drawn as token ids, never through text. The tokens of one sequence are distinct, so
    that each has just one earlier copy.

    Args:
        count: sequences, B.
        length: s, tokens before they repeat.
        vocabulary: ids to draw from.
        bos_id: put first, if not None.
        seed: of the draw.

    Returns:
        int32 [B, T] with T = 2 s, or 2 s + 1 with BOS.

    Raises:
        UserError: the vocabulary has fewer than ``length`` ids.
    """
    if len(vocabulary) < length:
        raise UserError(
            f"a probe of {length} distinct tokens needs as many in the vocabulary, "
            f"which has {len(vocabulary)}: ask for shorter sequences"
        )
    rng = np.random.default_rng([seed, 0])
    ids = np.asarray(vocabulary)
    once = np.stack([rng.choice(ids, length, replace=False) for _ in range(count)])
    start = np.full((count, 0 if bos_id is None else 1), bos_id or 0)
    return np.concatenate([start, once, once], axis=1).astype(np.int32)


def edges(length: int, bos: bool, normalise: str = "olsson") -> np.ndarray:
    """Weights [T, S] of the induction edges, for ``attention_share``.

    Row t of the second copy looks at t - s + 1, the token after its first copy.

    Args:
        length: s of the probe.
        bos: whether the probe begins with BOS.
        normalise: "olsson": mean over the rows of the second copy; "yin": mass on the
            targets over all mass, which every row has 1 of.
    """
    if normalise not in DEFINITIONS:
        raise UserError(f"normalise must be one of {DEFINITIONS}, not {normalise!r}")
    total = 2 * length + bos
    weights = np.zeros((total, total), np.float32)
    rows = np.arange(length + bos, total)
    weights[rows, rows - length + 1] = 1
    return weights / (length if normalise == "olsson" else total)


def chance(length: int, bos: bool, normalise: str = "olsson") -> float:
    """Score of a head that spreads its attention evenly over what it may see."""
    weights = edges(length, bos, normalise)
    return float((weights.sum(axis=1) / np.arange(1, len(weights) + 1)).sum())


def head_scores(
    samples: np.ndarray, length: int, bos: bool, normalise: str = "olsson"
) -> HeadScores:
    """Head scores from per-sequence shares.

    Args:
        samples: [L, H, B], from ``attention_share`` with "olsson" edges.
        length: s of the probe.
        bos: whether the probe begins with BOS.
        normalise: "olsson" or "yin"; the two differ by a constant factor on a probe of
            distinct tokens.

    Source: Olsson et al. 2022 (prefix matching); Yin & Steinhardt 2025, section 3.
    """
    ceiling = float(edges(length, bos, normalise).sum())
    mean, error = from_samples(samples)
    where = f"{length} random tokens repeated once" + (" after BOS" if bos else "")
    how = {
        "olsson": "mean over the second copy of the attention",
        "yin": "share of a head's whole attention mass, over all positions,",
    }[normalise]
    return HeadScores(
        name="induction" if normalise == "olsson" else "induction_yin",
        mean=mean * ceiling,
        standard_error=error * ceiling,
        definition=f"{how} to the token after the first copy of the current one, on "
        f"{where}",
        unit="share of attention",
        chance=chance(length, bos, normalise),
        ceiling=ceiling,
        source={
            "olsson": "Olsson et al. 2022, prefix matching",
            "yin": "Yin & Steinhardt 2025, section 3",
        }[normalise],
    )
