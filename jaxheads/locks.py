"""Locks on folders: one process writes, and a dead one keeps nobody out."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from jaxheads.errors import UserError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool | None]:
    """Lock a folder until the block or the process ends.

    Args:
        folder: that is there; nothing is written into it.

    Returns:
        True: it is ours; False: another process has it; None: this system, or this
        file system, has no locks, so nobody can know.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield None
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        ours: bool | None = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ours = False
        except OSError:
            ours = None
        yield ours
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(folder: Path, option: str) -> Iterator[None]:
    """Keep other processes from writing into a folder; without locks nothing does.

    Args:
        folder: that is there.
        option: what another folder is given by, for the message.

    Raises:
        UserError: another process has it.
    """
    with locked(folder) as ours:
        if ours is False:
            raise UserError(
                f"{folder} must be written by one process, but another is at work in "
                f"it: wait for it, stop it, or give another {option}"
            )
        yield
