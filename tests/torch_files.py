"""Writes files as torch.save does, opcode by opcode, for tests without torch."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxheads.weights.torch_bin import LEGACY_MAGIC, LEGACY_PROTOCOL

STORAGES = {"float64": "Double", "float32": "Float", "float16": "Half"}


def write_zip(path: Path, pickled: bytes, storages=None, **changed) -> Path:
    """An archive as torch's, with the parts that ``changed`` gives put in."""
    compression = changed.pop("compression", zipfile.ZIP_STORED)
    parts = {"data.pkl": pickled, "byteorder": b"little", "version": b"3\n"}
    parts |= {f"data/{key}": data for key, data in (storages or {}).items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in (parts | changed).items():
            archive.writestr(f"archive/{name}", data)
    return path


def write_legacy(
    path: Path, pickled: bytes, keys=(), data=b"", little=True, protocol=2
) -> Path:
    """The format before zip, with the list of storages and what follows it."""
    head = [LEGACY_MAGIC, LEGACY_PROTOCOL, {"little_endian": little}]
    parts = [pickle.dumps(value, protocol) for value in head]
    last = pickle.dumps(list(keys), protocol)
    path.write_bytes(b"".join([*parts, pickled, last]) + bytes(data))
    return path


def text(value: str) -> bytes:
    """The opcode of a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def named(module: str, attribute: str) -> bytes:
    """The opcode that asks for a class or a function."""
    return f"c{module}\n{attribute}\n".encode()


def storage(kind="FloatStorage", key="0", count=4, tag="storage") -> bytes:
    """The opcodes that refer to a storage."""
    parts = [text(tag), named("torch", kind), text(key), text("cpu")]
    return b"(" + b"".join(parts) + b"J" + struct.pack("<i", count) + b"tQ"


def long1(value: int) -> bytes:
    """The opcode of an integer of any size."""
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def tensor(shape=(2, 2), strides=(2, 1), offset=0, stored=None, last=b"") -> bytes:
    """The opcodes of one tensor."""
    numbers = [b"(" + b"".join(map(long1, each)) + b"t" for each in (shape, strides)]
    hooks = named("collections", "OrderedDict") + b")R"
    arguments = (stored or storage()) + long1(offset) + b"".join(numbers) + b"\x89"
    return (
        named("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + arguments
        + hooks
        + last
        + b"tR"
    )


def state_dict(**entries: bytes) -> bytes:
    """A whole pickle of tensors by name."""
    items = b"".join(text(key) + value for key, value in entries.items())
    return b"\x80\x02}(" + items + b"u."


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """A state dict of any arrays, in the zip format."""
    entries, storages = {}, {}
    for i, (key, values) in enumerate(tensors.items()):
        values = np.ascontiguousarray(values)
        kind = STORAGES[values.dtype.name] + "Storage"
        strides = [step // values.itemsize for step in values.strides]
        entries[key] = tensor(
            values.shape, strides, stored=storage(kind, str(i), values.size)
        )
        storages[str(i)] = values.tobytes()
    return write_zip(path, state_dict(**entries), storages)
