"""The worker's loop over the in-memory port: slow, strict, and with superframes cut as a NIC cuts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from ssimage._sandstorm import ffi, lib

from tests.host import CLIENT_MAC, SERVER_MAC, Client, Host, Image, checked
from tests.model import CONNECTION_OFFSET, DATE_OFFSET, ModelImage, Page

BIG = bytes(range(251)) * 400


@pytest.fixture(scope="module")
def model() -> ModelImage:
    return ModelImage({"/big": Page(BIG)})


class Loop:
    """A worker over a memory port; `send` has Host's form, so that Client works with it.

    wrap: makes the port that the worker gets.
    """

    def __init__(
        self,
        model: ModelImage,
        folder: Path,
        *,
        delay: int,
        gather_max: int,
        ring: int = 64,
        wrap: Callable[[Any], Any] = lambda port: port,
    ) -> None:
        self.image = Image(model.sections)
        header = self.image.header
        path = folder / "slots"
        path.write_bytes(model.sections["slots"])
        self.region = ffi.new("struct nmio_region *")
        self.tx = ffi.new("struct nmio_tx *")
        with path.open("rb") as file:
            assert lib.nmio_region_create(self.region, header.slot_bytes, 256, header.slot_count, ring) == 0
            assert lib.nmio_region_map(self.region, file.fileno(), 0) == 0
        assert lib.nmio_tx_create(self.tx, ring) == 0
        self.memory = lib.memory_open(self.region, self.tx, ring, delay, gather_max, True)
        config = Host._config(True, 1500, gather_max, 64, {})
        self.port = wrap(lib.memory_as_port(self.memory))
        self.worker = lib.worker_create(config, self.image.image, self.port, lib.WAKE_BALANCED)
        assert self.worker != ffi.NULL

    def send(self, *packets: Packet | bytes) -> list[Packet]:
        """Feeds frames, runs a few rounds, takes what came."""
        for packet in packets:
            data = bytes(packet)
            assert lib.memory_feed(self.memory, data, len(data), 0)
        for _ in range(4):
            assert lib.worker_round(self.worker) >= 0
        frame = ffi.new("uint8_t[]", 66000)
        taken = []
        while length := lib.memory_take(self.memory, frame, 66000):
            taken.append(Ether(bytes(ffi.buffer(frame, length))))
        return taken

    def counters(self) -> dict[str, int]:
        view = lib.worker_view(self.worker)
        names = (ffi.string(lib.stack_counter_name(view, i)).decode() for i in range(lib.stack_counter_count(view)))
        return {name: lib.stack_counter(view, i) for i, name in enumerate(names)}

    def close(self) -> None:
        lib.worker_destroy(self.worker)
        lib.nmio_port_close(lib.memory_as_port(self.memory))
        lib.nmio_tx_destroy(self.tx)
        lib.nmio_region_destroy(self.region)


@pytest.fixture(params=[(0, 1), (3, 1), (3, 44), (0, 7)], ids=lambda p: f"delay{p[0]}-gather{p[1]}")
def loop(request: pytest.FixtureRequest, model: ModelImage, tmp_path: Path) -> Iterator[Loop]:
    delay, gather_max = request.param
    made = Loop(model, tmp_path, delay=delay, gather_max=gather_max)
    yield made
    made.close()


def without_date(data: bytes) -> bytes:
    return data[:DATE_OFFSET] + data[DATE_OFFSET + 29 :]


def connect(loop: Loop, clients: list[Client]) -> None:
    """All at once; the handshake's last ACK comes with the request."""
    answers = loop.send(*(client.packet("S", options=client.options) for client in clients))
    for client in clients:
        (syn_ack,) = (packet for packet in answers if packet[TCP].dport == client.port)
        client.seq += 1
        client.ack = syn_ack[TCP].seq + 1
        client.ts_echo = dict(syn_ack[TCP].options)["Timestamp"][0]


def check_ordinary(packets: list[Any]) -> None:
    """Frames as anybody's: of the MTU's size at most, between the two MACs, with right checksums."""
    for packet in packets:
        assert len(bytes(packet)) <= 1514
        assert (packet.src, packet.dst) == (SERVER_MAC, CLIENT_MAC)
        checked(packet)


@pytest.mark.parametrize("v6", [False, True])
def test_many_connections_over_a_slow_port(loop: Loop, model: ModelImage, v6: bool) -> None:
    """Each frame taken is whole and ordinary, whatever was gathered; no frame changes while it is in flight."""
    host: Any = loop
    clients = [Client(host, port=40000 + i, v6=v6) for i in range(8)]
    connect(loop, clients)
    request = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
    frames = loop.send(*(client.packet("PA", request) for client in clients))
    for client in clients:
        client.seq += len(request)
    for _ in range(200):
        check_ordinary(frames)
        for client in clients:
            client.note([packet for packet in frames if packet[TCP].dport == client.port], check=False)
        frames = loop.send(*(client.packet("A") for client in clients))
        if not frames:
            break
    expected = model.streams[0]
    for client in clients:
        assert len(client.received) == len(expected)
        assert without_date(client.received) == without_date(expected)
        assert client.received[CONNECTION_OFFSET:].startswith(b"keep-alive")
    assert lib.memory_violations(loop.memory) == 0
    counters = loop.counters()
    assert counters["arena_stalls"] == 0
    assert counters["arena_copies_made"] > 0


def test_the_strict_port_notices_a_change(model: ModelImage, tmp_path: Path) -> None:
    """Were a frame in flight ever patched, the test above would fail: here the test itself does it."""
    loop = Loop(model, tmp_path, delay=20, gather_max=1)
    host: Any = loop
    client = Client(host)
    (syn_ack,) = loop.send(client.packet("S", options=client.options))
    client.seq, client.ack = client.seq + 1, syn_ack[TCP].seq + 1
    client.ts_echo = dict(syn_ack[TCP].options)["Timestamp"][0]
    loop.send(client.packet("PA", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"))
    in_flight = [
        chunk for chunk in range(loop.region.first_slot, loop.region.chunk_count) if loop.region.in_flight[chunk]
    ]
    assert in_flight
    loop.region.base[in_flight[0] * loop.region.chunk_bytes + 200] ^= 1
    for _ in range(8):
        loop.send()
    assert lib.memory_violations(loop.memory) == 1
    loop.close()
