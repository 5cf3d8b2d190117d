"""What heads are replaced by: means, other prompts' values, the value of BOS.

Every function gives a ``fill`` for ``jh.Ablation``; zeros are ``fill=None``, and any
other array of its shape serves as well. "v" and "k" have a head for each key/value
head (G), "z" and "q" for each query head (H).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine.sweeps import chunks
from jaxheads.errors import UserError
from jaxheads.models.arguments import check_tokens
from jaxheads.models.forward import forward

CAPTURED = {"z": "heads", "q": "queries", "k": "keys", "v": "values"}
"""What ``forward`` calls the values of a site."""

POSITIONS = ("last", "pooled", "each")


def mean(
    params,
    tokens: np.ndarray,
    lengths: np.ndarray | None,
    config,
    *,
    positions: str = "last",
    site: str = "z",
    first: int = 0,
    chunk: int = 8,
) -> np.ndarray:
    """Mean values of every head over prompts.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B]; None: all T.
        config: of the model.
        positions: "last": over the prompts' last positions; "pooled": over all their
            positions; "each": over prompts, at each position.
        site: "z", "q", "k" or "v".
        first: the first position that counts, 1 leaves out BOS; not for "last".
        chunk: prompts that run at once.

    Returns:
        float32 [L, H, K], or for "each" [L, 1, T, H, K]: the mean of the prompts that
        reach a position, zeros where none does.

    Raises:
        UserError: unknown positions or site, prompts that end before ``first``.
        TypeError: tokens or lengths that are no arrays of integers.
        ValueError: a token or a length that is not there.
    """
    check_tokens(tokens, config, lengths)
    if first < 0 or (first and positions == "last"):
        raise UserError(
            f"first is 0 or more, and not for the mean over last positions, but is "
            f"{first} for {positions!r}"
        )
    if positions not in POSITIONS:
        raise UserError(f"a mean is over one of {POSITIONS}, not {positions!r}")
    lengths = _lengths(tokens, lengths)
    if positions != "last" and lengths.min() <= first:
        raise UserError(
            f"a mean from position {first} on needs longer prompts, but one has "
            f"{lengths.min()} tokens: leave it out"
        )
    total, count = 0.0, np.zeros(tokens.shape[1])
    for index in chunks(len(tokens), chunk):
        # A chunk may repeat its last prompt; a repeat counts nothing.
        fresh = np.append(True, np.diff(index) > 0)
        at = np.arange(tokens.shape[1])[None]
        ends = lengths[index, None]
        chosen = (
            (at == ends - 1) if positions == "last" else (at >= first) & (at < ends)
        )
        chosen = (chosen & fresh[:, None]).astype(np.float32)
        total = total + np.asarray(_sums(params, tokens[index], config, chosen, site))
        count += chosen.sum(axis=0)
    if positions == "each":
        each = total / np.maximum(count, 1)[None, :, None, None]  # [L, T, H, K]
        return each[:, None].astype(np.float32)
    return (np.asarray(total).sum(axis=1) / count.sum()).astype(np.float32)


@functools.partial(jax.jit, static_argnames="site")
def _sums(params, tokens, config, chosen, site):
    """Sums over prompts of the values at chosen positions [B, T]: [L, T, H, K]."""
    values = _values(params, tokens, config, site).astype(jnp.float32)
    return jnp.einsum("lbthk,bt->lthk", values, chosen)


def resampled(
    params,
    tokens: np.ndarray,
    lengths: np.ndarray | None,
    config,
    rng: np.random.Generator,
    *,
    positions: str = "last",
    site: str = "z",
) -> np.ndarray:
    """Values of every head on another prompt of the same batch, drawn for each.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded; two prompts or more.
        lengths: int [B]; None: all T.
        config: of the model.
        rng: draws a permutation that leaves no prompt its own values.
        positions: "last": the other's last position, for ours; "each": the other's
            same position, which is padding where the other one is shorter.
        site: "z", "q", "k" or "v".

    Returns:
        [L, B, 1, H, K], or for "each" [L, B, T, H, K].

    Raises:
        UserError: one prompt alone, unknown positions or site.
        TypeError: tokens or lengths that are no arrays of integers.
        ValueError: a token or a length that is not there.
    """
    check_tokens(tokens, config, lengths)
    if positions not in ("last", "each"):
        raise UserError(f"values are resampled at last or at each, not {positions!r}")
    if len(tokens) < 2:
        raise UserError("to resample values, two prompts or more are needed, not one")
    order = rng.permutation(len(tokens))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)  # a cycle: nobody keeps their own
    values = np.asarray(captured(params, tokens, config, site))[:, other]
    if positions == "each":
        return values
    last = _lengths(tokens, lengths)[other] - 1
    return values[:, np.arange(len(tokens)), last][:, :, None]


def shuffled(rng: np.random.Generator, fill: np.ndarray) -> np.ndarray:
    """A fill [L, H, K] whose heads are exchanged at random: a control of what it says.

    Source: Yin & Steinhardt 2025, ablation code (shuffled mean).
    """
    layers, heads, width = fill.shape
    return rng.permutation(fill.reshape(-1, width)).reshape(layers, heads, width)


def bos_value(params, config, bos_id: int, site: str = "v") -> np.ndarray:
    """Values of every head on BOS alone: [L, G, K] at "v" and "k", else [L, H, K].

    BOS sees itself only, so that a head that attends to nothing else puts out its
    value: at "z" this is the value of the head's group.

    Source: what Yin & Steinhardt's token-loss code writes into every position.
    """
    tokens = np.full((1, 1), bos_id, np.int32)
    check_tokens(tokens, config)
    return np.asarray(captured(params, tokens, config, site))[:, 0, 0]


@functools.partial(jax.jit, static_argnames="site")
def captured(params, tokens: jax.Array, config, site: str = "z") -> jax.Array:
    """Values at a site of whole sequences: [L, B, T, H, K], with G for H at k, v."""
    return _values(params, tokens, config, site)


def _values(params, tokens, config, site: str) -> jax.Array:
    """Values at a site [L, B, T, H, K]."""
    if site not in CAPTURED:
        raise UserError(f"a site is one of {', '.join(CAPTURED)}, not {site!r}")
    name = CAPTURED[site]
    none = np.zeros((len(tokens), 0), np.int32)  # no logits
    out = forward(params, tokens, config, logits=jnp.asarray(none), capture=(name,))
    return getattr(out, name)


def _lengths(tokens: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    whole = np.full(len(tokens), tokens.shape[1])
    return whole if lengths is None else np.asarray(lengths)
