"""Loss by position in the context, and its derivative, over training.

Source: Olsson et al. 2022, the heat map of d loss / d ln(context index).
"""

import itertools

import numpy as np

BINS = 32
"""Most bins of positions, evenly spaced in the logarithm."""


def by_position(losses: np.ndarray, bins: int = BINS) -> dict[str, np.ndarray]:
    """Average the loss over bins of positions, and differentiate it.

    ``d loss / d ln(position)``: between neighbouring bins where they are the first or
    the last, else the slope of the parabola through a bin and its two neighbours.

    Args:
        losses: [..., T], means over windows, nats; NaN where no target is scored.
        bins: most bins.

    Returns:
        "index": the position of each bin, from 1 on, the exponential of the mean of
        ln(position), [P]; "loss" and "derivative", [..., P], nats, and nats per unit of
        ln(position).
    """
    losses = np.asarray(losses, np.float64)
    scored = np.isfinite(losses).reshape(-1, losses.shape[-1]).any(axis=0)
    at = np.flatnonzero(scored)
    logs = np.log(at + 1.0)
    ends = np.unique(np.geomspace(1, len(at) + 1, bins + 1).round().astype(int)) - 1
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    centres = np.array([logs[part].mean() for part in parts])
    kept = losses[..., at]
    means = np.stack([kept[..., part].mean(axis=-1) for part in parts], axis=-1)
    if len(centres) > 1:
        derivative = np.gradient(means, centres, axis=-1)
    else:
        derivative = np.full_like(means, np.nan)
    return {"index": np.exp(centres), "loss": means, "derivative": derivative}
