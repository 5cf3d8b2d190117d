"""Running models: the public functions that run layers, for every family.

Everything here is pure and works under ``jit``, ``vmap`` and ``grad``; called plainly,
each function compiles once per shape. ``config`` is static by its type. Runs of whole
sequences stand here, runs of the last position in last_position.py, the sweep over
single heads in patching.py, and what they share in execution.py.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxheads.models import family
from jaxheads.models.ablation import Ablations, interventions
from jaxheads.models.arguments import Array, check_positions, check_tokens
from jaxheads.models.last_position import Prefix, generate, last_token_logits, prefill
from jaxheads.models.layer_scan import (
    exact_products,
    lengths_or_whole,
    run_layers,
    sequence_positions,
)
from jaxheads.models.patching import patch_each_head

__all__ = [
    "Output",
    "Prefix",
    "forward",
    "generate",
    "heads_under",
    "last_token_logits",
    "patch_each_head",
    "prefill",
]

CAPTURES = ("heads", "patterns", "residual", "final", "queries", "keys", "values")


@struct.dataclass
class Output:
    """What ``forward`` returns; what was not captured is None.

    Attributes:
        logits: [B, T, V], [B, V] or [B, P, V], as asked.
        heads: z [L, B, T, H, K], per-head outputs before the output projection, after
            the ablation.
        patterns: [L, B, H, T, S], attention probabilities.
        residual: [L, B, T, D], the residual stream entering each layer.
        final: [B, T, D], the residual stream leaving the last layer.
        queries: [L, B, T, H, K], as attention sees them, positions applied.
        keys: [L, B, S, G, K], as attention sees them.
        values: [L, B, S, G, K], as attention sees them.
    """

    logits: jax.Array
    heads: jax.Array | None = None
    patterns: jax.Array | None = None
    residual: jax.Array | None = None
    final: jax.Array | None = None
    queries: jax.Array | None = None
    keys: jax.Array | None = None
    values: jax.Array | None = None


def forward(
    params,
    tokens: Array,
    config,
    *,
    lengths: Array | None = None,
    ablation: Ablations = None,
    logits: Literal["all", "last"] | Array = "all",
    capture: tuple[str, ...] = (),
    rematerialise: bool = False,
    segments: Array | None = None,
) -> Output:
    """Run a model over whole sequences, with heads ablated if asked.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        config: of the model; static.
        lengths: int [B], tokens that count in each row; None: all T.
        ablation: which heads to replace: an Ablation, a tuple of them that are applied
            in turn, or None, which costs nothing.
        logits: "all": [B, T, V]; "last": [B, V] at ``lengths - 1``; int array [B, P]
            of positions: [B, P, V].
        capture: names out of ``CAPTURES``, the fields of ``Output``.
        rematerialise: a gradient computes each layer's activations a second time
            instead of keeping them all.
        segments: int [B, T], number of each token's document where a row holds several,
            one after the other: a token sees its own alone, and positions begin anew.

    Returns:
        Output: logits (float32 or wider) and what was captured.

    Raises:
        TypeError: an argument is no array, or one of another kind; an ablation that is
            none.
        ValueError: shapes that do not fit, an unknown capture, a token, a length or a
            position that is not there, a sequence longer than the model's context.
    """
    check_tokens(tokens, config, lengths, segments)
    ablation = interventions(ablation, config)
    if isinstance(capture, str) or set(capture) - set(CAPTURES):
        raise ValueError(
            f"capture takes a tuple of names of {CAPTURES}, not {capture!r}"
        )
    b, t = tokens.shape
    run = lambda at: _forward(
        params, tokens, config, ablation, at, tuple(capture), rematerialise, segments
    )
    if not isinstance(logits, str):
        check_positions(logits, "logits", (b, t))
        return run(logits)
    if logits == "all":
        return run(None)
    if logits != "last":
        raise ValueError(f'logits takes "all", "last" or positions, not {logits!r}')
    out = run(lengths_or_whole(lengths, b, t)[:, None] - 1)
    return dataclasses.replace(out, logits=out.logits[:, 0])


@functools.partial(jax.jit, static_argnames=("capture", "rematerialise"))
def _forward(
    params, tokens, config, ablation, at, capture, rematerialise, segments
) -> Output:
    """``forward`` with the positions of the logits as an array [B, P], or None: all."""
    model = family(config.model_type)
    stacked = [name for name in capture if name != "final"]
    keep = lambda seen: {name: seen[name] for name in stacked}
    with exact_products(params):
        positions = sequence_positions(*tokens.shape, segments=segments)
        x = model.embed(params, tokens, positions, config)
        x, captured = run_layers(
            params, x, config, ablation, keep, None, rematerialise, segments
        )
        if "final" in capture:
            captured["final"] = x
        if at is not None:
            x = jnp.take_along_axis(x, at[:, :, None], axis=1)  # [B, P, D]
        return Output(logits=model.unembed(params, x, config), **captured)


def heads_under(params, tokens: Array, config, ablation: Ablations) -> jax.Array:
    """Head outputs if a layer alone were ablated, for every layer in one pass.

    Each layer reads the stream of the run without the ablation, so that heads do not
    see what it does to earlier ones: with queries replaced, for instance, this is the
    exact output of each head whose query alone is replaced.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        config: of the model; static.
        ablation: of each layer.

    Returns:
        z [L, B, T, H, K].
    """
    check_tokens(tokens, config)
    return _heads_under(params, tokens, config, interventions(ablation, config))


@jax.jit
def _heads_under(params, tokens, config, ablation) -> jax.Array:
    with exact_products(params):
        x = family(config.model_type).embed(
            params, tokens, sequence_positions(*tokens.shape), config
        )
        _, heads = run_layers(
            params, x, config, (), lambda seen: seen["heads"], aside=ablation
        )
    return heads
