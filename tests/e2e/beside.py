"""Another TCP service that sends back what it gets, and a client of it like `ssh HOST cat`: from standard input to standard output. A program.

python beside.py serve PORT
python beside.py ask HOST PORT
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import threading

BLOCK_BYTES = 65536


class Echo(socketserver.BaseRequestHandler):
    """Until the client has said all."""

    def handle(self) -> None:
        while data := self.request.recv(BLOCK_BYTES):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6  # and IPv4's connections
    allow_reuse_address = True
    request_queue_size = 64
    daemon_threads = True


def ask(host: str, port: int) -> None:
    with socket.create_connection((host, port), 30) as connection:
        connection.settimeout(None)

        def send() -> None:
            while data := sys.stdin.buffer.raw.read(BLOCK_BYTES):  # type: ignore[attr-defined]
                connection.sendall(data)
            with contextlib.suppress(OSError):  # reset: whoever reads is told
                connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        while data := connection.recv(BLOCK_BYTES):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


def main() -> None:
    if sys.argv[1] == "serve":
        Server(("", int(sys.argv[2])), Echo).serve_forever()
    else:
        ask(sys.argv[2], int(sys.argv[3]))


main()
