"""At which steps models are run again: where heads change, and evenly besides."""

import numpy as np

from jaxheads.errors import UserError
from jaxheads.evidence.co_occurrence import HEADS
from jaxheads.evidence.config import MOST_STEPS
from jaxheads.evidence.curves import Curves
from jaxheads.training.phase_change import PhaseChange


def choose_steps(
    there: tuple[int, ...], curves: Curves, asked: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Steps of one run at which every head is ablated, rising.

    Args:
        there: steps whose models are there, rising.
        curves: of the run.
        asked: steps by name; none: all that are there, or 12 of them, among which are
            the first, the last, and those around the windows of all seeds' heads.

    Raises:
        UserError: a step's models are not there.
    """
    absent = sorted(set(asked) - set(there))
    if absent or not there:
        named = ", ".join(map(str, there[:20])) or "none"
        raise UserError(
            f"{curves.about['path']} must have models of every step of "
            f"--attribution-steps, but has those of {named} and not of "
            f"{', '.join(map(str, absent)) or 'any'}: name others, or train with "
            "--checkpoints"
        )
    if asked:
        return tuple(sorted(set(asked)))
    if len(there) <= MOST_STEPS:
        return there
    kept = {there[0], there[-1]}
    for one in curves.changes[HEADS].each:
        kept |= set(around(there, one) or ())
    if len(kept) > MOST_STEPS:  # many seeds, each with a window of its own
        inner = sorted(kept)
        kept = {inner[0], inner[1], inner[-2], inner[-1]}
    places = np.linspace(0, len(there) - 1, MOST_STEPS - len(kept) + 2)[1:-1]
    return tuple(sorted(kept | {there[int(place)] for place in places.round()}))


def around(there: tuple[int, ...], change: PhaseChange) -> tuple[int, int] | None:
    """The last step not after a window's begin, and the first not before its end.

    Args:
        there: steps, rising.
        change: the window; None of it: None.
    """
    if change.begin is None or change.end is None:
        return None
    before = [step for step in there if step <= change.begin]
    after = [step for step in there if step >= change.end]
    return (before[-1], after[0]) if before and after else None
