"""Which function-vector heads were induction heads first: a definition, and its test.

A head made the transition from induction to function vectors if

1. at the last step it is among the top ceil(``final_share`` H) heads by FV score, and
   its FV score is detectable there;
2. at an earlier step s it is among the top ceil(``early_share`` H) heads by induction
   score, and that score is detectable there, and ``least_induction`` above chance (the
   best of a few untrained heads stands out a little);
3. (``silent``) its FV score is detectable neither at s nor at any step before; and
4. (``overtakes``) its rank by induction is the better one at s, its rank by FV score
   the better one at the last step.

Detectable: it stands out from chance at ``level`` over all heads of the step, see
``statistics.standing_out``. Of a head whose
two scores first show between the same two checkpoints nothing can be said: more
checkpoints are needed there.

The test: the number of such heads, against that with the induction trajectories given
to other heads (permuted over all, or within layers, which keeps what is due to depth).
It says whether the FV heads of the end were induction heads more often than other
heads were. It is a correlation over checkpoints of two scores of the same heads, and no
causal test: whether one function grows out of the other, it cannot say.

Source: Yin & Steinhardt 2025, section 5, describe the transition; the definition and
the test are this project's own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxheads.heads import head_name
from jaxheads.heads.run_scores import top_count
from jaxheads.runs import Arrays, Run
from jaxheads.statistics.standing_out import stands_out

LEAST = {"induction": 0.1, "function_vector": 0.0}
"""How far above chance a score must be for a kind of head to be there: the best of a
few untrained heads is a little above it, and that with hardly any error."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectories:
    """Two scores of every head over the steps.

    Attributes:
        steps: int [U], in order.
        induction: [U, L, H], share of attention.
        induction_se: [U, L, H].
        induction_chance: of a head that attends evenly.
        fv: [U, L, H], probability.
        fv_se: [U, L, H].
        fv_effects: [U, A, L, H], the FV score by task.
        sequences: that the induction scores and their errors rest on.
        prompts: of each task, that the FV scores rest on.
    """

    steps: np.ndarray
    induction: np.ndarray
    induction_se: np.ndarray
    induction_chance: float
    fv: np.ndarray
    fv_se: np.ndarray
    fv_effects: np.ndarray
    sequences: int
    prompts: int

    @classmethod
    def of(
        cls, arrays: Arrays, scores: Mapping[str, Any], config: Mapping[str, Any]
    ) -> "Trajectories":
        """Out of the arrays of a dynamics run.

        Args:
            arrays: of the run.
            scores: what its scores mean.
            config: how they were measured, the run's ``ScoresConfig`` as JSON.
        """
        named = {
            name: np.asarray(arrays[f"dynamics/score/{name}"], np.float64)
            for score in ("induction", "function_vector")
            for name in (score, f"{score}_se")
        }
        return cls(
            np.asarray(arrays["dynamics/step"]),
            named["induction"],
            named["induction_se"],
            float(scores["induction"]["chance"]),
            named["function_vector"],
            named["function_vector_se"],
            np.asarray(arrays["dynamics/fv_effects"], np.float64),
            int(config["sequences"]),
            int(config["corrupted_prompts"]),
        )

    @classmethod
    def of_run(cls, run: Run) -> "Trajectories":
        """Out of a loaded dynamics run."""
        return cls.of(run.arrays, run.result["scores"], run.result["config"]["scores"])

    def shows(self, name: str, level: float = 0.05) -> np.ndarray:
        """Which heads stand out from chance at each step: bool [U, L H].

        Args:
            name: "induction" or "function_vector".
            level: at each step, over all heads together.
        """
        if name == "induction":
            asked = (self.induction, self.induction_se, self.induction_chance)
            found = stands_out(*asked, self.sequences, level)
        else:
            found = stands_out(self.fv, self.fv_se, 0.0, self.prompts, level)
        return found.reshape(len(found), -1)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank heads from 1 (largest) at each step: [U, L, H] -> int [U, L H].

    Of equal scores the earlier head has the better rank.
    """
    flat = scores.reshape(len(scores), -1)
    places = np.empty(flat.shape, int)
    order = np.argsort(-flat, axis=1, kind="stable")
    np.put_along_axis(places, order, np.arange(1, flat.shape[1] + 1)[None], axis=1)
    return places


PERMUTATIONS = 2000


@dataclasses.dataclass(frozen=True)
class Definition:
    """Parameters of the definition; see the module.

    Attributes:
        final_share: of all heads, which are the FV heads of the end.
        early_share: of all heads, which are the induction heads of a step.
        level: of detection, over all heads together.
        silent: whether condition 3 is asked for.
        overtakes: whether condition 4 is asked for.
        least_induction: share of attention above chance of an induction head.
    """

    final_share: float = 0.02
    early_share: float = 0.05
    level: float = 0.05
    silent: bool = True
    overtakes: bool = True
    least_induction: float = LEAST["induction"]


@dataclasses.dataclass(frozen=True)
class Followed:
    """One of the top heads of the end by FV score, followed backwards.

    Attributes:
        layer: from 0.
        head: from 0.
        induction_step: first step at which conditions 2 to 4 hold; if none, at which
            it is an induction head; None: at none.
        fv_step: first step at which its FV score is detectable, or None.
        overtaken_step: first step from which on its rank by FV score is the better
            one to the end, or None.
        final_ranks: by FV score and by induction at the last step, from 1.
        stands_out: whether its FV score does at the end: else it is no FV head.
        made: whether it made the transition.
        reason: why not, or "".
    """

    layer: int
    head: int
    induction_step: int | None
    fv_step: int | None
    overtaken_step: int | None
    final_ranks: tuple[int, int]
    stands_out: bool
    made: bool
    reason: str

    @property
    def name(self) -> str:
        """The head as "layer.head"."""
        return head_name(self.layer, self.head)


@dataclasses.dataclass(frozen=True)
class Found:
    """The transitions of a training.

    Attributes:
        definition: by which they were counted.
        followed: the top heads of the end by FV score, best first.
        p_value: by "all heads" and "within layers", one-sided.
        expected: mean number of heads in the permutations, alike.
        permutations: how many.
        sensitivity: count and p-values of other definitions, a row each.
    """

    definition: Definition
    followed: list[Followed]
    p_value: dict[str, float]
    expected: dict[str, float]
    permutations: int
    sensitivity: list[dict[str, Any]]

    @property
    def count(self) -> int:
        """How many heads made the transition."""
        return sum(one.made for one in self.followed)

    @property
    def shown(self) -> int:
        """How many FV heads there are in the end: top ones that stand out."""
        return sum(one.stands_out for one in self.followed)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        followed = [
            dataclasses.asdict(one)
            | {"name": one.name, "final_ranks": list(one.final_ranks)}
            for one in self.followed
        ]
        return dataclasses.asdict(self) | {
            "followed": followed,
            "count": self.count,
            "shown": self.shown,
        }


def find(
    seen: Trajectories,
    definition: Definition | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Found:
    """Find the transitions, count them, and test their number.

    Args:
        seen: the two scores over the steps.
        definition: of a transition.
        permutations: of the heads' induction trajectories.
        seed: of the permutations.

    Returns:
        What was found, with the counts of other definitions beside it.
    """
    definition = definition or Definition()
    others = permuted(seen.induction.shape[1:], permutations, seed)
    p_value, expected = {}, {}
    table = Candidates(seen, definition)
    for name, order in others.items():
        p_value[name], expected[name] = table.test(order)
    rows = []
    for other in neighbours(definition):
        near = Candidates(seen, other)
        row = {
            "early_share": other.early_share,
            "silent": other.silent,
            "overtakes": other.overtakes,
            "count": int(near.own.sum()),
            "of": int(near.shown.sum()),
        }
        p_values = {name: near.test(order)[0] for name, order in others.items()}
        rows.append(row | {"p_value": p_values})
    return Found(
        definition, table.followed(), p_value, expected, permutations, rows
    )  # fmt: skip


def neighbours(definition: Definition) -> list[Definition]:
    """Definitions near one, to see how much depends on its parameters."""
    return [
        dataclasses.replace(
            definition, early_share=share, silent=silent, overtakes=overtakes
        )
        for share in (0.02, 0.05, 0.1)
        for silent, overtakes in (
            (True, True), (True, False), (False, True), (False, False),
        )
    ]  # fmt: skip


def permuted(shape: tuple[int, ...], count: int, seed: int) -> dict[str, np.ndarray]:
    """Orders of the heads: over all of them, and within layers; int [count, L H]."""
    layers, heads = shape
    every = np.tile(np.arange(layers * heads), (count, 1))
    rng = np.random.default_rng([seed, 12])
    inside = rng.permuted(every.reshape(count, layers, heads), axis=2)
    return {
        "all heads": rng.permuted(every, axis=1),
        "within layers": inside.reshape(count, -1),
    }  # fmt: skip


class Candidates:
    """Would an FV head of the end have made the transition with another's induction?

    Args:
        seen: the two scores over the steps.
        definition: of a transition.

    Attributes:
        final: int [C], the top heads of the end by FV score, best first.
        shown: bool [C], which of them stand out there: the others are no FV heads.
        would: bool [C, L H], with the induction trajectory of each head.
    """

    def __init__(self, seen: Trajectories, definition: Definition):
        self._seen, self._definition = seen, definition
        chance, level = seen.induction_chance, definition.level
        self._by_fv, self._by_induction = ranks(seen.fv), ranks(seen.induction)
        total = self._by_fv.shape[1]
        self._fv_shows = seen.shows("function_vector", level)
        early = self._by_induction <= top_count(total, definition.early_share)
        early &= seen.shows("induction", level)
        strong = seen.induction - chance >= definition.least_induction
        self._early = early & strong.reshape(early.shape)
        count = top_count(total, definition.final_share)
        self.final = np.argsort(self._by_fv[-1])[:count]
        self.holds = self._holds(definition)
        # Condition 1 is of the head itself.
        self.shown = self._fv_shows[-1, self.final]
        self.would = self.holds.any(axis=0) & self.shown[:, None]

    def _holds(self, asked: Definition) -> np.ndarray:
        """Conditions 2 to 4 at each earlier step: bool [U - 1, C, L H]."""
        mine = self.final
        holds = self._early[:-1, None, :]
        if asked.silent:
            heard = np.logical_or.accumulate(self._fv_shows[:-1, mine], axis=0)
            holds = holds & ~heard[:, :, None]
        if asked.overtakes:
            holds = holds & (
                self._by_induction[:-1, None, :] < self._by_fv[:-1, mine, None]
            )
            later = self._by_fv[-1, mine, None] < self._by_induction[-1, None, :]
            holds = holds & later[None]
        shape = (len(self._early) - 1, len(mine), self._early.shape[1])
        return np.broadcast_to(holds, shape)

    @property
    def own(self) -> np.ndarray:
        """Which of the FV heads made the transition: bool [C]."""
        return self.would[np.arange(len(self.final)), self.final]

    def counts(self, order: np.ndarray) -> np.ndarray:
        """How many would have, by permutation of the heads' induction: int [R].

        Args:
            order: int [R, L H], see ``permuted``.
        """
        rows = np.arange(len(self.final))
        return self.would[rows, order[:, self.final]].sum(axis=1)

    def test(self, order: np.ndarray) -> tuple[float, float]:
        """P-value of the count, and its mean over the permutations [R, L H]."""
        counts = self.counts(order)
        more = int((counts >= self.own.sum()).sum())
        return (1 + more) / (1 + len(counts)), float(counts.mean())

    def followed(self) -> list[Followed]:
        """Tell the story of each FV head of the end."""
        heads = self._seen.fv.shape[2]
        told = []
        for row, (flat, made) in enumerate(zip(self.final, self.own, strict=True)):
            held = self.holds[:, row, flat]
            step = self._first(held if held.any() else self._early[:, flat])
            ahead = self._by_fv[:, flat] < self._by_induction[:, flat]
            lasting = np.logical_and.accumulate(ahead[::-1])[::-1]
            told.append(
                Followed(
                    layer=int(flat) // heads,
                    head=int(flat) % heads,
                    induction_step=step,
                    fv_step=self._first(self._fv_shows[:, flat]),
                    overtaken_step=self._first(lasting),
                    final_ranks=(
                        int(self._by_fv[-1, flat]),
                        int(self._by_induction[-1, flat]),
                    ),
                    stands_out=bool(self.shown[row]),
                    made=bool(made),
                    reason="" if made else self._reason(flat, held),
                )
            )
        return told

    def _reason(self, flat: int, held: np.ndarray) -> str:
        asked, early = self._definition, self._early[:-1, flat]
        if not self._fv_shows[-1, flat]:
            return "its FV score at the end does not stand out from chance"
        if not early.any():
            return "it was no induction head at any earlier step"
        heard = np.logical_or.accumulate(self._fv_shows[:-1, flat])
        if asked.silent and not (early & ~heard).any():
            return "its FV score stood out no later than its induction score"
        return "its rank by induction was not the better one first and the worse last"

    def _first(self, where: np.ndarray) -> int | None:
        return int(self._seen.steps[where.argmax()]) if where.any() else None
