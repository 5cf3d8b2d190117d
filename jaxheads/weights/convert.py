"""Checkpoint tensors into a family's params and back, by the family's table.

The checker is loud: each tensor is used once or ignored for a stated reason, every
shape equals the abstract tree's, and all that does not fit comes in one error.
"""

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxheads import stops
from jaxheads.errors import UserError
from jaxheads.models.parameters import Leaf, is_leaf
from jaxheads.sharding import shardings
from jaxheads.weights.checkpoint import (
    MOST_NAMED,
    StoredTensor,
    listed,
    quoted,
    warn_of_not_finite,
)
from jaxheads.weights.copying import aligned_empty, copy_into
from jaxheads.weights.digest import ParamsDigest, dotted
from jaxheads.weights.reshape import Reshape

_READERS = 4
"""Pieces that are copied at a time."""

_PIECE_BYTES = 16 * 2**20
"""Of a tensor, in float32, that is read before it is copied to its place."""

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
    part: int | None
    """Of a tensor that holds several leaves: which, along the target's first axis."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """How a checkpoint's tensors fit a model, found without reading their values.

    Attributes:
        consumed: names that fill the params.
        ignored: names that are left over for a reason, with the reason.
        problems: a clause each: wrong shapes and kinds, missing, unexpected.
    """

    consumed: list[str]
    ignored: dict[str, str]
    problems: list[str]


def survey(tensors: Tensors, family: ModuleType, config: Any, layout: str) -> Survey:
    """Compare a checkpoint's tensors with a family's table and abstract tree.

    Args:
        tensors: by name; only shapes and kinds are looked at.
        family: module of the family, from ``jaxheads.models.family``.
        config: the family's ``Config``.
        layout: "hf" or "gguf", the table that names the tensors.
    """
    targets, _ = _targets(family, config, layout, tensors)
    return _survey(tensors, targets, family, config.dims())


def with_stored_head(
    tensors: Tensors, family: ModuleType, config: Any, source: str
) -> Any:
    """The config, no longer tied where a head is stored that is not the embedding.

    A checkpoint on the hub may hold the tied matrix twice, or say that it is tied and
    be wrong: as in transformers, the values tell. They are read in pieces.

    Args:
        tensors: by the hub's names.
        family: module of the family.
        config: the family's ``Config``.
        source: what the warning calls the checkpoint.
    """
    if not getattr(config, "tied", False):
        return config
    embedding, head = _matrices(family, tensors)
    if not {embedding, head} <= tensors.keys():
        return config
    if _equal(tensors[embedding], tensors[head]):
        return config
    warnings.warn(
        f"{source} is tied by its config, but its {head!r} is not its {embedding!r}: "
        "both are used, as transformers does",
        stacklevel=2,
    )
    return dataclasses.replace(config, tied=False)


def _matrices(family: ModuleType, tensors: Tensors) -> tuple[str, str]:
    """The hub's names of the embedding and of the head, as these tensors have them."""
    table, bare = family.TENSORS["hf"], _is_bare(family, tensors)
    names = (table[path][0] for path in ("embedding", "unembedding"))
    embedding, head = (n.removeprefix(family.PREFIX) if bare else n for n in names)
    return embedding, head


def _is_bare(family: ModuleType, tensors: Tensors) -> bool:
    """Whether no tensor's name has the family's prefix."""
    return not any(name.startswith(family.PREFIX) for name in tensors)


def _equal(one: np.ndarray | StoredTensor, other: np.ndarray | StoredTensor) -> bool:
    """Whether two tensors are of one shape and hold the same floats."""
    if tuple(one.shape) != tuple(other.shape) or _no_float(one) or _no_float(other):
        return False
    step = max(1, _PIECE_BYTES // max(1, 4 * math.prod(one.shape[1:])))
    for start in range(0, one.shape[0], step):
        parts = [_rows(tensor, start, start + step) for tensor in (one, other)]
        if parts[0].dtype != parts[1].dtype:
            parts = [part.astype(np.float64) for part in parts]
        if not np.array_equal(*parts, equal_nan=True):
            return False
        for tensor in (one, other):
            if isinstance(tensor, StoredTensor):
                tensor.release()
    return True


def _rows(tensor: np.ndarray | StoredTensor, first: int, last: int) -> np.ndarray:
    if isinstance(tensor, StoredTensor):
        return tensor.rows(first, last)
    return tensor[first:last]


def to_params(
    tensors: Tensors,
    family: ModuleType,
    config: Any,
    layout: str,
    dtype: str = "float32",
    source: str = "the checkpoint",
    mesh: Mesh | None = None,
    digest: ParamsDigest | None = None,
) -> Any:
    """Build a family's params from named tensors.

    One leaf is assembled at a time, so the peak is the params and one leaf; on the CPU
    the leaf becomes the parameter without a copy.

    Args:
        tensors: by name; they are read one by one and may be lazy.
        family: module of the family, from ``jaxheads.models.family``.
        config: the family's ``Config``.
        layout: "hf" or "gguf", the table that names the tensors.
        dtype: of every leaf.
        source: what messages call the checkpoint.
        mesh: of devices that the params are placed over, see ``jaxheads.sharding``;
            None: the default device.
        digest: is given each finished leaf, to hash it while the next one is read.

    Returns:
        The family's ``Params``.

    Raises:
        UserError: tensors are missing, unexpected or of a wrong shape; all are named.
    """
    dims = config.dims()
    targets, treedef = _targets(family, config, layout, tensors)
    problems = _survey(tensors, targets, family, dims).problems
    if problems:
        raise UserError(
            f"{source} must hold exactly the tensors of the {config.model_type} model "
            f"that its config describes, but {listed(problems)}: check that "
            "config and weights belong together and are complete"
        )
    places = [None] * len(targets)
    if mesh is not None:
        places = jax.tree.leaves(shardings(family.abstract(config), mesh))
    not_finite: list[str] = []
    leaves = []
    with ThreadPoolExecutor(_READERS) as pool:
        for target, place in zip(targets, places, strict=True):
            stops.check()
            values = _fill(target, tensors, dims, dtype, not_finite, pool)
            if digest is not None:
                digest.add(target.path, values)
            leaves.append(_place(values, place))
    warn_of_not_finite(source, dtype, not_finite)
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
    named: dict[str, np.ndarray] = {}
    for target, leaf in zip(targets, jax.tree.leaves(params), strict=True):
        values = np.asarray(leaf)
        inverse = target.reshape.inverse()
        for name, layer in zip(
            target.names, values if target.stacked else [values], strict=True
        ):
            if target.part is None:
                named[name] = np.ascontiguousarray(inverse.apply(layer, dims))
                continue
            # One of several leaves in a tensor: a view of it in this leaf's letters.
            if name not in named:
                named[name] = np.empty(target.reshape.source_shape(dims), layer.dtype)
            view = target.reshape.view(named[name], dims)[target.part]
            view[...] = layer.reshape(view.shape)
    return named


def _targets(
    family: ModuleType, config: Any, layout: str, tensors: Tensors | None = None
) -> tuple[list[_Target], Any]:
    """The family's table, joined with its abstract tree; a mismatch is a bug there.

    Names lose the family's prefix where no tensor has it, and a tied matrix may be
    stored as the head alone.
    """
    dims, table = config.dims(), family.TENSORS[layout]
    bare = layout == "hf" and tensors is not None and _is_bare(family, tensors)
    if layout == "hf" and tensors is not None and getattr(config, "tied", False):
        embedding, head = _matrices(family, tensors)
        if embedding not in tensors and head in tensors:
            spec = table["embedding"][1]
            table = {**table, "embedding": (table["unembedding"][0], spec)}
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        family.abstract(config), is_leaf=is_leaf
    )
    targets = []
    for keys, leaf in leaves:
        path = dotted(keys)
        if path not in table:
            raise ValueError(f"TENSORS[{layout!r}] of {family.__name__} lacks {path!r}")
        template, spec, *part = table[path]
        if bare:
            template = template.removeprefix(family.PREFIX)
        stacked, reshape = "{l}" in template, Reshape.parse(spec)
        shape = reshape.target_shape(dims)[len(part) :]
        if shape != leaf.shape[stacked:]:
            raise ValueError(
                f"TENSORS[{layout!r}][{path!r}] of {family.__name__} gives shape "
                f"{shape}, but the leaf has {leaf.shape[stacked:]}"
            )
        layers = range(leaf.shape[0]) if stacked else [None]
        names = [template.format(l=layer) for layer in layers]
        only = part[0] if part else None
        targets.append(_Target(path, leaf, names, stacked, reshape, only))
    return targets, treedef


def _survey(
    tensors: Tensors,
    targets: list[_Target],
    family: ModuleType,
    dims: Mapping[str, int],
) -> Survey:
    wrong, missing, left = {}, {}, dict.fromkeys(tensors)
    consumed: dict[str, None] = {}
    for target in targets:
        expected = target.reshape.source_shape(dims)
        for name in target.names:
            left.pop(name, None)
            if name not in tensors:
                missing[name] = f"{name!r} is missing"
            elif tuple(tensors[name].shape) != expected:
                wrong[name] = (
                    f"{name!r} has shape {list(tensors[name].shape)} instead of "
                    f"{list(expected)}"
                )
            elif (kind := _no_float(tensors[name])) is not None:
                wrong[name] = f"{name!r} is stored as {kind} instead of floats"
            else:
                consumed[name] = None
    wrapped = _wrapped(missing, left, family.PREFIX)
    for name, there in wrapped.items():
        del missing[name], left[there]
    ignored = {name: _reason(name, family) for name in left}
    unexpected = [f"{n!r} is unexpected" for n, why in ignored.items() if why is None]
    return Survey(
        list(consumed),
        {name: why for name, why in ignored.items() if why is not None},
        [*wrong.values(), *_wrappers(wrapped), *missing.values(), *unexpected],
    )


def _wrapped(
    missing: Mapping[str, str], left: Mapping[str, None], own: str
) -> dict[str, str]:
    """Missing names and what is there for them, behind one more prefix than ``own``."""
    for name in list(missing)[:MOST_NAMED]:
        for there in left:
            if not there.endswith(f".{name}"):
                continue
            prefix = there.removesuffix(name)
            prefix = prefix.removesuffix(own) or prefix
            forms = {n: (prefix + n, prefix + own + n) for n in missing}
            return {n: f for n, pair in forms.items() for f in pair if f in left}
    return {}


def _wrappers(wrapped: Mapping[str, str]) -> list[str]:
    """What is wrong with names behind a prefix, in one clause."""
    for name, there in wrapped.items():
        return [
            f"{quoted(there)} and {len(wrapped) - 1} more names begin with what a "
            f"wrapper puts before them ({name!r} is expected: save the model inside of "
            "DataParallel, torch.compile or peft, not the wrapper)"
        ]
    return []


def _no_float(tensor: np.ndarray | StoredTensor) -> str | None:
    """The kind of a tensor that holds whole numbers or truth values."""
    kind = tensor.kind if isinstance(tensor, StoredTensor) else tensor.dtype.name
    whole = re.fullmatch(r"(?i)(bool|u?int\d+|[iu]\d+)", kind)
    return kind if whole else None


def _reason(name: str, family: ModuleType) -> str | None:
    """Why a tensor may be left over; None: it may not."""
    bare = name.removeprefix(family.PREFIX)
    for pattern, reason in family.IGNORED.items():
        if re.fullmatch(pattern, bare) or re.fullmatch(pattern, name):
            return reason
    return None


def _fill(
    target: _Target,
    tensors: Tensors,
    dims: Mapping[str, int],
    dtype: str,
    not_finite: list[str],
    pool: ThreadPoolExecutor,
) -> np.ndarray:
    """Assemble one leaf; names with NaN or infinity after the cast are appended."""
    values = aligned_empty(target.leaf.shape, jnp.dtype(dtype))
    parts = values if target.stacked else [values]
    jobs = [
        (name, part, piece)
        for name, part in zip(target.names, parts, strict=True)
        for piece in _pieces(target, tensors[name].shape, dims)
    ]
    run = lambda job: _copy_piece(target, tensors, dims, *job)
    bad = [
        job[0] for job, fine in zip(jobs, pool.map(run, jobs), strict=True) if not fine
    ]
    not_finite += dict.fromkeys(bad)
    return values


def _pieces(
    target: _Target, shape: tuple[int, ...], dims: Mapping[str, int]
) -> list[slice]:
    """Parts of the first letter of a tensor's first axis that are read at a time."""
    letter, *others = target.reshape.source[0]
    if target.part is not None and letter == target.reshape.target[0][0]:
        # The leaves lie one behind the other: this one only.
        return [slice(target.part, target.part + 1)]
    row_bytes = 4 * math.prod(dims[other] for other in others) * math.prod(shape[1:])
    step = max(1, _PIECE_BYTES // max(1, row_bytes))
    stops = range(step, dims[letter] + step, step)
    return [slice(stop - step, min(stop, dims[letter])) for stop in stops]


def _copy_piece(
    target: _Target,
    tensors: Tensors,
    dims: Mapping[str, int],
    name: str,
    part: np.ndarray,
    piece: slice,
) -> bool:
    """Copy a piece of a tensor to its place in a leaf; whether all is finite there."""
    tensor, reshape = tensors[name], target.reshape
    letter, *others = reshape.source[0]
    rows = math.prod(dims[other] for other in others)
    first, last = piece.start * rows, piece.stop * rows
    values = _rows(tensor, first, last)
    view = reshape.view(values, {**dims, letter: piece.stop - piece.start})
    letters = [letter for axis in reshape.target for letter in axis]
    if target.part is not None:
        view = view[0 if letters.pop(0) == letter else target.part]
    where = tuple(piece if other == letter else slice(None) for other in letters)
    place = part.reshape([dims[other] for other in letters])[where]
    with np.errstate(over="ignore", invalid="ignore"):  # told as not finite
        fine = copy_into(place, view)
    if isinstance(tensor, StoredTensor):
        tensor.release()
    return fine


def _place(values: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    if sharding is None:
        return jax.device_put(values)
    # Each process gives the shards of its own devices.
    return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)
