"""Which figures of a training are dated, and from which rise on: one place for all."""

import numpy as np

from jaxheads.runs import Run
from jaxheads.training.phase_change import (
    PhaseChange,
    PhaseChanges,
    find_phase_changes,
)

LEAST = {"prefix_matching": 0.2, "icl_score": 0.2}
"""Rises below these are no phase change: share of attention, nats."""

FALLS = ("icl_score",)
"""Figures that fall when something is learned."""


def top_head(values: np.ndarray) -> np.ndarray:
    """The largest of all heads, [..., L, H] to [...]."""
    return np.asarray(values, float).max(axis=(-2, -1))


def dated(steps: np.ndarray, name: str, curves: np.ndarray) -> PhaseChanges:
    """Date the jump of a figure in every seed.

    Args:
        steps: [E], of the evaluations.
        name: of the figure, a key of ``LEAST``.
        curves: [E, N], of the top head or of the whole model.
    """
    return find_phase_changes(
        steps, np.asarray(curves, float).T, least=LEAST[name], falls=name in FALLS
    )


def of_run(run: Run) -> dict[str, tuple[PhaseChange, ...]]:
    """The jumps of all dated figures that a training measured, of every seed."""
    found = {}
    for name in LEAST:
        values = run.arrays.get(f"evaluation/{name}")
        if values is None:
            continue
        curves = top_head(values) if values.ndim == 4 else np.asarray(values, float)
        if curves.ndim == 2 and np.isfinite(curves).any():
            found[name] = dated(run.arrays["evaluation/step"], name, curves).each
    return found
