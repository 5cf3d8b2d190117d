"""Many subsets of heads on the same rows: the price, memory and run of each sweep.

The rows run once as they are, which keeps what all subsets share; then one program
runs the subsets, a chunk at a time. A plan compiles what a run will call, and
``test_plan.py`` checks that the run compiles nothing else.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.chunks import chunks, distinct, part_of_fill, whole_chunks
from jaxheads.engine.devices import data_parts, gather, mesh_of, replicate, split
from jaxheads.engine.memory import Fit, Program, fit, shapes
from jaxheads.engine.passes import positions_at_once
from jaxheads.models.ablation import Ablation, check_set, interventions
from jaxheads.models.arguments import (
    check_answers,
    check_array,
    check_positions,
    check_range,
    check_tokens,
)
from jaxheads.models.forward import generate, last_token_logits
from jaxheads.models.last_position import prefill_program
from jaxheads.models.metrics import Metric, check_targets, log_probability, probability
from jaxheads.models.resuming import clean_program, resume

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
    enough = max(1, positions_at_once(False) // (rows * tokens))
    return int(np.clip(budget_bytes // each, 1, enough))


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """What subsets of heads do to rows of tokens.

    Attributes:
        names: of what runs once and of the subsets' program, for the plan.
        once: jitted; of the params and ``shared``, to what all subsets start from.
        shared: its other arguments.
        swept: jitted; of the params, what ``once`` gave, keeps [C, L, H], the first
            layer that they touch if ``by_layer``, and ``others``, to values [C, ...].
        others: arguments that all subsets share; of what replaces heads its shape
            alone in a plan.
        heads: letters of the subsets' dims, and layers and heads of one: L, H or G.
        out: shape and dtype of a subset's values.
        costs: of what runs once, and of a subset.
        positions: that a subset runs, of all rows.
        by_layer: whether a chunk starts from the first layer that it touches; subsets
            are then sorted by it.
    """

    names: tuple[str, str]
    once: Any
    shared: tuple
    swept: Any
    others: tuple
    heads: tuple[str, int, int]
    out: jax.ShapeDtypeStruct
    costs: tuple[plan.Cost, plan.Cost]
    positions: int
    by_layer: bool = False

    def fit(self, params, subsets: int, budget_bytes: int, times: int = 1) -> list[Fit]:
        """Both programs, at the chunk of subsets that the memory allows.

        Args:
            params: of the model.
            subsets: N.
            budget_bytes: on a device.
            times: how often a study does this, for the plan.
        """
        mesh = mesh_of(params)
        shared = replicate(shapes(self.shared), mesh)
        once = Program(
            self.names[0],
            self.once,
            params,
            lambda _: shared,
            items=1,
            most=1,
            flops=self.costs[0].flops,
            sweeps=times,
            split=False,
        )
        kept = _outputs(once)
        layer = jax.ShapeDtypeStruct((), np.int32)
        others = replicate(((layer,) * self.by_layer, shapes(self.others)), mesh)

        def arguments(count: int) -> tuple:
            keeps = jax.ShapeDtypeStruct((count, *self.heads[1:]), np.float32)
            return kept, split(keeps, mesh), *others[0], *others[1]

        swept = Program(
            self.names[1],
            self.swept,
            params,
            arguments,
            subsets,
            max(1, positions_at_once(False) // self.positions),
            self.costs[1].flops,
            times,
        )
        return [fit(program, budget_bytes) for program in (once, swept)]

    def start(self, params) -> Any:
        """What all subsets start from."""
        return self.once(params, *replicate(self.shared, mesh_of(params)))

    def run(
        self,
        params,
        replaced: np.ndarray,
        *,
        chunk: int,
        kept: Any = None,
        advance: Advance = lambda done: None,
    ) -> np.ndarray:
        """Values [N, ...] under subsets bool [N, L, H], True where a head is replaced.

        Args:
            params: of the model.
            replaced: the subsets.
            chunk: subsets that run at once.
            kept: what ``start`` gives, if it is there already.
            advance: told how many subsets are done.

        Raises:
            TypeError: subsets that are not bool.
            ValueError: a shape that does not fit.
        """
        letters, *shape = self.heads
        check_array(check_set(replaced), "replaced", "bool", letters, (None, *shape))
        if chunk < 1 or chunk != int(chunk):
            raise ValueError(f"chunk must be 1 or more, and whole, but is {chunk}")
        replaced, mesh = np.asarray(replaced), mesh_of(params)
        if kept is None:
            kept = self.start(params)
        others = replicate(self.others, mesh)
        order, first = np.arange(len(replaced)), np.zeros(len(replaced), np.int32)
        if self.by_layer:
            layers = np.any(replaced, axis=2)
            # An empty subset runs the last layer, for its logits.
            last = len(layers[0]) - 1 if len(layers) else 0
            first = np.where(np.any(layers, axis=1), layers.argmax(axis=1), last)
            order = np.argsort(first, kind="stable")
        out = np.zeros((len(replaced), *self.out.shape), self.out.dtype)
        for index in chunks(len(order), chunk, data_parts(mesh)):
            index = order[index]
            keeps = split(Ablation.of(replaced[index]).keep, mesh)
            layer = replicate(np.asarray(first[index].min(), np.int32), mesh)
            given = (keeps, *(layer,) * self.by_layer, *others)
            out[index] = gather(self.swept(params, kept, *given))
            advance(len(np.unique(index)))
        return out


def fit_rows(
    sweep: Callable[[slice], Sweep],
    rows: int,
    params,
    subsets: int,
    budget_bytes: int,
    times: int = 1,
) -> tuple[int, list[Fit]]:
    """How many rows share a sweep over subsets: all of them, where they fit.

    Args:
        sweep: of some rows.
        rows: of the study.
        params: of the model.
        subsets: N.
        budget_bytes: on a device.
        times: how often a study does this, for the plan.

    Returns:
        Rows at once, and their programs.
    """
    at_once = rows
    while True:
        calls = times * -(-rows // at_once)
        fits = sweep(slice(at_once)).fit(params, subsets, budget_bytes, calls)
        if at_once == 1 or max(fitted.bytes for fitted in fits) <= budget_bytes:
            return at_once, fits
        at_once = -(-at_once // 2)


def run_rows(
    sweep: Callable[[Any], Sweep],
    rows: int,
    params,
    replaced: np.ndarray,
    budget_bytes: int,
    advance: Callable[[float], None] = lambda share: None,
    look: Callable[[np.ndarray, Any], None] = lambda rows, kept: None,
) -> np.ndarray:
    """Run what ``fit_rows`` has planned; equal subsets are run once.

    Args:
        sweep: of some rows, by a slice or indices.
        rows: B.
        params: of the model.
        replaced: bool [N, L, H].
        budget_bytes: on a device.
        advance: told the share of all that is done.
        look: shown rows, by indices, and what their subsets start from.

    Returns:
        Values [N, B, ...].
    """
    at_once, (_, swept) = fit_rows(sweep, rows, params, len(replaced), budget_bytes)
    first, place = distinct(replaced)
    run = whole_chunks(replaced[first], swept.chunk)
    whole = sweep(slice(rows)).out
    out = np.zeros((len(run), *whole.shape), whole.dtype)
    for index in chunks(rows, at_once):
        part = sweep(index)
        start = part.start(params)
        look(index, start)
        share = len(np.unique(index)) / (rows * len(run))
        out[:, index] = part.run(
            params,
            run,
            chunk=swept.chunk,
            kept=start,
            advance=lambda done, share=share: advance(done * share),
        )
    return out[place]


def _outputs(program: Program) -> Any:
    """What a program gives, without values; on a mesh, placed as it gives it."""
    lowered = program.function.lower(program.params, *program.arguments(1))
    if mesh_of(program.params) is None:
        return lowered.out_info
    places = lowered.compile().output_shardings
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        lowered.out_info,
        places,
    )


def _heads(config, fill, where=None, site: str = "z") -> tuple[str, int, int]:
    """``Sweep.heads`` of a site, where what replaces them fits.

    Raises:
        TypeError: a fill that is not float.
        ValueError: a site, a shape or a fill that does not fit.
    """
    if site not in SITES:
        raise ValueError(f"site must be one of {SITES}, not {site!r}")
    letters, heads = "[N, L, H]", config.num_heads
    if site in ("k", "v"):
        letters, heads = "[N, L, G]", config.num_kv_heads
    if not isinstance(fill, jax.ShapeDtypeStruct):
        none = np.zeros((0, config.num_layers, heads), bool)
        interventions(Ablation.of(none, fill=fill, where=where, site=site), config)
    return letters, config.num_layers, heads


@functools.partial(jax.jit, static_argnames=("metric", "site"))
def metric_subsets(
    params, prefix, keeps, fill, targets, config, metric, site: str = "z"
):
    """Metric [N, B] of the last position under each of keeps [N, L, H]."""

    def run(keep):
        ablation = Ablation(keep, fill, site=site)
        return metric(last_token_logits(params, prefix, config, ablation), targets)

    return jax.vmap(run)(keeps)


def answers(
    tokens: np.ndarray,
    lengths: np.ndarray,
    targets: np.ndarray,
    config,
    fill: Any,
    metric: Metric = probability,
    site: str = "z",
) -> Sweep:
    """What prompts answer with heads replaced at the last position: [N, B].

    One prefix serves all subsets: a subset costs one token. Arguments and errors as of
    ``metric_under_subsets``.
    """
    check_tokens(tokens, config, lengths)
    check_targets(metric, targets, config.vocab_size, tokens.shape[:1])
    rows, length = tokens.shape
    return Sweep(
        (
            f"the keys and values of {rows} {length}-token prompts",
            f"subsets at {site} on {rows} {length}-token prompts",
        ),
        prefill_program,
        (tokens, lengths, config, ()),
        metric_subsets,
        (fill, targets, config, metric, site),
        _heads(config, fill, site=site),
        jax.ShapeDtypeStruct((rows,), np.float32),
        (plan.sequence(config, length) * rows, plan.step(config, length) * rows),
        rows,
    )


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
    sweep = answers(tokens, lengths, targets, config, fill, metric, site)
    return sweep.run(params, replaced, chunk=chunk, advance=advance)


@functools.partial(jax.jit, static_argnames="max_new_tokens")
def generate_subsets(params, prefix, keeps, fill, config, max_new_tokens):
    """Greedy tokens [N, B, M] under each of keeps [N, L, H]."""
    return jax.vmap(
        lambda keep: generate(
            params, prefix, config, max_new_tokens, Ablation(keep, fill)
        )
    )(keeps)


def continuations(
    tokens: np.ndarray, lengths: np.ndarray, config, fill: Any, max_new_tokens: int
) -> Sweep:
    """How prompts go on with heads replaced at the last position: [N, B, M].

    One prefix serves all subsets; nothing is run twice. Arguments and errors as of
    ``generate_under_subsets``.
    """
    check_tokens(tokens, config, lengths)
    check_answers(lengths, max_new_tokens, config)
    max_new_tokens = int(max_new_tokens)  # static: no array of a mesh
    rows, length = tokens.shape
    return Sweep(
        (
            f"the keys and values of {rows} {length}-token prompts",
            f"subsets on {rows} {length}-token prompts",
        ),
        prefill_program,
        (tokens, lengths, config, ()),
        generate_subsets,
        (fill, config, max_new_tokens),
        _heads(config, fill),
        jax.ShapeDtypeStruct((rows, max_new_tokens), np.int32),
        (
            plan.sequence(config, length) * rows,
            plan.step(config, length) * (rows * max_new_tokens),
        ),
        rows,
    )


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
    advance: Advance = lambda done: None,
) -> np.ndarray:
    """Continue prompts under every subset of heads, replaced at the last position.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B].
        config: of the model.
        replaced: bool [N, L, H], True where a head is replaced.
        fill: [L, H, K] or [L, B, 1, H, K], by what; None: zeros.
        max_new_tokens: M.
        chunk: subsets that run at once.
        advance: told how many subsets are done.

    Returns:
        New tokens, int32 [N, B, M].

    Raises:
        TypeError: an argument is no array, or one of another kind.
        ValueError: shapes that do not fit; a token or a length that is not there;
            answers beyond the model's context.
    """
    sweep = continuations(tokens, lengths, config, fill, max_new_tokens)
    return sweep.run(params, replaced, chunk=chunk, advance=advance)


@functools.partial(jax.jit, static_argnames=("metric", "site"))
def resumed_subsets(
    params, clean, keeps, first_layer, fill, where, at, targets, config, metric, site
):
    """Metric [N, B, P] at positions ``at`` under each keep, from ``first_layer`` on."""

    def run(keep):
        ablation = Ablation(keep, fill, where, site)
        logits = resume(params, clean, config, ablation, at, first_layer)
        return metric(logits, targets)

    return jax.vmap(run)(keeps)


def predictions(
    tokens: np.ndarray,
    config,
    fill: Any,
    at: np.ndarray,
    targets: np.ndarray,
    where: np.ndarray | None = None,
    site: str = "z",
    metric: Metric = log_probability,
) -> Sweep:
    """What sequences predict with heads replaced at any positions: [N, B, P].

    Subsets are sorted by the first layer that they touch: each chunk starts there, and
    at the first position that is replaced, from what one clean run kept. Only the
    positions that are read are unembedded. Arguments and errors as of
    ``sweep_under_subsets``.
    """
    check_tokens(tokens, config)
    check_positions(at, "at", tokens.shape)
    check_targets(metric, targets, config.vocab_size, at.shape)
    heads = _heads(config, fill, where, site)
    if where is not None:
        check_array(where, "where", "bool", "[B, T]", tokens.shape)
    length = tokens.shape[1]
    if fill is not None and len(fill.shape) == 5 and fill.shape[2] not in (1, length):
        raise ValueError(
            f"fill must be [L, B, T, H, K] with T = {length} or 1, but has shape "
            f"{fill.shape}"
        )
    at = np.asarray(at)
    end = int(at.max()) + 1  # nothing after the last position that is read matters
    start = 0
    if where is not None:
        touched = np.flatnonzero(np.asarray(where)[:, :end].any(axis=0))
        start = int(min(at.min(), touched[0] if len(touched) else end))
        where = np.asarray(where)[:, start:end]
    fill = part_of_fill(fill, slice(start, end), 2)
    rows, read = at.shape
    cost = plan.sequence(config, end, read) * rows
    return Sweep(
        (
            f"the streams of {rows} {end}-token documents",
            f"subsets on {rows} {end}-token documents",
        ),
        clean_program,
        (tokens[:, :end], config, start),
        resumed_subsets,
        (fill, where, at - start, targets, config, metric, site),
        heads,
        jax.ShapeDtypeStruct(at.shape, np.float32),
        (cost, cost),
        rows * (end - start),
        by_layer=True,
    )


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
    sweep = predictions(tokens, config, fill, at, targets, where, site, metric)
    return sweep.run(params, replaced, chunk=chunk, advance=advance)


def token_predictions(
    tokens: np.ndarray,
    config,
    fill: Any,
    at: np.ndarray,
    where: np.ndarray | None = None,
    site: str = "z",
) -> Sweep:
    """Log probability of chosen tokens of documents, in nats: [N, B, P].

    Arguments and errors as of ``losses_under_subsets``.
    """
    check_tokens(tokens, config)
    check_array(at, "at", "int", "[P]", (None,))
    last = tokens.shape[1] - 1
    check_range(at, "at", 1, last, "a token before it predicts it")
    before = np.broadcast_to(np.asarray(at)[None] - 1, (len(tokens), len(at)))
    targets = np.asarray(tokens)[:, at]
    return predictions(tokens, config, fill, before, targets, where, site)


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
    sweep = token_predictions(tokens, config, fill, at, where, site)
    return -sweep.run(params, replaced, chunk=chunk, advance=advance)
