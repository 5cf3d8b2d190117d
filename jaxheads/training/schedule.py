"""At which steps a training run keeps its model: fixed steps, and dense stretches."""

from collections.abc import Iterable

import numpy as np

from jaxheads.errors import UserError, check_counts


def fixed_steps(given: Iterable[str], steps: int) -> tuple[int, ...]:
    """The steps that are known before the run.

    Args:
        given: "powers": 1, 2, 4, ...; "every=100"; or step numbers.
        steps: of the run; its first (0: before any update) and its last always count,
            and what lies beyond is left out.

    Returns:
        Steps, in order.

    Raises:
        UserError: one of the given cannot be read, or makes too many.
    """
    chosen = {0, steps}
    for word in given:
        every = word.removeprefix("every=")
        if word == "powers":
            chosen |= {2**i for i in range(steps.bit_length())}
        elif every.isdecimal() and word != every and int(every):
            check_counts((f"checkpoints of {word}", steps // int(every), 0))
            chosen |= set(range(0, steps, int(every)))
        elif word.isdecimal():
            chosen.add(int(word))
        else:
            raise UserError(
                f"--checkpoints takes powers, every=100, or step numbers, not {word!r}"
            )
    return tuple(sorted(step for step in chosen if step <= steps))


def loss_moves(losses: np.ndarray, window: int, change: float) -> bool:
    """Whether the loss moves fast: its mean over two successive windows of steps.

    Args:
        losses: [steps so far, N]; the last ``2 * window`` decide.
        window: steps.
        change: in nats, in any of the N runs.
    """
    if len(losses) < 2 * window:
        return False
    before = losses[-2 * window : -window].mean(axis=0)
    return bool((np.abs(losses[-window:].mean(axis=0) - before) >= change).any())


def evidence_moves(records: np.ndarray, change: float) -> bool:
    """Whether an evidence, in any of its entries, moved at its last evaluation.

    Args:
        records: [evaluations so far, ...].
        change: in its own unit.
    """
    if len(records) < 2:
        return False
    return bool((np.abs(records[-1] - records[-2]) >= change).any())
