"""An object beyond 4 GiB: positions and sequence numbers part ways, and the latter wrap several times."""

from __future__ import annotations

import struct

import pytest
from ssimage._sandstorm import ffi, lib

from tests.host import Host, Image
from tests.model import ModelImage, Page
from tests.sim.client import Side

pytestmark = pytest.mark.long

SEGMENT_BYTES = 1428
STREAM_BYTES = (4 << 30) + 100_000_000
BLOCK = bytes(range(256)) * 20
FRAME_BYTES = 12
WINDOW_SCALE = 14


def huge_image() -> tuple[Image, int]:
    """The first response is STREAM_BYTES long, rounded down to whole segments: all frames behind its first are the same
    one. With that length."""
    sections = ModelImage({"/huge": Page(BLOCK)}).sections
    count = STREAM_BYTES // SEGMENT_BYTES
    frames = sections["frames"]
    first_frame = len(frames) // FRAME_BYTES
    sections["frames"] = frames + frames[:FRAME_BYTES] + frames[FRAME_BYTES : 2 * FRAME_BYTES] * (count - 1)
    response = struct.pack("<QI", count * SEGMENT_BYTES, first_frame)
    sections["responses"] = response + sections["responses"][len(response) :]
    variants = bytearray(sections["variants"])
    head_bytes = struct.unpack_from("<I", sections["responses"], 12)[0]
    struct.pack_into("<Q", variants, 40, count * SEGMENT_BYTES - head_bytes)
    sections["variants"] = bytes(variants)
    header = list(struct.unpack("<20IQ", sections["header"]))
    header[7] += count
    sections["header"] = struct.pack("<20IQ", *header)
    return Image(sections), count * SEGMENT_BYTES


class Sink:
    """A client that acknowledges all there is and keeps only count."""

    def __init__(self, host: Host, port: int) -> None:
        self.host = host
        self.side = Side(False, port)
        self.seq = 1
        self.iss = self.ack = 0
        self.received = 0

    def say(self, flags: int, data: bytes = b"", options: bytes = b"") -> None:
        """One segment to the core."""
        head = struct.pack(">HHIIBBHHH", self.side.port, 80, self.seq, self.ack % 2**32, (20 + len(options)) // 4 << 4, flags, 65535, 0, 0)  # fmt: skip
        frame = ffi.new("uint8_t[]", self.side.frame(head + options + data))
        batch = ffi.new("struct nmio_rx *", {"data": frame, "len_bytes": len(frame)})
        lib.stack_input(self.host.stack, batch, 1)
        lib.stack_output(self.host.stack)

    def connect(self) -> None:
        self.seq = 0
        self.say(2, options=struct.pack(">BBHBBBB", 2, 4, 1460, 1, 3, 3, WINDOW_SCALE))
        (syn_ack,) = self.host.sent()
        self.iss = int(syn_ack["TCP"].seq)
        self.ack = self.iss + 1
        self.seq = 1

    def take(self, block: bytes) -> None:
        """All superframes that are there: in order, and of the right bytes."""
        host, tx = self.host, self.host.tx
        while tx.count > 0:
            for desc in host.desc[0 : tx.count]:
                (seq,) = struct.unpack_from(">I", ffi.buffer(desc.head + desc.l4_offset, 8), 4)
                assert seq == self.ack % 2**32
                for piece in host.piece[desc.first_piece : desc.first_piece + desc.piece_count]:
                    if self.received >= SEGMENT_BYTES:
                        at = self.received % SEGMENT_BYTES
                        assert ffi.buffer(piece.data, piece.len_bytes) == block[at : at + piece.len_bytes]
                    self.received += piece.len_bytes
                    self.ack += piece.len_bytes
                    if piece.chunk != lib.NMIO_NONE:
                        host._release(piece.chunk)
                host._release(desc.chunk)
            tx.count = tx.piece_count = 0
            tx.space = host.ring
            lib.stack_output(host.stack)


@pytest.mark.slow
def test_more_than_four_gibibytes() -> None:
    image, length = huge_image()
    host = Host(image, gather_max=44)
    sink = Sink(host, 40_000)
    sink.connect()
    block = image.data["slots"][image.header.slot_bytes + 128 :][:SEGMENT_BYTES]
    request = b"GET /huge HTTP/1.1\r\nHost: a\r\n\r\n"
    sink.say(0x18, request)
    sink.seq += len(request)
    while sink.received < length:
        before = sink.received
        sink.take(block)
        sink.say(0x10)
        assert sink.received > before or sink.received == length
    assert sink.ack - sink.iss > 2**32
    info = ffi.new("struct stack_connection *")
    assert any(lib.stack_connection_at(host.stack, index, info) for index in range(64))
    assert info.snd_una == info.snd_end
    assert info.snd_una - length == 2**32 + sink.iss + 1
