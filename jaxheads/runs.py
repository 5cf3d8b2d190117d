"""Run folders: what a study wrote, with its receipt; loading needs numpy only.

A finished run is ``result.json`` and ``arrays.npz``. An unfinished one has
``run.json``, which says whose it is, and ``units/``, one file for each part that is
done: the same command goes on from there and ends with the same arrays.
"""

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads.errors import UserError, check_local

_LOG = logging.getLogger(__name__)
SCHEMA = 1
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        result: what ``result.json`` says.
        arrays: named arrays; their dims stand in ``result["arrays"]``.
    """

    path: Path
    result: dict[str, Any]
    arrays: Arrays


def load(path: str | Path) -> Run:
    """Read a finished run.

    Raises:
        UserError: the folder is no run, unfinished, damaged, or of another schema.
    """
    path = Path(path)
    if not (path / "result.json").is_file():
        if (path / "run.json").is_file():
            raise UserError(
                f"{path} holds a run that has not finished: give its command again and "
                "it goes on where it stopped"
            )
        raise UserError(
            f"{path} should be a run's folder with result.json and arrays.npz, but "
            "has none: give a folder that a `jaxheads` command wrote"
        )
    try:
        result = json.loads((path / "result.json").read_text(encoding="utf-8"))
        arrays = _read_arrays(path / "arrays.npz")
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete the folder and run the study again"
        ) from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise UserError(
            f"{path} was written with another schema than {SCHEMA}, the one that this "
            "version reads: run the study again"
        )
    return Run(path, result, arrays)


class RunFolder:
    """A run that is being written, unit by unit.

    Args:
        path: its folder; made if absent.
        study: name of the study.
        config: the whole config, ready for JSON.
        model: what identifies the model, ready for JSON.

    Raises:
        UserError: the folder belongs to another config or model, or is not a run's.
    """

    def __init__(self, path: str | Path, study: str, config: dict, model: dict):
        check_local(path)
        self.path = Path(path)
        self.identity = json.loads(
            json.dumps({"study": study, "config": config, "model": model})
        )
        canonical = json.dumps(self.identity, sort_keys=True)
        self.fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
        self._units = self.path / "units"
        for name in ("result.json", "run.json"):
            if (self.path / name).is_file():
                self._refuse_unless_ours(self.path / name)
                break
        else:
            self._refuse_unless_empty()
        if not self.finished:
            self._units.mkdir(parents=True, exist_ok=True)
            receipt = self.identity | {"fingerprint": self.fingerprint}
            write_json(self.path / "run.json", receipt)

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return (self.path / "result.json").is_file()

    def has(self, name: str) -> bool:
        """Whether a unit is done."""
        return self._unit_path(name).is_file()

    def unit(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """A unit's arrays: read if done in an earlier try, else computed and written.

        The seconds it took are kept in "seconds".
        """
        stored = self.stored(name)
        if stored is not None:
            return stored
        start = time.perf_counter()
        arrays = {key: np.asarray(value) for key, value in compute().items()}
        seconds = time.perf_counter() - start
        arrays["seconds"] = np.asarray(seconds)
        write_arrays(self._unit_path(name), arrays)
        _LOG.debug("%s: %.2f s", name, seconds)
        return arrays

    def stored(self, name: str) -> Arrays | None:
        """A unit's arrays, if done in an earlier try; a damaged file is removed."""
        path = self._unit_path(name)
        if not path.is_file():
            return None
        try:
            return _read_arrays(path)
        except (OSError, ValueError, zipfile.BadZipFile):
            path.unlink()
            return None

    def finish(self, result: dict[str, Any], arrays: Arrays) -> Run:
        """Write the finished run; ``result.json``, written last, makes it one."""
        receipt = {"schema": SCHEMA, "fingerprint": self.fingerprint} | result
        write_arrays(self.path / "arrays.npz", arrays)
        write_json(self.path / "result.json", self.identity | receipt)
        (self.path / "run.json").unlink(missing_ok=True)
        shutil.rmtree(self._units, ignore_errors=True)
        return load(self.path)

    def _unit_path(self, name: str) -> Path:
        return self._units / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.npz"

    def _refuse_unless_ours(self, path: Path) -> None:
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            fingerprint = there["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({error}): delete the folder or give another --out"
            ) from error
        if fingerprint != self.fingerprint:
            changes = ", ".join(_differences(there, self.identity)[:4])
            raise UserError(
                f"{self.path} holds a run of another config or model ({changes}): give "
                "another --out, or delete the folder"
            )

    def _refuse_unless_empty(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(
                f"--out must be a folder, but {self.path} is a file: give another"
            )
        if self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(
                f"{self.path} holds other files and no run: give an empty or new folder"
            )


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Where two identities differ: ["config.seed: 0 there, 1 asked for", ...]."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            line
            for key in here
            for line in _differences(
                there.get(key), here[key], f"{name}.{key}" if name else key
            )
        ]
    return [] if there == here else [f"{name}: {there!r} there, {here!r} asked for"]


def _read_arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write to a temporary name beside ``path``, then rename: all or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write an .npz, atomically; the same arrays give the same bytes."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **{k: arrays[k] for k in sorted(arrays)})  # type: ignore[arg-type]

    _replace(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    _replace(path, write)
