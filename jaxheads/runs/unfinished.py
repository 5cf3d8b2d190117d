"""Folders that are written whole or not at all."""

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxheads import stops
from jaxheads.errors import UserError
from jaxheads.runs import sync
from jaxheads.runs.locks import locked, occupied

MARK = ".unfinished-"
"""Between the name that a folder will have and the writing process's number."""


def free_folder(folder: Path) -> Path:
    """The absolute path of a folder that can be written: new, or empty.

    Raises:
        UserError: it holds something, or another process is about to write it.
    """
    folder = Path(os.path.realpath(folder.expanduser()))
    _refuse_unless_free(folder)
    _remove_abandoned(folder)
    return folder


def _refuse_unless_free(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder} must be a new or an empty folder, but holds "
            f"{min(path.name for path in folder.iterdir())}: give another, or delete it"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder} must be a new or an empty folder, but is a file: give another"
        )


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into; it gets its name, all files on the disk, at the end.

    Until then it lies beside, under a name with ``MARK``; it is removed if the block
    raises, and by the next writer of the same folder if the process was killed.

    Args:
        folder: new, or an empty one; missing parents are made.

    Raises:
        UserError: it holds something, or the disk does not take it.
    """
    folder = free_folder(folder)
    made = [parent for parent in folder.parents if not parent.exists()]
    unfinished = folder.with_name(f"{folder.name}{MARK}{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
        with locked(unfinished):
            yield unfinished
            for path in [*unfinished.rglob("*"), unfinished]:
                sync(path)
            stops.check()
            _refuse_unless_free(folder)  # another process may have written it
            if folder.is_dir():
                folder.rmdir()
            os.replace(unfinished, folder)
            sync(folder.parent)
    except OSError as error:
        raise UserError(
            f"{folder} must be writable, but: {error.strerror or error}: free some "
            "room or give another folder"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.exists():
            for parent in made:  # the nearest first; a parent in use stays
                with contextlib.suppress(OSError):
                    parent.rmdir()


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left of the same folder.

    Raises:
        UserError: one of them is at work.
    """
    for left in folder.parent.glob(f"{glob.escape(folder.name)}{MARK}*"):
        # It may get its name, or be removed by another process, at any moment.
        with contextlib.suppress(OSError), locked(left) as abandoned:
            if abandoned:
                shutil.rmtree(left, ignore_errors=True)
            elif abandoned is False:
                raise occupied(folder, "folder")
