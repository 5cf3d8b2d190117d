"""The hash of params: what a receipt knows a model by."""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


class ParamsDigest:
    """SHA-256 of a tree of params, leaf by leaf, in the background.

    It is the hash of one line a leaf, in order of the paths: path, dtype, shape, and
    the SHA-256 of the bytes.
    """

    def __init__(self):
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
        self._lines: dict[str, Future[str]] = {}

    def add(self, path: str, values: np.ndarray) -> None:
        """Take a leaf, which must not change any more."""
        self._lines[path] = self._pool.submit(_line, path, values)

    def hexdigest(self) -> str:
        """The hash of the leaves so far, in hexadecimal."""
        lines = [line.result() for _, line in sorted(self._lines.items())]
        self._pool.shutdown()
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def params_sha256(params: Any) -> str:
    """SHA-256 of params, see ``ParamsDigest``."""
    digest = ParamsDigest()
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        digest.add(dotted(path), np.asarray(leaf))
    return digest.hexdigest()


def dotted(keys: tuple[Any, ...]) -> str:
    """A key path of jax as "layers.wq"."""
    return jax.tree_util.keystr(keys, simple=True, separator=".")


def _line(path: str, values: np.ndarray) -> str:
    # As bytes, whatever the dtype; a view, since the leaf may be large.
    bytes_ = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return (
        f"{path} {values.dtype.name} {list(values.shape)} "
        f"{hashlib.sha256(bytes_.data).hexdigest()}\n"
    )
