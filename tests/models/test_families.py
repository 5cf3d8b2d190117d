"""What every family owes to the engine, on tiny random models.

``forward`` over whole sequences is the reference; all that shares a prefix, a batch or
a compile must agree with it to rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, EVERY, TOLERANCE, Tiny, assert_close, cast

from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import (
    forward,
    generate,
    last_token_logits,
    patch_each_head,
    prefill,
)
from jaxheads.models.metrics import log_probability

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS = np.arange(4)

# Plain numpy around the calls: jax compiles every small operation for every shape.


@pytest.fixture(params=EVERY, scope="module")
def case(request) -> Tiny:
    return Tiny(CONFIGS[request.param])


@pytest.fixture(scope="module")
def clean(case):
    """Logits [B, T, V] without an ablation."""
    return np.asarray(forward(case.params, case.tokens, case.config).logits)


@pytest.fixture(scope="module")
def prefix(case):
    return prefill(case.params, case.tokens, case.lengths, case.config)


def ablated(case, keep):
    """Logits [B, T, V] with heads replaced at the last position."""
    ablation = Ablation(keep, case.fill, case.last)
    return forward(case.params, case.tokens, case.config, ablation=ablation).logits


def at_last(case, logits):
    """[..., B, T, V] -> [..., B, V]."""
    return np.asarray(logits)[..., ROWS, np.asarray(case.lengths) - 1, :]


def test_each_position_sees_just_its_past(case):
    """By the gradient of one position's logits; windows and shifts limit its reach."""
    params, config = case.params, case.config
    if params.unembedding is None:  # the gradient is through the input only
        params = params.replace(unembedding=np.asarray(params.embedding).T)
    tokens = jnp.asarray(np.tile(np.arange(13), (4, 1)))  # token t at position t

    @jax.jit
    def gradient(position):
        def loss(embedding):
            at = jnp.full((4, 1), position)
            moved = params.replace(embedding=embedding)
            return (forward(moved, tokens, config, logits=at).logits ** 2).sum()

        return jax.grad(loss)(params.embedding)

    windows = config.windows or (None,)
    reach = sum(12 if window is None else window - 1 for window in windows)
    for position in (0, 5, 12):
        seen = np.abs(np.asarray(gradient(position))[:13]).max(axis=1) > 0
        behind = position - np.arange(13)
        np.testing.assert_array_equal(seen, (behind >= 0) & (behind <= reach))


def test_padding_and_other_rows_change_nothing(case, clean, prefix):
    tokens = np.asarray(case.tokens)
    alone = forward(case.params, jnp.asarray(tokens[1:2, :7]), case.config).logits
    assert_close(alone, clean[1:2, :7])
    pads = np.arange(13) >= np.asarray(case.lengths)[:, None]
    other = np.where(pads, tokens[::-1], tokens)
    again = prefill(case.params, other, case.lengths, case.config)
    for mine, theirs in ((prefix.logits, again.logits), (prefix.heads, again.heads)):
        assert_close(theirs, mine)


def test_captures_are_shaped_and_prefill_keeps_their_last(case, clean, prefix):
    c = case.config
    names = ("heads", "patterns", "residual")
    out = forward(case.params, case.tokens, c, capture=names)
    assert out.heads is not None and out.residual is not None
    assert out.heads.shape == (c.num_layers, 4, 13, c.num_heads, c.head_dim)
    assert out.residual.shape == (c.num_layers, 4, 13, c.width)
    patterns = np.asarray(out.patterns)
    assert patterns.shape == (c.num_layers, 4, c.num_heads, 13, 13)
    np.testing.assert_allclose(patterns.sum(-1), 1, atol=1e-6)
    behind = np.arange(13)[:, None] - np.arange(13)
    for layer, window in enumerate(c.windows or [None] * c.num_layers):
        seen = (behind >= 0) & (behind < (window or 13))
        assert not patterns[layer, :, :, ~seen].any()
    last = np.asarray(case.lengths) - 1
    assert_close(out.logits, clean)
    assert_close(prefix.logits, at_last(case, clean))
    assert_close(prefix.heads, np.asarray(out.heads)[:, ROWS, last])
    assert_close(prefix.residual, np.asarray(out.residual)[:, ROWS, last])


def test_keeping_every_head_is_no_ablation_bit_for_bit(case, clean):
    ones = jnp.asarray(np.ones(case.fill.shape[:2], np.float32))
    np.testing.assert_array_equal(ablated(case, ones), clean)


def test_subsets_at_once_equal_one_by_one_equal_runs_of_the_last_token(case, prefix):
    keeps = np.asarray(case.keep(2, count=5))
    each = at_last(case, np.stack([ablated(case, keep) for keep in keeps]))
    together = jax.jit(jax.vmap(lambda keep: ablated(case, keep)))(keeps)
    assert_close(at_last(case, together), each)
    run = lambda keep: last_token_logits(
        case.params, prefix, case.config, Ablation(keep, case.fill)
    )
    assert_close(jax.jit(jax.vmap(run))(keeps), each)


def test_patching_each_head_equals_one_forward_a_head(case, prefix):
    fast = patch_each_head(
        case.params,
        prefix,
        case.fill,
        case.targets,
        case.config,
        metric=log_probability,
    )
    layers, heads, _ = case.fill.shape
    # Each row replaces one head, the last row none.
    keeps = 1 - np.eye(layers * heads + 1, layers * heads, dtype=np.float32)
    keeps = keeps.reshape(-1, layers, heads)
    logits = at_last(case, np.stack([ablated(case, keep) for keep in keeps]))
    targets = np.broadcast_to(case.targets, logits.shape[:-1])
    metric = np.asarray(jax.jit(log_probability)(logits, targets))
    slow = (metric[:-1] - metric[-1]).reshape(fast.shape)
    assert np.abs(slow).max() > 0.1  # nats: the effects are not all rounding
    assert_close(fast, slow, 10 * TOLERANCE)  # the logits are larger than the effects


def test_generating_equals_whole_forwards_token_by_token(case, prefix):
    keeps = np.stack([case.keep(6), np.ones(case.fill.shape[:2], np.float32)])
    run = lambda keep: generate(
        case.params, prefix, case.config, 4, Ablation(keep, case.fill)
    )
    starts = np.asarray(case.lengths)
    where = jnp.asarray(np.arange(17) >= starts[:, None] - 1)
    for keep, made in zip(keeps, jax.jit(jax.vmap(run))(keeps), strict=True):
        ablation = Ablation(keep, case.fill, where)
        tokens = np.pad(case.tokens, ((0, 0), (0, 4)))
        for step in range(4):
            ends = starts + step
            logits = forward(
                case.params, jnp.asarray(tokens), case.config, ablation=ablation
            ).logits
            tokens[ROWS, ends] = np.asarray(logits)[ROWS, ends - 1].argmax(axis=-1)
        answers = [
            row[start : start + 4] for row, start in zip(tokens, starts, strict=True)
        ]
        np.testing.assert_array_equal(made, answers)


@pytest.mark.slow
def test_the_gradient_in_keep_is_a_finite_difference_in_float64(case):
    with jax.enable_x64(True):
        params = cast(case.params, np.float64)
        fill = cast(case.fill, np.float64)

        @jax.jit
        @jax.value_and_grad
        def loss(keep):
            ablation = Ablation(keep, fill)
            logits = forward(params, case.tokens, case.config, ablation=ablation).logits
            assert logits.dtype == jnp.float64
            return jnp.sin(logits).sum()

        keep = np.full(fill.shape[:2], 0.7)
        _, gradient = loss(keep)
        for head in ((0, 1), (1, 0), (1, 1)):
            step = np.zeros_like(keep)
            step[head] = 1e-6
            difference = (loss(keep + step)[0] - loss(keep - step)[0]) / 2e-6
            np.testing.assert_allclose(gradient[head], difference, rtol=1e-5)
