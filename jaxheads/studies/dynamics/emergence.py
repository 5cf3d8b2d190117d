"""When in training a kind of head emerges, and which of two kinds comes first.

The curve of a score is the mean over the top 2 % of heads, chosen anew at each step. It
emerges at the first step at which the curve has passed half of the way from chance to
its last value, or to its largest, and a head stands out from chance: the top of noise
is above 0, too. Of all heads at all steps, any one stands out in 5 % of cases at most
if there is none. Nothing has emerged where no head stands out at the last step (of the
largest value), nor where the curve of induction scores ends less than 0.1 above chance.

Intervals: resamples of the curves, as far as a run's arrays allow. FV scores: tasks are
drawn with replacement, the same for all steps (of one task: as for induction).
Induction scores: normal draws with each head's standard error over sequences,
independent over steps. The top heads are chosen anew in every resample. A score may
have emerged before a head stood out, where half was passed already: so the interval of
a date begins with the passing of half, whatever stands out, and one score is first in a
resample if it has emerged, head and all, before the other one passed half.

Source of the curves: Yin & Steinhardt 2025, section 5; the dates are this project's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from jaxheads.heads.run_scores import top_count
from jaxheads.statistics import LEVEL, SAMPLES, Interval
from jaxheads.studies.dynamics.transitions import LEAST, Trajectories

SHARE = 0.02
REFERENCES = ("final", "largest")
Reference = Literal["final", "largest"]


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Means of a score over sets of heads, at each step: three of [U] each.

    Attributes:
        top: over the top 2 % of heads of that step.
        final: over the top 2 % of heads of the last step.
        every: over all heads.
        top_samples: resamples of ``top``, [R, U].
    """

    top: Interval
    final: Interval
    every: Interval
    top_samples: np.ndarray


@dataclasses.dataclass(frozen=True)
class Date:
    """When a score emerged.

    Attributes:
        step: the first at which the curve has passed half and a head stands out; None:
            nothing emerged.
        before: the step before it; it emerged between the two. None: there is none.
        low: of the interval, a step.
        high: of the interval, a step.
        after: the step before ``low``, or ``low`` where there is none: it emerged
            between this one and ``high``.
        reason: why there is no date, or "".
    """

    step: int | None
    before: int | None = None
    low: int | None = None
    high: int | None = None
    after: int | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Emergence:
    """When induction and FV scores emerged.

    Attributes:
        induction: the date, by what half is taken of.
        fv: alike.
        first: shares of the resamples in which induction, neither for sure, or FV was
            first, by what half is taken of; None where one of them did not emerge.
        samples: resamples.
        fv_tasks: tasks that were drawn from.
    """

    induction: dict[str, Date]
    fv: dict[str, Date]
    first: dict[str, dict[str, float] | None]
    samples: int
    fv_tasks: int


def curves(
    seen: Trajectories, samples: int = SAMPLES, seed: int = 0
) -> dict[str, Curve]:
    """The curves of both scores: "induction" and "function_vector".

    Args:
        seen: the two scores over the steps.
        samples: resamples, R.
        seed: of the resampling.
    """
    rng = np.random.default_rng([seed, 13])
    tasks = seen.fv_effects.shape[1]
    drawn = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=samples) / tasks

    def of_tasks(step: int) -> np.ndarray:
        return drawn @ seen.fv_effects[step].reshape(tasks, -1)

    def of_errors(scores: np.ndarray, errors: np.ndarray):
        def draw(step: int) -> np.ndarray:
            mean, error = scores[step].ravel(), np.nan_to_num(errors[step].ravel())
            return mean + error * rng.normal(size=(samples, mean.size))

        return draw

    noisy = of_errors(seen.induction, seen.induction_se)
    fv = of_tasks if tasks > 1 else of_errors(seen.fv, seen.fv_se)
    return {
        "induction": _curve(seen.induction, noisy),
        "function_vector": _curve(seen.fv, fv),
    }


def _curve(scores: np.ndarray, resample) -> Curve:
    """Curves of scores [U, L, H] with resamples (step -> [R, L H])."""
    flat = scores.reshape(len(scores), -1)
    count = top_count(flat.shape[1], SHARE)
    last = np.argsort(-flat[-1], kind="stable")[:count]
    drawn = []
    for step in range(len(flat)):
        made = resample(step)
        drawn.append(
            [_top_mean(made, count), made[:, last].mean(axis=1), made.mean(axis=1)]
        )
    top, final, every = np.moveaxis(np.array(drawn), 1, 0).swapaxes(1, 2)  # [R, U]
    return Curve(
        _interval(_top_mean(flat, count), top),
        _interval(flat[:, last].mean(axis=1), final),
        _interval(flat.mean(axis=1), every),
        top,
    )


def _top_mean(scores: np.ndarray, count: int) -> np.ndarray:
    """Mean of the largest scores of each row: [N, L H] -> [N]."""
    place = scores.shape[1] - count
    return np.partition(scores, place, axis=1)[:, place:].mean(axis=1)


def _interval(mean: np.ndarray, samples: np.ndarray) -> Interval:
    tail = 50 * (1 - LEVEL)
    return Interval(mean, *np.percentile(samples, [tail, 100 - tail], axis=0))


def find(seen: Trajectories, made: Mapping[str, Curve] | None = None) -> Emergence:
    """Date both scores.

    Args:
        seen: the two scores over the steps.
        made: their curves, if they are there already.
    """
    made = made or curves(seen)
    level = 0.05 / len(seen.steps)  # each step is one more chance for noise
    shows: dict[str, np.ndarray] = {
        name: np.any(seen.shows(name, level), axis=1)  # [U]
        for name in made
    }
    chance = {"induction": seen.induction_chance, "function_vector": 0.0}
    dates: dict[str, dict[str, Date]] = {name: {} for name in made}
    first: dict[str, dict[str, float] | None] = {}
    for reference in REFERENCES:
        places = {}
        for name, curve in made.items():
            at = -1 if reference == "final" else int(np.argmax(curve.top.mean))
            if not shows[name][at]:
                which = "last" if reference == "final" else "one with its largest mean"
                reason = (
                    f"no head stands out from chance at step {seen.steps[at]}, the "
                    f"{which}"
                )
                dates[name][reference] = Date(None, reason=reason)
                continue
            if (risen := curve.top.mean[at] - chance[name]) < LEAST[name]:
                reason = (
                    f"its mean at step {seen.steps[at]} is {risen:.2g} above chance, "
                    f"less than {LEAST[name]:g}"
                )
                dates[name][reference] = Date(None, reason=reason)
                continue
            passed = half(curve.top_samples, chance[name], reference)
            places[name] = (passed, _shown(passed, shows[name], at))
            own = half(curve.top.mean[None], chance[name], reference)
            place = int(_shown(own, shows[name], at)[0])
            dates[name][reference] = _date(seen.steps, place, *places[name])
        first[reference] = _first(**places) if len(places) == 2 else None
    return Emergence(
        dates["induction"],
        dates["function_vector"],
        first,
        len(made["induction"].top_samples),
        seen.fv_effects.shape[1],
    )


def half(curves: np.ndarray, chance: float, reference: Reference) -> np.ndarray:
    """Where curves first pass half of the way from chance: [R, U] -> int [R].

    Args:
        curves: each over the steps, in order.
        chance: where the way begins.
        reference: where it ends: at the "final" value, or at the "largest".
    """
    end = curves[:, -1] if reference == "final" else curves.max(axis=1)
    return np.argmax(curves >= chance + (end - chance)[:, None] / 2, axis=1)


def _shown(places: np.ndarray, shows: np.ndarray, last: int) -> np.ndarray:
    """The first place from each one on where a head stands out: int [R].

    Args:
        places: int [R].
        shows: bool [U], whether a head stands out at a step.
        last: a place where one does, for places behind all of those.
    """
    steps = np.arange(len(shows))
    later = (steps >= places[:, None]) & shows
    return np.where(later.any(axis=1), later.argmax(axis=1), last % len(shows))


def _date(steps: np.ndarray, place: int, passed: np.ndarray, shown: np.ndarray) -> Date:
    tail = 50 * (1 - LEVEL)
    low = min(int(np.percentile(passed, tail, method="nearest")), place)
    high = max(int(np.percentile(shown, 100 - tail, method="nearest")), place)
    return Date(
        step=int(steps[place]),
        before=int(steps[place - 1]) if place else None,
        low=int(steps[low]),
        high=int(steps[high]),
        after=int(steps[max(low - 1, 0)]),
    )


def _first(
    induction: tuple[np.ndarray, np.ndarray], function_vector: tuple
) -> dict[str, float]:
    """Shares of who is first; each given as where half is passed, and a head shows."""
    earlier = float((induction[1] < function_vector[0]).mean())
    later = float((function_vector[1] < induction[0]).mean())
    return {"induction": earlier, "neither": 1 - earlier - later, "fv": later}
