"""A redirect that hands the request's query on is made at run time: what that may never do."""

from __future__ import annotations

from typing import Any

import pytest
from commands import sscc_here as sscc
from host import WALL_TEXT, Client, Host, Image
from scapy.layers.inet import TCP

QUERY = b"?utm_source=mail&x=" + bytes(range(0x40, 0x7F)) * 7
POOL = 16  # buffers of a stack with few connections, stack.c


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("redirect")
    (folder / "site" / "sub").mkdir(parents=True)
    (folder / "site" / "sub" / "index.html").write_text("sub")
    sscc("build", folder / "site", "-o", folder / "x.img")
    return Image.read(folder / "x.img")


def get(target: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: a", *fields, b"", b""])


def location(data: bytes) -> bytes:
    assert data.startswith(b"HTTP/1.1 301 ")
    return data.partition(b"Location: ")[2].partition(b"\r\n")[0]


def connected(host: Host, port: int = 40000, **how: Any) -> Client:
    client = Client(host, port=port, **how)
    client.connect()
    return client


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("mss", [1460, 100])
def test_what_is_sent_again_is_the_same(image: Image, mss: int, gather_max: int) -> None:
    """Everything is lost, another second comes, others ask for the same: each byte is what it was."""
    options = [("MSS", mss), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("WScale", 7)]
    host = Host(image, gather_max=gather_max, prompt=False)
    client = connected(host, options=options)
    first = host.send(client.packet("PA", get(b"/sub" + QUERY)))
    client.seq += len(get(b"/sub" + QUERY))
    for port in range(41000, 41004):
        other = connected(host, port=port)
        other.note(host.send(other.packet("PA", get(b"/sub?other", b"Connection: close"))), check=gather_max == 1)
        assert location(other.received) == b"/sub/?other"
        other.drain()
    host.complete()
    again = host.advance(1000) + host.advance(1500)
    ours = [each for each in again if each[TCP].dport == client.port]
    assert ours
    sent = {each[TCP].seq: Client.payload(each) for each in first if Client.payload(each)}
    for each in ours:
        payload = Client.payload(each)
        before = sent.get(each[TCP].seq, payload)
        assert payload[: len(before)] == before[: len(payload)]
    client.note(first, check=gather_max == 1)
    host.complete()
    for _ in range(20):
        client.drain(check=gather_max == 1)
        host.complete()
        client.note(host.advance(1000), check=gather_max == 1)
    assert location(client.received) == b"/sub/" + QUERY
    assert WALL_TEXT in client.received
    assert client.received.endswith(b"</html>\n")
    host.complete()


def test_what_no_field_may_hold_is_left_out(image: Image) -> None:
    """Neither a byte beyond ASCII nor a control character gets into a head; blanks end the target."""
    for byte in range(256):
        host = Host(image)
        client = connected(host)
        client.request(get(b"/sub?a" + bytes([byte]) + b"b"))
        client.drain()
        if byte in range(0x21, 0x7F) and byte != ord("#"):
            assert location(client.received) == b"/sub/?a" + bytes([byte]) + b"b"
        elif byte >= 0x80:
            assert location(client.received) == b"/sub/"
        else:
            assert client.received.startswith(b"HTTP/1.1 400 "), byte


def test_pipelined_among_others(image: Image) -> None:
    asked = [b"/sub?%d" % number if number % 3 else b"/sub/" for number in range(20)]
    client = connected(Host(image))
    client.request(b"".join(get(target) for target in asked))
    data = client.drain()
    for target in asked:
        head, _, data = data.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        assert (b"\r\nLocation: /sub/%s\r\n" % target.removeprefix(b"/sub") in head + b"\r\n") == (target != b"/sub/")
        data = data[length:]
    assert data == b""


def test_without_a_buffer_the_query_is_left_out(image: Image) -> None:
    """And with the ACK, the end of a connection or its reset there is one again."""
    host = Host(image)
    clients = [connected(host, port=40000 + number) for number in range(POOL + 4)]
    for client in clients:
        client.request(get(b"/sub?x"))
    found = [location(client.received) for client in clients]
    assert found == [b"/sub/?x"] * POOL + [b"/sub/"] * 4
    assert host.counters()["http_queries_left_out"] == 4
    for number, client in enumerate(clients):
        if number % 2:
            client.drain()
        else:
            host.send(client.packet("R"))
    for number in range(POOL):
        client = connected(host, port=50000 + number)
        client.request(get(b"/sub?y"))
        assert location(client.received) == b"/sub/?y"


def test_connection_close(image: Image) -> None:
    client = connected(Host(image))
    client.request(get(b"/sub?x", b"Connection: close"))
    client.drain()
    assert location(client.received) == b"/sub/?x"
    assert b"Connection:       close\r\n" in client.received
    assert client.fin
