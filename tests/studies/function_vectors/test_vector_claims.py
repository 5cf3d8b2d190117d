"""Claims of function vectors and of training, on planted numbers."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies import claims
from jaxheads.studies.dynamics import claims as training_claims

LAYERS, LAYER = (0, 2, 4, 6), 2  # the vector is judged at layer 2, place 1


def judged(run: Run) -> dict[str, Claim]:
    return {claim.name: claim for claim in claims.of_run(run)}


def executed(
    seed: int = 0,
    *,
    zero: float = 0.1,
    shuffled: float = 0.3,
    vector: float = 0.5,
    random: float = 0.1,
    clean: float = 0.7,
    tasks: int = 5,
    prompts: int = 40,
) -> Run:
    """Answers with a vector at a third of the layers; elsewhere it does nothing."""
    rng = np.random.default_rng(seed)
    luck = rng.random((tasks, prompts))

    def right(share: float) -> np.ndarray:
        again = rng.random(luck.shape) < 0.2
        return np.where(again, rng.random(luck.shape), luck) < share

    def layers(before: float, at: float) -> np.ndarray:
        shares = [at if layer == LAYER else before for layer in LAYERS]
        return np.stack([right(share) for share in shares], axis=1)  # [U, X, B]

    arrays: dict[str, np.ndarray] = {
        "clean": right(clean),
        "zero_shot": right(zero),
        "shuffled": right(shuffled),
        "zero_shot_vector": layers(zero, vector),
        "shuffled_vector": layers(shuffled, vector),
        "zero_shot_random": np.stack([layers(zero, random) for _ in range(3)], axis=1),
    }
    named = {f"execution/right/{name}": values for name, values in arrays.items()}
    named["execution/layers"] = np.array(LAYERS)
    named["execution/queries"] = np.tile(np.arange(prompts), (tasks, 1))
    result: dict[str, Any] = {"model": {}, "execution": {"layer": LAYER}}
    return Run(Path("run"), result, named)


NAMES = ("vector_raises_zero_shot", "vector_raises_shuffled", "random_vectors_do_not")


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({}, ("holds", "holds", "holds")),
        ({"zero": 0.6, "vector": 0.1}, ("does not hold", "does not hold", "holds")),
        ({"random": 0.5}, ("holds", "holds", "does not hold")),
        ({"clean": 0.0}, ("undecided",) * 3),
    ],
)
def test_vectors_are_judged(planted: dict, expected: tuple[str, ...]):
    made = judged(executed(**planted))
    assert tuple(made[name].verdict for name in NAMES) == expected


def test_gains_are_those_at_a_third_of_the_layers():
    run = executed()
    made = judged(run)
    right = {
        name.removeprefix("execution/right/"): values.astype(float)
        for name, values in run.arrays.items()
    }
    for name, kind in zip(NAMES, ("zero_shot", "shuffled"), strict=False):
        gain = right[f"{kind}_vector"][:, 1].mean() - right[kind].mean()
        assert made[name].effect == pytest.approx(gain)
    lost = right["zero_shot"].mean() - right["zero_shot_random"][:, :, 1].mean()
    assert made["random_vectors_do_not"].effect == pytest.approx(lost)


def test_vectors_that_do_nothing_seldom_raise():
    held = [
        judged(executed(seed, zero=0.3, shuffled=0.3, vector=0.3))[name].verdict
        for seed in range(20)
        for name in NAMES[:2]
    ]
    assert held.count("holds") <= 4  # of 40 at one in 20


def test_a_query_that_is_asked_twice_counts_once():
    run = executed(zero=0.3, vector=0.5)
    twice = {
        name: np.repeat(array, 2, axis=-1) if "/right/" in name else array
        for name, array in run.arrays.items()
    }
    numbers = np.repeat(twice.pop("execution/queries"), 2, axis=1)
    apart = dataclasses.replace(run, arrays=twice)  # as older runs are
    together = dataclasses.replace(apart, arrays=twice | {"execution/queries": numbers})
    once, apart, together = (judged(each)[NAMES[0]] for each in (run, apart, together))
    assert (together.low, together.high) == pytest.approx((once.low, once.high))
    assert together.p == pytest.approx(once.p, abs=0.01)
    assert apart.high - apart.low < 0.8 * (once.high - once.low)


def test_runs_without_random_vectors_or_layers():
    run = executed()
    arrays = {k: v for k, v in run.arrays.items() if not k.endswith("_random")}
    made = judged(dataclasses.replace(run, arrays=arrays))
    assert made[NAMES[0]].verdict == "holds"
    assert made[NAMES[2]].verdict == "not measured"


# Training.


def trained(
    induction: int = 1000, fv: int = 16000, share: float = 1.0, p: float = 0.001
) -> Run:
    def date(step: int) -> dict[str, Any]:
        told = {"step": step, "low": step, "high": step, "after": step}
        return {"final": told | {"before": None, "reason": ""}}

    first = {"induction": share, "neither": 0.0, "fv": 1 - share}
    found = {
        "emergence": {"induction": date(induction), "fv": date(fv), "samples": 2000}
        | {"first": {"final": first}},
        "transitions": {"followed": [{}] * 10, "shown": 10, "count": 6}
        | {"expected": {"all heads": 0.4, "within layers": 1.0}}
        | {"p_value": {"all heads": p, "within layers": p / 2}},
    }
    return Run(Path("run"), {"model": {}, "dynamics": found}, {})


def test_induction_first():
    made = judged(trained())["induction_emerges_first"]
    assert made.verdict == "holds"
    assert made.effect == pytest.approx(4)
    assert made.p == pytest.approx(2 / 2001)
    assert made.low == made.high == made.effect
    between = trained()
    between.result["dynamics"]["emergence"]["fv"]["final"]["after"] = 4000
    between.result["dynamics"]["emergence"]["induction"]["final"]["after"] = 250
    made = judged(between)["induction_emerges_first"]
    assert (made.low, made.high) == pytest.approx((2, 6))
    assert judged(trained(share=0.97))["induction_emerges_first"].verdict == "undecided"
    reversed_ = judged(trained(16000, 1000, share=0.0))["induction_emerges_first"]
    assert reversed_.verdict == "does not hold"


def test_heads_that_turned():
    made = judged(trained())["fv_heads_were_induction_heads"]
    assert made.verdict == "holds"
    assert made.effect == pytest.approx(0.6 - 0.1)
    assert made.p == 0.001
    unclear = judged(trained(p=0.2))["fv_heads_were_induction_heads"]
    assert unclear.verdict == "undecided"


def test_a_training_in_which_nothing_emerged():
    run = trained()
    emergence = run.result["dynamics"]["emergence"]
    emergence["first"]["final"] = None
    emergence["fv"]["final"]["reason"] = "no head stands out from chance"
    made = judged(run)["induction_emerges_first"]
    assert made.verdict == "undecided"
    assert made.evidence == "By FV score no head stands out from chance."
    run.result["dynamics"]["transitions"]["shown"] = 0
    assert judged(run)["fv_heads_were_induction_heads"].verdict == "undecided"


def test_wilsons_interval_is_that_of_statsmodels():
    low, high = training_claims.wilson(3, 9)
    assert (low, high) == pytest.approx((0.1205838183869, 0.6457978644196), rel=1e-6)
    low, high = training_claims.wilson(0, 4)
    assert low == pytest.approx(0, abs=1e-12) and 0.4 < high < 0.6
    assert not math.isnan(high)
