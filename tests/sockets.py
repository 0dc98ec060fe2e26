"""Serving over the kernel's sockets: a worker in this process, round by round, with a clock that the test moves; and the command."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssimage._sandstorm import ffi, lib

from tests.host import WALL_S, Image

DEADLINE_S = 20  # of whatever is to come at once


def cpu_ticks(pid: int) -> int:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Worker:
    """Rounds are run while a client waits for something; whatever it waits for is asked of the kernel, not of the worker."""

    def __init__(self, image: Image, **limits: Any) -> None:
        assert image.error == 0, image.error
        self.image = image  # which must outlive it
        self.now_ns = 1_000_000_000_000
        self.clients: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.config = ffi.new("struct sockets_config *", {"app": ffi.addressof(lib.web_app), "listener_count": 1})
        values = {
            "mtu_bytes": 1500,
            "gather_max": 1,
            "max_connections": 64,
            "max_incomplete_requests": 64,
            "keep_alive_ms": 10_000,
            "request_ms": 5_000,
            "send_ms": 10_000,
        }
        for name, value in (values | limits).items():
            setattr(self.config.tcpip if hasattr(self.config.tcpip, name) else self.config, name, value)
        self.config.listeners[0] = self.listener.fileno()
        self.worker = lib.sockets_create(self.config, image.image)
        assert self.worker != ffi.NULL
        self.round()

    def close(self) -> None:
        lib.sockets_destroy(self.worker)
        for each in (*self.clients, self.listener):
            each.close()

    def round(self, milliseconds: float = 0) -> int:
        """Time passes, and what has come is taken."""
        self.now_ns += int(milliseconds * 1_000_000)
        assert lib.sockets_wait(self.worker, 0) == 0
        wall_s = WALL_S + (self.now_ns - 1_000_000_000_000) // 1_000_000_000
        return int(lib.sockets_round(self.worker, self.now_ns, wall_s))

    def until(self, condition: Callable[[], Any]) -> Any:
        """Rounds until there is something."""
        end = time.monotonic() + DEADLINE_S
        while not (found := condition()):
            assert self.round() == 0
            assert time.monotonic() < end, "it does not come"
        return found

    def settle(self) -> None:
        """Rounds until what a client has said on the loopback must have arrived."""
        for _ in range(20):
            assert self.round() == 0

    def connect(self, **options: int) -> socket.socket:
        """A client that waits for nothing."""
        client = socket.socket()
        for name, value in options.items():
            client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is said arrives at once
        client.connect(self.listener.getsockname())
        client.setblocking(False)
        self.clients.append(client)
        return client

    def read(self, client: socket.socket, count: int | None = None) -> bytes:
        """What comes up to the end of the connection, or so many bytes."""
        data = bytearray()
        end = time.monotonic() + DEADLINE_S
        while count is None or len(data) < count:
            try:
                piece = client.recv(1 << 20 if count is None else count - len(data))
            except BlockingIOError:
                assert self.round() == 0
                assert time.monotonic() < end, f"only {len(data)} bytes came"
                continue
            if not piece:
                break
            data += piece
            end = time.monotonic() + DEADLINE_S
        return bytes(data)

    def is_open(self, client: socket.socket) -> bool:
        """Nothing has come, and no end."""
        self.settle()
        try:
            client.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def ask(self, request: bytes, count: int | None = None) -> bytes:
        """One connection's answer."""
        client = self.connect()
        client.sendall(request)
        return self.read(client, count)

    def counters(self) -> dict[str, int]:
        """Every counter that is not zero."""
        count = range(lib.sockets_counter_count(self.worker))
        names = [ffi.string(lib.sockets_counter_name(self.worker, i)).decode() for i in count]
        values = [lib.sockets_counter(self.worker, i) for i in count]
        return {name: value for name, value in zip(names, values, strict=True) if value}


@dataclass
class Command:
    """`ssrun IMAGE --listen ...`, ready to answer."""

    process: subprocess.Popen[str]
    event: dict[str, Any]
    stopped: dict[str, Any] = field(default_factory=dict)
    said: str = ""  # on stderr

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it is found, as its URLs say."""
        places = [urllib.parse.urlsplit(url) for url in self.event["urls"]]
        return [(place.hostname or "", place.port or 80) for place in places]

    def connect(self, number: int = 0) -> socket.socket:
        return socket.create_connection(self.addresses[number], timeout=DEADLINE_S)

    def line(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status; its last line is kept."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        output, self.said = self.process.communicate(timeout=DEADLINE_S)
        for line in output.splitlines():
            self.stopped = json.loads(line)
        return self.process.returncode


@contextlib.contextmanager
def listening(
    image: Path, *options: str, front: Sequence[str] = (), module: str = "ssrun.cli", **how: Any
) -> Iterator[Command]:
    """The command for the length of a with. front: what stands in front of it. module: ssrun.kv serves a store."""
    words = [*front, sys.executable, "-m", module, str(image), "--json", *options]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)
    assert process.stdout is not None
    line = process.stdout.readline()
    command = Command(process, json.loads(line) if line else {})
    try:
        if not line:
            command.end()
            raise AssertionError(f"it did not start: {command.said}")
        yield command
    finally:
        if process.poll() is None:
            command.end()
