"""What all runs of layers share: positions, masks, precision, the scan over layers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxheads.models import family
from jaxheads.models.ablation import Applied, Dims, Intervention
from jaxheads.models.arguments import Array
from jaxheads.models.layers import attention


def run_layers(
    params,
    x: jax.Array,
    config,
    ablation: Sequence[Intervention],
    keep: Callable[[dict[str, Any]], Any],
    aside: Sequence[Intervention] | None = None,
    rematerialise: bool = False,
    segments: jax.Array | None = None,
) -> tuple[jax.Array, Any]:
    """All layers over whole sequences, right padded.

    Args:
        params: of the family of ``config``.
        x: embedded tokens [B, T, D].
        config: of the model.
        ablation: what is replaced or added.
        keep: what to keep of a layer, out of a dict with "residual" (entering it),
            "queries", "keys", "values" (as attention sees them), "unmixed" (keys and
            values of the previous position before they were mixed, or None),
            "patterns" and "heads".
        aside: another ablation under which "heads" are computed in every layer, from
            the run's own stream; it changes nothing further on.
        rematerialise: for a gradient, compute each layer's activations a second time
            instead of keeping them: only the streams between layers stay in memory.
        segments: int [B, T], number of each token's document, see ``forward``.

    Returns:
        The residual stream after the last layer [B, T, D], and what was kept, stacked.
    """
    model = family(config.model_type)
    b, t = x.shape[:2]
    order = sequence_positions(b, t)
    positions = sequence_positions(b, t, segments=segments)
    dims = ablation_dims(config, b, t, t)
    applied = Applied(ablation, dims)
    apart = Applied(aside or (), dims, refused=("residual",))

    def run_layer(x, inputs):
        layer, window, replaced, apart_layer = inputs
        x = applied.add(x, "entering", replaced)
        seen: dict[str, Any] = {"residual": x, "unmixed": None}
        mask = visible(order, order, window)
        if segments is not None:
            mask &= segments[:, :, None] == segments[:, None, :]

        def heads(applied: Applied, layer, q, k, v, softcap):
            q, k, v = applied.replace_each(q, k, v, layer)
            change = None
            if "pattern" in applied.sites():
                change = lambda patterns, masked: applied.replace_patterns(
                    patterns, masked, mask, layer
                )
            z, patterns = attention(q, k, v, mask, softcap, change)
            seen.update(queries=q, keys=k, values=v, patterns=patterns)
            return applied.replace("z", z, layer)

        def attend(q, k, v, *, softcap=None, mix=None):
            if mix is not None:
                before = previous_of(k, v, positions)
                seen.update(unmixed=before)
                k, v = mix(k, v, *before)
            z = heads(applied, replaced, q, k, v, softcap)
            seen.update(heads=z)
            if aside is not None:
                seen.update(heads=heads(apart, apart_layer, q, k, v, softcap))
            return z

        after = model.block(layer, x, positions, attend, config)
        after = applied.stop(x, after, replaced)
        return applied.add(after, "leaving", replaced), keep(seen)

    inputs = (params.layers, windows(config), applied.scanned, apart.scanned)
    if rematerialise:  # in a scan nothing merges the two computations
        return jax.lax.scan(jax.checkpoint(run_layer, prevent_cse=False), x, inputs)
    return jax.lax.scan(run_layer, x, inputs)


def ablation_dims(config, batch: int, queries: int, keys: int) -> Dims:
    """What ablations of a run are checked against."""
    return Dims(
        config.num_layers,
        batch,
        queries,
        keys,
        config.num_heads,
        config.num_kv_heads,
        config.head_dim,
        config.width,
    )


def sequence_positions(
    b: int, t: int, *, segments: jax.Array | None = None
) -> jax.Array:
    """Positions [B, T]; tokens are right padded, so that every row starts at 0.

    With ``segments``, int [B, T], every run of one number starts at 0.
    """
    positions = jnp.broadcast_to(jnp.arange(t)[None], (b, t))
    if segments is None:
        return positions
    goes_on = jnp.pad(segments[:, 1:] == segments[:, :-1], [(0, 0), (1, 0)])
    starts = jax.lax.cummax(jnp.where(goes_on, 0, positions), axis=1)
    return positions - starts


def visible(queries: jax.Array, keys: jax.Array, window) -> jax.Array:
    """Which key positions [B, S] queries at [B, T] see: bool [B, T, S].

    None in their future, and with a window only the last that many, their own included.
    """
    distance = queries[:, :, None] - keys[:, None]
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def windows(config) -> jax.Array | None:
    """Attention windows by layer, int [L]; None where no layer has one."""
    if config.windows is None:
        return None
    everything = jnp.iinfo(jnp.int32).max
    return jnp.array([w or everything for w in config.windows], jnp.int32)


def one_later(x: jax.Array) -> jax.Array:
    """The previous position's values, zeros before the first: [B, T, ...]."""
    return jnp.pad(x, [(0, 0), (1, 0), *[(0, 0)] * (x.ndim - 2)])[:, :-1]


def previous_of(
    k: jax.Array, v: jax.Array, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Keys and values of the previous position, zeros at a document's first.

    Args:
        k: [B, T, G, K].
        v: [B, T, G, K].
        positions: int [B, T], in the document.
    """
    first = (positions == 0)[:, :, None, None]
    return jnp.where(first, 0, one_later(k)), jnp.where(first, 0, one_later(v))


def exact_products(params):
    """Full precision of matrix products of float32 params, unless the user chose one.

    GPUs and TPUs round the factors to 10 or 7 bits otherwise.
    """
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    narrow = all(leaf.dtype.itemsize < 4 for leaf in jax.tree.leaves(params))
    exact = chosen if chosen or narrow else "highest"
    return jax.default_matmul_precision(exact)


def lengths_or_whole(lengths: Array | None, b: int, t: int) -> jax.Array:
    """Lengths int [B]; all T where None were given."""
    return jnp.full((b,), t) if lengths is None else jnp.asarray(lengths)
