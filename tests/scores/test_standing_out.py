"""Heads that stand out: noise is seldom a head, and a head is seen."""

import numpy as np
import pytest

from jaxheads.scores import function_vector
from jaxheads.statistics.standing_out import stands_out

LAYERS, HEADS = 12, 12
NOISE = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.laplace(size=shape),
    "mostly nothing": lambda rng, shape: (
        rng.normal(size=shape) * (rng.random(shape) < 0.3)
    ),
}
SIZES = [(3, 10), (3, 2), (8, 10)]
UNEQUAL = {"even": 1.0, "uneven": 0.3, "one task": 0.01}


def named_share(runs: int, tasks: int, prompts: int, noise, ratio: float) -> float:
    """Share of runs without a head of the kind that name any head."""
    rng = np.random.default_rng(tasks * prompts)
    scale = np.maximum(ratio ** np.arange(tasks), 0.01)[:, None, None, None]
    named = 0
    for _ in range(runs):
        samples = scale * noise(rng, (tasks, LAYERS, HEADS, prompts))
        found = function_vector.head_scores(samples, 10, tasks)
        named += stands_out(found.mean, found.standard_error, 0.0, prompts).any()
    return named / runs


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", UNEQUAL.values(), ids=UNEQUAL)
def test_noise_is_seldom_a_head(size: tuple[int, int], ratio: float):
    assert named_share(150, *size, NOISE["normal"], ratio) <= 0.05 + 2 * 0.018


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", UNEQUAL.values(), ids=UNEQUAL)
def test_noise_of_any_kind_is_seldom_a_head(noise, size: tuple[int, int], ratio: float):
    assert named_share(1000, *size, noise, ratio) <= 0.05 + 2 * 0.007


def test_a_head_is_seen_beside_the_noise():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(8, LAYERS, HEADS, 10))
    samples[:, 5, 3] += 1.5
    samples[:, 7, 1] -= 1.5  # below chance is not above it
    found = function_vector.head_scores(samples, 10, 8)
    mask = stands_out(found.mean, found.standard_error, 0.0, 10)
    assert np.argwhere(mask).tolist() == [[5, 3]]


def test_steps_are_families_of_their_own():
    rng = np.random.default_rng(1)
    mean, error = rng.normal(0.5, 1, (4, 3, 2)), np.full((4, 3, 2), 0.2)
    together = stands_out(mean, error, 0.1, 12)
    alone = [stands_out(*step, 0.1, 12) for step in zip(mean, error, strict=True)]
    np.testing.assert_array_equal(together, alone)
    assert together.any() and not together.all()


@pytest.mark.parametrize(
    ("mean", "error", "samples", "expected"),
    [
        (0.3, 0.0, None, True),  # of weights alone
        (0.1, 0.0, None, False),
        (0.9, 0.01, 1, False),
        (0.9, np.nan, 10, False),
        (np.nan, 0.01, 10, False),
        (0.9, 0.0, 3, False),  # three prompts that agree: 4 heads in 8
        (0.9, 0.0, 10, True),
        (0.05, 0.0, 10, False),
    ],
)
def test_errors_that_say_little(mean, error, samples, expected: bool):
    found = stands_out(np.full((2, 2), mean), np.full((2, 2), error), 0.1, samples)
    assert found.tolist() == [[expected] * 2] * 2
