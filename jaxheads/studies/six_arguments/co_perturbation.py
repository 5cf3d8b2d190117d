"""Argument 2: an architecture that eases induction heads moves in-context learning.

A run with smeared keys or shifted keys and values is held against the vanilla runs of
as many layers and the same objective: in how many seeds heads form, how much earlier,
and whether the ICL score moves, too.

Source: Olsson et al. 2022, argument 2; Xu et al. 2024 for KV shifting.
"""

import math
from collections.abc import Sequence
from typing import Any

from jaxheads.statistics import overlap_p_value
from jaxheads.statistics.claims import Verdict
from jaxheads.statistics.phase_change import LEAST_CHANGES
from jaxheads.statistics.seeds import FEWEST, difference_of_runs
from jaxheads.statistics.units import Estimate
from jaxheads.studies.six_arguments.co_occurrence import HEADS, SCORE
from jaxheads.studies.six_arguments.curves import Curves
from jaxheads.studies.six_arguments.rules import (
    NotAsked,
    decided,
    interval,
    known,
    over_runs,
)

PART = 0.25
"""Part of the heads' shift of date below which a shift of the score's counts as none;
chosen before any simulated run was judged, and stated by no paper."""


def co_perturbation(runs: Sequence[Curves]) -> list[dict[str, Any]]:
    """Compare every changed architecture with its vanilla one, ready for JSON.

    Args:
        runs: of all variants.

    Returns:
        One entry a pair: "run" and "vanilla", indices; "variant", "layers"; "formed":
        by figure, the counts [found, seeds] of the run and of the vanilla one; "dates":
        by figure, the dates of the seeds of both, None where a seed has none; "last":
        last ICL scores of the seeds of both; "earlier": by figure, what
        ``date_difference`` gives; "also_differs": names of further choices that are not
        the same.
    """
    return [
        _pair(at, other, runs)
        for at, one in enumerate(runs)
        if one.about["variant"] != "vanilla"
        for other, base in enumerate(runs)
        if base.about["variant"] == "vanilla"
        and all(one.about[key] == base.about[key] for key in ("layers", "objective"))
    ]


def date_difference(
    dates: Sequence[float | None], others: Sequence[float | None]
) -> dict[str, Any] | None:
    """Mean date of one run's seeds minus the other's, with Welch's interval.

    The dates of both runs lie on one grid of evaluations, which moves both alike.

    Args:
        dates: of the run's seeds; those without a date do not count.
        others: of the other's.

    Returns:
        "steps", "low", "high", of an interval of 95 % (None where it is unbounded);
        None where a run has no date.
    """
    one, other = known(dates), known(others)
    if not one or not other:
        return None
    made = difference_of_runs(one, other).interval()
    bounded = math.isfinite(made.low)
    return {
        "steps": made.mean,
        "low": made.low if bounded else None,
        "high": made.high if bounded else None,
    }


def _pair(at: int, other: int, runs: Sequence[Curves]) -> dict[str, Any]:
    pair = (runs[at], runs[other])
    mine, theirs = (one.about["training"] for one in pair)
    dates = {
        name: [[each.step for each in one.changes[name].each] for one in pair]
        for name in (HEADS, SCORE)
    }
    return {
        "run": at,
        "vanilla": other,
        "variant": pair[0].about["variant"],
        "layers": pair[0].about["layers"],
        "formed": {
            name: [[one.changes[name].found, one.seeds] for one in pair]
            for name in (HEADS, SCORE)
        },
        "dates": dates,
        "last": [one.last_score for one in pair],
        "earlier": {name: date_difference(*each) for name, each in dates.items()},
        "also_differs": sorted(
            key
            for key in mine.keys() | theirs.keys()
            if mine.get(key) != theirs.get(key)
        ),
    }


def decide(found: dict[str, Any]) -> tuple[Verdict, str]:
    """Whether the ICL score moves where the architecture moves the heads.

    Every run with smeared keys or KV shift is held against the vanilla run of as many
    layers and the same objective. A pair of at least 3 seeds each counts if heads form
    in more of the changed run's seeds (Fisher's exact test, p of 0.05 at most), or
    earlier by an interval of 95 % that leaves out 0. In the first case the last ICL
    score is asked for, of which 0.2 nats count as none; in the second its date, of
    which a quarter of the heads' shift counts as none. Holds: the mean
    difference of the runs' seeds is towards the changed run by an interval of 95 % that
    leaves out 0. Too small to matter: that interval is wholly within what counts as
    none. Does not hold: it is wholly the other way. Else undecided. Of several pairs,
    what all say; undecided if they differ.
    """
    pairs = found["co_perturbation"]
    if not pairs:
        raise NotAsked(
            "a run with smeared_keys=true or shifted=true and a vanilla run of as many "
            "layers and the same objective"
        )
    answers: list[Verdict] = [of_pair(pair) for pair in pairs]
    said = " ".join(
        _pair_said(pair, answer, found["runs"])
        for pair, answer in zip(pairs, answers, strict=True)
    )
    return over_runs(answers), said


def of_pair(pair: dict[str, Any]) -> Verdict:
    """What one pair says; "not measured" where the change does not ease the heads."""
    (mine, seeds), (theirs, others) = pair["formed"][HEADS]
    if min(seeds, others) < FEWEST:
        return "not measured"
    p = overlap_p_value(mine, seeds, mine + theirs, seeds + others)
    if p < 0.05 + 1e-9:  # of 3 seeds against none of 3 it is 0.05
        last = [known(each) for each in pair["last"]]
        return _moved(difference_of_runs(*last[::-1]), last, LEAST_CHANGES[SCORE])
    heads, score = (
        [known(each) for each in pair["dates"][name]] for name in (HEADS, SCORE)
    )
    shift = difference_of_runs(*heads[::-1])
    if _moved(shift, heads, 0.0) != "holds":
        return "not measured"
    return _moved(difference_of_runs(*score[::-1]), score, PART * shift.mean)


def _moved(found: Estimate, values: list[list[float]], smallest: float) -> Verdict:
    """Whether the vanilla run's mean minus the changed one's is above 0."""
    return decided(found, min(map(len, values)), smallest)


def _pair_said(pair: dict[str, Any], answer: Verdict, runs: list[dict]) -> str:
    names = {HEADS: "heads", SCORE: "ICL score"}
    parts = []
    for key, noun in names.items():
        (mine, seeds), (theirs, others) = pair["formed"][key]
        part = f"{noun} in {mine} of {seeds} seeds against {theirs} of {others}"
        earlier = pair["earlier"][key]
        if earlier is not None:
            ends = ""
            if earlier["low"] is not None:
                ends = f" [{earlier['low']:+,.0f}, {earlier['high']:+,.0f}]"
            part += f", {earlier['steps']:+,.0f}{ends} steps"
        parts.append(part)
    ends = [made["mean"] for each in pair["last"] if (made := interval(each))]
    parts.append(f"the score ends at {' against '.join(f'{x:.2f}' for x in ends)} nats")
    return (
        f"{runs[pair['run']]['name']} against {runs[pair['vanilla']]['name']} "
        f"({pair['variant']}, layers: {pair['layers']}): {'; '.join(parts)}: "
        f"{_unasked(pair) if answer == 'not measured' else answer}."
    )


def _unasked(pair: dict[str, Any]) -> str:
    """Why nothing is asked of a pair."""
    if min(seeds for _, seeds in pair["formed"][HEADS]) < FEWEST:
        return f"fewer than {FEWEST} seeds decide nothing"
    dates = [known(each) for each in pair["dates"][HEADS]]
    shift = _moved(difference_of_runs(*dates[::-1]), dates, 0.0)
    if shift == "undecided":
        return "it is open whether heads are eased, so that nothing is asked"
    return "heads are not eased, so that nothing is asked"
