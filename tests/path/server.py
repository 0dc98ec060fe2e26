"""The yardstick: Linux's TCP behind a plain HTTP server: server.py CONGESTION_CONTROL PORT FILE. Prints "ready"."""

from __future__ import annotations

import os
import socket
import sys
import threading


def serve(connection: socket.socket, fd: int, size_bytes: int) -> None:
    """One request, one answer."""
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            part = connection.recv(65536)
            if not part:
                return
            request += part
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size_bytes}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        at = 0
        try:
            while at < size_bytes:
                at += os.sendfile(connection.fileno(), fd, at, min(1 << 20, size_bytes - at))
        except OSError:
            return  # the client has had enough


def main() -> None:
    """Serves until it is ended."""
    congestion, port, path = sys.argv[1:]
    fd = os.open(path, os.O_RDONLY)
    size_bytes = os.fstat(fd).st_size
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        listener.bind(("::", int(port)))
        listener.listen(100)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, fd, size_bytes), daemon=True).start()


if __name__ == "__main__":
    main()
