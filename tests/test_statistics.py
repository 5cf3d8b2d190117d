"""Statistics against hand-computed values and brute force."""

import itertools

import numpy as np
import pytest

from jaxheads import statistics


def test_bootstrap_of_three_values_has_the_quantiles_of_all_27_resamples():
    values = np.array([0.0, 1.0, 5.0])
    every = [np.mean(pick) for pick in itertools.product(values, repeat=3)]
    got = statistics.bootstrap_mean(values, seed=3, samples=20_000, level=0.8)
    assert got.mean == 2.0
    # The 27 means are discrete and the quantiles fall inside atoms: 11/3 has
    # 3/27 above it by 5 (1/27), so 90 % is 11/3; 10 % is 1/3 (1/27 below it).
    assert (got.low, got.high) == pytest.approx(
        tuple(np.quantile(every, [0.1, 0.9], method="inverted_cdf"))
    )


def test_bootstrap_is_as_wide_as_the_normal_interval():
    values = np.random.default_rng(0).normal(size=(4, 400))
    got = statistics.bootstrap_mean(values, seed=1)
    half = 1.96 * values.std(1) / 20
    assert got.mean == pytest.approx(values.mean(1))
    np.testing.assert_allclose(got.high - got.mean, half, rtol=0.12)
    np.testing.assert_allclose(got.mean - got.low, half, rtol=0.12)


def test_the_seed_decides_the_interval():
    values = np.random.default_rng(2).random(30)
    one, same, other = (statistics.bootstrap_mean(values, seed) for seed in (1, 1, 2))
    assert one == same
    assert one.mean == other.mean and one.low != other.low


def test_nothing_to_resample_is_refused():
    with pytest.raises(ValueError, match="nothing to resample"):
        statistics.bootstrap_mean(np.zeros(0), seed=0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], 0.8207826816681233),  # the textbook's case
        ([1, 2, 3], [9, 4, 1], -1.0),
        ([1, 2, 2, 3], [1, 2, 2, 30], 1.0),
        ([[1, 2], [3, 4]], [[2, 1], [4, 3]], 0.6),
    ],
)
def test_spearman(a: list, b: list, expected: float):
    assert statistics.spearman(np.array(a), np.array(b)) == pytest.approx(expected)


@pytest.mark.parametrize("correlation", [statistics.spearman, statistics.kendall])
def test_what_has_no_order_has_no_correlation(correlation):
    assert np.isnan(correlation(np.ones(4), np.arange(4)))
    assert np.isnan(correlation(np.arange(4), np.array([1.0, 2, 3, np.nan])))
    assert np.isnan(correlation(np.ones(1), np.ones(1)))
    assert correlation(np.array([1, 2, np.inf]), np.arange(3)) == pytest.approx(1)


def test_average_ranks_share_ties():
    got = statistics.average_ranks(np.array([[30, 10], [20, 20]]))
    np.testing.assert_array_equal(got, [4, 1, 2.5, 2.5])
    assert np.isnan(statistics.average_ranks(np.array([1, np.nan, 3]))).all()


def naive_kendall(a, b) -> float:
    both = list(itertools.combinations(zip(a, b, strict=True), 2))
    signs = [(np.sign(x[0] - y[0]), np.sign(x[1] - y[1])) for x, y in both]
    differ = [sum(s[n] != 0 for s in signs) for n in (0, 1)]
    return sum(s * t for s, t in signs) / np.sqrt(differ[0] * differ[1])


@pytest.mark.parametrize("seed", range(3))
def test_kendall_equals_the_loop_over_pairs(seed: int):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 20) * 1.5, rng.normal(size=20)
    expected = pytest.approx(naive_kendall(a, b))
    assert statistics.kendall(a, b) == expected
    assert statistics.kendall(a.reshape(4, 5), b.reshape(4, 5)) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3], [9, 4, 1], -1.0),
        ([1, 2, 2, 3], [1, 2, 2, 30], 1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 2 / 3),  # five pairs in order, one not
        ([1, 2, np.inf, np.inf], [1, 2, 3, 3], 1.0),
    ],
)
def test_kendall_by_hand(a: list, b: list, expected: float):
    assert statistics.kendall(np.array(a), np.array(b)) == pytest.approx(expected)


def test_percentile_counts_equal_heads_half():
    scores = np.array([[0.0, 1.0], [2.0, 3.0]])
    mask = np.array([[False, False], [True, False]])
    assert statistics.percentile_of(scores, mask) == pytest.approx(62.5)
    pair = np.array([[False, False], [True, True]])  # mean 2.5: three heads below
    assert statistics.percentile_of(scores, pair) == pytest.approx(75)
    assert np.isnan(statistics.percentile_of(scores, np.zeros((2, 2), bool)))
    scores[0, 0] = np.nan
    assert np.isnan(statistics.percentile_of(scores, pair))


def test_overlap_is_of_the_smaller_set():
    a = np.array([True, True, False, False, False])
    b = np.array([False, True, True, True, False])
    assert statistics.overlap(a, b) == pytest.approx(0.5)
    assert np.isnan(statistics.overlap(a, np.zeros(5, bool)))


def test_chance_overlap_is_the_mean_over_all_pairs_of_sets():
    sets = {
        size: [
            np.isin(np.arange(6), pick)
            for pick in itertools.combinations(range(6), size)
        ]
        for size in (2, 3)
    }
    brute = np.mean([statistics.overlap(a, b) for a in sets[2] for b in sets[3]])
    assert statistics.overlap_chance(2, 3, 6) == pytest.approx(brute)


@pytest.mark.parametrize("shared", range(4))
def test_the_overlaps_p_value_is_the_share_of_all_pairs_of_sets(shared: int):
    two, three = (list(itertools.combinations(range(6), n)) for n in (2, 3))
    overlaps = [len({*a} & {*b}) for a in two for b in three]
    brute = np.mean(np.array(overlaps) >= shared)
    assert statistics.overlap_p_value(shared, 2, 3, 6) == pytest.approx(brute)


def test_the_overlaps_p_value_of_large_sets_is_a_number():
    assert statistics.overlap_p_value(0, 512, 512, 5120) == 1
    # Never so many by chance, and yet not 0.
    assert 0 < statistics.overlap_p_value(150, 150, 150, 5120) < 1e-200


def test_jaccard_counts_the_heads_of_either_set():
    a = np.array([True, True, False, False])
    b = np.array([False, True, True, False])
    assert statistics.jaccard(a, b) == pytest.approx(1 / 3)
    assert np.isnan(statistics.jaccard(a & ~a, a & ~a))
