"""When in training a figure jumps: a date, a window, and how sure both are.

A curve over steps is fitted, by least squares, with a level, a straight rise and
another level::

    f(t) = low                                                 t <= begin
           low + (high - low) (t - begin) / (end - begin)      between
           high                                                t >= end

``begin`` and ``end`` are evaluations, with two or more on either level; neighbours are
a jump, the sharpest rise that can be seen. The fit gives the levels, and its middle is
the change point. The date is read off the curve itself: where it passes half of the
rise, between two evaluations by a straight line. Before that each value is replaced by
the median of it and its neighbours, so that a single wild one does not count.

Nothing is found where the rise is smaller than ``least``, or not significant: a curve
that is level but for independent noise passes for a rise in less than 1 of 100 cases. A
slow, even rise over all of training is found, too; its window says so.

Source: Olsson et al. 2022, arguments 1 and 2, whose windows are read off by eye; the
fit and the intervals are this project's own.
"""

import dataclasses
import math
from statistics import NormalDist
from typing import Any

import numpy as np

from jaxheads.errors import UserError
from jaxheads.runs import Run
from jaxheads.statistics import seeds

LEAST = 0.1
"""Rise below which nothing is found: a share of attention, or nats."""

FEWEST = 6
"""Evaluations from which on a jump can be seen: two on either level, two between."""

_LEVEL = 0.95
_MOST = 200  # evaluations at which a rise may begin or end; more are thinned out
_PENALTY = 5.0  # times log E, what the likelihood must gain; see ``_Fits.significant``


@dataclasses.dataclass(frozen=True)
class PhaseChange:
    """A jump of a curve.

    Attributes:
        step: at which half of the rise is passed; None: nothing was found.
        begin: start of the window: the last step before, with at most 10 % of the rise.
        end: its end: the first step after, with 90 % or more.
        spacing: between the evaluations around the date, steps.
        change_point: the middle of the fitted rise, a step.
        low: of the change point's interval, a step.
        high: of the same.
        level_before: of the curve, fitted.
        level_after: of the curve, fitted.
        reason: why nothing was found, or "".
    """

    step: float | None = None
    begin: float | None = None
    end: float | None = None
    spacing: float = 0.0
    change_point: float | None = None
    low: float | None = None
    high: float | None = None
    level_before: float | None = None
    level_after: float | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class PhaseChanges:
    """The jumps of the same curve of several seeds.

    Attributes:
        each: of every seed.
        found: in how many of them there is one.
        step: mean date of those; None: there is none.
        low: of its interval over seeds; None where it is unbounded.
        high: of the same.
    """

    each: tuple[PhaseChange, ...]
    found: int
    step: float | None
    low: float | None
    high: float | None


def find_phase_change(
    steps: np.ndarray, curve: np.ndarray, *, least: float = LEAST, falls: bool = False
) -> PhaseChange:
    """Date the jump of one curve.

    The interval of the change point holds the middles of all rises that fit nearly as
    well: ``E log(SSE / least SSE) <= z^2`` for E evaluations, z the normal quantile of
    a level of 95 %. A middle is the mean of two evaluations' steps, so that half of the
    spacing of evaluations there is added on either side: where between two evaluations
    a curve bends it does not tell. The interval takes the scatter around the fit for
    independent noise, and a curve's own bends for scatter.

    Args:
        steps: [E], rising.
        curve: [E], such as the top prefix-matching score; NaN: not measured there.
        least: rise below which nothing is found, in the curve's unit.
        falls: whether a fall is looked for, as of the ICL score of Olsson et al.

    Raises:
        UserError: steps that do not rise, or are not as many as the curve's values.
    """
    steps, curve = np.asarray(steps, float), np.asarray(curve, float)
    if steps.ndim != 1 or steps.shape != curve.shape or (np.diff(steps) <= 0).any():
        raise UserError(
            f"a curve needs a value for each of the rising steps, but has shape "
            f"{curve.shape} and steps {steps.shape}: give both of one run, in order"
        )
    known = np.isfinite(curve)
    steps, curve = steps[known], curve[known]
    if len(steps) < FEWEST:
        count = (
            "1 evaluation is" if len(steps) == 1 else f"{len(steps)} evaluations are"
        )
        return PhaseChange(reason=f"{count} too few, {FEWEST} are needed")
    sign = -1.0 if falls else 1.0
    found = _Fits(steps, sign * curve)
    kind = "fall" if falls else "rise"
    if not np.isfinite(found.errors).any():
        return PhaseChange(reason=f"there is no {kind}")
    best = int(found.errors.argmin())
    before, rise = found.before[best], found.rises[best]
    levels: dict[str, Any] = {
        "level_before": float(sign * before),
        "level_after": float(sign * (before + rise)),
    }
    if rise < least:
        reason = f"the {kind} is {rise:.3g}, below {least:.3g}"
        return PhaseChange(reason=reason, **levels)
    if not found.significant():
        reason = f"the {kind} of {rise:.3g} does not stand out from the noise"
        return PhaseChange(reason=reason, **levels)
    first, last = found.begins[best], found.ends[best]
    low, high = found.interval()
    date, begin, end = _passes(
        steps, (_smooth(sign * curve) - before) / rise, first, last
    )
    at = int(np.clip(np.searchsorted(steps, date), 1, len(steps) - 1))
    return PhaseChange(
        step=date,
        begin=begin,
        end=end,
        spacing=float(steps[at] - steps[at - 1]),
        change_point=float((steps[first] + steps[last]) / 2),
        low=low,
        high=high,
        **levels,
    )


def find_phase_changes(
    steps: np.ndarray, curves: np.ndarray, *, least: float = LEAST, falls: bool = False
) -> PhaseChanges:
    """Date the jump of a curve in every seed.

    Args:
        steps: [E], rising.
        curves: [N, E], of N seeds.
        least: see ``find_phase_change``.
        falls: see ``find_phase_change``.
    """
    return over_seeds(
        tuple(find_phase_change(steps, one, least=least, falls=falls) for one in curves)
    )


def over_seeds(each: tuple[PhaseChange, ...]) -> PhaseChanges:
    """The mean date of the jumps of several seeds, with its interval over seeds.

    The interval is Student's t. All seeds share a grid of evaluations, which a date
    cannot be finer than: half of the spacing is added on either side.

    Args:
        each: of every seed.
    """
    dated = [one for one in each if one.step is not None]
    made = seeds.over_seeds([one.step for one in dated]).interval()
    low = high = None
    if math.isfinite(made.low):
        half = float(np.mean([one.spacing for one in dated])) / 2
        low, high = made.low - half, made.high + half
    return PhaseChanges(each, len(dated), made.mean if dated else None, low, high)


def windows_overlap(one: PhaseChange, other: PhaseChange) -> bool:
    """Whether two figures of a run jump at the same time; False if one does not."""
    if one.begin is None or one.end is None or other.begin is None or other.end is None:
        return False
    return one.begin <= other.end and other.begin <= one.end


class _Fits:
    """All rises that a curve may have, each fitted by least squares.

    Attributes:
        begins: int [P], index of the evaluation at which the rise begins.
        ends: int [P], at which it ends.
        before: [P], level before.
        rises: [P], by how much the level after is higher.
        errors: [P], sums of squared errors; infinite for what falls.
    """

    def __init__(self, steps: np.ndarray, curve: np.ndarray):
        self._steps, count = steps, len(steps)
        knots = np.arange(1, count - 1)
        if len(knots) > _MOST:
            knots = knots[np.linspace(0, len(knots) - 1, _MOST).round().astype(int)]
        pairs = [(begin, knots[knots > begin]) for begin in knots[:-1]]
        fitted = [self._fit(curve, begin, ends) for begin, ends in pairs]
        self.begins = np.concatenate([np.full(len(ends), b) for b, ends in pairs])
        self.ends = np.concatenate([ends for _, ends in pairs])
        self.before, self.rises, self.errors = np.concatenate(fitted, axis=1)
        # Of curves without noise only rounding is left, and no logarithm of it.
        rounding = 1e-12 * count * (np.ptp(curve) + 1e-300) ** 2
        self.errors = self.errors + rounding
        self._level = float(((curve - curve.mean()) ** 2).sum()) + rounding
        self._count = count

    def _fit(self, curve: np.ndarray, begin: int, ends: np.ndarray) -> np.ndarray:
        """Levels before, rises and errors [3, ends] of the rises that begin there."""
        steps = self._steps
        width = (steps[ends] - steps[begin])[:, None]
        ramp = np.clip((steps - steps[begin]) / width, 0, 1)  # [ends, E]
        ramp_mean = ramp.mean(axis=1)
        centred = ramp - ramp_mean[:, None]
        rise = centred @ curve / (centred**2).sum(axis=1)
        before = curve.mean() - rise * ramp_mean
        errors = ((curve - before[:, None] - rise[:, None] * ramp) ** 2).sum(axis=1)
        return np.stack([before, rise, np.where(rise > 0, errors, np.inf)])

    def significant(self) -> bool:
        """Whether the best fit gains enough on a level line."""
        gain = self._count * math.log(self._level / self.errors.min())
        return gain > _PENALTY * math.log(self._count)

    def interval(self) -> tuple[float, float]:
        """Steps between which the middles of all good fits lie, and half a spacing."""
        z = NormalDist().inv_cdf((1 + _LEVEL) / 2)
        good = self._count * np.log(self.errors / self.errors.min()) <= z**2
        begin, end = self._steps[self.begins[good]], self._steps[self.ends[good]]
        middles = (begin + end) / 2
        half = np.interp(middles, self._steps, np.gradient(self._steps)) / 2
        return float((middles - half).min()), float((middles + half).max())


def _smooth(curve: np.ndarray) -> np.ndarray:
    """Each value's median with its neighbours; the ends stay."""
    inner = np.median([curve[:-2], curve[1:-1], curve[2:]], axis=0)
    return np.concatenate([curve[:1], inner, curve[-1:]])


def _passes(
    steps: np.ndarray, share: np.ndarray, first: int, last: int
) -> tuple[float, float, float]:
    """Where half of the rise is passed, and the window from 10 to 90 % around it.

    Args:
        steps: [E].
        share: [E], of the rise.
        first: index at which the fitted rise begins.
        last: at which it ends.
    """
    # Not before the rise, where noise alone may pass half.
    passed = first + np.flatnonzero(share[first:] >= 0.5)
    at = int(passed[0]) if len(passed) else last
    date = float(steps[at])
    if at > first:
        part = (0.5 - share[at - 1]) / (share[at] - share[at - 1])
        date = float(steps[at - 1] + min(part, 1.0) * (steps[at] - steps[at - 1]))
    little = np.flatnonzero(share[:at] <= 0.1)
    much = at + np.flatnonzero(share[at:] >= 0.9)
    begin = steps[little[-1]] if len(little) else steps[0]
    end = steps[much[0]] if len(much) else steps[-1]
    return date, float(begin), float(end)


LEAST_CHANGES = {"prefix_matching": 0.2, "icl_score": 0.2}
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
        name: of the figure, a key of ``LEAST_CHANGES``.
        curves: [E, N], of the top head or of the whole model.
    """
    return find_phase_changes(
        steps,
        np.asarray(curves, float).T,
        least=LEAST_CHANGES[name],
        falls=name in FALLS,
    )


def of_run(run: Run) -> dict[str, tuple[PhaseChange, ...]]:
    """The jumps of all dated figures that a training measured, of every seed."""
    found = {}
    for name in LEAST_CHANGES:
        values = run.arrays.get(f"evaluation/{name}")
        if values is None:
            continue
        curves = top_head(values) if values.ndim == 4 else np.asarray(values, float)
        if curves.ndim == 2 and np.isfinite(curves).any():
            found[name] = dated(run.arrays["evaluation/step"], name, curves).each
    return found
