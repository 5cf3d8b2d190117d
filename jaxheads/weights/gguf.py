"""GGUF files: header read here, tensors dequantised by the ``gguf`` library.

The library's own reader makes a numpy array of every string and takes seconds for a
50,000-token vocabulary; this one takes a tenth of a second, and it checks every length
against the file's size, so that a damaged file is one sentence. A model in several
files is read through any of them.

Source: the split files of llama.cpp (tools/gguf-split), tensors of gguf.quants.
"""

import dataclasses
import functools
import math
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

from jaxheads.errors import UserError
from jaxheads.weights.checkpoint import StoredTensor, listed, quoted
from jaxheads.weights.gguf_header import Malformed, TensorInfo, read_header
from jaxheads.weights.mapped import KINDS, Extent, map_file, stored_tensor

_CHUNK_VALUES = 1 << 18
"""Values dequantised at a time: the library needs some tens of bytes for each."""


@dataclasses.dataclass(frozen=True)
class GGUFFile:
    """An opened GGUF model.

    Attributes:
        architecture: ``general.architecture``, such as "llama".
        metadata: every key with its plain Python value; of several parts, the first's.
        tensors: by name; when read, float32 if they are quantised, else as stored.
        paths: the files, one for each part.
    """

    architecture: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    paths: tuple[Path, ...]


_Contents = tuple[dict[str, Any], dict[str, StoredTensor]]
"""Metadata and tensors of one file."""


def read_gguf(path: Path) -> GGUFFile:
    """Open a GGUF file, or all parts of a model; tensors are read later, one by one.

    Args:
        path: the file, or any one of ``name-00001-of-00003.gguf`` and so on.

    Raises:
        UserError: a file is missing, empty, truncated, damaged, or not a little-endian
            GGUF of version 2 or 3, or the parts do not belong together.
    """
    metadata, tensors = _open(path)
    paths = (path,)
    count = metadata.get("split.count")
    if isinstance(count, int) and count > 1:
        paths = _part_paths(path, count)
        metadata, tensors = _join(paths)
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise UserError(
            f"{paths[0]} must be a whole GGUF file, but does not name its "
            "general.architecture: fetch it again"
        )
    return GGUFFile(architecture, metadata, tensors, paths)


def _part_paths(path: Path, count: int) -> tuple[Path, ...]:
    """All parts' files, by the naming of llama.cpp's gguf-split."""
    name = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.gguf", path.name)
    if name is None or int(name[2]) != count:
        raise UserError(
            f"{path} is one of {count} parts, which must be called "
            f"...-00001-of-{count:05d}.gguf and so on to be found: name them so"
        )
    paths = tuple(
        path.with_name(f"{name[1]}-{part:05d}-of-{count:05d}.gguf")
        for part in range(1, count + 1)
    )
    missing = [part.name for part in paths if not part.is_file()]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"{path} is one of {count} parts, which must be in one folder, but "
            f"{listed(missing)} {verb} not there: fetch what is missing"
        )
    return paths


def _join(paths: tuple[Path, ...]) -> _Contents:
    """The first part's metadata and the tensors of all."""
    joined: dict[str, StoredTensor] = {}
    first: dict[str, Any] = {}
    for part, path in enumerate(paths):
        metadata, tensors = _open(path)
        first = first or metadata
        place = metadata.get("split.no"), metadata.get("split.count")
        twice = sorted(joined.keys() & tensors.keys())
        if place != (part, len(paths)) or twice:
            what = f"holds {quoted(twice[0])} again" if twice else _claim(*place)
            raise UserError(
                f"{path} must be part {part + 1} of the {len(paths)} of its model, "
                f"but {what}: fetch all parts from one place"
            )
        joined |= tensors
    total = first.get("split.tensors.count", len(joined))
    if total != len(joined):
        raise UserError(
            f"{paths[0]} and the other parts must hold {total} tensors, but hold "
            f"{len(joined)}: fetch all parts from one place"
        )
    return first, joined


def _claim(number: Any, count: Any) -> str:
    """What a file says of its place among the parts, which it counts from 0."""
    if isinstance(number, int):
        return f"says it is part {number + 1} of {count}"
    return "does not say that it is a part"


def _open(path: Path) -> _Contents:
    data = map_file(path, "a GGUF file")
    try:
        metadata, infos = read_header(data)
    except Malformed as error:
        raise UserError(f"{path} must be a whole GGUF file, but {error}") from error
    return metadata, {info.name: _stored(data, path, info) for info in infos}


def _stored(data: mmap.mmap, path: Path, info: TensorInfo) -> StoredTensor:
    if info.kind.name in KINDS:  # numpy's own: read in place
        place = Extent(info.name, info.kind.name, info.shape, info.first)
        return stored_tensor(data, path, place)
    raw = stored_tensor(
        data, path, Extent(info.name, "U8", (info.num_bytes,), info.first)
    )
    rows = functools.partial(_dequantized, raw, path, info)
    read = functools.partial(rows, 0, info.shape[0])
    return StoredTensor(info.shape, info.kind.name, read, raw.release, rows)


def _dequantized(
    raw: StoredTensor, path: Path, info: TensorInfo, start: int, stop: int
) -> np.ndarray:
    """Rows in float32, made chunk by chunk to need little more memory than these."""
    rows = info.shape[0]
    bytes_a_row = info.num_bytes // max(rows, 1)
    start, stop, _ = slice(start, stop).indices(rows)
    blocks = raw.read()[start * bytes_a_row : stop * bytes_a_row]
    block, block_bytes = GGML_QUANT_SIZES[info.kind]
    shape = (stop - start, *info.shape[1:])
    values = np.empty(math.prod(shape), np.float32)
    step = _CHUNK_VALUES // block  # in blocks, which lie within rows
    try:
        # A damaged scale may be infinite: who loads the tensor warns by its name.
        with np.errstate(all="ignore"):
            for first in range(0, len(values) // block, step):
                chunk = blocks[first * block_bytes : (first + step) * block_bytes]
                into = values[first * block : (first + step) * block]
                into[:] = dequantize(chunk[None], info.kind)[0]
    except NotImplementedError:
        raise UserError(
            f"the tensor {quoted(info.name)} of {path} must be of a kind that the "
            f"installed gguf library can dequantise, but is {info.kind.name}: take a "
            "file in another quantisation"
        ) from None
    return values.reshape(shape)
