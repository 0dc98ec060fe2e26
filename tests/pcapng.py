"""Reads pcapng files block by block, from the format's description alone, and strictly."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
INBOUND, OUTBOUND = 1, 2


@dataclass
class Frame:
    """An Enhanced Packet Block."""

    interface: int
    time_ns: int
    data: bytes
    len_bytes: int  # of the frame; data may be less
    direction: int
    dropped: int  # frames of the interface since the one before


@dataclass
class Interface:
    """An Interface Description Block, and the statistics of it."""

    name: str
    description: str
    snap_bytes: int
    received: int = 0
    dropped: int = 0
    written: int = 0


@dataclass
class File:
    """All of it."""

    interfaces: list[Interface] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    def sent(self) -> list[bytes]:
        return [frame.data for frame in self.frames if frame.direction == OUTBOUND]

    def received(self) -> list[bytes]:
        return [frame.data for frame in self.frames if frame.direction == INBOUND]


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while True:
        code, size = struct.unpack_from("=HH", data, at)
        if code == 0:
            assert at + 4 == len(data), "something behind the options"
            return found
        found[code] = data[at + 4 : at + 4 + size]
        at += 4 + size + -size % 4


def number(found: dict[int, bytes], code: int) -> int:
    return struct.unpack("=Q", found[code])[0] if code in found else 0


def read_packet(body: bytes) -> Frame:
    interface, high, low, kept, length = struct.unpack_from("=IIIII", body)
    end = 20 + kept + -kept % 4
    found = options(body[end:])
    (direction,) = struct.unpack("=I", found[2])
    return Frame(interface, high << 32 | low, body[20 : 20 + kept], length, direction, number(found, 4))


def whole_blocks(data: bytes) -> bytes:
    """Without a last block that is being written: to one who reads meanwhile a file grows by pages, not by what is written at once."""
    at = 0
    while at + 8 <= len(data) and at + struct.unpack_from("=I", data, at + 4)[0] <= len(data):
        at += max(8, struct.unpack_from("=I", data, at + 4)[0])
    return data[:at]


def read(path: Path, *, growing: bool = False) -> File:
    """Every block; its two lengths must be the same, and the first block a section's. growing: it is still written to."""
    data = whole_blocks(path.read_bytes()) if growing else path.read_bytes()
    file = File()
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("=II", data, at)
        assert size % 4 == 0
        assert struct.unpack_from("=I", data, at + size - 4) == (size,)
        body = data[at + 8 : at + size - 4]
        assert (kind == SECTION) == (at == 0)
        if kind == SECTION:
            assert struct.unpack_from("=IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
            assert options(body[16:])[4] == b"ssrun"
        elif kind == INTERFACE:
            link, _, snap_bytes = struct.unpack_from("=HHI", body)
            found = options(body[8:])
            assert (link, found[9]) == (1, b"\x09"), "Ethernet, in nanoseconds"
            file.interfaces.append(Interface(found[2].decode(), found[3].decode(), snap_bytes))
        elif kind == STATISTICS:
            interface = file.interfaces[struct.unpack_from("=I", body)[0]]
            found = options(body[12:])
            interface.received, interface.dropped, interface.written = (number(found, code) for code in (4, 5, 8))
        else:
            assert kind == PACKET
            file.frames.append(read_packet(body))
        at += size
    assert at == len(data)
    return file
