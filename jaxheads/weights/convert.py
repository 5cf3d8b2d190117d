"""Checkpoint tensors into a family's params and back, by the family's table.

The checker is loud: each tensor is used once or ignored for a stated reason, every
shape equals the abstract tree's, and all that does not fit comes in one error.
"""

import dataclasses
import itertools
import math
import re
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from jaxheads import stops
from jaxheads.engine.devices import shardings
from jaxheads.errors import UserError
from jaxheads.models.parameters import Leaf, is_leaf
from jaxheads.weights.checkpoint import (
    MOST_NAMED,
    StoredTensor,
    listed,
    quoted,
    warn_of_not_finite,
)
from jaxheads.weights.digest import ParamsDigest, dotted

Axes = tuple[tuple[str, ...], ...]
"""Axes of an array; each is the letters that it is the product of, major first."""


@dataclasses.dataclass(frozen=True)
class Reshape:
    """A permutation of dim letters, between two ways of grouping them into axes.

    Attributes:
        source: axes before.
        target: axes after; the same letters.
    """

    source: Axes
    target: Axes

    @classmethod
    def parse(cls, text: str) -> "Reshape":
        """Read ``"(h k) d -> d h k"``: brackets hold the letters of one axis.

        Raises:
            ValueError: the text is not of this form, or the sides' letters differ.
        """
        left, arrow, right = text.partition("->")
        source, target = _axes(left), _axes(right)
        before, after = sorted(_letters(source)), sorted(_letters(target))
        if not arrow or before != after or len(set(before)) != len(before):
            raise ValueError(
                "a reshape must be like '(h k) d -> d h k', with each letter once on "
                f"either side, but is {text!r}"
            )
        return cls(source, target)

    def inverse(self) -> "Reshape":
        """The reshape that undoes this one."""
        return Reshape(self.target, self.source)

    def source_shape(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of the arrays that ``apply`` takes."""
        return _shape(self.source, dims)

    def target_shape(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of the arrays that ``apply`` gives."""
        return _shape(self.target, dims)

    def view(self, array: np.ndarray, dims: Mapping[str, int]) -> np.ndarray:
        """An array with an axis for each letter, in the target's order; no copy.

        Args:
            array: of shape ``source_shape(dims)``.
            dims: sizes by letter.
        """
        letters = _letters(self.source)
        order = [letters.index(letter) for letter in _letters(self.target)]
        return array.reshape([dims[letter] for letter in letters]).transpose(order)

    def apply(self, array: np.ndarray, dims: Mapping[str, int]) -> np.ndarray:
        """Reshape, transpose, reshape.

        Args:
            array: of shape ``source_shape(dims)``.
            dims: sizes by letter.

        Returns:
            Array of shape ``target_shape(dims)``; a view where numpy can give one.
        """
        return self.view(array, dims).reshape(self.target_shape(dims))


def _axes(text: str) -> Axes:
    if re.sub(r"\(\s*\w(\s+\w)*\s*\)|\b\w\b|\s", "", text):
        return ()  # stray characters: the caller's comparison of letters fails
    groups = re.findall(r"\(([^)]*)\)|(\w)", text)
    return tuple(tuple(bracket.split()) or (letter,) for bracket, letter in groups)


def _letters(axes: Axes) -> list[str]:
    return [letter for axis in axes for letter in axis]


def _shape(axes: Axes, dims: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(dims[letter] for letter in axis) for axis in axes)


_TILE = 256
"""Side of a tile; two tiles of float32 fit in half a megabyte, a core's own cache."""

_CHUNK = 1 << 16
"""Elements that are looked at together; their temporaries stay in the cache."""

_EXPONENTS = {
    "float64": (np.uint64, 0x7FF0000000000000),
    "float32": (np.uint32, 0x7F800000),
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
}
"""Bits of a float's exponent; all are set in NaN and infinity, and only there."""


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array whose memory jax's CPU backend takes over without a copy."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def copy_into(target: np.ndarray, source: np.ndarray) -> bool:
    """``target[...] = source`` for any strides of the source and any two float dtypes.

    Numpy alone walks a transposed source in the target's order, which misses the cache
    at every element; here it is read tile by tile along its own fastest axis.

    Args:
        target: with contiguous rows, as has any part of a contiguous array.
        source: of the same shape.

    Returns:
        Whether the target is finite everywhere, looked at while it is in the cache.
    """
    if source.ndim < 2 or source.strides[-1] == source.itemsize:
        return _copy_rows(target, source)
    fastest = int(np.argmin(source.strides))
    last = source.ndim - 1
    steps = [1] * source.ndim
    steps[fastest] = steps[last] = _TILE
    ranges = [range(0, n, step) for n, step in zip(source.shape, steps, strict=True)]
    fine = True
    for start in itertools.product(*ranges):
        tile = tuple(slice(i, i + n) for i, n in zip(start, steps, strict=True))
        part = source[tile].swapaxes(fastest, last).copy()  # contiguous as it lay
        part = _cast(part, target.dtype)
        target[tile] = part.swapaxes(fastest, last)
        fine &= all_finite(part)
    return fine


def _copy_rows(target: np.ndarray, source: np.ndarray) -> bool:
    """Copy where the rows of both are contiguous, in chunks."""
    if source.size > _CHUNK:
        axis = next(i for i, length in enumerate(source.shape) if length > 1)
        half = source.shape[axis] // 2
        halves = (slice(None, half), slice(half, None))
        index = [(slice(None),) * axis + (part,) for part in halves]
        return all([_copy_rows(target[part], source[part]) for part in index])
    part = _cast(source, target.dtype)
    bits = np.dtype(f"u{target.itemsize}")  # copied faster than bfloat16
    target.view(bits)[...] = part.view(bits)
    return all_finite(part)


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if values.dtype == ml_dtypes.bfloat16 and dtype == np.float32:
        # The upper half of the bits; ten times as fast as the cast.
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.astype(dtype, copy=False)


def all_finite(values: np.ndarray) -> bool:
    """Whether no element of a float array is NaN or infinite."""
    kind, exponent = _EXPONENTS[values.dtype.name]
    bits = values.reshape(-1).view(kind)
    return not any(
        ((bits[i : i + _CHUNK] & kind(exponent)) == kind(exponent)).any()
        for i in range(0, len(bits), _CHUNK)
    )


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
        mesh: of devices that the params are placed over, see ``engine.devices``;
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
