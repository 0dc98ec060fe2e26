"""What only the kernel counts: frames that were lost before a port saw them, and the interface's own numbers."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from typing import Any

from .ports import kernel
from .ports.base import Opened

SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/if_packet.h
PACKET_STATISTICS_BYTES = 8  # struct tpacket_stats: packets, drops; reading sets them to zero
SOL_XDP, XDP_STATISTICS = 283, 7  # linux/if_xdp.h
XDP_NAMES = (
    "rx_dropped",
    "rx_invalid_descs",
    "tx_invalid_descs",
    "rx_ring_full",
    "rx_fill_ring_empty_descs",
    "tx_ring_empty_descs",
)
DEVICES = Path("/proc/thread-self/net/dev")
# Columns of /proc/net/dev that are of interest: receive from 0 on, transmit from 8 on.
LINK_COLUMNS = {
    "rx_bytes": 0,
    "rx_packets": 1,
    "rx_errors": 2,
    "rx_dropped": 3,
    "rx_fifo_errors": 4,
    "tx_bytes": 8,
    "tx_packets": 9,
    "tx_errors": 10,
    "tx_dropped": 11,
}
SOCKET_LOSSES = ("packet_drops", *(f"xdp_{name}" for name in XDP_NAMES))


class Losses:
    """Of the sockets of one server's ports."""

    def __init__(self, opened: Opened) -> None:
        """The ports must stay open."""
        self.opened = opened
        self.totals: dict[str, int] = {}
        self.ports = opened.ports if opened.backend in ("packet", "afxdp") else []
        self.read_one = self._packet if opened.backend == "packet" else self._xdp

    def sockets(self) -> dict[str, int]:
        """Sums over all of them."""
        found: dict[str, int] = {}
        for port in self.ports:
            if port.fd < 0:
                continue
            with contextlib.suppress(OSError), kernel.socket_of(self.opened.backend, port.fd) as sock:
                for name, value in self.read_one(sock).items():
                    found[name] = found.get(name, 0) + value
        return found

    def _packet(self, sock: socket.socket) -> dict[str, int]:
        _, drops = struct.unpack("=II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, PACKET_STATISTICS_BYTES))
        self.totals["packet_drops"] = self.totals.get("packet_drops", 0) + drops
        return dict(self.totals)

    @staticmethod
    def _xdp(sock: socket.socket) -> dict[str, int]:
        size = 8 * len(XDP_NAMES)
        values = struct.unpack(f"={len(XDP_NAMES)}Q", sock.getsockopt(SOL_XDP, XDP_STATISTICS, size))
        return {f"xdp_{name}": value for name, value in zip(XDP_NAMES, values, strict=True)}

    def link(self) -> dict[str, int]:
        """What `ip -s link` shows of the interface; empty: it is gone."""
        return read_link(DEVICES.read_text(), self.opened.interface)  # as it is called now


def read_link(text: str, name: str) -> dict[str, int]:
    """text: as /proc/net/dev has it."""
    for line in text.splitlines():
        found, colon, numbers = line.partition(":")
        if colon and found.strip() == name:
            values = numbers.split()
            return {column: int(values[place]) for column, place in LINK_COLUMNS.items()}
    return {}


def losses_of(server: Any) -> Losses | None:
    """None: over the kernel's own TCP there are none of ours."""
    opened = getattr(server, "opened", None)
    return Losses(opened) if opened is not None else None
