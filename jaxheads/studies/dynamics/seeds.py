"""Several seeds of one training: which scores come first, and which heads turned.

What one seed of a small model cannot say (the top 2 % of 16 heads is one head), several
can together: their transitions are counted together, and tested against the same counts
with the induction trajectories of each seed's heads permuted (numpy only).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads.studies.dynamics.transitions import (
    PERMUTATIONS,
    Candidates,
    Definition,
    Trajectories,
    permuted,
)

DEFINITIONS = tuple(
    Definition(final_share, early_share, silent=strict, overtakes=strict)
    for final_share, early_share in ((0.02, 0.05), (0.1, 0.1), (0.25, 0.25))
    for strict in (True, False)
)
"""What is counted: the usual definition first. Those that are not strict ask no more
than that an FV head of the end was among the early induction heads before."""


@dataclasses.dataclass(frozen=True)
class Counted:
    """Transitions of all seeds together, by one definition.

    Attributes:
        definition: of a transition.
        each: transitions by seed.
        shown: FV heads of the end whose FV score stands out from chance, by seed.
        of: FV heads of the end, by seed: the top of a share.
        expected: mean of the sum over seeds in the permutations, by "all heads" and
            "within layers".
        p_value: one-sided, of the sum over seeds, alike.
        permutations: how many.
    """

    definition: Definition
    each: list[int]
    shown: list[int]
    of: list[int]
    expected: dict[str, float]
    p_value: dict[str, float]
    permutations: int

    @property
    def count(self) -> int:
        """Over all seeds."""
        return sum(self.each)

    def to_dict(self) -> dict[str, Any]:
        """All fields and the count, ready for JSON."""
        return dataclasses.asdict(self) | {"count": self.count}


def count(
    trainings: Sequence[Trajectories],
    definition: Definition | None = None,
    permutations: int = PERMUTATIONS,
) -> Counted:
    """Count the transitions of several seeds, and test their sum.

    The p-value is (1 + R') / (1 + R): R' of the R permutations, each of the heads of
    every seed on its own, have at least as large a sum.

    Args:
        trainings: the scores over the steps, of each seed.
        definition: of a transition.
        permutations: R.
    """
    definition = definition or Definition()
    tables = [Candidates(seen, definition) for seen in trainings]
    sums: dict[str, np.ndarray] = {}
    for number, (seen, table) in enumerate(zip(trainings, tables, strict=True)):
        orders = permuted(seen.induction.shape[1:], permutations, number)
        for name, order in orders.items():
            sums[name] = sums.get(name, 0) + table.counts(order)
    each = [int(table.own.sum()) for table in tables]
    return Counted(
        definition=definition,
        each=each,
        shown=[int(table.shown.sum()) for table in tables],
        of=[len(table.final) for table in tables],
        expected={name: float(drawn.mean()) for name, drawn in sums.items()},
        p_value={
            name: float((1 + (drawn >= sum(each)).sum()) / (1 + permutations))
            for name, drawn in sums.items()
        },
        permutations=permutations,
    )


def order(emergences: Sequence[dict[str, Any]], reference: str) -> dict[str, int]:
    """In how many seeds which kind emerged first.

    Args:
        emergences: of each seed, as ``Emergence.to_dict`` tells them.
        reference: "final" or "largest", what half is taken of.

    Returns:
        Seeds by "induction", "fv", "same" (both between the same two checkpoints) and
        "undated" (one of the two emerged at no step).
    """
    found = {"induction": 0, "same": 0, "fv": 0, "undated": 0}
    for told in emergences:
        dates = [told[kind][reference]["step"] for kind in ("induction", "fv")]
        if None in dates:
            found["undated"] += 1
        elif dates[0] == dates[1]:
            found["same"] += 1
        else:
            found["induction" if dates[0] < dates[1] else "fv"] += 1
    return found
