"""Scores against definitions written out, and on heads that are built by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads.errors import UserError
from jaxheads.models.forward import forward, prefill
from jaxheads.models.metrics import probability
from jaxheads.scores import (
    attention,
    duplicate_token,
    function_vector,
    induction,
    prefix_matching,
    previous_token,
    value_weighted,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("bos_id", [None, 3])
def test_the_probe_repeats_distinct_tokens_once(bos_id):
    tokens = induction.probe(5, 9, range(10, 40), bos_id, seed=2)
    start = 0 if bos_id is None else 1
    assert tokens.shape == (5, 18 + start)
    assert (tokens[:, :start] == bos_id).all()
    first, second = tokens[:, start : start + 9], tokens[:, start + 9 :]
    assert (first == second).all()
    assert all(len(set(row)) == 9 for row in first.tolist())
    again = induction.probe(5, 9, range(10, 40), bos_id, seed=2)
    np.testing.assert_array_equal(tokens, again)
    assert not (tokens == induction.probe(5, 9, range(10, 40), bos_id, seed=3)).all()
    with pytest.raises(UserError, match="distinct"):
        induction.probe(5, 9, range(8), bos_id, seed=2)


def scores_by_hand(patterns, length, bos):
    """Olsson's and Yin's scores of one pattern [T, S] by loops over their texts."""
    total = 2 * length + bos
    hit = 0.0
    for t in range(length + bos, total):
        hit += patterns[t, t - length + 1]
    return hit / length, hit / patterns.sum()


@pytest.mark.parametrize("bos", [False, True])
def test_induction_scores_equal_their_definitions(tiny, bos):
    length = 9
    tokens = induction.probe(4, length, range(1, 37), 0 if bos else None, seed=0)
    edges = induction.edges(length, bos)
    samples = attention.attention_shares(tiny.params, tokens, tiny.config, edges, 3)
    out = forward(tiny.params, jnp.asarray(tokens), tiny.config, capture=("patterns",))
    patterns = np.asarray(out.patterns)
    for layer in range(tiny.config.num_layers):
        for head in range(tiny.config.num_heads):
            expected = [
                scores_by_hand(patterns[layer, b, head], length, bos) for b in range(4)
            ]
            olsson = induction.head_scores(samples, length, bos)
            yin = induction.head_scores(samples, length, bos, "yin")
            np.testing.assert_allclose(
                (olsson.mean[layer, head], yin.mean[layer, head]),
                np.mean(expected, axis=0),
                rtol=2e-4,
            )


@pytest.mark.parametrize("normalise", induction.DEFINITIONS)
def test_ceiling_and_chance_are_reached_by_ideal_and_even_heads(normalise):
    length, bos = 50, True
    edges = induction.edges(length, bos, normalise)
    total = 2 * length + bos
    ideal = np.zeros((total, total))
    ideal[np.arange(total), np.maximum(np.arange(total) - length + 1, 0)] = 1
    even = np.tril(np.ones((total, total))) / np.arange(1, total + 1)[:, None]
    told = induction.head_scores(np.ones((1, 1, 2)), length, bos, normalise)
    np.testing.assert_allclose((ideal * edges).sum(), told.ceiling, rtol=1e-6)
    np.testing.assert_allclose((even * edges).sum(), told.chance, rtol=1e-6)
    expected = {"olsson": 1.0, "yin": 50 / 101}
    np.testing.assert_allclose(told.ceiling, expected[normalise], rtol=1e-6)


def test_an_unknown_definition_is_refused():
    with pytest.raises(UserError, match="olsson"):
        induction.edges(5, True, "todd")


def small(spurious):
    """A definition of a size for tiny models."""
    return prefix_matching.Definition("prefix", 5, 4, 3, spurious, "a paper")


def prefix_by_words(pattern, row, bos):
    """Mean attention to the tokens after earlier copies, by looking at the tokens."""
    rows = []
    for t in range(5 + bos, len(row)):
        followers = [s + 1 for s in range(bos, t) if row[s] == row[t]]
        rows.append(sum(pattern[t, s] for s in followers))
    return np.mean(rows)


def prefix_by_published_code(pattern, length=5):
    """Crosbie & Shutova's arithmetic of positions, BOS at 0."""
    total = 0.0
    for i in range(length + 1, 4 * length + 1):
        for copy in range(i // length):
            total += pattern[i, copy * length + i % length + 1]
    return total / (3 * length)


@pytest.mark.parametrize("bos", [False, True])
def test_prefix_matching_counts_all_followers_of_earlier_copies(tiny_gqa, bos):
    definition = small(spurious=False)
    tokens = prefix_matching.probe(definition, 3, range(1, 37), 0 if bos else None, 0)
    assert tokens.shape == (3, 20 + bos)
    named = {"text": prefix_matching.edges(definition, bos)}
    if bos:
        named["code"] = prefix_matching.edges(small(spurious=True), bos)
    found = attention.attention_shares(
        tiny_gqa.params, tokens, tiny_gqa.config, named, chunk=2
    )
    out = forward(
        tiny_gqa.params, jnp.asarray(tokens), tiny_gqa.config, capture=("patterns",)
    )
    patterns = np.asarray(out.patterns)
    for layer, head, b in np.ndindex(found["text"].shape):
        pattern = patterns[layer, b, head]
        expected = prefix_by_words(pattern, tokens[b].tolist(), bos)
        np.testing.assert_allclose(found["text"][layer, head, b], expected, atol=1e-5)
        if bos:
            expected = prefix_by_published_code(pattern)
            np.testing.assert_allclose(
                found["code"][layer, head, b], expected, atol=1e-5
            )
            # Equal where next to no attention is paid to what the code adds.
            assert found["code"][layer, head, b] >= found["text"][layer, head, b]
    if bos:
        assert (found["code"] > found["text"]).mean() > 0.5


def test_the_published_code_needs_bos_and_the_ends_of_the_vocabulary_are_left_out():
    with pytest.raises(UserError, match="begins with BOS"):
        prefix_matching.edges(small(spurious=True), bos=False)
    ids = prefix_matching.middle_ids([*range(100, 0, -1)], 0.04)
    assert ids.tolist() == [*range(5, 97)]


@pytest.mark.parametrize(
    ("edges", "told"),
    [
        (
            duplicate_token.edges(10, True),
            duplicate_token.head_scores(np.ones((1, 1, 2)), 10, True),
        ),
        (
            induction.edges(10, True),
            value_weighted.head_scores(np.ones((1, 1, 2)), 10, True),
        ),
        *(
            (
                prefix_matching.edges(each, True),
                prefix_matching.head_scores(np.ones((1, 1, 2)), each, True),
            )
            for each in prefix_matching.DEFINITIONS.values()
        ),
    ],
)
def test_chance_is_even_attention_and_the_ceiling_is_reached(edges, told):
    total = len(edges)
    even = np.tril(np.ones((total, total))) / np.arange(1, total + 1)[:, None]
    np.testing.assert_allclose((even * edges).sum(), told.chance, rtol=1e-5)
    best = np.zeros((total, total))
    best[np.arange(total), edges.argmax(axis=1)] = 1
    np.testing.assert_allclose((best * edges).sum(), told.ceiling, rtol=1e-5)
    assert (edges == np.tril(edges)).all()


def test_attention_to_duplicates_and_values_share_a_pass_with_induction(tiny_gqa):
    tiny, length = tiny_gqa, 6
    tokens = induction.probe(3, length, range(1, 37), 0, seed=0)
    induce = induction.edges(length, True)
    named = {
        "induction": induce,
        "duplicate": duplicate_token.edges(length, True),
        "weighted": induce,
    }
    found = attention.attention_shares(
        tiny.params, tokens, tiny.config, named, 2, value_weighted=("weighted",)
    )
    out = forward(
        tiny.params,
        jnp.asarray(tokens),
        tiny.config,
        capture=("patterns", "values"),
    )
    patterns, values = np.asarray(out.patterns), np.asarray(out.values)
    group = tiny.config.num_heads // tiny.config.num_kv_heads
    for layer, head, b in np.ndindex(found["duplicate"].shape):
        pattern = patterns[layer, b, head]
        norms = np.linalg.norm(values[layer, b, :, head // group], axis=-1)
        same, after, weighted = [], [], []
        for t in range(length + 1, 2 * length + 1):
            same.append(pattern[t, t - length])
            after.append(pattern[t, t - length + 1])
            read = pattern[t] * norms
            weighted.append(read[t - length + 1] / read.sum())
        for name, rows in zip(
            ("duplicate", "induction", "weighted"), (same, after, weighted), strict=True
        ):
            np.testing.assert_allclose(
                found[name][layer, head, b], np.mean(rows), atol=1e-5
            )
    alone = attention.attention_shares(tiny.params, tokens, tiny.config, induce, 3)
    np.testing.assert_allclose(alone, found["induction"], atol=1e-6)


def test_previous_token_score_equals_its_definition(tiny):
    tokens = np.asarray(tiny.tokens)
    edges = previous_token.edges(tokens.shape[1])
    samples = attention.attention_shares(tiny.params, tokens, tiny.config, edges, 2)
    out = forward(tiny.params, tiny.tokens, tiny.config, capture=("patterns",))
    diagonal = np.diagonal(np.asarray(out.patterns), offset=-1, axis1=-2, axis2=-1)
    expected = diagonal.mean(axis=-1).transpose(0, 2, 1)  # [L, H, B]
    np.testing.assert_allclose(samples, expected, atol=1e-5)
    even = np.tril(np.ones((13, 13))) / np.arange(1, 14)[:, None]
    chance = previous_token.chance(13)
    np.testing.assert_allclose((even * edges).sum(), chance, rtol=1e-6)


def test_function_vector_effects_are_prefill_and_patching(tiny):
    from jaxheads.models.ablation import Ablation

    effects = function_vector.effects(
        tiny.params, tiny.tokens, tiny.lengths, tiny.targets, tiny.fill, tiny.config
    )
    keep = jnp.ones(tiny.fill.shape[:2]).at[1, 0].set(0)
    patched = forward(
        tiny.params,
        tiny.tokens,
        tiny.config,
        lengths=tiny.lengths,
        ablation=Ablation(keep, tiny.fill, tiny.last),
        logits="last",
    ).logits
    clean = prefill(tiny.params, tiny.tokens, tiny.lengths, tiny.config).logits
    expected = probability(patched, tiny.targets) - probability(clean, tiny.targets)
    np.testing.assert_allclose(effects[1, 0], expected, atol=2e-5)


def test_function_vector_scores_average_prompts_then_tasks():
    samples = np.array([[[[0.0, 1.0]]], [[[3.0, 5.0]]]])  # [A, L, H, B]
    score = function_vector.head_scores(samples, shots=10, tasks=2)
    assert score.mean[0, 0] == (0.5 + 4) / 2
    # Standard errors 0.5 and 1 of the two task means.
    np.testing.assert_allclose(score.standard_error, np.sqrt(0.25 + 1) / 2)
