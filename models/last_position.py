"""Prompts run once, and runs of their last position and new tokens, which share it.

Under a causal mask nothing before the last position can change when heads are replaced
there: all subsets of heads share the keys and values of the prompt.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxheads.models import family
from jaxheads.models.ablation import Ablations, Applied, interventions
from jaxheads.models.arguments import Array, check_answers, check_tokens
from jaxheads.models.layer_scan import (
    ablation_dims,
    exact_products,
    lengths_or_whole,
    run_layers,
    sequence_positions,
    visible,
    windows,
)
from jaxheads.models.layers import shared_prefix_attention


@struct.dataclass
class Prefix:
    """A prompt after one full pass: all that runs of its last position can share.

    Attributes:
        keys: [L, B, S, G, K], positions applied.
        values: [L, B, S, G, K].
        lengths: int [B].
        last_tokens: int [B].
        residual: [L, B, D], entering each layer at the last position.
        queries: [L, B, H, K] at the last position, positions applied.
        heads: z [L, B, H, K] at the last position.
        final: [B, D], leaving the last layer at the last position.
        logits: [B, V] at the last position.
        unmixed: keys and values [L, B, G, K] one position before the last, before
            they were mixed; None in families that mix none.
        earlier: what embedding a later token reads of the prompt, leaves [B, S, ...];
            None in families that embed each token alone.
    """

    keys: jax.Array
    values: jax.Array
    lengths: jax.Array
    last_tokens: jax.Array
    residual: jax.Array
    queries: jax.Array
    heads: jax.Array
    final: jax.Array
    logits: jax.Array
    unmixed: tuple[jax.Array, jax.Array] | None = None
    earlier: Any = None


def check_prefix(prefix: Prefix, config) -> None:
    """Raise ValueError unless a prefix is of a model of this config."""
    sizes = {
        "layers": (prefix.heads.shape[0], config.num_layers),
        "heads": (prefix.heads.shape[2], config.num_heads),
        "key/value heads": (prefix.keys.shape[3], config.num_kv_heads),
        "head width": (prefix.heads.shape[3], config.head_dim),
        "width": (prefix.final.shape[1], config.width),
        "tokens": (prefix.logits.shape[1], config.vocab_size),
    }
    for name, (there, asked) in sizes.items():
        if there != asked:
            raise ValueError(
                f"the prefix must be of the model of the config, which has {asked} "
                f"{name}, but has {there}: call prefill with the same params and config"
            )


def prefill(
    params, tokens: Array, lengths: Array | None, config, *, ablation: Ablations = None
) -> Prefix:
    """Run a model once over prompts and keep what runs of the last position share.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B]; None: all T.
        config: of the model; static.
        ablation: of this pass, as for ``forward``; a run of the last position starts
            from what it leaves, and takes an ablation of its own.

    Returns:
        Prefix: keys, values and the last position's inputs of every layer.

    Raises:
        TypeError: an argument is no array, or one of another kind; an ablation that is
            none.
        ValueError: a prompt longer than the model's context, a token or a length that
            is not there, an ablation that does not fit.
    """
    check_tokens(tokens, config, lengths)
    return prefill_program(
        params, tokens, lengths, config, interventions(ablation, config)
    )


@jax.jit
def prefill_program(params, tokens, lengths, config, ablation) -> Prefix:
    """``prefill`` of checked arguments: what is compiled, and planned before."""
    b, t = tokens.shape
    model = family(config.model_type)
    lengths = lengths_or_whole(lengths, b, t)
    last = lengths - 1

    def at_last(values: jax.Array) -> jax.Array:
        """[B, T, ...] -> [B, ...]."""
        index = last.reshape(b, *(1,) * (values.ndim - 1))
        return jnp.take_along_axis(values, index, axis=1)[:, 0]

    def keep(seen):
        there = {name: at_last(seen[name]) for name in ("residual", "queries", "heads")}
        unmixed = jax.tree.map(at_last, seen["unmixed"])
        return there | {
            "keys": seen["keys"],
            "values": seen["values"],
            "unmixed": unmixed,
        }

    with exact_products(params):
        positions = sequence_positions(b, t)
        x = model.embed(params, tokens, positions, config)
        remember = getattr(model, "remember", None)
        x, kept = run_layers(params, x, config, ablation, keep)
        final = at_last(x)
        return Prefix(
            lengths=lengths,
            last_tokens=at_last(tokens).astype(jnp.int32),  # new ones may be larger
            final=final,
            logits=model.unembed(params, final, config),
            earlier=remember and remember(params, tokens, positions, config),
            **kept,
        )


def last_token_logits(
    params, prefix: Prefix, config, ablation: Ablations = None
) -> jax.Array:
    """Run the last position of prompts again, under an ablation of it.

    Exact: under a causal mask nothing before the last position can change. ``vmap``
    over ablations shares the prefix among all subsets; over an Addition's layers or
    vectors, among all of them.

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        config: of the model; static.
        ablation: as for ``forward`` with T = 1, at any site but "pattern".

    Returns:
        Logits [B, V].

    Raises:
        TypeError: an ablation that is none.
        ValueError: an ablation that does not fit.
    """
    ablation = interventions(ablation, config)
    check_prefix(prefix, config)
    return _last_token_logits(params, prefix, config, ablation)


@jax.jit
def _last_token_logits(params, prefix: Prefix, config, ablation) -> jax.Array:
    own = _own_cache(prefix, 1)
    with exact_products(params):
        logits, _ = _run_token(
            params, prefix, own, prefix.last_tokens, 0, ablation, config
        )
    return logits


def generate(
    params, prefix: Prefix, config, max_new_tokens: int, ablation: Ablations = None
) -> jax.Array:
    """Continue prompts greedily.

    Heads are ablated, and an Addition added, at the prompt's last position and at every
    new one. Nothing stops at an end-of-text token: cut the answer where it ends.

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        config: of the model; static.
        max_new_tokens: M, 1 or more; static.
        ablation: as for ``last_token_logits``.

    Returns:
        New tokens, int32 [B, M]; -1 where the largest logit is not finite.

    Raises:
        TypeError: an ablation that is none, or M that is no whole number.
        ValueError: an ablation that does not fit; M below 1, or ``lengths + M - 1``
            positions, the last new token's left out, beyond the model's context.
    """
    ablation = interventions(ablation, config)
    check_answers(prefix.lengths, max_new_tokens, config)
    check_prefix(prefix, config)
    return _generate(params, prefix, config, max_new_tokens, ablation)


@functools.partial(jax.jit, static_argnames="max_new_tokens")
def _generate(params, prefix: Prefix, config, max_new_tokens: int, ablation):

    def step(carry, index):
        own, token = carry
        logits, own = _run_token(params, prefix, own, token, index, ablation, config)
        token = jnp.argmax(logits, axis=-1).astype(prefix.last_tokens.dtype)
        known = jnp.isfinite(logits.max(axis=-1))  # a maximum with NaN is NaN
        return (own, token), jnp.where(known, token, -1)

    start = (_own_cache(prefix, max_new_tokens), prefix.last_tokens)
    with exact_products(params):
        _, tokens = jax.lax.scan(step, start, jnp.arange(max_new_tokens))
    return tokens.T.astype(jnp.int32)


def _run_token(params, prefix: Prefix, own, token, index, ablation, config):
    """One token after the prefix: own cache and token in, logits and own cache out.

    Args:
        params: of the family.
        prefix: of B prompts; its last position is not read, the token replaces it.
        own: keys and values [L, B, M, G, K] of the last prompt token and the new ones,
            and ``Prefix.unmixed`` of the token before; and ``Prefix.earlier`` of them.
        token: int [B].
        index: which of the M own tokens this is.
        ablation: of this position, or None.
        config: of the model.

    Returns:
        Logits [B, V], and ``own`` with slot ``index`` written.
    """
    model = family(config.model_type)
    dims = ablation_dims(config, len(token), 1, prefix.keys.shape[2])
    applied = Applied(ablation, dims, refused=("pattern",))
    positions = (prefix.lengths - 1 + index)[:, None]  # [B, 1]
    cache, embedded = own
    own_positions = jnp.arange(cache[0].shape[2])[None]  # [1, M], after the prefix

    def run_layer(x, inputs):
        layer, window, keys, values, own, replaced = inputs
        x = applied.add(x, "entering", replaced)
        written = {}

        def attend(q, k, v, *, softcap=None, mix=None):
            own_keys, own_values, unmixed = own
            if mix is not None:
                before = jax.tree.map(lambda x: x[:, None], unmixed)  # [B, 1, G, K]
                unmixed = (k[:, 0], v[:, 0])
                k, v = mix(k, v, *before)
            q, k, v = applied.replace_each(q, k, v, replaced)
            own_keys = jax.lax.dynamic_update_slice_in_dim(own_keys, k, index, axis=1)
            own_values = jax.lax.dynamic_update_slice_in_dim(
                own_values, v, index, axis=1
            )
            written.update(own=(own_keys, own_values, unmixed))
            z = shared_prefix_attention(
                q,
                keys,
                values,
                before_last(prefix, positions, window),
                own_keys[:, None],
                own_values[:, None],
                visible(jnp.full((1, 1), index), own_positions, window)[0, 0],
                softcap,
            )
            return applied.replace("z", z, replaced)

        after = model.block(layer, x, positions, attend, config)
        after = applied.stop(x, after, replaced)
        return applied.add(after, "leaving", replaced), written["own"]

    if prefix.earlier is None:
        x = model.embed(params, token[:, None], positions, config)  # [B, 1, D]
    else:
        x, embedded = model.embed_next(
            params, token, positions, prefix.earlier, embedded, index, config
        )
    inputs = (
        params.layers,
        windows(config),
        prefix.keys,
        prefix.values,
        cache,
        applied.scanned,
    )
    x, cache = jax.lax.scan(run_layer, x, inputs)
    return model.unembed(params, x[:, 0], config), (cache, embedded)


def _own_cache(prefix: Prefix, count: int):
    """What ``_run_token`` keeps of tokens after the prefix, still empty."""
    layers, b, _, g, k = prefix.keys.shape
    empty = jnp.zeros((layers, b, count, g, k), prefix.keys.dtype)
    embedded = jax.tree.map(
        lambda leaf: jnp.zeros((b, count, *leaf.shape[2:]), leaf.dtype), prefix.earlier
    )
    return (empty, empty, prefix.unmixed), embedded


def before_last(prefix: Prefix, positions: jax.Array, window) -> jax.Array:
    """Prefix positions before the last that queries at [B, 1] see: bool [B, S]."""
    stored = jnp.arange(prefix.keys.shape[2])[None]  # [1, S]
    before = stored < (prefix.lengths - 1)[:, None]
    return before & visible(positions, stored, window)[:, 0]
