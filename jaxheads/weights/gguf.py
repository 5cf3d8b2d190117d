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
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.quants import dequantize

from jaxheads.errors import UserError
from jaxheads.weights.checkpoint import (
    KINDS,
    Extent,
    StoredTensor,
    listed,
    map_file,
    quoted,
    stored_tensor,
)

_SCALARS = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT64: "<f8",
}


class Malformed(Exception):
    """The bytes are not what the format promises; the message goes on a path."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A tensor's place in the file.

    Attributes:
        name: of the tensor.
        shape: slowest axis first.
        kind: how the values are stored.
        first: its first byte in the file.
        num_bytes: that it takes.
    """

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    first: int
    num_bytes: int


def read_header(data: mmap.mmap) -> tuple[dict[str, Any], list[TensorInfo]]:
    """Read the metadata and the places of the tensors.

    Args:
        data: the file.

    Raises:
        Malformed: it is damaged, truncated, or of another version.
    """
    cursor = _Cursor(data)
    if data[:4] != b"GGUF":
        raise Malformed(f"begins with {data[:4]!r} instead of b'GGUF'")
    cursor.advance(4)
    version = cursor.integer("<I")
    if version not in (2, 3):
        big = version & 0xFFFF == 0
        raise Malformed(
            "is big-endian; convert it with the gguf library's gguf-convert-endian"
            if big
            else f"has version {version}; versions 2 and 3 can be read"
        )
    num_tensors, num_keys = cursor.integer("<Q"), cursor.integer("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.string()
        if key in metadata:
            raise Malformed(f"has the key {quoted(key)} twice")
        metadata[key] = cursor.value()
    infos = [_tensor_info(cursor) for _ in range(num_tensors)]
    return metadata, _placed(infos, cursor, metadata.get("general.alignment", 32))


def _placed(
    infos: list[TensorInfo], cursor: "_Cursor", alignment: Any
) -> list[TensorInfo]:
    """The tensors with offsets from the file's start; all lie within it."""
    if not isinstance(alignment, int) or alignment < 1:
        raise Malformed(f"has the alignment {alignment!r}")
    start = -(-cursor.offset // alignment) * alignment
    names: set[str] = set()
    for info in infos:
        end = start + info.first + info.num_bytes
        if end > len(cursor.data):
            raise Malformed(
                f"has {len(cursor.data):,} bytes where the tensor "
                f"{quoted(info.name)} ends at byte {end:,}: it is truncated, so fetch "
                "it again"
            )
        if info.name in names:
            raise Malformed(f"has the tensor {quoted(info.name)} twice")
        names.add(info.name)
    return [dataclasses.replace(info, first=start + info.first) for info in infos]


def _tensor_info(cursor: "_Cursor") -> TensorInfo:
    name = cursor.string()
    num_dims = cursor.integer("<I")
    # The file writes the fastest axis first; numpy names it last.
    shape = tuple(cursor.values(GGUFValueType.UINT64, num_dims)[::-1])
    number, offset = cursor.integer("<I"), cursor.integer("<Q")
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise Malformed(f"stores {quoted(name)} in the unknown type {number}") from None
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if not shape or shape[-1] % block:
        raise Malformed(
            f"has {quoted(name)} of shape {list(shape)} in blocks of {block}"
        )
    return TensorInfo(
        name, shape, kind, offset, math.prod(shape) // block * block_bytes
    )


class _Cursor:
    """A position in the file that never passes its end."""

    def __init__(self, data: mmap.mmap):
        self.data, self.offset = data, 0

    def advance(self, count: int) -> int:
        """Step over ``count`` bytes; the offset before the step."""
        start = self.offset
        if count > len(self.data) - start:
            raise Malformed(
                f"ends within its header, after {len(self.data):,} bytes: it is "
                "truncated or damaged, so fetch it again"
            )
        self.offset = start + count
        return start

    def integer(self, code: str) -> int:
        start = self.advance(struct.calcsize(code))
        return struct.unpack_from(code, self.data, start)[0]

    def string(self) -> str:
        length = self.integer("<Q")
        start = self.advance(length)
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError:
            raise Malformed(f"has a string at byte {start} that is not UTF-8") from None

    def value(self) -> Any:
        kind = self.kind()
        if kind != GGUFValueType.ARRAY:
            return self.values(kind, 1)[0]
        kind = self.kind()
        return self.values(kind, self.integer("<Q"))

    def values(self, kind: GGUFValueType, count: int) -> list[Any]:
        if kind == GGUFValueType.STRING:
            return [self.string() for _ in range(count)]
        if kind not in _SCALARS:
            raise Malformed("has an array of arrays, which no model family uses")
        dtype = np.dtype(_SCALARS[kind])
        start = self.advance(count * dtype.itemsize)
        return np.frombuffer(self.data, dtype, count, start).tolist()

    def kind(self) -> GGUFValueType:
        number = self.integer("<I")
        try:
            return GGUFValueType(number)
        except ValueError:
            raise Malformed(
                f"has a value of unknown type {number} before byte {self.offset}: it "
                "is damaged or newer than this reader"
            ) from None


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
