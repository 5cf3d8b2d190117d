"""Additions to the residual stream, against loops over blocks written out by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close

from jaxheads.models import family
from jaxheads.models.ablation import Ablation
from jaxheads.models.addition import PLACES, Addition
from jaxheads.models.forward import (
    forward,
    generate,
    heads_under,
    last_token_logits,
    prefill,
)
from jaxheads.models.layer_scan import sequence_positions, visible, windows
from jaxheads.models.layers import attention
from jaxheads.models.resuming import resume, run_clean

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Keys that take up the previous position's; capped scores, windows and norms behind
# attention; parallel blocks with biases.
MORE = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("toy-smeared", "gemma2", "gpt_neox")
]


@pytest.fixture(params=["llama-gqa", *MORE], scope="module")
def case(request) -> Tiny:
    return Tiny(CONFIGS[request.param])


@pytest.fixture(scope="module")
def gqa() -> Tiny:
    return Tiny(CONFIGS["llama-gqa"])


def addition_to(case, place="entering", shape="each", last=False) -> Any:
    """A random addition of the stream's own size, to some layers and positions."""
    c, rng = case.config, np.random.default_rng(PLACES.index(place))
    b, t = case.tokens.shape
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    vector = {
        "one": lambda: draw(c.width),
        "layers": lambda: draw(c.num_layers, c.width),
        "each": lambda: draw(c.num_layers, b, t, c.width),
    }[shape]()
    where = case.last if last else jnp.asarray(rng.random((b, t)) > 0.4)
    return Addition(vector, draw(c.num_layers), where, place)


def by_hand(case, entering, leaving):
    """Logits [B, T, V] and the stream [L, B, T, D] that each layer reads."""
    c, model = case.config, family(case.config.model_type)
    positions = sequence_positions(*case.tokens.shape)
    window = windows(c)
    x = model.embed(case.params, case.tokens, positions, c)
    one_later = lambda values: jnp.roll(values, 1, axis=1).at[:, 0].set(0)
    streams = []
    for index in range(c.num_layers):
        layer = jax.tree.map(lambda leaf, at=index: leaf[at], case.params.layers)
        mask = visible(positions, positions, None if window is None else window[index])

        def attend(q, k, v, *, softcap=None, mix=None, mask=mask):
            if mix is not None:
                k, v = mix(k, v, one_later(k), one_later(v))
            return attention(q, k, v, mask, softcap)[0]

        def part(addition, at=index):
            added = addition.vector[at] * addition.layers[at]
            return jnp.where(addition.where[:, :, None], added, 0)

        x = x + part(entering)
        streams.append(x)
        x = model.block(layer, x, positions, attend, c) + part(leaving)
    return model.unembed(case.params, x, c), jnp.stack(streams)


def test_forward_equals_a_loop_over_blocks(case):
    parts = tuple(addition_to(case, place) for place in PLACES)
    expected, streams = jax.jit(lambda: by_hand(case, *parts))()
    c, capture = case.config, ("residual",)
    out = forward(case.params, case.tokens, c, ablation=parts, capture=capture)
    assert_close(out.logits, expected)
    assert_close(out.residual, streams)


def test_the_last_position_alone_equals_a_whole_forward(case):
    """Swept over layers by vmap, one vector for all; with heads replaced beside it."""
    c, keep = case.config, case.keep(3)
    first, second = (addition_to(case, place, "one", last=True) for place in PLACES)
    prefix = prefill(case.params, case.tokens, case.lengths, c)

    def parts(layers, where):
        return (
            first.replace(layers=layers, where=where),
            Ablation(keep, case.fill, where),
            second.replace(layers=layers[::-1], where=where),
        )

    def fast(layers):
        return last_token_logits(case.params, prefix, c, parts(layers, None))

    sweep = jnp.eye(c.num_layers)
    swept = jax.vmap(fast)(sweep)
    for layers, logits in zip(sweep, swept, strict=True):  # one compile
        there = parts(layers, case.last)
        whole = forward(
            case.params, case.tokens, c, lengths=case.lengths, ablation=there
        )
        at = jnp.arange(4), case.lengths - 1
        assert_close(logits, whole.logits[at])
    assert np.abs(np.diff(swept, axis=0)).max() > 1e-2  # layers differ


def test_a_vector_leaving_a_layer_enters_the_next(gqa):
    c = gqa.config
    prefix = prefill(gqa.params, gqa.tokens, gqa.lengths, c)
    vector = addition_to(gqa, shape="one").vector
    sweep = jnp.eye(c.num_layers)

    def run(place):
        return jax.vmap(
            lambda at: last_token_logits(
                gqa.params, prefix, c, Addition(vector, at, None, place)
            )
        )(sweep)

    entering, leaving = run("entering"), run("leaving")
    assert_close(leaving[:-1], entering[1:])
    final = family(c.model_type).unembed(gqa.params, prefix.final + vector[None], c)
    assert_close(leaving[-1], final)


def test_vectors_by_layer_and_by_prompt_are_one_formula(gqa):
    c = gqa.config
    addition = addition_to(gqa, shape="layers")
    b, t = gqa.tokens.shape
    run = lambda vector: (
        forward(
            gqa.params, gqa.tokens, c, ablation=addition.replace(vector=vector)
        ).logits
    )
    shared = addition.vector[:, None, None]
    whole = jnp.broadcast_to(shared, (c.num_layers, b, t, c.width))
    expected = run(whole)
    assert_close(run(addition.vector), expected)
    assert_close(run(shared), expected)


@pytest.mark.slow
def test_the_gradient_in_the_layers_is_the_slope_of_a_small_addition(gqa):
    c = gqa.config
    prefix = prefill(gqa.params, gqa.tokens, gqa.lengths, c)
    vector = addition_to(gqa, shape="one").vector

    def log_probability(layers):
        logits = last_token_logits(gqa.params, prefix, c, Addition(vector, layers))
        return jax.nn.log_softmax(logits)[jnp.arange(4), gqa.targets].sum()

    step = 1e-3 * jnp.eye(c.num_layers)
    slopes = jax.grad(log_probability)(jnp.zeros(c.num_layers))
    ends = jax.vmap(log_probability)(jnp.concatenate([step, -step]))
    up, down = ends.reshape(2, c.num_layers)
    np.testing.assert_allclose(slopes, (up - down) / 2e-3, rtol=0.03, atol=0.03)
    assert np.abs(slopes).max() > 0.1


def test_generation_adds_at_the_last_position_and_at_every_new_one(gqa):
    c, count = gqa.config, 3
    prefix = prefill(gqa.params, gqa.tokens, gqa.lengths, c)
    addition = addition_to(gqa, shape="layers").replace(where=None)
    made = np.asarray(generate(gqa.params, prefix, c, count, addition))
    tokens = np.pad(np.asarray(gqa.tokens), [(0, 0), (0, count)])
    lengths = np.asarray(gqa.lengths)
    at = np.arange(tokens.shape[1])[None]
    for new in range(count):
        where = (at >= lengths[:, None] - 1) & (at < lengths[:, None] + new)
        logits = forward(
            gqa.params,
            jnp.asarray(tokens),
            c,
            lengths=jnp.asarray(lengths + new),
            ablation=addition.replace(where=jnp.asarray(where)),
            logits="last",
        ).logits
        expected = np.argmax(logits, axis=-1)
        np.testing.assert_array_equal(made[:, new], expected)
        tokens[np.arange(4), lengths + new] = expected


def test_a_run_resumes_at_the_first_layer_that_is_added_to(gqa):
    """Also where heads are replaced, whose outputs a clean first layer would lend."""
    c, start, first = gqa.config, 5, 1
    keep = gqa.keep(2).at[:first].set(1)
    addition = addition_to(gqa)
    addition = addition.replace(
        layers=addition.layers.at[:first].set(0),
        where=addition.where.at[:, :start].set(False),
    )
    later = addition.replace(
        vector=addition.vector[:, :, start:], where=addition.where[:, start:]
    )
    after = jnp.broadcast_to(jnp.arange(13)[None] >= start, (4, 13))
    at = jnp.array([[12, 9], [6, 7], [11, 12], [9, 5]])
    parts = addition, Ablation(keep, gqa.fill, after)
    slow = forward(gqa.params, gqa.tokens, c, ablation=parts, logits=at).logits
    clean = run_clean(gqa.params, gqa.tokens, c, first_position=start)
    there = later, Ablation(keep, gqa.fill)
    fast = resume(gqa.params, clean, c, there, at - start, jnp.asarray(first))
    assert_close(fast, slow)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vector": jnp.zeros(3)}, "addition.vector must have shape"),
        ({"vector": jnp.zeros((3, 2, 13, 22))}, "addition.vector must have shape"),
        ({"layers": jnp.zeros(4)}, "addition.layers must have shape"),
        ({"where": jnp.zeros((4, 1), bool)}, "addition.where must have shape"),
        ({"place": "inside"}, "addition.place must be one of"),
    ],
)
def test_an_addition_that_does_not_fit_is_refused(gqa, change: dict[str, Any], words):
    addition = addition_to(gqa).replace(**change)
    with pytest.raises(ValueError, match=words):
        forward(gqa.params, gqa.tokens, gqa.config, ablation=addition)


def test_heads_under_their_own_ablation_take_no_addition(gqa):
    with pytest.raises(ValueError, match="take no Addition"):
        heads_under(gqa.params, gqa.tokens, gqa.config, addition_to(gqa))
