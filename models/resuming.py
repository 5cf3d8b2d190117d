"""Runs of whole sequences that start where an ablation starts: what all share is kept.

Nothing before the first replaced layer changes, nor, under a causal mask, anything
before the first replaced position: a clean run keeps both, and runs under an ablation
begin there. Where head outputs are replaced, even the first layer's attention is kept.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxheads.models import family
from jaxheads.models.ablation import Ablations, Applied, interventions
from jaxheads.models.arguments import Array, check_positions, check_range, check_tokens
from jaxheads.models.layer_scan import (
    ablation_dims,
    exact_products,
    run_layers,
    sequence_positions,
    visible,
    windows,
)
from jaxheads.models.layers import prefixed_attention


@struct.dataclass
class Clean:
    """A run of whole sequences without an ablation, for others to start from.

    Attributes:
        residual: [L, B, T, D], entering each layer.
        final: [B, T, D], leaving the last layer.
        heads: z [L, B, T, H, K].
        keys: [L, B, S, G, K] of the first S positions, which all runs share.
        values: [L, B, S, G, K], of the same.
        unmixed: keys and values [L, B, G, K] of position S - 1 before they were mixed;
            None in families that mix none.
    """

    residual: jax.Array
    final: jax.Array
    heads: jax.Array
    keys: jax.Array
    values: jax.Array
    unmixed: tuple[jax.Array, jax.Array] | None = None


def run_clean(params, tokens: Array, config, first_position: int = 0) -> Clean:
    """Run a model over sequences and keep what runs under an ablation start from.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        config: of the model; static.
        first_position: S, before which no run will replace anything; static.

    Returns:
        Clean: with ``residual`` and ``heads`` of the T - S positions from S on.

    Raises:
        TypeError: tokens that are no array of integers.
        ValueError: sequences longer than the model's context, a token that is not
            there, S outside of them.
    """
    check_tokens(tokens, config)
    t = tokens.shape[1]
    if not 0 <= first_position < t:
        raise ValueError(
            f"first_position must be one of {t} positions, but is {first_position}"
        )
    return clean_program(params, tokens, config, first_position)


@functools.partial(jax.jit, static_argnames="first_position")
def clean_program(params, tokens, config, first_position: int) -> Clean:
    """``run_clean`` of checked arguments: what is compiled, and planned before."""
    b, t = tokens.shape
    s = first_position

    def keep(seen):
        return {
            "residual": seen["residual"][:, s:],
            "heads": seen["heads"][:, s:],
            "keys": seen["keys"][:, :s],
            "values": seen["values"][:, :s],
            "unmixed": jax.tree.map(lambda before: before[:, s], seen["unmixed"]),
        }

    with exact_products(params):
        x = family(config.model_type).embed(
            params, tokens, sequence_positions(b, t), config
        )
        x, kept = run_layers(params, x, config, (), keep)
    return Clean(final=x[:, s:], **kept)


def resume(
    params,
    clean: Clean,
    config,
    ablation: Ablations,
    at: Array,
    first_layer: Array | int = 0,
) -> jax.Array:
    """Logits under an ablation, from the first layer and position that it replaces.

    Equal to ``forward(..., ablation=ablation, logits=at)``, if nothing before
    ``first_layer`` or before the clean run's first position is replaced or added to.
    ``vmap`` over ``ablation.keep`` shares what is kept; not differentiable in reverse,
    because the number of layers is not known while tracing.

    Args:
        params: of the family of ``config``.
        clean: of B sequences.
        config: of the model; static.
        ablation: at any site but "pattern"; T counts from the clean run's first
            position, in its fill, its vector and its where.
        at: int [B, P], positions to unembed, counted from the clean run's first.
        first_layer: int, before which nothing is replaced; traced.

    Returns:
        [B, P, V].

    Raises:
        TypeError: an ablation that is none.
        ValueError: an ablation that does not fit; a position or a layer that is not
            there.
    """
    check_positions(at, "at", clean.final.shape[:2])
    layers = config.num_layers
    if not isinstance(first_layer, jax.Array):
        first_layer = np.asarray(first_layer)
    what = f"the model has {layers} layers"
    check_range(first_layer, "first_layer", 0, layers - 1, what)
    ablation = interventions(ablation, config)
    return _resume(params, clean, config, ablation, at, first_layer)


@jax.jit
def _resume(params, clean: Clean, config, ablation, at, first_layer) -> jax.Array:
    model = family(config.model_type)
    _, b, t = clean.residual.shape[:3]
    start = clean.keys.shape[2]  # S
    dims = ablation_dims(config, b, t, start + t)
    applied = Applied(ablation, dims, refused=("pattern",))
    positions = start + sequence_positions(b, t)
    prefix_positions = sequence_positions(b, start)
    stacked = (
        params.layers,
        windows(config),
        clean.keys,
        clean.values,
        clean.unmixed,
        applied.scanned,
    )

    def run_layer(index, x, heads=None):
        inputs: Any = jax.tree.map(lambda leaf: leaf[index], stacked)
        layer, window, keys, values, unmixed, replaced = inputs
        x = applied.add(x, "entering", replaced)

        def attend(q, k, v, *, softcap=None, mix=None):
            if heads is not None:  # kept: the compiler drops q, k and v
                return applied.replace("z", heads, replaced)
            if mix is not None:
                before = [
                    jnp.concatenate([first[:, None], own[:, :-1]], axis=1)
                    for first, own in zip(unmixed, (k, v), strict=True)
                ]
                k, v = mix(k, v, *before)
            q, k, v = applied.replace_each(q, k, v, replaced)
            z = prefixed_attention(
                q,
                (keys, values, visible(positions, prefix_positions, window)),
                (k, v, visible(positions, positions, window)),
                softcap,
            )
            return applied.replace("z", z, replaced)

        x = model.block(layer, x, positions, attend, config)
        return applied.add(x, "leaving", replaced)

    with exact_products(params):
        x = clean.residual[first_layer]
        kept = clean.heads[first_layer] if applied.sites() == {"z"} else None
        x = run_layer(first_layer, x, kept)
        x = jax.lax.fori_loop(first_layer + 1, config.num_layers, run_layer, x)
        x = jnp.take_along_axis(x, at[:, :, None], axis=1)  # [B, P, D]
        return model.unembed(params, x, config)
