"""Sockets that a service manager has opened for us and passes on, sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket

from .errors import SsrunError

FIRST_FD = 3
NONE = (
    "--listen systemd: no sockets have been passed; start it by a socket unit (ssrun@.socket), or give an address to "
    "listen on"
)


def passed_fds() -> range:
    """Descriptors that have been passed to this very process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return range(0)  # none, or they were another's, whose environment we have
    count = os.environ.get("LISTEN_FDS", "")
    return range(FIRST_FD, FIRST_FD + (int(count) if count.isascii() and count.isdigit() else 0))


def first_address() -> tuple[str, int] | None:
    """Of the first that can be served; None: there is none."""
    for fd in passed_fds():
        try:
            with socket.socket(fileno=os.dup(fd)) as sock:
                if _why_not(sock) is None:
                    host, port = sock.getsockname()[:2]
                    return str(host), int(port)
        except OSError:
            continue
    return None


def _why_not(sock: socket.socket) -> str | None:
    """Why it can't be served; None: it can."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.proto != socket.IPPROTO_TCP:
        return "is no TCP socket; write ListenStream=PORT or ADDRESS:PORT in the socket unit"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "does not listen; write ListenStream= in the socket unit, and no Accept=yes"
    return None


def take() -> list[socket.socket]:
    """All that have been passed; they are the caller's to close. Raises SsrunError."""
    fds = passed_fds()
    if not fds:
        raise SsrunError(NONE)
    taken: list[socket.socket] = []
    try:
        for fd in fds:
            taken.append(_socket(fd))
    except BaseException:
        for sock in taken:
            sock.close()
        raise
    return taken


def _socket(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        raise SsrunError(
            f"--listen systemd: descriptor {fd} is no socket; leave it out of what is passed (LISTEN_FDS)"
        ) from None
    why = _why_not(sock)
    if why is not None:
        sock.close()
        raise SsrunError(f"--listen systemd: descriptor {fd} {why}")
    sock.set_inheritable(False)
    return sock
