"""The shared-prefix engine against naive forwards: what is the same in all families.

What each family owes to the engine is in test_families.py.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import TOLERANCE, assert_close

from jaxheads.models import patching
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import (
    forward,
    generate,
    last_token_logits,
    patch_each_head,
    prefill,
)
from jaxheads.models.metrics import logit_difference, probability


@pytest.fixture(scope="module")
def tiny(tiny_gqa):
    return tiny_gqa


@pytest.fixture(scope="module")
def prefix(tiny):
    return prefill(tiny.params, tiny.tokens, tiny.lengths, tiny.config)


def naive(tiny, keep, fill, where=None):
    """Last logits [B, V] by a whole forward with an ablation at the last position."""
    return forward(
        tiny.params,
        tiny.tokens,
        tiny.config,
        lengths=tiny.lengths,
        ablation=Ablation(keep, fill, tiny.last if where is None else where),
        logits="last",
    ).logits


def test_last_token_logits_equal_a_whole_forward(tiny, prefix):
    for seed in range(3):
        zeros = Ablation(tiny.keep(seed))
        fast = last_token_logits(tiny.params, prefix, tiny.config, zeros)
        assert_close(fast, naive(tiny, zeros.keep, None))


def test_last_token_logits_without_ablation_are_the_prompts(tiny, prefix):
    again = last_token_logits(tiny.params, prefix, tiny.config)
    assert_close(again, prefix.logits)
    ones = Ablation(jnp.ones(tiny.fill.shape[:2]), tiny.fill)
    kept = last_token_logits(tiny.params, prefix, tiny.config, ones)
    np.testing.assert_array_equal(kept, again)


def test_last_token_takes_a_fill_and_a_where_per_prompt(tiny, prefix):
    shape = (tiny.config.num_layers, 4, 1, *tiny.fill.shape[1:])
    fill = jax.random.normal(jax.random.key(8), shape)
    where = jnp.array([[True], [False], [True], [False]])
    keep = tiny.keep(4)
    fast = last_token_logits(
        tiny.params, prefix, tiny.config, Ablation(keep, fill, where)
    )
    everywhere = jnp.broadcast_to(fill, (*fill.shape[:2], 13, *fill.shape[3:]))
    slow = naive(tiny, keep, everywhere, where=tiny.last & where)
    assert_close(fast, slow)


def test_vmap_over_subsets_copies_no_keys(tiny, prefix):
    run = lambda keep: last_token_logits(
        tiny.params, prefix, tiny.config, Ablation(keep, tiny.fill)
    )
    keeps = tiny.keep(9, count=6)
    # A copy of keys or values per subset would show as an array of this shape.
    text = jax.jit(jax.vmap(run)).lower(keeps).compile().as_text()
    assert text
    _, b, s, g, k = prefix.keys.shape
    assert f"f32[6,{b},{s},{g},{k}]" not in text


def naive_effects(tiny, metric, targets):
    """Effects [L, H, B] by one whole forward per head."""
    layers, heads, _ = tiny.fill.shape
    ones = jnp.ones((layers, heads))
    clean = metric(naive(tiny, ones, tiny.fill), targets)
    rows = [
        metric(naive(tiny, ones.at[l, h].set(0), tiny.fill), targets) - clean
        for l in range(layers)
        for h in range(heads)
    ]
    return jnp.stack(rows).reshape(layers, heads, -1)


@pytest.mark.parametrize("metric", [probability, logit_difference])
def test_patch_each_head_equals_one_forward_per_head(tiny, prefix, metric):
    targets = tiny.targets
    if metric is logit_difference:
        targets = jnp.stack([targets, (targets[::-1] + 1) % 37], axis=1)
    fast = patch_each_head(
        tiny.params, prefix, tiny.fill, targets, tiny.config, metric=metric
    )
    expected = naive_effects(tiny, metric, targets)
    assert np.abs(expected).max() > 1e-2  # the effects are not all rounding
    assert_close(fast, expected, 10 * TOLERANCE)  # logits are larger than effects


@pytest.mark.parametrize(
    ("segments", "logit_bytes"),
    [(1, 1), pytest.param(2, 2000, marks=pytest.mark.slow)],
)
def test_segments_and_chunks_change_nothing(
    tiny, prefix, monkeypatch, segments, logit_bytes
):
    arguments = (tiny.params, prefix, tiny.fill, tiny.targets, tiny.config)
    expected = patch_each_head(*arguments)
    jax.clear_caches()  # the sizes are read while tracing
    monkeypatch.setattr(patching, "_MAX_SEGMENTS", segments)
    monkeypatch.setattr(patching, "_LOGIT_BYTES", logit_bytes)
    np.testing.assert_allclose(patch_each_head(*arguments), expected, atol=2e-6)
    jax.clear_caches()


def test_patching_a_head_with_its_own_output_does_nothing(tiny):
    one = prefill(tiny.params, tiny.tokens[:1], tiny.lengths[:1], tiny.config)
    effects = patch_each_head(
        tiny.params, one, one.heads[:, 0], tiny.targets[:1], tiny.config
    )
    np.testing.assert_allclose(effects, 0, atol=1e-5)


def test_generate_without_ablation_is_greedy(tiny, prefix):
    fast = generate(tiny.params, prefix, tiny.config, 4)
    tokens = jnp.pad(tiny.tokens, ((0, 0), (0, 4)))
    rows = jnp.arange(4)
    for step in range(4):
        at = tiny.lengths + step
        logits = forward(tiny.params, tokens, tiny.config, lengths=at, logits="last")
        following = jnp.argmax(logits.logits, axis=-1)
        np.testing.assert_array_equal(following, fast[:, step])
        tokens = tokens.at[rows, at].set(following)


def test_one_compile_serves_every_subset_fill_and_length(tiny):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params, tokens, lengths, fill, keep, targets):
        prefix = prefill(params, tokens, lengths, tiny.config)
        effects = patch_each_head(params, prefix, fill, targets, tiny.config)
        ablation = Ablation(keep, fill)
        return effects, generate(params, prefix, tiny.config, 2, ablation)

    for seed in range(3):
        params = jax.tree.map(lambda leaf, s=seed: leaf * (1 + s), tiny.params)
        lengths = jnp.array([13, 7, 1 + seed, 10])
        run(params, tiny.tokens, lengths, tiny.fill, tiny.keep(seed), tiny.targets)


def test_wrong_shapes_are_named(tiny, prefix):
    with pytest.raises(ValueError, match=r"\[L, H, K\]"):
        patch_each_head(
            tiny.params, prefix, tiny.fill[:, :1], tiny.targets, tiny.config
        )
    with pytest.raises(ValueError, match=r"targets must be \[B, ...\]"):
        patch_each_head(tiny.params, prefix, tiny.fill, tiny.targets[:2], tiny.config)
