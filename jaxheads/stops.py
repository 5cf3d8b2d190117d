"""Stops: signals and ``--stop-after`` end a command at its next safe place.

A signal raises nothing where it comes, which may be within a compilation: it is
remembered, and the work asks (``check``) between units, chunks and programs. What is
done then is on the disk, and the same command goes on.
"""

import contextlib
import dataclasses
import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jaxheads.errors import UserError

_HANGUP = getattr(signal, "SIGHUP", None)  # the terminal is gone; Windows has none
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP else []))
_PATIENCE = 2.0
"""Seconds after which a stop that waits for its safe place says so."""
_ECHO = 0.1
"""Seconds within which a second signal is the first one told twice (`timeout`)."""
_WAITING = (
    b"jaxheads: stopping at the next safe place, which a compilation may put off for a "
    b"minute; once more ends at once\n"
)
GOES_ON = "the same command goes on where it stopped"


class Stopped(KeyboardInterrupt):
    """A stop that was asked for, at a safe place; its argument says what is kept."""


@dataclasses.dataclass
class _Asked:
    """What has been asked of the process since it listens."""

    own: bool
    number: int = 0
    at: float = 0.0
    deadline: float = float("inf")
    held: bool = False

    def take(self, number: int) -> bool:
        """Remember a signal; whether it is the second one."""
        if self.number:
            # A terminal that closes may tell it more than once.
            return number != _HANGUP and time.monotonic() - self.at > _ECHO
        self.number, self.at = number, time.monotonic()
        return False

    def code(self) -> int:
        """The exit code of the stop that was asked for; 0: none was.

        130 for Ctrl-C and ``--stop-after``, 143 for SIGTERM, 129 for SIGHUP.
        """
        if self.number:
            return 128 + self.number
        return 130 if time.monotonic() >= self.deadline else 0


_asked: _Asked | None = None  # signals are the process's, and so is this


@contextlib.contextmanager
def listening(own: bool = False) -> Iterator["_Asked"]:
    """Take Ctrl-C, SIGTERM and, unless it is ignored (``nohup``), SIGHUP as stops.

    Within another such block, or in a thread that is not the main one, nothing changes.

    Args:
        own: whether the process is this command's alone: a second signal then ends it
            at once, whatever it does, and so does any after the block. Else a second
            one raises KeyboardInterrupt, and the handlers are put back.

    Returns:
        What is asked: its ``code()`` holds after the block, too.
    """
    global _asked
    main = threading.current_thread() is threading.main_thread()
    if _asked is not None or not main:
        yield _asked or _Asked(own)
        return
    asked = _asked = _Asked(own)

    def take(number, frame) -> None:
        if not own and asked.take(number):
            raise KeyboardInterrupt

    with contextlib.ExitStack() as stack:
        if own:  # told by a thread: the main one may be compiling
            reader, writer = socket.socketpair()
            writer.setblocking(False)
            watch = threading.Thread(target=_watch, args=(reader, asked), daemon=True)
            watch.start()
            stack.callback(watch.join)  # all that came has been taken
            stack.callback(writer.close)
            signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            stack.callback(signal.set_wakeup_fd, -1)
        # Last: what came before the watch stands would be lost.
        before = {
            number: signal.signal(number, take)
            for number in _SIGNALS
            if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN
        }
        try:
            yield asked
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if own else handler)
            _asked = None


def _watch(reader: socket.socket, asked: _Asked) -> None:
    """Take the signals' numbers as they come, until the other end is closed."""
    told = False
    with reader:
        while True:
            waits = asked.number and not told
            if not select.select([reader], [], [], _PATIENCE if waits else None)[0]:
                told = True
                os.write(2, _WAITING)
                continue
            numbers = reader.recv(64)
            if not numbers:
                return
            for number in numbers:
                if number in _SIGNALS and asked.take(number):
                    os._exit(128 + number)


def stop_after(hours: float | None) -> None:
    """Ask for a stop in some hours' time; None: don't.

    Raises:
        UserError: it is no time to come.
    """
    if hours is not None and not 0 < hours < math.inf:
        raise UserError(f"--stop-after must be hours above 0, but is {hours}")
    if _asked is not None and hours is not None:
        _asked.deadline = time.monotonic() + 3600 * hours


def code() -> int:
    """The exit code of the stop that was asked for; 0: none was."""
    return 0 if _asked is None else _asked.code()


def check() -> None:
    """A safe place; in the main thread, for those that write beside it write on.

    Raises:
        Stopped: a stop was asked for.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and code() and not held():
        raise Stopped(GOES_ON)


def hold() -> None:
    """Let ``check`` pass: several processes stop together or not at all."""
    if _asked is not None:
        _asked.held = True


def held() -> bool:
    """Whether ``hold`` was called."""
    return _asked is not None and _asked.held


def patiently(call: Callable[[], Any], cancel: Callable[[], Any] | None = None) -> Any:
    """The result of a call that has no safe place, such as a download.

    Args:
        call: runs in a thread, which a stop leaves behind.
        cancel: called by a stop.

    Raises:
        Stopped: before the call had ended.
    """
    if _asked is None or not _asked.own:
        return call()
    ended: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            ended.append((call(), None))
        except BaseException as error:  # raised again below
            ended.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
            check()
    except Stopped:
        if cancel is not None:
            cancel()
        raise
    result, error = ended[0]
    if error is not None:
        raise error
    return result
