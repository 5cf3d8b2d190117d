"""One training step of several runs at once: loss, gradient, update.

Everything has a leading axis N, the runs (seeds), and is written for one of them:
``over_runs`` computes all, as the devices want it (see side_by_side.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxheads.models.forward import forward
from jaxheads.training.config import TrainConfig
from jaxheads.training.objectives import kept_targets, target_losses
from jaxheads.training.side_by_side import SideBySide, over_runs, side_by_side
from jaxheads.training.state import Batch, TrainState, make_optimiser

_NOT_IN_A_STEP = (
    "seed",
    "seeds",
    "eval_every",
    "eval_batches",
    "checkpoints",
    "keep_last",
    "dense_every",
    "dense_by",
    "dense_change",
    "dense_window",
    "resume_every",
)


@struct.dataclass
class Metrics:
    """What a step says of each run."""

    loss: jax.Array  # [N], the objective's, before the update
    all_loss: jax.Array  # [N], mean over all scored targets, nats
    dropped: jax.Array  # [N], share of scored targets that the objective drops
    gradient_norm: jax.Array | None = None  # [N], before it is limited


def make_step(
    config: TrainConfig,
    model_config: Any,
    embedding: jax.Array | None = None,
    how: SideBySide | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The update of all runs, compiled once a process; it takes the state's memory.

    Runs that differ in their seeds alone, or in when they are looked at, share it.

    Args:
        config: of the run.
        model_config: the family's ``Config``.
        embedding: [V, D] that "hapax-thresholded" compares; None: each run's own, as it
            is at that step.
        how: the runs are computed; None: see ``side_by_side``.
    """
    config = _of_a_step(config)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        compiled = _step(config, model_config, how or side_by_side(state.params))
        return compiled(state, batch, embedding)

    return step


def _of_a_step(config: TrainConfig) -> TrainConfig:
    """A config with the defaults of what does not enter a step: one of many runs."""
    default = TrainConfig()
    return dataclasses.replace(
        config, **{name: getattr(default, name) for name in _NOT_IN_A_STEP}
    )


@functools.lru_cache(maxsize=16)
def _step(config: TrainConfig, model_config: Any, how: SideBySide) -> Callable:
    optimiser = make_optimiser(config, model_config)

    def update(
        state: TrainState, batch: Batch, embedding: jax.Array | None
    ) -> tuple[TrainState, Metrics]:
        gradient, metrics = loss_gradient(
            state.params, batch, config, model_config, embedding
        )
        norm = optax.tree.norm(gradient)
        metrics = dataclasses.replace(metrics, gradient_norm=norm)
        change, changed = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, change)
        return TrainState(params, changed), metrics

    def all_runs(state: TrainState, batch: Batch, embedding: jax.Array | None):
        return over_runs(update, how)(state, batch, shared=(embedding,))

    return jax.jit(all_runs, donate_argnums=0)


def make_evaluation(
    config: TrainConfig, model_config: Any, embedding: jax.Array | None = None
) -> Callable[[Any, Batch], Metrics]:
    """Metrics of a batch without an update, compiled; see ``make_step``."""
    config = _of_a_step(config)

    def evaluate(params: Any, batch: Batch) -> Metrics:
        compiled = _evaluation(config, model_config, side_by_side(params))
        return compiled(params, batch, embedding)

    return evaluate


@functools.lru_cache(maxsize=16)
def _evaluation(config: TrainConfig, model_config: Any, how: SideBySide) -> Callable:
    def evaluate(params: Any, batch: Batch, embedding: jax.Array | None) -> Metrics:
        return _metrics(_sums(params, batch, config, model_config, embedding), config)

    def all_runs(params: Any, batch: Batch, embedding: jax.Array | None) -> Metrics:
        return over_runs(evaluate, how)(params, batch, shared=(embedding,))

    return jax.jit(all_runs)


def loss_gradient(
    params: Any,
    batch: Batch,
    config: TrainConfig,
    model_config: Any,
    embedding: jax.Array | None = None,
) -> tuple[Any, Metrics]:
    """Gradient of one run's loss and its metrics; no axis N.

    With ``accumulate`` the batch is computed in parts; sums and counts are added and
    divided once, so that the gradient is that of the whole batch.
    """

    def objective(params: Any, part: Batch) -> tuple[jax.Array, dict]:
        sums = _sums(params, part, config, model_config, embedding)
        return sums["loss"], sums

    part_gradient = jax.grad(objective, has_aux=True)
    if config.accumulate == 1:
        gradient, sums = part_gradient(params, batch)
    else:

        def add(total, part):
            return jax.tree.map(jnp.add, total, part_gradient(params, part)), None

        size = config.batch_size // config.accumulate
        # Part i takes windows i, i + A, ...: each device of a mesh has some of them.
        parts = jax.tree.map(
            lambda x: jnp.swapaxes(x.reshape(size, -1, *x.shape[1:]), 0, 1), batch
        )
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(part_gradient, params, first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (gradient, sums), _ = jax.lax.scan(add, zeros, parts)
    count = _count(sums, config)
    gradient = jax.tree.map(lambda x: x / count.astype(x.dtype), gradient)
    return gradient, _metrics(sums, config)


def _sums(
    params: Any,
    batch: Batch,
    config: TrainConfig,
    model_config: Any,
    embedding: jax.Array | None,
) -> dict[str, jax.Array]:
    """Sums over a batch, or a part of one, that its loss and metrics are made of."""
    if embedding is None:
        embedding = params.embedding
    kept = kept_targets(
        config.objective,
        batch.tokens,
        batch.segments,
        batch.scored,
        embedding,
        config.threshold,
    )
    narrow = params
    if config.dtype != "float32":
        narrow = jax.tree.map(lambda leaf: leaf.astype(config.dtype), params)
    out = forward(
        narrow,
        batch.tokens[:, :-1],
        model_config,
        rematerialise=config.rematerialise,
        segments=None if batch.segments is None else batch.segments[:, :-1],
    )
    losses, normaliser = target_losses(out.logits, batch.tokens[:, 1:])
    weighed = losses
    if config.z_loss:
        weighed = losses + config.z_loss * jnp.square(normaliser)
    return {
        "loss": jnp.where(kept, weighed, 0).sum(),
        "all_loss": jnp.where(batch.scored, losses, 0).sum(),
        "kept": kept.sum(),
        "scored": batch.scored.sum(),
    }


def _count(sums: dict[str, jax.Array], config: TrainConfig) -> jax.Array:
    """What the summed loss is divided by; a batch that keeps nothing has loss 0."""
    return jnp.maximum(sums["kept" if config.divide_by == "kept" else "scored"], 1)


def _metrics(sums: dict[str, jax.Array], config: TrainConfig) -> Metrics:
    scored = jnp.maximum(sums["scored"], 1)
    return Metrics(
        loss=sums["loss"] / _count(sums, config),
        all_loss=sums["all_loss"] / scored,
        dropped=1 - sums["kept"] / scored,
    )
