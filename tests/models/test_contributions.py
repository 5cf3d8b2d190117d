"""What families say a head adds to the stream, and a part of it to the logits."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, EVERY, assert_close, random_params

from jaxheads.models import FAMILIES, family
from jaxheads.models.layers import to_logits

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(params=EVERY, scope="module")
def seen(request, quick_compilation) -> dict[str, Any]:
    """All that is compared, of one layer with random inputs; one compile a family."""
    config = CONFIGS[request.param]
    model, params = family(config.model_type), random_params(config)
    others = random_params(config, seed=1)
    rng = np.random.default_rng(3)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    parts = draw(3, 2, 4, config.width)
    z = draw(2, 4, config.num_heads, config.head_dim)
    return {
        "config": config,
        **jax.device_get(_run(model, params, others, config, parts, z)),
    }


def _run(model, params, others, config, parts, z) -> dict[str, Any]:
    @jax.jit
    def run(params, others, parts, z):
        layer = jax.tree.map(lambda leaf: leaf[-1], params.layers)
        whole = parts.sum(0)
        positions = jnp.broadcast_to(jnp.arange(4)[None], (2, 4))
        values = []

        def attend(q, k, v, **_):
            values.append(v)
            return z

        out = {}
        quiet = _without_mlp(layer)
        out["added"] = model.block(quiet, whole, positions, attend, config) - whole
        out["values"] = values[0]
        donor = jax.tree.map(lambda leaf: leaf[-1], others.layers)
        taken = {name: getattr(donor, name) for name in model.OUTPUT}
        patched = dataclasses.replace(quiet, **taken)
        out["patched"] = model.block(patched, whole, positions, attend, config) - whole
        quiet = _without_mlp(donor)
        out["donors"] = model.block(quiet, whole, positions, attend, config) - whole
        inputs = model.attention_input(layer, whole, config)
        out["projected"] = jnp.tensordot(inputs, layer.wv, 1)
        if getattr(layer, "bv", None) is not None:
            out["projected"] += layer.bv[None, None]
        out["each"] = model.contributions(layer, z, config)
        out["bias"] = getattr(layer, "bo", None)
        attended = jnp.einsum("bthk,hkd->btd", z, layer.wo)
        first = z * (jnp.arange(config.num_heads) == 0)[None, None, :, None]
        out["first"] = model.contributions(layer, first, config, attended)
        # Behind the norms before attention and before the unembedding.
        out["inputs"] = inputs
        out["input_parts"] = model.attention_input(layer, parts, config, whole[None])
        nothing = jnp.zeros((1, 1, config.width))
        out["input_bias"] = model.attention_input(layer, nothing, config)
        uncapped = config
        if hasattr(config, "logit_cap"):
            uncapped = dataclasses.replace(config, logit_cap=None)
        out["logits"] = model.unembed(params, whole, uncapped)
        out["logit_parts"] = model.unembed(params, parts, config, whole[None])
        if getattr(params, "final_norm_bias", None) is not None:
            bias = params.final_norm_bias[None, None]
            out["logit_bias"] = to_logits(bias, params.embedding, params.unembedding)
        return out

    return run(params, others, parts, z)


def _without_mlp(layer):
    """The layer with an MLP that adds nothing."""
    names = [
        name for name in ("w_down", "b_down") if getattr(layer, name, None) is not None
    ]
    nothing = {name: jnp.zeros_like(getattr(layer, name)) for name in names}
    return dataclasses.replace(layer, **nothing)


def test_heads_and_the_output_bias_are_what_attention_adds(seen):
    config = seen["config"]
    assert seen["each"].shape == (2, 4, config.num_heads, config.width)
    bias = 0 if seen["bias"] is None else seen["bias"]
    assert_close(seen["each"].sum(-2) + bias, seen["added"])


def test_output_leaves_are_all_that_lies_between_heads_and_the_stream(seen):
    """With a donor's in their place, a layer adds what the donor's attention adds."""
    assert np.abs(seen["donors"] - seen["added"]).max() > 0.1
    assert_close(seen["patched"], seen["donors"])


def test_every_family_is_walked():
    walked = {FAMILIES[config.model_type] for config in CONFIGS.values()}
    assert walked == set(FAMILIES.values())


def test_a_head_alone_adds_what_it_adds_among_all(seen):
    assert_close(seen["first"][..., 0, :], seen["each"][..., 0, :])
    assert not seen["first"][..., 1:, :].any()


def test_the_attention_input_is_what_values_are_projected_from(seen):
    assert_close(seen["projected"], seen["values"])


@pytest.mark.parametrize("name", ["input", "logit"])
def test_parts_of_the_stream_add_up_behind_a_norm(seen, name):
    """But for its bias; and the cap on logits is left out."""
    whole = seen[name + "s"]
    assert np.abs(whole).max() > 1
    assert_close(seen[name + "_parts"].sum(0) + seen.get(name + "_bias", 0), whole)
