"""Converted models: an Orbax checkpoint that restores to any dtype and sharding.

A store is a folder:

    jaxheads.json     schema, config, provenance, every other file with its hash
    params/           the Orbax checkpoint
    tokenizer*.json   if the source has a tokenizer

jaxheads.json is written last and the folder gets its name when it is whole, so that a
conversion which broke off leaves nothing that can be loaded.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from jaxheads import models
from jaxheads.engine.devices import shardings
from jaxheads.errors import UserError, first_line
from jaxheads.models.parameters import is_leaf
from jaxheads.runs.files import read_json_object, sha256_of
from jaxheads.runs.unfinished import whole_folder
from jaxheads.weights.checkpoint import listed, warn_of_not_finite
from jaxheads.weights.convert import all_finite
from jaxheads.weights.digest import ParamsDigest, dotted

if TYPE_CHECKING:
    from jaxheads.weights.model import Model


def to_json(value: Any) -> str:
    """JSON of plain values and dataclasses."""
    return json.dumps(
        value,
        default=lambda x: {f.name: getattr(x, f.name) for f in dataclasses.fields(x)},
        indent=1,
        ensure_ascii=False,
        allow_nan=False,
    )


def json_sha256(value: Any) -> str:
    """SHA-256 of a value's JSON, in hexadecimal."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def from_json(kind: Any, value: Any) -> Any:
    """A parsed JSON value as its type would have it.

    Args:
        kind: a dataclass, or what an annotation of a field may be; lists become tuples.
        value: as ``json.loads`` gives it.

    Raises:
        TypeError: a dataclass has no such field, or lacks one.
        KeyError: likewise.
    """
    if isinstance(value, list):
        return tuple(from_json(None, item) for item in value)
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in kinds:
        if isinstance(value, dict) and dataclasses.is_dataclass(option):
            hints = typing.get_type_hints(option)
            given = {name: from_json(hints[name], x) for name, x in value.items()}
            return option(**given)  # type: ignore[operator]
    return value


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


FORMAT = "jaxheads store"
SCHEMA = 1
MANIFEST = "jaxheads.json"
PARAMS = "params"

_SMALL_BYTES = 2**20
"""A smaller file is read whole to check it, whatever else is done."""


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """Size and SHA-256 of one of a store's files."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Store:
    """A converted model, opened: all but the values of its params.

    Attributes:
        path: the folder.
        model_type: picks the family.
        config: the family's ``Config``.
        dtype: in which the params are stored.
        params_sha256: of the params as stored.
        provenance: of the model that was converted.
        no_tokenizer: why there is no tokenizer; "" if there is one.
        files: by name relative to the folder.
    """

    path: Path
    model_type: str
    config: Any
    dtype: str
    params_sha256: str
    provenance: Mapping[str, Any]
    no_tokenizer: str
    files: Mapping[str, StoredFile]


def is_store(folder: Path) -> bool:
    """Whether a folder is a converted model, or what was left of a conversion."""
    if (folder / MANIFEST).is_file():
        return True
    return (folder / PARAMS).is_dir() and not (folder / "config.json").exists()


def save(model: "Model", folder: Path) -> None:
    """Write a model as a store.

    Args:
        model: its params are stored in the dtype that they have.
        folder: new, or an empty one.

    Raises:
        UserError: the folder holds something, or cannot be written; then nothing is
            left of it.
    """
    if from_json(type(model.config), json.loads(to_json(model.config))) != model.config:
        raise ValueError(f"{model.config} must come back from JSON, but does not")
    with whole_folder(folder) as unfinished:
        try:
            save_params(unfinished / PARAMS, model.params)
        except Exception as error:  # of Orbax, TensorStore or the disk
            raise UserError(
                f"{folder} must be writable, but the params cannot be stored "
                f"({first_line(error)}): free some room or give another folder"
            ) from error
        if model.tokenizer is not None:
            model.tokenizer.save(unfinished)
        files = sorted(path for path in unfinished.rglob("*") if path.is_file())
        manifest = {
            "schema": SCHEMA,
            "model_type": model.config.model_type,
            "config": model.config,
            "dtype": model.provenance.dtype,
            "params_sha256": model.provenance.params_sha256,
            "provenance": model.provenance.to_dict(),
            "no_tokenizer": "" if model.tokenizer else model.no_tokenizer or "none",
            "files": {
                path.relative_to(unfinished).as_posix(): StoredFile(
                    path.stat().st_size, sha256_of(path)
                )
                for path in files
            },
        }
        text = to_json(manifest | {"sha256": json_sha256(manifest)})
        (unfinished / MANIFEST).write_text(text + "\n", encoding="utf-8")


def open_store(folder: Path) -> Store:
    """Read what a store says of itself.

    Raises:
        UserError: the conversion broke off, or jaxheads.json is damaged or of another
            schema.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder} must be a converted model with {MANIFEST}, but has none, as if "
            "its conversion broke off: convert again"
        )
    told = read_json_object(path)
    if told.get("schema") != SCHEMA:
        raise UserError(
            f"{path} must be of schema {SCHEMA}, the one that this version reads, but "
            f"is of {told.get('schema')!r}: convert the source again"
        )
    sha256 = told.pop("sha256", None)
    try:
        sound = sha256 == json_sha256(told)
    except ValueError:  # NaN or half a character, which no store is written with
        sound = False
    if not sound:
        raise UserError(
            f"{path} must be as it was written, but is damaged (wrong SHA-256): "
            "convert the source again"
        )
    try:
        kind = models.family(told["model_type"]).Config
        config = from_json(kind, told["config"])
        return Store(
            path=folder,
            model_type=told["model_type"],
            config=config,
            dtype=told["dtype"],
            params_sha256=told["params_sha256"],
            provenance=told["provenance"],
            no_tokenizer=told["no_tokenizer"],
            files={name: StoredFile(**file) for name, file in told["files"].items()},
        )
    except (KeyError, TypeError, ValueError) as error:  # fields of another version
        raise UserError(
            f"{path} must describe a model that this version knows, but does not "
            f"({error}): convert the source again"
        ) from error


def restore(store: Store, dtype: str, mesh: Mesh | None = None) -> tuple[Any, str]:
    """Read a store's params, each straight to its dtype and place.

    Args:
        store: opened.
        dtype: of every param.
        mesh: see ``jaxheads.engine.devices``; None: the default device.

    Returns:
        The family's ``Params`` and their hash.

    Raises:
        UserError: files are missing or damaged, or do not fit the config.
    """
    check(store)
    if dtype != store.dtype:  # else the hash of the params tells
        _refuse_damaged(store, _damaged_files(store, small=False))
    with _told_as_damage(store):
        params = restore_params(store.path / PARAMS, _target(store, dtype, mesh))
    digest, not_finite = ParamsDigest(), []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        values = np.asarray(leaf)
        digest.add(dotted(path), values)  # in the background
        if not all_finite(values):
            not_finite.append(dotted(path))
    sha256 = digest.hexdigest()
    if dtype == store.dtype and sha256 != store.params_sha256:
        raise _damaged(store, "their values are not those that were written")
    warn_of_not_finite(str(store.path), dtype, not_finite)
    return params, sha256


def check(store: Store) -> dict[str, tuple[int, ...]]:
    """Check all that can be checked without reading the params' values.

    Returns:
        The shapes of the params by path.

    Raises:
        UserError: files are missing or damaged, or do not fit the config; all problems
            are named.
    """
    problems = []
    for name, file in store.files.items():
        path = store.path / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (size := path.stat().st_size) != file.bytes:
            problems.append(f"{name} has {size:,} bytes instead of {file.bytes:,}")
    _refuse_damaged(store, problems)
    _refuse_damaged(store, _damaged_files(store, small=True))
    abstract = models.family(store.model_type).abstract(store.config)
    wanted = shapes(abstract)
    with _told_as_damage(store):
        there = stored_shapes(store.path / PARAMS)
    problems = [
        *(f"{name!r} is missing" for name in wanted if name not in there),
        *(f"{name!r} is unexpected" for name in there if name not in wanted),
        *(
            f"{name!r} has shape {list(there[name])} instead of {list(shape)}"
            for name, shape in wanted.items()
            if there.get(name, shape) != shape
        ),
    ]
    _refuse_damaged(store, problems)
    return there


def _damaged_files(store: Store, small: bool) -> list[str]:
    """Small or large files that are not those that were written, a clause each."""
    return [
        f"{name} is damaged (wrong SHA-256)"
        for name, file in store.files.items()
        if (file.bytes < _SMALL_BYTES) == small
        and sha256_of(store.path / name) != file.sha256
    ]


def _refuse_damaged(store: Store, problems: list[str]) -> None:
    if problems:
        raise _damaged(store, listed(problems))


def _damaged(store: Store, reason: str) -> UserError:
    return UserError(
        f"{store.path} must hold the model that was converted, but {reason}: convert "
        "the source again"
    )


def _target(store: Store, dtype: str, mesh: Mesh | None) -> Any:
    """Shape, dtype and place of every param."""
    abstract = models.family(store.model_type).abstract(store.config)
    if mesh is None:
        (device,) = jnp.zeros(()).devices()
        one = SingleDeviceSharding(device)
        places = jax.tree.map(lambda _: one, abstract, is_leaf=is_leaf)
    else:
        places = shardings(abstract, mesh)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=place),
        abstract,
        places,
        is_leaf=is_leaf,
    )


@contextlib.contextmanager
def _told_as_damage(store: Store) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Orbax and TensorStore have none of their own
        raise _damaged(store, f"cannot be read ({first_line(error)})") from error
