"""Locks on folders: one process writes, and a dead one keeps nobody out."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from jaxheads.errors import UserError

LOCK = ".lock"
"""In a folder that is being written: the number and the machine of the process."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool | None]:
    """Lock a folder until the block or the process ends.

    Args:
        folder: that is there; nothing is written into it.

    Returns:
        True: it is ours; False: another process has it; None: this system, or this
        file system, has no locks, so nobody can know.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(folder: Path, option: str, name: str = LOCK) -> Iterator[None]:
    """Keep other processes from writing into a folder; without locks nothing does.

    The lock is on a file, which network file systems lock for all machines; it is
    there for as long as the block lasts.

    Args:
        folder: that is there.
        option: what another folder is given by, for the message.
        name: of the lock's file, where parts of a folder are written apart.

    Raises:
        UserError: another process has it.
    """
    path = folder / name
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _lock(handle) is False:
                raise occupied(folder, option, os.read(handle, 300))
            if not _is_still(path, handle):  # removed by its owner while we waited
                continue
            os.truncate(handle, 0)
            os.write(handle, f"{os.getpid()} {socket.gethostname()}".encode())
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(handle)


def occupied(folder: Path, option: str, told: bytes = b"") -> UserError:
    """The error that another process is at work, which has told its number or not."""
    number, _, machine = told.decode("utf-8", "replace").partition(" ")
    owner = f" (process {number} on {machine})" if number.isdecimal() else ""
    return UserError(
        f"{folder} must be written by one process, but another is at work in it{owner}"
        f": wait for it, stop it, or give another {option}"
    )


def is_alive(number: int) -> bool:
    """Whether this machine has a process of this number."""
    if os.name != "posix":  # where asking would end it
        return True
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _lock(handle: int) -> bool | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
