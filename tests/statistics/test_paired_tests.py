"""Tests of sets on the same prompts, against hand computation, brute force and scipy.

Constants marked scipy or statsmodels were computed once with scipy 1.17.1 and
statsmodels 0.15.0.
"""

import functools
import itertools
import math

import numpy as np
import pytest

from jaxheads.statistics import (
    Interval,
    paired_tests,
    paired_tests as multiple_tests,
    units,
)


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [
        (2.0, 4, 0.11611652351681556), (0.3, 1, 0.8144528418445154),
        (-3.5, 9.5, 0.006188912576336071), (12, 2, 0.00687293367715846),
        (1.96, 1000, 0.050273184955748736), (0, 3, 1.0), (math.inf, 3, 0.0),
        (1.959963984540054, math.inf, 0.05),
    ],
)  # fmt: skip
def test_students_t_is_that_of_scipy(t: float, freedom: float, p: float):
    assert units.student_t_p(t, freedom) == pytest.approx(p, rel=1e-9)


def test_the_quantile_is_the_inverse():
    assert units.student_t_quantile(0.95, 1) == pytest.approx(12.70620474)
    assert units.student_t_quantile(0.95, 4) == pytest.approx(2.77644511)
    assert units.student_t_quantile(0.9, 7.5) == pytest.approx(1.87574747921)
    assert math.isnan(units.student_t_p(math.nan, 3))


# Several tests.

P_VALUES = [0.01, 0.04, 0.03, 0.005, 0.55, 0.04, 0.0008]


def test_adjusted_p_values_are_those_of_statsmodels():
    assert multiple_tests.holm(P_VALUES) == pytest.approx(
        [0.05, 0.12, 0.12, 0.03, 0.55, 0.12, 0.0056]
    )
    assert multiple_tests.benjamini_hochberg(P_VALUES) == pytest.approx(
        [0.07 / 3, 0.14 / 3, 0.14 / 3, 0.0175, 0.55, 0.14 / 3, 0.0056]
    )


def test_adjustment_by_hand():
    # Holm: 3 x 0.01, then max(0.03, 2 x 0.02), then max(0.04, 0.9).
    assert multiple_tests.holm([0.02, 0.9, 0.01]) == pytest.approx([0.04, 0.9, 0.03])
    # Benjamini-Hochberg: from the top, 0.9, min(0.9, 0.03), min(0.03, 0.03).
    assert multiple_tests.benjamini_hochberg([0.02, 0.9, 0.01]) == pytest.approx(
        [0.03, 0.9, 0.03]
    )


@pytest.mark.parametrize(
    "adjust", [multiple_tests.holm, multiple_tests.benjamini_hochberg]
)
def test_tests_that_were_not_made_do_not_count(adjust):
    made = adjust([math.nan, 0.02, math.nan, 0.03])
    np.testing.assert_allclose(made[[1, 3]], adjust([0.02, 0.03]))
    assert np.isnan(made[[0, 2]]).all()
    assert adjust([]).shape == (0,)
    assert np.isnan(adjust([math.nan])).all()
    assert (adjust([0.9, 0.8]) <= 1).all()


# Answers that are right or wrong.


def answers(only_a: int, only_b: int, both: int = 4) -> tuple[np.ndarray, np.ndarray]:
    a = [1] * only_a + [0] * only_b + [1] * both
    b = [0] * only_a + [1] * only_b + [1] * both
    return np.array(a), np.array(b)


@pytest.mark.parametrize("split", [*itertools.product(range(6), range(6))])
def test_mcnemar_is_the_share_of_tosses_as_uneven(split: tuple[int, int]):
    only_a, only_b = split
    tosses = [sum(t) for t in itertools.product((0, 1), repeat=only_a + only_b)]
    uneven = [abs(2 * heads - only_a - only_b) for heads in tosses]
    found = paired_tests.mcnemar(*answers(only_a, only_b))
    assert found[:2] == split
    assert found.p == pytest.approx(np.mean(np.array(uneven) >= abs(only_a - only_b)))


def test_mcnemar_of_statsmodels():
    assert paired_tests.mcnemar(*answers(12, 3)).p == pytest.approx(0.03515625)
    with pytest.raises(ValueError, match="0 or 1"):
        paired_tests.mcnemar(np.array([0.5]), np.array([1]))


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 2), (30, 14), (0, 3), (5, 5)])
def test_flips_of_answers_are_mcnemars_test(only_a: int, only_b: int):
    a, b = answers(only_a, only_b)
    exact = paired_tests.mcnemar(a, b).p
    assert paired_tests.sign_flip_p(a - b, seed=0) == pytest.approx(exact)


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 998), (480, 521), (1000, 1000)])
def test_many_answers_have_the_exact_tail(only_a: int, only_b: int):
    total, fewer = only_a + only_b, min(only_a, only_b)
    exact = 2 * sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total
    found = paired_tests.mcnemar(*answers(only_a, only_b))
    assert found.p == pytest.approx(min(1, exact), rel=1e-9)


# Values.


def test_flips_go_through_every_sign_pattern():
    values = np.array([1.2, -0.4, 0.8, 2.1, 0.3])
    assert paired_tests.sign_flip_p(values, seed=0) == pytest.approx(0.1875)  # scipy
    sums = [np.dot(s, values) for s in itertools.product((1, -1), repeat=5)]
    above = np.mean(np.array(sums) >= values.sum() - 1e-12)
    below = np.mean(np.array(sums) <= values.sum() + 1e-12)
    flipped = functools.partial(paired_tests.sign_flip_p, values, seed=0)
    assert flipped(alternative="greater") == pytest.approx(above)
    assert flipped(alternative="less") == pytest.approx(below)


def test_random_flips_are_near_all_of_them():
    values = np.random.default_rng(0).normal(0.4, 1, (2, 8))
    sums = np.array(list(itertools.product((1, -1), repeat=16))) @ values.ravel()
    exact = np.mean(np.abs(sums) >= abs(values.sum()) - 1e-12)
    got = paired_tests.sign_flip_p(values, seed=3)
    assert got == pytest.approx(exact, abs=4 * math.sqrt(exact / 9999))
    assert got == paired_tests.sign_flip_p(values, seed=3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_differences_that_are_not_finite_have_no_p_value(value: float):
    assert math.isnan(paired_tests.sign_flip_p(np.array([value, 1.0]), seed=0))
    assert math.isnan(paired_tests.sign_flip_p(np.array([value] * 20), seed=0))


def test_flips_of_queries_are_flips_of_their_sums():
    values = np.array([[1.2, -0.4, 0.8, 2.1, 0.3, -0.2], [0.5, 0.1, -0.9, 0.4, 1, 0.6]])
    queries = np.array([[2, 2, 0, 1, 1, 0], [0, 1, 2, 1, 0, 0]])
    sums = [1.2 - 0.4, 0.8 - 0.2, 2.1 + 0.3, 0.5 + 1 + 0.6, 0.1 + 0.4, -0.9]
    found = paired_tests.sign_flip_p(values, 0, queries=queries)
    assert found == pytest.approx(paired_tests.sign_flip_p(np.array(sums), 0))
    made = np.array([*itertools.product((1, -1), repeat=6)]) @ sums
    assert found == pytest.approx(np.mean(np.abs(made) >= sum(sums) - 1e-9))


def test_flips_of_nothing():
    assert paired_tests.sign_flip_p(np.zeros((3, 4)), seed=0) == 1.0
    padded = np.array([1.0, 0, 2.0, 0, 3.5])
    assert paired_tests.sign_flip_p(padded, 0) == paired_tests.sign_flip_p(
        padded[padded > 0], 0
    )


# Random sets.


def test_a_set_among_draws_by_hand():
    draws = np.array([[[0.0, 1.0]], [[1.0, 1.0]], [[0.0, 0.0]]])  # means .5, 1, 0
    found = paired_tests.against_draws(np.array([[0.0, 1.0]]), draws, seed=0)
    assert (found.below, found.ties, found.draws, found.rank) == (1, 1, 3, 2.5)
    paired = np.array([0 - 1 / 3, 1 - 2 / 3])
    variance = paired.var(ddof=1) / 2 + np.var([0.5, 1, 0], ddof=1) / 3
    assert found.difference.mean == pytest.approx(0)
    assert found.difference.variance == pytest.approx(variance)
    assert found.p_draws == pytest.approx(1.0)


def test_one_draw_tells_nothing_of_others():
    found = paired_tests.against_draws(np.zeros(9), np.ones((1, 9)), seed=0)
    assert found.p_prompts == pytest.approx(2 / 2**9)
    assert math.isnan(found.p_draws) and math.isnan(found.p)


@pytest.mark.parametrize("count", [2, 5, 19])
def test_draws_that_tie_leave_the_rank(count: int):
    found = paired_tests.against_draws(np.zeros(9), np.ones((count, 9)), seed=0)
    assert found.p_draws == 1 / (count + 1)
    same = paired_tests.against_draws(np.ones(9), np.ones((count, 9)), seed=0)
    assert same.p_draws == 1 and same.ties == count
    # A tie that rounding hides is one.
    close = np.ones((count, 9)) + 1e-15 * np.arange(count)[:, None]
    assert paired_tests.against_draws(np.zeros(9), close, 0).p_draws > 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_have_no_p_against_draws(value: float):
    draws = np.random.default_rng(0).random((3, 9))
    found = paired_tests.against_draws(np.r_[value, np.zeros(8)], draws, 0)
    assert math.isnan(found.p_prompts) and math.isnan(found.p)
    draws[1, 2] = value
    found = paired_tests.against_draws(np.zeros(9), draws, 0)
    assert math.isnan(found.p_prompts) and math.isnan(found.p_draws)


def test_a_set_against_draws_counts_queries():
    rng = np.random.default_rng(0)
    values, draws = rng.random((1, 8)), rng.random((4, 1, 8))
    queries = np.repeat(np.arange(8), 5)[None]
    once = paired_tests.against_draws(values, draws, 0)
    repeated = (np.repeat(values, 5, -1), np.repeat(draws, 5, -1))
    found = paired_tests.against_draws(*repeated, 0, queries)
    assert found.difference.interval() == pytest.approx(once.difference.interval())
    assert found.p_prompts == pytest.approx(once.p_prompts)
    assert found.p_draws == pytest.approx(once.p_draws)


def test_one_more_random_set_is_seldom_unlike_the_others():
    rng = np.random.default_rng(0)
    below = []
    for _ in range(400):
        easy = rng.normal(0, 1, 20)  # prompts are shared, sets differ
        sets = rng.normal(0, 1, (6, 1)) + easy + rng.normal(0, 0.5, (6, 20))
        found = paired_tests.against_draws(sets[0], sets[1:], seed=0)
        below.append((found.p_draws < 0.05, found.p_prompts < 0.05))
    by_draws, by_prompts = np.mean(below, axis=0)
    assert by_draws == pytest.approx(0.05, abs=0.03)
    assert by_prompts > 0.5  # it is unlike these draws: why the other test is needed


def test_equivalence_by_the_interval():
    assert paired_tests.equivalence(Interval(0, -0.04, 0.04), 0.05) == "equal"
    assert paired_tests.equivalence(Interval(0.02, -0.02, 0.06), 0.05) == "undecided"
    assert paired_tests.equivalence(Interval(-0.1, -0.15, -0.05), 0.05) == "different"
