"""Induction scores: attention to the token after an earlier copy of the current one."""

from collections.abc import Sequence

import numpy as np

from jaxheads.errors import UserError
from jaxheads.heads import HeadScores, from_samples
from jaxheads.scores.attention import even_share, largest_share
from jaxheads.scores.config import ScoresConfig

DEFINITIONS = ("olsson", "yin")


def probe(
    count: int,
    length: int,
    vocabulary: Sequence[int],
    bos_id: int | None,
    seed: int,
    repeats: int = 2,
) -> np.ndarray:
    """Random tokens, repeated: [BOS] r_1 ... r_s r_1 ... r_s.

    Drawn as token ids, never through text. The tokens of one sequence are distinct, so
    that each has one earlier copy in the second block, two in the third.

    Args:
        count: sequences, B.
        length: s, tokens before they repeat.
        vocabulary: ids to draw from.
        bos_id: put first, if not None.
        seed: of the draw.
        repeats: how often the tokens stand there, R; 2: repeated once.

    Returns:
        int32 [B, T] with T = R s, or R s + 1 with BOS.

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
    return np.concatenate([start, *[once] * repeats], axis=1).astype(np.int32)


def edges(
    length: int, bos: bool, normalise: str = "olsson", repeats: int = 2
) -> np.ndarray:
    """Weights [T, S] of the induction edges, for ``attention_share``.

    Row t of a later copy looks at t - s + 1, t - 2 s + 1 and so on: the tokens that
    followed the earlier copies of its own.

    Args:
        length: s of the probe.
        bos: whether the probe begins with BOS.
        normalise: "olsson": mean over the rows of the later copies; "yin": mass on the
            targets over all mass, which every row has 1 of.
        repeats: of the probe.
    """
    if normalise not in DEFINITIONS:
        raise UserError(f"normalise must be one of {DEFINITIONS}, not {normalise!r}")
    weights = copy_edges(length, bos, repeats, offset=1)
    rows = (repeats - 1) * length
    return weights / (rows if normalise == "olsson" else len(weights))


def copy_edges(length: int, bos: bool, repeats: int, offset: int) -> np.ndarray:
    """0/1 weights [T, S] of the edges to ``offset`` after each earlier copy."""
    total = repeats * length + bos
    weights = np.zeros((total, total), np.float32)
    for back in range(1, repeats):
        rows = np.arange(back * length + bos, total)
        weights[rows, rows - back * length + offset] = 1
    return weights


def chance(
    length: int, bos: bool, normalise: str = "olsson", repeats: int = 2
) -> float:
    """Score of a head that spreads its attention evenly over what it may see."""
    return even_share(edges(length, bos, normalise, repeats))


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
    ceiling = largest_share(edges(length, bos, normalise))
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


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The scores of one head that was never run."""
    none, length = np.zeros((1, 1, 2)), chosen.sequence_length
    return [head_scores(none, length, False, each) for each in DEFINITIONS]
