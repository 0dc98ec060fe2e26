"""What strangers can send: those who see nothing of a connection and guess, and those who take too long."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from ssimage._sandstorm import lib

from tests.host import CLIENT_MAC, Client, Host, Image
from tests.model import ModelImage, Page

STRANGER_MAC = "02:00:00:00:00:66"
BODIES = {"/a": b"hello", "/big": bytes(range(251)) * 400}
PLAIN: Any = (("MSS", 1460),)
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


def test_slow_readers_do_not_keep_half_requests_from_making_room(image: Image) -> None:
    """Requests that wait behind answers which nobody reads have half of the buffers at most."""
    host = Host(image, config={"max_incomplete_requests": 32}, max_connections=128)
    for port in range(40_000, 40_024):
        _, reader = connected(image, port, host, window=1000)
        reader.request(GET_BIG + GET * 8)  # more than a connection answers at once
    halves = [connected(image, port, host)[1] for port in range(41_000, 41_040)]
    for half in halves:
        half.request(GET[:10])
    for half in halves[-16:]:
        half.request(GET[10:])
        assert half.received.endswith(b"hello")
    counters = host.counters()
    assert counters["tcp_evicted_incomplete_requests"] == 24
    assert counters["tcp_evicted_pipelined"] == 8


def test_the_longest_idle_makes_room_for_a_newcomer(image: Image) -> None:
    host = Host(image, max_connections=4)
    clients = []
    for port in range(40_000, 40_004):
        client = connected(image, port, host)[1]
        client.request(GET)
        client.drain()
        host.advance(100)
        clients.append(client)
    clients[0].request(GET)  # the first is not the longest idle any more
    clients[0].drain()
    syn_ack_and_more = Client(host, port=50_000)
    syn_ack_and_more.seq += 1
    (syn_ack,) = host.send(syn_ack_and_more.packet("S", seq=syn_ack_and_more.seq - 1, options=[("MSS", 1460)]))
    (reset,) = host.send(syn_ack_and_more.packet("A", ack=syn_ack[TCP].seq + 1, options=[]))
    assert reset[TCP].flags == "RA"
    assert reset[TCP].dport == clients[1].port
    assert host.counters()["tcp_evicted_idle"] == 1
    assert "tcp_drop_pool_full" not in host.counters()


def test_a_body_has_its_time(image: Image) -> None:
    """It may not come a byte each keep-alive time."""
    host, client = connected(image, host=Host(image, config={"keep_alive_ms": 2000, "request_ms": 3000}))
    client.request(b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    client.drain()
    for _ in range(6):
        client.note(host.advance(1000))
        if not client.fin:
            client.request(b"x")
    assert client.fin
    assert client.received.count(b"HTTP/1.1") == 1, "and no 408 behind the answer"


def test_a_short_keep_alive_resets_no_slow_download(image: Image) -> None:
    host, client = connected(
        image, host=Host(image, config={"keep_alive_ms": 100, "send_ms": 5000}), window=3000, options=PLAIN
    )
    client.request(GET_BIG)
    rounds = 0
    while not client.fin and rounds < 60:
        client.note(host.advance(1000))
        client.note(host.send(client.packet("A")))
        rounds += 1
    assert rounds > 30
    assert client.received.endswith(BODIES["/big"])
    assert host.counters()["tcp_timeout_idle"] == 1


def test_who_takes_nothing_is_reset_after_the_send_timeout(image: Image) -> None:
    host, client = connected(image, host=Host(image, config={"send_ms": 5000}), window=3000)
    client.request(GET_BIG)
    client.note(host.send(client.packet("A", window=0)))
    said = []
    for _ in range(60):
        said += host.advance(100)
        host.send(client.packet("PA", b"G", window=0))  # alive, but it takes nothing; what it says is no progress
        client.seq += 1
    assert said[-1][TCP].flags == "RA"
    assert host.counters()["tcp_timeout_send"] == 1


def test_who_does_not_close_is_forgotten_after_a_minute(image: Image) -> None:
    """FIN-WAIT-2, whatever --keep-alive and --send-timeout are."""
    host, client = connected(image)
    client.request(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    client.drain()
    host.advance(59_000)
    assert "tcp_closed" not in host.counters()
    host.advance(2_000)
    assert host.counters()["tcp_timeout_fin_wait"] == 1


def test_a_refused_request_is_read_to_its_end(image: Image) -> None:
    """The client sends on: its window opens, so that it comes to read its answer. What it sends has a bound."""
    host, client = connected(image)
    client.request(b"GET /a HTTP/1.1\r\nHost: a\r\nX: ")
    while not client.fin:
        packets = client.request(b"x" * 1400)
    assert b" 431 " in client.received
    assert packets[-1][TCP].window >= 14_000
    for _ in range(100):
        packets = client.request(b"x" * 1400)
        assert packets[-1][TCP].flags == "A"
        assert packets[-1][TCP].window == 16384
    while packets and packets[-1][TCP].flags == "A":
        packets = client.request(b"x" * 16_000)
    assert packets[-1][TCP].flags == "RA"
    assert host.counters()["tcp_drop_linger"] == 1


@pytest.mark.parametrize("seed", range(60))
def test_requests_in_any_order_of_their_segments(image: Image, seed: int) -> None:
    """Cut anywhere, some twice, some across others, in any order; what was dropped comes again at the end."""
    rng = random.Random(seed)
    host, client = connected(image, options=(("MSS", 1460), ("SAckOK", b"")))
    stream = GET * rng.randint(1, 12)
    pieces = []
    for _ in range(rng.randint(2, 60)):
        start = rng.randrange(len(stream))
        pieces.append((start, start + rng.randint(1, 60)))
    step = rng.randint(5, 80)
    pieces += [(start, start + step) for start in range(0, len(stream), step)]
    if rng.random() < 0.8:
        rng.shuffle(pieces)
    first = client.seq
    for start, end in [*pieces, *((start, start + step) for start in range(0, len(stream), step))]:
        data = stream[start:end]
        client.note(host.send(client.packet("PA", data, seq=first + start)))
        client.note(
            host.send(client.packet("A", seq=first + len(stream)))
        )  # takes what has come, whatever is missing
    client.seq = first + len(stream)
    client.drain()
    assert client.received.count(b"\r\n\r\nhello") == len(stream) // len(GET)
    assert client.received.count(b"HTTP/1.1 200 ") == len(stream) // len(GET)
    assert host.counters()["http_requests"] == len(stream) // len(GET)


def test_who_has_been_idle_gets_time_to_close(image: Image) -> None:
    """The FIN of draining begins a time of its own."""
    host, client = connected(image, host=Host(image, config={"keep_alive_ms": 6500, "send_ms": 6000}))
    client.request(GET)
    client.drain()
    host.advance(6200)
    lib.stack_drain(host.stack)
    said = host.advance(0) + host.advance(1000)
    assert "F" in said[0][TCP].flags
    assert not any("R" in packet[TCP].flags for packet in said)


def test_draining_lets_a_request_end(image: Image) -> None:
    """Of which a part is there: it is answered, and the answer says close, known as its head may be."""
    host = Host(image)
    clients = []
    for port in range(3):
        client = Client(host, port=50000 + port)
        client.connect()
        for _ in range(3 if port == 0 else 0):
            client.request(GET)
            client.drain()
        clients.append(client)
    idle, half, late = clients
    half.request(GET[:20])
    known = len(idle.received)
    lib.stack_drain(host.stack)
    for packet in host.advance(0):
        for client in clients:
            if packet[TCP].dport == client.port:
                client.note([packet])
    assert [client.fin for client in clients] == [True, False, True]
    assert lib.stack_unfinished(host.stack) == 1
    half.request(GET[20:])
    half.drain()
    assert b" close\r\n" in half.received
    assert half.fin
    assert len(idle.received) == known
    assert late.received == b""
    assert lib.stack_unfinished(host.stack) == 0


def test_a_known_head_is_answered_with_close_too(image: Image) -> None:
    host, client = connected(image)
    for _ in range(3):
        client.request(GET)
        client.drain()
    other = Client(host, port=50001)
    other.connect()
    other.request(GET[:1])
    lib.stack_drain(host.stack)
    host.advance(0)
    other.request(GET[1:] + GET)
    other.drain()
    assert other.received.count(b" close\r\n") == other.received.count(b"HTTP/1.1 200") == 1


def test_what_is_unfinished_is_reset(image: Image) -> None:
    """At the end; what has been acknowledged whole is left alone, or its client might not read it."""
    host = Host(image)
    clients = [Client(host, port=50000 + port) for port in range(4)]
    for client in clients:
        client.connect()
    whole, begun, half, _ = clients
    whole.request(GET)
    whole.drain()
    begun.request(GET)
    half.request(GET[:9])
    host.tx.space = 1
    assert not lib.stack_abort(host.stack)  # no more room
    assert lib.stack_unfinished(host.stack) == 1
    resets = host.sent()
    assert lib.stack_abort(host.stack)
    resets += host.sent()
    assert lib.stack_unfinished(host.stack) == 0
    assert sorted(packet[TCP].dport for packet in resets) == [begun.port, half.port]
    assert all("R" in packet[TCP].flags for packet in resets)
