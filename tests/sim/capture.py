"""Captures as pcapng: the three block types that tshark needs, little-endian, with comments, in nanoseconds."""

from __future__ import annotations

import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
OPT_END, OPT_COMMENT, IF_NAME, IF_TSRESOL, SHB_USERAPPL = 0, 1, 2, 9, 4
LINKTYPE_ETHERNET = 1
WALL_NS = 784_111_777 * 10**9  # what the simulation's clock says when it begins


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + padded(value)


def block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


class Capture:
    """One section with one interface."""

    def __init__(self, path: Path, title: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.title = title
        self.file: BinaryIO = path.open("wb")
        end = struct.pack("<HH", OPT_END, 0)
        head = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        comment = option(OPT_COMMENT, title.encode()) + option(SHB_USERAPPL, b"Sandstorm's simulation")
        self.file.write(block(SECTION, head + comment + end))
        name = option(IF_NAME, b"wire") + option(IF_TSRESOL, b"\x09")
        self.file.write(block(INTERFACE, struct.pack("<HHI", LINKTYPE_ETHERNET, 0, 0) + name + end))

    def write(self, now_ms: float, frame: bytes, note: str) -> None:
        """A frame with a comment that begins with the capture's title."""
        at_ns = WALL_NS + int(now_ms * 1e6)
        head = struct.pack("<IIIII", 0, at_ns >> 32, at_ns & 0xFFFFFFFF, len(frame), len(frame))
        comment = option(OPT_COMMENT, f"{self.title}: {note}".encode()) + struct.pack("<HH", OPT_END, 0)
        self.file.write(block(PACKET, head + padded(frame) + comment))

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
