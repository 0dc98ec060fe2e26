"""`sscc pcap`: an image's frames as a capture, a whole conversation for each route.

Frames are the image's own; their ports, numbers and checksums are set as the runtime would. What the client says is
made here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any

from ssimage._sandstorm import ffi, lib

from .reader import Reader, ReadRoute

FIN, SYN, PSH, ACK = 1, 2, 8, 16
SERVER_MAC, CLIENT_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SERVER, CLIENT = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 1))
SERVER6 = bytes.fromhex("20010db8" + "00" * 11 + "01")
CLIENT6 = bytes.fromhex("20010db8" + "00" * 11 + "02")
FIRST_PORT, PORTS = 1024, 64000
TCP_BYTES = 32  # with timestamps
SYN_OPTIONS = bytes.fromhex("020405a00402080a000000010000000001030307")
TIMESTAMPS = bytes.fromhex("0101080a0000000100000001")
ACK_EVERY = 2  # segments, as delayed ACKs go


def _sum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    return sum(struct.unpack(f">{len(data) // 2}H", data))


def _fold(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Conversation:
    """Both sides of one connection."""

    def __init__(self, ipv6: bool, port: int) -> None:
        """port: the client's."""
        self.ipv6 = ipv6
        self.port = port
        self.client_seq = 0
        self.server_seq = 0

    def _frame(self, from_server: bool, flags: int, payload: bytes = b"", options: bytes = TIMESTAMPS) -> bytes:
        seq, ack = (self.server_seq, self.client_seq) if from_server else (self.client_seq, self.server_seq)
        ports = (80, self.port) if from_server else (self.port, 80)
        offset = (20 + len(options)) // 4 << 4
        tcp = struct.pack(">HHIIBBHHH", *ports, seq, ack if flags & ACK else 0, offset, flags, 65535, 0, 0) + options
        pair = (SERVER6, CLIENT6) if self.ipv6 else (SERVER, CLIENT)
        source, target = pair if from_server else pair[::-1]
        length = len(tcp) + len(payload)
        check = ~_fold(_sum(source + target) + 6 + length + _sum(tcp + payload)) & 0xFFFF
        tcp = tcp[:16] + struct.pack(">H", check) + tcp[18:]
        macs = CLIENT_MAC + SERVER_MAC if from_server else SERVER_MAC + CLIENT_MAC
        if self.ipv6:
            return macs + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, length, 6, 64) + source + target + tcp + payload
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, 6, 0) + source + target
        ip = ip[:10] + struct.pack(">H", ~_fold(_sum(ip)) & 0xFFFF) + ip[12:]
        return macs + b"\x08\x00" + ip + tcp + payload

    def client(self, flags: int, payload: bytes = b"", options: bytes = TIMESTAMPS) -> bytes:
        """What the client says next."""
        frame = self._frame(False, flags, payload, options)
        self.client_seq += len(payload) + bool(flags & (SYN | FIN))
        return frame

    def server(self, flags: int, options: bytes = TIMESTAMPS) -> bytes:
        """What the server says without payload."""
        frame = self._frame(True, flags, b"", options)
        self.server_seq += bool(flags & (SYN | FIN))
        return frame

    def patched(self, stored: bytes, payload_bytes: int) -> bytes:
        """A frame of the image, made this connection's with the checksum updated, RFC 1624."""
        tcp = len(stored) - payload_bytes - TCP_BYTES
        old = stored[tcp : tcp + 12]
        new = struct.pack(">HHII", 80, self.port, self.server_seq % 2**32, self.client_seq)
        (check,) = struct.unpack_from(">H", stored, tcp + 16)
        inverted = bytes(byte ^ 0xFF for byte in old)
        check = ~_fold((~check & 0xFFFF) + _sum(inverted) + _sum(new)) & 0xFFFF
        self.server_seq += payload_bytes
        return stored[:tcp] + new + stored[tcp + 12 : tcp + 16] + struct.pack(">H", check) + stored[tcp + 18 :]


def conversation(reader: Reader, route: ReadRoute, variant: Any, port: int) -> Iterator[bytes]:
    """The frames of one GET, from SYN to the last ACK."""
    ipv6 = not reader.header.families & lib.SSI_FAMILY_IPV4
    header_bytes = lib.frame_build_header_bytes(int(ipv6))
    talk = Conversation(ipv6, port)
    yield talk.client(SYN, options=SYN_OPTIONS)
    yield talk.server(SYN | ACK, options=SYN_OPTIONS)
    yield talk.client(ACK)
    yield talk.client(PSH | ACK, route.request)
    response = reader.response(variant.get_response)
    for number, frame in enumerate(reader.frames(response), 1):
        start = reader.slot(frame.slot) + lib.SSI_PAYLOAD_OFFSET - header_bytes
        stored = bytes(ffi.buffer(start, header_bytes + frame.payload_bytes))
        yield talk.patched(stored, frame.payload_bytes)
        if number % ACK_EVERY == 0:
            yield talk.client(ACK)
    yield talk.client(FIN | ACK)
    yield talk.server(FIN | ACK)
    yield talk.client(ACK)


def write(reader: Reader, file: IO[bytes], only: ReadRoute | None) -> int:
    """Writes a capture of all routes, or of one; the number of frames."""
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
    count = conversations = 0
    for route in reader.routes():
        if only is not None and route.key != only.key:
            continue
        for variant in route.variants:
            port = FIRST_PORT + conversations % PORTS
            conversations += 1
            for frame in conversation(reader, route, variant, port):
                file.write(struct.pack("<IIII", count // 1000000, count % 1000000, len(frame), len(frame)) + frame)
                count += 1
    return count
