"""Several runs of one computation: vmapped, or one after the other on a CPU's cores.

Arrays have a leading axis N, the runs (seeds). How it is computed is decided in one
place, ``side_by_side``, by where the params lie.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from jaxheads.engine.devices import mesh_of


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """How runs side by side are computed; static under jit.

    Attributes:
        in_turn: whether a device computes its runs one after the other, in one program;
            else they are vmapped.
        mesh: of runs in turn: whose "data" axis they are split over; None: one device.
    """

    in_turn: bool = False
    mesh: Mesh | None = None


def side_by_side(params: Any) -> SideBySide:
    """How runs are computed where their params lie: in turn on CPUs, else vmapped.

    The activations of several vmapped runs leave a CPU's cache, and every operation
    waits for all cores; runs in turn take one run's memory again and again, and each
    CPU device of a mesh has runs of its own (``benchmarks/training.py`` measures both).
    An accelerator needs the vmapped size to be busy.
    """
    leaf = jax.tree.leaves(params)[0]
    devices = leaf.devices() if isinstance(leaf, jax.Array) else jax.devices()
    if next(iter(devices)).platform != "cpu":
        return SideBySide()
    mesh = mesh_of(params)
    split = mesh is not None and "data" in mesh.shape
    return SideBySide(True, mesh if split else None)


def over_runs(one: Callable, how: SideBySide = SideBySide()) -> Callable:
    """A function of one run's arguments, for leaves with the axis N of runs.

    Args:
        one: called with one run's part of the arguments, then with those that all runs
            share.
        how: the runs are computed, see ``side_by_side``; a single run is computed
            without the axis.

    Returns:
        Function of the arguments with the axis N, and of ``shared``.
    """

    def vmapped(arguments: tuple, shared: tuple):
        return jax.vmap(lambda *part: one(*part, *shared))(*arguments)

    def in_turn(arguments: tuple, shared: tuple):
        if _number(arguments) == 1:
            alone = jax.tree.map(lambda x: x[0], arguments)
            return jax.tree.map(lambda x: x[None], one(*alone, *shared))
        return jax.lax.map(lambda part: one(*part, *shared), arguments)

    def run(*arguments, shared: tuple = ()):
        several = _number(arguments) > 1
        if several and not how.in_turn:
            return vmapped(arguments, shared)
        if not several or how.mesh is None:
            return in_turn(arguments, shared)
        # Each device loops over its own runs; the axis "model" stays the compiler's.
        runs = PartitionSpec("data")
        return jax.shard_map(
            in_turn,
            mesh=how.mesh,
            in_specs=(runs, PartitionSpec()),
            out_specs=runs,
            axis_names={"data"},
            check_vma=False,  # runs have nothing to tell each other
        )(arguments, shared)

    return run


def _number(arguments: tuple) -> int:
    """Of runs, N."""
    return jax.tree.leaves(arguments)[0].shape[0]
