"""Chunks and budgets; that chunked results are exact is tested in test_study.py."""

import numpy as np
import pytest

from jaxheads.engine import plan, sweeps
from jaxheads.models import llama


@pytest.mark.parametrize("count", [1, 2, 7, 64, 113])
@pytest.mark.parametrize("size", [1, 3, 64, 102, 500])
def test_chunks_cover_everything_in_equal_balanced_parts(count, size):
    parts = list(sweeps.chunks(count, size))
    assert len({len(part) for part in parts}) == 1 and len(parts[0]) <= size
    joined = np.concatenate(parts)
    np.testing.assert_array_equal(joined[:count], np.arange(count))
    assert (joined[count:] == count - 1).all()
    assert len(joined) - count < len(parts)  # at most one repeat a chunk


def test_nothing_makes_no_chunk():
    assert list(sweeps.chunks(0, 3)) == []


def test_the_chunk_follows_the_budget_and_is_never_empty():
    config = llama.Config(30, 576, 9, 3, 64, 1536, 49152, 8192)
    sizes = [
        sweeps.subset_chunk(config, 10, 1, budget) for budget in (1, 10**8, 10**10)
    ]
    assert sizes[0] == 1 < sizes[1] < sizes[2]


def test_flops_of_the_plan_are_those_of_the_products():
    config = llama.Config(3, 22, 6, 2, 10, 34, 41, 64)
    d, h, g, k, f, v = 22, 6, 2, 10, 34, 41
    weights = d * (h + 2 * g) * k + h * k * d + 3 * d * f + 2 * d  # norms count too
    token = 3 * (2 * weights + 4 * h * k * 7)
    assert plan.sequence(config, 7).flops == 7 * token + 2 * d * v
    assert plan.step(config, 7).flops == token + 2 * d * v
    # Heads of layer l run layers l, l + 1, ...: 3 + 2 + 1 of them, for 6 heads each.
    expected = 6 * (6 * token / 3 + 3 * 2 * d * v)
    np.testing.assert_allclose(plan.every_head(config, 7).flops, expected)
