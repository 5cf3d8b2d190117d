"""What a training step works on: its state, its batch, and where they lie.

Everything has a leading axis N, the runs (seeds) side by side.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxheads.engine.devices import data_parts, mesh_of, shardings
from jaxheads.models import family
from jaxheads.models.parameters import Leaf, is_leaf
from jaxheads.training.config import TrainConfig
from jaxheads.training.data.windows import Windows


def make_optimiser(
    config: TrainConfig, model_config: Any
) -> optax.GradientTransformation:
    """The optimiser of a run.

    Args:
        config: of the run.
        model_config: the family's ``Config``.

    Returns:
        Gradients of a run's params to what is added to them.
    """
    adamw = optax.adamw(
        config.learning_rate_at,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed(config, model_config),
    )
    if not config.clip:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.clip), adamw)


def decayed(config: TrainConfig, model_config: Any) -> Any:
    """Which params decay: a tree of bools in the shape of the params.

    Matrices do, and embeddings of tokens and positions if asked; norms, biases and the
    few numbers that mix keys do not.
    """

    def decays(leaf: Leaf) -> bool:
        looked_up = leaf.axes[0] in ("vocabulary", "positions")
        return leaf.init == "normal" and (config.decay_embeddings or not looked_up)

    abstract = family(model_config.model_type).abstract(model_config)
    return jax.tree.map(decays, abstract, is_leaf=is_leaf)


@struct.dataclass
class TrainState:
    """What a step changes."""

    params: Any  # the family's Params, leaves [N, ...], float32
    optimiser: Any  # optax's state of each run


@struct.dataclass
class Batch:
    """Windows of T + 1 tokens for every run."""

    tokens: jax.Array  # int [N, B, T + 1]
    segments: jax.Array | None  # int [N, B, T + 1], documents; None: one a window
    scored: jax.Array  # bool [N, B, T], targets that count at all


def init_state(
    config: TrainConfig, model_config: Any, mesh: Mesh | None = None
) -> TrainState:
    """Random params of each seed, and the optimiser's zeros.

    Args:
        config: of the run.
        model_config: the family's ``Config``.
        mesh: where they lie, see ``state_shardings``; None: the default device.
    """
    abstract = family(model_config.model_type).abstract(model_config)
    drawn = [initial_params(abstract, seed) for seed in config.seed_numbers()]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
    init = jax.vmap(make_optimiser(config, model_config).init)
    if mesh is None:
        params = jax.tree.map(jnp.asarray, params)
        return TrainState(params, jax.jit(init)(params))
    places = state_shardings(config, model_config, mesh)
    params = jax.tree.map(_place, params, places.params)
    return TrainState(params, jax.jit(init, out_shardings=places.optimiser)(params))


def abstract_state(
    config: TrainConfig, model_config: Any, mesh: Mesh | None = None
) -> TrainState:
    """Shapes of a state, and where it lies; see ``init_state``."""
    abstract = family(model_config.model_type).abstract(model_config)
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((config.seeds, *leaf.shape), np.float32),
        abstract,
        is_leaf=is_leaf,
    )
    init = jax.vmap(make_optimiser(config, model_config).init)
    state = TrainState(params, jax.eval_shape(init, params))
    if mesh is None:
        return state
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        state,
        state_shardings(config, model_config, mesh),
    )


def initial_params(abstract: Any, seed: int) -> Any:
    """Random params of a model that is to be trained, as ``init_params`` makes them.

    Drawn by numpy: the same on every device, and without a program for every shape.

    Args:
        abstract: tree of ``Leaf``, from a family's ``abstract(config)``.
        seed: of the draws.

    Returns:
        The same tree with float32 host arrays: normal leaves have standard deviation
        ``1 / sqrt(fan_in)``.
    """
    rng = np.random.default_rng([seed, 0x6A68])

    def make(leaf: Leaf) -> np.ndarray:
        if leaf.init == "normal":
            values = rng.standard_normal(leaf.shape, np.float32)
            return values * np.float32(1 / math.sqrt(leaf.fan_in))
        if leaf.init == "convex":
            share = rng.random(leaf.shape[:-1], np.float32)
            return np.stack([share, 1 - share], axis=-1)
        return np.full(leaf.shape, {"ones": 1, "zeros": 0}[leaf.init], np.float32)

    return jax.tree.map(make, abstract, is_leaf=is_leaf)


def state_shardings(config: TrainConfig, model_config: Any, mesh: Mesh) -> TrainState:
    """Where a state lies: seeds over "data" if there are several, params over "model".

    The data axis takes the windows of a batch if there is one seed.
    """
    abstract = family(model_config.model_type).abstract(model_config)
    seeds = _seed_axis(config, mesh)

    def with_seeds(place: NamedSharding) -> NamedSharding:
        return NamedSharding(place.mesh, PartitionSpec(seeds, *place.spec))

    params = jax.tree.map(with_seeds, shardings(abstract, mesh))
    shapes = abstract_state(config, model_config)
    rest = NamedSharding(mesh, PartitionSpec(seeds))
    optimiser = optax.tree.map_params(
        make_optimiser(config, model_config),
        lambda _, place: place,
        shapes.optimiser,
        params,
        transform_non_params=lambda _: rest,
    )
    return TrainState(params, optimiser)


def params_of_each(params: Any) -> list[Any]:
    """The params of each run, without the axis N.

    Those of runs that lie on several devices come to the default one: taken from the
    whole, every device would hold them, and compute what they are used for.

    Args:
        params: leaves [N, ...].
    """
    mesh = mesh_of(params)
    if mesh is not None and data_parts(mesh) == mesh.size:
        params = jax.device_get(params)
    count = jax.tree.leaves(params)[0].shape[0]
    return [
        jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), params) for i in range(count)
    ]


def place_batch(batch: Batch, config: TrainConfig, mesh: Mesh | None) -> Batch:
    """A batch of host arrays on the devices: seeds, or windows, over "data"."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, batch)
    seeds = _seed_axis(config, mesh)
    spec = PartitionSpec(seeds) if seeds else PartitionSpec(None, _data_axis(mesh))
    return jax.tree.map(lambda x: _place(x, NamedSharding(mesh, spec)), batch)


def _place(values: np.ndarray, place: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(values.shape, place, values.__getitem__)


def _data_axis(mesh: Mesh) -> str | None:
    return "data" if "data" in mesh.shape else None


def _seed_axis(config: TrainConfig, mesh: Mesh) -> str | None:
    """The mesh axis that seeds are split over."""
    return _data_axis(mesh) if config.seeds > 1 else None


def stack(windows: list[Windows]) -> Batch:
    """The windows of each run as one batch of host arrays [N, B, ...]."""
    segments = [w.segments for w in windows if w.segments is not None]
    return Batch(
        tokens=np.stack([w.tokens for w in windows]),  # type: ignore[arg-type]
        segments=np.stack(segments) if segments else None,  # type: ignore[arg-type]
        scored=np.stack([w.scored for w in windows]),  # type: ignore[arg-type]
    )
