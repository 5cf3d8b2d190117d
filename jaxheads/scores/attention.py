"""What the attention scores share: the share of attention on chosen edges."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import chunks
from jaxheads.models.forward import forward


@jax.jit
def attention_share(params, tokens: jax.Array, config, edges: jax.Array) -> jax.Array:
    """Weighted attention on chosen edges, for every head and sequence.

    ``share[l, h, b] = sum over t, s of edges[t, s] * attention[l, b, h, t, s]``

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], without padding.
        config: of the model.
        edges: float [T, S], weights of the (query, key) positions.

    Returns:
        [L, H, B], share of attention when the weights sum to 1.
    """
    out = forward(params, tokens, config, capture=("patterns",))
    return jnp.einsum("lbhts,ts->lhb", out.patterns, edges)


def attention_shares(
    params, tokens: np.ndarray, config, edges: np.ndarray, chunk: int
) -> np.ndarray:
    """``attention_share`` of many sequences, ``chunk`` at a time: float32 [L, H, B]."""
    parts = [
        np.asarray(attention_share(params, tokens[index], config, edges), np.float32)
        for index in chunks(len(tokens), chunk)
    ]
    return np.concatenate(parts, axis=-1)[..., : len(tokens)]
