"""The exact effect of every head, alone, at the last position of prompts."""

import functools
import math

import jax
import jax.numpy as jnp

from jaxheads.models import family
from jaxheads.models.arguments import Array, check_array, check_finite
from jaxheads.models.last_position import Prefix, before_last, check_prefix
from jaxheads.models.layer_scan import exact_products, windows
from jaxheads.models.layers import shared_prefix_attention
from jaxheads.models.metrics import Metric, check_targets, probability


def patch_each_head(
    params,
    prefix: Prefix,
    fill: Array,
    targets: Array,
    config,
    *,
    metric: Metric = probability,
) -> jax.Array:
    """Exact effect of replacing each head, alone, at the last position.

    ``effect[l, h, b] = metric(prompt b, head (l, h) := fill[l, h]) - metric(prompt b)``

    The run that patches layer l starts at layer l from the cached residual; the runs of
    all layers then go on together, as rows of one growing batch, so that each layer's
    weights are read once.

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        fill: [L, H, K], what each head is replaced by.
        targets: int [B], or whatever the metric reads of each prompt [B, ...].
        config: of the model; static.
        metric: (logits [..., V], targets [...]) -> [...], such as ``probability``,
            ``log_probability``, or ``logit_difference`` with targets [B, 2].

    Returns:
        Effects [L, H, B], in the metric's unit.

    Raises:
        TypeError: the fill is no array of floats.
        ValueError: shapes that do not fit, a fill that is not finite, a target that is
            not there.

    Source: Todd et al. 2024, section 2.3 (causal indirect effect).
    """
    check_prefix(prefix, config)
    layers, b, h, k = prefix.heads.shape
    check_array(fill, "fill", "float", "[L, H, K]", (layers, h, k))
    check_finite(fill, "fill")
    check_targets(metric, targets, config.vocab_size, (b,))
    return _patch_each_head(params, prefix, fill, targets, config, metric)


@functools.partial(jax.jit, static_argnames="metric")
def _patch_each_head(params, prefix: Prefix, fill, targets, config, metric):
    layers, b, h, _ = prefix.heads.shape
    model = family(config.model_type)
    fill = fill.astype(prefix.heads.dtype)
    inputs = (
        params.layers,
        prefix.keys,
        prefix.values,
        prefix.residual,
        prefix.heads,
        fill,
        prefix.unmixed,
        windows(config),
    )
    # Rows that start inside a segment are carried from its first layer on: short
    # segments waste less arithmetic, few segments compile faster.
    segment = math.ceil(layers / _MAX_SEGMENTS)
    x = jnp.zeros((b, 0, prefix.residual.shape[-1]), prefix.residual.dtype)
    with exact_products(params):
        for start in range(0, layers, segment):
            stop = min(start + segment, layers)
            rows = jnp.zeros((b, (stop - start) * h, x.shape[-1]), x.dtype)
            x = jnp.concatenate([x, rows], axis=1)  # [B, R, D]
            run_layer = _patched_layer(model, prefix, inputs, x.shape[1], config)
            x, _ = jax.lax.scan(run_layer, x, jnp.arange(start, stop))
        effects = _metric_of_rows(model, params, x, targets, config, metric)  # [B, R]
    effects = effects - metric(prefix.logits, targets)[:, None]
    return effects.reshape(b, layers, h).transpose(1, 2, 0)


_MAX_SEGMENTS = 16
_LOGIT_BYTES = 64 * 2**20  # of one chunk of rows, so that memory stays flat


def _patched_layer(model, prefix: Prefix, stacked, rows: int, config):
    """One layer, by its index, for all rows that patch it or an earlier one."""
    _, b, h, _ = prefix.heads.shape
    last = prefix.lengths[:, None] - 1  # [B, 1]
    positions = jnp.broadcast_to(last, (b, rows))
    one_token = jnp.ones((1,), bool)
    row_layer = jnp.arange(rows) // h
    row_head = jnp.arange(rows) % h

    def run_layer(x, index):
        # Taken by index from the whole stack: slicing it by segments would copy it.
        inputs = jax.tree.map(lambda leaf: leaf[index], stacked)
        layer, keys, values, residual, heads, fill, unmixed, window = inputs
        starts = (row_layer == index)[None, :, None]  # [1, R, 1]
        x = jnp.where(starts, residual[:, None], x)
        patched_head = (row_head[:, None] == jnp.arange(h)[None])[None, :, :, None]
        patched = jnp.where(patched_head, fill[None, None], heads[:, None])

        def attend(q, k, v, *, softcap=None, mix=None):
            if mix is not None:
                before = jax.tree.map(lambda x: x[:, None], unmixed)  # [B, 1, G, K]
                k, v = mix(k, v, *before)
            mask = before_last(prefix, last, window)
            z = shared_prefix_attention(
                q, keys, values, mask, k[:, :, None], v[:, :, None], one_token, softcap
            )
            return jnp.where(starts[..., None], patched, z)

        return model.block(layer, x, positions, attend, config), None

    return run_layer


def _metric_of_rows(model, params, x, targets, config, metric: Metric) -> jax.Array:
    """Metric of each row: x [B, R, D], targets [B] -> [B, R]; unembeds in chunks."""
    b, rows, width = x.shape
    most = max(1, _LOGIT_BYTES // (4 * config.vocab_size * b))
    chunk = max(size for size in range(1, rows + 1) if not rows % size and size <= most)

    def run(part: jax.Array) -> jax.Array:  # [B, C, D] -> [B, C]
        wanted = jnp.broadcast_to(targets[:, None], (b, chunk, *targets.shape[1:]))
        return metric(model.unembed(params, part, config), wanted)

    parts = x.reshape(b, rows // chunk, chunk, width).swapaxes(0, 1)
    return jax.lax.map(run, parts).swapaxes(0, 1).reshape(b, rows)
