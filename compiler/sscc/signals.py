"""Signals that end a command: they are raised where it is, so that it cleans up, and end it with the usual status."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = 128  # as shells have it, plus the signal's number
PR_SET_PDEATHSIG = 1  # prctl(2)


class Ended(BaseException):
    """A signal that ends the command has come."""

    def __init__(self, number: int) -> None:
        """number: the signal's."""
        super().__init__(number)
        self.number = number


def _end(number: int, _: FrameType | None) -> None:
    # The same once more, to all processes of a terminal or service, must not stop the cleaning up.
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Ended(number)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SystemExit when a signal comes that nobody has asked to ignore (as nohup does)."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in before.items():
            if handler in usual:
                signal.signal(number, _end)
        yield
    except Ended as ended:
        sys.exit(STATUS + ended.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Lets no signal in while processes are made, which inherit that.

    What Python calls at a fork, as much of the library has it do, throws away whatever is raised there.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def as_a_child() -> None:
    """Lets signals end a process that was just made, without a word."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_with_parent() -> None:
    """Lets a process that waits for work end with whoever made it, however that ends."""
    import ctypes  # noqa: PLC0415, as most builds need none of these processes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
