"""Verdicts on runs of known truth: how often they are wrong, and what they see."""

from typing import Any

import numpy as np
import planted_run
import pytest

from jaxheads.statistics.claims import Claim, Rules, detectable, judge
from jaxheads.studies import claims

CLEAN = planted_run.CLEAN
JUDGED = [
    one
    for one in claims.definitions()
    if one.family in ("few-shot accuracy", "token loss")
]
KINDS = ("function_vector", "induction", "uniform", "layer_matched")
EVEN = dict.fromkeys(KINDS, 0.3) | {
    "keep_only_random": 0.5,
    "keep_only:function_vector": 0.5,
}
LOSS = dict.fromkeys(KINDS, 0.2)

TRUTHS: dict[str, dict[str, Any]] = {
    "no effect": {"costs": EVEN, "loss_costs": LOSS},
    "every set its own effect": {"costs": EVEN, "loss_costs": LOSS, "spread": 0.1},
    "shared queries": {"costs": EVEN, "loss_costs": LOSS, "spread": 0.1, "queries": 5},
    "FV effect": {
        "costs": EVEN | {"function_vector": 0.55, "keep_only:function_vector": 0.3},
        "loss_costs": LOSS | {"function_vector": 0.4},
        "spread": 0.05,
    },
    "induction effect": {
        "costs": EVEN | {"induction": 0.55},
        "loss_costs": LOSS | {"induction": 0.5},
        "spread": 0.05,
    },
    "effects of the smallest size": {  # a tenth of the clean value
        "costs": EVEN | {"function_vector": 0.4, "keep_only:function_vector": 0.4},
        "loss_costs": LOSS | {"induction": 0.3},
        "spread": 0.02,
    },
    "effects of the smallest size, the other way": {
        "costs": EVEN | {"induction": 0.4, "keep_only:function_vector": 0.6},
        "loss_costs": LOSS | {"function_vector": 0.3},
        "spread": 0.02,
    },
}


def truth(costs: dict[str, float], loss_costs: dict[str, float]) -> dict[str, float]:
    """The true effect of each claim, in its unit."""
    fv, induction = costs["function_vector"], costs["induction"]
    kept = costs["keep_only_random"] - costs["keep_only:function_vector"]
    loss = loss_costs["induction"] - loss_costs["function_vector"]
    return {
        "fv_matters_more": CLEAN * (fv - induction),
        "fv_matters_more_excluded": CLEAN * (fv - induction),
        "fv_worse_than_random_excluded": CLEAN * (fv - costs["uniform"]),
        "induction_like_random_excluded": CLEAN * (costs["uniform"] - induction),
        "fv_worse_than_layer_matched": CLEAN * (fv - costs["layer_matched"]),
        "fv_alone_keeps_more": CLEAN * kept,
        "zero_shot_less_affected": 0.0,  # planted sets cost the same share of both
        "induction_matters_more_for_loss": loss,
        "accuracy_and_loss_differ": fv - induction + loss,
    }


def is_wrong(claim: Claim, true: float) -> bool:
    """Whether a verdict says what is not so; no verdict, no error."""
    no_difference = claim.name == "induction_like_random_excluded"
    # The margin of a claim is a share of what was measured, not of the true value.
    edge = 0.95 * claim.smallest
    null = -edge if no_difference else 0.0
    return {
        "holds": true <= null,
        "does not hold": true >= null,
        "too small to matter": abs(true) >= edge,
    }.get(claim.verdict, False)


def wrong_shares(name: str, runs: int) -> dict[str, float]:
    """By verdict, the share of runs in which any claim is given it wrongly."""
    options = TRUTHS[name]
    true = truth(options["costs"], options["loss_costs"])
    wrong: dict[str, set[int]] = {
        verdict: set() for verdict in ("holds", "does not hold", "too small to matter")
    }
    for seed in range(runs):
        run = planted_run.make_run(7000 + seed, draws=10, **options)
        for claim in judge(JUDGED, run, Rules()):
            if is_wrong(claim, true[claim.name]):
                wrong[claim.verdict].add(seed)
    return {verdict: len(seeds) / runs for verdict, seeds in wrong.items()}


def test_every_claim_on_ablations_has_a_truth():
    for options in TRUTHS.values():
        named = truth(options["costs"], options["loss_costs"])
        assert list(named) == [one.name for one in JUDGED]


@pytest.mark.parametrize("name", ["every set its own effect", "shared queries"])
def test_the_court_is_seldom_wrong(name: str):
    assert max(wrong_shares(name, 8).values()) <= 1 / 8


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUTHS)
def test_the_court_is_wrong_in_5_percent_of_runs_at_most(name: str):
    runs = 150
    noise = 2 * np.sqrt(0.05 * 0.95 / runs)
    wrong = wrong_shares(name, runs)
    assert max(wrong.values()) <= 0.05 + noise, wrong


def found_share(gap: float, draws: int, runs: int) -> float:
    """Share of runs that find how much more FV heads cost than induction heads."""
    costs = dict.fromkeys(KINDS, 0.1) | {"function_vector": 0.1 + gap / CLEAN}
    few_shot = [one for one in JUDGED if one.family == "few-shot accuracy"]
    held = 0
    for seed in range(runs):
        run = planted_run.make_run(seed, draws=draws, costs=costs, spread=0.03)
        held += judge(few_shot, run, Rules())[0].verdict == "holds"
    return held / runs


@pytest.mark.slow
def test_power_grows_with_the_random_sets():
    found = [found_share(0.25, draws, 60) for draws in (3, 10, 20)]
    assert found[0] < 0.35 and found[1] > 0.5 and found[2] > 0.7, found


@pytest.mark.slow
def test_the_power_that_is_stated_is_there():
    costs = dict.fromkeys(KINDS, 0.1) | {"function_vector": 0.4}
    told = [
        judge(
            JUDGED,
            planted_run.make_run(seed, draws=20, costs=costs, spread=0.03),
            Rules(),
        )[0]
        for seed in range(20)
    ]
    effect = float(np.mean([one.detectable for one in told]))
    assert found_share(effect, 20, 60) == pytest.approx(0.8, abs=0.12)


def test_what_can_be_found_by_hand():
    # One test with a known error: 1.96 + 0.84 errors, as in textbooks.
    assert detectable([(0.1, np.inf)], 0.05) == pytest.approx(0.28016, abs=1e-5)
    # Of several, the one that sees least; and fewer random sets see less.
    assert detectable([(0.1, np.inf), (0.2, 9)], 0.05) == pytest.approx(
        0.2 * (2.262157 + 0.883404), abs=1e-5
    )
    assert np.isnan(detectable([], 0.05))
