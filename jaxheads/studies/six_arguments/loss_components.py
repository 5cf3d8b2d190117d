"""Principal components of per-token losses: one plane for all snapshots of all runs."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxheads.errors import UserError
from jaxheads.training.trained import Trained

REACH = 0.2
"""Of a trajectory's extent: how far it must come and go for a turn to count."""


@dataclasses.dataclass(frozen=True, eq=False)
class LossComponents:
    """The plane, and where runs move in it; of R runs.

    Attributes:
        coordinates: R arrays [E, N, 2], nats; NaN of a snapshot without losses.
        pivot: R arrays [N], the step at which the trajectory turns most; NaN: nowhere.
        angle: R arrays [N], by how much it turns there, degrees.
        explained: [2], share of the variance over all snapshots.
        components: [2, S], unit vectors; 0 at targets that are left out.
        mean: [S], nats, of all snapshots.
    """

    coordinates: tuple[np.ndarray, ...]
    pivot: tuple[np.ndarray, ...]
    angle: tuple[np.ndarray, ...]
    explained: np.ndarray
    components: np.ndarray
    mean: np.ndarray


def loss_components(runs: Sequence[Trained]) -> LossComponents:
    """Principal components of the per-token-loss vectors of all runs' evaluations.

    Args:
        runs: of one data set and evidence seed, so that their vectors are of the same
            tokens; with evaluations.

    Raises:
        UserError: runs without evaluations, or of different held-out windows.

    Source: Olsson et al. 2022, per-token-loss analysis.
    """
    losses = [_losses(run) for run in runs]
    told = [_windows_of(run) for run in runs]
    for run, windows in zip(runs[1:], told[1:], strict=True):
        if windows != told[0]:
            raise UserError(
                f"the runs must be measured on the same held-out windows, but "
                f"{runs[0].run.path} and {run.run.path} are not: give runs of one data "
                "set, context length and --evidence-seed"
            )
    components, mean, explained = principal_components(losses)
    places = tuple(_places(one, mean, components) for one in losses)
    turns = [
        [largest_turn(run.eval_steps, place[:, n]) for n in range(place.shape[1])]
        for run, place in zip(runs, places, strict=True)
    ]
    return LossComponents(
        coordinates=places,
        pivot=tuple(np.array([step for step, _ in each]) for each in turns),
        angle=tuple(np.array([angle for _, angle in each]) for each in turns),
        explained=explained,
        components=components,
        mean=mean,
    )


def _places(losses: np.ndarray, mean: np.ndarray, components: np.ndarray):
    """Where snapshots [E, N, S] lie in the plane, [E, N, 2]."""
    there = np.isfinite(losses).any(axis=-1, keepdims=True)
    centred = np.where(np.isfinite(mean) & there, losses - mean, 0.0)
    return np.where(there, centred @ components.T, np.nan)


def _losses(run: Trained) -> np.ndarray:
    losses = run.evaluated("token_losses")
    if losses is None:
        raise UserError(
            f"{run.run.path} must have losses of single tokens, but was trained "
            "without: train with --evidence and --eval-every"
        )
    return np.asarray(losses, np.float64)


def _windows_of(run: Trained) -> tuple:
    """What says which tokens the losses are of."""
    told = run.run.result["model"]["evidence"] or {}
    names = ("sha256", "evidence_seed", "evidence_samples")
    return tuple(told.get(name) for name in names)


def principal_components(
    losses: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first two components of snapshots, stacked; each snapshot counts alike.

    A component points from the mean of the first snapshots to that of the last.

    Args:
        losses: float64 arrays [E, N, S]; a snapshot without any number is left out,
            and then a target that is NaN anywhere.

    Returns:
        Components [2, S], zeros at what is left out (and beyond the rank); mean [S],
        NaN there; share of the variance that each explains [2], 0 where nothing varies.
    """
    stacked = np.concatenate([one.reshape(-1, one.shape[-1]) for one in losses])
    stacked = stacked[np.isfinite(stacked).any(axis=1)]
    counted = np.isfinite(stacked).all(axis=0)
    mean = np.where(counted, np.where(counted, stacked, 0.0).mean(axis=0), np.nan)
    centred = np.where(counted, stacked - np.where(counted, mean, 0.0), 0.0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    found = min(2, len(sizes))
    components, explained = np.zeros((2, stacked.shape[-1])), np.zeros(2)
    components[:found] = directions[:found]
    total = np.square(sizes).sum()
    explained[:found] = np.square(sizes[:found]) / (total if total > 0 else 1.0)
    ways = np.concatenate([one[-1] - one[0] for one in losses])  # of every seed
    ways = ways[np.isfinite(ways).any(axis=1)]
    toward = components @ np.where(counted, ways.sum(axis=0), 0.0)
    return components * np.where(toward < 0, -1, 1)[:, None], mean, explained


def largest_turn(steps: np.ndarray, places: np.ndarray) -> tuple[float, float]:
    """The step at which a trajectory turns most, and by how many degrees.

    The turn at evaluation i is the angle between the way to ``x[i]`` from the last
    point before it that lies r or more away, and the way on to the first point after it
    that does; r is a fifth of the trajectory's extent (its larger range along an axis).
    So neither steps back and forth between neighbours count, nor a model that stands
    still at the end and jitters in all directions; a turn on a plateau does.

    Args:
        steps: int [E].
        places: [E, 2]; those that are NaN are left out.

    Returns:
        The first step of the largest angle, and the angle; NaN and NaN where no point
        has both.
    """
    there = np.isfinite(places).all(axis=1)
    steps, places = np.asarray(steps)[there], places[there]
    if not len(places):
        return np.nan, np.nan
    reach = REACH * np.ptp(places, axis=0).max()
    found, most = np.nan, np.nan
    for i, here in enumerate(places):
        far = np.asarray(np.linalg.norm(places - here, axis=1) >= reach)
        before, after = np.flatnonzero(far[:i]), np.flatnonzero(far[i:])
        if not reach > 0 or not len(before) or not len(after):
            continue
        came, goes = here - places[before[-1]], places[i + after[0]] - here
        sine, cosine = came[0] * goes[1] - came[1] * goes[0], came @ goes
        angle = float(np.degrees(np.abs(np.arctan2(sine, cosine))))
        if np.isnan(most) or angle > most + 1e-6:
            found, most = float(steps[i]), angle
    return found, most
