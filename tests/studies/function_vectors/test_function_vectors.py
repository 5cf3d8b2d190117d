"""Function vectors: made, read out and run, against the definitions written out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close

from jaxheads import heads
from jaxheads.errors import UserError
from jaxheads.icl.prompts import Batch
from jaxheads.models import family
from jaxheads.models.addition import Addition
from jaxheads.models.forward import forward, last_token_logits, prefill
from jaxheads.models.metrics import probability
from jaxheads.models.steering import steer
from jaxheads.studies.function_vectors.vectors import (
    Rows,
    answer_rows,
    function_vector,
    read_out,
    starts_of,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Grouped queries; a norm behind the attention; biases of the output projection.
KINDS = ("llama-gqa", "olmo2", "gpt2")


@pytest.fixture(params=KINDS, scope="module")
def case(request) -> Tiny:
    return Tiny(CONFIGS[request.param])


@pytest.fixture(scope="module")
def gqa() -> Tiny:
    return Tiny(CONFIGS["llama-gqa"])


def by_hand(case, chosen, bias):
    """The sum over chosen heads, one at a time, in float64."""
    c, layers = case.config, jax.tree.map(np.asarray, case.params.layers)
    total = np.zeros(c.width)
    for layer, head in np.argwhere(chosen):
        project = lambda h, at=layer: np.float64(case.fill[at, h]) @ layers.wo[at, h]
        added = project(head)
        if c.model_type == "olmo2":  # the norm has the denominator of all heads' mean
            whole = np.sum([project(h) for h in range(c.num_heads)], axis=0)
            scale = np.sqrt((whole**2).mean() + c.norm_epsilon)
            added = added / scale * layers.attention_norm[layer]
        total += added
        if bias == "each_head" and c.model_type == "gpt2":
            total += layers.bo[layer]
    return total


@pytest.mark.parametrize("bias", ["none", "each_head"])
def test_a_function_vector_is_the_sum_of_what_its_heads_add(case, bias):
    chosen = np.asarray(case.keep(4, 3), bool)
    assert chosen.sum(axis=(1, 2)).min() > 1
    make = lambda heads: function_vector(
        case.params, case.fill, heads, case.config, bias
    )
    vectors = jax.vmap(make)(jnp.asarray(chosen))
    assert_close(vectors, [by_hand(case, one, bias) for one in chosen])


def test_a_vector_reads_out_as_the_tokens_of_its_largest_logits(gqa):
    c = gqa.config
    vectors = np.random.default_rng(0).normal(size=(2, c.width)).astype(np.float32)
    ids, logits = read_out(gqa.params, vectors, c, 4)
    all_logits = family(c.model_type).unembed(gqa.params, jnp.asarray(vectors), c)
    order = np.argsort(-np.asarray(all_logits), axis=-1)[:, :4]
    np.testing.assert_array_equal(ids, order)
    assert_close(logits, np.take_along_axis(np.asarray(all_logits), order, -1))


def batch_of(case, seed=0) -> Batch:
    """Prompts of which some are answered right: by targets that vectors lead to."""
    tokens, lengths = np.asarray(case.tokens), np.asarray(case.lengths, np.int32)
    tokens = np.random.default_rng(seed).permuted(tokens, axis=1)
    return Batch(tokens, lengths, np.asarray(case.targets))


def naive_logits(case, batch, vector, layer, place):
    """Logits of whole runs with a vector in one layer, at the last position."""
    c, at = case.config, np.arange(batch.tokens.shape[1])[None]
    where = jnp.asarray(at == batch.lengths[:, None] - 1)
    weights = jnp.eye(c.num_layers)[layer]
    addition = Addition(jnp.asarray(vector), weights, where, place)
    lengths = jnp.asarray(batch.lengths)
    out = forward(
        case.params, batch.tokens, c, lengths=lengths, ablation=addition, logits="last"
    )
    return out.logits


def naive(*arguments):
    """Top-1 tokens of the same runs."""
    return np.asarray(naive_logits(*arguments)).argmax(-1)


@pytest.mark.parametrize(
    "place", ["leaving", pytest.param("entering", marks=pytest.mark.slow)]
)
def test_answers_with_vectors_are_those_of_whole_runs(gqa, place):
    c, layers = gqa.config, [2, 0]
    rng = np.random.default_rng(2)
    vectors = 2 * rng.normal(size=(3, c.width)).astype(np.float32)
    batch = batch_of(gqa)
    tokens = np.array(
        [[naive(gqa, batch, v, layer, place) for layer in layers] for v in vectors]
    )
    nothing = naive(gqa, batch, 0 * vectors[0], 0, place)
    # What the second vector says in the first of the layers, but for one prompt.
    targets = np.append(tokens[1, 0, :3], nothing[3]).astype(np.int32)
    batch = dataclasses.replace(batch, targets=targets)
    starts = np.tile(starts_of(c, layers, place), len(vectors))
    rows = Rows(np.repeat(vectors, len(layers), axis=0), starts, 1)
    plain, steered = answer_rows(gqa.params, c, batch, rows, 3)
    right, chance = (part.reshape(3, 2, -1) for part in steered)
    np.testing.assert_array_equal(plain.right, nothing == targets)
    np.testing.assert_array_equal(right, tokens == targets)
    expected = [
        [probability(naive_logits(gqa, batch, v, layer, place), jnp.asarray(targets))
         for layer in layers]
        for v in vectors
    ]  # fmt: skip
    assert_close(chance, expected)
    assert right.any() and not right.all() and not (right == right[:1]).all()


def test_a_layer_place_or_shape_that_does_not_fit_is_refused(gqa):
    c = gqa.config
    with pytest.raises(UserError, match=r"layers 0 to 2, not \[3\]"):
        starts_of(c, [0, 3], "leaving")
    with pytest.raises(UserError, match="added at one of"):
        starts_of(c, [0], "inside")
    with pytest.raises(ValueError, match="bias must be one of"):
        function_vector(gqa.params, gqa.fill, gqa.keep(0), c, "twice")
    nested = heads.prefixes(np.asarray(gqa.keep(0)), [1, 2])
    with pytest.raises(ValueError, match=r"jax\.vmap for many"):
        function_vector(gqa.params, gqa.fill, jnp.asarray(nested), c)


@pytest.mark.parametrize("kind", ["gemma2", "gpt_neox", "toy-shifted"])
def test_runs_that_start_at_a_layer_equal_runs_of_all_layers(kind):
    case = Tiny(CONFIGS[kind])
    c, rng = case.config, np.random.default_rng(4)
    vectors = jnp.asarray(rng.normal(size=(2, 3, c.width)), jnp.float32)
    starts = np.array([[0, 1, 1], [1, c.num_layers, c.num_layers]])
    prefix = prefill(case.params, case.tokens, case.lengths, c)
    read = lambda logits, targets: logits
    steered = steer(
        case.params, prefix, vectors, starts, case.targets, c, metric=read
    )  # [C, R, B, V]
    for chunk, row in np.ndindex(starts.shape):
        start = starts[chunk, row]
        place = "entering" if start < c.num_layers else "leaving"
        layers = jnp.eye(c.num_layers)[min(start, c.num_layers - 1)]
        addition = Addition(vectors[chunk, row], layers, place=place)
        expected = last_token_logits(case.params, prefix, c, addition)
        assert_close(steered[chunk, row], expected)
    with pytest.raises(ValueError, match=r"vectors must be \[C, R, D\]"):
        steer(case.params, prefix, vectors[0], starts, case.targets, c, metric=read)
