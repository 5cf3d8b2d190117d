"""Argument 2: an architecture that eases induction heads moves in-context learning.

A run with smeared keys or shifted keys and values is held against the vanilla runs of
as many layers and the same objective: in how many seeds heads form and the ICL score
jumps, and how much earlier.

Source: Olsson et al. 2022, argument 2; Xu et al. 2024 for KV shifting.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads.evidence.co_occurrence import HEADS, SCORE
from jaxheads.evidence.curves import Curves
from jaxheads.evidence.rules import FEW, FEWEST, MOST, Answer, NotAsked
from jaxheads.training.phase_change import LEVEL, SAMPLES, PhaseChanges


def co_perturbation(runs: Sequence[Curves], seed: int) -> list[dict[str, Any]]:
    """Compare every changed architecture with its vanilla one, ready for JSON.

    Args:
        runs: of all variants.
        seed: of the resampling of seeds.

    Returns:
        One entry a pair: "run" and "vanilla", indices; "variant", "layers"; "formed":
        by figure, the counts [found, seeds] of the run and of the vanilla one;
        "earlier": by figure, what ``date_difference`` gives; "also_differs": names of
        further choices that are not the same.
    """
    return [
        _pair(at, other, runs, seed)
        for at, one in enumerate(runs)
        if one.about["variant"] != "vanilla"
        for other, base in enumerate(runs)
        if base.about["variant"] == "vanilla"
        and all(one.about[key] == base.about[key] for key in ("layers", "objective"))
    ]


def date_difference(
    one: PhaseChanges, other: PhaseChanges, seed: int, samples: int = SAMPLES
) -> dict[str, Any] | None:
    """Median date of one run's seeds minus the other's, with a bootstrap interval.

    Seeds of both are resampled, each run's among themselves; those without a date do
    not count.

    Args:
        one: dates of its seeds.
        other: of the other's.
        seed: of the resampling.
        samples: of it.

    Returns:
        "steps", "low", "high", of an interval of 95 % (None where a run has a single
        date); None where a run has none.
    """
    dates = [
        np.array([each.step for each in run.each if each.step is not None])
        for run in (one, other)
    ]
    if not all(map(len, dates)):
        return None
    steps = float(np.median(dates[0]) - np.median(dates[1]))
    if min(map(len, dates)) < 2:
        return {"steps": steps, "low": None, "high": None}
    rng = np.random.default_rng([seed, 15])
    drawn = [rng.choice(each, (samples, len(each))) for each in dates]
    differences = np.median(drawn[0], axis=1) - np.median(drawn[1], axis=1)
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"steps": steps, "low": float(low), "high": float(high)}


def _pair(at: int, other: int, runs: Sequence[Curves], seed: int) -> dict[str, Any]:
    one, base = runs[at], runs[other]
    mine, theirs = one.about["training"], base.about["training"]
    return {
        "run": at,
        "vanilla": other,
        "variant": one.about["variant"],
        "layers": one.about["layers"],
        "formed": {
            name: [[run.changes[name].found, run.seeds] for run in (one, base)]
            for name in (HEADS, SCORE)
        },
        "earlier": {
            name: date_difference(one.changes[name], base.changes[name], seed)
            for name in (HEADS, SCORE)
        },
        "also_differs": sorted(
            key
            for key in mine.keys() | theirs.keys()
            if mine.get(key) != theirs.get(key)
        ),
    }


def decide(found: dict[str, Any], seed: int) -> tuple[Answer, str]:
    """Whether the ICL score moves where the architecture moves the heads.

    Every run with smeared keys or KV shift is held against the vanilla run of as many
    layers and the same objective. A pair of at least 3 seeds each counts if heads form
    in 75 % or more of the changed run's seeds, and either in 25 % or less of the
    vanilla one's, or earlier by an interval of 95 % that leaves out 0. It agrees if
    the ICL score's phase change does the same. It disagrees if that is found in 25 % or
    less of both runs' seeds, or in 75 % or more of both and not earlier, by an interval
    that reaches 0. Holds: a pair agrees and none disagrees.
    Refuted: a pair disagrees and none agrees. Else undecided.
    """
    pairs = found["co_perturbation"]
    if not pairs:
        raise NotAsked(
            "a run with smeared_keys=true or shifted=true and a vanilla run of as many "
            "layers and the same objective"
        )
    answers = [_pair_answer(pair) for pair in pairs]
    said = " ".join(
        _pair_said(pair, answer, found["runs"])
        for pair, answer in zip(pairs, answers, strict=True)
    )
    agrees, disagrees = "agrees" in answers, "disagrees" in answers
    if agrees != disagrees:
        return ("holds" if agrees else "refuted"), said
    return "undecided", said


def _pair_answer(pair: dict[str, Any]) -> str:
    """One of "agrees", "disagrees" and "says nothing"."""
    moved = {name: _moved(pair, name) for name in (HEADS, SCORE)}
    if moved[HEADS] != "eased":
        return "says nothing"
    return {"eased": "agrees", "alike": "disagrees"}.get(moved[SCORE], "says nothing")


def _moved(pair: dict[str, Any], name: str) -> str:
    """What the change did to a figure's jump: "eased", "alike" or "unclear"."""
    (mine, seeds), (theirs, others) = pair["formed"][name]
    if min(seeds, others) < FEWEST:
        return "unclear"
    mine, theirs = mine / seeds, theirs / others
    if mine >= MOST and theirs <= FEW:
        return "eased"
    if mine <= FEW and theirs <= FEW:
        return "alike"
    earlier = pair["earlier"][name]
    if mine < MOST or earlier is None or earlier["high"] is None:
        return "unclear"
    if earlier["high"] < 0:
        return "eased"
    return "alike" if theirs >= MOST else "unclear"


def _pair_said(pair: dict[str, Any], answer: str, runs: list[dict]) -> str:
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
    return (
        f"{runs[pair['run']]['name']} against {runs[pair['vanilla']]['name']} "
        f"({pair['variant']}, layers: {pair['layers']}): {'; '.join(parts)}: {answer}."
    )
