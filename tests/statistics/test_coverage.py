"""Do 95 % intervals cover 95 %, and tests reject 5 %? By simulation of known truth.

Prompts of one query agree as much as ``correlation`` says: each takes its query's value
with the chance sqrt(correlation), else one of its own.
"""

import numpy as np
import pytest

from jaxheads.statistics.paired_tests import mcnemar, sign_flip_p
from jaxheads.statistics.units import ANSWERS, DIFFERENCES, estimate, of_means

CORRELATIONS = (0.0, 0.5, 1.0)
DESIGNS = {"19 tasks": (19, 2000), "37 queries x 100 prompts": (1, 6000)}
PROMPTS, QUERIES = 100, 37


def asked(rng: np.random.Generator, tasks: int) -> np.ndarray:
    """Which of 37 queries each of 100 prompts asks, some oftener: [E, B]."""
    return rng.integers(0, QUERIES, (tasks, PROMPTS))


def drawn(
    rng: np.random.Generator, queries: np.ndarray, correlation: float, runs: int
) -> np.ndarray:
    """Uniform numbers, alike in the prompts of a query: [runs, E, B]."""
    shape = (runs, *queries.shape)
    shared = rng.random((runs, len(queries), QUERIES))
    task = np.arange(len(queries))[:, None]
    copies = rng.random(shape) < np.sqrt(correlation)
    return np.where(copies, shared[:, task, queries], rng.random(shape))


def covered(found, truth: float) -> float:
    _, low, high = found.interval()
    return float(np.mean((low <= truth + 1e-12) & (truth - 1e-12 <= high)))


@pytest.mark.slow
@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_of_answers_cover_the_truth(design: str, correlation: float):
    tasks, runs = DESIGNS[design]
    rng = np.random.default_rng(1)
    queries = asked(rng, tasks)
    made = drawn(rng, queries, correlation, runs)
    found = {}
    for share in (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95):
        right = made < share
        found[share] = covered(estimate(right, queries, bounds=ANSWERS), share)
    # Of a few right answers in one task the interval is wider than it need be.
    assert all(0.925 < each < 0.99 for each in found.values()), found
    middle = [each for share, each in found.items() if 0.1 < share < 0.9]
    assert all(0.93 < each < 0.97 for each in middle), found


@pytest.mark.slow
@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_of_differences_cover_the_truth(design: str, correlation: float):
    tasks, runs = DESIGNS[design]
    rng = np.random.default_rng(2)
    queries = asked(rng, tasks)
    made = drawn(rng, queries, correlation, runs)
    found = {}
    # Shares of prompts that only A, or only B, gets right.
    for only_a, only_b in ((0.05, 0.02), (0.1, 0.1), (0.1, 0), (0.2, 0.02), (0.4, 0.3)):
        values = (made < only_a) * 1.0 - (made > 1 - only_b)
        truth = only_a - only_b
        found[only_a, only_b] = covered(
            estimate(values, queries, bounds=DIFFERENCES), truth
        )
    # Where sets seldom differ the interval is wider than it need be.
    assert all(each > 0.925 for each in found.values()), found
    for often in ((0.2, 0.02), (0.4, 0.3)):
        assert 0.93 < found[often] < 0.98, found


def test_prompts_of_one_query_counted_apart_cover_too_little():
    rng = np.random.default_rng(3)
    queries = asked(rng, 1)
    right = drawn(rng, queries, 1.0, 4000) < 0.5
    assert covered(estimate(right, bounds=ANSWERS), 0.5) < 0.8
    assert covered(estimate(right, queries, bounds=ANSWERS), 0.5) > 0.93


SIZES = (10, 20, 50)


def of_documents(
    count: int, sigma: float, runs: int = 1500, skewed: bool = True
) -> dict[str, float]:
    """Coverage of the interval, and of Student's t alone, of lognormal losses."""
    rng = np.random.default_rng(4)
    losses = np.exp(sigma * rng.normal(size=(runs, 1, count)))
    truth = float(np.exp(sigma**2 / 2))
    if not skewed:  # differences of two
        losses = losses - np.exp(sigma * rng.normal(size=losses.shape))
        truth = 0.0
    made = {"": estimate(losses, seed=0), "t": estimate(losses)}
    return {name: covered(one, truth) for name, one in made.items()}


@pytest.mark.parametrize(
    ("count", "sigma", "least"),
    [(10, 0.5, 0.94), (10, 1, 0.90), (10, 1.5, 0.82), (20, 1, 0.92), (50, 1, 0.93)],
)
def test_few_documents_with_skewed_losses(count: int, sigma: float, least: float):
    found = of_documents(count, sigma)
    assert least < found[""] < 0.98, found
    assert found[""] > found["t"] + 0.01  # why there are studentised resamples


@pytest.mark.parametrize("count", SIZES)
def test_differences_of_few_documents_cover_the_truth(count: int):
    assert 0.94 < of_documents(count, 1.0, skewed=False)[""] < 0.99


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_a_share_of_the_clean_value_covers_the_truth(correlation: float):
    """Two ratios over the same queries: few-shot and zero-shot, clean and ablated."""
    rng = np.random.default_rng(5)
    shares = np.array([0.6, 0.3, 0.3, 0.2])  # clean, left, both again zero-shot
    truth = shares[3] / shares[2] - shares[1] / shares[0]
    hits = []
    for _ in range(600):
        queries = asked(rng, 2)
        easy, other = drawn(rng, queries, correlation, 2)
        zero = np.where(rng.random(easy.shape) < 0.5, easy, other)
        rows = np.stack([easy < 0.6, easy < 0.3, zero < 0.3, zero < 0.2])
        found = of_means(rows, lambda m: m[3] / m[2] - m[1] / m[0], queries)
        hits.append(covered(found, truth))
    assert 0.92 < np.mean(hits) < 0.98


# Tests.


@pytest.mark.slow
@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("tasks", [1, 19])
def test_sets_that_do_the_same_are_told_apart_in_one_of_twenty(tasks, correlation):
    rng = np.random.default_rng(6)
    clustered, apart = [], []
    for seed in range(500 if tasks == 1 else 200):
        queries = asked(rng, tasks)
        a, b = drawn(rng, queries, correlation, 2) < 0.4
        difference = a * 1.0 - b
        clustered.append(sign_flip_p(difference, seed, queries=queries, flips=499))
        apart.append(sign_flip_p(difference, seed, flips=499))
    rejected = np.mean(np.array(clustered) <= 0.05)
    assert rejected < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / len(clustered))
    if correlation == 1:
        assert np.mean(np.array(apart) <= 0.05) > 0.1  # as prompts were counted before


def test_mcnemars_test_of_queries_is_no_sharper_than_their_number():
    # 3 queries asked 20 times each, all for A: three tosses, not sixty.
    a, b = np.ones((1, 60)), np.zeros((1, 60))
    queries = np.repeat(np.arange(3), 20)[None]
    assert mcnemar(a, b, queries) == (60, 0, 0.25)
    assert mcnemar(a, b).p == pytest.approx(2 / 2**60)


@pytest.mark.slow
def test_coverage_of_few_documents_is_what_the_page_says():
    found = {
        (count, sigma): of_documents(count, sigma, 4000)[""]
        for count in SIZES
        for sigma in (0.5, 1.0, 1.5)
    }
    told = {0.5: (0.95, 0.96, 0.96), 1.0: (0.91, 0.93, 0.95), 1.5: (0.85, 0.88, 0.91)}
    for sigma, shares in told.items():  # see statistics.units, outcomes.caution
        for count, share in zip(SIZES, shares, strict=True):
            assert found[count, sigma] == pytest.approx(share, abs=0.015)
