"""Scores from weights and logits: by their definitions, and on heads built by hand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close, random_params

from jaxheads.models import toy
from jaxheads.models.forward import forward, prefill
from jaxheads.scores import (
    circuits,
    circuits as copying_circuit,
    copying,
    direct_logit,
    induction,
    qk_trace,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def numbers(leaf) -> np.ndarray:
    return np.asarray(leaf, np.float64)


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=-1, keepdims=True)


def part_logits(params, part, whole, epsilon) -> np.ndarray:
    """Logits of a part of the stream, written out for Llama and GPT-2."""
    if hasattr(params, "final_norm_bias"):
        part, whole = centred(part), centred(whole)
    part = part / np.sqrt((whole**2).mean() + epsilon) * numbers(params.final_norm)
    if params.unembedding is None:
        return numbers(params.embedding) @ part
    return part @ numbers(params.unembedding)


@pytest.mark.parametrize(
    ("name", "bos"), [("llama-gqa", False), ("llama-gqa", True), ("gpt2", False)]
)
def test_copying_equals_its_definition_in_loops(name, bos):
    config, params = CONFIGS[name], random_params(CONFIGS[name])
    # Six tokens either way: one compile.
    length, bos_id = (5, 0) if bos else (6, None)
    tokens = induction.probe(2, length, range(3, 36), bos_id, 1, repeats=1)
    scores = copying.copied(params, tokens, config, bos)
    capture = ("patterns", "values", "final")
    out = forward(params, jnp.asarray(tokens), config, capture=capture)
    patterns, values, final = map(numbers, (out.patterns, out.values, out.final))
    wo, group = numbers(params.layers.wo), config.num_heads // config.num_kv_heads
    there = range(int(bos), tokens.shape[1])
    for layer, head, b in np.ndindex(scores.shape):
        ratio = {}
        for s in there:
            part = values[layer, b, s, head // group] @ wo[layer, head]
            logits = part_logits(params, part, final[b, s], config.norm_epsilon)
            raised = np.maximum(logits - logits.mean(), 0)
            among = sum(raised[tokens[b, u]] for u in there)
            ratio[s] = raised[tokens[b, s]] / among if among else 0
        copied = attended = 0.0
        for t in there:
            for s in there:
                copied += patterns[layer, b, head, t, s] * ratio[s]
                attended += patterns[layer, b, head, t, s]
        expected = 2 * copied / attended - 1
        np.testing.assert_allclose(scores[layer, head, b], expected, atol=1e-4)


@pytest.fixture(scope="module")
def built():
    """Heads that copy, anti-copy and write at random, on one-hot tokens."""
    config = toy.Config(1, 40, 3, 40, 40, 64, norms=False)
    params = random_params(config)
    one = np.eye(40, dtype=np.float32)
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(2, 40, 40)).astype(np.float32)
    layers = params.layers.replace(
        wv=jnp.asarray(np.stack([one, one, noise[0]], axis=1)[None]),
        wo=jnp.asarray(np.stack([one, -one, noise[1]])[None]),
    )
    one = jnp.asarray(one)
    return config, params.replace(embedding=one, unembedding=one, layers=layers)


def test_heads_that_copy_and_anticopy_have_the_extreme_scores(built):
    config, params = built
    tokens = induction.probe(10, 25, range(40), None, 0, repeats=1)
    score = copying.head_scores(copying.copied(params, tokens, config), 25, False)
    np.testing.assert_allclose(score.mean[0, :2], [score.ceiling, -1], atol=1e-5)
    # Attention is to few positions here, so that few ratios count.
    assert abs(score.mean[0, 2] - score.chance) < 0.1
    products = copying_circuit.copying_circuits(params, config)
    by_weights = copying_circuit.head_scores(products)
    np.testing.assert_allclose(by_weights.mean[0, :2], [1, -1], atol=1e-6)
    assert abs(by_weights.mean[0, 2] - by_weights.chance) < 0.15


def test_chance_is_what_heads_that_raise_tokens_at_random_have():
    """Of the ratio alone, by the definition, over many draws."""
    logits = np.random.default_rng(0).normal(size=(20_000, 25))
    raised = np.maximum(logits, 0)
    mean = 2 * (raised[:, 0] / raised.sum(axis=1)).mean() - 1
    np.testing.assert_allclose(copying.chance(25), mean, atol=5e-3)


Fold = Callable[[np.ndarray, np.ndarray], np.ndarray]
# What stands before queries, keys, values and logits, and behind the output.
FOLDED: dict[str, tuple[Fold, Fold]] = {
    "llama-gqa": (lambda x, s: x * s, lambda x, s: x),
    "olmo2": (lambda x, s: x, lambda x, s: x * s),
    "gemma2": (lambda x, s: x * (1 + s), lambda x, s: x * (1 + s)),
    "gpt2": (lambda x, s: centred(x) * s, lambda x, s: x),
    "toy": (lambda x, s: x, lambda x, s: x),
}


def whole_maps(name):
    """Queries, keys, values [V, K] and what is written of values [V, D], by head."""
    config, params = CONFIGS[name], random_params(CONFIGS[name])
    before, behind = FOLDED[name]
    layers, embedding = params.layers, numbers(params.embedding)

    def of(layer, head):
        group = head // (config.num_heads // config.num_kv_heads)
        scale = np.ones(1)
        if layers.attention_norm is not None:
            scale = numbers(layers.attention_norm[layer])
        scale_behind = scale
        if name == "gemma2":
            scale_behind = numbers(layers.attention_post_norm[layer])
        read = before(embedding, scale)
        write = behind(numbers(layers.wo[layer, head]), scale_behind)
        written = read @ numbers(layers.wv[layer, :, group]) @ write
        again = lambda x: before(x, scale) @ numbers(layers.wk[layer, :, group])
        return read @ numbers(layers.wq[layer, :, head]), written, again

    return config, params, of


@pytest.mark.parametrize("name", FOLDED)
def test_circuits_are_those_of_whole_matrices_of_tokens(name):
    config, params, of = whole_maps(name)
    shape = (config.num_layers, config.num_heads)
    previous = np.random.default_rng(4).random(shape)
    copies = copying_circuit.head_scores(
        copying_circuit.copying_circuits(params, config)
    )
    products = qk_trace.matching_circuits(params, config, previous)
    traces = qk_trace.head_scores(products, "trace").mean
    positivity = qk_trace.head_scores(products).mean
    unembedding = params.unembedding
    unembedding = numbers(params.embedding).T if unembedding is None else unembedding
    final = np.ones(1) if params.final_norm is None else numbers(params.final_norm)
    before, _ = FOLDED[name]
    if name == "olmo2":
        before = FOLDED["llama-gqa"][0]
    earlier = np.zeros((config.vocab_size, config.width))
    for layer in range(shape[0]):
        added = 0
        for head in range(shape[1]):
            queries, written, keys_of = of(layer, head)
            copied = before(written, final) @ numbers(unembedding)  # [V, V]
            assert_close(copies.mean[layer, head], circuits.positivity(copied))
            matched = queries @ keys_of(earlier).T  # [V, V]
            # Denominators are 1 but for their epsilons.
            np.testing.assert_allclose(traces[layer, head], np.trace(matched), 1e-4)
            assert_close(positivity[layer, head], circuits.positivity(matched))
            added = added + previous[layer, head] * written
        earlier = earlier + added
    assert not traces[0].any() and np.abs(traces[1:]).min() > 0.01
    assert not copies.standard_error.any()


def test_a_head_that_matches_through_a_previous_token_head_has_trace_v():
    """Tokens live in the first half of the stream, what stood before in the second."""
    v = 11
    config = toy.Config(2, 2 * v, 3, v, v, 64, norms=False)
    params = random_params(config)
    first, second = np.eye(2 * v)[:, :v], np.eye(2 * v)[:, v:]
    nothing = np.zeros((2 * v, v))
    wv = np.stack([[first] * 3] * 2).swapaxes(1, 2)
    wo = np.stack([[second.T, nothing.T, nothing.T]] * 2)
    wq = np.stack([[first, first, -first]] * 2).swapaxes(1, 2)
    wk = np.stack([[second, first, second]] * 2).swapaxes(1, 2)
    made = {"wv": wv, "wo": wo, "wq": wq, "wk": wk}
    layers = params.layers.replace(
        **{name: jnp.asarray(value, jnp.float32) for name, value in made.items()}
    )
    params = params.replace(embedding=jnp.asarray(first.T, jnp.float32), layers=layers)
    for writer, weight in ((0, 0.5), (1, 0.0)):  # head 1 writes nothing
        previous = np.zeros((2, 3))
        previous[0, writer] = 0.5
        products = qk_trace.matching_circuits(params, config, previous)
        trace = qk_trace.head_scores(products, "trace")
        expected = np.array([[0, 0, 0], [v, 0, -v]])
        np.testing.assert_allclose(trace.mean, weight * expected, atol=1e-5)
        signs = np.sign(weight) * np.sign(expected)
        np.testing.assert_allclose(
            qk_trace.head_scores(products).mean, signs, atol=1e-6
        )


def test_an_unknown_definition_of_the_trace_is_refused():
    with pytest.raises(ValueError, match="positivity"):
        qk_trace.head_scores(np.zeros((1, 1, 2, 2)), "sum")


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2"])
def test_direct_effects_equal_logits_of_each_head_written_out(name):
    case = Tiny(CONFIGS[name])
    params, config = case.params, case.config
    prefix = prefill(params, case.tokens, case.lengths, config)
    targets = np.asarray(case.targets)
    pairs = np.stack([targets, (targets + 5) % config.vocab_size], axis=1)
    effects = direct_logit.attribution(params, prefix, case.targets, config)
    differences = direct_logit.attribution(params, prefix, jnp.asarray(pairs), config)
    heads, final, wo = map(numbers, (prefix.heads, prefix.final, params.layers.wo))
    expected = np.zeros((2, *effects.shape))
    for layer, head, b in np.ndindex(effects.shape):
        part = heads[layer, b, head] @ wo[layer, head]
        logits = part_logits(params, part, final[b], config.norm_epsilon)
        wanted, other = logits[pairs[b]]
        expected[:, layer, head, b] = wanted - logits.mean(), wanted - other
    assert np.abs(expected).max() > 0.3
    assert_close(effects, expected[0])
    assert_close(differences, expected[1])


@pytest.mark.parametrize("norms", [False, True])
def test_direct_effects_and_the_embeddings_add_up_to_the_logits(norms):
    """Attention alone: there is nothing else in the stream but the last norm's bias."""
    case = Tiny(toy.Config(2, 22, 5, 6, 41, 64, norms=norms))
    prefix = prefill(case.params, case.tokens, case.lengths, case.config)
    effects = direct_logit.effects(
        case.params, case.tokens, case.lengths, case.targets, case.config
    )
    toward = jax.jit(direct_logit.directions)(
        case.params, prefix.final, case.targets, case.config
    )
    embedded = np.asarray(case.params.embedding)[np.asarray(prefix.last_tokens)]
    total = np.asarray(effects).sum((0, 1)) + (embedded * np.asarray(toward)).sum(-1)
    logits = np.asarray(prefix.logits)
    if norms:
        bias = case.params.final_norm_bias
        logits = logits - np.asarray(bias) @ np.asarray(case.params.unembedding)
    said = logits[np.arange(4), np.asarray(case.targets)] - logits.mean(axis=1)
    assert_close(total, said)


def test_scores_state_what_they_mean():
    samples = np.arange(12.0).reshape(1, 3, 4)
    for difference in (False, True):
        score = direct_logit.head_scores(samples, "4 prompts", difference)
        np.testing.assert_allclose(score.mean, samples.mean(-1))
        assert score.unit == "nats" and "4 prompts" in score.definition
    copied = copying.head_scores(samples, 25, bos=True)
    assert "25 random tokens after BOS" in copied.definition
