"""Every kind of ablation against one written out by hand, layer by layer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close, cast

from jaxheads.models import family
from jaxheads.models.ablation import SITES, Ablation, StopGradient
from jaxheads.models.forward import (
    forward,
    generate,
    heads_under,
    last_token_logits,
    prefill,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Grouped queries, capped scores and windows, mixed keys, parallel blocks.
SLOW = ("toy-smeared", "gemma2", "gpt_neox")
KINDS = ["llama-gqa", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(params=KINDS, scope="module")
def case(request) -> Tiny:
    return Tiny(CONFIGS[request.param])


@pytest.fixture(scope="module")
def gqa() -> Tiny:
    return Tiny(CONFIGS["llama-gqa"])


def heads_at(case, site):
    config = case.config
    return config.num_kv_heads if site in ("k", "v") else config.num_heads


def ablation_at(case, site, seed=0, fill=True) -> Any:
    """A random ablation at a site: some heads, by random values, at some positions."""
    rng = np.random.default_rng(seed)
    c = case.config
    b, t = case.tokens.shape
    heads = heads_at(case, site)
    keep = rng.random((c.num_layers, heads)).astype(np.float32)
    where, values = rng.random((b, t)) > 0.5, None
    if site == "pattern":
        where = rng.random((b, t, t)) > 0.5
        values = rng.random((c.num_layers, b, heads, t, t))
    elif fill:
        values = rng.normal(size=(c.num_layers, b, t, heads, c.head_dim))
    values = values if fill else None
    return Ablation(
        jnp.asarray(keep),
        None if values is None else jnp.asarray(values, jnp.float32),
        jnp.asarray(where),
        site,
    )


def changed(values, ablation, layer, axis):
    """``x + w (1 - keep) (fill - x)``, head by head, where it is True."""
    parts = []
    for head in range(values.shape[axis]):
        x = np.take(values, head, axis)
        y = np.zeros_like(x)
        if ablation.fill is not None:
            y = np.take(ablation.fill[layer], head, axis)
        keep = ablation.keep[layer, head]
        where = ablation.where[..., None]
        parts.append(np.where(where, keep * x + (1 - keep) * y, x))
    return np.stack(parts, axis)


def by_hand(case, ablation: Any):
    """Logits [B, T, V] with explicit loops over layers, heads and the site.

    Attention is numpy's: unrolled like this, it would take long to compile.
    """
    model, c = family(case.config.model_type), case.config
    ablation = jax.tree.map(np.asarray, ablation)
    b, t = case.tokens.shape
    positions = jnp.broadcast_to(jnp.arange(t)[None], (b, t))
    x = model.embed(case.params, case.tokens, positions, c)
    for l in range(c.num_layers):
        window = (c.windows or [None] * c.num_layers)[l] or t
        behind = np.arange(t)[:, None] - np.arange(t)[None]
        seen = (behind >= 0) & (behind < window)

        def attend(q, k, v, *, softcap=None, mix=None, l=l, seen=seen):
            if mix is not None:
                before = [
                    jnp.pad(y[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0))) for y in (k, v)
                ]
                k, v = mix(k, v, *before)
            q, k, v = (np.asarray(x) for x in (q, k, v))
            q = changed(q, ablation, l, 2) if ablation.site == "q" else q
            k = changed(k, ablation, l, 2) if ablation.site == "k" else k
            v = changed(v, ablation, l, 2) if ablation.site == "v" else v
            z = []
            for h in range(c.num_heads):
                g = h // (c.num_heads // c.num_kv_heads)
                scores = np.einsum("btk,bsk->bts", q[:, :, h], k[:, :, g])
                scores = scores / np.sqrt(c.head_dim)
                if softcap is not None:
                    scores = softcap * np.tanh(scores / softcap)
                weights = np.exp(scores - scores.max(-1, keepdims=True)) * seen[None]
                pattern = weights / weights.sum(-1, keepdims=True)
                if ablation.site == "pattern" and ablation.fill is None:
                    scores = np.where(seen[None] & ~ablation.where, scores, -1e30)
                    weights = np.exp(scores - scores.max(-1, keepdims=True))
                    weights = weights * (seen[None] & ~ablation.where)
                    total = weights.sum(-1, keepdims=True)
                    other = weights / np.where(total == 0, 1, total)
                    keep = ablation.keep[l, h]
                    pattern = keep * pattern + (1 - keep) * other
                elif ablation.site == "pattern":
                    assert ablation.fill is not None
                    other, keep = np.take(ablation.fill[l], h, 1), ablation.keep[l, h]
                    mixed = keep * pattern + (1 - keep) * other
                    pattern = np.where(ablation.where, mixed, pattern)
                z.append(np.einsum("bts,bsk->btk", pattern, v[:, :, g]))
            z = np.stack(z, 2)
            z = changed(z, ablation, l, 2) if ablation.site == "z" else z
            return jnp.asarray(z, x.dtype)

        layer = jax.tree.map(lambda leaf, l=l: leaf[l], case.params.layers)
        x = model.block(layer, x, positions, attend, c)
    return model.unembed(case.params, x, c)


def test_every_site_is_what_it_says(case):
    ablations = [ablation_at(case, site) for site in SITES]
    ablations += [ablation_at(case, site, 1, fill=False) for site in ("v", "pattern")]
    slow = [by_hand(case, ablation) for ablation in ablations]
    clean = np.asarray(forward(case.params, case.tokens, case.config).logits)
    for ablation, expected in zip(ablations, slow, strict=True):
        out = forward(case.params, case.tokens, case.config, ablation=ablation)
        assert_close(out.logits, expected)
        assert np.abs(out.logits - clean).max() > 0.1  # it does something


def test_the_capture_shows_what_was_replaced(gqa):
    def run(ablation, *names):
        return forward(
            gqa.params, gqa.tokens, gqa.config, ablation=ablation, capture=names
        )

    for site, name in (
        ("q", "queries"),
        ("k", "keys"),
        ("v", "values"),
        ("z", "heads"),
    ):
        ablation = ablation_at(gqa, site)
        ablation = dataclasses.replace(ablation, keep=jnp.zeros_like(ablation.keep))
        found = np.asarray(getattr(run(ablation, name), name))
        where = np.asarray(ablation.where)
        np.testing.assert_allclose(
            found[:, where], np.asarray(ablation.fill)[:, where], atol=1e-6
        )
    knocked = ablation_at(gqa, "pattern", fill=False)
    knocked = dataclasses.replace(knocked, keep=0 * knocked.keep)
    patterns = np.asarray(run(knocked, "patterns").patterns)
    edges = np.broadcast_to(np.asarray(knocked.where)[:, None], patterns.shape[1:])
    assert not patterns[:, edges].any()
    rows = patterns.sum(-1)
    assert (np.isclose(rows, 1, atol=1e-5) | (rows == 0)).all() and (rows == 0).any()


def test_a_constant_value_everywhere_is_a_constant_head(gqa):
    """Attention sums to 1, so that replacing values is replacing the group's heads."""
    c = gqa.config
    group = c.num_heads // c.num_kv_heads
    fill = gqa.fill[:, : c.num_kv_heads]
    keep = jnp.asarray(np.random.default_rng(3).random((c.num_layers, 2)) > 0.5, float)
    values = Ablation(keep, fill, site="v")
    heads = Ablation(jnp.repeat(keep, group, 1), jnp.repeat(fill, group, 1))
    for_values, for_heads = (
        forward(gqa.params, gqa.tokens, c, ablation=ablation).logits
        for ablation in (values, heads)
    )
    assert_close(for_values, for_heads)


def test_several_ablations_follow_each_other(gqa):
    first, second = ablation_at(gqa, "v"), ablation_at(gqa, "z", 1)
    third = ablation_at(gqa, "z", 2)
    run = lambda ablation: forward(
        gqa.params, gqa.tokens, gqa.config, ablation=ablation, capture=("heads",)
    )
    both = run((first, second, third))
    # The last one is computed from what the earlier ones left.
    before = run((first, second))
    assert both.heads is not None and before.heads is not None
    keep = third.keep[0][None, None, :, None]
    expected = jnp.where(
        third.where[..., None, None],
        keep * before.heads[0] + (1 - keep) * third.fill[0],
        before.heads[0],
    )
    assert_close(both.heads[0], expected)


def test_pattern_preserving_ablation_drops_every_term_with_the_head():
    """In attention-only models without norms: a sum over paths (Olsson et al. 2022)."""
    case = Tiny(CONFIGS["toy"])
    config, params = case.config, case.params
    clean = forward(params, case.tokens, config, capture=("patterns",))
    keep = case.keep(5).at[0, 0].set(0)
    frozen = Ablation(0 * keep, clean.patterns, site="pattern")
    out = forward(params, case.tokens, config, ablation=(Ablation(keep), frozen))
    # By hand: with the patterns fixed the model is linear; an ablated head writes 0.
    patterns, stream = (
        np.asarray(clean.patterns),
        np.asarray(params.embedding)[case.tokens],
    )
    layers = jax.tree.map(np.asarray, params.layers)
    for l in range(config.num_layers):
        values = np.einsum("btd,dhk->bthk", stream, layers.wv[l])
        z = np.einsum("bhts,bshk->bthk", patterns[l], values)
        z = z * np.asarray(keep)[l][:, None]
        stream = stream + np.einsum("bthk,hkd->btd", z, layers.wo[l])
    expected = family("toy").unembed(params, jnp.asarray(stream), config)
    assert_close(out.logits, expected)
    full = forward(params, case.tokens, config, ablation=Ablation(keep)).logits
    assert np.abs(full - out.logits).max() > 0.1  # queries and keys matter too


def test_frozen_clean_patterns_change_nothing(case):
    clean = forward(case.params, case.tokens, case.config, capture=("patterns",))
    shape = (case.config.num_layers, case.config.num_heads)
    frozen = Ablation(jnp.zeros(shape), clean.patterns, site="pattern")
    again = forward(case.params, case.tokens, case.config, ablation=frozen)
    assert_close(again.logits, clean.logits)


@pytest.mark.parametrize("site", ["q", "k", "v"])
def test_a_run_of_the_last_position_equals_a_whole_forward(case, site):
    ablation = ablation_at(case, site)
    # The values of padded positions are not seen: each prompt's own at its last.
    fill = ablation.fill[:, :, :1]
    prefix = prefill(case.params, case.tokens, case.lengths, case.config)
    run = jax.jit(
        lambda ablation: (
            last_token_logits(case.params, prefix, case.config, ablation),
            generate(case.params, prefix, case.config, 3, ablation),
        )
    )
    fast, made = run(Ablation(ablation.keep, fill, site=site))
    whole = Ablation(ablation.keep, fill, case.last, site)
    slow = forward(
        case.params,
        case.tokens,
        case.config,
        lengths=case.lengths,
        ablation=whole,
        logits="last",
    ).logits
    assert_close(fast, slow)
    np.testing.assert_array_equal(made[:, 0], np.argmax(slow, -1))


def test_an_ablated_prefill_goes_on_where_forward_does(case):
    """Heads replaced at every position of the prompt, and at every new one."""
    ablation = Ablation(case.keep(2), case.fill)
    prefix = prefill(
        case.params, case.tokens, case.lengths, case.config, ablation=ablation
    )
    made = np.asarray(generate(case.params, prefix, case.config, 3, ablation))
    rows, lengths = np.arange(4), np.asarray(case.lengths)
    tokens = np.pad(case.tokens, ((0, 0), (0, 3)))
    for step in range(3):
        out = forward(case.params, jnp.asarray(tokens), case.config, ablation=ablation)
        following = np.asarray(out.logits)[rows, lengths + step - 1].argmax(-1)
        np.testing.assert_array_equal(following, made[:, step])
        tokens[rows, lengths + step] = following


def test_subsets_at_any_site_are_vmapped(gqa):
    for site in SITES:
        ablation = ablation_at(gqa, site)
        keeps = jnp.stack([ablation.keep, 1 - ablation.keep, ablation.keep**2])
        run = lambda keep, ablation=ablation: (
            forward(
                gqa.params,
                gqa.tokens,
                gqa.config,
                ablation=dataclasses.replace(ablation, keep=keep),
            ).logits
        )
        together = jax.jit(jax.vmap(run))(keeps)
        assert_close(together, np.stack([run(keep) for keep in keeps]))


@pytest.mark.parametrize(
    "site", ["v", "pattern", *(pytest.param(s, marks=pytest.mark.slow) for s in "zqk")]
)
def test_the_gradient_in_keep_is_a_finite_difference(gqa, site):
    with jax.enable_x64(True):
        params = cast(gqa.params, np.float64)
        ablation = cast(ablation_at(gqa, site), np.float64)
        where = np.asarray(ablation.where) > 0
        ablation = dataclasses.replace(ablation, where=jnp.asarray(where))

        @jax.jit
        @jax.value_and_grad
        def loss(keep, ablation=ablation):
            run = dataclasses.replace(ablation, keep=keep)
            out = forward(params, gqa.tokens, gqa.config, ablation=run)
            return jnp.sin(out.logits).sum()

        keep = np.asarray(ablation.keep)
        gradient = loss(keep)[1]
        for head in ((0, 1), (1, 0)):
            step = np.zeros_like(keep)
            step[head] = 1e-6
            difference = (loss(keep + step)[0] - loss(keep - step)[0]) / 2e-6
            np.testing.assert_allclose(gradient[head], difference, rtol=1e-5)


def test_stopped_layers_keep_their_values_and_lose_their_gradient(gqa):
    def loss(keep, stops):
        ablation = (Ablation(keep, gqa.fill), StopGradient(stops))
        out = forward(gqa.params, gqa.tokens, gqa.config, ablation=ablation)
        return jnp.sin(out.logits).sum()

    run = jax.jit(jax.value_and_grad(loss))
    keep = jnp.full(gqa.fill.shape[:2], 0.7)
    plain, gradient = run(keep, jnp.zeros(3))
    for layer in range(3):
        value, stopped = run(keep, jnp.eye(3)[layer])
        np.testing.assert_allclose(value, plain, rtol=1e-4)
        assert not np.asarray(stopped)[layer].any()
        below = np.abs(np.asarray(stopped) - gradient)[:layer]
        assert layer == 0 or below.max() > 1e-3  # paths through the layer are gone
    above, _ = np.asarray(run(keep, jnp.eye(3)[0])[1]), None
    np.testing.assert_allclose(
        above[1:], np.asarray(gradient)[1:], rtol=2e-2, atol=1e-3
    )


def test_heads_under_an_ablation_of_their_layer_alone(gqa):
    """In each layer: the head outputs of a run that is ablated in this layer only."""
    ablation = ablation_at(gqa, "q")
    found = heads_under(gqa.params, gqa.tokens, gqa.config, ablation)
    for layer in range(gqa.config.num_layers):
        only = jnp.ones_like(ablation.keep).at[layer].set(ablation.keep[layer])
        out = forward(
            gqa.params,
            gqa.tokens,
            gqa.config,
            ablation=dataclasses.replace(ablation, keep=only),
            capture=("heads",),
        )
        assert out.heads is not None
        assert_close(found[layer], out.heads[layer])


@pytest.mark.parametrize(
    ("ablation", "message"),
    [
        (Ablation(jnp.ones((3, 6)), site="mlp"), "one of"),
        (Ablation(jnp.ones((3, 6)), site="v"), r"\[L, G\] = \(3, 2\)"),
        (Ablation(jnp.ones((3, 2)), jnp.ones((3, 6, 10)), site="v"), r"\[L, G, K\]"),
        (Ablation(jnp.ones((3, 6)), jnp.ones((3, 4, 2, 6, 10))), r"\[L, B, T, H, K\]"),
        (
            Ablation(jnp.ones((3, 6)), None, jnp.ones((4, 13), bool), "pattern"),
            r"\[B, T, S\]",
        ),
        (
            Ablation(jnp.ones((3, 6)), jnp.ones((3, 4, 6, 13, 12)), site="pattern"),
            r"\[L, B, H, T, S\]",
        ),
        ((Ablation(jnp.ones((3, 6)), site="pattern"),) * 2, "join"),
    ],
)
def test_wrong_ablations_are_named(gqa, ablation, message):
    with pytest.raises(ValueError, match=message):
        forward(gqa.params, gqa.tokens, gqa.config, ablation=ablation)


def test_patterns_are_refused_where_they_cannot_be_replaced(gqa):
    prefix = prefill(gqa.params, gqa.tokens, gqa.lengths, gqa.config)
    ablation = Ablation(jnp.ones((3, 6)), site="pattern")
    with pytest.raises(ValueError, match="use forward"):
        last_token_logits(gqa.params, prefix, gqa.config, ablation)
