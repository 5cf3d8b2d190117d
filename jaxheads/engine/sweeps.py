"""Many prompts and many subsets of heads, in chunks that fit the memory budget."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from jaxheads.engine.chunks import chunks
from jaxheads.engine.devices import data_parts, gather, mesh_of, replicate, split
from jaxheads.models.ablation import Ablation, check_set, interventions
from jaxheads.models.arguments import (
    check_answers,
    check_array,
    check_positions,
    check_range,
    check_tokens,
)
from jaxheads.models.forward import Prefix, generate, last_token_logits, prefill
from jaxheads.models.metrics import Metric, check_targets, log_probability, probability
from jaxheads.models.resuming import resume, run_clean

Advance = Callable[[int], None]
"""Called with the number of items that are done since the last call."""

SITES = ("z", "q", "k", "v")


def subset_chunk(config, rows: int, tokens: int, budget_bytes: int) -> int:
    """Subsets that run at once so that their activations stay within a budget.

    Args:
        config: of the model.
        rows: prompts or documents a subset runs on, B.
        tokens: positions a row runs at once: 1 for the last position, else T.
        budget_bytes: for activations and logits.

    Returns:
        Chunk size, 1 or more: enough for full matrix products, no more.
    """
    wide = 4 * config.mlp_width + 8 * config.width
    scores = 2 * config.num_heads * tokens if tokens > 1 else 0
    each = 4 * rows * (tokens * (wide + scores) + 3 * config.vocab_size)
    # Beyond this many positions at once a processor's caches lose more than its
    # matrix products gain; an accelerator wants all it can get.
    positions = 1024 if jax.default_backend() == "cpu" else 65536
    enough = max(1, positions // (rows * tokens))
    return int(np.clip(budget_bytes // each, 1, enough))


def _check(config, replaced, fill, where, site: str, chunk: int) -> None:
    """Raise unless sets [N, L, H], or [N, L, G], and what replaces them fit a model.

    Raises:
        TypeError: sets that are not bool, a fill that is not float.
        ValueError: a shape or a site that does not fit, a fill that is not finite.
    """
    if site not in SITES:
        raise ValueError(f"site must be one of {SITES}, not {site!r}")
    grouped = site in ("k", "v")
    heads = config.num_kv_heads if grouped else config.num_heads
    shape = (None, config.num_layers, heads)
    letters = "[N, L, G]" if grouped else "[N, L, H]"
    check_array(check_set(replaced), "replaced", "bool", letters, shape)
    interventions(Ablation.of(replaced[:0], fill=fill, where=where, site=site), config)
    if chunk < 1:
        raise ValueError(f"chunk must be 1 or more, but is {chunk}")


def _keeps(replaced: np.ndarray, mesh) -> jax.Array:
    """Keeps of a chunk of sets, split over the devices: bool [C, L, H] -> float."""
    return split(Ablation.of(replaced).keep, mesh)


@functools.partial(jax.jit, static_argnames=("metric", "site"))
def metric_subsets(
    params, prefix, keeps, fill, targets, config, metric, site: str = "z"
):
    """Metric [N, B] of the last position under each of keeps [N, L, H]."""

    def run(keep):
        ablation = Ablation(keep, fill, site=site)
        return metric(last_token_logits(params, prefix, config, ablation), targets)

    return jax.vmap(run)(keeps)


def metric_under_subsets(
    params,
    tokens: np.ndarray,
    lengths: np.ndarray,
    targets: np.ndarray,
    config,
    replaced: np.ndarray,
    fill: np.ndarray | None,
    *,
    metric: Metric = probability,
    site: str = "z",
    chunk: int,
    advance: Advance = lambda done: None,
) -> np.ndarray:
    """What prompts answer under every subset of heads, replaced at the last position.

    One prefix serves all subsets: a subset costs one token.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B].
        targets: int [B], or whatever the metric reads of each prompt [B, ...].
        config: of the model.
        replaced: bool [N, L, H], True where a head is replaced.
        fill: [L, H, K] or [L, B, 1, H, K], by what; None: zeros.
        metric: (logits [B, V], targets) -> [B].
        site: "z", "q", "k" or "v"; with G for H at the last two.
        chunk: subsets that run at once.
        advance: told how many subsets are done.

    Returns:
        float32 [N, B], in the metric's unit.

    Raises:
        TypeError: an argument is no array, or one of another kind.
        ValueError: shapes that do not fit; a token, a length or a target that is not
            there.
    """
    check_tokens(tokens, config, lengths)
    check_targets(metric, targets, config.vocab_size, tokens.shape[:1])
    _check(config, replaced, fill, None, site, chunk)
    mesh = mesh_of(params)
    out = np.zeros((len(replaced), len(tokens)), np.float32)
    shared = (tokens, lengths, fill, targets)
    tokens, lengths, fill, targets = replicate(shared, mesh)
    prefix = prefill(params, tokens, lengths, config)
    for index in chunks(len(replaced), chunk, data_parts(mesh)):
        keeps = _keeps(replaced[index], mesh)
        made = metric_subsets(
            params, prefix, keeps, fill, targets, config, metric, site
        )
        out[index] = gather(made)
        advance(len(np.unique(index)))
    return out


@functools.partial(jax.jit, static_argnames="max_new_tokens")
def generate_subsets(params, prefix, keeps, fill, config, max_new_tokens):
    """Greedy tokens [N, B, M] under each of keeps [N, L, H]."""
    return jax.vmap(
        lambda keep: generate(
            params, prefix, config, max_new_tokens, Ablation(keep, fill)
        )
    )(keeps)


def generate_under_subsets(
    params,
    tokens: np.ndarray,
    lengths: np.ndarray,
    config,
    replaced: np.ndarray,
    fill: np.ndarray | None,
    max_new_tokens: int,
    *,
    chunk: int,
    prefix: Prefix | None = None,
    advance: Advance = lambda done: None,
) -> np.ndarray:
    """Continue prompts under every subset of heads, replaced at the last position.

    One prefix serves all subsets; nothing is run twice.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B].
        config: of the model.
        replaced: bool [N, L, H], True where a head is replaced.
        fill: [L, H, K], by what; None: zeros.
        max_new_tokens: M.
        chunk: subsets that run at once.
        prefix: of ``prefill`` on these prompts, if it is there already.
        advance: told how many subsets are done.

    Returns:
        New tokens, int32 [N, B, M].

    Raises:
        TypeError: an argument is no array, or one of another kind.
        ValueError: shapes that do not fit; a token or a length that is not there;
            answers beyond the model's context.
    """
    check_tokens(tokens, config, lengths)
    check_answers(lengths, max_new_tokens, config)
    _check(config, replaced, fill, None, "z", chunk)
    mesh = mesh_of(params)
    out = np.zeros((len(replaced), len(tokens), max_new_tokens), np.int32)
    tokens, lengths, fill = replicate((tokens, lengths, fill), mesh)
    if prefix is None:
        prefix = prefill(params, tokens, lengths, config)
    for index in chunks(len(replaced), chunk, data_parts(mesh)):
        keeps = _keeps(replaced[index], mesh)
        made = generate_subsets(params, prefix, keeps, fill, config, max_new_tokens)
        out[index] = gather(made)
        advance(len(np.unique(index)))
    return out


@functools.partial(jax.jit, static_argnames=("metric", "site"))
def resumed_subsets(
    params, clean, keeps, fill, where, at, targets, first_layer, config, metric, site
):
    """Metric [N, B, P] at positions ``at`` under each keep, from ``first_layer`` on."""

    def run(keep):
        ablation = Ablation(keep, fill, where, site)
        logits = resume(params, clean, config, ablation, at, first_layer)
        return metric(logits, targets)

    return jax.vmap(run)(keeps)


def sweep_under_subsets(
    params,
    tokens: np.ndarray,
    config,
    replaced: np.ndarray,
    fill: np.ndarray | None,
    at: np.ndarray,
    targets: np.ndarray,
    *,
    where: np.ndarray | None = None,
    site: str = "z",
    metric: Metric = log_probability,
    chunk: int,
    advance: Advance = lambda done: None,
) -> np.ndarray:
    """What sequences predict under every subset, replaced at any positions.

    Subsets are sorted by the first layer that they touch: each chunk starts there, and
    at the first position that is replaced, from what one clean run kept. Only the
    positions that are read are unembedded.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        config: of the model.
        replaced: bool [N, L, H], True where a head is replaced; at sites "k" and "v"
            [N, L, G].
        fill: [L, H, K] or [L, B, T, H, K] (B or T may be 1), by what; None: zeros.
        at: int [B, P], positions whose logits are read.
        targets: int [B, P], or whatever the metric reads of each [B, P, ...].
        where: bool [B, T], at which positions; None: all.
        site: "z", "q", "k" or "v".
        metric: (logits [B, P, V], targets) -> [B, P].
        chunk: subsets that run at once.
        advance: told how many subsets are done.

    Returns:
        float32 [N, B, P], in the metric's unit.

    Raises:
        TypeError: an argument is no array, or one of another kind.
        ValueError: shapes that do not fit; a token, a position or a target that is not
            there.
    """
    check_tokens(tokens, config)
    check_positions(at, "at", tokens.shape)
    check_targets(metric, targets, config.vocab_size, at.shape)
    _check(config, replaced, fill, where, site, chunk)
    at, replaced = np.asarray(at), np.asarray(replaced)
    end = int(at.max()) + 1  # nothing after the last position that is read matters
    start = 0
    if where is not None:
        touched = np.flatnonzero(np.asarray(where)[:, :end].any(axis=0))
        start = int(min(at.min(), touched[0] if len(touched) else end))
        where = np.asarray(where)[:, start:end]
    if fill is not None and fill.ndim == 5 and fill.shape[2] > 1:
        fill = fill[:, :, start:end]
    mesh = mesh_of(params)
    shared = (tokens[:, :end], fill, where, at - start, targets)
    tokens, fill, where, relative, targets = replicate(shared, mesh)
    clean = run_clean(params, tokens, config, start)
    layers = np.any(replaced, axis=2)
    # An empty subset runs the last layer, for its logits.
    first = np.where(
        np.any(layers, axis=1), layers.argmax(axis=1), config.num_layers - 1
    )
    order = np.argsort(first, kind="stable")
    out = np.zeros((len(replaced), *at.shape), np.float32)
    for index in chunks(len(order), chunk, data_parts(mesh)):
        index = order[index]
        keeps = _keeps(replaced[index], mesh)
        made = resumed_subsets(
            params,
            clean,
            keeps,
            fill,
            where,
            relative,
            targets,
            replicate(np.asarray(first[index].min(), np.int32), mesh),
            config,
            metric,
            site,
        )
        out[index] = gather(made)
        advance(len(np.unique(index)))
    return out


def losses_under_subsets(
    params,
    tokens: np.ndarray,
    config,
    replaced: np.ndarray,
    fill: np.ndarray | None,
    at: np.ndarray,
    *,
    where: np.ndarray | None = None,
    site: str = "z",
    chunk: int,
    advance: Advance = lambda done: None,
) -> np.ndarray:
    """Loss of chosen tokens of documents, with heads replaced at every position.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], without padding.
        config: of the model.
        replaced: bool [N, L, H].
        fill: as for ``sweep_under_subsets``; None: zeros.
        at: int [P], indices of the tokens to score, 1 or more.
        where: bool [B, T]; None: every position.
        site: "z", "q", "k" or "v".
        chunk: subsets that run at once.
        advance: told how many subsets are done.

    Returns:
        float32 [N, B, P], nats.

    Raises:
        TypeError: an argument is no array, or one of another kind.
        ValueError: as for ``sweep_under_subsets``.
    """
    check_tokens(tokens, config)
    check_array(at, "at", "int", "[P]", (None,))
    last = tokens.shape[1] - 1
    check_range(at, "at", 1, last, "a token before it predicts it")
    before = np.broadcast_to(np.asarray(at)[None] - 1, (len(tokens), len(at)))
    return -sweep_under_subsets(
        params,
        tokens,
        config,
        replaced,
        fill,
        before,
        np.asarray(tokens)[:, at],
        where=where,
        site=site,
        chunk=chunk,
        advance=advance,
    )


@jax.jit
def last_heads(params, tokens: jax.Array, lengths: jax.Array, config) -> jax.Array:
    """Per-head outputs at the last position of prompts: [L, B, H, K]."""
    return prefill(params, tokens, lengths, config).heads
