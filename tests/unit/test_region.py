"""Regions: chunks, and an image's slots in them, mapped or read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ssimage._sandstorm import ffi, lib

CHUNK_BYTES, BUFFERS, SLOTS, SPARES = 2048, 64, 3000, 5  # six megabytes: more than two huge pages
OFFSET = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def slots(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(OFFSET) + os.urandom(SLOTS * CHUNK_BYTES))
    return path


@pytest.mark.parametrize("bring", ["nmio_region_map", "nmio_region_read"])
def test_slots_are_what_the_file_has_and_are_changed_alone(slots: Path, bring: str) -> None:
    region = ffi.new("struct nmio_region *")
    assert lib.nmio_region_create(region, CHUNK_BYTES, BUFFERS, SLOTS, SPARES) == 0
    with slots.open("rb") as file:
        assert getattr(lib, bring)(region, file.fileno(), OFFSET) == 0
    memory = ffi.buffer(region.base, region.chunk_count * CHUNK_BYTES)
    first = region.first_slot * CHUNK_BYTES
    before = slots.read_bytes()
    assert memory[first : first + SLOTS * CHUNK_BYTES] == before[OFFSET:]
    assert region.slot_count == SLOTS + SPARES
    assert memory[:first] == bytes(first), "buffers"
    memory[first : first + 4] = b"mine"
    assert slots.read_bytes() == before
    lib.nmio_region_destroy(region)


def test_a_file_that_is_too_short_is_not_read(slots: Path) -> None:
    region = ffi.new("struct nmio_region *")
    assert lib.nmio_region_create(region, CHUNK_BYTES, BUFFERS, SLOTS, SPARES) == 0
    os.truncate(slots, OFFSET + SLOTS * CHUNK_BYTES - 1)
    with slots.open("rb") as file:
        assert lib.nmio_region_read(region, file.fileno(), OFFSET) == -errno.EIO
    assert lib.nmio_region_read(region, -1, OFFSET) == -errno.EBADF
    lib.nmio_region_destroy(region)


def test_more_chunks_than_can_be_counted_are_refused() -> None:
    region = ffi.new("struct nmio_region *")
    assert lib.nmio_region_create(region, CHUNK_BYTES, BUFFERS, 2**32 - 1, SPARES) == -errno.EFBIG
