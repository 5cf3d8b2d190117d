"""What the studies compile, as programs that can be looked at before they run.

Each function names the arguments of one call of the engine, so that its memory and its
time are known from the very program that will run; ``test_plan.py`` checks that a
planned run compiles nothing else.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxheads.engine import plan, sweeps as engine
from jaxheads.engine.devices import mesh_of, replicate, split
from jaxheads.engine.memory import Fit, Program, fit, shapes
from jaxheads.icl.prompts import Batch
from jaxheads.models.last_position import prefill_program
from jaxheads.models.metrics import Metric, log_probability
from jaxheads.models.resuming import clean_program


def positions_at_once(prompts: bool) -> int:
    """Positions that run at once, beyond which nothing is gained.

    A processor's caches lose more then than its matrix products gain; an accelerator
    wants more of them.

    Args:
        prompts: whole prompts, else last positions of subsets.
    """
    if jax.default_backend() == "cpu":
        return 2048 if prompts else 1024
    return 16384 if prompts else 65536


def over_prompts(
    name: str,
    function: Any,
    params: Any,
    prompts: tuple[np.ndarray, ...],
    others: tuple,
    cost: plan.Cost,
    rows: int,
    sweeps: int = 1,
    **keywords: Any,
) -> Program:
    """A call of ``engine.over_prompts``.

    Args:
        name: for the plan.
        function: jitted, of params, prompts and others.
        params: of the model.
        prompts: arrays [B, ...].
        others: arrays that all prompts share, the config.
        cost: of a prompt.
        rows: positions that a prompt runs at once.
        sweeps: how often this is done.
        **keywords: static arguments of the function.
    """
    mesh = mesh_of(params)
    others = replicate(shapes(others), mesh)
    return Program(
        name,
        function,
        params,
        lambda count: (*split(shapes(prompts, count), mesh), *others),
        len(prompts[0]),
        max(1, positions_at_once(True) // rows),
        cost.flops,
        sweeps,
        keywords,
    )


def last_heads(params: Any, batch: Batch, config: Any, sweeps: int = 1) -> Program:
    """``function_vector.last_heads`` over prompts."""
    length = batch.tokens.shape[1]
    return over_prompts(
        f"head outputs of {length}-token prompts",
        engine.last_heads,
        params,
        (batch.tokens, batch.lengths),
        (config,),
        plan.sequence(config, length),
        length,
        sweeps,
    )


def generate_under_subsets(
    params: Any,
    tokens: np.ndarray,
    lengths: np.ndarray,
    config: Any,
    subsets: int,
    fill: Any,
    max_new_tokens: int,
    sweeps: int = 1,
) -> list[Program]:
    """Calls of ``engine.generate_under_subsets`` with so many subsets."""
    rows, length = tokens.shape
    arguments = replicate(shapes((tokens, lengths)), mesh_of(params))
    one = plan.sequence(config, length) * rows
    shared = _once(
        f"the keys and values of {rows} {length}-token prompts",
        prefill_program,
        params,
        (*arguments, config, ()),
        one,
        sweeps,
    )
    prefix = _outputs(shared)
    step = plan.step(config, length) * (rows * max_new_tokens)
    keeps = _keeps(params, config)
    fill = replicate(shapes(fill), mesh_of(params))
    swept = Program(
        f"subsets on {rows} {length}-token prompts",
        engine.generate_subsets,
        params,
        lambda count: (prefix, keeps(count), fill, config, max_new_tokens),
        subsets,
        max(1, positions_at_once(False) // rows),
        step.flops,
        sweeps,
    )
    return [shared, swept]


def metric_under_subsets(
    params: Any,
    tokens: np.ndarray,
    lengths: np.ndarray,
    targets: np.ndarray,
    config: Any,
    subsets: int,
    fill: Any,
    metric: Metric,
    site: str = "z",
    sweeps: int = 1,
) -> list[Program]:
    """Calls of ``engine.metric_under_subsets`` with so many subsets, [L, H] each."""
    rows, length = tokens.shape
    given = replicate(shapes((tokens, lengths, targets, fill)), mesh_of(params))
    *prompts, targets, fill = given
    shared = _once(
        f"the keys and values of {rows} {length}-token prompts",
        prefill_program,
        params,
        (*prompts, config, ()),
        plan.sequence(config, length) * rows,
        sweeps,
    )
    prefix = _outputs(shared)
    keeps = _keeps(params, config)
    swept = Program(
        f"subsets at {site} on {rows} {length}-token prompts",
        engine.metric_subsets,
        params,
        lambda count: (prefix, keeps(count), fill, targets, config, metric, site),
        subsets,
        max(1, positions_at_once(False) // rows),
        (plan.step(config, length) * rows).flops,
        sweeps,
    )
    return [shared, swept]


def losses_under_subsets(
    params: Any,
    tokens: np.ndarray,
    config: Any,
    subsets: int,
    fill: Any,
    at: np.ndarray,
    metric: Metric = log_probability,
    sweeps: int = 1,
) -> list[Program]:
    """Calls of ``engine.losses_under_subsets`` with so many subsets, at "z"."""
    mesh = mesh_of(params)
    tokens = tokens[:, : int(at.max())]
    rows, length = tokens.shape
    one = plan.sequence(config, length, len(at)) * rows
    shared = _once(
        f"the streams of {rows} {length}-token documents",
        clean_program,
        params,
        (replicate(shapes(tokens), mesh), config, 0),
        one,
        sweeps,
    )
    clean = _outputs(shared)
    keeps = _keeps(params, config)
    fill = shapes(fill)
    if fill is not None and len(fill.shape) == 5 and fill.shape[2] > 1:
        shape = (*fill.shape[:2], length, *fill.shape[3:])
        fill = jax.ShapeDtypeStruct(shape, fill.dtype)
    fill, index, layer = replicate(
        (
            fill,
            jax.ShapeDtypeStruct((rows, len(at)), np.int32),
            jax.ShapeDtypeStruct((), np.int32),
        ),
        mesh,
    )
    swept = Program(
        f"subsets on {rows} {length}-token documents",
        engine.resumed_subsets,
        params,
        lambda count: (
            *(clean, keeps(count), fill, None, index, index, layer),
            *(config, metric, "z"),
        ),
        subsets,
        max(1, positions_at_once(False) // (rows * length)),
        one.flops,
        sweeps,
    )
    return [shared, swept]


def fit_rows(
    programs: Callable[[int], list[Program]], rows: int, budget: int
) -> tuple[int, list[Fit]]:
    """How many prompts share a sweep over subsets: all of them, where they fit.

    Args:
        programs: of a number of prompts.
        rows: of the study.
        budget: bytes on a device.

    Returns:
        Prompts at once, and their programs.
    """
    while True:
        fits = [fit(program, budget) for program in programs(rows)]
        if rows == 1 or max(fitted.bytes for fitted in fits) <= budget:
            return rows, fits
        rows = -(-rows // 2)


def _once(name, function, params, others, cost: plan.Cost, sweeps: int) -> Program:
    """A program that takes all its rows at once."""
    return Program(
        name,
        function,
        params,
        lambda _: others,
        items=1,
        most=1,
        flops=cost.flops,
        sweeps=sweeps,
        split=False,
    )


def _keeps(params, config) -> Callable[[int], Any]:
    """Shape of the keeps [N, L, H] of a chunk."""
    shape = (config.num_layers, config.num_heads)
    return lambda count: split(
        jax.ShapeDtypeStruct((count, *shape), np.float32), mesh_of(params)
    )


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
