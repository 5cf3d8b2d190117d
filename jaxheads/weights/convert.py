"""Checkpoint tensors into a family's params and back, by the family's table.

The checker is loud: each tensor is used once or ignored for a stated reason, every
shape equals the abstract tree's, and all that does not fit comes in one error.
"""

import dataclasses
import hashlib
import re
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.errors import UserError
from jaxheads.models.parameters import Leaf, is_leaf
from jaxheads.weights.checkpoint import StoredTensor
from jaxheads.weights.reshape import Reshape

MOST_NAMED = 12
"""Problems that an error spells out; of the others it gives the number."""


Tensors = Mapping[str, np.ndarray] | Mapping[str, StoredTensor]
"""Tensors by name, in memory or in a file; ``np.asarray`` reads either."""


@dataclasses.dataclass(frozen=True)
class _Target:
    """A leaf of the params and the tensors that fill it, one or one a layer."""

    path: str
    leaf: Leaf
    names: list[str]
    stacked: bool
    reshape: Reshape


def to_params(
    tensors: Tensors,
    family: ModuleType,
    config: Any,
    layout: str,
    dtype: str = "float32",
    source: str = "the checkpoint",
) -> Any:
    """Build a family's params from named tensors.

    One leaf is assembled at a time, so the peak is the params and one leaf.

    Args:
        tensors: by name; they are read one by one and may be lazy.
        family: module of the family, from ``jaxheads.models.family``.
        config: the family's ``Config``.
        layout: "hf" or "gguf", the table that names the tensors.
        dtype: of every leaf.
        source: what messages call the checkpoint.

    Returns:
        The family's ``Params``.

    Raises:
        UserError: tensors are missing, unexpected or of a wrong shape; all are named.
    """
    dims = config.dims()
    targets, treedef = _targets(family, config, layout)
    problems = _problems(tensors, targets, family.IGNORED, dims)
    if problems:
        listed = "; ".join(problems[:MOST_NAMED])
        if len(problems) > MOST_NAMED:
            listed += f"; and {len(problems) - MOST_NAMED} more"
        raise UserError(
            f"{source} must hold exactly the tensors of the {config.model_type} model "
            f"that its config describes, but {listed}: check that config and weights "
            "belong together and are complete"
        )
    not_finite: list[str] = []
    leaves = [_fill(target, tensors, dims, dtype, not_finite) for target in targets]
    if not_finite:
        shown = ", ".join(not_finite[:MOST_NAMED])
        if len(not_finite) > MOST_NAMED:
            shown += f" and {len(not_finite) - MOST_NAMED} more"
        warnings.warn(
            f"{source} has NaN or infinite weights as {dtype}: {shown}", stacklevel=2
        )
    return jax.tree.unflatten(treedef, leaves)


def from_params(
    params: Any, family: ModuleType, config: Any, layout: str
) -> dict[str, np.ndarray]:
    """Name and reshape the params as a checkpoint does: the inverse of ``to_params``.

    Args:
        params: the family's ``Params``.
        family: module of the family.
        config: the family's ``Config``.
        layout: "hf" or "gguf".

    Returns:
        Arrays by tensor name, in the params' dtype.
    """
    dims = config.dims()
    targets, _ = _targets(family, config, layout)
    named = {}
    for target, leaf in zip(targets, jax.tree.leaves(params), strict=True):
        values = np.asarray(leaf)
        inverse = target.reshape.inverse()
        for name, layer in zip(
            target.names, values if target.stacked else [values], strict=True
        ):
            named[name] = np.ascontiguousarray(inverse.apply(layer, dims))
    return named


def params_sha256(params: Any) -> str:
    """SHA-256 over every leaf's path, dtype, shape and bytes, in order of the paths."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    digest = hashlib.sha256()
    for path, leaf in sorted((_dotted(path), leaf) for path, leaf in leaves):
        values = np.asarray(leaf)
        digest.update(f"{path} {values.dtype.name} {list(values.shape)}\n".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _targets(family: ModuleType, config: Any, layout: str) -> tuple[list[_Target], Any]:
    """The family's table, joined with its abstract tree; a mismatch is a bug there."""
    dims, table = config.dims(), family.TENSORS[layout]
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        family.abstract(config), is_leaf=is_leaf
    )
    targets = []
    for keys, leaf in leaves:
        path = _dotted(keys)
        if path not in table:
            raise ValueError(f"TENSORS[{layout!r}] of {family.__name__} lacks {path!r}")
        template, spec = table[path]
        stacked, reshape = "{l}" in template, Reshape.parse(spec)
        if reshape.target_shape(dims) != leaf.shape[stacked:]:
            raise ValueError(
                f"TENSORS[{layout!r}][{path!r}] of {family.__name__} gives shape "
                f"{reshape.target_shape(dims)}, but the leaf has {leaf.shape[stacked:]}"
            )
        layers = range(leaf.shape[0]) if stacked else [None]
        names = [template.format(l=layer) for layer in layers]
        targets.append(_Target(path, leaf, names, stacked, reshape))
    return targets, treedef


def _problems(
    tensors: Tensors,
    targets: list[_Target],
    ignored: Mapping[str, str],
    dims: Mapping[str, int],
) -> list[str]:
    """What does not fit, one clause a tensor: wrong shapes, missing, unexpected."""
    wrong, missing, left = [], [], dict.fromkeys(tensors)
    for target in targets:
        expected = target.reshape.source_shape(dims)
        for name in target.names:
            left.pop(name, None)
            if name not in tensors:
                missing.append(f"{name!r} is missing")
            elif tuple(tensors[name].shape) != expected:
                wrong.append(
                    f"{name!r} has shape {list(tensors[name].shape)} instead of "
                    f"{list(expected)}"
                )
    unexpected = [
        f"{name!r} is unexpected"
        for name in left
        if not any(re.fullmatch(pattern, name) for pattern in ignored)
    ]
    return wrong + missing + unexpected


def _fill(
    target: _Target,
    tensors: Tensors,
    dims: Mapping[str, int],
    dtype: str,
    not_finite: list[str],
) -> jax.Array:
    """Assemble one leaf; names with NaN or infinity after the cast are appended."""
    values = np.empty(target.leaf.shape, jnp.dtype(dtype))
    for index, name in enumerate(target.names):
        part = values[index] if target.stacked else values
        with np.errstate(over="ignore", invalid="ignore"):  # told as not finite below
            part[...] = target.reshape.apply(np.asarray(tensors[name]), dims)
        if not np.isfinite(part).all():
            not_finite.append(name)
    return jnp.asarray(values)


def _dotted(keys: tuple[Any, ...]) -> str:
    """A key path of jax as "layers.wq"."""
    return jax.tree_util.keystr(keys, simple=True, separator=".")
