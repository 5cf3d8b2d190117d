"""GGUF files: header read here, tensors dequantised by the ``gguf`` library.

The library's own reader makes a numpy array of every string and takes seconds for a
50,000-token vocabulary; this one takes a tenth of a second, and it checks every length
against the file's size, so that a damaged file is one sentence.

Source: the GGUF specification, version 3, in the ggml repository (docs/gguf.md).
"""

import dataclasses
import functools
import math
import mmap
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.quants import dequantize

from jaxheads.errors import UserError
from jaxheads.weights.checkpoint import StoredTensor

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


@dataclasses.dataclass(frozen=True)
class GGUFFile:
    """An opened GGUF file.

    Attributes:
        architecture: ``general.architecture``, such as "llama".
        metadata: every key with its plain Python value.
        tensors: by name; float32 when read.
    """

    architecture: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


class _Malformed(Exception):
    """The bytes are not what the format promises; the message goes on a path."""


def read_gguf(path: Path) -> GGUFFile:
    """Open a GGUF file; tensors are read later, one by one.

    Args:
        path: the file.

    Raises:
        UserError: the file is missing, empty, truncated, damaged, one part of several,
            or not a little-endian GGUF of version 2 or 3.
    """
    try:
        with open(path, "rb") as file:
            # An empty file cannot be mapped; it is told below as "no magic".
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise UserError(f"{path} must be a GGUF file, but is empty") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} must be a GGUF file, but: {reason}") from error
    try:
        return _read(data)
    except _Malformed as error:
        raise UserError(f"{path} must be a whole GGUF file, but {error}") from error


class _Cursor:
    """A position in the file that never passes its end."""

    def __init__(self, data: mmap.mmap):
        self.data, self.offset = data, 0

    def advance(self, count: int) -> int:
        """Step over ``count`` bytes; the offset before the step."""
        start = self.offset
        if count > len(self.data) - start:
            raise _Malformed(
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
            raise _Malformed(
                f"has a string at byte {start} that is not UTF-8"
            ) from None

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
            raise _Malformed("has an array of arrays, which no model family uses")
        dtype = np.dtype(_SCALARS[kind])
        start = self.advance(count * dtype.itemsize)
        return np.frombuffer(self.data, dtype, count, start).tolist()

    def kind(self) -> GGUFValueType:
        number = self.integer("<I")
        try:
            return GGUFValueType(number)
        except ValueError:
            raise _Malformed(
                f"has a value of unknown type {number} before byte {self.offset}: it "
                "is damaged or newer than this reader"
            ) from None


def _read(data: mmap.mmap) -> GGUFFile:
    cursor = _Cursor(data)
    if data[:4] != b"GGUF":
        raise _Malformed(f"begins with {data[:4]!r} instead of b'GGUF'")
    cursor.advance(4)
    version = cursor.integer("<I")
    if version not in (2, 3):
        big = version & 0xFFFF == 0
        raise _Malformed(
            "is big-endian; convert it with the gguf library's gguf-convert-endian"
            if big
            else f"has version {version}; versions 2 and 3 can be read"
        )
    num_tensors, num_keys = cursor.integer("<Q"), cursor.integer("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.string()
        if key in metadata:
            raise _Malformed(f"has the key {key!r} twice")
        metadata[key] = cursor.value()
    if metadata.get("split.count", 1) > 1:
        raise _Malformed(
            f"is one of {metadata['split.count']} parts; join them with llama.cpp's "
            "gguf-split --merge"
        )
    infos = [_tensor_info(cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Malformed(f"has the alignment {alignment!r}")
    start = -(-cursor.offset // alignment) * alignment
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise _Malformed("does not name its general.architecture")
    return GGUFFile(architecture, metadata, _tensors(data, start, infos))


@dataclasses.dataclass(frozen=True)
class _TensorInfo:
    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int
    num_bytes: int


def _tensor_info(cursor: _Cursor) -> _TensorInfo:
    name = cursor.string()
    num_dims = cursor.integer("<I")
    # The file writes the fastest axis first; numpy names it last.
    shape = tuple(cursor.values(GGUFValueType.UINT64, num_dims)[::-1])
    number, offset = cursor.integer("<I"), cursor.integer("<Q")
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise _Malformed(f"stores {name!r} in the unknown type {number}") from None
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if not shape or shape[-1] % block:
        raise _Malformed(f"has {name!r} of shape {list(shape)} in blocks of {block}")
    return _TensorInfo(
        name, shape, kind, offset, math.prod(shape) // block * block_bytes
    )


def _tensors(
    data: mmap.mmap, start: int, infos: list[_TensorInfo]
) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for info in infos:
        first = start + info.offset
        if first + info.num_bytes > len(data):
            raise _Malformed(
                f"has {len(data):,} bytes where the tensor {info.name!r} ends at byte "
                f"{first + info.num_bytes:,}: it is truncated, so fetch it again"
            )
        if info.name in tensors:
            raise _Malformed(f"has the tensor {info.name!r} twice")
        read: Callable[[], np.ndarray] = functools.partial(
            _dequantized, data, first, info
        )
        tensors[info.name] = StoredTensor(info.shape, info.kind.name, read)
    return tensors


def _dequantized(data: mmap.mmap, first: int, info: _TensorInfo) -> np.ndarray:
    raw = np.frombuffer(data, np.uint8, info.num_bytes, first)
    if info.kind == GGMLQuantizationType.F32:
        return raw.view("<f4").reshape(info.shape)
    rows = raw.reshape(*info.shape[:-1], -1)  # blocks lie within rows
    try:
        return dequantize(rows, info.kind)
    except NotImplementedError:
        raise UserError(
            f"{info.name!r} is stored as {info.kind.name}, which the installed gguf "
            "library cannot dequantise: take a file in another quantisation"
        ) from None
