"""Runs that start at the first replaced layer and position, against whole forwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, EVERY, Tiny, assert_close

from jaxheads.engine import sweeps
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.models.metrics import log_probability
from jaxheads.models.resuming import resume, run_clean

pytestmark = pytest.mark.usefixtures("quick_compilation")

AT = np.array([[12, 9], [6, 7], [11, 12], [9, 5]])


@pytest.fixture(params=EVERY, scope="module")
def case(request) -> Tiny:
    return Tiny(CONFIGS[request.param])


@pytest.fixture(scope="module")
def gqa() -> Tiny:
    return Tiny(CONFIGS["llama-gqa"])


@pytest.mark.parametrize("start", [0, 5])
def test_resuming_equals_a_whole_forward(case, start):
    """With the first layer left alone, and later layers at the later positions."""
    c = case.config
    keep = case.keep(3).at[0].set(1)
    where = np.zeros((4, 13), bool)
    where[:, start:] = np.random.default_rng(0).random((4, 13 - start)) > 0.3
    slow = forward(
        case.params,
        case.tokens,
        c,
        ablation=Ablation(keep, case.fill, jnp.asarray(where)),
        logits=jnp.asarray(AT),
    ).logits
    clean = run_clean(case.params, case.tokens, c, first_position=start)
    ablation = Ablation(keep, case.fill, jnp.asarray(where[:, start:]))
    at = jnp.asarray(AT - start)
    for layer in (0, 1):  # one compile
        fast = resume(case.params, clean, c, ablation, at, jnp.asarray(layer))
        assert_close(fast, slow)


@pytest.mark.parametrize("site", ["q", "k", "v"])
def test_every_site_resumes(gqa, site):
    c = gqa.config
    heads = c.num_heads if site == "q" else c.num_kv_heads
    rng = np.random.default_rng(1)
    fill = rng.normal(size=(c.num_layers, 4, 13, heads, c.head_dim)).astype(np.float32)
    replaced = rng.random((5, c.num_layers, heads)) > 0.5
    replaced[0], replaced[1, :2] = False, False  # none; the last layer alone
    where = np.zeros((4, 13), bool)
    where[:, 3:] = rng.random((4, 10)) > 0.4
    targets = rng.integers(0, c.vocab_size, AT.shape)
    fast = sweeps.sweep_under_subsets(
        gqa.params, np.asarray(gqa.tokens), c, replaced, fill, AT, targets,
        where=where, site=site, chunk=2,
    )  # fmt: skip
    run = jax.jit(
        lambda keep: log_probability(
            forward(
                gqa.params,
                gqa.tokens,
                c,
                ablation=Ablation(keep, jnp.asarray(fill), jnp.asarray(where), site),
                logits=jnp.asarray(AT),
            ).logits,
            jnp.asarray(targets),
        )
    )
    slow = np.stack([run(jnp.asarray(1 - one, jnp.float32)) for one in replaced])
    assert_close(fast, slow)
    assert np.abs(slow - slow[0]).max() > 0.1


def test_losses_of_a_sweep_equal_one_forward_a_subset(gqa):
    """Chunks, order and a fill of one value a position change nothing."""
    c, tokens = gqa.config, np.asarray(gqa.tokens)
    rng = np.random.default_rng(2)
    replaced = rng.random((9, c.num_layers, c.num_heads)) > 0.7
    replaced[4] = False
    replaced[6, :2] = False
    fill = rng.normal(size=(c.num_layers, 1, 13, c.num_heads, c.head_dim))
    fill = fill.astype(np.float32)
    at = np.array([3, 10, 7])
    done: list[int] = []
    run = lambda chunk: sweeps.losses_under_subsets(
        gqa.params, tokens, c, replaced, fill, at, chunk=chunk, advance=done.append
    )
    fast = run(2)
    assert sum(done) == 9
    np.testing.assert_allclose(run(9), fast, atol=1e-5)
    for subset, losses in zip(replaced, fast, strict=True):
        keep = jnp.asarray(1 - subset, jnp.float32)
        ablation = Ablation(keep, jnp.asarray(fill))
        logits = forward(gqa.params, gqa.tokens, c, ablation=ablation).logits
        expected = -np.asarray(jax.nn.log_softmax(logits[:, at - 1]))
        picked = np.take_along_axis(expected, tokens[:, at][..., None], -1)[..., 0]
        assert_close(losses, picked)


def test_the_shared_prefix_is_not_copied_for_each_subset(gqa):
    c = gqa.config
    clean = run_clean(gqa.params, gqa.tokens, c, first_position=7)
    keeps = gqa.keep(9, count=6)
    at = jnp.asarray(np.full((4, 1), 5))

    def run(keep):
        return resume(gqa.params, clean, c, Ablation(keep, gqa.fill), at, 0)

    text = jax.jit(jax.vmap(run)).lower(keeps).compile().as_text()
    assert text and f"f32[6,4,7,{c.num_kv_heads},{c.head_dim}]" not in text


def test_a_start_outside_the_sequence_is_named(gqa):
    with pytest.raises(ValueError, match="13 positions"):
        run_clean(gqa.params, gqa.tokens, gqa.config, first_position=13)
