"""Runs of several processes: the first one alone reads and writes the run folder.

The processes need no common file system; what the first one reads it sends to the
others, so that all of them take the same way through a study.
"""

import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxheads import runs, stops
from jaxheads.errors import UserError
from jaxheads.runs import finite


def open_folder(path: str | Path, study: str, config: dict, model: dict) -> Any:
    """A run folder; of one process or of all, see ``runs.RunFolder``.

    Raises:
        UserError: on every process, what the first one finds wrong with the folder.
    """
    if jax.process_count() == 1:
        return runs.RunFolder(path, study, config, model)
    return SharedFolder(path, study, config, model)


def load(path: str | Path) -> runs.Run:
    """A finished run, as the first process finds it; see ``runs.load``."""
    if jax.process_count() == 1:
        return runs.load(path)
    path = Path(path)
    arrays = _unpack(of_first(lambda: _pack(runs.load(path).arrays)))
    told = of_first((path / "result.json").read_bytes)
    return runs.Run(path, json.loads(told), arrays)


def is_file(path: Path) -> bool:
    """Whether the first process has a file."""
    if jax.process_count() == 1:
        return path.is_file()
    return bool(of_first(lambda: b"there" if path.is_file() else b""))


def of_first(call: Callable[[], bytes]) -> bytes:
    """Bytes that the first process makes, on every process.

    Raises:
        UserError: on every process, if the first one raises it.
    """
    wrong, made = "", b""
    if jax.process_index() == 0:
        try:
            made = call()
        except UserError as error:
            wrong = str(error)
    told = _broadcast(wrong.encode())
    if told:
        raise UserError(told.decode())
    return _broadcast(made)


def _broadcast(data: bytes) -> bytes:
    size = multihost_utils.broadcast_one_to_all(np.uint32(len(data)))
    if not size:
        return b""
    first = jax.process_index() == 0
    sent = np.frombuffer(data, np.uint8) if first else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(sent), np.uint8).tobytes()


class SharedFolder(contextlib.AbstractContextManager):
    """``runs.RunFolder`` of several processes; they stop together, between units.

    All call the same methods in the same order; the arguments are those of
    ``runs.RunFolder``.
    """

    def __init__(self, path: str | Path, study: str, config: dict, model: dict):
        self.path = Path(path)
        self._identity = {"study": study, "config": config, "model": model}
        self._own: runs.RunFolder | None = None

        def make() -> bytes:
            self._own = runs.RunFolder(path, study, config, model)
            return b""

        of_first(make)
        stops.hold()

    def __enter__(self) -> "SharedFolder":
        """Lock the folder, unless the run is complete."""

        def lock() -> bytes:
            self._first.__enter__()
            return b""

        of_first(lock)
        return self

    def __exit__(self, *error) -> None:
        if self._own is not None:
            self._own.__exit__(*error)

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return is_file(self.path / "result.json")

    def has(self, name: str) -> bool:
        """Whether a unit is done."""
        return bool(of_first(lambda: b"there" if self._first.has(name) else b""))

    def unit(
        self, name: str, compute: Callable[[], runs.Arrays], axes: finite.Axes = ()
    ) -> runs.Arrays:
        """A unit's arrays: the first process' if done, else computed by all."""
        if multihost_utils.process_allgather(np.int32(stops.code())).any():
            raise stops.Stopped(stops.GOES_ON)
        stored = of_first(lambda: _pack(self._first.stored(name) or {}))
        if arrays := _unpack(stored):
            self.check(arrays, axes, name)
            return arrays
        if self._own is not None:
            return self._own.unit(name, compute, axes)
        start = time.perf_counter()
        arrays = {key: np.asarray(value) for key, value in compute().items()}
        # All processes have the same values, and stop at the same one.
        self.check(arrays, axes, name)
        return arrays | {"seconds": np.asarray(time.perf_counter() - start)}

    def check(self, arrays: runs.Arrays, axes: finite.Axes, where: str) -> None:
        """Refuse arrays with values that are not finite, see ``finite``."""
        finite.check_arrays(arrays, axes, where, self._identity)

    def finish(self, result: dict[str, Any], arrays: runs.Arrays) -> runs.Run:
        """Write the finished run."""

        def write() -> bytes:
            self._first.finish(result, arrays)
            return (self.path / "result.json").read_bytes()

        return runs.Run(self.path, json.loads(of_first(write)), arrays)

    @property
    def _first(self) -> runs.RunFolder:
        assert self._own is not None, "only the first process asks its folder"
        return self._own


def _pack(arrays: runs.Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpack(data: bytes) -> runs.Arrays:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
