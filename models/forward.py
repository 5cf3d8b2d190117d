"""Running models: the only code that runs layers, for every family.

Everything here is pure and works under ``jit``, ``vmap`` and ``grad``; called plainly,
each function compiles once per shape. ``config`` is static by its type. The mask, the
cache, the capture and the ablation live in the ``attend`` functions below, once.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxheads.models import family
from jaxheads.models.ablation import Ablation, apply_to_heads, check
from jaxheads.models.layers import attention, shared_prefix_attention
from jaxheads.models.metrics import Metric, probability

CAPTURES = ("heads", "patterns", "residual")


@struct.dataclass
class Output:
    """What ``forward`` returns; what was not captured is None.

    Attributes:
        logits: [B, T, V], [B, V] or [B, P, V], as asked.
        heads: z [L, B, T, H, K], per-head outputs before the output projection, after
            the ablation.
        patterns: [L, B, H, T, S], attention probabilities.
        residual: [L, B, T, D], the residual stream entering each layer.
    """

    logits: jax.Array
    heads: jax.Array | None = None
    patterns: jax.Array | None = None
    residual: jax.Array | None = None


@struct.dataclass
class Prefix:
    """A prompt after one full pass: all that runs of its last position can share.

    Attributes:
        keys: [L, B, S, G, K], positions applied.
        values: [L, B, S, G, K].
        lengths: int [B].
        last_tokens: int [B].
        residual: [L, B, D], entering each layer at the last position.
        heads: z [L, B, H, K] at the last position.
        logits: [B, V] at the last position.
        unmixed: keys and values [L, B, G, K] one position before the last, before
            they were mixed; None in families that mix none.
    """

    keys: jax.Array
    values: jax.Array
    lengths: jax.Array
    last_tokens: jax.Array
    residual: jax.Array
    heads: jax.Array
    logits: jax.Array
    unmixed: tuple[jax.Array, jax.Array] | None = None


def forward(
    params,
    tokens: jax.Array,
    config,
    *,
    lengths: jax.Array | None = None,
    ablation: Ablation | None = None,
    logits: Literal["all", "last"] | jax.Array = "all",
    capture: tuple[str, ...] = (),
) -> Output:
    """Run a model over whole sequences, with heads ablated if asked.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        config: of the model; static.
        lengths: int [B], tokens that count in each row; None: all T.
        ablation: which heads to replace; None costs nothing.
        logits: "all": [B, T, V]; "last": [B, V] at ``lengths - 1``; int array [B, P]
            of positions: [B, P, V].
        capture: names out of "heads", "patterns", "residual".

    Returns:
        Output: logits (float32 or wider) and what was captured.

    Raises:
        ValueError: shapes that do not fit, an unknown capture, a sequence longer than
            the model's context.
    """
    _check_tokens(tokens, config)
    unknown = set(capture) - set(CAPTURES)
    if unknown:
        raise ValueError(f"capture takes names of {CAPTURES}, not {sorted(unknown)}")
    b, t = tokens.shape
    if ablation is not None:
        check(ablation, config.num_layers, b, t, config.num_heads, config.head_dim)
    if not isinstance(logits, str):
        return _forward(params, tokens, config, ablation, logits, tuple(capture))
    if logits == "all":
        return _forward(params, tokens, config, ablation, None, tuple(capture))
    if logits != "last":
        raise ValueError(f'logits takes "all", "last" or positions, not {logits!r}')
    last = _lengths(lengths, b, t)[:, None] - 1
    out = _forward(params, tokens, config, ablation, last, tuple(capture))
    return dataclasses.replace(out, logits=out.logits[:, 0])


@functools.partial(jax.jit, static_argnames="capture")
def _forward(params, tokens, config, ablation, at, capture) -> Output:
    """``forward`` with the positions of the logits as an array [B, P], or None: all."""
    model = family(config.model_type)
    positions = _positions(*tokens.shape)
    keep, fill, where = _split(ablation)

    def run_layer(x, inputs):
        layer, window, keep, fill = inputs
        seen = {"residual": x}

        def attend(q, k, v, *, softcap=None, mix=None):
            if mix is not None:
                k, v = mix(k, v, _one_later(k), _one_later(v))
            mask = _visible(positions, positions, window)
            z, patterns = attention(q, k, v, mask, softcap)
            if keep is not None:
                z = apply_to_heads(z, keep, fill, where)
            seen.update(heads=z, patterns=patterns)
            return z

        x = model.block(layer, x, positions, attend, config)
        return x, {name: seen[name] for name in capture}

    with _exact_products(params):
        x = model.embed(params, tokens, positions, config)
        inputs = (params.layers, _windows(config), keep, fill)
        x, captured = jax.lax.scan(run_layer, x, inputs)
        if at is not None:
            x = jnp.take_along_axis(x, at[:, :, None], axis=1)  # [B, P, D]
        return Output(logits=model.unembed(params, x, config), **captured)


@jax.jit
def prefill(params, tokens: jax.Array, lengths: jax.Array | None, config) -> Prefix:
    """Run a model once over prompts and keep what runs of the last position share.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B]; None: all T.
        config: of the model; static.

    Returns:
        Prefix: keys, values and the last position's inputs of every layer.

    Raises:
        ValueError: a prompt longer than the model's context.
    """
    _check_tokens(tokens, config)
    b, t = tokens.shape
    model = family(config.model_type)
    positions = _positions(b, t)
    lengths = _lengths(lengths, b, t)
    last = lengths - 1

    def at_last(values: jax.Array) -> jax.Array:
        """[B, T, ...] -> [B, ...]."""
        index = last.reshape(b, *(1,) * (values.ndim - 1))
        return jnp.take_along_axis(values, index, axis=1)[:, 0]

    def run_layer(x, inputs):
        layer, window = inputs
        seen: dict[str, Any] = {"residual": at_last(x)}

        def attend(q, k, v, *, softcap=None, mix=None):
            if mix is not None:
                before = (_one_later(k), _one_later(v))
                seen.update(unmixed=jax.tree.map(at_last, before))
                k, v = mix(k, v, *before)
            mask = _visible(positions, positions, window)
            z, _ = attention(q, k, v, mask, softcap)
            seen.update(keys=k, values=v, heads=at_last(z))
            return z

        return model.block(layer, x, positions, attend, config), seen

    with _exact_products(params):
        x = model.embed(params, tokens, positions, config)
        x, seen = jax.lax.scan(run_layer, x, (params.layers, _windows(config)))
        return Prefix(
            lengths=lengths,
            last_tokens=at_last(tokens),
            logits=model.unembed(params, at_last(x), config),
            **seen,
        )


@jax.jit
def last_token_logits(
    params, prefix: Prefix, config, ablation: Ablation | None = None
) -> jax.Array:
    """Run the last position of prompts again, under an ablation of it.

    Exact: under a causal mask nothing before the last position can change. ``vmap``
    over ablations shares the prefix among all subsets.

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        config: of the model; static.
        ablation: fill [L, H, K] or [L, B, 1, H, K], where [B, 1] or None.

    Returns:
        Logits [B, V].
    """
    own = _own_cache(prefix, 1)
    with _exact_products(params):
        logits, _ = _run_token(
            params, prefix, own, prefix.last_tokens, 0, ablation, config
        )
    return logits


@functools.partial(jax.jit, static_argnames="max_new_tokens")
def generate(
    params,
    prefix: Prefix,
    config,
    max_new_tokens: int,
    ablation: Ablation | None = None,
) -> jax.Array:
    """Continue prompts greedily.

    Heads are ablated at the prompt's last position and at every new one. Nothing stops
    at an end-of-text token: cut the answer where it ends. ``lengths + M - 1`` positions
    must fit the model's context, which is not checked here.

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        config: of the model; static.
        max_new_tokens: M; static.
        ablation: as for ``last_token_logits``.

    Returns:
        New tokens, int32 [B, M].
    """

    def step(carry, index):
        own, token = carry
        logits, own = _run_token(params, prefix, own, token, index, ablation, config)
        token = jnp.argmax(logits, axis=-1).astype(prefix.last_tokens.dtype)
        return (own, token), token

    start = (_own_cache(prefix, max_new_tokens), prefix.last_tokens)
    with _exact_products(params):
        _, tokens = jax.lax.scan(step, start, jnp.arange(max_new_tokens))
    return tokens.T.astype(jnp.int32)


@functools.partial(jax.jit, static_argnames="metric")
def patch_each_head(
    params,
    prefix: Prefix,
    fill: jax.Array,
    targets: jax.Array,
    config,
    *,
    metric: Metric = probability,
) -> jax.Array:
    """Exact effect of replacing each head, alone, at the last position.

    ``effect[l, h, b] = metric(prompt b, head (l, h) := fill[l, h]) - metric(prompt b)``

    The run that patches layer l starts at layer l from the cached residual; the runs of
    all layers then go on together, as rows of one growing batch, so that each layer's
    weights are read once.

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        fill: [L, H, K], what each head is replaced by.
        targets: int [B], or whatever the metric reads of each prompt [B, ...].
        config: of the model; static.
        metric: (logits [..., V], targets [...]) -> [...], such as ``probability``,
            ``log_probability``, or ``logit_difference`` with targets [B, 2].

    Returns:
        Effects [L, H, B], in the metric's unit.

    Source: Todd et al. 2024, section 2.3 (causal indirect effect).
    """
    layers, b, h, k = prefix.heads.shape
    if fill.shape != (layers, h, k):
        raise ValueError(f"fill must be [L, H, K] = {(layers, h, k)}, not {fill.shape}")
    if targets.shape[:1] != (b,):
        raise ValueError(f"targets must be [B] = {(b,)}, not {targets.shape}")
    model = family(config.model_type)
    fill = fill.astype(prefix.heads.dtype)
    inputs = (
        params.layers,
        prefix.keys,
        prefix.values,
        prefix.residual,
        prefix.heads,
        fill,
        prefix.unmixed,
        _windows(config),
    )
    # Rows that start inside a segment are carried from its first layer on: short
    # segments waste less arithmetic, few segments compile faster.
    segment = math.ceil(layers / _MAX_SEGMENTS)
    x = jnp.zeros((b, 0, prefix.residual.shape[-1]), prefix.residual.dtype)
    with _exact_products(params):
        for start in range(0, layers, segment):
            stop = min(start + segment, layers)
            rows = jnp.zeros((b, (stop - start) * h, x.shape[-1]), x.dtype)
            x = jnp.concatenate([x, rows], axis=1)  # [B, R, D]
            run_layer = _patched_layer(model, prefix, inputs, x.shape[1], config)
            x, _ = jax.lax.scan(run_layer, x, jnp.arange(start, stop))
        effects = _metric_of_rows(model, params, x, targets, config, metric)  # [B, R]
    effects = effects - metric(prefix.logits, targets)[:, None]
    return effects.reshape(b, layers, h).transpose(1, 2, 0)


_MAX_SEGMENTS = 16
_LOGIT_BYTES = 64 * 2**20  # of one chunk of rows, so that memory stays flat


def _patched_layer(model, prefix: Prefix, stacked, rows: int, config):
    """One layer, by its index, for all rows that patch it or an earlier one."""
    _, b, h, _ = prefix.heads.shape
    last = prefix.lengths[:, None] - 1  # [B, 1]
    positions = jnp.broadcast_to(last, (b, rows))
    one_token = jnp.ones((1,), bool)
    row_layer = jnp.arange(rows) // h
    row_head = jnp.arange(rows) % h

    def run_layer(x, index):
        # Taken by index from the whole stack: slicing it by segments would copy it.
        inputs = jax.tree.map(lambda leaf: leaf[index], stacked)
        layer, keys, values, residual, heads, fill, unmixed, window = inputs
        starts = (row_layer == index)[None, :, None]  # [1, R, 1]
        x = jnp.where(starts, residual[:, None], x)
        patched_head = (row_head[:, None] == jnp.arange(h)[None])[None, :, :, None]
        patched = jnp.where(patched_head, fill[None, None], heads[:, None])

        def attend(q, k, v, *, softcap=None, mix=None):
            if mix is not None:
                before = jax.tree.map(lambda x: x[:, None], unmixed)  # [B, 1, G, K]
                k, v = mix(k, v, *before)
            mask = _before_last(prefix, last, window)
            z = shared_prefix_attention(
                q, keys, values, mask, k[:, :, None], v[:, :, None], one_token, softcap
            )
            return jnp.where(starts[..., None], patched, z)

        return model.block(layer, x, positions, attend, config), None

    return run_layer


def _metric_of_rows(model, params, x, targets, config, metric: Metric) -> jax.Array:
    """Metric of each row: x [B, R, D], targets [B] -> [B, R]; unembeds in chunks."""
    b, rows, width = x.shape
    most = max(1, _LOGIT_BYTES // (4 * config.vocab_size * b))
    chunk = max(size for size in range(1, rows + 1) if not rows % size and size <= most)

    def run(part: jax.Array) -> jax.Array:  # [B, C, D] -> [B, C]
        wanted = jnp.broadcast_to(targets[:, None], (b, chunk, *targets.shape[1:]))
        return metric(model.unembed(params, part, config), wanted)

    parts = x.reshape(b, rows // chunk, chunk, width).swapaxes(0, 1)
    return jax.lax.map(run, parts).swapaxes(0, 1).reshape(b, rows)


def _run_token(params, prefix: Prefix, own, token, index, ablation, config):
    """One token after the prefix: own cache and token in, logits and own cache out.

    Args:
        params: of the family.
        prefix: of B prompts; its last position is not read, the token replaces it.
        own: keys and values [L, B, M, G, K] of the last prompt token and the new ones,
            and ``Prefix.unmixed`` of the token before.
        token: int [B].
        index: which of the M own tokens this is.
        ablation: of this position, or None.
        config: of the model.

    Returns:
        Logits [B, V], and ``own`` with slot ``index`` written.
    """
    model = family(config.model_type)
    layers, b, h, k = prefix.heads.shape
    if ablation is not None:
        check(ablation, layers, b, 1, h, k)
    keep, fill, where = _split(ablation)
    positions = (prefix.lengths - 1 + index)[:, None]  # [B, 1]
    own_positions = jnp.arange(own[0].shape[2])[None]  # [1, M], after the prefix

    def run_layer(x, inputs):
        layer, window, keys, values, own, keep, fill = inputs
        written = {}

        def attend(q, k, v, *, softcap=None, mix=None):
            own_keys, own_values, unmixed = own
            if mix is not None:
                before = jax.tree.map(lambda x: x[:, None], unmixed)  # [B, 1, G, K]
                unmixed = (k[:, 0], v[:, 0])
                k, v = mix(k, v, *before)
            own_keys = jax.lax.dynamic_update_slice_in_dim(own_keys, k, index, axis=1)
            own_values = jax.lax.dynamic_update_slice_in_dim(
                own_values, v, index, axis=1
            )
            written.update(own=(own_keys, own_values, unmixed))
            z = shared_prefix_attention(
                q,
                keys,
                values,
                _before_last(prefix, positions, window),
                own_keys[:, None],
                own_values[:, None],
                _visible(jnp.full((1, 1), index), own_positions, window)[0, 0],
                softcap,
            )
            return z if keep is None else apply_to_heads(z, keep, fill, where)

        x = model.block(layer, x, positions, attend, config)
        return x, written["own"]

    x = model.embed(params, token[:, None], positions, config)  # [B, 1, D]
    inputs = (
        params.layers,
        _windows(config),
        prefix.keys,
        prefix.values,
        own,
        keep,
        fill,
    )
    x, own = jax.lax.scan(run_layer, x, inputs)
    return model.unembed(params, x[:, 0], config), own


def _own_cache(prefix: Prefix, count: int):
    """Empty keys and values [L, B, M, G, K] for tokens after the prefix."""
    layers, b, _, g, k = prefix.keys.shape
    empty = jnp.zeros((layers, b, count, g, k), prefix.keys.dtype)
    return empty, empty, prefix.unmixed


def _before_last(prefix: Prefix, positions: jax.Array, window) -> jax.Array:
    """Prefix positions before the last that queries at [B, 1] see: bool [B, S]."""
    stored = jnp.arange(prefix.keys.shape[2])[None]  # [1, S]
    before = stored < (prefix.lengths - 1)[:, None]
    return before & _visible(positions, stored, window)[:, 0]


def _split(ablation: Ablation | None):
    if ablation is None:
        return None, None, None
    return ablation.keep, ablation.fill, ablation.where


def _positions(b: int, t: int) -> jax.Array:
    """Positions [B, T]; tokens are right padded, so that every row starts at 0."""
    return jnp.broadcast_to(jnp.arange(t)[None], (b, t))


def _visible(queries: jax.Array, keys: jax.Array, window) -> jax.Array:
    """Which key positions [B, S] queries at [B, T] see: bool [B, T, S].

    None in their future, and with a window only the last that many, their own included.
    """
    distance = queries[:, :, None] - keys[:, None]
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)


def _windows(config) -> jax.Array | None:
    """Attention windows by layer, int [L]; None where no layer has one."""
    if config.windows is None:
        return None
    everything = jnp.iinfo(jnp.int32).max
    return jnp.array([w or everything for w in config.windows], jnp.int32)


def _one_later(x: jax.Array) -> jax.Array:
    """The previous position's values, zeros before the first: [B, T, ...]."""
    return jnp.pad(x, [(0, 0), (1, 0), *[(0, 0)] * (x.ndim - 2)])[:, :-1]


def _exact_products(params):
    """Full precision of matrix products of float32 params, unless the user chose one.

    GPUs and TPUs round the factors to 10 or 7 bits otherwise.
    """
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    narrow = all(leaf.dtype.itemsize < 4 for leaf in jax.tree.leaves(params))
    exact = chosen if chosen or narrow else "highest"
    return jax.default_matmul_precision(exact)


def _lengths(lengths: jax.Array | None, b: int, t: int) -> jax.Array:
    return jnp.full((b,), t) if lengths is None else lengths


def _check_tokens(tokens: jax.Array, config) -> None:
    if tokens.ndim != 2:
        raise ValueError(f"tokens must be int [B, T], but have shape {tokens.shape}")
    if tokens.shape[1] > config.context_length:
        raise ValueError(
            f"the sequence has {tokens.shape[1]} tokens, but the model's context is "
            f"{config.context_length}: shorten it (fewer shots, shorter documents)"
        )
