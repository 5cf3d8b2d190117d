"""Run folders: what a study wrote, with its receipt; loading needs numpy only.

A finished run is ``result.json`` and ``arrays.npz``. An unfinished one has
``run.json``, which says whose it is, and ``units/``, one file for each part that is
done: the same command goes on from there and ends with the same arrays.
"""

import contextlib
import dataclasses
import errno
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads import stops
from jaxheads.errors import UserError, check_file, check_local, first_line
from jaxheads.runs import finite
from jaxheads.runs.locks import LOCK, alone, is_alive

_LOG = logging.getLogger(__name__)
Arrays = dict[str, np.ndarray]
_SEAL = "sha256"
_CHANGED = {"dynamics": 2, "dynamics of seeds": 2, "evidence": 2, "compare-runs": 2}


def schema(study: Any) -> int:
    """Of what a study writes: 1, or more where older runs lack what pages read."""
    return _CHANGED.get(study, 1)


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
    tidy(path)
    sealed = False
    try:
        result = json.loads((path / "result.json").read_text(encoding="utf-8"))
        told = result if isinstance(result, dict) else {}
        asked = schema(told.get("study"))
        if told.get("schema") != asked:
            raise UserError(
                f"{path} was written with another schema than {asked}, the one that "
                "this version reads: give its command again, with a new --out"
            )
        sealed = "sha256" in result or "arrays_sha256" in result  # 0.1.0 wrote none
        if sealed:
            if result["sha256"] != _sha256_of_result(result):
                raise ValueError("result.json is not what was written: wrong SHA-256")
            if result["arrays_sha256"] != _sha256_of_file(path / "arrays.npz"):
                raise ValueError("arrays.npz is not this run's: wrong SHA-256")
        arrays = _read_arrays(path / "arrays.npz")
    except UserError:
        raise
    except PermissionError as error:
        raise _not_readable(error) from error
    except Exception as error:  # zipfile and numpy raise many kinds
        if sealed and isinstance(error, MemoryError):  # its bytes are what they were
            raise UserError(
                f"{path / 'arrays.npz'} needs more memory than there is: free some"
            ) from error
        raise UserError(
            f"{path} is damaged ({first_line(error)}): delete the folder and run the "
            "study again"
        ) from error
    return Run(path, result, arrays)


def write_run(path: Path, result: dict[str, Any], arrays: Arrays) -> None:
    """Write a finished run; ``result.json``, written last, makes it one.

    Args:
        path: its folder.
        result: ready for JSON; hashes of the arrays and of itself are added.
        arrays: by name.
    """
    write_arrays(path / "arrays.npz", arrays)
    sealed = result | {"arrays_sha256": _sha256_of_file(path / "arrays.npz")}
    write_json(path / "result.json", sealed | {"sha256": _sha256_of_result(sealed)})


def tidy(path: Path) -> None:
    """Remove what a kill in the last moment left in a finished run's folder.

    Args:
        path: it is left as it is while a process works in it.
    """
    names = ["run.json", "units", LOCK]
    if (path / "checkpoints").is_dir():  # of a training
        names += ["curves.jsonl", "state"]
    left = [path / name for name in names if (path / name).exists()]
    left += path.glob(".*.partial")
    with contextlib.suppress(OSError, UserError):
        if not left or not (path / "result.json").is_file():
            return
        with alone(path, "folder"):
            for one in left:
                if one.is_dir():
                    shutil.rmtree(one, ignore_errors=True)
                elif one.name.endswith(".partial"):
                    _remove_abandoned(one)
                else:
                    one.unlink(missing_ok=True)


def is_empty(path: Path) -> bool:
    """Whether a folder holds nothing but what a kill or a full disk left of a start."""
    return all(
        one.name == LOCK
        or (one.name.startswith(".") and one.name.endswith(".partial"))
        or (one.name == "units" and one.is_dir() and is_empty(one))
        for one in path.iterdir()
    )


def _sha256_of_file(path: Path) -> str:
    check_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_result(result: dict[str, Any]) -> str:
    told = {name: value for name, value in result.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _not_readable(error: OSError) -> UserError:
    return UserError(
        f"{error.filename} must be readable, but the system says {error.strerror!r}: "
        "give yourself the right to read it"
    )


class RunFolder(contextlib.AbstractContextManager):
    """A run that is being written, unit by unit; ``with`` keeps other writers out.

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
        self._stack = contextlib.ExitStack()
        for name in ("result.json", "run.json"):
            if (self.path / name).is_file():
                self._refuse_unless_ours(self.path / name)
                break
        else:
            self._refuse_unless_empty()
        if not self.finished:
            self._begin()

    def __enter__(self) -> "RunFolder":
        """Lock the folder, unless the run is complete: reading is anybody's.

        Raises:
            UserError: another process is at work in it.
        """
        if self.finished:
            tidy(self.path)
        else:
            self._stack.enter_context(alone(self.path, "--out"))
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def reopen(self) -> None:
        """Make a finished run an unfinished one, which is written again."""
        self._stack.enter_context(alone(self.path, "--out"))
        self._begin()
        (self.path / "result.json").unlink()

    def _begin(self) -> None:
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

    def unit(
        self, name: str, compute: Callable[[], Arrays], axes: finite.Axes = ()
    ) -> Arrays:
        """A unit's arrays: read if done in an earlier try, else computed and written.

        The seconds it took are kept in "seconds". Before and after are safe places.

        Args:
            name: of the unit.
            compute: makes the arrays.
            axes: letters of the arrays' axes, to say where a value is not finite.

        Raises:
            UserError: a value is not finite and may not be NaN, see ``finite``; the
                unit is not written.
        """
        stops.check()
        arrays = self.stored(name)
        if arrays is not None:
            self.check(arrays, axes, name)
            return arrays
        start = time.perf_counter()
        arrays = {key: np.asarray(value) for key, value in compute().items()}
        self.check(arrays, axes, name)
        seconds = time.perf_counter() - start
        arrays["seconds"] = np.asarray(seconds)
        sealed = arrays | {_SEAL: self._seal(name, arrays)}
        write_arrays(self._unit_path(name), sealed)
        _LOG.debug("%s: %.2f s", name, seconds)
        stops.check()
        return arrays

    def check(self, arrays: Arrays, axes: finite.Axes, where: str) -> None:
        """Refuse arrays with values that are not finite, see ``finite``."""
        finite.check_arrays(arrays, axes, where, self.identity)

    def stored(self, name: str) -> Arrays | None:
        """A unit's arrays, if done in an earlier try.

        A file that is damaged, or of another unit or run, is removed.
        """
        path = self._unit_path(name)
        if not path.is_file():
            return None
        try:
            arrays = _read_arrays(path)
            if not np.array_equal(arrays.pop(_SEAL), self._seal(name, arrays)):
                raise ValueError("another unit's")
            return arrays
        except PermissionError as error:
            raise _not_readable(error) from error
        except Exception:  # zipfile, zlib and numpy raise many kinds
            path.unlink()
            return None

    def _seal(self, name: str, arrays: Arrays) -> np.ndarray:
        """A hash of a unit's arrays and of what they are."""
        digest = hashlib.sha256(f"{self.fingerprint} {name}".encode())
        for key, array in sorted(arrays.items()):
            digest.update(f" {key} {array.dtype} {array.shape} ".encode())
            digest.update(array.tobytes())
        return np.frombuffer(digest.digest(), np.uint8)

    def finish(self, result: dict[str, Any], arrays: Arrays) -> Run:
        """Write the finished run; ``result.json``, written last, makes it one.

        What may be NaN and why is added to what ``result["arrays"]`` says.

        Raises:
            UserError: a value is not finite where it must be; nothing is written.
        """
        described = {
            name: dict(told) for name, told in (result.get("arrays") or {}).items()
        }
        axes = {name: told.get("dims", ()) for name, told in described.items()}
        names = {name: _names(name, result) for name in arrays}
        finite.check_arrays(arrays, axes, "the result", self.identity, names)
        finite.check_result(result)
        for name, told in described.items():
            if name in arrays and np.asarray(arrays[name]).dtype.kind == "f":
                told |= {"nan": finite.unknown(name)} if finite.unknown(name) else {}
        about = {"schema": schema(self.identity["study"])}
        receipt = about | {"fingerprint": self.fingerprint} | result
        receipt |= {"arrays": described} if described else {}
        write_run(self.path, self.identity | receipt, arrays)
        (self.path / "run.json").unlink(missing_ok=True)
        shutil.rmtree(self._units, ignore_errors=True)
        return load(self.path)

    def _unit_path(self, name: str) -> Path:
        return self._units / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.npz"

    def _refuse_unless_ours(self, path: Path) -> None:
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            fingerprint = there["fingerprint"]
        except PermissionError as error:
            raise _not_readable(error) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
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
        if self.path.is_dir() and not is_empty(self.path):
            raise UserError(
                f"{self.path} holds other files and no run: give an empty or new folder"
            )


def _names(array: str, result: dict[str, Any]) -> dict[str, list[Any]]:
    """Names of the tasks and sets on an array's axes, by letter."""
    part = result.get(array.split("/")[0])
    sets = part.get("sets") or [] if isinstance(part, dict) else []
    listed = [one.get("name", "") for one in sets]
    tasks = {"A": "scoring_tasks", "E": "evaluation_tasks"}
    named = {letter: list(result.get(key) or ()) for letter, key in tasks.items()}
    own = list(part.get("tasks") or ()) if isinstance(part, dict) else []
    if own:  # of the array's own study
        named |= dict.fromkeys("AEU", own)
    return named | {"N": listed, "M": listed, "W": listed}


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
    # Opened here: numpy leaves a damaged file open.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write to a temporary name beside ``path``, then rename: all or nothing.

    The content is on the disk before it has its name, and the name when this returns.
    """
    if path.is_dir():
        raise UserError(f"{path} must be a file, but is a folder: move it away")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        _remove_abandoned(left)
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk take a file, or the names in a folder, before anything follows."""
    if path.is_dir():
        if os.name != "posix":  # Windows opens no folders
            return
        handle = os.open(path, os.O_RDONLY)
    else:
        handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # has no such thing
            raise
    finally:
        os.close(handle)


def _remove_abandoned(temporary: Path) -> None:
    """Remove what a process left that was killed while it wrote."""
    number = temporary.name.split(".")[-2]
    if not (number.isdecimal() and is_alive(int(number))):
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write an .npz, atomically; the same arrays give the same bytes."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **{k: arrays[k] for k in sorted(arrays)})  # type: ignore[arg-type]

    replace(path, write)


def default_folder(*words: str) -> Path:
    """Such as runs/pythia-160m-step1000-study, of words that are not empty."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(filter(None, words)))
    return Path("runs") / safe


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, atomically."""
    replace(path, lambda temporary: temporary.write_bytes(content))
