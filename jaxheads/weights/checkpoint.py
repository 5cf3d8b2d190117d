"""What every format gives: settings and named tensors, opened but not yet read."""

import contextlib
import dataclasses
import functools
import math
import mmap
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from jaxheads.errors import UserError, check_file

MOST_NAMED = 12
"""Problems that an error spells out; of the others it gives the number."""


def listed(problems: Sequence[str]) -> str:
    """Clauses joined for one sentence; of a long list the first ones and a count."""
    shown = "; ".join(problems[:MOST_NAMED])
    more = len(problems) - MOST_NAMED
    return f"{shown}; and {more} more" if more > 0 else shown


def warn_of_not_finite(source: str, dtype: str, names: Sequence[str]) -> None:
    """Warn of tensors with NaN or infinity by name, if there are any."""
    if names:
        warnings.warn(
            f"{source} has NaN or infinite weights as {dtype}: {listed(names)}",
            stacklevel=3,
        )


def quoted(name: str) -> str:
    """A name from a file as a message shows it: escaped, and cut if it is very long."""
    return repr(name if len(name) <= 120 else name[:120] + "...")


def _keep() -> None:
    """Nothing is held that could be given back."""


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its shape is known, its values are read by ``np.asarray``.

    Attributes:
        shape: as the layout's table writes it, slowest axis first.
        kind: element type in the file, such as "F32", "BF16" or "Q4_1".
        read: reads (and dequantises) the values; may be a view of the mapped file.
        release: gives back the memory of a mapped file; to be called when the values
            have been copied. Views stay valid: they are read again if need be.
        read_rows: reads indices ``start`` to ``stop`` of the first axis only, for kinds
            whose values are made and not viewed; None: a slice of all is as cheap.
    """

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], np.ndarray]
    release: Callable[[], None] = _keep
    read_rows: Callable[[int, int], np.ndarray] | None = None

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The values at indices ``start`` to ``stop`` of the first axis."""
        if self.read_rows is not None:
            return self.read_rows(start, stop)
        return self.read()[start:stop]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.read(), dtype=dtype, copy=copy)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A source of weights, opened.

    Attributes:
        path: the file or the folder.
        format: "gguf", "safetensors" or "torch" (a restricted reading of .bin files).
        layout: which of a family's tables names the tensors.
        model_type: picks the family.
        settings: config.json, or the metadata of a GGUF file.
        tensors: by the file's own names.
        file_sha256: of the one file that holds the weights, where it has been checked;
            None elsewhere: a large file is not read twice, the params are hashed.
        name: what the source calls the model, if it does.
        license: what the source says of its licence, if it does.
        files: names of the weight files that were used, in order.
    """

    path: Path
    format: Literal["gguf", "safetensors", "torch"]
    layout: Literal["gguf", "hf"]
    model_type: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    file_sha256: str | None = None
    name: str | None = None
    license: str | None = None
    files: tuple[str, ...] = ()

    def tensor_kinds(self) -> dict[str, int]:
        """How many tensors are stored in each element type, most frequent first."""
        kinds = Counter(tensor.kind for tensor in self.tensors.values())
        return dict(kinds.most_common())


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
