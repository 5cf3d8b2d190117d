"""What a model says at a few positions with each head, alone, removed.

Two ways to remove a head: with every attention pattern as it was, so that only what
flows through values is lost; and with later heads free to attend elsewhere.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxheads.models import family
from jaxheads.models.arguments import Array, check_positions, check_tokens
from jaxheads.models.forward import Output, forward
from jaxheads.models.layer_scan import (
    exact_products,
    previous_of,
    sequence_positions,
    visible,
)
from jaxheads.models.layers import attention
from jaxheads.models.metrics import Metric, check_targets, log_probability


@struct.dataclass
class Removed:
    """A metric at P positions of each sequence, see ``remove_each_head``.

    Attributes:
        clean: [B, P], of the whole model.
        preserving: [L, H, B, P], each head's output zero and all patterns as in the
            clean run.
        whole: [L, H, B, P], each head's output zero and nothing else fixed.
    """

    clean: jax.Array
    preserving: jax.Array
    whole: jax.Array


def remove_each_head(
    params,
    tokens: Array,
    at: Array,
    targets: Array,
    config,
    *,
    segments: Array | None = None,
    metric: Metric = log_probability,
) -> Removed:
    """Set each head's output to zero, alone, with patterns fixed and without.

    Equal to ``forward`` under ``Ablation(keep)`` and under ``(Ablation(keep),
    Ablation(0, clean patterns, site="pattern"))``. A run that removes a head of layer l
    starts there from the clean stream; with patterns fixed no scores are computed, and
    the last layer is computed at the P positions alone.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T].
        at: int [B, P], positions whose logits are read.
        targets: int [B, P], what the metric reads of each.
        config: of the model; static.
        segments: int [B, T], number of each token's document, see ``forward``.
        metric: (logits [..., V], targets [...]) -> [...].

    Returns:
        ``Removed``, in the metric's unit.

    Raises:
        TypeError: an argument is no array, or one of another kind.
        ValueError: shapes that do not fit, a token, a position or a target that is not
            there.

    Source: Olsson et al. 2022, ablations (full and pattern-preserving).
    """
    check_tokens(tokens, config, segments=segments)
    check_positions(at, "at", tokens.shape)
    check_targets(metric, targets, config.vocab_size, at.shape)
    return _remove_each_head(params, tokens, at, targets, config, segments, metric)


@functools.partial(jax.jit, static_argnames="metric")
def _remove_each_head(params, tokens, at, targets, config, segments, metric):
    model = family(config.model_type)
    clean = forward(
        params,
        tokens,
        config,
        logits=at,
        capture=("patterns", "heads", "residual"),
        segments=segments,
    )
    with exact_products(params):
        streams = _streams(params, clean, at, config, segments)
        read = lambda x: metric(model.unembed(params, x, config), targets)
        shape = (config.num_layers, config.num_heads, *at.shape)
        found = [jax.lax.map(read, rows).reshape(shape) for rows in streams]
    return Removed(metric(clean.logits, targets), *found)


def _streams(
    params, clean: Output, at: jax.Array, config, segments: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Streams leaving the last layer, with fixed patterns and without: [L H, B, P, D].

    Heads of a layer join as new rows when it is reached, and all rows go on together.
    """
    assert clean.residual is not None
    b, t = clean.residual.shape[1:3]
    everywhere = sequence_positions(b, t)
    fixed, free = [], []
    for index in range(config.num_layers):
        layer = _at(params.layers, index)
        seen = _at((clean.residual, clean.heads, clean.patterns), index)
        last = index == config.num_layers - 1
        run = _Layer(layer, config, index, at if last else everywhere, segments, seen)
        fixed = [jax.lax.map(run.fixed, rows) for rows in fixed]
        free = [jax.lax.map(run.free, rows) for rows in free]
        new = jax.lax.map(run.without, 1 - jnp.eye(config.num_heads))
        fixed, free = ([jnp.concatenate([*rows, new])] for rows in (fixed, free))
    return fixed[0], free[0]


def _at(stacked: Any, index: int) -> Any:
    """One layer's of leaves [L, ...]."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)


class _Layer:
    """One layer, run at some of the positions for a changed stream entering it."""

    def __init__(self, layer, config, index, at, segments, seen):
        residual, heads, patterns = seen  # of the clean run, in this layer
        b, t = residual.shape[:2]
        self._layer, self._config, self._at = layer, config, at
        self._block = family(config.model_type).block
        self._everywhere = sequence_positions(b, t, segments=segments)
        self._positions = jnp.take_along_axis(self._everywhere, at, axis=1)
        self._residual = self._picked(residual)
        self._heads = jnp.take_along_axis(heads, at[:, :, None, None], axis=1)
        self._patterns = jnp.take_along_axis(patterns, at[:, None, :, None], axis=2)
        window = None if config.windows is None else config.windows[index]
        self._mask = visible(at, sequence_positions(b, t), window)
        if segments is not None:
            own = jnp.take_along_axis(segments, at, axis=1)
            self._mask &= own[:, :, None] == segments[:, None, :]

    def _picked(self, x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, self._at[:, :, None], axis=1)

    def without(self, keep: jax.Array) -> jax.Array:
        """The stream after the layer if heads are kept by ``keep`` [H]: [B, P, D]."""
        heads = self._heads * keep.astype(self._heads.dtype)[None, None, :, None]

        def attend(q, k, v, *, softcap=None, mix=None):
            return heads

        return self._run(self._residual, self._positions, attend)

    def fixed(self, x: jax.Array) -> jax.Array:
        """The stream after the layer by clean patterns: [B, T, D] -> [B, P, D]."""
        _, values = self._keys_and_values(x)
        b, h, p, s = self._patterns.shape
        grouped = self._patterns.reshape(b, values.shape[2], -1, p, s)
        z = jnp.einsum("bgjps,bsgk->bpgjk", grouped.astype(values.dtype), values)
        heads = z.reshape(b, p, h, -1)

        def attend(q, k, v, *, softcap=None, mix=None):
            return heads

        return self._run(self._picked(x), self._positions, attend)

    def free(self, x: jax.Array) -> jax.Array:
        """The stream after the layer, attending anew: [B, T, D] -> [B, P, D]."""
        keys, values = self._keys_and_values(x)

        def attend(q, k, v, *, softcap=None, mix=None):
            return attention(q, keys, values, self._mask, softcap)[0]

        return self._run(self._picked(x), self._positions, attend)

    def _keys_and_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """As attention sees them at every position; the rest is never computed."""
        seen = []

        def attend(q, k, v, *, softcap=None, mix=None):
            if mix is not None:
                k, v = mix(k, v, *previous_of(k, v, self._everywhere))
            seen.extend((k, v))
            return jnp.zeros_like(q)

        self._run(x, self._everywhere, attend)
        keys, values = seen
        return keys, values

    def _run(self, x, positions, attend) -> jax.Array:
        return self._block(self._layer, x, positions, attend, self._config)
