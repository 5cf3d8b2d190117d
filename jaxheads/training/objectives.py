"""Training objectives that switch a mechanism off: which targets keep their loss.

A window of T + 1 tokens has T targets; target t is token t + 1, predicted from the
tokens before it. An objective drops targets, and the loss is the mean negative
log-probability of those that are kept. With documents in one window (``segments``) an
occurrence counts only in the document of its copy.

Masks compare all pairs of positions, on the device: one piece of code for tokens, pairs
and near-copies. Sorting is faster for windows beyond some 1,000 tokens, but either way
the cost is lost in that of a step (see ``benchmarks/training.py``).

Source: Sahin et al. 2025, sections 2 and 3 (hapax); its authors' code for OLMo (offset,
repeat).
"""

import jax
import jax.numpy as jnp

OBJECTIVES = ("vanilla", "hapax", "hapax-thresholded", "offset", "repeat")


def kept_targets(
    objective: str,
    tokens: jax.Array,
    segments: jax.Array | None,
    scored: jax.Array,
    embedding: jax.Array | None = None,
    threshold: float = 0.3,
) -> jax.Array:
    """Which targets keep their loss.

    - "vanilla": all that are scored.
    - "hapax": not those that end a repeated pair: target t is dropped if some s < t has
      ``x_{s-1} = x_{t-1}`` and ``x_s = x_t``. The first token of a repeated n-gram is
      kept: nothing before it says that it comes again.
    - "hapax-thresholded": the same, with tokens equal if they are the same or the
      cosine of their embeddings exceeds the threshold.
    - "offset": not those that follow a token that occurred before.
    - "repeat": not those that occurred before.

    Args:
        objective: out of ``OBJECTIVES``.
        tokens: int [B, T + 1].
        segments: int [B, T + 1], number of each token's document; None: one a window.
        scored: bool [B, T], targets that count at all.
        embedding: [V, D], which "hapax-thresholded" compares; no gradient flows.
        threshold: of the cosine.

    Returns:
        Bool [B, T].

    Raises:
        ValueError: an unknown objective, or "hapax-thresholded" without an embedding.
    """
    if objective == "vanilla":
        return scored
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {OBJECTIVES}, not {objective!r}")
    if objective == "hapax-thresholded":
        if embedding is None:
            raise ValueError("hapax-thresholded compares tokens by an embedding: none")
        same = _alike(tokens, jax.lax.stop_gradient(embedding), threshold)
    else:
        same = tokens[:, :, None] == tokens[:, None, :]  # [B, T + 1, T + 1]
    whole = None  # [B, T]: the target and the token before it are of one document
    if segments is not None:
        same &= segments[:, :, None] == segments[:, None, :]
        whole = segments[:, 1:] == segments[:, :-1]
    if objective == "repeat":
        return scored & ~_earlier(same)[:, 1:]
    if objective == "offset":
        dropped = _earlier(same)[:, :-1]
    else:
        pairs = same[:, :-1, :-1] & same[:, 1:, 1:]
        # A pair across a boundary is none: neither it nor a copy of it.
        dropped = _earlier(pairs if whole is None else pairs & whole[:, None, :])
    return scored & ~(dropped if whole is None else dropped & whole)


def _earlier(same: jax.Array) -> jax.Array:
    """Whether something before is the same: [B, T, T] -> [B, T]."""
    at = jnp.arange(same.shape[-1])
    return (same & (at[None, :, None] > at[None, None, :])).any(-1)


def _alike(tokens: jax.Array, embedding: jax.Array, threshold: float) -> jax.Array:
    """Which tokens are the same, or near by cosine: [B, T] -> [B, T, T]."""
    wide = jnp.promote_types(embedding.dtype, jnp.float32)
    vectors = embedding[tokens].astype(wide)  # [B, T, D]
    lengths = jnp.linalg.norm(vectors, axis=-1)  # [B, T]
    products = jnp.einsum("btd,bsd->bts", vectors, vectors)
    # Compared without a division: a vector of zeros is near none.
    near = products > threshold * (lengths[:, :, None] * lengths[:, None, :])
    return near | (tokens[:, :, None] == tokens[:, None, :])


def target_losses(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Negative log-probability of every target, in float32 or wider.

    Args:
        logits: [B, T, V].
        targets: int [B, T].

    Returns:
        Losses [B, T] in nats, and the logs of the sums of exponentials [B, T].
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    # Compared, not gathered: the gradient is then one pass, without a scatter.
    chosen = jnp.arange(logits.shape[-1])[None, None] == targets[:, :, None]
    return normaliser - jnp.where(chosen, logits, 0).sum(-1), normaliser
