"""Properties of ``forward`` on random Llamas; test_families.py has every family's."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close, cast

from jaxheads.models import family, llama
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.models.layers import attention, project_heads
from jaxheads.models.parameters import init_params, num_params
from jaxheads.models.rope import Rope


def plain_llama(params, tokens, config):
    """Llama in float64 numpy, one head and one position at a time: [T] -> [T, V]."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    norm = lambda x, s: x / np.sqrt((x**2).mean() + config.norm_epsilon) * s
    half = config.head_dim // 2

    def rotate(x, t):
        angle = t / config.rope.theta ** (np.arange(half) / half)
        pairs = (x[:half] + 1j * x[half:]) * np.exp(1j * angle)
        return np.concatenate([pairs.real, pairs.imag])

    stream = [p.embedding[token] for token in tokens]
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], p.layers)
        normed = [norm(x, layer.attention_norm) for x in stream]
        out = [x.copy() for x in stream]
        for h in range(config.num_heads):
            g = h // (config.num_heads // config.num_kv_heads)
            q = [rotate(x @ layer.wq[:, h], t) for t, x in enumerate(normed)]
            k = [rotate(x @ layer.wk[:, g], t) for t, x in enumerate(normed)]
            v = [x @ layer.wv[:, g] for x in normed]
            for t in range(len(tokens)):
                scores = np.array([q[t] @ k[s] for s in range(t + 1)])
                weights = np.exp(scores / np.sqrt(config.head_dim))
                weights /= weights.sum()
                z = sum(w * x for w, x in zip(weights, v, strict=False))
                out[t] += z @ layer.wo[h]
        stream = []
        for x in out:
            normed_x = norm(x, layer.mlp_norm)
            gate = normed_x @ layer.w_gate
            stream.append(
                x
                + (gate / (1 + np.exp(-gate)) * (normed_x @ layer.w_up)) @ layer.w_down
            )
    table = p.embedding.T if p.unembedding is None else p.unembedding
    return np.stack([norm(x, p.final_norm) @ table for x in stream])


def test_logits_equal_a_plain_model_written_out_in_numpy(tiny):
    out = forward(tiny.params, tiny.tokens, tiny.config, lengths=tiny.lengths)
    for row, length in enumerate(tiny.lengths):
        expected = plain_llama(tiny.params, tiny.tokens[row, :length], tiny.config)
        assert_close(out.logits[row, :length], expected)


def test_float64_shrinks_the_difference_by_four_orders(tiny):
    with jax.enable_x64(True):
        params = cast(tiny.params, np.float64)
        out = forward(params, tiny.tokens, tiny.config)
    assert out.logits.dtype == jnp.float64
    expected = plain_llama(tiny.params, tiny.tokens[0], tiny.config)
    np.testing.assert_allclose(out.logits[0], expected, atol=1e-9)


def test_scan_equals_an_unrolled_loop(tiny):
    model, config = family("llama"), tiny.config
    positions = jnp.broadcast_to(jnp.arange(13)[None], (4, 13))
    mask = jnp.tril(jnp.ones((13, 13), bool))[None]
    x = model.embed(tiny.params, tiny.tokens, positions, config)
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], tiny.params.layers)
        attend = lambda q, k, v: attention(q, k, v, mask)[0]
        x = model.block(layer, x, positions, attend, config)
    expected = model.unembed(tiny.params, x, config)
    out = forward(tiny.params, tiny.tokens, config)
    assert_close(out.logits, expected)


def test_logits_last_all_and_at_positions_agree(tiny):
    run = lambda logits: (
        forward(
            tiny.params, tiny.tokens, tiny.config, lengths=tiny.lengths, logits=logits
        ).logits
    )
    last = (tiny.lengths - 1)[:, None]
    assert_close(run("last"), run(last)[:, 0])
    assert_close(run(last), run("all")[jnp.arange(4)[:, None], last])


def test_the_heads_contributions_sum_to_the_attention_output(tiny):
    z = jax.random.normal(jax.random.key(3), (4, 13, *tiny.fill.shape[1:]))
    wo = tiny.params.layers.wo[1]
    each = jnp.einsum("bthk,hkd->bthd", z, wo)
    assert_close(project_heads(z, wo), each.sum(axis=2))


def test_a_fill_by_position_or_none_is_not_seen_where_every_head_is_kept(tiny):
    shape = (tiny.config.num_layers, 4, 13, *tiny.fill.shape[1:])
    plain = forward(tiny.params, tiny.tokens, tiny.config)
    for fill in (None, jax.random.normal(jax.random.key(5), shape)):
        ones = Ablation(jnp.ones(tiny.fill.shape[:2]), fill)
        kept = forward(tiny.params, tiny.tokens, tiny.config, ablation=ones)
        np.testing.assert_array_equal(kept.logits, plain.logits)


def test_zeroing_every_head_is_a_model_without_attention_output(tiny):
    none = tiny.params.replace(
        layers=tiny.params.layers.replace(wo=0 * tiny.params.layers.wo)
    )
    expected = forward(none, tiny.tokens, tiny.config)
    zeros = Ablation(jnp.zeros(tiny.fill.shape[:2]))
    out = forward(tiny.params, tiny.tokens, tiny.config, ablation=zeros)
    assert_close(out.logits, expected.logits)


def test_an_ablation_replaces_just_the_chosen_heads_and_positions(tiny):
    keep = tiny.keep(1)
    ablation = Ablation(keep, tiny.fill, tiny.last)
    out = forward(
        tiny.params, tiny.tokens, tiny.config, ablation=ablation, capture=("heads",)
    )
    clean = forward(tiny.params, tiny.tokens, tiny.config, capture=("heads",))
    assert out.heads is not None and clean.heads is not None
    replaced = (keep == 0)[:, None, None] & np.asarray(tiny.last)[None, :, :, None]
    expected = np.broadcast_to(tiny.fill[:, None, None], out.heads.shape)
    np.testing.assert_allclose(out.heads[replaced], expected[replaced], atol=1e-5)
    first = np.argmax(np.asarray(keep == 0).any(axis=1))
    kept = ~np.broadcast_to(replaced, replaced.shape)[: first + 1]
    np.testing.assert_array_equal(
        out.heads[: first + 1][kept], clean.heads[: first + 1][kept]
    )


def test_a_new_mask_fill_or_length_adds_no_trace(tiny):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params, tokens, lengths, ablation):
        return forward(
            params, tokens, tiny.config, lengths=lengths, ablation=ablation
        ).logits

    for seed in range(3):
        ablation = Ablation(tiny.keep(seed), tiny.fill * seed)
        run(tiny.params, tiny.tokens, tiny.lengths - seed // 2, ablation)


@pytest.mark.parametrize("name", ["llama-gqa", "toy-smeared", "toy-shifted"])
def test_bfloat16_keeps_logits_and_softmax_in_float32(name):
    tiny = Tiny(CONFIGS[name])
    params = cast(tiny.params, jnp.bfloat16)
    out = forward(params, tiny.tokens, tiny.config, capture=("patterns", "heads"))
    assert out.heads is not None and out.patterns is not None
    assert out.logits.dtype == out.patterns.dtype == jnp.float32
    assert out.heads.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(tokens=jnp.zeros((4,), int)), r"\[B, T\]"),
        (dict(tokens=jnp.zeros((1, 65), int)), "context is 64"),
        (dict(capture=("heads", "logits")), "logits"),
        (dict(logits="first"), "first"),
        (dict(ablation=Ablation(jnp.ones((7, 7)))), r"\[L, H\]"),
        (dict(ablation=Ablation(jnp.ones((3, 6)), jnp.ones((3, 6)))), r"\[L, H, K\]"),
        (
            dict(ablation=Ablation(jnp.ones((3, 6)), None, jnp.ones((2, 2), bool))),
            r"\[B, T\]",
        ),
    ],
)
def test_wrong_arguments_are_named(tiny_gqa, change, message):
    arguments = {"tokens": tiny_gqa.tokens} | change
    with pytest.raises(ValueError, match=message):
        forward(tiny_gqa.params, config=tiny_gqa.config, **arguments)


def test_presets_are_counted_without_memory():
    config = llama.Config(30, 576, 9, 3, 64, 1536, 49152, 8192, Rope(1e5), tied=True)
    assert num_params(llama.abstract(config)) == 134_515_008
    shapes = jax.eval_shape(
        lambda key: init_params(llama.abstract(config), key), jax.random.key(0)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 134_515_008


def test_products_of_float32_are_exact_unless_the_user_chooses(tiny_gqa):
    def precisions(params) -> set[str]:
        run = lambda p: forward(p, tiny_gqa.tokens, tiny_gqa.config).logits
        text = str(jax.make_jaxpr(run)(params))
        return set(re.findall(r"precision=(\([^)]*\)|\w+)", text))

    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tiny_gqa.params)
    with jax.default_matmul_precision(None):  # type: ignore[arg-type]
        assert precisions(tiny_gqa.params) == {"(Precision.HIGHEST, Precision.HIGHEST)"}
        assert precisions(narrow) == set()
    with jax.default_matmul_precision("tensorfloat32"):
        assert not any("HIGHEST" in how for how in precisions(tiny_gqa.params))
