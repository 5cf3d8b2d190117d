"""Argument 1: induction heads form when in-context learning does.

In every seed the phase changes of the top prefix-matching score, of the ICL score and
of the training loss are dated, and their windows held against each other.

All seeds of a run see the same data in the same order, and may well change at the same
step for a reason that has nothing to do with heads. So the seeds' dates are no
independent coincidences: by chance is what a common shift of all dates of the ICL score
would bring about (``chance_of_dates``).

Source: Olsson et al. 2022, argument 1.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads.statistics.claims import Verdict
from jaxheads.statistics.phase_change import LEAST_CHANGES, PhaseChange, windows_overlap
from jaxheads.statistics.seeds import FEWEST
from jaxheads.studies.six_arguments.curves import BUMP, Curves
from jaxheads.studies.six_arguments.rules import (
    MOST,
    WIDE,
    NotAsked,
    against,
    interval,
    over_runs,
    spelled,
)

HEADS, SCORE = "prefix_matching", "icl_score"
CHANCE = 0.05
"""Chance of dates as near as they are, above which they tell nothing."""


def co_occurrence(curves: Curves) -> dict[str, Any]:
    """Hold the phase changes of one run against each other, ready for JSON.

    Returns:
        "changes": by figure, those of every seed; "overlap": in how many seeds a
        figure's window overlaps that of the heads; "heads": seeds in which heads
        change; "either": in which heads or ICL score do; "extent": of each window of
        heads, its share of the training; "apart": mean distance of the dates of heads
        and ICL score, in evaluations, of seeds that have both, and "chance" of dates as
        near, see ``chance_of_dates``, or None; "formed": share of each seed's last ICL
        score that formed in the window of its heads, or None; "formed_mean": over
        seeds, with an interval of 95 %, or None.
    """
    changes = curves.changes
    heads, score = changes[HEADS].each, changes[SCORE].each
    formed = [
        share_formed(curves.steps, curves.icl_score[:, n], one)
        for n, one in enumerate(heads)
    ]
    dates = [
        (one.step, other.step)
        for one, other in zip(heads, score, strict=True)
        if one.step is not None and other.step is not None
    ]
    apart, chance = (
        chance_of_dates(curves.steps, *np.array(dates).T) if dates else (None, None)
    )
    return {
        "changes": {name: dataclasses.asdict(found) for name, found in changes.items()},
        "overlap": {
            name: sum(map(windows_overlap, heads, changes[name].each))
            for name in (SCORE, BUMP)
        },
        "heads": changes[HEADS].found,
        "extent": extents(curves),
        "either": sum(
            one.step is not None or other.step is not None
            for one, other in zip(heads, score, strict=True)
        ),
        "apart": apart,
        "chance": chance,
        "formed": formed,
        "formed_mean": interval(formed),
    }


def extents(curves: Curves) -> list[float]:
    """Share of the training that each window of heads takes."""
    return [
        (one.end - one.begin) / float(curves.steps[-1])
        for one in curves.changes[HEADS].each
        if one.begin is not None and one.end is not None
    ]


def share_formed(
    steps: np.ndarray, score: np.ndarray, change: PhaseChange
) -> float | None:
    """Share of the last ICL score that formed in a window.

    ``(score(begin) - score(end)) / max(-score(last), 0.2)``: where there is nearly no
    ICL score in the end, as in nats of the least that counts.

    Args:
        steps: [E], of the evaluations.
        score: [E], nats, negative where a model learns in context; evaluations where it
            is NaN are left out.
        change: its window is that of the heads.

    Returns:
        A share, which may be above 1; None: there is no window, or no score.
    """
    there = np.isfinite(score)
    if change.begin is None or change.end is None or not there.any():
        return None
    begin, end = np.interp([change.begin, change.end], steps[there], score[there])
    return float((begin - end) / max(-score[there][-1], LEAST_CHANGES[SCORE]))


def chance_of_dates(
    steps: np.ndarray, heads: np.ndarray, score: np.ndarray
) -> tuple[float, float]:
    """How far apart the dates of two figures are, and the chance of as little.

    With x the places of dates among the evaluations (the e-th is at e) and
    ``d_n = x_n(score) - x_n(heads)``: apart is ``mean |d_n|``. The chance is the share
    of common shifts s of all seeds' dates of the score, as far as they stay among the
    evaluations at which a change can be found, for which ``mean |d_n + s|`` is that, or
    less, or more by no more than half of an evaluation, as dates are no finer.

    Args:
        steps: [E], of the evaluations.
        heads: [N], dates, steps.
        score: [N], of the same seeds.

    Returns:
        apart, in evaluations; and the chance, 0 to 1.
    """
    places = np.arange(len(steps))
    heads, score = (np.interp(dates, steps, places) for dates in (heads, score))
    apart = float(np.abs(score - heads).mean())
    first, last = 1 - score.min(), len(steps) - 2 - score.max()
    shifts = np.linspace(min(first, 0), max(last, 0), 4001)
    shifted = np.abs(score - heads + shifts[:, None]).mean(axis=1)
    return apart, float((shifted <= apart + 0.5).mean())


def of_run(run: dict[str, Any]) -> Verdict:
    """Whether the ICL score forms while heads do in one run, by ``decide``'s rule."""
    if run["heads"] < FEWEST:
        return "undecided" if run["heads"] else "not measured"
    if wide(run["extent"]):
        return "undecided"
    near = run["chance"] is not None and run["chance"] <= CHANCE
    together = run["overlap"][SCORE] >= MOST * run["heads"]
    if against(run["formed"], 0.5) == "holds" and near and together:
        return "holds"
    none = against(run["formed"], 0.25) == "does not hold"
    return "does not hold" if none else "undecided"


def wide(extents: Sequence[float]) -> bool:
    """Whether windows of heads span most of the training, which decides nothing."""
    return float(np.mean(extents)) > WIDE if extents else False


def decide(found: dict[str, Any]) -> tuple[Verdict, str]:
    """Whether most of the ICL score forms while heads do.

    Asked of every run by itself, of its seeds in which the top prefix-matching score
    has a phase change. Holds: in 75 % or more of at least 3 of them the ICL score has
    one, in a window that overlaps; their dates are so near to each other as a common
    shift of all seeds' dates over the training makes them in 5 % of all places at most;
    and the interval of 95 % of the share of the last ICL score that formed in the
    window of the heads, mean over seeds, is above one half. Does not hold: that
    interval is below one quarter. Undecided: else, of fewer than 3 such seeds, and
    where the windows of the heads span more than half of the training. Of several runs,
    what all of 3 such seeds or more say; undecided if they differ.
    """
    runs = list(zip(found["runs"], found["co_occurrence"], strict=True))
    asked = [(about, run) for about, run in runs if run["heads"]]
    if not asked:
        raise NotAsked(f"seeds whose heads have a phase change{too_few(found)}")
    said = " ".join(_said(about, run, of_run(run)) for about, run in asked)
    alone = sum(run["either"] - run["heads"] for _, run in runs)
    if alone:
        said += f" Without heads, the ICL score changes in {alone} further seeds."
    return over_runs([of_run(run) for _, run in asked if run["heads"] >= FEWEST]), said


def too_few(found: dict[str, Any]) -> str:
    """Say of runs in which no head changed that their evaluations were too few."""
    reasons = {
        f"{about['name']}: {one['reason']}"
        for about, run in zip(found["runs"], found["co_occurrence"], strict=True)
        for one in run["changes"][HEADS]["each"]
        if "too few" in one["reason"]
    }
    return f" ({'; '.join(sorted(reasons))})" if reasons else ""


def _said(about: dict[str, Any], run: dict[str, Any], answer: Verdict) -> str:
    text = (
        f"{about['name']}: the ICL score changes in a window that overlaps the heads' "
        f"in {run['overlap'][SCORE]} of {run['heads']} seeds"
    )
    if run["chance"] is not None:
        text += (
            f", {run['apart']:.1f} evaluations away (chance of dates placed anywhere: "
            f"{run['chance']:.2g})"
        )
    text += f", the training loss has its bump there in {run['overlap'][BUMP]}"
    if run["formed_mean"]:
        text += "; share of the last ICL score formed in the window: "
        text += spelled(run["formed_mean"])
    if wide(run["extent"]):
        text += "; the window spans most of the training"
    return f"{text}: {answer}."
