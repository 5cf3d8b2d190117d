"""Copying tensors into params: cast and transposed, at the speed of the disk."""

import itertools

import ml_dtypes
import numpy as np

_TILE = 256
"""Side of a tile; two tiles of float32 fit in half a megabyte, a core's own cache."""

_CHUNK = 1 << 16
"""Elements that are looked at together; their temporaries stay in the cache."""

_EXPONENTS = {
    "float64": (np.uint64, 0x7FF0000000000000),
    "float32": (np.uint32, 0x7F800000),
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
}
"""Bits of a float's exponent; all are set in NaN and infinity, and only there."""


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array whose memory jax's CPU backend takes over without a copy."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def copy_into(target: np.ndarray, source: np.ndarray) -> bool:
    """``target[...] = source`` for any strides of the source and any two float dtypes.

    Numpy alone walks a transposed source in the target's order, which misses the cache
    at every element; here it is read tile by tile along its own fastest axis.

    Args:
        target: with contiguous rows, as has any part of a contiguous array.
        source: of the same shape.

    Returns:
        Whether the target is finite everywhere, looked at while it is in the cache.
    """
    if source.ndim < 2 or source.strides[-1] == source.itemsize:
        return _copy_rows(target, source)
    fastest = int(np.argmin(source.strides))
    last = source.ndim - 1
    steps = [1] * source.ndim
    steps[fastest] = steps[last] = _TILE
    ranges = [range(0, n, step) for n, step in zip(source.shape, steps, strict=True)]
    fine = True
    for start in itertools.product(*ranges):
        tile = tuple(slice(i, i + n) for i, n in zip(start, steps, strict=True))
        part = source[tile].swapaxes(fastest, last).copy()  # contiguous as it lay
        part = _cast(part, target.dtype)
        target[tile] = part.swapaxes(fastest, last)
        fine &= all_finite(part)
    return fine


def _copy_rows(target: np.ndarray, source: np.ndarray) -> bool:
    """Copy where the rows of both are contiguous, in chunks."""
    if source.size > _CHUNK:
        axis = next(i for i, length in enumerate(source.shape) if length > 1)
        half = source.shape[axis] // 2
        halves = (slice(None, half), slice(half, None))
        index = [(slice(None),) * axis + (part,) for part in halves]
        return all([_copy_rows(target[part], source[part]) for part in index])
    part = _cast(source, target.dtype)
    bits = np.dtype(f"u{target.itemsize}")  # copied faster than bfloat16
    target.view(bits)[...] = part.view(bits)
    return all_finite(part)


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if values.dtype == ml_dtypes.bfloat16 and dtype == np.float32:
        # The upper half of the bits; ten times as fast as the cast.
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.astype(dtype, copy=False)


def all_finite(values: np.ndarray) -> bool:
    """Whether no element of a float array is NaN or infinite."""
    kind, exponent = _EXPONENTS[values.dtype.name]
    bits = values.reshape(-1).view(kind)
    return not any(
        ((bits[i : i + _CHUNK] & kind(exponent)) == kind(exponent)).any()
        for i in range(0, len(bits), _CHUNK)
    )
