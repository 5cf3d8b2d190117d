"""The explicit head-ablation argument."""

import jax
from flax import struct


@struct.dataclass
class Ablation:
    """Which heads to replace, by what, and where.

    ``z' = z + w (1 - keep) (fill - z)`` with z the per-head output before the output
    projection and w = ``where`` as 0/1. It is differentiable in ``keep``, so a gradient
    with respect to it is an attribution; ``vmap`` over ``keep`` is an ablation study.

    Attributes:
        keep: float [L, H]; 1 keeps a head, 0 replaces it.
        fill: what replaces it: None (zeros), [L, H, K], or [L, B, T, H, K].
        where: bool [B, T]; None: every position.
    """

    keep: jax.Array
    fill: jax.Array | None = None
    where: jax.Array | None = None


def apply_to_heads(
    heads: jax.Array,
    keep: jax.Array,
    fill: jax.Array | None,
    where: jax.Array | None,
) -> jax.Array:
    """One layer's head outputs under an ablation: ``z + w (1 - keep) (fill - z)``.

    Args:
        heads: z [B, T, H, K].
        keep: [H].
        fill: None, [H, K] or [B, T, H, K].
        where: None or [B, T].

    Returns:
        z' [B, T, H, K], in the dtype of ``heads``.
    """
    weight = (1 - keep).astype(heads.dtype)[None, None, :, None]  # [1, 1, H, 1]
    if where is not None:
        weight = weight * where.astype(heads.dtype)[:, :, None, None]  # [B, T, H, 1]
    if fill is None:
        return heads - weight * heads
    fill = fill.astype(heads.dtype)
    if fill.ndim == 2:
        fill = fill[None, None]  # [1, 1, H, K]
    return heads + weight * (fill - heads)


def check(
    ablation: Ablation,
    layers: int,
    batch: int,
    length: int,
    heads: int,
    width: int,
) -> None:
    """Raise ValueError unless an ablation fits a model and a batch of tokens."""
    if ablation.keep.shape != (layers, heads):
        raise ValueError(
            f"ablation.keep must have shape [L, H] = {(layers, heads)}, "
            f"but has {ablation.keep.shape}; use jax.vmap for many subsets"
        )
    allowed = ((layers, heads, width), (layers, batch, length, heads, width))
    if ablation.fill is not None and ablation.fill.shape not in allowed:
        raise ValueError(
            f"ablation.fill must have shape [L, H, K] = {allowed[0]} or "
            f"[L, B, T, H, K] = {allowed[1]}, but has {ablation.fill.shape}"
        )
    if ablation.where is not None and ablation.where.shape != (batch, length):
        raise ValueError(
            f"ablation.where must have shape [B, T] = {(batch, length)}, "
            f"but has {ablation.where.shape}"
        )
