"""What a service manager is told, as sd_notify(3) does: a datagram to the socket that it names in the environment."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable

MICROSECONDS = 1e6


def notify(state: str) -> None:
    """Tells it lines of NAME=VALUE. Without a service manager, or when it is gone, nothing happens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    address = "\0" + path[1:] if path[0] == "@" else path  # @: an abstract name
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sock:
        sock.sendto(state.encode(), address)


def notify_reloading() -> None:
    """Tells it that something else will be served in a moment; READY=1 says when."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_s() -> float | None:
    """How often it wants to hear that we live, sd_watchdog_enabled(3); None: it does not ask."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        usec = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return usec / MICROSECONDS if usec > 0 else None


class Watchdog:
    """Says that we live as long as all workers go round."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self.wanted = watchdog_s() is not None
        self.rounds: list[int] = []

    def look(self, look_at_rounds: Callable[[], list[int]]) -> None:
        """look_at_rounds: says how often each worker has gone round, and has it go once more."""
        if not self.wanted:
            return
        rounds = look_at_rounds()
        alive = len(rounds) != len(self.rounds) or all(
            now > before for now, before in zip(rounds, self.rounds, strict=True)
        )
        self.rounds = rounds
        if alive:
            notify("WATCHDOG=1")
