"""N-gram head layers: heads that find n-grams again, by a pattern that is not learned.

A layer of order n at position t looks at every position s that stands behind a copy of
the last n tokens: tokens ``s - n .. s - 1`` equal tokens ``t - n + 1 .. t``, all in the
document of t, and ``s <= t``. With u = norm(x), or x where a model has no norms,

    h_t = mean over those s of u_s, 0 where there is none
    x_t += h_t W0 + u_t W1

For n = 1 these are the positions right behind earlier copies of the current token. In a
run of n + 1 equal tokens the last one, s = t itself, stands behind a copy and counts:
it is known at t. Nothing after t is read, and padding on the right changes nothing.

O are the layers, in their order; the patterns depend on the tokens alone, and are found
once for all of them. The family runs these layers where it embeds tokens.

Source: Akyürek et al. 2024, arXiv 2401.12973 (n-gram heads), and its code, whose layer
stands in a residual block behind its norm, as here, and leaves s = t out.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from jaxheads.models.layers import affine, layer_norm

ORDERS = (1, 2, 3)


@struct.dataclass
class NGramLayers:
    """Parameters of the layers, stacked; norms are None in models without."""

    norm: jax.Array | None  # [O, D]
    norm_bias: jax.Array | None  # [O, D]
    w_matched: jax.Array  # [O, D, D], W0
    w_own: jax.Array  # [O, D, D], W1


@struct.dataclass
class Earlier:
    """What layers at later positions read of some tokens.

    Attributes:
        tokens: int [B, S].
        inputs: u [B, S, O, D], what each layer averages.
    """

    tokens: jax.Array
    inputs: jax.Array


def matches(tokens: jax.Array, positions: jax.Array, longest: int) -> list[jax.Array]:
    """Which positions s stand behind a copy of the n tokens that end at t.

    ``match_n[t, s] = match_1[t, s] and match_{n-1}[t - 1, s - 1]``

    Args:
        tokens: int [B, T].
        positions: int [B, T], from 0 on in each document of a row.
        longest: n at most.

    Returns:
        bool [B, T, S] for n = 1, 2, ...
    """
    place = jnp.arange(tokens.shape[1])
    document = place[None] - positions  # where it begins
    same = (place[:, None] >= place[None])[None]
    for values in (tokens, document):
        behind = jnp.pad(values, [(0, 0), (1, 0)], constant_values=-1)[:, :-1]
        same = same & (values[:, :, None] == behind[:, None])
    found = [same]
    while len(found) < longest:
        one_less = jnp.pad(found[-1], [(0, 0), (1, 0), (1, 0)])[:, :-1, :-1]
        found.append(same & one_less)
    return found


def run(
    layers: NGramLayers,
    x: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
    orders: Sequence[int],
    epsilon: float,
) -> tuple[jax.Array, Earlier]:
    """All n-gram layers over whole rows.

    Args:
        layers: O of them.
        x: residual stream [B, T, D].
        tokens: int [B, T].
        positions: int [B, T], from 0 on in each document of a row.
        orders: n of each layer; static.
        epsilon: of the norms.

    Returns:
        The stream after them [B, T, D], and what later positions read of these.
    """
    found = matches(tokens, positions, max(orders))
    inputs = []
    for layer, order in zip(_each(layers, orders), orders, strict=True):
        u = _normed(layer, x, epsilon)
        inputs.append(u)
        x = x + _added(layer, u, _sums(found[order - 1], u), found[order - 1])
    return x, Earlier(tokens, jnp.stack(inputs, axis=2))


def run_next(
    layers: NGramLayers,
    x: jax.Array,
    token: jax.Array,
    place: jax.Array,
    earlier: Earlier,
    own: Earlier,
    index: jax.Array | int,
    orders: Sequence[int],
    epsilon: float,
) -> tuple[jax.Array, Earlier]:
    """All n-gram layers at one position behind a prompt.

    The prompt's own last position is not read: the first of M tokens replaces it.

    Args:
        layers: O of them.
        x: residual stream at the token [B, 1, D].
        token: int [B], the one of M tokens that ``index`` says.
        place: int [B], where it stands in its row, the prompt's tokens before it.
        earlier: of the prompts, S positions.
        own: of the M tokens; those before the token are there.
        index: int.
        orders: n of each layer; static.
        epsilon: of the norms.

    Returns:
        The stream after them [B, 1, D], and ``own`` with slot ``index`` written.
    """
    s, m = earlier.tokens.shape[1], own.tokens.shape[1]
    first = (place - index)[:, None]  # [B, 1], of the M tokens
    own_tokens = _written(own.tokens, token[:, None], index)
    row = _joined(earlier.tokens, own_tokens, first)  # [B, S + M]
    own_places = first + jnp.arange(m)[None]
    in_prompt = jnp.arange(s)[None] < first
    found = _matches_at(row, place, max(orders))
    inputs = []
    for i, (layer, order) in enumerate(zip(_each(layers, orders), orders, strict=True)):
        u = _normed(layer, x, epsilon)  # [B, 1, D]
        own_inputs = _written(own.inputs[:, :, i], u, index)
        inputs.append(own_inputs)
        match = found[order - 1]
        # Inputs of the prompt are read where they lie, whatever runs share them.
        before = _sums((match[:, :s] & in_prompt)[:, None], earlier.inputs[:, :, i])
        here = jnp.take_along_axis(match, own_places, axis=1)[:, None]
        sums = before + _sums(here, own_inputs)
        x = x + _added(layer, u, sums, match[:, None])
    return x, Earlier(own_tokens, jnp.stack(inputs, axis=2))


def _each(layers: NGramLayers, orders: Sequence[int]) -> list[NGramLayers]:
    return [jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(len(orders))]


def _normed(layer: NGramLayers, x: jax.Array, epsilon: float) -> jax.Array:
    if layer.norm is None or layer.norm_bias is None:
        return x
    return layer_norm(x, layer.norm, layer.norm_bias, epsilon)


def _sums(match: jax.Array, u: jax.Array) -> jax.Array:
    """Sums over the positions found: bool [B, T, S], [B, S, D] -> float32 [B, T, D]."""
    wide = jnp.promote_types(u.dtype, jnp.float32)
    return jnp.einsum(
        "bts,bsd->btd", match.astype(u.dtype), u, preferred_element_type=wide
    )


def _added(layer: NGramLayers, u, sums: jax.Array, match: jax.Array) -> jax.Array:
    """What a layer adds to the stream: ``h W0 + u W1``, [B, T, D]."""
    count = match.sum(axis=-1, keepdims=True)
    h = (sums / jnp.maximum(count, 1).astype(sums.dtype)).astype(u.dtype)
    return affine(h, layer.w_matched) + affine(u, layer.w_own)


def _matches_at(row: jax.Array, place: jax.Array, longest: int) -> list[jax.Array]:
    """``matches`` at one position of each row of one document: bool [B, S] for each n.

    Args:
        row: int [B, S]; nothing after ``place`` is looked at.
        place: int [B].
        longest: n at most.
    """
    found, width = [], row.shape[1]
    match = jnp.arange(width)[None] <= place[:, None]
    for back in range(longest):  # no token stands before a row: -1 equals none
        behind = jnp.pad(row, [(0, 0), (back + 1, 0)], constant_values=-1)[:, :width]
        at = jnp.maximum(place - back, 0)[:, None]
        match = match & (behind == jnp.take_along_axis(row, at, axis=1))
        found.append(match)
    return found


def _joined(prompt: jax.Array, own: jax.Array, first: jax.Array) -> jax.Array:
    """Tokens [B, S + M]: the prompt's before ``first`` [B, 1], then the own [B, M]."""
    m = own.shape[1]
    row = jnp.pad(prompt, [(0, 0), (0, m)])
    which = jnp.arange(row.shape[1])[None] - first
    own = jnp.take_along_axis(own, jnp.clip(which, 0, m - 1), axis=1)
    return jnp.where(which >= 0, own, row)


def _written(values: jax.Array, new: jax.Array, index: jax.Array | int) -> jax.Array:
    """[B, M, ...] with slot ``index`` replaced by [B, 1, ...]."""
    return jax.lax.dynamic_update_slice_in_dim(values, new, index, axis=1)
