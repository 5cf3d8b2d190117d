"""One interval over seeds for everything that decides over them."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxheads.statistics.seeds import difference_of_runs, over_seeds, p_of_zero


@pytest.mark.parametrize("seeds", [2, 3, 4, 8])
def test_the_interval_covers(seeds):
    rng = np.random.default_rng(seeds)
    drawn = rng.normal(1.0, 0.3, (2000, seeds))
    ends = [over_seeds(values).interval() for values in drawn]
    covered = np.mean([one.low <= 1.0 <= one.high for one in ends])
    assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("ours", "theirs"), [(3, 3), (4, 4), (8, 3)])
def test_the_interval_of_two_runs_covers(ours, theirs):
    rng = np.random.default_rng(ours)
    covered = []
    for _ in range(1000):
        found = difference_of_runs(rng.normal(5, 1, ours), rng.normal(2, 3, theirs))
        low, high = found.interval()[1:]
        covered.append(low <= 3 <= high)
    assert np.mean(covered) >= 0.93


def test_it_is_students_t():
    values = [1.0, 2.5, math.nan, 2.0, 3.1]
    known = [1.0, 2.5, 2.0, 3.1]
    wanted = stats.ttest_1samp(known, 0)
    found = over_seeds(values)
    np.testing.assert_allclose(found.interval()[1:], wanted.confidence_interval(0.95))
    assert p_of_zero(found) == pytest.approx(wanted[1])
    other = [0.5, 0.1, 0.2]
    wanted = stats.ttest_ind(known, other, equal_var=False)
    found = difference_of_runs(values, other)
    np.testing.assert_allclose(found.interval()[1:], wanted.confidence_interval(0.95))
    assert p_of_zero(found) == pytest.approx(wanted[1])


def test_of_no_seeds_nothing_is_a_number():
    assert np.isnan(over_seeds([]).interval()).all()


@pytest.mark.parametrize("values", [[2.0], [2.0, math.inf], [2.0] * 4])
def test_without_a_spread_nothing_is_known(values):
    found = over_seeds(values)
    assert found.interval()[1:] == (-math.inf, math.inf)
    assert math.isnan(p_of_zero(found))
    assert difference_of_runs(values, [1.0, 2.0, 3.0]).interval().high == math.inf
