"""Two rankings of the same heads against each other, each figure beside its chance.

Question: are the heads that one score puts first the heads that another score, or
another checkpoint, puts first, and if not, how are they placed there?
Source: Yin & Steinhardt 2025, figures 2, 3 and appendix (overlap, percentiles, depth).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads import statistics
from jaxheads.errors import UserError
from jaxheads.heads import By, count_of, head_names, top
from jaxheads.heads.rankings import Ranking
from jaxheads.heads.set_files import SCHEMA
from jaxheads.runs.finite import plain

FRACTIONS = (0.02, 0.05, 0.1)
DRAWS = 200


@dataclasses.dataclass(frozen=True)
class TopSets:
    """The top heads of two rankings, A and B, both of one size.

    Chance is what the ranking of B gives when its scores are handed out to the heads
    anew, at random: the mean over draws, or exactly where a formula is known.

    Attributes:
        fraction: of all heads.
        count: heads in each set.
        heads: names of the heads that are in both.
        shared: how many; ``share`` of ``count``.
        share: 0 to 1.
        shared_chance: expected number, count^2 / heads; exact.
        p_value: probability of so many or more by chance; exact, one-sided.
        jaccard: share of the heads of either set that are in both.
        spearman: rank correlation over the heads of either set.
        spearman_chance: below 0, because a head is in either set by one score or the
            other, seldom by both.
        kendall: tau b over the same heads.
        kendall_chance: as for ``spearman_chance``.
        percentile_a_in_b: where the mean score of A's top heads lies among all heads'
            scores in B, 0 to 100.
        percentile_a_in_b_chance: above 50 where few heads have most of the score.
        percentile_b_in_a: the same with A and B exchanged.
        percentile_b_in_a_chance: the same with A and B exchanged.
        depth_a: mean layer of A's top heads, from 0.
        depth_b: mean layer of B's top heads.
        depth_difference: ``depth_a - depth_b``; positive: A's heads are later.
    """

    fraction: float
    count: int
    heads: tuple[str, ...]
    shared: int
    share: float
    shared_chance: float
    p_value: float
    jaccard: float
    spearman: float
    spearman_chance: float
    kendall: float
    kendall_chance: float
    percentile_a_in_b: float
    percentile_a_in_b_chance: float
    percentile_b_in_a: float
    percentile_b_in_a_chance: float
    depth_a: float
    depth_b: float
    depth_difference: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How two rankings of the same heads agree.

    Attributes:
        a: the one ranking, ready for JSON: score, path, model, params_sha256.
        b: the other.
        shape: (L, H).
        by: "largest": by score; "magnitude": by its size, whatever its sign, and all
            figures are of that.
        spearman: rank correlation over all heads; 0 by chance.
        kendall: tau b over all heads; 0 by chance.
        spearman_spread: its standard deviation by chance, 1 / sqrt(heads - 1); exact.
        tops: the top sets, a fraction each.
        draws: random draws behind each chance that is no formula.
        seed: of the draws.
        notes: what a reader should know.
    """

    a: dict[str, Any]
    b: dict[str, Any]
    shape: tuple[int, int]
    by: By
    spearman: float
    kendall: float
    spearman_spread: float
    tops: tuple[TopSets, ...]
    draws: int
    seed: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON, which has null for nan."""
        return {"schema": SCHEMA} | plain(self)


def compare(
    a: Ranking,
    b: Ranking,
    fractions: Sequence[float] = FRACTIONS,
    *,
    by: By = "largest",
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Set two rankings against each other.

    Args:
        a: scores [L, H]; of another checkpoint or another score than ``b``.
        b: scores [L, H] of the same heads.
        fractions: shares of all heads whose top sets are compared, by ``count_of``.
        by: "largest", or "magnitude" for |score|.
        draws: random draws behind each chance that is no formula, 1 or more.
        seed: of the draws.

    Raises:
        UserError: the rankings are the same one or of different shapes, or a fraction
            is not above 0 and at most 1.
    """
    if (a.path.resolve(), a.scores.name) == (b.path.resolve(), b.scores.name):
        raise UserError(
            f"a comparison needs two rankings, but both are {a.scores.name} of "
            f"{a.path}: give a second run or file, or --score-b for another score of "
            "the same run"
        )
    one, other = (np.asarray(each.scores.mean, np.float64) for each in (a, b))
    if one.shape != other.shape:
        raise UserError(
            "two rankings must be of the same heads, but {} has {} layers of {} heads, "
            "and {} {} of {}: compare checkpoints or scores of one architecture".format(
                a.path, *one.shape, b.path, *other.shape
            )
        )
    wrong = [fraction for fraction in fractions if not 0 < fraction <= 1]
    if wrong or not fractions:
        raise UserError(
            f"--fraction takes shares of heads above 0 and at most 1, not {wrong or ''}"
        )
    if by == "magnitude":
        one, other = np.abs(one), np.abs(other)
    rng = np.random.default_rng(seed)
    shuffled = [rng.permuted(other.ravel()).reshape(other.shape) for _ in range(draws)]
    return Comparison(
        a=_described(a),
        b=_described(b),
        shape=(one.shape[0], one.shape[1]),
        by=by,
        spearman=statistics.spearman(one, other),
        kendall=statistics.kendall(one, other),
        spearman_spread=(one.size - 1) ** -0.5 if one.size > 1 else float("nan"),
        tops=tuple(top_sets(one, other, each, shuffled) for each in fractions),
        draws=draws,
        seed=seed,
        notes=tuple(_notes(a, b)),
    )


def top_sets(
    a: np.ndarray,
    b: np.ndarray,
    fraction: float,
    shuffled: Sequence[np.ndarray],
    count: int | None = None,
) -> TopSets:
    """Set the top heads of two rankings against each other.

    Args:
        a: scores [L, H].
        b: scores [L, H] of the same heads.
        fraction: of all heads.
        shuffled: ``b`` with its scores handed out anew, a draw each.
        count: heads of a set; None: by ``count_of``.
    """
    count = count_of(fraction, a.size) if count is None else count
    top_a, top_b = top(a, count), top(b, count)
    both = top_a & top_b
    shared = int(both.sum())
    depth_a, depth_b = (float(np.nonzero(heads)[0].mean()) for heads in (top_a, top_b))
    placed = _placed(a, b, top_a, top_b)
    by_chance = np.array([_placed(a, s, top_a, top(s, count)) for s in shuffled])
    chance = [_mean(column) for column in by_chance.T]
    return TopSets(
        fraction=fraction,
        count=count,
        heads=tuple(head_names(both)),
        shared=shared,
        share=shared / count,
        shared_chance=count**2 / a.size,
        p_value=statistics.overlap_p_value(shared, count, count, a.size),
        jaccard=statistics.jaccard(top_a, top_b),
        spearman=placed[0],
        spearman_chance=chance[0],
        kendall=placed[1],
        kendall_chance=chance[1],
        percentile_a_in_b=placed[2],
        percentile_a_in_b_chance=chance[2],
        percentile_b_in_a=placed[3],
        percentile_b_in_a_chance=chance[3],
        depth_a=depth_a,
        depth_b=depth_b,
        depth_difference=depth_a - depth_b,
    )


def _placed(
    a: np.ndarray, b: np.ndarray, top_a: np.ndarray, top_b: np.ndarray
) -> tuple[float, float, float, float]:
    """Spearman, Kendall over both top sets; percentiles of A's in B, of B's in A."""
    either = top_a | top_b
    return (
        statistics.spearman(a[either], b[either]),
        statistics.kendall(a[either], b[either]),
        statistics.percentile_of(b, top_a),
        statistics.percentile_of(a, top_b),
    )


def _mean(values: np.ndarray) -> float:
    """Over the draws where there is a value; nan where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _described(ranking: Ranking) -> dict[str, Any]:
    return {
        "score": ranking.scores.name,
        "path": str(ranking.path),
        "model": ranking.model,
        "params_sha256": ranking.params_sha256,
    }


def _notes(a: Ranking, b: Ranking) -> list[str]:
    one, other = a.params_sha256, b.params_sha256
    if not one or not other:
        return ["a file does not say of which params: they may be of different models"]
    if one != other:
        return [
            "A and B were scored on different params, of two checkpoints or models: "
            f"{one[:12]}... and {other[:12]}..."
        ]
    return []
