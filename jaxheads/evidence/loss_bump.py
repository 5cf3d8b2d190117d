"""The bump in the training loss: the last time that its fall speeds up and slows down.

The loss is averaged over blocks of steps whose ends lie evenly in the logarithm, and
its fall is read off in nats per unit of ln(step)::

    rate_b = - d (mean loss of block b) / d ln(step)

While nothing new is learned the rate falls or stays. A bump is a peak of it: its
prominence, the height above the higher one of the two lowest rates that part it from
higher peaks, or from the ends, is large enough and no noise. Of several peaks the last
is taken, so that the initial fall, to what single tokens tell, is one only where
nothing is learned later; a rise that lasts to the end, as where the learning rate
decays, is none.

Source: Olsson et al. 2022, argument 1, where the bump is seen by eye; the definition is
this project's own.
"""

import itertools

import numpy as np

from jaxheads.training.phase_change import PhaseChange

LEAST = 0.1
"""Prominence below which there is no bump: nats per unit of ln(step)."""

_BLOCKS, _FEWEST = 30, 6
_ERRORS = 4.0  # standard errors that the prominence must have; there are many peaks


def loss_blocks(
    losses: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Average a loss over blocks that lie evenly in ln(step).

    Args:
        losses: [S, N], of steps 1 to S.

    Returns:
        Ends of the blocks, steps, int [B + 1]: block b holds the steps after its own
        and up to the next; means of ln(step) [B]; mean losses [B, N]; squared standard
        errors [B, N], of noise that is independent from step to step.
    """
    ends = np.geomspace(1, len(losses), _BLOCKS + 1).round().astype(int)
    ends = np.unique(np.concatenate([[0], ends]))
    steps = np.log(np.arange(1, len(losses) + 1))
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    centres = np.array([steps[part].mean() for part in parts])
    means = np.stack([losses[part].mean(axis=0) for part in parts])
    counts = np.diff(ends)[:, None]
    # Neighbours differ by noise twice, and hardly by the trend.
    jumps = np.stack([_jumps(losses, part) for part in parts])
    return ends, centres, means, jumps / 2 / counts


def find_bumps(losses: np.ndarray) -> tuple[PhaseChange, ...]:
    """Date the bump of every seed's training loss.

    Args:
        losses: [S, N], of steps 1 to S, nats.

    Returns:
        Of each seed the step of the fastest fall, and as its window the blocks around
        it in which the rate is in the upper half of its prominence.
    """
    losses = np.asarray(losses, np.float64)
    ends, centres, means, variances = loss_blocks(losses)
    if len(centres) < _FEWEST:
        few = PhaseChange(
            reason=f"{len(centres)} blocks of steps are too few, {_FEWEST} are needed"
        )
        return (few,) * len(losses[0])
    rates = -np.gradient(means, centres, axis=0)
    width = (centres[2:] - centres[:-2])[:, None]
    errors = np.sqrt(variances[2:] + variances[:-2]) / width  # of the inner blocks
    errors = np.pad(errors, [(1, 1), (0, 0)])
    seeds = zip(rates.T, errors.T, strict=True)
    return tuple(_bump(ends, centres, rate, error) for rate, error in seeds)


def prominence(rates: np.ndarray, at: int) -> float:
    """Height of a peak above the higher of the lowest places on its two sides.

    Args:
        rates: [B].
        at: index of the peak; each side reaches to the next higher value, or the end.
    """
    floors = []
    for side in (rates[:at][::-1], rates[at + 1 :]):
        higher = np.flatnonzero(side > rates[at])
        near = side[: higher[0]] if len(higher) else side
        floors.append(near.min(initial=rates[at]))
    return float(rates[at] - max(floors))


def _jumps(losses: np.ndarray, part: slice) -> np.ndarray:
    """Mean squared differences of neighbours, with one neighbour on either side."""
    around = losses[max(part.start - 1, 0) : part.stop + 1]
    return (np.diff(around, axis=0) ** 2).mean(axis=0)


def _bump(
    ends: np.ndarray, centres: np.ndarray, rates: np.ndarray, errors: np.ndarray
) -> PhaseChange:
    if not np.isfinite(rates).all():
        return PhaseChange(reason="some training losses are not finite")
    heights = np.array([prominence(rates, at) for at in range(len(rates))])
    largest = float(heights.max())
    if largest < LEAST:
        return PhaseChange(
            reason=f"the fall speeds up by {largest:.3g}, below {LEAST:.3g}"
        )
    peaks = np.flatnonzero((heights >= LEAST) & (heights > _ERRORS * errors))
    if not len(peaks):
        return PhaseChange(
            reason=f"a bump of {largest:.3g} does not stand out from the noise"
        )
    peak = int(peaks[-1])
    low = np.flatnonzero(rates < rates[peak] - heights[peak] / 2)
    first = low[low < peak].max(initial=-1) + 1
    last = low[low > peak].min(initial=len(rates)) - 1
    return PhaseChange(
        step=float(np.exp(centres[peak])),
        begin=float(ends[first]),
        end=float(ends[last + 1]),
    )
