"""What heads are replaced by, against numpy on captured values."""

import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close

from jaxheads.engine import fills
from jaxheads.errors import UserError
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward, last_token_logits, prefill

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def gqa() -> Tiny:
    return Tiny(CONFIGS["llama-gqa"])


@pytest.fixture(scope="module")
def captured(gqa):
    names = tuple(fills.CAPTURED.values())
    out = forward(gqa.params, gqa.tokens, gqa.config, capture=names)
    return {site: np.asarray(getattr(out, n)) for site, n in fills.CAPTURED.items()}


@pytest.mark.parametrize("site", fills.CAPTURED)
def test_means_are_over_the_real_positions(gqa, captured, site):
    tokens, lengths = np.asarray(gqa.tokens), np.asarray(gqa.lengths)
    values = captured[site]
    run = lambda **how: fills.mean(
        gqa.params, tokens, lengths, gqa.config, site=site, chunk=3, **how
    )
    last = np.mean([values[:, b, n - 1] for b, n in enumerate(lengths)], axis=0)
    assert_close(run(), last)
    rows = [values[:, b, t] for b, n in enumerate(lengths) for t in range(n)]
    assert_close(run(positions="pooled"), np.mean(rows, axis=0))
    each = run(positions="each")
    assert each.shape == (values.shape[0], 1, *values.shape[2:])
    reach = np.mean([values[:, b, 8] for b, n in enumerate(lengths) if n > 8], axis=0)
    assert_close(each[:, 0, 8], reach)


def test_bos_may_be_left_out_of_a_mean(gqa, captured):
    tokens = np.asarray(gqa.tokens)
    pooled = fills.mean(
        gqa.params, tokens, None, gqa.config, positions="pooled", first=1
    )
    assert_close(pooled, captured["z"][:, :, 1:].mean(axis=(1, 2)))
    with pytest.raises(UserError, match="1 tokens"):
        fills.mean(
            gqa.params, tokens, gqa.lengths, gqa.config, positions="pooled", first=1
        )


def test_resampled_values_are_another_prompts(gqa, captured):
    tokens, lengths = np.asarray(gqa.tokens), np.asarray(gqa.lengths)
    arguments = (gqa.params, tokens, lengths, gqa.config)
    last = fills.resampled(*arguments, np.random.default_rng(5))
    each = fills.resampled(*arguments, np.random.default_rng(5), positions="each")
    own = [captured["z"][:, b, n - 1] for b, n in enumerate(lengths)]
    for b in range(4):
        (other,) = [
            o for o in range(4) if np.allclose(last[:, b, 0], own[o], atol=1e-5)
        ]
        assert other != b
        np.testing.assert_allclose(each[:, b], captured["z"][:, other], atol=1e-5)
    prefix = prefill(gqa.params, tokens, lengths, gqa.config)
    ablation = Ablation(jnp.zeros(gqa.fill.shape[:2]), jnp.asarray(last))
    assert last_token_logits(gqa.params, prefix, gqa.config, ablation).shape == (4, 41)
    with pytest.raises(UserError, match="two prompts"):
        fills.resampled(
            gqa.params, tokens[:1], None, gqa.config, np.random.default_rng(0)
        )


def test_shuffling_keeps_the_heads_and_moves_them(gqa):
    fill = np.asarray(gqa.fill)
    moved = fills.shuffled(np.random.default_rng(0), fill)
    assert moved.shape == fill.shape and not (moved == fill).all()
    rows = lambda values: sorted(
        map(tuple, values.reshape(-1, fill.shape[-1]).tolist())
    )
    assert rows(moved) == rows(fill)


def test_the_bos_value_everywhere_is_attention_to_bos_alone(gqa):
    """At z it is what a head puts out when every value is that of BOS."""
    values = fills.bos_value(gqa.params, gqa.config, 7)
    heads = fills.bos_value(gqa.params, gqa.config, 7, site="z")
    np.testing.assert_allclose(heads, np.repeat(values, 3, axis=1), atol=1e-6)
    chosen = jnp.asarray([[0.0, 1.0]] * 3)
    run = lambda ablation: (
        forward(gqa.params, gqa.tokens, gqa.config, ablation=ablation).logits
    )
    at_values = run(Ablation(chosen, jnp.asarray(values), site="v"))
    at_heads = run(Ablation(jnp.repeat(chosen, 3, 1), jnp.asarray(heads)))
    assert_close(at_values, at_heads)


def test_unknown_names_are_told(gqa):
    tokens = np.asarray(gqa.tokens)
    with pytest.raises(UserError, match="pooled"):
        fills.mean(gqa.params, tokens, None, gqa.config, positions="first")
    with pytest.raises(UserError, match="site"):
        fills.mean(gqa.params, tokens, None, gqa.config, site="mlp")
