"""Interactions, greedy sets and Shapley values: known games, then a tiny model."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from families import assert_close

from jaxheads.engine.plan import sequence
from jaxheads.errors import UserError
from jaxheads.icl.prompts import Batch
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.models.metrics import probability
from jaxheads.runs import RunFolder
from jaxheads.studies.redundancy.greedy import Scale, greedy_backward, greedy_forward
from jaxheads.studies.redundancy.shapley import (
    Memo,
    Universe,
    interactions,
    over_prompts,
    shapley,
)
from jaxheads.studies.redundancy.values import SubsetValues, right_token

SHAPE = (3, 4)
HEADS = np.array([[2, 1], [0, 3], [1, 0], [1, 2], [0, 0]])
UNIVERSE = Universe(HEADS, SHAPE)


def two_tasks(prompts: int) -> np.ndarray:
    """Queries of prompts that are two tasks', each its own: [2, prompts / 2]."""
    return np.arange(prompts).reshape(2, -1)


def game(worth, universe=UNIVERSE, prompts=4):
    """An evaluator: ``worth`` of the kept heads bool [C], scaled by prompt [B]."""
    by_prompt = np.linspace(0.5, 1.5, prompts)  # mean 1

    def evaluate(replaced):
        kept = ~replaced[:, universe.heads[:, 0], universe.heads[:, 1]]
        return np.array([worth(row) for row in kept])[:, None] * by_prompt[None]

    return evaluate


def brute_force_shapley(worth, count):
    """The definition: over all sets S without i, weighted gains."""
    value = np.zeros(count)
    for i in range(count):
        for size in range(count):
            weight = 1 / (count * math.comb(count - 1, size))
            for chosen in itertools.combinations(set(range(count)) - {i}, size):
                kept = np.isin(np.arange(count), chosen)
                with_i = kept | (np.arange(count) == i)
                value[i] += weight * (worth(with_i) - worth(kept))
    return value


def scale_of(evaluate, universe=UNIVERSE):
    clean = evaluate(np.zeros((1, *universe.shape), bool))[0]
    return Scale(clean, np.zeros_like(clean))


WEIGHTS = np.array([5.0, 1.0, 3.0, 0.0, -2.0])


def additive(kept):
    return 10 + float(WEIGHTS @ kept)


def either(kept):
    """Heads 0 and 2 can stand in for each other."""
    return float(kept[0] or kept[2])


def both(kept):
    """Heads 0 and 2 need each other."""
    return float(kept[0] and kept[2])


def random_game(kept):
    return np.random.default_rng(np.packbits(kept)).normal()


# Interactions.


@pytest.mark.parametrize(("worth", "sign"), [(additive, 0), (either, -1), (both, 1)])
def test_the_sign_of_an_interaction(worth, sign):
    found = interactions(game(worth), UNIVERSE)
    expected = np.zeros((5, 5))
    expected[0, 2] = expected[2, 0] = sign
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(found.pair[off], expected[off], atol=1e-12)
    assert np.isnan(np.diag(found.pair)).all()


def test_overlapping_losses_are_a_positive_interaction():
    # Both fall by 0.2 alone and by 0.2 together: -0.2 - (-0.2) - (-0.2) = +0.2.
    found = interactions(game(lambda kept: 1 - 0.2 * (not both(kept))), UNIVERSE)
    np.testing.assert_allclose(found.effect, [-0.2, 0, -0.2, 0, 0], atol=1e-12)
    assert found.pair[0, 2] == pytest.approx(0.2)


def test_interactions_are_one_batch_and_carry_the_spread_of_prompts():
    batches = []
    evaluate = game(both, prompts=6)

    def watched(replaced):
        batches.append(len(replaced))
        return evaluate(replaced)

    found = interactions(watched, UNIVERSE, two_tasks(6))
    assert batches == [1 + 5 + 10]
    by_prompt = np.linspace(0.5, 1.5, 6).reshape(2, 3)
    error = np.sqrt((by_prompt.var(axis=1, ddof=1) / 3).sum()) / 2
    assert found.pair_error[0, 2] == pytest.approx(error)
    assert found.effect_error[0] == pytest.approx(error)


def test_the_error_of_one_prompt_is_unknown_and_of_one_a_task_that_of_tasks():
    mean, error = over_prompts(np.array([[3.0]]))
    assert mean.tolist() == [3] and np.isnan(error).all()
    mean, error = over_prompts(np.array([[1.0, 3.0]]), two_tasks(2))
    assert mean.tolist() == [2] and error.tolist() == pytest.approx([1])


def test_prompts_of_one_query_are_one_sample():
    values = np.array([1.0, 2, 4, 3, 3, 5])
    twice = over_prompts(np.repeat(values, 2), np.repeat(two_tasks(6), 2, axis=1))
    np.testing.assert_allclose(twice, over_prompts(values, two_tasks(6)))


# Greedy searches.


def test_backward_replaces_the_cheapest_head_first():
    evaluate = game(additive)
    path = greedy_backward(evaluate, UNIVERSE, 13 / 17, scale_of(evaluate))
    # 17 with all; -2 is best gone, then 0, 1, 3; 5 alone leaves 15, nothing 10.
    assert path.order.tolist() == [4, 3, 1, 2, 0]
    np.testing.assert_allclose(path.share * 17, [17, 19, 19, 18, 15, 10])
    assert path.smallest == 4
    assert path.kept[4].tolist() == [True, False, False, False, False]


def test_forward_keeps_the_best_head_first_and_stops_at_the_share():
    evaluate = game(additive)
    path = greedy_forward(evaluate, UNIVERSE, 1.0, scale_of(evaluate))
    assert path.order.tolist() == [0, 2]
    assert path.smallest == 2 and path.share[2] == pytest.approx(18 / 17)


def test_every_step_is_one_batch_of_all_candidates():
    batches = []
    evaluate = game(additive)
    scale = scale_of(evaluate)

    def watched(replaced):
        batches.append(len(replaced))
        return evaluate(replaced)

    greedy_backward(watched, UNIVERSE, 13 / 17, scale)
    assert batches == [1, 5, 4, 3, 2, 1]


def test_heads_outside_are_kept_unless_told_otherwise():
    kept = np.array([[True, False, True, True, True]])
    inside = UNIVERSE.replaced(kept)[0]
    assert np.argwhere(inside).tolist() == [[0, 3]]
    alone = Universe(HEADS, SHAPE, "replaced").replaced(kept)[0]
    assert int(alone.sum()) == 12 - 4 and not alone[2, 1]


def test_a_share_that_is_never_reached_is_said_so():
    universe = Universe(HEADS[:2], SHAPE, "replaced")  # the others matter, and are gone

    def evaluate(replaced):
        return (~replaced).sum(axis=(1, 2))[:, None] * np.ones(3)

    scale = scale_of(evaluate, universe)
    for search in (greedy_backward, greedy_forward):
        path = search(evaluate, universe, 0.9, scale)
        assert path.smallest is None
    assert path.kept[-1].all()


def test_a_share_of_the_gain_counts_from_the_floor():
    scale = Scale(np.array([0.6, 1.0]), np.array([0.2, 0.4]))
    values = np.array([[0.6, 1.0], [0.2, 0.4], [0.4, 0.7]])
    np.testing.assert_allclose(scale.share(values), [1, 0, 0.5])
    # The same in every prompt: no error, however far apart the prompts are.
    np.testing.assert_allclose(scale.share_error(values), 0, atol=1e-15)


def test_the_error_of_a_share_is_that_of_a_ratio():
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.2, 1, 4000)
    values = clean * rng.uniform(0, 1, 4000)
    scale = Scale(clean, np.zeros(4000))
    drawn = rng.integers(4000, size=(400, 4000))
    ratios = values[drawn].mean(axis=1) / clean[drawn].mean(axis=1)
    assert scale.share_error(values) == pytest.approx(ratios.std(), rel=0.15)


# Shapley values.


@pytest.mark.parametrize(
    ("worth", "expected"),
    [
        (additive, WEIGHTS),
        (either, [0.5, 0, 0.5, 0, 0]),
        (both, [0.5, 0, 0.5, 0, 0]),
        (lambda kept: float(kept[1:4].all()), [0, 1 / 3, 1 / 3, 1 / 3, 0]),
        (random_game, brute_force_shapley(random_game, 5)),
    ],
)
def test_shapley_values_of_known_games(worth, expected):
    found = shapley(game(worth), UNIVERSE, 600, seed=3)
    np.testing.assert_allclose(
        found.value, expected, atol=4 * found.error.max() + 1e-12
    )
    np.testing.assert_allclose(brute_force_shapley(worth, 5), expected, atol=1e-12)
    assert found.error.max() < 0.1


def test_every_permutation_shares_out_the_whole():
    found = shapley(game(random_game), UNIVERSE, 20, seed=0)
    whole = (found.all - found.none).mean()
    np.testing.assert_allclose(found.samples.sum(axis=1), whole, atol=1e-12)
    assert found.samples.shape == (40, 5)


def test_an_additive_game_has_no_error_over_permutations():
    found = shapley(game(additive), UNIVERSE, 5, seed=0, queries=two_tasks(4))
    np.testing.assert_allclose(found.error, 0, atol=1e-12)
    gains = WEIGHTS[:, None] * np.linspace(0.5, 1.5, 4)
    expected = over_prompts(gains, two_tasks(4))[1]
    np.testing.assert_allclose(found.prompt_error, np.abs(expected))


def test_the_stated_error_is_the_spread_over_seeds():
    for antithetic in (False, True):
        found = [
            shapley(game(random_game), UNIVERSE, 30, seed, antithetic=antithetic)
            for seed in range(40)
        ]
        spread = np.std([one.value for one in found], axis=0)
        stated = np.mean([one.error for one in found], axis=0)
        np.testing.assert_allclose(stated, spread, rtol=0.4)


def test_a_seed_fixes_the_permutations():
    one, same, other = (
        shapley(game(random_game), UNIVERSE, 4, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.samples, same.samples)
    assert not np.array_equal(one.samples, other.samples)


def test_a_subset_that_comes_again_runs_once():
    rows = []
    evaluate = game(random_game)

    def watched(replaced):
        rows.extend(map(tuple, replaced.reshape(len(replaced), -1)))
        return evaluate(replaced)

    memo = Memo(watched)
    shapley(memo, UNIVERSE, 100, seed=0)
    interactions(memo, UNIVERSE)
    assert len(rows) == len(set(rows)) == memo.evaluated <= 2**5
    assert memo.asked == 200 * 6 + 16
    np.testing.assert_array_equal(
        memo(UNIVERSE.replaced(np.eye(5, dtype=bool))),
        evaluate(UNIVERSE.replaced(np.eye(5, dtype=bool))),
    )


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda e, s: Universe(HEADS[:0], SHAPE), "one or more, but has none"),
        (lambda e, s: interactions(e, Universe(HEADS[:1], SHAPE)), "only 2.1"),
        (lambda e, s: greedy_backward(e, UNIVERSE, 0.0, s), "but is 0.0"),
        (lambda e, s: greedy_forward(e, UNIVERSE, 1.5, s), "but is 1.5"),
        (lambda e, s: Scale(np.zeros(3), np.zeros(3)), "clean value is 0"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(wrong, sentence):
    evaluate = game(additive)
    with pytest.raises(UserError, match=sentence):
        wrong(evaluate, scale_of(evaluate))


# The engine's evaluator, against whole forwards.


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run", "redundancy", {}, {})


def values_of(tiny, folder, fill, budget=10**9):
    batch = Batch(*(np.asarray(x) for x in (tiny.tokens, tiny.lengths, tiny.targets)))
    arguments = (tiny.params, tiny.config, batch, fill, probability, folder, budget)
    return SubsetValues("test", *arguments, advance=lambda flops: None)


def naive(tiny, fill):
    """An evaluator by one whole forward a subset."""

    def evaluate(replaced):
        rows = []
        for one in replaced:
            ablation = Ablation(jnp.asarray(1.0 - one), fill, tiny.last)
            out = forward(
                tiny.params,
                tiny.tokens,
                tiny.config,
                lengths=tiny.lengths,
                ablation=ablation,
                logits="last",
            )
            rows.append(np.asarray(probability(out.logits, tiny.targets)))
        return np.stack(rows)

    return evaluate


def test_interactions_and_shapley_values_equal_whole_forwards(
    tiny_gqa, folder, quick_compilation
):
    universe = Universe(np.array([[2, 5], [0, 1], [1, 3]]), (3, 6))
    fast = values_of(tiny_gqa, folder, tiny_gqa.fill)
    slow = Memo(naive(tiny_gqa, tiny_gqa.fill))
    pairs, exact = interactions(fast, universe), interactions(slow, universe)
    assert_close(pairs.effect, exact.effect)
    off = ~np.eye(3, dtype=bool)
    assert_close(pairs.pair[off], exact.pair[off])
    assert_close(pairs.pair_error[off], exact.pair_error[off])
    shares, expected = (shapley(e, universe, 6, 0) for e in (fast, slow))
    assert_close(shares.samples, expected.samples)
    value = brute_force_shapley(
        lambda kept: slow(universe.replaced(kept[None])).mean(), 3
    )
    many = shapley(Memo(slow), universe, 400, 0)
    np.testing.assert_allclose(many.value, value, atol=5 * many.error.max())
    assert np.abs(value).max() > 1e-3  # large enough to be worth comparing


def test_a_small_budget_changes_no_value(tiny_gqa, folder, tmp_path, quick_compilation):
    replaced = np.asarray(tiny_gqa.keep(3, count=4)) == 0
    whole = values_of(tiny_gqa, folder, tiny_gqa.fill)(replaced)
    assert_close(whole, naive(tiny_gqa, tiny_gqa.fill)(replaced))
    other = RunFolder(tmp_path / "tight", "redundancy", {}, {})
    budget = int(sequence(tiny_gqa.config, 13).bytes)
    tight = values_of(tiny_gqa, other, tiny_gqa.fill, budget=budget)
    assert_close(tight(replaced), whole)
    assert not tight._prefixes  # no room to keep them


def test_the_right_token_is_the_likeliest_one():
    logits = jnp.array([[0.1, 0.3, 0.2], [5.0, -1.0, 4.0]])
    np.testing.assert_array_equal(right_token(logits, jnp.array([1, 2])), [1, 0])


def test_a_batch_that_is_done_is_read_again(
    tiny_gqa, folder, monkeypatch, quick_compilation
):
    replaced = np.asarray(tiny_gqa.keep(3, count=4)) == 0
    first = values_of(tiny_gqa, folder, tiny_gqa.fill)(replaced)
    again = values_of(tiny_gqa, folder, tiny_gqa.fill)
    monkeypatch.setattr(again, "_prefix", None)  # needed to run anything
    np.testing.assert_array_equal(again(replaced), first)
    changes = values_of(tiny_gqa, folder, tiny_gqa.fill).changes()
    assert changes.shape == (3, 6) and (changes > 0).all()


def test_whole_forwards_agree_with_what_they_time(tiny_gqa, folder, quick_compilation):
    values = values_of(tiny_gqa, folder, tiny_gqa.fill)
    replaced = np.asarray(tiny_gqa.keep(5)) == 0
    timed = values.whole_forwards(replaced, 3)
    assert timed["index"].tolist() == [0, 1, 2] and timed["each"] > 0
    assert_close(timed["values"], values(replaced[None])[0, timed["index"]])
