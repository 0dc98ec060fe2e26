"""What strangers can send: those who see nothing of a connection and guess, and those who take too long."""

from __future__ import annotations

from typing import Any

import pytest
from host import CLIENT_MAC, Client, Host, Image
from model import ModelImage, Page
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

STRANGER_MAC = "02:00:00:00:00:66"
BODIES = {"/a": b"hello", "/big": bytes(range(251)) * 400}
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
GET_BIG = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def image() -> Image:
    return Image(ModelImage({path: Page(body) for path, body in BODIES.items()}).sections)


def connected(image: Image, port: int = 40000, host: Host | None = None, **more: Any) -> tuple[Host, Client]:
    """A host and a client whose handshake is done."""
    host = host or Host(image)
    client = Client(host, port=port, **more)
    client.connect()
    return host, client


def test_an_ack_that_is_no_good_does_not_say_where_answers_go(image: Image) -> None:
    host, client = connected(image)
    client.request(GET_BIG)
    for fields in ({"ack": (client.ack + 70_000) % 2**32}, {"seq": (client.seq + 100_000) % 2**32}, {"flags": "S"}):
        guess = client.packet(**({"flags": "A"} | fields))
        guess[Ether].src = STRANGER_MAC
        host.send(guess)
    sent = host.advance(3000)
    assert sent, "the response's end is sent again"
    assert {packet[Ether].dst for packet in sent} == {CLIENT_MAC}


def test_a_flood_of_guesses_silences_no_answer_to_others(image: Image) -> None:
    host, _ = connected(image)
    strays = [Client(host, port=1000 + number).packet("A", seq=7, ack=9) for number in range(3000)]
    for at in range(0, len(strays), 60):
        host.send(*strays[at : at + 60])
    _, other = connected(image, 50_000, host)
    (challenge,) = host.send(other.packet("A", ack=(other.ack + 70_000) % 2**32))
    assert challenge[TCP].flags == "A"
    (reset,) = host.send(Client(host, port=50_001).packet("A", seq=7, ack=9))
    assert reset[TCP].flags == "R"


HUGE = ModelImage({"/a": Page(b"hello"), "/huge": Page(bytes(range(251)) * 24_000)})


@pytest.mark.parametrize(("gather", "ring"), [(1, 64), (44, 2)])
def test_a_large_download_does_not_starve_the_others(gather: int, ring: int) -> None:
    """While tx is full, each connection has its turn."""
    host = Host(Image(HUGE.sections), gather_max=gather, ring=ring)
    _, large = connected(host.image, 40_000, host, window=65535)
    _, small = connected(host.image, 40_001, host)
    large.request(b"GET /huge HTTP/1.1\r\nHost: a\r\n\r\n", check=False)
    while host.counters()["tcp_tx_segments"] < 1300:  # until the window is wide
        large.note(host.send(large.packet("A")), check=False)
    host.prompt = False
    large.note(host.send(large.packet("A")), check=False)
    assert len(host.flying) == host.ring, "tx is full"
    answer = host.send(small.packet("PA", GET))
    rounds = 0
    while not any(packet[TCP].dport == small.port for packet in answer):
        assert rounds < 6
        host.complete(max(ring // 4, 1))
        answer = host.advance(0.01)
        rounds += 1
