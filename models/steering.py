"""Runs of prompts' last position with vectors added to the residual stream there.

An addition that enters layer l changes nothing before it: its run starts at layer l
from the cached stream, and all runs of a prompt share the prompt's keys and values.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxheads.models import family
from jaxheads.models.arguments import Array, check_array, check_finite, check_range
from jaxheads.models.last_position import Prefix, before_last, check_prefix
from jaxheads.models.layer_scan import exact_products, windows
from jaxheads.models.layers import shared_prefix_attention
from jaxheads.models.metrics import check_targets


def steer(
    params,
    prefix: Prefix,
    vectors: Array,
    starts: Array,
    targets: Array,
    config,
    *,
    metric: Any,
) -> Any:
    """What prompts answer with vectors added at their last position, one a run.

    Equal to ``last_token_logits`` under an ``Addition`` for each vector, but for the
    layers before it, which are not run again. The rows of a chunk go on together from
    the first layer that one of them starts at: sort them by it.

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        vectors: float [C, R, D]: C chunks, which run in turn, of R rows.
        starts: int [C, R], the layer whose input a row's vector is added to; L: what
            the last layer hands on.
        targets: int [B], or whatever the metric reads of each prompt [B, ...].
        config: of the model; static.
        metric: (logits [..., V], targets [...]) -> [...], or a tree of such; static.

    Returns:
        [C, R, B], in the metric's unit.

    Raises:
        TypeError: an argument is no array, or one of another kind.
        ValueError: shapes that do not fit, a layer or a target that is not there.

    Source: Todd et al. 2024, section 2.3 (h_l + v at the last token).
    """
    check_prefix(prefix, config)
    check_array(vectors, "vectors", "float", "[C, R, D]")
    check_array(starts, "starts", "int", "[C, R]")
    if vectors.shape[:2] != starts.shape or vectors.shape[2:] != prefix.final.shape[1:]:
        raise ValueError(
            f"vectors must be [C, R, D] with D = {prefix.final.shape[1]} and starts "
            f"[C, R], not {vectors.shape} and {starts.shape}"
        )
    check_finite(vectors, "vectors")
    layers = config.num_layers
    check_range(starts, "starts", 0, layers, f"the model has {layers} layers")
    check_targets(metric, targets, config.vocab_size, prefix.lengths.shape)
    return _steer(params, prefix, vectors, starts, targets, config, metric)


@functools.partial(jax.jit, static_argnames="metric")
def _steer(params, prefix: Prefix, vectors, starts, targets, config, metric):
    model = family(config.model_type)
    b, layers = len(prefix.lengths), config.num_layers
    vectors = vectors.astype(prefix.residual.dtype)
    last = prefix.lengths[:, None] - 1  # [B, 1]
    positions = jnp.broadcast_to(last, (b, starts.shape[1]))
    stacked: Any = (
        params.layers,
        prefix.keys,
        prefix.values,
        prefix.residual,
        prefix.unmixed,
        windows(config),
    )

    def begin(x, stream, chunk, index):
        """Rows that start here, from the stream that comes in: [B, R, D]."""
        added, starts = chunk
        here = (starts == index)[None, :, None]
        return jnp.where(here, stream[:, None] + added[None], x)

    def run_chunk(chunk):
        def run_layer(index, x):
            inputs = jax.tree.map(lambda leaf: leaf[index], stacked)
            layer, keys, values, stream, unmixed, window = inputs

            def attend(q, k, v, *, softcap=None, mix=None):
                if mix is not None:
                    before = jax.tree.map(lambda x: x[:, None], unmixed)  # [B, 1, G, K]
                    k, v = mix(k, v, *before)
                mask = before_last(prefix, last, window)
                own = k[:, :, None], v[:, :, None], jnp.ones((1,), bool)
                return shared_prefix_attention(q, keys, values, mask, *own, softcap)

            x = begin(x, stream, chunk, index)
            return model.block(layer, x, positions, attend, config)

        x = jnp.zeros((b, starts.shape[1], prefix.final.shape[1]), prefix.final.dtype)
        x = jax.lax.fori_loop(chunk[1].min(), layers, run_layer, x)
        x = begin(x, prefix.final, chunk, layers)
        logits = model.unembed(params, x.swapaxes(0, 1), config)  # [R, B, V]
        wanted = jnp.broadcast_to(targets[None], (len(logits), *targets.shape))
        return metric(logits, wanted)

    with exact_products(params):
        return jax.lax.map(run_chunk, (vectors, starts))
