"""Cutting streams into slots: what is written, what happens when reading or writing fails, and how progress is told."""

from __future__ import annotations

import errno
import hashlib
import random
import threading
from pathlib import Path
from typing import IO

import pytest
from scapy.all import IP, TCP, Ether, IPv6, raw
from sscc import build
from sscc.errors import SsccError
from sscc.image import writer
from sscc.image.framer import BATCH_BYTES, PIECE_BYTES, SHORT_BYTES, Framer, Progress
from sscc.inspect.reader import Reader, open_image
from sscc.responses import patches
from sscc.responses.heads import Response
from sscc.responses.patches import Patch
from sscc.sources.source import Content
from ssimage._sandstorm import ffi

from tests.model import ones_complement_sum

SEGMENT_BYTES, SLOT_BYTES = 1428, 2048


def framer_of(file: IO[bytes], progress: Progress = lambda _: None) -> Framer:
    return Framer(file, SEGMENT_BYTES, SLOT_BYTES, False, progress)


def body(path: Path, size_bytes: int) -> Content:
    data = b"".join(number.to_bytes(4, "big") for number in range(size_bytes // 4 + 1))[:size_bytes]
    path.write_bytes(b"before" + data)
    return Content(str(path), size_bytes, hashlib.sha256(data).hexdigest(), len(b"before"))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sscc")]


@pytest.mark.parametrize("head_bytes", [1, SEGMENT_BYTES, 300, PIECE_BYTES + 1])
@pytest.mark.parametrize("size_bytes", [0, 1, SEGMENT_BYTES - 300, PIECE_BYTES, 2 * PIECE_BYTES + 77])
@pytest.mark.parametrize("copies", [1, 7])
def test_slots_hold_the_stream(tmp_path: Path, head_bytes: int, size_bytes: int, copies: int) -> None:
    """Around every boundary: of segments, of pieces, of batches. The digest is of what was written."""
    head = b"h" * head_bytes
    content = body(tmp_path / "body", size_bytes)
    stream = head + (tmp_path / "body").read_bytes()[content.offset_bytes :]
    told: list[int] = []
    with (
        (tmp_path / "slots").open("wb") as file,
        framer_of(file, told.append) as framer,
    ):
        assert framer.add(Response(200, b"first")) == (0, 1)
        first, count = framer.add(Response(200, head, content, copies))
        assert framer.add(Response(200, b"last", b"body")) == (1 + count, 1)
        digest = framer.finish()
    data = (tmp_path / "slots").read_bytes()
    assert hashlib.sha256(data).digest() == digest
    assert (first, count) == (1, -(-len(stream) // SEGMENT_BYTES))
    assert sum(told) == size_bytes + len(b"body")
    assert len(data) == framer.slot_count * SLOT_BYTES == (2 + count * copies) * SLOT_BYTES
    cut = b""
    for number in range(count):
        at = (1 + number * copies) * SLOT_BYTES
        slot = data[at : at + SLOT_BYTES]
        assert data[at : at + copies * SLOT_BYTES] == slot * copies
        cut += slot[128 : 128 + SEGMENT_BYTES]
    assert cut[: len(stream)] == stream
    assert cut[len(stream) :].strip(b"\0") == b""


def frame(payload: bytes, offset: int, last: bool, ipv6: bool) -> bytes:
    """A slot up to its payload's end, as scapy makes it."""
    if ipv6:
        ip = IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=64)
    else:
        ip = IP(src="192.0.2.1", dst="198.51.100.1", id=0, flags="DF", ttl=64)
    options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 1))]
    tcp = TCP(
        sport=80, dport=49152, seq=offset + 1, ack=1, flags="PA" if last else "A", window=16384, options=options
    )
    made = raw(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / ip / tcp / payload)
    return bytes(128 + len(payload) - len(made)) + made


WIDTHS = {"Date": 29, "Connection": 10, "Content-Length": 10, "Content-Range": 14, "ETag": 34, "Last-Modified": 29}


def unpatched_sum(payload: bytes, rows: bytes) -> int:
    """The sum of a first payload with zeros where it is patched."""
    for _, offset, size_bytes in patches.read(rows):
        payload = payload[:offset] + bytes(size_bytes) + payload[offset + size_bytes :]
    return ones_complement_sum(payload)


@pytest.mark.parametrize("ipv6", [False, True])
def test_many_short_responses_are_what_scapy_makes_of_each(tmp_path: Path, ipv6: bool) -> None:
    """Cut together, over several batches, with long ones among them; patches at odd offsets too."""
    chance = random.Random(ipv6)
    responses = []
    for _ in range(120):
        head = chance.randbytes(chance.choice([200, 333, SEGMENT_BYTES, 2000]))
        rows = b""
        if chance.random() < 0.7:
            gaps = sorted(chance.sample(range(44), 6))
            for gap, field in zip(gaps, chance.sample(list(WIDTHS), 6), strict=True):
                before = sum(patch.size_bytes for patch in patches.read(rows))
                rows += patches.row(Patch(field, gap + before, WIDTHS[field]))
        size_bytes = chance.choice([0, 1, 999, SEGMENT_BYTES, 20_000, SHORT_BYTES])
        responses.append(Response(200, head, chance.randbytes(size_bytes), chance.choice([1, 1, 1, 64]), rows))
    with (
        (tmp_path / "slots").open("wb") as file,
        Framer(file, SEGMENT_BYTES, SLOT_BYTES, ipv6, lambda _: None) as framer,
    ):
        places = [framer.add(response) for response in responses]
        framer.finish()
        frames = ffi.from_buffer("struct ssi_frame[]", framer.frames)
    data = (tmp_path / "slots").read_bytes()
    assert len(data) > 2 * BATCH_BYTES
    assert len(data) == framer.slot_count * SLOT_BYTES
    number = slot = 0
    for response, place in zip(responses, places, strict=True):
        stream = response.head + response.body
        assert place == (number, -(-len(stream) // SEGMENT_BYTES))
        for at in range(0, len(stream), SEGMENT_BYTES):
            payload = stream[at : at + SEGMENT_BYTES]
            expected = frame(payload, at, at + SEGMENT_BYTES >= len(stream), ipv6).ljust(SLOT_BYTES, b"\0")
            assert data[slot * SLOT_BYTES : (slot + response.copies) * SLOT_BYTES] == expected * response.copies
            row = frames[number]
            assert (row.slot, row.copies, row.payload_bytes) == (slot, response.copies, len(payload))
            rows = response.patches if at == 0 else b""
            assert row.flags == bool(rows)
            assert row.payload_sum == unpatched_sum(payload, rows)
            number, slot = number + 1, slot + response.copies


def test_what_was_kept_is_sent_whatever_became_of_its_file(tmp_path: Path) -> None:
    """It is what was hashed."""
    digest = hashlib.sha256(b"content").hexdigest()
    content = Content(str(tmp_path / "gone"), 7, digest, 0, memoryview(b"content"))
    with (tmp_path / "slots").open("wb") as file, framer_of(file) as framer:
        framer.add(Response(200, b"head", content))
        framer.finish()
    assert (tmp_path / "slots").read_bytes()[128:139] == b"headcontent"


@pytest.mark.parametrize("change", ["other", "shorter", "longer", "gone"])
def test_a_body_that_has_changed_ends_it(tmp_path: Path, change: str) -> None:
    content = body(tmp_path / "body", 100_000)
    data = (tmp_path / "body").read_bytes()
    (tmp_path / "body").write_bytes(
        {"other": data[::-1], "shorter": data[:-1], "longer": data + b"x"}.get(change, b"")
    )
    if change == "gone":
        (tmp_path / "body").unlink()
    expected = "body: can't be read" if change == "gone" else "body: changed while it was read"
    with (tmp_path / "slots").open("wb") as file, framer_of(file) as framer, pytest.raises(SsccError, match=expected):
        framer.add(Response(200, b"head", content))
    assert threads() == []


def test_a_full_disk_is_told_and_not_as_the_source_s_mistake(tmp_path: Path) -> None:
    content = body(tmp_path / "body", 4 * BATCH_BYTES)

    def fill() -> None:
        with Path("/dev/full").open("wb", buffering=0) as file, framer_of(file) as framer:
            framer.add(Response(200, b"head", content))

    def finish() -> None:
        with Path("/dev/full").open("wb", buffering=0) as file, framer_of(file) as framer:
            framer.add(Response(200, b"head"))
            framer.finish()

    for what in (fill, finish):
        with pytest.raises(OSError, match="No space") as caught:
            what()
        assert caught.value.errno == errno.ENOSPC
        assert threads() == []


def test_progress_moves_through_every_phase(tmp_path: Path) -> None:
    """Inside a single large file too, and to the end."""
    site = tmp_path / "site"
    site.mkdir()
    large = 5 * PIECE_BYTES
    (site / "large.bin").write_bytes(bytes(large))
    (site / "same.bin").write_bytes(bytes(large))
    (site / "text.txt").write_text("text " * 100_000)
    (site / "index.html").write_text("<p>home")
    manifest = tmp_path / "site.yaml"
    seen = []
    for target, make in (("x.img.lz4", "[]"), ("x.img", "[gzip, zstd]")):
        told: dict[str, list[tuple[int, int]]] = {}

        def progress(phase: str, done: int, total: int, told: dict[str, list[tuple[int, int]]] = told) -> None:
            told.setdefault(phase, []).append((done, total))

        manifest.write_text(f"version: 1\nroot: site\nencodings: {{make: {make}}}\n")
        build.build(manifest, tmp_path / target, progress)
        seen.append(list(told))
        for phase, calls in told.items():
            assert calls == sorted(calls), phase
            assert calls[-1][0] == calls[-1][1], phase
            assert len({total for _, total in calls}) == 1, phase
        assert len(told["Framing"]) > 2 * large // PIECE_BYTES
    assert seen == [["Reading", "Hashing", "Framing", "Compressing"], ["Reading", "Encoding", "Framing"]]


def test_copies_over_several_batches(tmp_path: Path) -> None:
    """Written by a build, judged by verify's rules."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "x.bin").write_bytes(bytes(range(256)) * 4096)
    manifest = tmp_path / "site.yaml"
    manifest.write_text("version: 1\nroot: site\ncopies: 64\nmtu: 9000\n")
    summary = build.build(manifest, tmp_path / "x.img", lambda *_: None)
    assert summary.image_bytes > 5 * BATCH_BYTES
    with open_image(tmp_path / "x.img", verify_content=True) as file:
        reader = Reader(file)
        (route,) = reader.routes()
        assert b"".join(reader.body(reader.original(route))) == (site / "x.bin").read_bytes()
        for frame in reader.frames(reader.original(route)):
            assert frame.copies == 64
    assert isinstance(summary, writer.Summary)
