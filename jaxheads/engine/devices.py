"""Several devices and processes: the mesh, what lies where, and getting it back.

Prompts and subsets are split over the mesh's "data" axis, params over "model" (see
``shardings``). Models never mention devices: where the params lie decides where a run
does, and the compiler does the rest. Several processes run the same program, each
on its own devices (``jax.distributed``).
"""

import contextlib
import importlib.metadata
import math
import os
import platform
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxheads.errors import UserError
from jaxheads.models.parameters import Leaf, is_leaf

AXES = ("data", "model")


def all_devices() -> list[Any]:
    """The devices of all processes.

    Raises:
        UserError: JAX cannot start on the platform that it is told to use.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter without CUDA
        asked: str = jax.config.jax_platforms or "the default"  # type: ignore[attr-defined]
        why = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise UserError(
            f"JAX must be able to start on the platform {asked}, but cannot{why}: "
            "install what it needs (pip install 'jaxheads[cuda]', 'jaxheads[tpu]'), or "
            "set JAX_PLATFORMS=cpu"
        ) from error


def make_mesh(spec: str | None = None) -> Mesh | None:
    """A mesh over the devices of all processes.

    Args:
        spec: sizes of the axes, as "data=4,model=2", "4x2", or "4" for data alone.
            None: all devices on "data" where there are several accelerators or
            processes, else no mesh.

    Returns:
        Mesh with the axes "data" and "model"; None: the default device alone.

    Raises:
        UserError: the spec cannot be read, or does not fit the devices.
    """
    devices = all_devices()
    if spec is None:
        if len(devices) == 1:
            return None
        if devices[0].platform == "cpu" and jax.process_count() == 1:
            return None
        sizes = (len(devices), 1)
    else:
        sizes = _sizes(spec)
    count = math.prod(sizes)
    # Every process must take part: a mesh over some of its devices leaves others idle.
    if count > len(devices) or (jax.process_count() > 1 and count < len(devices)):
        raise UserError(
            f"--mesh {spec} takes {count} devices, but there are {len(devices)}: give "
            f"sizes whose product is {len(devices)}"
        )
    # Automatic axes: the compiler places what the models compute, models never ask.
    return Mesh(
        np.array(devices[:count]).reshape(sizes),
        AXES,
        axis_types=(AxisType.Auto,) * len(AXES),
    )


def make_seed_mesh(spec: str | None, seeds: int) -> Mesh | None:
    """A mesh for the training of several seeds: on a CPU, a device for each core.

    Operations of a small model are too short to be divided among cores; seeds are not.
    JAX makes one device of a CPU unless told otherwise before it starts, so this must
    come before anything is computed: later, the devices that there are must do.

    Args:
        spec: as of ``make_mesh``; None: on a CPU as many devices as there are cores, at
            most, that the seeds can be divided among; else as ``make_mesh`` has it.
        seeds: N.

    Returns:
        As ``make_mesh`` does.
    """
    if spec is not None or seeds == 1:
        return make_mesh(spec)
    cores = _cores()
    told = "--xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    asked: int = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    if not told and asked < 0:
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", cores)
    devices = all_devices()
    if devices[0].platform != "cpu" or jax.process_count() > 1:
        return make_mesh(None)
    most = min(cores, len(devices))
    parts = max(count for count in range(1, most + 1) if seeds % count == 0)
    return make_mesh(str(parts)) if parts > 1 else None


def _cores() -> int:
    """That this process may use, where the system tells; else all."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _sizes(spec: str) -> tuple[int, int]:
    """Sizes of "data" and "model"."""
    if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", spec):
        data, _, model = spec.partition("x")
        return int(data), int(model or 1)
    named = dict(re.findall(r"(data|model)=([1-9]\d*)", spec))
    if named and ",".join(f"{axis}={size}" for axis, size in named.items()) == spec:
        return int(named.get("data", 1)), int(named.get("model", 1))
    raise UserError(
        f"--mesh takes sizes such as data=4,model=2 or 4x2, not {spec!r}: subsets and "
        "prompts are split over data, params over model"
    )


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that params lie on; None: one device."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) else None


def data_parts(mesh: Mesh | None) -> int:
    """Into how many parts prompts and subsets are split."""
    return 1 if mesh is None else mesh.shape.get("data", 1)


def split(tree: Any, mesh: Mesh | None, axis: int = 0) -> Any:
    """Place arrays with one axis split over "data".

    Args:
        tree: host arrays, alike on every process, or ``jax.ShapeDtypeStruct``; the
            axis' length must be a multiple of ``data_parts(mesh)``.
        mesh: of the params; None leaves everything as it is.
        axis: which is split.

    Returns:
        The same tree on the mesh.
    """
    if mesh is None or "data" not in mesh.shape:
        return replicate(tree, mesh)
    return _place(tree, NamedSharding(mesh, PartitionSpec(*[None] * axis, "data")))


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Place arrays whole on every device; see ``split``."""
    return tree if mesh is None else _place(tree, NamedSharding(mesh, PartitionSpec()))


def _place(tree: Any, sharding: NamedSharding) -> Any:
    def place(leaf):
        if not hasattr(leaf, "dtype"):  # a static argument
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        if not isinstance(leaf, np.ndarray):
            return jax.device_put(leaf, sharding)
        # Each process gives its own devices' part and talks to no other.
        leaf = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
        return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)

    return jax.tree.map(place, tree)


def gather(tree: Any) -> Any:
    """Results as whole numpy arrays, on every process."""

    def whole(leaf) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


def of_first_process(value: float) -> float:
    """The first process' value, on every process; float32 where there are several."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.broadcast_one_to_all(np.float32(value)))


MODEL_AXES = ("heads", "kv_heads", "mlp", "vocabulary")
"""Logical axes of params that are split over the mesh's "model" axis."""


def shardings(abstract: Any, mesh: Mesh) -> Any:
    """The sharding of every parameter.

    The first of ``MODEL_AXES`` that "model" divides is split over it; params are whole
    along "data", whose devices each take their share of prompts or subsets.

    Args:
        abstract: tree of ``Leaf``, from a family's ``abstract(config)``.
        mesh: with an axis "model", or none; other axes are not used.

    Returns:
        The same tree with ``NamedSharding``.

    Raises:
        ValueError: the mesh has neither "data" nor "model".
    """
    if not {"data", "model"} & set(mesh.axis_names):
        raise ValueError(
            'a mesh must have the axes "data" and "model", or one of them, but has '
            f"{mesh.axis_names}"
        )
    # Automatic axes: the compiler places what the models compute, models never ask.
    names = mesh.axis_names
    mesh = Mesh(mesh.devices, names, axis_types=(AxisType.Auto,) * len(names))
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, _spec(leaf, mesh)), abstract, is_leaf=is_leaf
    )


def _spec(leaf: Leaf, mesh: Mesh) -> PartitionSpec:
    parts = mesh.shape.get("model", 1)
    for index, (axis, size) in enumerate(zip(leaf.axes, leaf.shape, strict=True)):
        if axis in MODEL_AXES and size % parts == 0:
            return PartitionSpec(*[None] * index, "model")
    return PartitionSpec()


VERSIONS = ("jaxheads", "jax", "jaxlib", "numpy")


def machine() -> dict[str, Any]:
    """What a result says of the program and the machine."""
    device = jax.devices()[0]
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    return {
        "versions": versions | {"python": platform.python_version()},
        "device": {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
            "processor": platform.machine(),
        },
    }
