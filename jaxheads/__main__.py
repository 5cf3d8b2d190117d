"""The entry of ``jaxheads`` and ``python -m jaxheads``: errors become one sentence."""

import codecs
import errno
import os
import sys
import unicodedata
import warnings


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits 2 on a user's mistake, 130 on Ctrl-C."""
    from jaxheads.errors import UserError

    warnings.showwarning = _show_warning
    _speak_any_encoding()
    given = sys.argv[1:] if arguments is None else arguments
    if given == ["--version"]:
        from importlib.metadata import version

        print(f"jaxheads {version('jaxheads')}")
        return
    try:
        for word in given:
            _check_utf8(word)
        from jaxheads.cli import run

        run(given)
    except UserError as error:
        _stop(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _stop(
                f"there must be room to write {error.filename or 'the run'}, but the "
                "disk is full: free some and give the same command again, it goes on "
                "where it stopped",
                2,
            )
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            _stop(
                f"{error.filename} must be readable and its folder writable, but the "
                f"system says {error.strerror!r}: give another path",
                2,
            )
        raise
    except KeyboardInterrupt as stop:
        _stop(f"interrupted: {stop.args[0] if stop.args else _GOES_ON}", 130)


_GOES_ON = "the same command goes on where it stopped"


def _speak_any_encoding() -> None:
    """Let what a stream's encoding lacks be written in ASCII: ± as +-, é as e."""
    codecs.register_error("jaxheads", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what replaces a stream may be no file
            stream.reconfigure(errors="jaxheads")  # type: ignore[union-attr]


_ASCII = {
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{BULLET}": "-",
    "\N{MIDDLE DOT}": "-",
}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    plain = unicodedata.normalize("NFKD", "".join(_ASCII.get(c, c) for c in text))
    bare = "".join(c for c in plain if not unicodedata.combining(c))
    return bare.encode("ascii", "replace").decode(), error.end


def _check_utf8(word: str) -> None:
    """Refuse a path that no run could write into its receipt."""
    from jaxheads.errors import UserError

    try:
        word.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"arguments and paths must be UTF-8, but {word!a} is not: rename the "
            "file or folder, or link to it under another name"
        ) from None


def _stop(message: str, code: int) -> None:
    print(f"jaxheads: {message}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Warnings as a line for the person, without the source position."""
    print(f"jaxheads: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
