"""Several runs: seeds of one model, and models of several sizes."""

import dataclasses
import math

import numpy as np
import planted_run
import pytest

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies.several_runs import agreement

TRUE = np.random.default_rng(9).gamma(0.3, 0.1, (5, 4))


def scored(seed: int, noise: float, told: float | None = None) -> Run:
    """A run whose scores are the true ones with noise, and tell of some noise."""
    rng = np.random.default_rng(seed)
    run = planted_run.make_run(seed)
    run.result["config"]["seed"] = seed
    return dataclasses.replace(
        run,
        arrays={
            "score/induction": TRUE + rng.normal(0, noise, TRUE.shape),
            "score/induction_se": np.full(TRUE.shape, noise if told is None else told),
        },
    )


def test_seeds_by_hand():
    first = np.array([[0.9, 0.5, 0.1, 0.0]])
    second = np.array([[0.8, 0.9, 0.2, 0.1]])
    runs = [scored(0, 0.1), scored(1, 0.1)]
    for run, values in zip(runs, (first, second), strict=True):
        run.arrays["score/induction"] = values
        run.arrays["score/induction_se"] = np.full((1, 4), 0.1)
    found = agreement.seed_agreement(runs, "induction", share=0.5)
    assert found is not None
    assert found.leaders == ("0.0", "0.1") and not found.same_leader
    assert found.leader_scores == (0.9, 0.9)
    assert found.rank_correlation == pytest.approx(0.8)  # 1 - 6 x 2 / (4 x 15)
    assert (found.count, found.jaccard) == (2, 1.0)
    best = found.heads[0]
    assert (best.name, best.rank) == ("0.0", 1.5)
    assert best.mean == pytest.approx(0.85)
    assert best.deviation == pytest.approx(0.1 / math.sqrt(2))
    # Deviations 0.0707 and 0.283 of the two top heads, in units of 0.1.
    assert found.ratio == pytest.approx(math.sqrt((0.5 + 8) / 2))
    assert agreement.seed_agreement(runs[:1], "induction") is None
    assert agreement.seed_agreement(runs, "copying") is None


def test_seeds_agree_where_noise_is_small_and_not_where_it_is_large():
    quiet = agreement.seed_agreement([scored(n, 1e-4) for n in range(5)], "induction")
    loud = agreement.seed_agreement([scored(n, 10.0) for n in range(5)], "induction")
    assert quiet is not None and loud is not None
    assert quiet.same_leader and not loud.same_leader
    assert quiet.rank_correlation > 0.9 > 0.3 > loud.rank_correlation
    assert quiet.seeds == (0, 1, 2, 3, 4)


def test_seeds_are_a_row_a_model_and_score():
    runs = [scored(n, 1e-4) for n in range(3)]
    for run in runs:
        run.result["scores"] = {"induction": {}}
    made = agreement.table([*runs, of_size(0, 1e9, 0.3)])
    assert made is not None
    (row,) = made.rows
    found = agreement.seed_agreement(runs, "induction")
    assert found is not None
    ratio = words.with_interval(found.ratio, found.ratio_low, found.ratio_high)
    assert [row[n].text for n in (2, 3, 7)] == [
        "3",
        f"{found.leaders[0]} in all",
        ratio,
    ]
    assert agreement.table([of_size(0, 1e9, 0.3)]) is None


@pytest.mark.parametrize(("told", "true"), [(0.01, 1.0), (0.005, 2.0), (0.02, 0.5)])
def test_errors_are_held_against_the_deviation_over_seeds(told: float, true: float):
    runs = [scored(n, 0.01, told) for n in range(8)]
    found = agreement.seed_agreement(runs, "induction", share=0.5)
    assert found is not None
    assert found.ratio_low < true < found.ratio_high
    assert found.ratio == pytest.approx(true, rel=0.25)


def test_the_interval_of_the_ratio_holds_it_in_95_percent():
    inside = []
    for trial in range(150):
        runs = [scored(1000 * trial + n, 0.01) for n in range(3)]
        found = agreement.seed_agreement(runs, "induction", share=0.1)
        assert found is not None
        inside.append(found.ratio_low < 1 < found.ratio_high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.05)


# Sizes.


def of_size(seed: int, params: float, induction: float) -> Run:
    costs = {"function_vector": 0.8, "induction": induction}
    run = planted_run.make_run(seed, costs=costs, prompts=20)
    model = run.result["model"]
    model |= {"num_params": int(params), "params_sha256": f"{params:.0f}"}
    return run


SIZES = (7e7, 1.6e8, 4.1e8, 1e9, 2.8e9, 6.9e9)


def growth(runs: list[Run]) -> Claim:
    (claim,) = agreement.claims_of_runs(runs)
    return claim


@pytest.mark.parametrize(
    ("last", "first", "verdict"), [(0.0, 0.75, "holds"), (0.75, 0.0, "does not hold")]
)
def test_a_gap_that_grows(first: float, last: float, verdict: str):
    costs = np.linspace(first, last, len(SIZES))
    runs = [of_size(n, *pair) for n, pair in enumerate(zip(SIZES, costs, strict=True))]
    claim = growth(runs)
    assert claim.verdict == verdict
    right = [run.arrays["ablation/first_token"].mean((1, 2)) for run in runs]
    # Sets 2 and 5: FV and induction heads with exclusion.
    gaps = [float(each[5] - each[2]) for each in right]
    slope = np.polyfit(np.log10(SIZES), gaps, 1)[0]
    assert claim.effect == pytest.approx(slope)
    assert growth(runs[::-1]).p == pytest.approx(claim.p)


def test_a_gap_of_any_size_is_no_growth():
    rng = np.random.default_rng(3)
    held = 0
    for trial in range(8):
        costs = rng.uniform(0, 0.75, len(SIZES))
        runs = [of_size(50 * trial + n, *p) for n, p in enumerate(zip(SIZES, costs))]  # noqa: B905
        held += growth(runs).verdict == "holds"
    assert held <= 2


def test_few_sizes_make_no_trend():
    two = [of_size(n, size, 0.1) for n, size in enumerate(SIZES[:2])]
    assert growth(two).verdict == "not measured"
    assert "2 sizes" in growth(two).evidence
    four = [of_size(n, size, 0.9 - 0.2 * n) for n, size in enumerate(SIZES[:4])]
    assert growth(four).verdict == "undecided"
    assert growth([]).verdict == "not measured"


def test_seeds_of_a_model_are_one_point():
    runs = [of_size(n, size, 0.7 - 0.13 * n) for n, size in enumerate(SIZES)]
    again = [of_size(n + 90, size, 0.7 - 0.13 * n) for n, size in enumerate(SIZES)]
    groups = agreement.by_model([*runs, *again])
    assert [len(group) for group in groups.values()] == [2] * len(SIZES)
    both = growth([*runs, *again]).effect
    assert both == pytest.approx((growth(runs).effect + growth(again).effect) / 2)
