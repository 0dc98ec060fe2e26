"""What a server's ports have seen of one client: the supervisor's side, which believes nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ssimage._sandstorm import ffi, lib

from .errors import SsrunError

NOBODY: dict[str, Any] = {"session": 0, "family": 0}  # struct trace_filter
DAMAGED = "what the server has left to be read is damaged in memory; the process that serves may be in strange hands"


def client_filter(session: int, address: bytes, port: int) -> dict[str, Any]:
    """struct trace_filter. address: 4 or 16 bytes. port: 0: any."""
    family = lib.IP_FAMILY_V4 if len(address) == 4 else lib.IP_FAMILY_V6
    return {"session": session, "family": family, "port": port, "address": list(address.ljust(16, b"\0"))}


class Traces:
    """One for each port of a server."""

    def __init__(self, ports: Sequence[Any], stack: ExitStack) -> None:
        """Before the server is forked. Nobody is traced. ports: struct nmio_port *. Raises SsrunError."""
        self.rings: list[Any] = []
        for port in ports:
            ring = lib.trace_create(port)
            if ring == ffi.NULL:
                raise SsrunError("memory can't be had; lower --max-connections")
            stack.callback(lib.trace_destroy, ring)
            self.rings.append(ring)

    def set_here(self, client: dict[str, Any]) -> None:
        """Where the workers are in this process. client: struct trace_filter."""
        wanted = ffi.new("struct trace_filter *", client)
        for ring in self.rings:
            lib.trace_set(ring, wanted)

    def skip(self) -> None:
        """What is there is not read."""
        for ring in self.rings:
            lib.trace_skip(ring)

    def read(self, session: int, most: int) -> tuple[list[list[Any]], int]:
        """Frames of a session, and how many are missing among them. Raises SsrunError.

        A frame: when, in ns; the worker; whether it was received; its length; that of each segment to be made of its
        payload, 0: it is one; its head."""
        frames: list[list[Any]] = []
        dropped = 0
        record = ffi.new("struct trace_record *")
        for worker, ring in enumerate(self.rings):
            for _ in range(most):
                found = lib.trace_next(ring, record)
                if found < 0:
                    raise SsrunError(DAMAGED)
                if found == 0:
                    break
                if record.session != session:
                    continue
                head = bytes(ffi.buffer(record.head, record.kept_bytes))
                received = record.direction == lib.TRACE_RECEIVED
                frames.append([record.time_ns, worker, received, record.len_bytes, record.gso_bytes, head.hex()])
                dropped += record.dropped
        return frames, dropped
