"""Tensors as views of a memory-mapped file, for the formats that store plain arrays."""

import contextlib
import dataclasses
import functools
import math
import mmap
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxheads.errors import UserError, check_file
from jaxheads.weights.checkpoint import StoredTensor, quoted

KINDS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}
"""Element types by the name that safetensors gives them."""

MOST_DIMS = 32
_LARGEST = 2**62


def whole_numbers(values: object) -> bool:
    """Whether these are numbers of elements or bytes that a file can have."""
    return (
        isinstance(values, (list, tuple))
        and len(values) <= MOST_DIMS
        and all(type(value) is int and 0 <= value < _LARGEST for value in values)
    )


@dataclasses.dataclass(frozen=True)
class Extent:
    """Where a tensor lies in a file.

    Attributes:
        name: for messages.
        kind: a key of ``KINDS``.
        shape: numbers of elements.
        offset: of the first element, in bytes from the file's begin.
        strides: between elements along each axis, in bytes; None: densely packed.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None

    @property
    def num_bytes(self) -> int:
        """From the first element's begin to the last one's end."""
        if self.strides is None:
            return math.prod(self.shape) * KINDS[self.kind].itemsize
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return sum((n - 1) * step for n, step in steps) + KINDS[self.kind].itemsize


def map_file(path: Path, what: str) -> mmap.mmap:
    """Map a whole file for reading.

    Args:
        path: the file.
        what: it must be, for messages: "a safetensors file".

    Raises:
        UserError: it is missing, empty, or only a Git LFS pointer to the real file.
    """
    check_file(path)
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise UserError(
            f"{path} must be {what}, but is empty: fetch it again"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} must be {what}, but: {reason}") from error
    if data[:40].startswith(b"version https://git-lfs.github.com/"):
        raise UserError(
            f"{path} must be {what}, but is only a Git LFS pointer to it: run "
            "`git lfs pull` in its folder"
        )
    return data


def stored_tensor(data: mmap.mmap, path: Path, extent: Extent) -> StoredTensor:
    """A tensor that is read as a view of the mapped file, which must contain it."""
    return StoredTensor(
        extent.shape,
        extent.kind,
        functools.partial(_view, data, path, extent),
        functools.partial(_advise, data, extent, "MADV_DONTNEED"),
    )


def _view(data: mmap.mmap, path: Path, extent: Extent) -> np.ndarray:
    if extent.kind.startswith("F8_"):
        raise UserError(
            f"the tensor {quoted(extent.name)} of {path} must be float64, float32, "
            f"float16 or bfloat16, but is stored as {extent.kind}, whose scales are "
            "not applied here: take the model in one of these"
        )
    # Ask for all of it at once: by page faults alone a disk gives two thirds.
    _advise(data, extent, "MADV_WILLNEED")
    return np.ndarray(
        extent.shape, KINDS[extent.kind], data, extent.offset, extent.strides
    )


def _advise(data: mmap.mmap, extent: Extent, advice: str) -> None:
    """Pass an extent's pages to madvise, where the system has it."""
    if not extent.num_bytes or not hasattr(mmap, advice):
        return
    first = extent.offset // mmap.PAGESIZE * mmap.PAGESIZE
    length = extent.offset + extent.num_bytes - first
    with contextlib.suppress(OSError):  # it is only advice
        data.madvise(getattr(mmap, advice), first, length)
