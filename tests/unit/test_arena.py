"""Slots and their copies under load, with debug assertions: a frame in flight is never touched, nothing stalls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ssimage._sandstorm import ffi, lib
from ssrun.ports.base import new_apart

from tests.bench.memory import build_image, build_program, paths, run
from tests.host import Client, Host, Image
from tests.model import ModelImage, Page

pytestmark = pytest.mark.long

FILES = 700
SLOTS = FILES * 16
HOT = "10000:/0"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_program(tmp_path_factory.mktemp("bench") / "memory", "-O2", "-UNDEBUG")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_image(tmp_path_factory.mktemp("image"), FILES)


def arena(phase: dict[str, Any]) -> dict[str, int]:
    """The arena's counters; every byte was right, and no frame was touched in flight."""
    assert phase["mismatches"] == 0
    assert phase["violations"] == 0
    counters = phase["counters"]
    assert counters["arena_stalls"] == 0
    return {name.removeprefix("arena_"): value for name, value in counters.items() if name.startswith("arena_")}


def slow(program: Path, image: Path, *phases: str, **options: int) -> list[dict[str, int]]:
    """1,000 connections over a ring of 1,024 slots whose frames are complete 20 rounds later."""
    made = run(program, image, *phases, connections=1000, ring=1024, delay=20, strict=1, **options)
    return [arena(phase) for phase in made]


@pytest.mark.slow
def test_one_hot_file(program: Path, image: Path) -> None:
    rising, settled, again, others, back = slow(program, image, HOT, HOT, HOT, f"10000:{paths(1, 4)}", HOT)
    assert rising["copies_made"] > 1000
    assert settled == again == rising  # at the mark
    assert others["copies_reclaimed"] > rising["copies_reclaimed"]  # cold copies are used for others
    assert back["misses"] == back["evictions"] == 0


@pytest.mark.slow
def test_an_arena_a_tenth_of_the_image(program: Path, image: Path) -> None:
    rising, settled, others, _ = slow(program, image, HOT, HOT, f"10000:{paths(0, FILES)}", HOT, arena=SLOTS // 10)
    assert settled == rising
    assert rising["misses"] == 16  # its frames, once each
    assert others["misses"] > 100_000
    assert others["evictions"] > 100_000


@pytest.mark.slow
def test_superframes_keep_only_first_frames(program: Path, image: Path) -> None:
    """Their payload is gathered from the image; only what is patched is a slot."""
    (only,) = slow(program, image, f"5000:{paths(0, 100)}", gather=44, arena=1100)
    assert only["misses"] == 100


@pytest.mark.slow
def test_memcpy_has_no_copies_to_keep(program: Path, image: Path) -> None:
    (only,) = slow(program, image, HOT, memcpy=1)
    assert set(only.values()) == {0}


@pytest.mark.slow
def test_two_workers(program: Path, image: Path) -> None:
    (both,) = run(program, image, "2000:/0,/1,/2", workers=2, connections=50, strict=1)
    assert both["requests"] == 4000
    arena(both)


def test_every_byte_of_a_small_cache() -> None:
    """Against the model's bytes, which memory.c doesn't know: patches, too."""
    pages = {f"/{number}": Page(bytes([number]) * 5000) for number in range(40)}
    model = ModelImage(pages)
    host = Host(Image(model.sections), arena_slots=8, ring=4, prompt=False, max_connections=128)
    for port, path in enumerate([*pages, *reversed(pages)], 40000):
        client = Client(host, port=port)
        client.connect()
        host.complete()
        client.request(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        host.complete()
        while len(client.received) < len(model.streams[model.gets[path]]):
            client.note(host.send(client.packet("A")))
            host.complete()
            client.note(host.advance(0))
            host.complete()
        assert client.received.endswith(pages[path].body)
        assert b"keep-alive" in client.received
    counters = host.counters()
    assert counters["arena_misses"] > 100
    assert "arena_stalls" not in counters


def test_workers_share_no_cache_line(tmp_path: Path) -> None:
    """What each writes begins and ends on cache lines of its own."""
    ranges = []
    model = ModelImage({"/": Page(b"a")})
    image = Image(model.sections)
    (tmp_path / "slots").write_bytes(model.sections["slots"])
    keep = []
    for number in range(3):
        region, tx = new_apart("struct nmio_region *"), new_apart("struct nmio_tx *")
        with (tmp_path / "slots").open("rb") as file:
            size = image.header.slot_bytes
            assert lib.nmio_region_create(region, size, 64, image.header.slot_count, 64) == 0
            assert lib.nmio_region_read(region, file.fileno(), 0) == 0
        assert lib.nmio_tx_create(tx, 64) == 0
        memory = lib.memory_open(region, tx, 64, 0, 1, False)
        worker = lib.worker_create(
            Host._config(True, 1500, 1, 64, {}), image.image, lib.memory_as_port(memory), lib.WAKE_BALANCED
        )
        keep.append((region, tx, memory, worker))
        written = {
            "region": (region, ffi.sizeof("struct nmio_region")),
            "tx": (tx, ffi.sizeof("struct nmio_tx")),
            "chunks": (region.base, region.chunk_count * region.chunk_bytes),
            "in_flight": (region.in_flight, region.chunk_count),
            "free_buffers": (region.free_buffers, region.buffer_count * 4),
            "desc": (tx.desc, tx.capacity * ffi.sizeof("struct nmio_tx_desc")),
            "piece": (tx.piece, tx.piece_capacity * ffi.sizeof("struct nmio_piece")),
            "stack": (lib.worker_stack(worker), lib.worker_memory_bytes(worker)),
            "port": (memory, ffi.sizeof("struct nmio_port")),
            "worker": (worker, 64),
        }
        for name, (address, size_bytes) in written.items():
            start = int(ffi.cast("uintptr_t", address))
            assert start % 64 == 0, name
            ranges.append((start // 64, -(-(start + size_bytes) // 64), f"{name} of {number}"))
    ranges.sort()
    for before, after in zip(ranges, ranges[1:], strict=False):
        assert before[1] <= after[0], (before, after)
    for region, tx, memory, worker in keep:
        lib.worker_destroy(worker)
        lib.nmio_port_close(lib.memory_as_port(memory))
        lib.nmio_tx_destroy(tx)
        lib.nmio_region_destroy(region)
