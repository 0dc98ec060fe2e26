"""Asks for many things and counts what really came, as JSON: python log_client.py HOST PORT REQUESTS CUT.

Each request has a number of its own in its query; CUT more are cut short by a reset.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
from collections import Counter

PIPELINED = 25  # requests at once on a connection
PER_CONNECTION = 500
RST = struct.pack("ii", 1, 0)  # SO_LINGER
KINDS = (
    ("GET", "/", ""),
    ("GET", "/page.html", "Accept-Encoding: gzip\r\n"),
    ("GET", "/page.html", 'If-None-Match: "no", *\r\n'),
    ("GET", "/page.html", "Range: bytes=10-999\r\n"),
    ("GET", "/page.html", "Range: bytes=0-9,100-199,5000-\r\n"),
    ("GET", "/nothing", ""),
    ("HEAD", "/page.html", ""),
    ("GET", "/old/x", ""),
    ("POST", "/", "Content-Length: 3\r\n"),
)


class Stream:
    """What comes of answers, one behind the other."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""

    def more(self) -> None:
        data = self.sock.recv(1 << 16)
        assert data, "the connection has ended"
        self.data += data

    def answer(self, method: str) -> tuple[int, int]:
        """Status, and bytes of head and body."""
        while (end := self.data.find(b"\r\n\r\n")) < 0:
            self.more()
        head = self.data[: end + 4]
        status = int(head[9:12])
        length = 0
        if method != "HEAD" and status != 304:
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line[15:])
        while len(self.data) < len(head) + length:
            self.more()
        self.data = self.data[len(head) + length :]
        return status, len(head) + length


def ask(place: tuple[str, int], first: int, count: int, dice: random.Random) -> tuple[Counter[int], Counter[int]]:
    """How many answers there were of each status, and their bytes."""
    statuses: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    with socket.create_connection(place, timeout=30) as sock:
        stream = Stream(sock)
        for number in range(first, first + count, PIPELINED):
            numbers = range(number, min(number + PIPELINED, first + count))
            kinds = [dice.choice(KINDS) for _ in numbers]
            requests = [
                f"{method} {path}?{number} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{'abc' if method == 'POST' else ''}"
                for number, (method, path, fields) in zip(numbers, kinds, strict=True)
            ]
            sock.sendall("".join(requests).encode())
            for method, *_ in kinds:
                status, size = stream.answer(method)
                statuses[status] += 1
                sizes[status] += size
    return statuses, sizes


def cut(place: tuple[str, int], number: int) -> None:
    """Begins a download and resets it."""
    with socket.create_connection(place, timeout=30) as sock:
        sock.sendall(f"GET /large.bin?{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        sock.recv(1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)


def main() -> None:
    host, port, requests, cuts = sys.argv[1], *map(int, sys.argv[2:])
    dice = random.Random(1)
    statuses: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for first in range(0, requests, PER_CONNECTION):
        found = ask((host, port), first, min(PER_CONNECTION, requests - first), dice)
        statuses += found[0]
        sizes += found[1]
    for number in range(cuts):
        cut((host, port), requests + number)
    print(json.dumps({"statuses": statuses, "bytes": sizes}))


if __name__ == "__main__":
    main()
