"""The entry of ``jaxheads`` and ``python -m jaxheads``: errors become one sentence."""

import errno
import os
import sys
import warnings


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits 2 on a user's mistake, 130 on Ctrl-C."""
    from jaxheads.errors import UserError

    warnings.showwarning = _show_warning
    try:
        from jaxheads.cli import run

        run(arguments)
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


def _stop(message: str, code: int) -> None:
    print(f"jaxheads: {message}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Warnings as a line for the person, without the source position."""
    print(f"jaxheads: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
