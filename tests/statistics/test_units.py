"""Means over queries: against hand computation, loops and the tests of textbooks."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxheads.statistics import units
from jaxheads.statistics.units import ANSWERS, DIFFERENCES, estimate

VALUES = np.array([1.2, -0.4, 0.8, 2.1, 0.3])


def test_an_estimate_is_the_t_test():
    found = estimate(VALUES)
    assert found.interval() == pytest.approx((0.8, -0.3680884357, 1.9680884357))
    assert found.p_above(-0.5) == pytest.approx(0.0182873868)  # scipy
    assert found.p_above(0.8) == pytest.approx(0.5)
    _, p = stats.ttest_1samp(VALUES, 0)
    assert found.p_other() == pytest.approx(p)
    assert found.p_other(0.8) == pytest.approx(1)


def test_an_estimate_has_the_prompts_noise_within_tasks():
    values = np.array([[0.0, 1.0, 2.0], [10.0, 10.0, 10.0]])
    found = estimate(values)
    # Variances of the tasks' means: 1 / 3 and 0; of their mean: the sum over 4. One
    # task alone says how prompts vary: two degrees of freedom.
    assert found[:3] == pytest.approx((5.5, 1 / 12, 2.0))
    assert estimate(np.array([[0.0, 1, 2], [3, 4, 5]])).freedom == pytest.approx(4)
    # One prompt a task: the tasks are the sample.
    assert estimate(values[:, :1])[:3] == pytest.approx((5, 25, 1))
    alone = estimate(np.array([[3.0]]))
    assert alone.interval() == (3.0, -math.inf, math.inf)
    assert math.isnan(alone.p_above(0))


def test_the_variance_of_queries_by_hand():
    values = np.array([[1.0, 1.0, 0.0, -1.0], [0.0, 1.0, 1.0, 1.0]])
    queries = np.array([[0, 0, 1, 2], [5, 6, 6, 6]])
    found = estimate(values, queries)
    assert found.mean == values.mean()
    # Sums of queries minus the task's mean times their prompts.
    first = np.array([2, 0, -1]) - 0.25 * np.array([2, 1, 1])
    second = np.array([0, 3]) - 0.75 * np.array([1, 3])
    variance = 3 / 2 * (first**2).sum() + 2 * (second**2).sum()
    assert found.variance == pytest.approx(variance / 8**2)


def test_the_order_and_the_numbers_of_queries_do_not_matter():
    rng = np.random.default_rng(0)
    values, queries = rng.random((3, 20)), rng.integers(0, 7, (3, 20))
    order = rng.permuted(np.tile(np.arange(20), (3, 1)), axis=1)
    shuffled = (np.take_along_axis(each, order, 1) for each in (values, queries))
    other = estimate(*shuffled, bounds=ANSWERS)
    expected = estimate(values, 5 - 3 * queries, bounds=ANSWERS)
    np.testing.assert_allclose(other[:4], expected[:4])
    # Numbers of one task say nothing of another's.
    apart = estimate(values, queries + 100 * np.arange(3)[:, None], bounds=ANSWERS)
    np.testing.assert_allclose(apart[:4], expected[:4])


def test_repeated_prompts_say_nothing_more():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2, (2, 15))
    queries = np.repeat(np.tile(np.arange(15), (2, 1)), 4, axis=1)
    once = estimate(values, bounds=ANSWERS)
    found = estimate(np.repeat(values, 4, axis=1), queries, bounds=ANSWERS)
    assert found.interval() == pytest.approx(once.interval())


def test_sets_share_the_work_and_give_what_each_gives_alone():
    rng = np.random.default_rng(2)
    values, queries = rng.random((4, 2, 9)), rng.integers(0, 5, (2, 9))
    for bounds in (ANSWERS, None):
        found = estimate(values, queries, bounds=bounds, seed=3).interval()
        for n in range(4):
            one = estimate(values[n], queries, bounds=bounds, seed=3).interval()
            assert [part[n] for part in found] == pytest.approx(one)


def test_prompts_that_do_not_count_are_not_there():
    rng = np.random.default_rng(3)
    values, counted = rng.random((3, 8)), np.ones((3, 8), bool)
    counted[0, 5:], counted[2] = False, False
    found = estimate(values, counted=counted)
    assert found.mean == pytest.approx((values[0, :5].mean() + values[1].mean()) / 2)
    spread = values[0, :5].var(ddof=1) / 5 + values[1].var(ddof=1) / 8
    assert found.variance == pytest.approx(spread / 4)


def test_a_paired_difference_leaves_out_what_the_sides_share():
    rng = np.random.default_rng(4)
    shared = 10 * rng.normal(size=(4, 25))
    a, b = shared + 0.1 * rng.normal(size=shared.shape) + 1, shared
    got = estimate(a - b).interval()
    assert got.low < 1 < got.high and got.high - got.low < 0.2


@pytest.mark.parametrize(
    ("values", "queries"),
    [
        (np.zeros((2, 0)), None),
        (np.zeros(3), np.zeros(4)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
    ],
)
def test_shapes_that_do_not_fit_are_refused(values, queries):
    with pytest.raises(ValueError, match=r"shape|queries are"):
        estimate(values, queries)


def test_nothing_that_counts_is_refused():
    with pytest.raises(ValueError, match="no prompt counts"):
        estimate(np.zeros(3), counted=np.zeros(3, bool))


@pytest.mark.parametrize("bounds", [None, ANSWERS])
def test_values_that_are_not_finite_are_not_hidden(bounds):
    found = estimate(np.array([1.0, math.nan, 0.0]), bounds=bounds, seed=0)
    assert np.isnan(found.interval()).all() and math.isnan(found.p_other())
    found = estimate(np.array([1.0, math.inf, 0.0]), bounds=bounds, seed=0)
    assert math.isnan(found.variance) and math.isnan(found.p_other())
    sets = estimate(np.array([[[1.0, math.nan]], [[0.5, 0.7]]]), bounds=bounds)
    np.testing.assert_array_equal(np.isnan(sets.interval().low), [True, False])


# Bounded values.


def test_answers_have_the_interval_of_agresti_and_coull():
    """With Student's t of 39 degrees of freedom in place of the normal's."""
    right = np.array([1] * 4 + [0] * 36)
    mean, error = 6 / 44, math.sqrt(6 / 44 * 38 / 44 / 44)
    # The variance of a sample is n / (n - 1) times the binomial's.
    spread = 0.1 * 0.9 / 39
    squares = 40**2 * spread + 40 * (0.1 - mean) ** 2
    squares += 2 * mean**2 + 2 * (1 - mean) ** 2
    assert math.sqrt(squares) / 44 == pytest.approx(error, rel=0.01)
    half = 2.0226909 * math.sqrt(squares) / 44
    expected = (0.1, mean - half, mean + half)
    assert estimate(right, bounds=ANSWERS).interval() == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_answers_that_all_agree_are_still_a_sample(value: float):
    mean, low, high = estimate(np.full(20, value), bounds=ANSWERS).interval()
    assert mean == value and 0 <= low <= value <= high <= 1
    assert 0.15 < high - low < 0.25
    # Asked of four queries it says much less.
    four = np.repeat(np.arange(4), 5)
    found = estimate(np.full(20, value), four, bounds=ANSWERS).interval()
    assert found.high - found.low > 2 * (high - low)


def test_no_difference_is_not_sure_to_be_none():
    found = estimate(np.zeros(37), bounds=DIFFERENCES)
    # Of 37 prompts that do not differ a tenth of others may: 0.9^37 = 0.02.
    assert found.p_above(-0.1) == pytest.approx(0.9**37, abs=0.01)
    assert found.p_above(0.1) > 0.97 and found.p_other() == pytest.approx(1)
    assert found.interval(0.9).low < -0.05


def test_p_values_are_never_nothing():
    # Without bounds, a sample that does not vary has the sign test.
    found = estimate(np.full(8, 0.3))
    assert found.variance == 0
    assert found.p_above(0) == pytest.approx(0.5**8)
    assert found.p_above(0.3) == found.p_above(1) == 1
    assert found.p_other() == pytest.approx(0.5**7)
    assert 0 < estimate(np.full(8, 0.3), bounds=ANSWERS).p_above(0) < 0.05


# Resamples.


def test_resampled_means_equal_the_loop_over_queries():
    rng = np.random.default_rng(5)
    values, queries = rng.random((3, 2, 7)), np.array([[0, 0, 1, 2, 2, 2, 1]] * 2)
    got = units.resampled_means(values, 11, 300, queries)
    again = np.random.default_rng(11)
    counts = [again.multinomial(3, np.full(3, 1 / 3), 300) for _ in range(2)]
    for n in range(3):
        for s in range(300):
            tasks = [
                np.average(values[n, task], weights=counts[task][s][queries[task]])
                for task in range(2)
            ]
            assert got[n, s] == pytest.approx(np.mean(tasks))


def test_studentised_resamples_equal_the_loop():
    values = np.exp(np.random.default_rng(6).normal(size=6))
    found = estimate(values, seed=2)
    counts = np.random.default_rng(2).multinomial(6, np.full(6, 1 / 6), 2000)
    made = []
    for count in counts:
        again = np.repeat(values, count)
        error = again.std(ddof=1) / math.sqrt(6)
        made.append((again.mean() - values.mean()) / error if error else 0.0)
    assert found.tails is not None
    np.testing.assert_allclose(found.tails, made, rtol=1e-6, atol=1e-6)
    t = estimate(values).interval()
    low, high = np.quantile(made, [0.025, 0.975])
    error = values.std(ddof=1) / math.sqrt(6)
    mean = values.mean()
    assert found.interval() == pytest.approx(
        (mean, min(t.low, mean - high * error), max(t.high, mean - low * error))
    )


def test_a_function_of_means_has_the_variance_of_its_slopes():
    rng = np.random.default_rng(7)
    values = rng.random((2, 3, 40)) + 1
    found = units.of_means(values, lambda m: m[1] / m[0])
    a, b = values.mean((1, 2))
    assert found.mean == pytest.approx(b / a)
    linear = estimate(values[1] / a - values[0] * b / a**2)
    assert found.variance == pytest.approx(linear.variance, rel=1e-6)
    nowhere = units.of_means(np.zeros((2, 10)), lambda m: m[1] / m[0])
    assert math.isnan(nowhere.mean)


@pytest.mark.parametrize("count", [3, 4, 5, 10])
def test_few_documents_leave_an_interval_that_is_no_accident_of_rounding(count):
    rng = np.random.default_rng(count)
    values = rng.normal(0.5, 0.1, (100, 1, count))
    _, low, high = estimate(values, seed=0).interval()
    assert np.median(high - low) < 5 and (high - low < 100).all()


def test_the_two_sided_p_of_answers_knows_their_bounds():
    half = np.repeat([0.0, 1.0], 50)
    assert estimate(half, bounds=ANSWERS).p_other(0.5) == pytest.approx(1)
    low = estimate(half * 0, bounds=ANSWERS)
    high = estimate(half * 0 + 1, bounds=ANSWERS)
    assert low.p_other(0.1) == pytest.approx(high.p_other(0.9))


def test_values_beyond_their_bounds_are_refused():
    with pytest.raises(ValueError, match="must lie within"):
        estimate(np.array([5.0, 6, 7]), bounds=ANSWERS)
