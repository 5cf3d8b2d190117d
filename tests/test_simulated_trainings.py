"""Trainings of known truth, at the level that the verdicts are made from.

A truth gives the numbers of each seed, as evaluations and comparisons would. Of every
argument and claim there are three: "none", nothing of the kind (with all dates shared
by the seeds of a run, which see the same data); "there", a clear effect; and "tiny", an
effect of a fiftieth of the least that counts (of argument 3: just not most).
``PYTHONPATH=. python tests/test_simulated_trainings.py`` prints the table of
``docs/verdicts_over_trainings.md``. The seeds of the simulations are 0, not chosen.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxheads.runs import Run
from jaxheads.statistics import Interval
from jaxheads.statistics.claims import Rules, Untested, decide
from jaxheads.statistics.phase_change import LEAST_CHANGES, PhaseChange, over_seeds
from jaxheads.studies.compare_runs.claims import DEFINITIONS, judge_arms
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.studies.compare_runs.effects import seed_effect
from jaxheads.studies.dynamics import emergence, transitions
from jaxheads.studies.dynamics.claims import (
    fv_heads_were_induction_heads,
    induction_emerges_first,
)
from jaxheads.studies.dynamics.transitions import Trajectories
from jaxheads.studies.six_arguments import (
    ablation_and_mechanism,
    co_occurrence,
    co_perturbation,
)
from jaxheads.studies.six_arguments.continuity import decide as decide_continuity
from jaxheads.studies.six_arguments.verdicts import judge

STEPS = np.arange(0, 1501, 25.0)
TRUTHS = ("none", "tiny", "there")
HOLDS, FAILS = ("holds",), ("does not hold", "too small to matter")


def jump(at: float, low: float, high: float, width: float = 15.0) -> np.ndarray:
    return low + (high - low) / (1 + np.exp(-(STEPS - at) / width))


def window(at: float, width: float = 15.0) -> PhaseChange:
    """The phase change that is found of such a jump, seen at the evaluations."""
    begin = STEPS[at - 2.2 * width >= STEPS][-1]
    end = STEPS[at + 2.2 * width <= STEPS][0]
    return PhaseChange(step=at, begin=float(begin), end=float(end), spacing=25.0)


def co_occurring(truth: str, seeds: int, rng: np.random.Generator) -> dict[str, Any]:
    """What ``co_occurrence`` says of a run whose heads and ICL score jump.

    Of no link, the ICL score's jump is anywhere in the training, at one place for all
    seeds but for a jitter; of a link, where the heads' is. Tiny: a fiftieth of the
    score forms with the heads, the rest anywhere.
    """
    heads = rng.uniform(150, 1350) + rng.normal(0, 15, seeds)
    apart = rng.uniform(150, 1350)
    dates = heads if truth == "there" else np.full(seeds, apart)
    dates = np.clip(dates + rng.normal(0, 15, seeds), 100, 1400)
    heads = np.clip(heads, 100, 1400)
    part = {"none": 0.0, "tiny": 0.02, "there": 0.0}[truth]
    scores = [
        jump(at, -0.1, -1.1) * (1 - part)
        + jump(head, -0.1, -1.1) * part
        + rng.normal(0, 0.02, len(STEPS))
        for at, head in zip(dates, heads, strict=True)
    ]
    one, other = [window(at) for at in heads], [window(at) for at in dates]
    formed = [
        co_occurrence.share_formed(STEPS, *pair)
        for pair in zip(scores, one, strict=True)
    ]
    apart, chance = co_occurrence.chance_of_dates(STEPS, heads, dates)
    overlap = sum(a.begin <= b.end and b.begin <= a.end  # type: ignore[operator]
                  for a, b in zip(one, other, strict=True))  # fmt: skip
    return {
        "heads": seeds,
        "either": seeds,
        "changes": {co_occurrence.HEADS: dataclasses.asdict(over_seeds(tuple(one)))},
        "overlap": {co_occurrence.SCORE: overlap, "loss_bump": 0},
        "extent": [(a.end - a.begin) / 1500 for a in one],  # type: ignore[operator]
        "apart": apart,
        "chance": chance,
        "formed": formed,
        "formed_mean": co_occurrence.interval(formed),
    }


def about(**more: Any) -> dict[str, Any]:
    told = {"name": "run", "variant": "vanilla", "layers": 2, "width": 16}
    return told | {"mlp_width": 0} | more


def argument_1(truth: str, seeds: int, rng: np.random.Generator) -> str:
    run = co_occurring(truth, seeds, rng)
    return co_occurrence.decide({"runs": [about()], "co_occurrence": [run]})[0]


def argument_2(truth: str, seeds: int, rng: np.random.Generator) -> str:
    """Heads 200 steps earlier; the ICL score 0, 1 (a fiftieth of 50) or 200."""
    moved = {"none": 0.0, "tiny": 1.0, "there": 200.0}[truth]
    shared = rng.normal(0, 60)  # of the data, which both runs see
    dates = {
        name: [
            (base + shared - shift + rng.normal(0, 60, seeds)).tolist()
            for shift in (by, 0.0)
        ]
        for name, base, by in (("prefix_matching", 700, 200), ("icl_score", 750, moved))
    }
    pair = {
        "run": 0,
        "vanilla": 1,
        "variant": "smeared keys",
        "layers": 2,
        "formed": {name: [[seeds, seeds]] * 2 for name in LEAST_CHANGES},
        "dates": dates,
        "last": [[-1.0] * seeds] * 2,
        "earlier": {
            name: co_perturbation.date_difference(*each) for name, each in dates.items()
        },
    }
    found = {"co_perturbation": [pair], "runs": [about(), about()]}
    return co_perturbation.decide(found)[0]


def argument_3(truth: str, seeds: int, rng: np.random.Generator) -> str:
    """Of the ICL score 0.25, 0.49 or 0.9 goes with the heads."""
    lost = {"none": 0.25, "tiny": 0.49, "there": 0.9}[truth]
    lost = lost + rng.normal(0, 0.15, seeds)
    more = lost - 0.1 + rng.normal(0, 0.15, seeds)
    run = {"lost": lost.tolist(), "more_than_others": more.tolist()}
    run |= {"share": [None] * seeds, "correlation": [None] * seeds}
    return ablation_and_mechanism.decide_ablation(
        {"runs": [about()], "attribution": [run]}
    )[0]


def argument_4(truth: str, seeds: int, rng: np.random.Generator) -> str:
    """An even fall of 1 nat, and in the heads' window 0, 0.001 or 0.3 more."""
    more = {"none": 0.0, "tiny": 0.001, "there": 0.3}[truth]
    dates = rng.uniform(200, 1300) + rng.normal(0, 15, seeds)
    score = np.stack(
        [
            jump(at, 0, -more) - STEPS / 1500 + rng.normal(0, 0.04, len(STEPS))
            for at in dates
        ],
        axis=1,
    )
    each = [window(at) for at in dates]
    falls = ablation_and_mechanism.fall_in_window(STEPS, score, each)
    extent = [(one.end - one.begin) / 1500 for one in each]  # type: ignore[operator]
    found = {"runs": [about()], "generality": [falls]}
    found |= {"co_occurrence": [{"extent": extent}]}
    return ablation_and_mechanism.decide_generality(found)[0]


def argument_5(truth: str, seeds: int, rng: np.random.Generator) -> str:
    """Copying and QK trace of 0, 0.002 or 0.4."""
    size = {"none": 0.0, "tiny": 0.002, "there": 0.4}[truth]
    run = {
        name: (size + rng.normal(0, 0.1, seeds)).tolist()
        for name in ("copying", "qk_trace")
    }
    return ablation_and_mechanism.decide_mechanism(
        {"runs": [about()], "circuits": [run]}
    )[0]


def argument_6(truth: str, seeds: int, rng: np.random.Generator) -> str:
    """A small run in which heads and score change together; a large one as told."""
    runs = [co_occurring(one, seeds, rng) for one in ("there", truth)]
    found = {"runs": [about(), about(width=32)], "co_occurrence": runs}
    together = [run["overlap"][co_occurrence.SCORE] for run in runs]
    found |= {"continuity": [{"together": count} for count in together]}
    return decide_continuity(found)[0]


ARGUMENTS: dict[str, Callable[..., str]] = {
    f"argument {n}": one
    for n, one in enumerate(
        (argument_1, argument_2, argument_3, argument_4, argument_5, argument_6), 1
    )
}


def argued(truth: str, seeds: int, rng: np.random.Generator) -> dict[str, str]:
    """Verdicts on all arguments."""
    return {name: decided(truth, seeds, rng) for name, decided in ARGUMENTS.items()}


_ARMS = {  # effect's name, reference, sign of the claim
    "repetition_falls": ("repetition", 0.5, -1),
    "prefix_falls": ("prefix_top", 0.4, -1),
    "context_gain_falls": ("token_loss_difference", 1.0, -1),
    "loss_does_not_rise": ("not_copyable_loss", 3.0, -1),
    "answers_do_not_fall": ("answer", 0.8, 1),
    "context_gain_without_copies": ("token_loss_difference_non_extractive", 0.5, 1),
}


def compared(truth: str, seeds: int, rng: np.random.Generator) -> dict[str, str]:
    """Verdicts on all signatures of an arm.

    Falls: of 0, a fiftieth of the tenth that counts, or half of the reference. Claims
    of no fall: "there" is no fall, "none" a fall of just the margin, which is worse.
    """
    config = ArmsConfig()
    zeros = np.zeros(seeds)
    effects = [seed_effect("induction_heads", "heads", "", 1, zeros + 2, zeros + 2)]
    for claim, (name, reference, sign) in _ARMS.items():
        falls = claim in ("repetition_falls", "prefix_falls", "context_gain_falls")
        if falls:
            size = {"none": 0.0, "tiny": 0.002, "there": 0.5}[truth] * reference
        else:
            size = {"none": -0.05, "tiny": -0.05, "there": 0.0}[truth]
        noise = rng.normal(0, 0.05 * reference if falls else 0.02, seeds)
        other = reference + sign * (size + noise)
        effects.append(seed_effect(name, "loss", "", 1, zeros + reference, other))
    judged = judge_arms(effects, ["vanilla", "hapax"], config)[0]
    return {one.name: one.verdict for one in judged}


_U, _L, _H, _A, _B = 8, 6, 12, 3, 10


def trained(truth: str, rng: np.random.Generator) -> Trajectories:
    """Scores of 72 heads at 8 checkpoints: two FV heads, and two induction heads.

    "there": induction comes 3 checkpoints before FV, in the same heads. "none": both at
    the same checkpoint, in other heads. "tiny": there are hardly FV heads.
    """
    linked = truth == "there"
    heads = rng.permutation(_L * _H)[:8]
    when = int(rng.integers(1, 4))
    rises = np.arange(_U)[:, None] >= when
    late = np.arange(_U)[:, None] >= when + (3 if linked else 0)
    attention = np.full((_U, _L * _H), 0.02)
    attention[:, heads[:4]] += 0.6 * rises
    if linked:  # and gives up the attention
        attention[:, heads[:4]] -= 0.5 * late
        attention[:, heads[4:6]] += 0.5 * rises
    attention += rng.normal(0, 0.005, attention.shape)
    fv = np.zeros((_U, _L * _H))
    size = 0.006 if truth == "tiny" else 0.3
    fv[:, heads[:4] if linked else heads[4:]] = size * late
    noise = 0.1 * rng.normal(size=(_U, _A, _L * _H, _B))
    effects = (fv[:, None, :, None] + noise).reshape(_U, _A, _L, _H, _B)
    error = np.sqrt((effects.var(-1, ddof=1) / _B).sum(1)) / _A
    shape = (_U, _L, _H)
    return Trajectories(
        2 ** np.arange(_U),
        attention.reshape(shape),
        np.full(shape, 0.005),
        0.02,
        effects.mean((1, 4)),
        error,
        effects.mean(-1),
        40,
        _B,
    )


def dated(truth: str, seeds: int, rng: np.random.Generator) -> dict[str, str]:
    """Verdicts of a dynamics run of one seed (0), or of the order over several."""
    trainings = [trained(truth, rng) for _ in range(max(seeds, 1))]
    if seeds:
        each = [{"emergence": _emergence(one, rng)} for one in trainings]
        run = Run(None, {"dynamics_seeds": {"seeds": each}}, {})  # type: ignore[arg-type]
        return {"induction_emerges_first": _verdict(induction_emerges_first, run)}
    told = {
        "emergence": _emergence(trainings[0], rng),
        "transitions": transitions.find(
            trainings[0], transitions.Definition(final_share=0.06), permutations=200
        ).to_dict(),
    }
    run = Run(None, {"dynamics": told}, {})  # type: ignore[arg-type]
    return {
        one.__name__: _verdict(one, run)
        for one in (induction_emerges_first, fv_heads_were_induction_heads)
    }


def _emergence(seen: Trajectories, rng: np.random.Generator) -> dict[str, Any]:
    made = emergence.curves(seen, samples=200, seed=int(rng.integers(2**31)))
    return dataclasses.asdict(emergence.find(seen, made))


def _verdict(measure: Callable[..., Any], run: Run) -> str:
    try:
        found = measure(run, Rules())
    except Untested as why:
        return why.verdict
    made = Interval(found.effect, found.low, found.high)
    return decide(made, found.p, found.smallest, found.null)


PARTS = [
    *(("arguments", seeds, 600) for seeds in (3, 4, 8)),
    *(("arms", seeds, 600) for seeds in (3, 4, 8)),
    *(("dynamics", seeds, 100) for seeds in (0, 3, 4, 8)),  # 0: of one run
]
_PARTS = ("co_occurrence", "co_perturbation", "attribution", "generality", "circuits")
_PARTS += ("continuity",)


def table(draws: int, seeds: int, which: str) -> dict[Any, Any]:
    """How often each verdict is given: {(name, truth): Counter}."""
    decide_all = {"arguments": argued, "arms": compared, "dynamics": dated}[which]
    found: dict[Any, Any] = collections.defaultdict(collections.Counter)
    for number, truth in enumerate(TRUTHS):
        rng = np.random.default_rng([seeds, number])
        for _ in range(draws):
            for name, verdict in decide_all(truth, seeds, rng).items():
                found[name, truth][verdict] += 1
    return found


def wrong(truth: str, counted: collections.Counter) -> float:
    """Share of the verdicts that are false under a truth."""
    false = FAILS if truth == "there" else HOLDS
    return sum(counted[verdict] for verdict in false) / counted.total()


def main() -> None:
    """Print the table in Markdown."""
    names = ("holds", *FAILS, "undecided")
    print("| | seeds | truth |", " | ".join(names), "|")
    print("| --- | --- | --- |", " | ".join(["--:"] * len(names)), "|")
    for which, seeds, draws in PARTS:
        found = table(draws, seeds, which)
        for name, truth in sorted(
            found, key=lambda key: (key[0], TRUTHS.index(key[1]))
        ):
            counted = found[name, truth]
            cells = [f"{counted[one] / counted.total():.3f}" for one in names]
            told = f"| {name.replace('_', ' ')} | {seeds or 1} | {truth} |"
            print(told, " | ".join(cells), "|", flush=True)


@pytest.mark.slow
@pytest.mark.parametrize(("which", "seeds", "draws"), PARTS)
def test_false_verdicts_are_rare(which, seeds, draws):
    for (name, truth), counted in table(draws, seeds, which).items():
        assert wrong(truth, counted) <= 0.05, (name, truth, counted)


@pytest.mark.parametrize("which", ["arguments", "arms", "dynamics"])
def test_false_verdicts_are_rare_in_a_few_draws(which):
    found = table(5 if which == "dynamics" else 25, 4, which)
    for (name, truth), counted in found.items():
        assert wrong(truth, counted) <= 0.15, (name, truth, counted)
        if truth == "there":  # and what is there is found
            assert counted["holds"] >= 0.5 * counted.total(), (name, counted)


def test_every_claim_is_simulated():
    assert {one.name for one in DEFINITIONS} == set(_ARMS)
    assert len(ARGUMENTS) == len(judge({"runs": []} | {name: [] for name in _PARTS}))


if __name__ == "__main__":
    main()
