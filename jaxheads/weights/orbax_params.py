"""Params in an Orbax checkpoint.

Orbax takes a third of a second to import and is loaded when it is needed. Neither it
nor TensorStore has an exception of its own: what these functions raise may be anything.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from jaxheads.weights.digest import dotted

_CHUNK_BYTES = 64 * 2**20
"""Of what is read at once: a shard needs no whole leaf, and a cast little room."""


def save_params(path: Path, params: Any) -> None:
    """Write params into a new folder."""
    import orbax.checkpoint as ocp

    chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), params)
    # Floats hardly shrink, and unpacking takes several times as long as reading.
    handler = ocp.PyTreeCheckpointHandler(use_compression=False)
    with ocp.Checkpointer(handler) as checkpointer:
        arguments = ocp.args.PyTreeSave(params, save_args=chunks)
        checkpointer.save(path.absolute(), args=arguments)


def restore_params(path: Path, target: Any) -> Any:
    """Read params, each straight to its dtype and place.

    A leaf that is None may be absent on the disk: families gain optional leaves.

    Args:
        path: the folder.
        target: the tree of params as ``jax.ShapeDtypeStruct`` with shardings.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(target)
    wanted = {dotted(at): leaf for at, leaf in leaves}
    with ThreadPoolExecutor(1, "restore") as reader:
        # Ctrl-C comes to the main thread: the reading ends whole, without a traceback.
        read = reader.submit(_restore, path, wanted).result()
    found = {dotted(at): x for at, x in jax.tree_util.tree_leaves_with_path(read)}
    return structure.unflatten(found[name] for name in wanted)


def _restore(path: Path, wanted: dict[str, Any]) -> Any:
    """The tree as it is stored, of what is wanted by path."""
    import orbax.checkpoint as ocp

    # Leaves are read side by side: a GB at a time, or what the largest needs; stored
    # values have four bytes at most.
    largest = 4 * max(math.prod(leaf.shape) for leaf in wanted.values())
    limit = 1 + largest // 10**9
    with ocp.StandardCheckpointer(restore_concurrent_gb=limit) as checkpointer:
        stored = _stored_tree(checkpointer, path)
        as_stored = jax.tree_util.tree_map_with_path(
            lambda at, _: wanted[dotted(at)], stored, is_leaf=_has_shape
        )
        return checkpointer.restore(path.absolute(), as_stored)


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the params in a folder, by path; no values are read."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        return shapes(_stored_tree(checkpointer, path))


def _stored_tree(checkpointer: Any, path: Path) -> Any:
    """The tree on the disk, with the shape of each leaf."""
    return checkpointer.metadata(path.absolute()).item_metadata.tree


def _has_shape(node: Any) -> bool:
    return hasattr(node, "shape")


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of whatever has one in a tree, by path such as "layers.wq"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_has_shape)
    return {dotted(path): tuple(leaf.shape) for path, leaf in leaves}
