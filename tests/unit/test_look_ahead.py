"""With many connections and a large image, what a batch's requests need is fetched ahead: whatever the requests are, the
answers are what they are without it."""

from __future__ import annotations

from itertools import count

import pytest

from tests.host import WALL_TEXT, Client, Host, Image
from tests.model import ModelImage, Page

ROUTES = 1_100  # WEB_AHEAD_ROUTES_MIN is less
CONNECTIONS = 520  # and so is PREFETCH_CONNECTIONS
ASKING = 20
PORTS = count(30_000)


@pytest.fixture(scope="module")
def model() -> ModelImage:
    return ModelImage({f"/{number}": Page(b"%d " % number * 50) for number in range(ROUTES)})


@pytest.fixture(scope="module")
def host(model: ModelImage) -> Host:
    host = Host(Image(model.sections), max_connections=1_000, ring=256)
    for _ in range(CONNECTIONS - ASKING):
        Client(host, port=next(PORTS)).connect()
    return host


def clients_of(host: Host) -> list[Client]:
    clients = [Client(host, port=next(PORTS), v6=number % 2 == 1) for number in range(ASKING)]
    for client in clients:
        client.connect()
    return clients


def ask(host: Host, clients: list[Client], requests: list[bytes]) -> None:
    """All in one batch; each takes what is for it."""
    packets = []
    for client, request in zip(clients, requests, strict=True):
        packets.append(client.packet("PA", request))
        client.seq += len(request)
    sent = host.send(*packets)
    for client in clients:
        client.note([packet for packet in sent if packet.dport == client.port])


def test_each_of_a_batch_gets_its_own_answer(host: Host, model: ModelImage) -> None:
    clients = clients_of(host)
    for turn in range(3):
        for client in clients:
            client.received = b""
        numbers = [(turn * ASKING + at) * 17 % ROUTES for at in range(ASKING)]
        ask(host, clients, [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in numbers])
        for client, number in zip(clients, numbers, strict=True):
            assert client.received == model.expected(model.gets[f"/{number}"], WALL_TEXT)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /7?x HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
        (b"GET /%37 HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
        (b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"GET http://a/7 HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
        (b"HEAD /7 HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
        (b"\r\nGET /7 HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
        (b"GET  HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 1400, b""),  # no end of the path, up to the end of the segment
        (b"GET ", b""),
        (b"G", b""),
        (b"\xff" * 400 + b"\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_plain_request_is_only_not_fetched(host: Host, request_bytes: bytes, status: bytes) -> None:
    clients = clients_of(host)
    before = host.counters().get("http_requests", 0)
    ask(host, clients, [request_bytes] * ASKING)
    for client in clients:
        assert client.received.split(b" ")[1:2] == ([status] if status else [])
    assert host.counters().get("http_requests", 0) - before == (ASKING if status else 0)
    for client in clients:
        host.send(client.packet("RA"))


def test_frames_that_are_cut_short_are_counted(host: Host) -> None:
    whole = bytes(Client(host, port=next(PORTS)).packet("PA", b"GET /7 HTTP/1.1\r\n"))
    before = host.counters()
    host.send(*(whole[:length] for length in range(1, len(whole))))
    counters = host.counters()
    dropped = {name: counters[name] - before.get(name, 0) for name in counters if "drop" in name}
    assert sum(dropped.values()) == len(whole) - 1
