"""Argument 1: induction heads form when in-context learning does.

In every seed the phase changes of the top prefix-matching score, of the ICL score and
of the training loss are dated, and their windows held against each other.

Source: Olsson et al. 2022, argument 1.
"""

from typing import Any

import numpy as np

from jaxheads.evidence.curves import BUMP, Curves
from jaxheads.evidence.phase_changes import LEAST
from jaxheads.evidence.rules import (
    FEW,
    FEWEST,
    MOST,
    Answer,
    NotAsked,
    against,
    interval,
    spelled,
)
from jaxheads.training.phase_change import PhaseChange, windows_overlap

HEADS, SCORE = "prefix_matching", "icl_score"


def co_occurrence(curves: Curves, seed: int) -> dict[str, Any]:
    """Hold the phase changes of one run against each other, ready for JSON.

    Args:
        curves: of the run.
        seed: of the resampling of seeds.

    Returns:
        "changes": by figure, those of every seed; "overlap": in how many seeds a
        figure's window overlaps that of the heads; "heads": seeds in which heads
        change; "either": in which heads or ICL score do; "extent": of each window of
        heads, its share of the training; "chance": of each seed in which both do, see
        ``chance_of_overlap``; "formed": share of each seed's last ICL score that formed
        in the window of its heads, or None; "formed_mean": over seeds, with an interval
        of 95 %, or None.
    """
    changes = curves.changes
    heads, score = changes[HEADS].each, changes[SCORE].each
    formed = [
        share_formed(curves.steps, curves.icl_score[:, n], one)
        for n, one in enumerate(heads)
    ]
    known = [share for share in formed if share is not None]
    return {
        "changes": {name: found.to_dict() for name, found in changes.items()},
        "overlap": {
            name: sum(map(windows_overlap, heads, changes[name].each))
            for name in (SCORE, BUMP)
        },
        "heads": changes[HEADS].found,
        "extent": [
            (one.end - one.begin) / float(curves.steps[-1])
            for one in heads
            if one.begin is not None and one.end is not None
        ],
        "either": sum(
            one.step is not None or other.step is not None
            for one, other in zip(heads, score, strict=True)
        ),
        "chance": [
            chance_of_overlap(curves.steps, one, other)
            for one, other in zip(heads, score, strict=True)
            if one.step is not None and other.step is not None
        ],
        "formed": formed,
        "formed_mean": interval(known, seed),
    }


def share_formed(
    steps: np.ndarray, score: np.ndarray, change: PhaseChange
) -> float | None:
    """Share of the last ICL score that formed in a window.

    ``(score(end) - score(begin)) / score(last)``

    Args:
        steps: [E], of the evaluations.
        score: [E], nats, negative where a model learns in context.
        change: its window is that of the heads.

    Returns:
        A share, which may be above 1; None: there is no window, or no ICL score at the
        end.
    """
    if change.begin is None or change.end is None or -score[-1] < LEAST[SCORE]:
        return None
    begin, end = np.searchsorted(steps, [change.begin, change.end])
    return float((score[end] - score[begin]) / score[-1])


def chance_of_overlap(steps: np.ndarray, one: PhaseChange, other: PhaseChange) -> float:
    """Share of the places for the other window, among evaluations, that overlap.

    Args:
        steps: [E], of the evaluations, at which windows begin and end.
        one: stays where it is.
        other: is moved to every place that has room for as many evaluations.
    """
    ends = [one.begin, one.end, other.begin, other.end]
    first, last, begin, end = np.searchsorted(steps, np.array(ends, float))
    width = end - begin
    places = np.arange(len(steps) - width)
    return float(((places <= last) & (places + width >= first)).mean())


def tail(chances: list[float], count: int) -> float:
    """Chance that ``count`` or more of independent events happen.

    Args:
        chances: of each event.
        count: how many did.
    """
    exactly = np.ones(1)
    for chance in chances:
        exactly = np.convolve(exactly, [1 - chance, chance])
    return float(min(1.0, exactly[count:].sum()))


def decide(found: dict[str, Any], seed: int) -> tuple[Answer, str]:
    """Whether most of the ICL score forms while heads do.

    Asked of all seeds in which the top prefix-matching score has a phase change.
    Holds: in 75 % or more of at least 3 of them the ICL score has one, in a window that
    overlaps; and the interval of 95 % of the share of the last ICL score that formed in
    the window of the heads, mean over seeds, is above one half. Refuted: the windows
    overlap in 25 % or less of at least 3 seeds, or that interval is below one quarter.
    Else, and where the windows of the heads span more than half of the training,
    undecided. The chance that windows anywhere overlap as often is reported.
    """
    runs = found["co_occurrence"]
    heads = sum(run["heads"] for run in runs)
    if not heads:
        raise NotAsked("seeds whose heads have a phase change")
    overlap = sum(run["overlap"][SCORE] for run in runs)
    chance = tail([p for run in runs for p in run["chance"]], overlap)
    formed = interval(
        [one for run in runs for one in run["formed"] if one is not None], seed
    )
    bumps = sum(run["overlap"][BUMP] for run in runs)
    said = (
        f"The ICL score changes in a window that overlaps the heads' in {overlap} of "
        f"{heads} seeds (chance of windows placed anywhere: {chance:.2g}), the "
        f"training loss has its bump there in {bumps}."
    )
    if formed:
        said += f" Share of the last ICL score formed in the window: {spelled(formed)}."
    alone = sum(run["either"] - run["heads"] for run in runs)
    if alone:
        said += f" Without heads, the ICL score changes in {alone} further seeds."
    wide = sum(sum(run["extent"]) for run in runs) / heads > 0.5
    if heads < FEWEST or wide:
        return "undecided", said
    above = None if formed is None else against(formed, 0.5)
    below = None if formed is None else against(formed, 0.25)
    if overlap >= MOST * heads and above == "holds":
        return "holds", said
    if overlap <= FEW * heads or below == "refuted":
        return "refuted", said
    return "undecided", said
