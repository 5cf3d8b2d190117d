"""The sets of heads that a study replaces: top sets and their random controls."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxheads.errors import UserError
from jaxheads.heads import count_of, layer_matched, top, uniform

DECISIVE = 0.05
"""The share of heads that the claims take, or that nearest to it."""
Described = tuple[dict, np.ndarray]
"""What a set is, ready for JSON, and which heads it replaces, bool [L, H]."""


@dataclasses.dataclass(frozen=True)
class SetPlan:
    """Which sets to make of rankings.

    Attributes:
        rankings: names of the scores.
        fractions: shares of all heads to replace.
        exclusion: share of the other ranking's top heads that may not be taken.
        exclusions: further such shares, whose sets come last.
        exclusions_at: fractions at which those are tried; none: at all.
        keep_only: shares of heads to keep while all others are replaced.
        draws: random sets of each kind, at the size nearest to ``DECISIVE``.
        matched_to: rankings whose top sets get layer-matched random sets.
        seed: of the random sets.
        exclusion_least: heads that an exclusion drops at least, whatever its share.
        draws_elsewhere: the most random sets of a kind at the other sizes; None: as
            many as ``draws``.
    """

    rankings: Sequence[str]
    fractions: Sequence[float]
    exclusion: float
    keep_only: Sequence[float] = ()
    draws: int = 5
    matched_to: Sequence[str] = ()
    seed: int = 0
    exclusions: Sequence[float] = ()
    exclusions_at: Sequence[float] = ()
    exclusion_least: int = 1
    draws_elsewhere: int | None = None

    def _many(self, fraction: float, fractions: Sequence[float]) -> int:
        """Random sets of a kind at a size: the claims take the one nearest to 5 %."""
        decisive = min(fractions, key=lambda one: abs(one - DECISIVE))
        if self.draws_elsewhere is None or fraction == decisive:
            return self.draws
        return min(self.draws, self.draws_elsewhere)

    def build(self, scores: Mapping[str, np.ndarray]) -> list[Described]:
        """All sets, the empty one ("clean") first.

        Args:
            scores: [L, H] by ranking name.

        Returns:
            Pairs of a description and the heads that are replaced. A description has
            name, ranking, mode, matched_to, fraction, count and draw; modes are
            "clean", "top", "exclusion", "keep_only", "uniform", "layer_matched",
            "keep_only_random" and "exclusion_other", for the further shares. The two
            with exclusion have the share as "exclusion". Sets of several descriptions
            may be the same, see ``distinct``.

        Raises:
            UserError: a set asks for more heads than there are.
        """
        shape = next(iter(scores.values())).shape
        clean = _described("clean", "none", "clean", 0.0, np.zeros(shape, bool))
        ranked, random = self._ranked(scores), self._random(scores, shape)
        return [clean, *ranked, *random, *self._other_exclusions(scores)]

    def _ranked(self, scores: Mapping[str, np.ndarray]) -> Iterator[Described]:
        for ranking in self.rankings:
            values = scores[ranking]
            for fraction in self.fractions:
                count = count_of(fraction, values.size)
                yield _described(
                    f"{ranking} {fraction:.3g}",
                    ranking,
                    "top",
                    fraction,
                    top(values, count),
                )
                if len(set(self.rankings)) > 1:
                    yield self._excluding(
                        scores, ranking, fraction, "exclusion", self.exclusion
                    )
            for fraction in self.keep_only:
                kept = top(values, count_of(fraction, values.size))
                yield _described(
                    f"only {ranking} {fraction:.3g}",
                    ranking,
                    "keep_only",
                    fraction,
                    ~kept,
                )

    def _other_exclusions(
        self, scores: Mapping[str, np.ndarray]
    ) -> Iterator[Described]:
        several = len(set(self.rankings)) > 1
        for share in self.exclusions if several else ():
            for ranking in self.rankings:
                for fraction in self.exclusions_at or self.fractions:
                    yield self._excluding(
                        scores, ranking, fraction, "exclusion_other", share
                    )

    def _excluding(
        self,
        scores: Mapping[str, np.ndarray],
        ranking: str,
        fraction: float,
        mode: str,
        share: float,
    ) -> Described:
        """The top heads of a ranking without those at the top of the other one."""
        other = next(each for each in self.rankings if each != ranking)
        values = scores[ranking]
        left_out = count_of(share, values.size, least=self.exclusion_least)
        excluded = top(scores[other], left_out)
        heads = top(values, count_of(fraction, values.size), excluded)
        which = "" if mode == "exclusion" else f" {share:.3g}"
        name = f"{ranking} {fraction:.3g} without top{which} {other}"
        described, heads = _described(name, ranking, mode, fraction, heads)
        return described | {"exclusion": share}, heads

    def _random(
        self, scores: Mapping[str, np.ndarray], shape: tuple[int, int]
    ) -> Iterator[Described]:
        total = shape[0] * shape[1]
        for draw in range(self.draws):
            for index, fraction in enumerate(self.fractions):
                if draw >= self._many(fraction, self.fractions):
                    continue
                count = count_of(fraction, total)
                rng = np.random.default_rng([self.seed, 1, draw, index])
                yield _described(
                    f"uniform {fraction:.3g} #{draw}",
                    "random",
                    "uniform",
                    fraction,
                    uniform(rng, shape, count),
                    draw=draw,
                )
                for which, ranking in enumerate(self.matched_to):
                    rng = np.random.default_rng([self.seed, 2, draw, index, which])
                    matched = layer_matched(rng, top(scores[ranking], count))
                    yield _described(
                        f"layers of {ranking} {fraction:.3g} #{draw}",
                        "random",
                        "layer_matched",
                        fraction,
                        matched,
                        draw=draw,
                        matched_to=ranking,
                    )
            for index, fraction in enumerate(self.keep_only):
                if draw >= self._many(fraction, self.keep_only):
                    continue
                rng = np.random.default_rng([self.seed, 3, draw, index])
                kept = uniform(rng, shape, count_of(fraction, total))
                yield _described(
                    f"only uniform {fraction:.3g} #{draw}",
                    "random",
                    "keep_only_random",
                    fraction,
                    ~kept,
                    draw=draw,
                )


def chosen_set(name: str, heads: np.ndarray) -> Described:
    """A set that the user chose, bool [L, H], under a name: mode "chosen"."""
    return _described(name, "chosen", "chosen", float(heads.mean()), heads)


def _described(
    name: str,
    ranking: str,
    mode: str,
    fraction: float,
    replaced: np.ndarray,
    draw: int = 0,
    matched_to: str | None = None,
) -> Described:
    described = {
        "name": name,
        "ranking": ranking,
        "mode": mode,
        "matched_to": matched_to,
        "fraction": fraction,
        "count": int(replaced.sum()),
        "draw": draw,
    }
    return described, replaced


def largest_changes(
    sets: Sequence[Described], changes: np.ndarray, where: str
) -> list[float]:
    """The largest change that each set makes to a head output.

    Args:
        sets: of ``SetPlan.build``.
        changes: [L, H], largest absolute change of each head if it is replaced.
        where: what was replaced where, for the message.

    Raises:
        UserError: a non-empty set changes nothing, so the ablation did not happen.
    """
    largest = []
    for described, replaced in sets:
        change = float(changes[replaced].max()) if replaced.any() else 0.0
        if replaced.any() and change == 0:
            raise UserError(
                f"set {described['name']!r} replaces {described['count']} heads {where}"
                ", but changes nothing: what replaces them is what they give; choose "
                "another value, or more prompts or documents"
            )
        largest.append(change)
    return largest
