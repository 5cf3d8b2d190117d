"""Weights that ``torch.save`` wrote, read without torch and without running anything.

Two formats, both a pickle of {name: tensor} beside the tensors' raw storages: a zip
archive (torch 1.6 and later) and a stream of pickles (before; GPT-2's file is one).
The pickle is read as data (``inert_pickle``); a storage is a part of the mapped file.

Source: torch/serialization.py of torch 2.13 (``_save`` and ``_legacy_save``).
"""

import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

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
from jaxheads.weights.pickles import Damaged, Refused, Storage, Tensor, read_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_WHAT = "weights that torch.save wrote"

# zipfile has no one error for what is wrong with an archive.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    ValueError,
    OverflowError,
    EOFError,
    OSError,
    struct.error,
    NotImplementedError,
    RuntimeError,
)

_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
"""Of pickle, that ``torch.save`` can be told to use; the first is its default."""

Offsets = Mapping[str, int]
"""Where each storage begins in the file, by its key."""


def open_torch(path: Path) -> Mapping[str, StoredTensor]:
    """Open a ``pytorch_model.bin``; tensors are read later, one by one.

    Args:
        path: the file; it must hold a state dict, {name: tensor}.

    Returns:
        Tensors by name, in the order of the file.

    Raises:
        UserError: the file is missing, truncated or damaged, holds something else than
            tensors by name, or its pickle asks for anything but tensors. Nothing of the
            pickle is ever executed.
    """
    data = map_file(path, _WHAT)
    try:
        value, offsets = _read(data)
        problems = _problems(value)
    except Refused as error:
        raise UserError(
            f"{path} must hold tensors and nothing else, but {error}: it was refused "
            "and nothing in it was run; take the model's safetensors, or have its "
            "owner save the plain state dict"
        ) from None
    except Damaged as error:
        problems, value, offsets = [str(error)], {}, {}
    if problems:
        raise UserError(
            f"{path} must be {_WHAT}, but {listed(problems)}: fetch it again"
        )
    return {
        name: stored_tensor(data, path, _extent(name, tensor, offsets))
        for name, tensor in value.items()
    }


def open_tensor(path: Path, what: str) -> np.ndarray:
    """Read the one tensor of a file of ``torch.save``.

    Args:
        path: the file; it must hold a tensor and nothing else.
        what: of what the tensor is, for messages.

    Raises:
        UserError: as for ``open_torch``.
    """
    data = map_file(path, f"a tensor of {what}")
    try:
        value, offsets = _read(data)
        if not isinstance(value, Tensor):
            raise Refused(f"it holds a {type(value).__name__.lower()}")
        if not value.fits():
            raise Damaged(f"its shape {list(value.shape)} reaches outside its storage")
    except Refused as error:
        raise UserError(
            f"{path} must hold one tensor of {what} and nothing else, but {error}: it "
            "was refused and nothing in it was run; have its owner save the tensor"
        ) from None
    except Damaged as error:
        raise UserError(
            f"{path} must be a tensor of {what} that torch.save wrote, but {error}: "
            "fetch it again"
        ) from None
    extent = _extent(what, value, offsets)
    return np.asarray(stored_tensor(data, path, extent).read())


def _read(data: mmap.mmap) -> tuple[Any, Offsets]:
    """What a file holds, and where its storages begin."""
    return (_read_zip if data[:4] == b"PK\x03\x04" else _read_legacy)(data)


def _problems(value: Any) -> list[str]:
    """What keeps a pickle's value from being tensors by name."""
    if not isinstance(value, dict):
        raise Refused(f"it holds a {_kind(value)} instead of tensors by name")
    others = [
        f"{quoted(name if isinstance(name, str) else str(name))} ({_kind(entry)})"
        for name, entry in value.items()
        if not (isinstance(name, str) and isinstance(entry, Tensor))
    ]
    if others:
        wrapper = ", as a training checkpoint does" if "state_dict" in value else ""
        raise Refused(f"it holds {listed(others)}{wrapper}")
    return [
        f"{quoted(name)} of shape {list(tensor.shape)} reaches outside its storage of "
        f"{tensor.storage.num_elements:,} elements"
        for name, tensor in value.items()
        if not tensor.fits()
    ]


def _kind(value: Any) -> str:
    return type(value).__name__.lower()


def _extent(name: str, tensor: Tensor, offsets: Offsets) -> Extent:
    kind, shape = tensor.storage.kind, tensor.shape
    size = KINDS[kind].itemsize
    first = offsets[tensor.storage.key]
    if 0 in shape:  # its offset and strides point nowhere
        return Extent(name, kind, shape, first)
    # The stride of an axis of one element is never used, and may be any number.
    strides = tuple(
        stride * size if n > 1 else 0
        for n, stride in zip(shape, tensor.strides, strict=True)
    )
    return Extent(name, kind, shape, first + tensor.offset * size, strides)


def _read_zip(data: mmap.mmap) -> tuple[Any, Offsets]:
    """The pickle's value, and where its storages lie in the archive."""
    members = _members(data)
    order, length = members.get("byteorder", (0, 0))
    if length and (found := data[order : order + length]) != b"little":
        raise Damaged(f"its byte order is {found[:20]!r} instead of b'little'")
    start, length = members["data.pkl"]
    value, storages, end = read_pickle(data, start)
    if end > start + length:
        raise Damaged("its pickle is longer than its place in the archive")
    problems, offsets = [], {}
    for key, storage in storages.items():
        offsets[key], length = members.get(f"data/{key}", (0, -1))
        expected = _num_bytes(storage)
        if length != expected:
            got = f"{length:,} bytes" if length >= 0 else "no data"
            problems.append(
                f"its storage {quoted(key)} has {got} instead of {expected:,} bytes"
            )
    if problems:
        raise Damaged(listed(problems))
    return value, offsets


def _members(data: mmap.mmap) -> dict[str, tuple[int, int]]:
    """Begin and length of each member, by its name within the archive's one folder."""
    try:
        with zipfile.ZipFile(cast(IO[bytes], data)) as archive:
            infos = archive.infolist()
    except _ZIP_ERRORS as error:
        raise Damaged(
            f"its zip archive has no readable directory ({error}); it may be cut off"
        ) from None
    pickles = [i.filename for i in infos if i.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Damaged(f"its zip archive has {len(pickles)} data.pkl instead of one")
    folder = pickles[0].removesuffix("data.pkl")
    members: dict[str, tuple[int, int]] = {}
    for info in infos:
        name = info.filename.removeprefix(folder)
        if name in members:
            raise Damaged(f"its zip archive has {quoted(info.filename)} twice")
        members[name] = (_member_start(data, info), info.file_size)
    return members


def _member_start(data: mmap.mmap, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its own header, which varies in length."""
    name = quoted(member.filename)
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise Refused(f"{name} in it is compressed or encrypted, as torch never does")
    header = member.header_offset
    if header < 0 or data[header : header + 4] != b"PK\x03\x04":
        raise Damaged(f"its zip archive has no {name} where its directory says")
    lengths = data[header + 26 : header + 30]
    start = header + 30 + sum(struct.unpack("<HH", lengths.ljust(4, b"\0")))
    if member.compress_size != member.file_size or start + member.file_size > len(data):
        raise Damaged(f"{name} in its zip archive does not end within the file")
    return start


def _read_legacy(data: mmap.mmap) -> tuple[Any, Offsets]:
    """The value of the fourth pickle, and the storages that lie behind the fifth."""
    if data[:1] != b"\x80" or data[1:2] not in _PROTOCOLS:
        raise Damaged(f"begins with {data[:12]!r}, which is neither zip nor pickle")
    magic, _, end = read_pickle(data, 0)
    protocol, _, end = read_pickle(data, end)
    if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL):
        raise Damaged("does not begin with torch's magic number and version")
    system, _, end = read_pickle(data, end)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Damaged("was not written by a little-endian machine")
    value, storages, end = read_pickle(data, end)
    keys, _, end = read_pickle(data, end)
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys):
        raise Damaged("lacks the list of its storages")
    if sorted(keys) != sorted(storages):
        raise Damaged("has other storages than its tensors name")
    problems, offsets = [], {}
    for key in keys:
        expected, num_bytes = storages[key].num_elements, _num_bytes(storages[key])
        count = int.from_bytes(data[end : end + 8], "little")
        offsets[key], end = end + 8, end + 8 + num_bytes
        if end > len(data):
            problems.append(
                f"its storage {quoted(key)} ends at byte {end:,} of {len(data):,}"
            )
        elif count != expected:
            problems.append(
                f"its storage {quoted(key)} has {count:,} elements instead of "
                f"{expected:,}"
            )
    if end < len(data):
        problems.append(f"{len(data) - end:,} bytes at its end belong to no tensor")
    if problems:
        raise Damaged(listed(problems))
    return value, offsets


def _num_bytes(storage: Storage) -> int:
    return storage.num_elements * KINDS[storage.kind].itemsize
