"""`ssrun trace`, where it is asked: one client at a time, while somebody reads."""

from __future__ import annotations

import ipaddress
import os
import time
from typing import Any

from .control import Answer
from .errors import SsrunError
from .events import Events
from .listen import SocketServer
from .server import Server, nothing
from .traces import NOBODY, client_filter

LEASE_S = 5.0  # who does not read for so long has gone
READ_MAX = 500  # frames of a worker in one answer
PORT_MAX = 65535
UNKNOWN = "the trace is over: nothing was read for a while, or what was served has ended; start it again"


class Tracing:
    """All is the main thread's."""

    def __init__(self, events: Events) -> None:
        """Nothing is served yet."""
        self._events = events
        self._server: Server | SocketServer | None = None
        self._session = 0
        self._is_on = False
        self._read_s = 0.0  # when it was read last

    def begins(self, server: Server | SocketServer) -> None:
        """It serves."""
        self._server = server

    def ended(self) -> None:
        """It does not any more."""
        self._server = None
        self._is_on = False

    def begin(self, asked: dict[str, Any], answer: Answer) -> None:
        """Begins a trace. Raises SsrunError."""
        address, port = _client(asked)
        if self._server is None:
            raise SsrunError("nothing is served yet; ask again")
        if isinstance(self._server, SocketServer):  # its segments are the kernel's
            answer({"sockets": self._server.listening.addresses, "pid": os.getpid()})
            return
        if self._is_on:
            raise SsrunError("somebody traces a client here; one can be traced at a time")
        self._session = self._session % 0xFFFFFFFF + 1
        session, opened = self._session, self._server.opened

        def begun() -> None:
            self._read_s = time.monotonic()
            answer({"trace": session, "interface": opened.interface, "backend": opened.backend})

        self._server.traces.skip()
        self._is_on = True
        self._read_s = time.monotonic()
        self._events.later(LEASE_S, self._look)
        self._server.trace(client_filter(session, address, port), begun)

    def read(self, asked: dict[str, Any], answer: Answer) -> None:
        """What there is. Raises SsrunError."""
        if not self._is_on or asked.get("trace") != self._session or not isinstance(self._server, Server):
            raise SsrunError(UNKNOWN)
        self._read_s = time.monotonic()
        try:
            frames, dropped = self._server.traces.read(self._session, READ_MAX)
        except SsrunError:
            self._end()
            raise
        answer({"frames": frames, "dropped": dropped, "has_more": len(frames) >= READ_MAX})

    def end(self, asked: dict[str, Any], answer: Answer) -> None:
        """Ends it; of one that is over there is nothing to be ended."""
        if self._is_on and asked.get("trace") == self._session:
            self._end()
        answer({})

    def _end(self) -> None:
        self._is_on = False
        if isinstance(self._server, Server):
            self._server.trace(NOBODY, nothing)

    def _look(self) -> None:
        """Who has been killed reads no more."""
        if not self._is_on:
            return
        left_s = self._read_s + LEASE_S - time.monotonic()
        if left_s <= 0:
            self._end()
        else:
            self._events.later(left_s, self._look)


def _client(asked: dict[str, Any]) -> tuple[bytes, int]:
    address, port = asked.get("client"), asked.get("port", 0)
    try:
        client = ipaddress.ip_address(address if isinstance(address, str) else "")
    except ValueError:
        raise SsrunError('"client" must be an address') from None
    if not isinstance(port, int) or not 0 <= port <= PORT_MAX:
        raise SsrunError('"port" must be a port, or left out')
    return client.packed, port
