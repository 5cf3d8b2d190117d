"""Attribution from gradients, against whole forwards and where it must be exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close

from jaxheads.errors import UserError
from jaxheads.models.ablation import Ablation, StopGradient
from jaxheads.models.forward import forward, last_token_logits, patch_each_head, prefill
from jaxheads.models.metrics import logit_difference, probability
from jaxheads.studies.attribution import gradients
from jaxheads.studies.attribution.verification import verify

SLOW = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def gqa() -> Tiny:
    return Tiny(CONFIGS["llama-gqa"])


@pytest.fixture(scope="module")
def linear() -> Tiny:
    """Attention alone without norms: linear once its patterns are fixed."""
    return Tiny(CONFIGS["toy"])


def prefix_of(case):
    return prefill(case.params, case.tokens, case.lengths, case.config)


def whole_value(case, prompt, metric, targets, site="z", stopped=None):
    """Keep to the metric of one prompt, by a whole forward of the batch."""

    def value(keep):
        ablation = (Ablation(keep, case.fill, case.last, site),)
        if stopped is not None:
            ablation = (*ablation, StopGradient(stopped))
        logits = forward(
            case.params,
            case.tokens,
            case.config,
            lengths=case.lengths,
            ablation=ablation,
            logits="last",
        ).logits
        return metric(logits, targets)[prompt]

    return value


def pairs(case):
    return jnp.stack([case.targets, case.targets[::-1] + 1], axis=1)


@pytest.mark.parametrize(
    "point",
    ["clean", *(pytest.param(n, marks=SLOW) for n in ("integrated", "ablated"))],
)
def test_slopes_are_the_gradients_of_whole_forwards(gqa, point):
    fast = gradients.at_last_position(
        gqa.params, prefix_of(gqa), gqa.fill, gqa.targets, gqa.config,
        point=point, steps=3,
    )  # fmt: skip
    shape = gqa.fill.shape[:2]
    points = {"clean": [1.0], "ablated": [0.0], "integrated": [1 / 6, 3 / 6, 5 / 6]}
    for prompt in range(2):
        value = whole_value(gqa, prompt, probability, gqa.targets)
        slope = jax.jit(jax.grad(value))
        slow = -np.mean([slope(jnp.full(shape, at)) for at in points[point]], axis=0)
        scale = np.abs(slow).max()
        np.testing.assert_allclose(fast[..., prompt], slow, atol=2e-4 * scale)


@pytest.mark.slow
def test_integrated_estimates_sum_to_what_all_heads_do(gqa):
    """Completeness: the sum over heads is m(all replaced) - m(all kept)."""
    prefix = prefix_of(gqa)
    shape = gqa.fill.shape[:2]
    # By small steps, from the prompts' own outputs a short way towards the fill.
    fill = prefix.heads[:, :, None] + 0.05 * gqa.fill[:, None, None]
    run = lambda keep: probability(
        last_token_logits(gqa.params, prefix, gqa.config, Ablation(keep, fill)),
        gqa.targets,
    )
    estimate = gradients.at_last_position(
        gqa.params, prefix, fill, gqa.targets, gqa.config, point="integrated", steps=16
    )
    change = run(jnp.zeros(shape)) - run(jnp.ones(shape))
    assert np.abs(change).max() > 1e-3
    np.testing.assert_allclose(estimate.sum(axis=(0, 1)), change, rtol=1e-2, atol=1e-5)


@pytest.mark.slow
def test_the_estimate_is_exact_where_the_model_is_straight(linear):
    """Heads of the last layer write into logits that are linear in them."""
    prefix, targets = prefix_of(linear), pairs(linear)
    arguments = (linear.params, prefix, linear.fill, targets, linear.config)
    exact = patch_each_head(*arguments, metric=logit_difference)
    estimate = gradients.at_last_position(*arguments, metric=logit_difference)
    assert_close(estimate[-1], exact[-1], 1e-4)
    assert np.abs(exact[0] - estimate[0]).max() > 0.1  # patterns bend the first layer


@pytest.mark.slow
def test_the_qk_fix_is_exact_where_the_slope_of_a_query_is_not(linear):
    prefix, targets, c = prefix_of(linear), pairs(linear), linear.config

    @jax.jit
    def exact(keep):
        ablation = Ablation(keep, linear.fill, site="q")
        logits = last_token_logits(linear.params, prefix, c, ablation)
        return logit_difference(logits, targets)

    ones = jnp.ones(linear.fill.shape[:2])
    effects = np.stack([exact(ones.at[-1, h].set(0)) for h in range(c.num_heads)])
    effects = effects - np.asarray(exact(ones))
    run = lambda fill, site: np.asarray(
        gradients.at_last_position(
            linear.params, prefix, fill, targets, c, metric=logit_difference, site=site
        )
    )
    fixed = gradients.repatched(
        linear.params, linear.tokens, linear.lengths, c, linear.fill, "q"
    )
    assert_close(run(fixed, "z")[-1], effects, 1e-4)
    assert np.abs(run(linear.fill, "q")[-1] - effects).max() > 0.1


@pytest.mark.slow
def test_keys_and_values_are_attributed_by_group(gqa):
    fill = gqa.fill[:, :2]
    fast = gradients.at_last_position(
        gqa.params, prefix_of(gqa), fill, gqa.targets, gqa.config, site="v"
    )
    assert fast.shape == (3, 2, 4)

    def value(keep):
        ablation = Ablation(keep, fill, gqa.last, "v")
        logits = forward(
            gqa.params,
            gqa.tokens,
            gqa.config,
            lengths=gqa.lengths,
            ablation=ablation,
            logits="last",
        ).logits
        return probability(logits, gqa.targets)[1]

    slow = -jax.jit(jax.grad(value))(jnp.ones((3, 2)))
    np.testing.assert_allclose(fast[..., 1], slow, atol=2e-4 * np.abs(slow).max())


@pytest.mark.slow
def test_dropping_gradients_averages_the_sizes_without_each_layer(gqa):
    prefix = prefix_of(gqa)
    arguments = (gqa.params, prefix, gqa.fill, gqa.targets, gqa.config)
    found = gradients.dropped_gradients(*arguments)
    total = 0.0
    for layer in range(3):
        stopped = jnp.arange(3) == layer
        value = whole_value(gqa, 0, probability, gqa.targets, stopped=stopped)
        slope = np.asarray(jax.jit(jax.grad(value))(jnp.ones(gqa.fill.shape[:2])))
        assert not slope[layer].any()
        total = total + np.abs(slope)
    np.testing.assert_allclose(found[..., 0], total / 2, atol=2e-4 * np.max(total))


def known_effects(effects):
    """Exact effects of single heads, from a table."""
    return lambda replaced: np.array([effects[heads].sum() for heads in replaced])


def test_verification_finds_the_worst_miss():
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(4, 5)) * 0.1
    effects[2, 3] = -2.0  # large, and the estimate does not see it
    effects[0, 1] = 1.0
    estimate = effects.copy()
    estimate[2, 3] = 0.0
    found = verify(estimate, known_effects(effects), top_k=3, sample=17, seed=1)
    assert found.top.sum() == 3 and found.top[0, 1] and not found.top[2, 3]
    assert (found.top | found.sample).all() and not (found.top & found.sample).any()
    np.testing.assert_array_equal(found.exact, effects)
    assert found.worst_miss == -2.0 and found.worst_miss_head == (2, 3)
    assert found.missed == 1
    assert 0.3 < found.rank_agreement < 1
    part = verify(estimate, known_effects(effects), top_k=3, sample=4, seed=1)
    assert part.sample.sum() == 4
    assert np.isnan(part.exact[~(part.top | part.sample)]).all()
    np.testing.assert_allclose((1 - part.bound) ** 4, 0.05)
    perfect = verify(effects, known_effects(effects), 3, 5, 0)
    assert perfect.rank_agreement == perfect.sign_agreement == 1
    assert perfect.missed == 0
    assert perfect.describe()["worst_miss_head"] == list(perfect.worst_miss_head)


def test_sizes_are_verified_against_sizes():
    effects = np.array([[0.1, -0.5], [0.3, -0.02]])
    found = verify(np.abs(effects), known_effects(effects), 2, 2, 0, signed=False)
    assert found.rank_agreement == 1 and np.isnan(found.sign_agreement)
    assert found.describe()["sign_agreement"] is None


@pytest.mark.parametrize(("top_k", "sample"), [(0, 2), (2, 0), (3, 2)])
def test_what_cannot_be_verified_is_told(top_k, sample):
    with pytest.raises(UserError, match="4"):
        verify(np.eye(2), known_effects(np.eye(2)), top_k, sample, 0)
