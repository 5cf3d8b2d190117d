"""What the attention scores share: the share of attention on chosen edges."""

import functools
from collections.abc import Mapping
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.passes import Pass
from jaxheads.models.ablation import Ablations
from jaxheads.models.forward import forward


@functools.partial(jax.jit, static_argnames="value_weighted")
def attention_share(
    params,
    tokens: jax.Array,
    config,
    edges: jax.Array | Mapping[str, jax.Array],
    *,
    value_weighted: tuple[str, ...] = (),
    ablation: Ablations = None,
):
    """Weighted attention on chosen edges, for every head and sequence, in one pass.

    ``share[l, h, b] = sum over t, s of edges[t, s] * attention[l, b, h, t, s]``

    Value-weighted attention is ``attention[t, s] |v_s|``, brought back to a sum of 1
    over s: what a head reads weighs as much as the value vector that it reads is long.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], without padding.
        config: of the model.
        edges: float [T, S], weights of the (query, key) positions; or several of them
            by name, which share the pass.
        value_weighted: names of those that weigh value-weighted attention; static.
        ablation: what is replaced or added in the run, see ``forward``.

    Returns:
        [L, H, B], share of attention when the weights sum to 1; by name if the edges
        are.

    Source: Kobayashi et al. 2020, section 3 (value-weighted attention).
    """
    named = edges if isinstance(edges, Mapping) else {"": edges}
    capture = ("patterns", "values") if value_weighted else ("patterns",)
    out = forward(params, tokens, config, ablation=ablation, capture=capture)

    def of_layer(seen):
        patterns, values = seen
        weighted = _by_values(patterns, values) if value_weighted else patterns
        return {
            name: jnp.einsum(
                "bhts,ts->hb",
                weighted if name in value_weighted else patterns,
                each,
                precision="highest",
            )
            for name, each in named.items()
        }

    shares = jax.lax.map(of_layer, (out.patterns, out.values))
    return shares if isinstance(edges, Mapping) else shares[""]


def _by_values(patterns: jax.Array, values: jax.Array) -> jax.Array:
    """Value-weighted attention: patterns [B, H, T, S], values [B, S, G, K]."""
    heads_each = patterns.shape[1] // values.shape[2]
    wide = values.astype(patterns.dtype)
    norms = jnp.sqrt(jnp.sum(wide**2, axis=-1))  # [B, S, G]
    norms = jnp.repeat(norms, heads_each, axis=-1).swapaxes(1, 2)  # [B, H, S]
    weighted = patterns * norms[:, :, None]
    total = weighted.sum(axis=-1, keepdims=True)
    return weighted / jnp.where(total > 0, total, 1)


@overload
def attention_shares(
    params, tokens: np.ndarray, config, edges: np.ndarray, chunk: int
) -> np.ndarray: ...


@overload
def attention_shares(
    params,
    tokens: np.ndarray,
    config,
    edges: Mapping[str, np.ndarray],
    chunk: int,
    value_weighted: tuple[str, ...] = (),
) -> dict[str, np.ndarray]: ...


def attention_shares(params, tokens, config, edges, chunk, value_weighted=()):
    """``attention_share`` of many sequences, ``chunk`` at a time: float32 [L, H, B]."""
    made = of_edges(tokens, config, edges, value_weighted).in_chunks(params, chunk)
    return jax.tree.map(lambda share: share.astype(np.float32), made)


def of_edges(
    tokens: np.ndarray, config, edges: Any, value_weighted: tuple[str, ...] = ()
) -> Pass:
    """``attention_share`` of many sequences: [L, H, B]."""
    length = tokens.shape[1]
    return Pass(
        f"attention patterns of {length}-token sequences",
        attention_share,
        (tokens,),
        (config, edges),
        plan.sequence(config, length, 0),
        {"value_weighted": value_weighted},
    )


def even_share(edges: np.ndarray) -> float:
    """What edges [T, S] give a head that attends evenly to all that it may see."""
    return float((edges.sum(axis=1) / np.arange(1, len(edges) + 1)).sum())


def largest_share(edges: np.ndarray) -> float:
    """The most that edges [T, S] can give: all of each row on its heaviest one."""
    return float(edges.max(axis=1).sum())
