"""Function vectors: made, read out and run, against the definitions written out."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close

from jaxheads import heads, load
from jaxheads.errors import UserError
from jaxheads.icl.prompts import Batch
from jaxheads.icl.tasks import load_tasks
from jaxheads.models import family
from jaxheads.models.addition import Addition
from jaxheads.models.forward import forward, last_token_logits, prefill
from jaxheads.models.metrics import probability
from jaxheads.models.steering import steer
from jaxheads.studies.function_vectors.execution import (
    PROMPTS,
    Execution,
    build_conditions,
    execute,
)
from jaxheads.studies.function_vectors.vectors import (
    answered_with,
    function_vector,
    read_out,
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
    plain, steered = answered_with(
        gqa.params, c, batch, vectors, layers, place=place, chunk=3, budget_bytes=1
    )
    right = steered.right
    np.testing.assert_array_equal(plain.right, nothing == targets)
    np.testing.assert_array_equal(right, tokens == targets)
    expected = [
        [probability(naive_logits(gqa, batch, v, layer, place), jnp.asarray(targets))
         for layer in layers]
        for v in vectors
    ]  # fmt: skip
    assert_close(steered.probability, expected)
    assert right.any() and not right.all() and not (right == right[:1]).all()


def test_execution_says_which_prompts_each_condition_answers(gqa):
    c, rng = gqa.config, np.random.default_rng(3)
    vector, *random = rng.normal(size=(3, c.width)).astype(np.float32)
    prompts = {name: batch_of(gqa, seed) for seed, name in enumerate(PROMPTS)}
    targets = naive(gqa, prompts["zero_shot"], vector, 1, "leaving").astype(np.int32)
    prompts = {
        name: dataclasses.replace(batch, targets=targets)
        for name, batch in prompts.items()
    }
    run = execute(gqa.params, c, prompts, vector, np.array(random))
    assert run.layers.tolist() == [1] and c.num_layers == 3  # L // 3
    assert run.correct["zero_shot_vector"].all()
    for name in PROMPTS:
        nothing = naive(gqa, prompts[name], 0 * vector, 0, "leaving")
        np.testing.assert_array_equal(run.correct[name], nothing == targets)
    for name in ("shuffled", "zero_shot"):
        got = np.concatenate(
            [run.correct[f"{name}_vector"][None], run.correct[f"{name}_random"]]
        )
        each = [naive(gqa, prompts[name], v, 1, "leaving") for v in (vector, *random)]
        np.testing.assert_array_equal(got[:, 0], np.array(each) == targets)
    prompts["shuffled"] = batch_of(gqa)
    with pytest.raises(UserError, match="build them from one seed"):
        execute(gqa.params, c, prompts, vector)


def test_accuracies_count_all_prompts_or_those_answered_clean():
    correct: dict[str, Any] = {
        "clean": np.array([1, 1, 0, 1], bool),
        "shuffled": np.array([1, 0, 1, 0], bool),
        "shuffled_vector": np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool),
        "shuffled_random": np.array([[[1, 0, 0, 0]], [[1, 1, 0, 0]]], bool),
    }
    run = Execution(np.array([0, 2]), "leaving", correct, {})
    every, answered = run.accuracy(), run.accuracy("answered")
    assert every["clean"].mean == 0.75 and every["clean"].prompts == 4
    assert answered["clean"].mean == 1 and answered["clean"].prompts == 3
    assert every["shuffled"].mean == 0.5
    np.testing.assert_allclose(answered["shuffled"].mean, 1 / 3)
    np.testing.assert_allclose(answered["shuffled_vector"].mean, [2 / 3, 1])
    np.testing.assert_allclose(answered["shuffled_vector"].standard_error, [1 / 3, 0])
    np.testing.assert_allclose(every["shuffled_random"].mean, [0.375])
    np.testing.assert_allclose(
        every["shuffled_random"].standard_error,
        [np.std([1, 0.5, 0, 0], ddof=1) / 2],
    )
    correct["clean"] = np.zeros(4, bool)
    none = Execution(run.layers, "leaving", correct, {})
    accuracy = none.accuracy("answered")["shuffled_vector"]
    assert np.isnan(accuracy.mean).all() and accuracy.prompts == 0
    with pytest.raises(UserError, match="among one of"):
        run.accuracy("right")


def test_conditions_differ_in_their_demonstrations_alone(model_folder):
    model = load(str(model_folder))
    assert model.tokenizer is not None
    task = load_tasks(None)[0]
    made = build_conditions(task, 5, 4, 0, model.tokenizer, bos=False, pool="second")
    texts = {
        name: [
            model.tokenizer.decode(list(row[:length]))
            for row, length in zip(batch.tokens, batch.lengths, strict=True)
        ]
        for name, batch in made.items()
    }
    for clean, shuffled, bare in zip(*(texts[name] for name in PROMPTS), strict=True):
        assert clean.count("Q: ") == shuffled.count("Q: ") == 5
        assert bare.count("Q: ") == 1
        assert clean.endswith(bare) and shuffled.endswith(bare)
        words = lambda text: sorted(text.split())
        assert words(clean) == words(shuffled)
    assert texts["clean"] != texts["shuffled"]
    for name in PROMPTS[1:]:
        np.testing.assert_array_equal(made[name].targets, made["clean"].targets)


def test_a_layer_place_or_shape_that_does_not_fit_is_refused(gqa):
    c, batch, vector = gqa.config, batch_of(gqa), np.zeros((1, gqa.config.width))
    with pytest.raises(UserError, match=r"layers 0 to 2, not \[3\]"):
        answered_with(gqa.params, c, batch, vector, [0, 3])
    with pytest.raises(UserError, match="added at one of"):
        answered_with(gqa.params, c, batch, vector, [0], place="inside")
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
