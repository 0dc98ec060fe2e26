"""What the supervisor reads of a server that it does not trust: whatever lies in the memory that both share, it is only numbers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssimage._sandstorm import ffi, lib
from ssrun.ports.capture import DAMAGED
from ssrun.server import PORT_COUNTERS, counter_names, wake_counters

from tests.host import Client
from tests.model import ModelImage, Page
from tests.net import shared_memory
from tests.unit.test_capture import Captured
from tests.unit.test_ports_memory import Loop

BIG = bytes(range(251)) * 400
HEAD_BYTES = 128  # how far the ring is used, in front of it
RUBBISH = [b"\0", b"\xff", b"\x41", None]  # None: at random


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(ModelImage({"/big": Page(BIG)}), tmp_path, delay=0, gather_max=1)
    client = Client(loop)  # type: ignore[arg-type]
    client.connect()
    loop.send(client.packet("PA", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"))
    yield loop
    loop.close()


def scribble(address: object, size_bytes: int, rubbish: bytes | None) -> None:
    data = random.Random(1).randbytes(size_bytes) if rubbish is None else rubbish * size_bytes
    ffi.memmove(address, data, size_bytes)


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_the_supervisor_reads_numbers_and_follows_nothing(loop: Loop, rubbish: bytes | None) -> None:
    worker = loop.worker
    responses = loop.image.header.response_count
    frames = loop.image.header.frame_count
    before = loop.counters()
    assert before["tcp_opened"] == 1
    scribble(lib.worker_stack(worker), lib.worker_memory_bytes(worker), rubbish)
    scribble(lib.worker_wake(worker), os.sysconf("SC_PAGESIZE"), rubbish)  # all that is shared begins with it
    view = lib.worker_view(worker)
    assert counter_names(view) == list(before)
    if rubbish is not None:
        assert loop.counters()["tcp_opened"] == int.from_bytes(rubbish * 8)
        assert set(wake_counters(lib.worker_wake(worker)).values()) == {int.from_bytes(rubbish * 8)}
    assert len([getattr(lib.worker_port_counters(worker), name) for name in PORT_COUNTERS]) == 6
    for response in (*range(responses), responses, 0xFFFFFFFF):
        lib.stack_response_uses(view, response)
    for frame in (*range(frames), frames, 0xFFFFFFFF):
        lib.stack_frame_high_water(view, frame)
    mac = ffi.new("uint8_t[6]")
    for place in range(lib.ETH_ADDRESSES_MAX):
        lib.stack_address_state(lib.worker_stack(worker), place)
        lib.stack_address_conflicts(lib.worker_stack(worker), place, mac)
    lib.worker_unfinished(worker)
    lib.worker_link_change(worker, ffi.new("struct stack_link *"))
    lib.worker_drain(worker)
    lib.worker_stop(worker)


@pytest.mark.parametrize("rubbish", RUBBISH)
@pytest.mark.parametrize("kept_bytes", [0, HEAD_BYTES])
def test_a_capture_believes_nothing_of_its_ring(tmp_path: Path, rubbish: bytes | None, kept_bytes: int) -> None:
    """It ends with what it has written, at the first record that no worker can have written. kept_bytes: that stay as they were."""
    known = shared_memory(os.getpid())
    run = Captured(ModelImage({"/big": Page(BIG)}), tmp_path, snap_bytes=101)
    ring_bytes = run.capture.options.ring_bytes
    (ring,) = (start for start, size in shared_memory(os.getpid()) - known if size > ring_bytes)
    run.download()
    scribble(ffi.cast("uint8_t *", ring + kept_bytes), ring_bytes, rubbish)
    told: list[str] = []
    run.capture.start(told.append)
    run.capture.finish()
    written = run.capture.counters()["capture_frames"]
    if rubbish != b"\0":
        assert told == [DAMAGED]
    elif not kept_bytes:  # an empty ring
        assert not told
    assert len(run.close().frames) == written
