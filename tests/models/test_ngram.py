"""N-gram head layers against loops over positions, alone and in toy models."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import assert_close, cast, random_params
from plain_ngrams import looked_at, plain_embedding

from jaxheads.errors import UserError
from jaxheads.models import ngram, toy
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import (
    forward,
    generate,
    last_token_logits,
    patch_each_head,
    prefill,
)
from jaxheads.models.layer_scan import sequence_positions
from jaxheads.models.parameters import num_params
from jaxheads.training.choices import choose_model
from jaxheads.training.config import ModelChoice, TrainConfig
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.state import decayed

pytestmark = pytest.mark.usefixtures("quick_compilation")

B, T, V = 4, 21, 3
MODEL = toy.Config(2, 18, 4, 6, V, 40, ngram_orders=(2, 1, 3))
NO_NORMS = dataclasses.replace(MODEL, norms=False, ngram_orders=(1, 3))


@functools.cache
def drawn():
    """Random tokens of few kinds, so that n-grams come again."""
    return np.random.default_rng(0).integers(0, V, (B, T))


@pytest.fixture(scope="module", params=[MODEL, NO_NORMS], ids=["norms", "no norms"])
def model(request):
    return random_params(request.param), request.param


def embedded(params, tokens, config, **kind):
    @jax.jit
    def run(params, tokens):
        positions = sequence_positions(*tokens.shape, **kind)
        return toy.embed(params, tokens, positions, config)

    return np.asarray(run(params, tokens))


def test_matches_are_those_of_a_loop_over_positions():
    tokens = drawn()
    found = jax.jit(lambda x: ngram.matches(x, sequence_positions(B, T), 3))(tokens)
    for n, match in enumerate(found, start=1):
        for b in range(B):
            loop = [np.flatnonzero(row).tolist() for row in np.asarray(match[b], bool)]
            assert loop == looked_at(tokens[b], n)
        assert 0.01 < np.asarray(match).mean() < 0.5


def test_the_last_of_a_run_of_equal_tokens_stands_behind_a_copy():
    tokens = jnp.array([[7, 7, 7, 7, 2]])
    run = jax.jit(lambda x: ngram.matches(x, sequence_positions(1, 5), 3))
    one, two, three = (np.asarray(match) for match in run(tokens))
    assert [np.flatnonzero(row).tolist() for row in one[0]] == [
        [], [1], [1, 2], [1, 2, 3], []
    ]  # fmt: skip
    assert np.argwhere(two[0]).tolist() == [[2, 2], [3, 2], [3, 3]]
    assert np.argwhere(three[0]).tolist() == [[3, 3]]


def test_the_stream_equals_loops_over_positions(model):
    params, config = model
    with jax.enable_x64(True):
        found = embedded(cast(params, np.float64), drawn(), config)
    expected = np.stack([plain_embedding(params, row, config) for row in drawn()])
    plain = np.asarray(params.embedding, np.float64)[drawn()]
    assert np.abs(expected - plain).max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_nothing_is_matched_across_documents(model):
    params, config = model
    bounds = (0, 6, 7, 15, T)
    segments = jnp.asarray(np.tile(np.repeat([4, 5, 2, 9], np.diff(bounds)), (B, 1)))
    found = embedded(params, drawn(), config, segments=segments)
    for start, stop in itertools.pairwise(bounds):
        part = drawn()[:, start:stop]
        expected = [plain_embedding(params, row, config) for row in part]
        assert_close(found[:, start:stop], np.stack(expected))
    assert np.abs(found - embedded(params, drawn(), config)).max() > 0.1


def test_documents_of_a_row_are_run_as_if_alone():
    params = random_params(MODEL)
    tokens = jnp.asarray(drawn())
    segments = jnp.asarray(np.tile(np.arange(T) >= 8, (B, 1)).astype(int))
    out = forward(params, tokens, MODEL, segments=segments).logits
    assert_close(out[:, 8:], forward(params, tokens[:, 8:], MODEL).logits)


@pytest.fixture(scope="module")
def prompts():
    """Params, tokens, lengths, a fill, three keeps, and the prefix of ``MODEL``."""
    # These params do not go on with one token for ever.
    params, rng = random_params(MODEL, 5, scale=1.5), np.random.default_rng(3)
    heads = (MODEL.num_layers, MODEL.num_heads)
    row, lengths = drawn().copy(), jnp.array([21, 11, 1, 16])
    row[0, -3:] = 1  # the last position looks at itself
    tokens = jnp.asarray(row)
    fill = jnp.asarray(0.3 * rng.normal(size=(*heads, MODEL.head_dim)), jnp.float32)
    keeps = np.asarray(rng.random((3, *heads)) > 0.4, np.float32)
    return params, tokens, lengths, fill, keeps, prefill(params, tokens, lengths, MODEL)


def test_padding_changes_nothing(prompts):
    params, tokens, lengths, *_, prefix = prompts
    pads = np.arange(T) >= np.asarray(lengths)[:, None]
    other = np.where(pads, (np.asarray(tokens) + 1) % V, tokens)
    again = prefill(params, other, lengths, MODEL)
    assert_close(again.logits, prefix.logits)


def test_runs_of_the_last_position_equal_whole_forwards(prompts):
    params, tokens, lengths, fill, keeps, prefix = prompts
    last = jnp.arange(T)[None] == lengths[:, None] - 1
    run = lambda keep: last_token_logits(params, prefix, MODEL, Ablation(keep, fill))
    whole = lambda keep: np.asarray(
        forward(
            params,
            tokens,
            MODEL,
            lengths=lengths,
            ablation=Ablation(keep, fill, last),
            logits="last",
        ).logits
    )
    each = np.stack([whole(keep) for keep in keeps])
    assert_close(jax.jit(jax.vmap(run))(keeps), each)
    targets = np.array([0, 2, 1, 1])
    effects = patch_each_head(params, prefix, fill, targets, MODEL)
    alone = np.ones(fill.shape[:2], np.float32)
    alone[1, 2] = 0

    def probability(logits):
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return (odds / odds.sum(axis=-1, keepdims=True))[np.arange(B), targets]

    wanted = probability(whole(alone)) - probability(np.asarray(prefix.logits))
    assert np.abs(wanted).max() > 1e-3
    assert_close(effects[1, 2], wanted)


def test_generating_equals_whole_forwards_token_by_token(prompts):
    params, tokens, lengths, fill, keeps, prefix = prompts
    count = 9
    run = lambda keep: generate(params, prefix, MODEL, count, Ablation(keep, fill))
    starts, rows = np.asarray(lengths), np.arange(B)
    where = jnp.asarray(np.arange(T + count) >= starts[:, None] - 1)
    for keep, made in zip(keeps, jax.jit(jax.vmap(run))(keeps), strict=True):
        row = np.pad(np.asarray(tokens), ((0, 0), (0, count)))
        for end in range(count):
            ablation = Ablation(keep, fill, where)
            out = forward(params, jnp.asarray(row), MODEL, ablation=ablation)
            row[rows, starts + end] = np.asarray(out.logits)[
                rows, starts + end - 1
            ].argmax(axis=-1)
        expected = [row[b, start : start + count] for b, start in enumerate(starts)]
        np.testing.assert_array_equal(made, expected)
        assert (np.diff(made) != 0).sum() > 5


def loss(params, tokens, config=MODEL):
    stream = toy.embed(params, tokens, sequence_positions(*tokens.shape), config)
    return jnp.sin(stream).sum()


def test_models_side_by_side_and_their_gradients_are_those_of_each_alone():
    each = [random_params(MODEL, seed) for seed in range(3)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    rows = np.random.default_rng(5).integers(0, V, (3, 2, T))
    run = jax.value_and_grad(loss)
    values, gradients = jax.device_get(jax.jit(jax.vmap(run))(params, rows))
    alone = jax.jit(run)
    for i, one in enumerate(each):
        value, gradient = jax.device_get(alone(one, rows[i]))
        assert_close(values[i], value)
        for name in ("norm", "norm_bias", "w_matched", "w_own"):
            mine, theirs = (getattr(g.ngrams, name) for g in (gradients, gradient))
            assert (np.abs(theirs).max(axis=tuple(range(1, theirs.ndim))) > 0).all()
            assert_close(mine[i], theirs)


def test_a_gradient_is_a_finite_difference_in_float64():
    with jax.enable_x64(True):
        params = cast(random_params(MODEL), np.float64)
        run = jax.jit(jax.value_and_grad(loss))
        _, gradient = run(params, drawn())
        for name, at in (
            ("w_matched", (0, 3, 5)),
            ("w_own", (2, 1, 1)),
            ("norm", (1, 4)),
        ):
            leaf, ends = np.asarray(getattr(params.ngrams, name)), []
            for change in (1e-6, -1e-6):
                moved = leaf.copy()
                moved[at] += change
                ngrams = params.ngrams.replace(**{name: moved})
                ends.append(run(params.replace(ngrams=ngrams), drawn())[0])
            difference = (ends[0] - ends[1]) / 2e-6
            found = getattr(gradient.ngrams, name)[at]
            np.testing.assert_allclose(found, difference, rtol=1e-5)


def test_half_precision_stays_near():
    params = random_params(MODEL, scale=1.0)
    whole = embedded(params, drawn(), MODEL)
    narrow = embedded(cast(params, jnp.bfloat16), drawn(), MODEL)
    assert narrow.dtype == jnp.bfloat16
    assert_close(narrow.astype(np.float32), whole, 0.03)


def test_params_are_counted_and_matrices_decay():
    d = MODEL.width
    without = num_params(toy.abstract(dataclasses.replace(MODEL, ngram_orders=())))
    assert num_params(toy.abstract(MODEL)) == without + 3 * (2 * d * d + 2 * d)
    decay = decayed(TrainConfig(), MODEL).ngrams
    assert (decay.w_matched, decay.w_own) == (True, True)
    assert (decay.norm, decay.norm_bias) == (False, False)


def test_the_command_line_takes_a_list_of_orders():
    source = RepeatedTokens(11, 20, 3, 9)
    choose = lambda given: choose_model(ModelChoice(settings=(given,)), source)
    config = choose("ngram_orders=[1,2]")
    assert config.ngram_orders == (1, 2)
    assert hash(config) == hash(toy.Config.from_hf(dataclasses.asdict(config)))
    for wrong in ("[0]", "[4]", "2", "[1,true]", "1,2", '["1"]'):
        with pytest.raises(UserError, match="ngram_orders"):
            choose(f"ngram_orders={wrong}")
