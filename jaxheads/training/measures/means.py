"""Means over the held-out targets or windows that count."""

import numpy as np


def mean_where(
    values: np.ndarray, where: np.ndarray, axis: int | None = None
) -> np.ndarray:
    """Mean over the targets, or windows, that count; NaN where none does.

    Args:
        values: [N, S] or [N, S, T].
        where: bool, without N.
        axis: of ``values`` that the mean is over, 1 for the windows; None: all but N.

    Returns:
        float64 [N], or [N, T].
    """
    axes = tuple(range(1, values.ndim)) if axis is None else (axis,)
    count = where.sum(axis=tuple(a - 1 for a in axes))
    total = np.where(where, values, 0.0).sum(axis=axes)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
