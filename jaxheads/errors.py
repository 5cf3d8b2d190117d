"""The one error type whose message is written for the person at the terminal."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

MOST = 100_000
"""Of what is counted: prompts, windows, seeds, layers."""
MOST_TOKENS = 1_000_000
"""Of one sequence, or of a vocabulary."""


class UserError(ValueError):
    """A mistake that the user can mend: what was expected, what came, what to do.

    The command line prints the message alone and ends with exit code 2; in Python
    it is an ordinary ``ValueError``. Whatever a file or another library put into the
    message, it is one line without control characters.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(text: object) -> str:
    """A text on one line: breaks become spaces, control characters are escaped."""
    joined = re.sub(
        r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", str(text).strip()
    )
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]",
        lambda found: ascii(found[0])[1:-1],
        joined,
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut if it is very long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def check_counts(*counts: tuple[str, float, int], most: float = MOST) -> None:
    """Refuse counts that are too small, or that no machine has the memory or time for.

    Args:
        counts: name, count, and the least that it may be.
        most: that each may be.

    Raises:
        UserError: one is out of these bounds.
    """
    for name, count, least in counts:
        if not count >= least:
            raise UserError(f"{name} must be {least} or more, but is {count}")
        if count > most:
            raise UserError(f"{name} must be at most {most:,}, but is {count:,}")


def check_local(path: str | PurePath) -> None:
    """Refuse the address of an object store, which would become a folder named "gs:".

    Raises:
        UserError: the path begins with a scheme, such as gs:// or s3://.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise UserError(
            f"a path must be of this machine or of a mounted file system, but {path} "
            "is an address: copy it here, or mount it"
        )


def check_file(path: Path) -> None:
    """Refuse what is there and no file; a pipe or a device may never end.

    Raises:
        UserError: it is a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise UserError(f"{path} must be a file, but is {kind}: give a file")


def check_shares(*shares: tuple[str, Iterable[float]]) -> None:
    """Refuse shares of all heads that are not between 0 and 1.

    Args:
        shares: name and values.

    Raises:
        UserError: one is out of these bounds.
    """
    for name, values in shares:
        if wrong := [value for value in values if not 0 <= value <= 1]:
            raise UserError(
                f"{name} takes shares of heads between 0 and 1, not {wrong[0]}"
            )


def check_tasks(name: str, tasks: Sequence[str], least: int = 1) -> None:
    """Refuse tasks that are named twice, or fewer than there must be.

    Raises:
        UserError: it is so.
    """
    if len(tasks) < least or len(set(tasks)) < len(tasks):
        raise UserError(
            f"{name} takes one or more different tasks, not {' '.join(tasks)!r}"
        )
