"""Claims: planted effects are found, reversed ones refuted, and noise leaves open."""

import dataclasses
import inspect
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import planted_run
import pytest
import synthetic_run

from jaxheads.runs import Run
from jaxheads.statistics import Interval
from jaxheads.statistics.claims import Claim, Definition, Measured, Rules, decide, judge
from jaxheads.studies import claims

ABLATION = [one for one in claims.definitions() if one.family == "few-shot accuracy"]
BOTH = ("few-shot accuracy", "token loss")


def verdicts(run: Run) -> dict[str, str]:
    return {claim.name: claim.verdict for claim in claims.of_run(run)}


def measured(run: Run) -> dict[str, Claim]:
    return {claim.name: claim for claim in claims.of_run(run)}


AS_THE_PAPER: dict[str, Any] = {
    "costs": {"function_vector": 0.7, "induction": 0.3, "induction:exclusion": 0.05}
    | {"keep_only:function_vector": 0.4, "zero_shot": 0.1},
    "loss_costs": {"induction": 0.5},
}
REVERSED: dict[str, Any] = {
    "costs": {"function_vector": 0.05, "induction": 0.7, "uniform": 0.3}
    | {"layer_matched": 0.5, "keep_only:function_vector": 0.98}
    | {"keep_only_random": 0.3, "zero_shot": 0.7},
    "loss_costs": {"function_vector": 0.5, "induction": 0.0},
}


@pytest.fixture(scope="module")
def paper() -> Run:
    return planted_run.make_run(0, prompts=40, **AS_THE_PAPER)


def test_planted_effects_are_found(paper: Run):
    found = {name: verdict for name, verdict in verdicts(paper).items()}
    for definition in claims.definitions():
        expected = "holds" if definition.family in BOTH else "not measured"
        assert found[definition.name] == expected, definition.name


def test_it_does_not_matter_which_normalisation_ranked_the_heads():
    run = synthetic_run.make_run()
    result = dict(run.result)
    for kind in ("ablation", "token_loss"):
        sets = [
            each
            | {
                key: (each[key] or "").replace("induction", "induction_yin") or None
                for key in ("ranking", "matched_to")
            }
            for each in result[kind]["sets"]
        ]
        result[kind] = result[kind] | {"sets": sets}
    told = claims.of_run(dataclasses.replace(run, result=result))
    expected = claims.of_run(run)
    assert [one.verdict for one in told] == [one.verdict for one in expected]
    np.testing.assert_array_equal(
        [one.effect for one in told], [one.effect for one in expected]
    )
    assert {one.verdict for one in told[:4]} <= {"holds", "does not hold", "undecided"}


def test_planted_reversals_are_refuted():
    found = verdicts(planted_run.make_run(1, prompts=40, **REVERSED))
    named = [one.name for one in claims.definitions() if one.family in BOTH]
    assert {name: found[name] for name in named} == dict.fromkeys(
        named, "does not hold"
    )


def test_effects_are_those_of_the_arrays(paper: Run):
    right = paper.arrays["ablation/first_token"].mean((1, 2))
    sets = paper.result["ablation"]["sets"]

    def left(**wanted) -> float:
        rows = [
            n
            for n, entry in enumerate(sets)
            if all(entry[key] == value for key, value in wanted.items())
        ]
        return float(right[rows].mean())

    made = measured(paper)
    fv, induction = (
        {mode: left(ranking=name, mode=mode) for mode in ("top", "exclusion")}
        for name in planted_run.KINDS
    )
    uniform = left(mode="uniform")
    expected = {
        "fv_matters_more": induction["top"] - fv["top"],
        "fv_matters_more_excluded": induction["exclusion"] - fv["exclusion"],
        "fv_worse_than_random_excluded": uniform - fv["exclusion"],
        "induction_like_random_excluded": induction["exclusion"] - uniform,
        "fv_worse_than_layer_matched": left(mode="layer_matched") - fv["top"],
        "fv_alone_keeps_more": left(ranking="function_vector", mode="keep_only")
        - left(mode="keep_only_random"),
    }
    for name, value in expected.items():
        assert made[name].effect == pytest.approx(value), name
        assert made[name].low < value < made[name].high
    zero = paper.arrays["ablation/zero_shot/first_token"].mean((1, 2))
    share = zero[1] / zero[0] - right[1] / right[0]  # set 1: the top FV heads
    assert made["zero_shot_less_affected"].effect == pytest.approx(share)
    loss = paper.arrays["token_loss/loss"]
    learnt = (loss[..., 0] - loss[..., 1]).mean(1)
    at = {
        entry["ranking"]: n
        for n, entry in enumerate(paper.result["token_loss"]["sets"])
        if entry["mode"] == "exclusion"
    }
    gap = learnt[at["function_vector"]] - learnt[at["induction"]]
    assert made["induction_matters_more_for_loss"].effect == pytest.approx(gap)
    extra = (induction["exclusion"] - fv["exclusion"]) / right[0] + gap / learnt[0]
    assert made["accuracy_and_loss_differ"].effect == pytest.approx(extra)


def null_share(definitions: list[Definition], count: int, **options: Any) -> float:
    """Share of runs without an effect of which any claim is said to hold."""
    tested = [one for one in definitions if one.name not in NO_DIFFERENCE]
    held = 0
    for seed in range(count):
        made = judge(tested, planted_run.make_run(1000 + seed, **options), Rules())
        held += any(claim.verdict == "holds" for claim in made)
    return held / count


NO_DIFFERENCE = ("induction_like_random_excluded", "zero_shot_less_affected")
NOISY = 0.05 + 2 * 0.0154  # the level, and two standard errors of 200 runs
ALIKE: dict[str, Any] = {
    "costs": dict.fromkeys(("function_vector", "induction", "uniform"), 0.3)
    | {"layer_matched": 0.3, "keep_only_random": 0.5}
}


def test_noise_seldom_holds():
    assert null_share(ABLATION, 12, **ALIKE) <= 2 / 12


@pytest.mark.slow
def test_any_claim_of_a_family_holds_by_noise_below_the_level():
    assert null_share(ABLATION, 200, **ALIKE) <= NOISY


@pytest.mark.slow
def test_sets_that_differ_as_random_ones_do_are_seldom_worse():
    # Sets of a kind differ by themselves: only the random draws tell how far. (The two
    # top sets against each other are not drawn: for them it is the prompts that are.)
    drawn = [one for one in ABLATION if one.name.startswith(("fv_worse", "fv_alone"))]
    assert null_share(drawn, 200, spread=0.1, **ALIKE) <= NOISY


@pytest.mark.slow
def test_heads_that_are_worse_by_the_margin_are_seldom_no_worse():
    # Clean accuracy 0.7, margin 0.07: induction heads cost 0.15, random ones 0.05.
    costs = {"induction": 0.15, "uniform": 0.05}
    (equality,) = [one for one in ABLATION if one.name == NO_DIFFERENCE[0]]
    held = [
        judge([equality], planted_run.make_run(seed, costs=costs), Rules())[0].verdict
        for seed in range(200)
    ]
    assert np.mean([verdict == "holds" for verdict in held]) <= NOISY


# The rule.


SMALLEST = 0.05
BELOW, ABOVE = "does not hold", "holds"
NONE, OPEN = "too small to matter", "undecided"


@pytest.mark.parametrize(
    ("low", "high", "significant", "not_significant"),
    [  # every place of both ends among -smallest, 0 and smallest
        (-0.30, -0.10, BELOW, OPEN),
        (-0.30, -0.02, BELOW, OPEN),
        (-0.30, 0.02, OPEN, OPEN),
        (-0.30, 0.10, OPEN, OPEN),
        (-0.04, -0.01, NONE, NONE),
        (-0.04, 0.04, NONE, NONE),
        (-0.04, 0.10, OPEN, OPEN),
        (0.01, 0.04, NONE, NONE),
        (0.01, 0.10, ABOVE, OPEN),
        (0.10, 0.30, ABOVE, OPEN),
        (-0.05, 0.04, OPEN, OPEN),  # the ends themselves are effects of interest
        (-0.04, 0.05, OPEN, OPEN),
        (0.0, 0.30, OPEN, OPEN),
        (-math.inf, math.inf, OPEN, OPEN),
    ],
)
def test_the_verdict_follows_the_rule(low, high, significant, not_significant):
    mean = 0.0 if math.isinf(low) else (low + high) / 2
    for p, verdict in ((0.049, significant), (0.05, not_significant)):
        assert decide(Interval(mean, low, high), p, SMALLEST) == verdict
    assert decide(Interval(mean, low, high), math.nan, SMALLEST) == OPEN
    mirrored = {BELOW: ABOVE, ABOVE: BELOW}
    found = decide(Interval(-mean, -high, -low), 0.049, SMALLEST)
    assert found == mirrored.get(significant, significant)


@pytest.mark.parametrize(
    ("low", "high", "significant", "not_significant"),
    [  # no worse than by SMALLEST
        (-0.30, -0.10, BELOW, BELOW),
        (-0.30, -0.05, OPEN, OPEN),
        (-0.30, -0.01, OPEN, OPEN),
        (-0.04, -0.01, ABOVE, OPEN),
        (-0.04, 0.02, ABOVE, OPEN),
        (-0.04, 0.30, ABOVE, OPEN),
        (0.10, 0.30, ABOVE, OPEN),
        (-0.05, 0.30, OPEN, OPEN),
    ],
)
def test_a_claim_of_no_difference_has_its_rule(low, high, significant, not_significant):
    for p, verdict in ((0.049, significant), (0.05, not_significant)):
        interval = Interval((low + high) / 2, low, high)
        assert decide(interval, p, SMALLEST, null=-SMALLEST) == verdict


def test_a_smallest_effect_of_nothing_leaves_nothing_too_small():
    assert decide(Interval(1e-9, 5e-10, 2e-9), 0.01, 0.0) == "holds"
    assert decide(Interval(0.0, 0.0, 0.0), 1.0, 0.0) == "undecided"


def test_tests_are_adjusted_within_their_family():
    def fixed(p: float):
        return lambda run, rules: Measured(1, 0.5, 2, p, "", "accuracy", SMALLEST)

    def definition(name: str, family: str, p: float) -> Definition:
        return Definition(name, "", "", family, "", fixed(p))

    asked = {"a": ("x", 0.02), "b": ("y", 0.03), "c": ("x", 0.03), "d": ("x", 0.04)}
    definitions = [definition(name, *rest) for name, rest in asked.items()]
    made = judge(definitions, None, Rules())
    assert [one.p_adjusted for one in made] == pytest.approx([0.06, 0.03, 0.06, 0.06])
    assert [one.verdict for one in made] == ["undecided", "holds"] + 2 * ["undecided"]


# Runs that say little.


def changed(run: Run, name: str, value) -> Run:
    return dataclasses.replace(run, arrays=run.arrays | {name: value})


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_answers_that_are_all_wrong_or_all_right(paper: Run, level: float):
    same = np.full_like(paper.arrays["ablation/first_token"], level)
    made = measured(changed(paper, "ablation/first_token", same))
    for definition in ABLATION:
        claim = made[definition.name]
        if level == 0:
            assert claim.verdict == "undecided", claim.name
            assert "whether there is anything to lose" in claim.evidence
        elif claim.name not in (
            "induction_like_random_excluded",
            "zero_shot_less_affected",
        ):
            assert claim.verdict == "too small to matter", claim.name
            assert claim.effect == 0 and claim.low < 0 < claim.high
    if level == 1:
        assert made["induction_like_random_excluded"].verdict == "holds"


def test_few_prompts_that_all_agree_decide_nothing():
    run = planted_run.make_run(0, prompts=2)
    ones = np.ones_like(run.arrays["ablation/first_token"])
    made = measured(changed(run, "ablation/first_token", ones))
    assert made["fv_matters_more"].verdict == "undecided"
    assert made["induction_like_random_excluded"].verdict == "undecided"


@pytest.mark.parametrize(
    "options",
    [{"prompts": 1}, {"draws": 1}, {"draws": 0}, {"documents": 1}, {"documents": 2}],
)
def test_small_runs_are_judged(options: dict):
    made = measured(planted_run.make_run(3, **(AS_THE_PAPER | options)))
    if options.get("draws") == 1:
        assert made["fv_worse_than_random_excluded"].verdict == "undecided"
        assert "One random set" in made["fv_worse_than_random_excluded"].evidence
    if options.get("draws") == 0:
        assert made["fv_worse_than_random_excluded"].verdict == "not measured"
    if options.get("documents") == 1:
        assert made["induction_matters_more_for_loss"].verdict == "undecided"


def test_numbers_that_are_none_decide_nothing(paper: Run):
    broken = paper.arrays["ablation/first_token"].copy()
    broken[2, 0, 0] = np.nan
    made = measured(changed(paper, "ablation/first_token", broken))
    assert {made[one.name].verdict for one in ABLATION} == {"undecided"}
    assert "not numbers" in made["fv_matters_more"].evidence


def test_one_ranking_has_no_comparison(paper: Run):
    result = json.loads(json.dumps(paper.result))
    for entry in result["ablation"]["sets"]:
        if entry["ranking"] == "induction":
            entry["ranking"] = "previous_token"
    made = measured(dataclasses.replace(paper, result=result))
    assert made["fv_matters_more"].verdict == "not measured"
    assert made["fv_worse_than_layer_matched"].verdict == "holds"


@pytest.mark.parametrize("parts", [(), ("scores",), ("ablation",), ("token_loss",)])
def test_a_part_alone_is_judged_alone(parts: tuple[str, ...]):
    rows = claims.to_rows(synthetic_run.make_run(parts=parts))
    assert len(rows) == len(claims.definitions())
    families = {row["family"] for row in rows if row["verdict"] != "not measured"}
    of_part = {"scores": "head scores", "ablation": "few-shot accuracy"}
    of_part |= {"token_loss": "token loss"}
    assert families == {of_part[part] for part in parts}
    json.dumps(rows, allow_nan=False)


def test_every_claim_states_its_rule():
    for definition in claims.definitions():
        assert len(definition.rule) > 60 and definition.rule.endswith("."), definition
        assert inspect.getdoc(definition.measure)
    names = [definition.name for definition in claims.definitions()]
    assert len(set(names)) == len(names)
    made = claims.of_run(planted_run.make_run(0))
    assert [claim.name for claim in made] == names
    assert all(claim.evidence.endswith(".") for claim in made)


# The top of noise is not a head.


def scored(fv: np.ndarray, induction: np.ndarray, seed: int, noise=(1.0, 1.0)) -> Run:
    """A run of 12 layers of 12 heads, on 3 tasks x 10 prompts and 20 sequences."""
    rng = np.random.default_rng(seed)
    effects = noise[0] * rng.normal(size=(3, 12, 12, 10)) + fv[..., None]
    shares = (
        0.02 + noise[1] * 0.01 * rng.normal(size=(12, 12, 20)) + induction[..., None]
    )
    arrays = {
        "fv/effects_by_prompt": effects,
        "score/function_vector": effects.mean((0, 3)),
        "score/function_vector_se": np.sqrt(
            (effects.var(-1, ddof=1) / 10).sum(0)
        ) / 3,
        "score/induction": shares.mean(-1),
        "score/induction_se": shares.std(-1, ddof=1) / np.sqrt(20),
    }  # fmt: skip
    result = {
        "scores": {"function_vector": {"chance": 0.0}, "induction": {"chance": 0.02}},
        "config": {"scores": {"sequences": 20, "corrupted_prompts": 10}},
    }
    return Run(Path("run"), result, arrays)


def differing(kind: str, seed: int) -> str:
    """The verdict on the top sets of a simulated run."""
    rng = np.random.default_rng([seed, 1])
    heads = rng.permutation(144)[:12]
    fv, induction = np.zeros(144), np.zeros(144)
    strength = rng.uniform(0.7, 1.0, 6)
    if kind != "no heads":
        fv[heads[:6]] = 2 * strength
        same = heads[:6] if kind == "the same heads" else heads[6:]
        induction[same] = 0.3 * rng.uniform(0.7, 1.0, 6)
    run = scored(fv.reshape(12, 12), induction.reshape(12, 12), seed)
    return next(
        one.verdict for one in claims.of_run(run) if one.name == "top_sets_differ"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "right", "least"),
    [
        ("no heads", "undecided", 0.9),
        ("the same heads", "", 0),
        ("others", "holds", 0.9),
    ],
)
def test_top_sets_differ_only_where_heads_do(kind, right, least):
    found = [differing(kind, seed) for seed in range(20)]
    if kind != "others":
        assert np.mean([one == "holds" for one in found]) <= 0.05
    assert np.mean([one == right for one in found]) >= least
