"""Numbers of two rankings, and how sure they are, against formulas and brute force."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from jaxheads import statistics
from jaxheads.heads import top
from jaxheads.runs import Run
from jaxheads.studies import claims
from jaxheads.studies.scores import numbers, uncertainty

SHAPE = (12, 11)  # 132 heads: top sets of 3 and 7


def run_of(fv: np.ndarray, induction: np.ndarray, error: float = 1e-6, **arrays) -> Run:
    named = {"function_vector": fv, "induction": induction}
    scores = {f"score/{name}": values for name, values in named.items()}
    spread = {f"{name}_se": np.full(fv.shape, error) for name in scores}
    model = {"source": "made up", "num_layers": len(fv), "num_heads": fv.shape[1]}
    result = {"model": model, "scores": {name: {} for name in named}}
    result["config"] = {"scores": {"sequences": 40, "corrupted_prompts": 40}}
    return Run(Path("run"), result, scores | spread | arrays)


def random_scores(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.3, 0.1, shape)


def by_name(run: Run) -> dict[str, numbers.Number]:
    return {number.name: number for number in numbers.numbers(run)}


def test_values_are_those_of_the_scores():
    fv, induction = random_scores(0), random_scores(1)
    found = by_name(run_of(fv, induction))
    tops = top(fv, 3), top(induction, 3)
    assert found["overlap_0.02"].value == statistics.overlap(*tops)
    assert found["overlap_0.02"].chance == pytest.approx(3 / 132)
    assert found["fv_heads_percentile_0.02"].value == pytest.approx(
        statistics.percentile_of(induction, tops[0])
    )
    assert found["induction_heads_percentile_0.02"].value == pytest.approx(
        statistics.percentile_of(fv, tops[1])
    )
    layers = [np.nonzero(heads)[0].mean() for heads in tops]
    assert found["depth_difference_0.02"].value == pytest.approx(layers[0] - layers[1])
    weights = np.sort(fv.ravel())[-3:]
    at = np.argsort(fv.ravel())[-3:] // 11
    assert found["fv_depth_0.02"].value == pytest.approx(weights @ at / weights.sum())
    assert found["spearman"].value == pytest.approx(statistics.spearman(fv, induction))
    assert found["fv_max"].value == fv.max()
    assert found["induction_top"].value == pytest.approx(
        np.sort(induction.ravel())[-3:].mean()
    )
    assert found["fv_mean"].value == pytest.approx(fv.mean())


def test_where_there_is_no_noise_there_is_no_interval():
    found = by_name(run_of(random_scores(0), random_scores(1), error=0.0))
    for name in ("overlap_0.05", "depth_difference_0.05", "fv_top"):
        number = found[name]
        assert number.low == pytest.approx(number.value)
        assert number.high == pytest.approx(number.value)


def test_the_interval_of_a_strength_is_that_of_the_errors():
    found = by_name(run_of(random_scores(0), random_scores(1), error=0.01))
    width = found["fv_mean"].high - found["fv_mean"].low
    assert width == pytest.approx(2 * 1.96 * 0.01 / math.sqrt(132), rel=0.15)


def test_a_run_with_one_score_has_no_numbers():
    run = run_of(random_scores(0), random_scores(1))
    del run.arrays["score/induction"]
    assert numbers.numbers(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 64), (40, 1)])
def test_models_of_every_size_have_numbers(shape: tuple[int, int]):
    fv, induction = random_scores(0, shape), random_scores(1, shape)
    run = run_of(fv, induction)
    for number in numbers.numbers(run):
        assert number.low <= number.value <= number.high or math.isnan(number.low)
    json.dumps(claims.to_rows(run), allow_nan=False)


# How sure.


def test_prompts_are_resampled_within_tasks_where_a_run_has_them():
    effects = np.random.default_rng(0).normal(size=(3, 4, 5, 8))  # [A, L, H, B]
    scores = effects.mean((0, 3))
    run = run_of(scores, scores, 0.0, **{"fv/effects_by_prompt": effects})
    made = uncertainty.resampled_scores(run, "function_vector", 0, 4000)
    assert made.shape == (4000, 4, 5)
    expected = np.sqrt((effects.var(axis=-1) / 8).sum(0)) / 3
    np.testing.assert_allclose(made.std(0), expected, rtol=0.06)
    assert np.abs(made.mean(0) - scores).max() < 5 * expected.max() / math.sqrt(4000)
    same = uncertainty.resampled_scores(run, "induction", 0, 3)
    np.testing.assert_array_equal(same, np.stack([scores] * 3))  # its errors are 0


def test_noise_that_lowers_an_overlap_is_taken_away():
    rng = np.random.default_rng(4)
    ends, shifts = [], []
    for trial in range(40):
        true = rng.gamma(0.5, 1.0, (10, 10))
        shown = [true + rng.normal(0, 0.3, true.shape) for _ in range(2)]
        run = run_of(*shown, error=0.3)
        made = [
            uncertainty.resampled_scores(run, name, trial, 100) for name in numbers.PAIR
        ]
        overlap = statistics.overlap(*(top(each, 20) for each in shown))
        again = [statistics.overlap(top(a, 20), top(b, 20)) for a, b in zip(*made)]  # noqa: B905
        shifts.append(np.mean(again) - overlap)
        low, high = uncertainty.ranked_interval(overlap, np.array(again))
        assert low <= overlap <= high
        ends.append(high - overlap)
    assert np.mean(shifts) < 0 < np.mean(ends)
    assert np.mean(ends) > 2 * abs(np.mean(shifts))


def test_depth_by_hand():
    heads_a, heads_b = np.zeros((5, 3), bool), np.zeros((5, 3), bool)
    heads_a[[3, 4, 4], [0, 0, 1]] = True
    heads_b[[0, 1, 3], [0, 0, 0]] = True  # head 3.0 is in both
    # Layers 4, 4 against 0, 1: 2 of the 6 divisions are as far apart.
    assert uncertainty.depth_p(heads_a, heads_b) == pytest.approx(2 / 6)
    assert uncertainty.depth_p(heads_a, heads_a) == 1.0
    assert math.isnan(uncertainty.depth_p(heads_a, heads_a & heads_b))


def test_random_divisions_are_near_all_of_them():
    rng = np.random.default_rng(0)
    heads = rng.permutation(np.repeat([0, 1, 2], [9, 9, 82])).reshape(10, 10)
    heads_a, heads_b = heads == 0, heads == 1
    layers = np.concatenate([np.nonzero(heads_a)[0], np.nonzero(heads_b)[0]])
    measured = abs(layers[:9].mean() - layers[9:].mean())
    picks = np.array([*itertools.combinations(range(18), 9)])
    means = layers[picks].mean(1)
    exact = np.mean(np.abs(2 * (means - layers.mean())) >= measured - 1e-9)
    got = uncertainty.depth_p(heads_a, heads_b)
    assert got == pytest.approx(exact, abs=0.02)


def test_spearmans_p_is_that_of_scipy():
    a = np.array([3, 1, 4, 1.5, 5, 9, 2, 6])
    b = np.array([2, 7, 1, 8, 2.8, 1.2, 5, 9.0])
    rho = statistics.spearman(a, b)
    assert uncertainty.spearman_p(rho, 8) == pytest.approx(0.41975308641975)
    # Of 8! orders, that one and its reverse.
    assert uncertainty.spearman_p(1.0, 8) == pytest.approx(2 / 40320)
    assert 0 < uncertainty.spearman_p(-1.0, 400) < 1e-300
    assert math.isnan(uncertainty.spearman_p(0.5, 2))


# The claims that rest on them.


def planted(kind: str) -> Run:
    rng = np.random.default_rng(7)
    shape = (20, 15)  # top sets of 6
    shared = rng.random(shape)
    fv = (kind == "paper") * shared + 0.7 * rng.random(shape)
    induction = shared + 0.7 * rng.random(shape)
    fv_layers, induction_layers = (14, 5) if kind == "paper" else (9, 9)
    fv[fv_layers : fv_layers + 3, :2] += 10
    induction[induction_layers : induction_layers + 3, 2:4] += 10
    return run_of(fv, induction, 0.001)


@pytest.mark.parametrize("kind", ["paper", "nothing"])
def test_claims_of_scores(kind: str):
    made = {one.name: one for one in claims.of_run(planted(kind))}
    expected = {
        "paper": ("holds", "holds", "holds"),
        # Equally deep: the difference is 0, and so is any of interest.
        "nothing": ("holds", "undecided", "too small to matter"),
    }[kind]
    names = ("top_sets_differ", "scores_correlate", "fv_heads_deeper")
    assert tuple(made[name].verdict for name in names) == expected


def test_claims_of_scores_are_refuted():
    run = planted("paper")
    same = dataclasses.replace(
        run,
        arrays=run.arrays | {"score/induction": run.arrays["score/function_vector"]},
    )
    made = {one.name: one for one in claims.of_run(same)}
    assert made["top_sets_differ"].verdict == "does not hold"
    assert made["scores_correlate"].verdict == "holds"
    assert made["fv_heads_deeper"].verdict == "too small to matter"
    arrays = run.arrays | {
        "score/function_vector": run.arrays["score/induction"],
        "score/induction": run.arrays["score/function_vector"],
    }
    swapped = dataclasses.replace(run, arrays=arrays)
    made = {one.name: one for one in claims.of_run(swapped)}
    assert made["fv_heads_deeper"].verdict == "does not hold"
    arrays = run.arrays | {"score/induction": -run.arrays["score/function_vector"]}
    opposite = dataclasses.replace(run, arrays=arrays)
    made = {one.name: one for one in claims.of_run(opposite)}
    assert made["scores_correlate"].verdict == "does not hold"


def test_few_heads_decide_nothing():
    run = run_of(random_scores(0, (4, 4)), random_scores(1, (4, 4)))
    made = {one.name: one for one in claims.of_run(run)}
    assert made["top_sets_differ"].verdict == "undecided"
    assert "too few" in made["top_sets_differ"].evidence
    run.arrays["score/induction"][0, 0] = np.nan
    made = {one.name: one for one in claims.of_run(run)}
    assert made["scores_correlate"].evidence == "Some scores are not numbers."


@pytest.mark.slow
def test_scores_that_do_not_depend_on_another_seldom_correlate():
    made = []
    for trial in range(20):
        run = run_of(random_scores(2 * trial), random_scores(2 * trial + 1))
        definition = [
            one for one in claims.definitions() if one.name == "scores_correlate"
        ]
        made.append(claims.judge(definition, run, claims.Rules())[0].verdict == "holds")
    assert np.mean(made) <= 0.15
