"""The entry of ``jaxheads`` and ``python -m jaxheads``: errors become one sentence."""

import codecs
import contextlib
import errno
import os
import signal
import sys
import unicodedata
import warnings


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Exits 2 on a user's mistake, 130 on Ctrl-C and ``--stop-after``, 143 on SIGTERM,
    129 on SIGHUP.

    Args:
        arguments: of the command; None: those of the process, which then is its own.
    """
    own = arguments is None
    if own:  # until the work listens to them, there is nothing to keep or to say
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os._exit(128 + number))
        sys.unraisablehook = _show_unraisable
    from jaxheads import stops

    with stops.listening(own) as asked:
        message, code = _run(arguments)
    if stopped := asked.code():  # it explains whatever came after it
        said = message if code == 130 else f"interrupted: {stops.GOES_ON}"
        message, code = said, stopped
    if message:
        with contextlib.suppress(OSError):  # nobody may be there to read it
            print(f"jaxheads: {message}", file=sys.stderr)
    if own and stopped and not asked.held:  # several processes take leave of each other
        # Threads may still compile or fetch: the interpreter's end would crash in them.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                print(end="", flush=True, file=stream)
        os._exit(code)
    if code:
        sys.exit(code)


def _run(arguments: list[str] | None) -> tuple[str, int]:
    """What there is to say in the end, and the exit code."""
    from jaxheads.errors import UserError

    warnings.showwarning = _show_warning
    _speak_anywhere()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        for word in given:
            _check_utf8(word)
        if given == ["--version"]:
            from importlib.metadata import version

            print(f"jaxheads {version('jaxheads')}")
        else:
            from jaxheads.cli import run

            run(given)
        print(end="", flush=True)
    except UserError as error:
        return str(error), 2
    except SystemExit as end:  # of the parser, which has said why
        return "", end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 1
    except OSError as error:
        return _trouble(error), 2
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        from jaxheads.errors import first_line, one_line

        return one_line(
            f"what is asked must fit into the memory, but does not ({first_line(error)}"
            "): ask for less, or take a machine with more"
        ), 2
    except KeyboardInterrupt as stop:
        from jaxheads.stops import GOES_ON

        return f"interrupted: {stop.args[0] if stop.args else GOES_ON}", 130
    return "", 0


def _trouble(error: OSError) -> str:
    """What the system refused, and the way out."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"there must be room to write {error.filename or 'the run'}, but the disk "
            "is full: free some and give the same command again, it goes on where it "
            "stopped"
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return (
            f"{error.filename} must be readable and its folder writable, but the "
            f"system says {error.strerror!r}: give another path"
        )
    return (
        f"{error.filename or 'a file'} must be readable or writable, but the system "
        f"says {error.strerror or str(error)!r}: mend that or give another path, and "
        "the same command goes on where it stopped"
    )


def _speak_anywhere() -> None:
    """Let what a stream's encoding lacks be written in ASCII: ± as +-, é as e.

    What is written to a stream that was closed before the start goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
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


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Warnings as a line for the person, without the source position."""
    from jaxheads.errors import one_line

    print(f"jaxheads: warning: {one_line(message)}", file=sys.stderr)


def _show_unraisable(unraisable) -> None:
    """As Python does, but for what C code tells of no object, with a bare traceback.

    TensorStore does, of writes that failed and have been told to their caller already.
    """
    if unraisable.object is not None:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    main()
