"""P values of several tests, adjusted for their number; nan: a test not made."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p values so that the chance of any false finding stays at the level.

    Of m tests with p(1) <= ... <= p(m): adjusted p(i) = max over j <= i of
    (m - j + 1) p(j), at most 1. Valid whatever the tests' dependence.

    Args:
        p_values: [M]; nan counts for no test and stays nan.

    Returns:
        Adjusted p values [M], in the given order.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    return _adjusted(
        p_values, lambda p: np.maximum.accumulate(p * np.arange(len(p), 0, -1))
    )


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p values so that the expected share of false findings stays at the level.

    Of m tests with p(1) <= ... <= p(m): adjusted p(i) = min over j >= i of m p(j) / j,
    at most 1. For tests that are independent or positively dependent.

    Args:
        p_values: [M]; nan counts for no test and stays nan.

    Returns:
        Adjusted p values [M], in the given order.

    Source: Benjamini & Hochberg 1995, Controlling the false discovery rate.
    """

    def step_up(p: np.ndarray) -> np.ndarray:
        scaled = p * len(p) / np.arange(1, len(p) + 1)
        return np.minimum.accumulate(scaled[::-1])[::-1]

    return _adjusted(p_values, step_up)


def _adjusted(p_values: Sequence[float] | np.ndarray, rule) -> np.ndarray:
    """Apply a rule of sorted p values, at most 1, and put them back in order."""
    p_values = np.asarray(p_values, np.float64)
    made = np.flatnonzero(~np.isnan(p_values))
    order = made[np.argsort(p_values[made], kind="stable")]
    adjusted = np.full(p_values.shape, np.nan)
    if order.size:
        adjusted[order] = np.minimum(rule(p_values[order]), 1.0)
    return adjusted
