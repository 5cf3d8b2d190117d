"""Where params lie on several devices, from the abstract tree's logical axes."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxheads.models.parameters import Leaf, is_leaf

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
