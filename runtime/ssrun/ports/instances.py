"""Who of several ssrun on one host has what: a lock for each thing that only one can serve.

A lock is a listening UNIX socket with an abstract name. Such a name belongs to the network namespace, as interfaces
do; it is gone with the process, however that ends; and the kernel tells who holds it.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

from ..errors import SsrunError
from ..peer import peer
from . import privileges

PREFIX = "\0sandstorm/"
BACKLOG = 4096  # who asks is never accepted
TRIES, PAUSE_S = 20, 0.01


def _holder(name: str) -> tuple[int, int]:
    """Process (0: of another PID namespace) and user that hold a lock; OSError if nobody does any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(PREFIX + name)
        except BlockingIOError:  # many have asked before us
            return 0, 0
        return peer(sock)


def _may_serve(pid: int, uid: int) -> bool:
    """Any user may take a name; one who can't serve keeps nobody from it."""
    if uid in (0, os.geteuid()):
        return True
    try:
        held = privileges.effective(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return False
    return not privileges.lacking(("CAP_NET_RAW",), held) or not privileges.lacking(("CAP_NET_ADMIN",), held)


def holder(name: str) -> str | None:
    """Who holds a lock, as in "ssrun (pid 17)"; None where it is free, or a stranger has taken its name."""
    try:
        pid, uid = _holder(name)
    except OSError:
        return None
    if not _may_serve(pid, uid):
        return None
    return f"{_command(pid)} (pid {pid})" if pid else "ssrun (in another container)"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "ssrun"
    return "sskv" if any(word == b"ssrun.kv" or word.endswith(b"/sskv") for word in words) else "ssrun"


def lock(name: str, refusal: str) -> socket.socket:
    """Holds a lock until the socket is closed. Raises SsrunError if another ssrun has it.

    refusal: what to say then, with a place for who it is.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    for _ in range(TRIES):
        try:
            sock.bind(PREFIX + name)
            sock.listen(BACKLOG)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                sock.close()
                raise
        other = holder(name)
        if other is not None:
            sock.close()
            raise SsrunError(refusal.format(other))
        time.sleep(PAUSE_S)  # it does not listen yet, or is just going; else it is a stranger's
    return sock
