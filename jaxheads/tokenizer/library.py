"""Calls of the tokenizers library, whose panics are no ordinary exceptions.

A file may make the library panic: while it is read (a table that cannot be parsed) or
later, on a text (a pattern that backtracks for ever).
"""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

import tokenizers

from jaxheads.errors import UserError

Parts = tuple[tokenizers.Tokenizer, int | None, bool]
"""The tokenizer, the id of the token that begins a sequence, and whether the model was
made with that token before every text."""

_PROBES = [chr(code) * 64 for code in range(32, 127)]
"""A run of each printable character: patterns that backtrack do so on runs."""

HIGHEST_ID = 10_000_000
"""The library counts up to the highest id whenever it writes a tokenizer."""

_ONE_AT_A_TIME = threading.Lock()
"""Standard error is the process's."""


def tried(read: Callable[[], Parts], source: str) -> Parts:
    """What ``read`` gives, once it has encoded a text.

    Args:
        read: makes the tokenizer of files.
        source: what the message calls them.

    Raises:
        UserError: the library panics, or an id is beyond any vocabulary; or from
            ``read``.
    """
    sentence = f"the tokenizer of {source} must work on any text, but the library says"
    with told(sentence, "fetch it again"), _ONE_AT_A_TIME, _no_panic_printed():
        parts = read()
        vocabulary = parts[0].get_vocab(with_added_tokens=True)
        token = max(vocabulary, key=vocabulary.__getitem__, default="")
        if token and vocabulary[token] > HIGHEST_ID:
            raise UserError(
                f"the tokenizer of {source} must have ids up to {HIGHEST_ID:,}, but "
                f"gives {token[:30]!r} the id {vocabulary[token]:,}: fetch it again"
            )
        for text in _PROBES:
            parts[0].encode(text, add_special_tokens=False)
    return parts


@contextlib.contextmanager
def told(sentence: str, advice: str) -> Iterator[None]:
    """Within ``with``: what the library raises becomes a ``UserError``.

    A lack of memory says nothing of a file, and stays what it is.

    Args:
        sentence: what was expected; the library's reason follows.
        advice: what to do.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except BaseException as error:
        # The library raises Exception itself, and a panic's class cannot be imported.
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        raise UserError(f"{sentence} {str(error)[:200]!r}: {advice}") from error


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


@contextlib.contextmanager
def _no_panic_printed() -> Iterator[None]:
    """Drop the lines that a panic writes to standard error, past ``sys.stderr``."""
    try:
        written = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
    except OSError:  # nothing can be written: the lines stay
        yield
        return
    with written:
        try:
            kept = os.dup(2)
        except OSError:  # there is no standard error
            yield
            return
        panic = False
        try:
            os.dup2(written.fileno(), 2)
            yield
        except BaseException as error:
            panic = _is_panic(error)
            raise
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if not panic:  # a warning, or a bar that moves on
                written.seek(0)
                with contextlib.suppress(OSError):
                    os.write(2, written.read())
