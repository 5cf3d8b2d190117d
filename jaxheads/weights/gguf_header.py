"""The header of a GGUF file: metadata, and where each tensor lies.

Every length is checked against the file's size, so that a damaged file is told so.

Source: the GGUF specification, version 3, in the ggml repository (docs/gguf.md).
"""

import dataclasses
import math
import mmap
import struct
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from jaxheads.weights.checkpoint import quoted

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
