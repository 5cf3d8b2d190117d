"""Safetensors files: a checked header, and tensors that stay on disk until used.

The ``safetensors`` library copies each tensor and gives no page back; here a tensor is
a view of the mapped file, and every damage of the header comes in one sentence.

Source: the format's description in the safetensors repository (README.md, "Format").
"""

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxheads.errors import UserError
from jaxheads.weights.checkpoint import (
    KINDS,
    Extent,
    StoredTensor,
    listed,
    map_file,
    quoted,
    stored_tensor,
    whole_numbers,
)

MOST_HEADER_BYTES = 100_000_000
"""Longer headers are damaged; it is also the library's limit."""


class _Malformed(Exception):
    """The header cannot be read at all; the message goes on a path."""


def open_safetensors(path: Path) -> Mapping[str, StoredTensor]:
    """Open a safetensors file; tensors are read later, one by one.

    Args:
        path: the file.

    Returns:
        Tensors by name, in the order of the header.

    Raises:
        UserError: the file is missing, truncated or damaged; all that is wrong with
            its tensors is named.
    """
    data = map_file(path, "a safetensors file")
    try:
        start, entries, problems = _header(data)
        extents = _extents(entries, start, problems)
        problems += _layout_problems(extents, start, len(data))
    except _Malformed as error:
        problems, extents = [str(error)], []
    if problems:
        raise UserError(
            f"{path} must be a whole safetensors file, but {listed(problems)}: fetch "
            "it again"
        )
    return {extent.name: stored_tensor(data, path, extent) for extent in extents}


def _header(data: mmap.mmap) -> tuple[int, dict[str, Any], list[str]]:
    """Where the tensors begin, the header's entries, and names that come twice."""
    length, size = int.from_bytes(data[:8], "little"), len(data)
    if size < 8 or length > size - 8:
        raise _Malformed(
            f"has {size:,} bytes where its header alone takes {length + 8:,}"
            if size >= 8
            else f"has only {size} bytes"
        )
    if length > MOST_HEADER_BYTES:
        raise _Malformed(f"gives its header {length:,} bytes, which no model needs")
    problems: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for name, value in pairs:
            if name in entries:
                problems.append(f"{quoted(name)} comes twice")
            entries[name] = value
        return entries

    try:
        header = data[8 : 8 + length].decode()
        entries = json.loads(header, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, too deep
        raise _Malformed(f"has a header that is not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise _Malformed("has a header that is not a JSON object")
    entries.pop("__metadata__", None)
    return 8 + length, entries, problems


def _extents(
    entries: Mapping[str, Any], start: int, problems: list[str]
) -> list[Extent]:
    """Each entry that makes sense by itself; of the others, what is wrong."""
    extents = []
    for name, entry in entries.items():
        entry = entry if isinstance(entry, dict) else {}
        kind, shape = entry.get("dtype"), entry.get("shape")
        offsets = entry.get("data_offsets")
        if not (isinstance(kind, str) and kind in KINDS):
            shown = quoted(kind) if isinstance(kind, str) else "nothing"
            problems.append(f"{quoted(name)} has {shown} as its element type")
        elif not (isinstance(shape, list) and whole_numbers(shape)):
            problems.append(f"{quoted(name)} has no proper shape")
        elif not (
            isinstance(offsets, list) and len(offsets) == 2 and whole_numbers(offsets)
        ):
            problems.append(f"{quoted(name)} has no proper place in the file")
        else:
            begin, end = offsets
            num_bytes = math.prod(shape) * KINDS[kind].itemsize
            extents.append(Extent(name, kind, tuple(shape), start + begin))
            if end - begin != num_bytes:
                problems.append(
                    f"{quoted(name)} has {end - begin:,} bytes where {kind} of shape "
                    f"{shape} takes {num_bytes:,}"
                )
    return extents


def _layout_problems(extents: list[Extent], start: int, size: int) -> list[str]:
    """Tensors must follow each other without gap or overlap, up to the file's end."""
    problems = []
    end, previous = start, "the header"
    for extent in sorted(extents, key=lambda extent: (extent.offset, extent.num_bytes)):
        name = quoted(extent.name)
        if extent.offset < end:
            problems.append(f"{name} overlaps {previous}")
        elif extent.offset > end:
            gap = extent.offset - end
            problems.append(f"{gap:,} bytes before {name} belong to no tensor")
        last = extent.offset + extent.num_bytes
        end, previous = max(end, last), name
        if last > size:
            problems.append(f"{name} ends at byte {last:,} of {size:,}")
    if end < size:
        problems.append(f"{size - end:,} bytes at its end belong to no tensor")
    return problems
