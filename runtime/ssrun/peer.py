"""Who is at the other end of a UNIX socket."""

from __future__ import annotations

import socket
import struct

UCRED = struct.Struct("iII")  # pid, uid, gid: unix(7)


def peer(sock: socket.socket) -> tuple[int, int]:
    """Process (0: of another PID namespace) and user, as the kernel knows them."""
    pid, uid, _ = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return pid, uid
