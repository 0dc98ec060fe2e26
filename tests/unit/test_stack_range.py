"""Ranges in memory, RFC 9110 section 14: which bytes come, and that whole frames in them leave in place."""

from __future__ import annotations

import random
import re
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from scapy.layers.inet import TCP
from ssimage._sandstorm import lib

from tests.host import WALL_S, WALL_TEXT, Client, Host, Image
from tests.model import BOUNDARY, ModelImage, Page

SEGMENT = 1428
BODY = random.Random(0).randbytes(20 * SEGMENT + 77)
SIZE = len(BODY)
HTTP = b" HTTP/1.1\r\nHost: a\r\n"
ETAG = Page(BODY).etag(BODY)
MODIFIED = "Sun, 06 Nov 1994 08:48:57 GMT"
EDGES = [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, SIZE - 1]


@pytest.fixture(scope="module")
def model() -> ModelImage:
    return ModelImage({"/a": Page(BODY, last_modified_s=WALL_S - 40), "/empty": Page(b""), "/one": Page(b"1")})


@pytest.fixture(scope="module")
def image(model: ModelImage) -> Image:
    return Image(model.sections)


def get(ranges: str, *more: str, method: str = "GET", path: str = "/a") -> bytes:
    fields = [f"Range: {ranges}", *more]
    return f"{method} {path}".encode() + HTTP + "".join(f"{line}\r\n" for line in fields).encode() + b"\r\n"


def split(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.split(":", 1) for line in lines[1:])
    return int(lines[0].split()[1]), {name: value.strip() for name, value in fields.items()}, body


def ask(image: Image, *requests: bytes, gather_max: int = 1, **how: Any) -> Client:
    client = Client(Host(image, gather_max=gather_max), **how)
    client.connect()
    for request in requests:
        client.request(request, check=gather_max == 1)
    client.drain(check=gather_max == 1)
    return client


def one(image: Image, request: bytes, **how: Any) -> tuple[int, dict[str, str], bytes]:
    return split(ask(image, request, **how).received)


def parts_of(fields: dict[str, str], body: bytes) -> list[tuple[int, int, bytes]]:
    """First, last and content of each part of a multipart/byteranges body, RFC 2046 section 5.1.1."""
    kind, _, boundary = fields["Content-Type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    assert int(fields["Content-Length"]) == len(body)
    delimiter = b"\r\n--" + boundary.encode()
    pieces = body.split(delimiter)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    found = []
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        value = re.search(rb"\r\nContent-Range: +bytes (\d+)-(\d+)/(\d+)\Z", head)
        assert value is not None
        assert b"\r\nContent-Type: text/model\r\n" in head
        assert int(value[3]) == SIZE
        found.append((int(value[1]), int(value[2]), content))
    return found


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("mss", [1460, 536])
@pytest.mark.parametrize("first", EDGES)
def test_every_edge(image: Image, first: int, mss: int, gather_max: int) -> None:
    for last in [edge for edge in EDGES if edge >= first]:
        options = [("MSS", mss), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("WScale", 7)]
        status, fields, body = one(image, get(f"bytes={first}-{last}"), gather_max=gather_max, options=options)
        assert status == 206
        assert body == BODY[first : last + 1]
        assert fields["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
        assert fields["Content-Length"] == str(last - first + 1)
        assert fields["Date"] == WALL_TEXT.decode()
        assert fields["Connection"] == "keep-alive"


@pytest.mark.parametrize(
    ("ranges", "first", "last"),
    [
        ("bytes=0-", 0, SIZE - 1),
        ("bytes=100-", 100, SIZE - 1),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        ("bytes=-1", SIZE - 1, SIZE - 1),
        (f"bytes=-{SIZE + 5}", 0, SIZE - 1),
        (f"bytes=5-{SIZE + 5}", 5, SIZE - 1),
        ("bytes=5-99999999999999999999999999", 5, SIZE - 1),
        ("bytes=-99999999999999999999999999", 0, SIZE - 1),
        ("BYTES=5-6", 5, 6),
        ("bytes= 5-6 ,", 5, 6),
        (f"bytes={SIZE}-,5-6", 5, 6),  # one of two can be satisfied: no multipart, RFC 9110 section 15.3.7.2
    ],
)
def test_shapes(image: Image, ranges: str, first: int, last: int) -> None:
    status, fields, body = one(image, get(ranges))
    assert (status, fields["Content-Range"]) == (206, f"bytes {first}-{last}/{SIZE}")
    assert body == BODY[first : last + 1]


@pytest.mark.parametrize(
    "ranges",
    [
        "bytes", "bytes=", "bytes=,", "bytes=a", "bytes=-", "bytes=5", "bytes=6-5", "bytes=1-2x", "bytes =1-2",
        "bytes=1 -2", "bytes=1-2;3-4", "bytes=1-2,x", "bytes=--5", "bytes=+1-2", "items=0-5", "=0-5", "bytes=0x1-2",
        "bytes=" + ",".join(["0-0"] * 201), f"bytes=0-,-{SIZE // 2}",
    ],
)  # fmt: skip
def test_what_is_ignored(image: Image, ranges: str) -> None:
    """Malformed, of another unit, or more than it would save: the whole, RFC 9110 sections 14.2 and 17.15."""
    status, fields, body = one(image, get(ranges))
    assert (status, body) == (200, BODY)
    assert "Content-Range" not in fields


def test_a_range_twice_is_ignored(image: Image) -> None:
    assert one(image, get("bytes=1-2", "Range: bytes=3-4"))[0] == 200
    assert one(image, get("bytes=1-2", "Range: bytes=3-4", "Range: bytes=3-4"))[0] == 200


def test_a_head_has_no_range(image: Image) -> None:
    """RFC 9110 section 14.2: of GET only."""
    status, fields, body = one(image, get("bytes=1-2", method="HEAD"))
    assert (status, body, fields["Content-Length"]) == (200, b"", str(SIZE))


@pytest.mark.parametrize("ranges", [f"bytes={SIZE}-", "bytes=-0", f"bytes={SIZE}-{SIZE + 5},-0", f"bytes={2**64}-"])
@pytest.mark.parametrize("gather_max", [1, 44])
def test_unsatisfiable(image: Image, ranges: str, gather_max: int) -> None:
    status, fields, body = one(image, get(ranges), gather_max=gather_max)
    assert (status, fields["Content-Range"], body) == (416, f"bytes */{SIZE}", b"416\n")
    client = ask(image, get(ranges, "Connection: close"))
    assert client.fin
    assert split(client.received)[1]["Connection"] == "close"


def test_small_bodies(image: Image) -> None:
    assert one(image, get("bytes=0-", path="/empty"))[0] == 200
    assert one(image, get("bytes=-5", path="/empty"))[0] == 200
    status, fields, body = one(image, get("bytes=0-7", path="/one"))
    assert (status, fields["Content-Range"], body) == (206, "bytes 0-0/1", b"1")
    assert one(image, get("bytes=1-", path="/one"))[1]["Content-Range"] == "bytes */1"


@pytest.mark.parametrize(
    ("validator", "status"),
    [
        (ETAG.decode(), 206),
        ("W/" + ETAG.decode(), 200),  # strong comparison, RFC 9110 section 13.1.5
        ('"other"', 200),
        (ETAG.decode()[1:-1], 200),
        (MODIFIED, 206),
        ("Sunday, 06-Nov-94 08:48:57 GMT", 206),
        ("Sun, 06 Nov 1994 08:48:58 GMT", 200),  # later is not the same
        ("Sun, 06 Nov 1994 08:48:56 GMT", 200),
        ("*", 200),
        ("", 200),
    ],
)
def test_if_range(image: Image, validator: str, status: int) -> None:
    assert one(image, get("bytes=1-2", f"If-Range: {validator}"))[0] == status
    # What can't be satisfied is ignored too when the condition is false.
    assert one(image, get(f"bytes={SIZE}-", f"If-Range: {validator}"))[0] == (416 if status == 206 else 200)


SHARED = ("If-None-Match: *", "Range: bytes=0-1", "Range: bytes=0-1,3-3")  # 304, 206 with one range and with two


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("mss", [1460, 100])
@pytest.mark.parametrize("field", SHARED)
def test_a_head_that_files_share_says_whose_it_is(gather_max: int, mss: int, field: str) -> None:
    """Whole or cut, while another client's is in flight, and again after a loss: ETag and Last-Modified are the file's."""
    pages = {f"/{number}": Page(b"%d" % number * 9, last_modified_s=number) for number in (1, 86_400 * 365)}
    model = ModelImage(pages)
    rows = model.tables["variants"]
    assert rows[0][4:12] == rows[1][4:12]  # the same 304 and 206
    host = Host(Image(model.sections), gather_max=gather_max, prompt=False)
    options = [("MSS", mss), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("WScale", 7)]
    clients = [Client(host, port=port, options=options) for port in (40_000, 40_001)]
    for client, path in zip(clients, pages, strict=True):
        client.connect()
        request = f"GET {path}".encode() + HTTP + f"{field}\r\n\r\n".encode()
        assert host.send(client.packet("PA", request))  # the answer is lost
        client.seq += len(request)
    host.complete()  # which sees whether anything was changed in flight
    again = host.advance(1000) + host.advance(1000)  # a tail loss probe, if that is not all, and a timeout
    for client, (path, page) in zip(clients, pages.items(), strict=True):
        client.note([each for each in again if each[TCP].dport == client.port], check=gather_max == 1)
        assert client.received
        client.drain(check=gather_max == 1)
        status, fields, _ = split(client.received)
        assert status == (304 if field.startswith("If-None") else 206)
        assert fields["ETag"].encode() == page.etag(page.body), path
        assert parsedate_to_datetime(fields["Last-Modified"]).timestamp() == page.last_modified_s, path
    host.complete()


def test_not_modified_comes_first(image: Image) -> None:
    assert one(image, get("bytes=1-2", f"If-None-Match: {ETAG.decode()}"))[0] == 304


@pytest.mark.parametrize("first", [0, 1, SEGMENT - 200, SEGMENT, 2 * SEGMENT + 500])
def test_whole_frames_leave_in_place(image: Image, model: ModelImage, first: int) -> None:
    """Head, and the first and the last of the slice if they are no whole frames: nothing else is copied."""
    last = 15 * SEGMENT + 99
    client = ask(image, get(f"bytes={first}-{last}"))
    head = len(model.streams[0]) - SIZE
    start, end = head + first, head + last + 1
    cut = (start % SEGMENT != 0) + (end % SEGMENT != 0)
    counters = client.host.counters()
    assert counters.get("tcp_tx_resegmented", 0) == cut
    assert counters["tcp_tx_segments"] == 1 + (end - 1) // SEGMENT - start // SEGMENT + 1


def test_superframes_gather_slices_in_place(image: Image) -> None:
    client = ask(image, get(f"bytes=700-{SIZE - 3}"), gather_max=44, window=65535)
    assert client.host.counters().get("tcp_tx_resegmented", 0) == 0
    assert client.host.counters()["tcp_tx_superframes"] <= 4


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("ranges", [f"bytes=100-{SIZE - 3}", "bytes=5-9,2000-4000,11-1998"])
def test_what_is_sent_again_is_the_same(image: Image, ranges: str, gather_max: int) -> None:
    """A lost segment of a 206 goes out with the same bytes, a second and another client's 206 later."""
    host = Host(image, gather_max=gather_max)
    client = Client(host)
    client.connect()
    sent: dict[int, int] = {}
    packets = host.send(client.packet("PA", get(ranges)))
    client.seq += len(get(ranges))
    got = b""
    base = packets[0][TCP].seq

    def take(some: list[Any]) -> None:
        nonlocal got
        for packet in some:
            if packet[TCP].dport != client.port or not Client.payload(packet):
                continue
            at, payload = packet[TCP].seq - base, Client.payload(packet)
            got = got.ljust(at + len(payload), b"\0")
            for i, byte in enumerate(payload, at):
                assert sent.setdefault(i, byte) == byte, f"byte {i} differs"
            got = got[:at] + payload + got[at + len(payload) :]

    take(packets)
    assert packets
    other = Client(host, port=40001)
    other.connect()
    other.note(host.send(other.packet("PA", get("bytes=7-7", "Connection: close"))), check=False)
    again = 0
    for _ in range(60):
        more = host.advance(400)
        again += sum(packet[TCP].seq - base < len(got) for packet in more if Client.payload(packet))
        take(more)
        # Acknowledge a little at a time, at odd places.
        client.ack = base + min(len(got), again * 397)
        take(host.send(client.packet("A")))
    assert again > 5
    client.ack = base + len(got)
    for _ in range(100):
        take(host.send(client.packet("A", ack=base + len(got))))
    status, fields, body = split(got)
    assert status == 206
    if "," in ranges:
        assert [content for _, _, content in parts_of(fields, body)] == [BODY[5:10], BODY[2000:4001], BODY[11:1999]]
    else:
        assert body == BODY[100 : SIZE - 2]


@pytest.mark.parametrize("gather_max", [1, 44])
def test_pipelined(image: Image, gather_max: int) -> None:
    """Answers of several spans among others of one, more than a connection queues."""
    wanted = [(i * 311, i * 311 + i * 97) for i in range(12)]
    requests = b"".join(get(f"bytes={first}-{last}") + get("bytes=0-", path="/one") for first, last in wanted)
    data = ask(image, requests, gather_max=gather_max).received
    for first, last in wanted:
        for expected in (BODY[first : last + 1], b"1"):
            head, _, data = data.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 206 ")
            assert data[: len(expected)] == expected
            data = data[len(expected) :]
    assert data == b""


def spread(count: int) -> list[tuple[int, int]]:
    """Ranges of different sizes that are apart."""
    step = SIZE // max(17, count + 1)
    return [(i * step, i * step + min(i * i * 3 + 1, step - 2)) for i in range(count)]


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("window", [64240, 3000, 700])
@pytest.mark.parametrize("count", [2, 3, 15, 16, 20, 127, 200])
def test_multipart(image: Image, count: int, window: int, gather_max: int) -> None:
    ranges = spread(count)
    text = "bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1000, 0))]
    client = ask(image, get(text), gather_max=gather_max, window=window, options=options)
    for _ in range(200):
        client.drain(check=gather_max == 1)
    status, fields, body = split(client.received)
    assert status == 206
    assert "Content-Range" not in fields
    assert fields["Content-Type"].endswith(BOUNDARY.decode())
    assert parts_of(fields, body) == [(first, last, BODY[first : last + 1]) for first, last in ranges]
    counters = client.host.counters()
    assert (counters["http_requests"], counters["http_status_2xx"]) == (1, 1)


@pytest.mark.parametrize("gather_max", [1, 44])
def in_twelve_round_trips(client: Client) -> None:
    """127 parts: as many as the windows let go, not as few as a connection queues answers."""
    client.request(get("bytes=" + ",".join(f"{first}-{last}" for first, last in spread(127))), check=False)
    for _ in range(12):
        client.note(client.host.send(client.packet("A")), check=False)
    _, fields, body = split(client.received)
    assert len(parts_of(fields, body)) == 127


@pytest.mark.parametrize("gather_max", [1, 44])
def test_many_parts_go_in_a_round_trip(image: Image, gather_max: int) -> None:
    """In one connection after the other, more than there are rings of spans."""
    host = Host(image, gather_max=gather_max)
    for port in range(40000, 40018):
        client = Client(host, port=port)
        client.connect()
        in_twelve_round_trips(client)


@pytest.mark.long
def test_rings_are_given_back(image: Image) -> None:
    """With an answer's end and with a connection's. Who finds none free gets the same, a little at a time."""
    host = Host(image, ring=512, buffers=2048)
    request = get("bytes=" + ",".join(f"{first}-{last}" for first, last in spread(127)))
    clients = [Client(host, port=40000 + number) for number in range(18)]
    for client in clients:
        client.connect()
        client.request(request)
    for client in clients[::2]:
        host.send(client.packet("R"))
    for client in clients[1::2]:
        client.drain()
        _, fields, body = split(client.received)
        assert len(parts_of(fields, body)) == 127
    for number in range(17):
        client = Client(host, port=50000 + number)
        client.connect()
        in_twelve_round_trips(client)


def test_multipart_in_the_order_asked_for(image: Image) -> None:
    _, fields, body = one(image, get(f"bytes=19-19, {SIZE}-, -2, 0-10"))
    assert [(first, last) for first, last, _ in parts_of(fields, body)] == [(19, 19), (SIZE - 2, SIZE - 1), (0, 10)]


def test_what_overlaps_is_one_part(image: Image) -> None:
    """RFC 9110 section 15.3.7.2; if it is all one, there are no parts."""
    _, fields, body = one(image, get("bytes=100-199,0-9,200-250,5-12"))
    assert [(first, last) for first, last, _ in parts_of(fields, body)] == [(100, 250), (0, 12)]
    status, fields, body = one(image, get("bytes=5-9,0-4,3-6"))
    assert (status, fields["Content-Range"], body) == (206, f"bytes 0-9/{SIZE}", BODY[:10])


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("mss", [1460, 100])
@pytest.mark.parametrize("more", [(), ("Connection: close",)])
@pytest.mark.parametrize("ranges", ["bytes=0-0", "bytes=1-2,5-2000", f"bytes={SIZE}-", f"bytes=0-{SIZE - 1}"])
def test_no_value_has_blanks_behind_it(
    image: Image, ranges: str, more: tuple[str, ...], mss: int, gather_max: int
) -> None:
    """RFC 9110 section 5.5 has recipients take them off, but not all do: to iPXE "2048   " is no number. Those in front are
    skipped by all."""
    options = [("MSS", mss), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("WScale", 7)]
    data = ask(image, get(ranges, *more), gather_max=gather_max, options=options).received
    for body in (b"416\n", *(BODY[first : last + 1] for first, last in ((0, SIZE - 1), (1, 2), (5, 2000), (0, 0)))):
        data = data.replace(body, b"", 1)
    lines = data.split(b"\r\n")
    assert [line for line in lines if line.startswith((b"Content-Range", b"Content-Length", b"Connection"))]
    assert [line for line in lines if line.endswith((b" ", b"\t"))] == []


def test_multipart_and_close(image: Image) -> None:
    client = ask(image, get("bytes=0-0,2-2,4-4", "Connection: close") + get("bytes=0-0"))
    status, fields, body = split(client.received)
    assert (status, fields["Connection"]) == (206, "close")
    assert len(parts_of(fields, body)) == 3
    assert client.fin


def test_multipart_with_a_body_and_more_behind_it(image: Image) -> None:
    client = ask(image, get("bytes=0-0,2-2,4-4", "Content-Length: 5") + b"01234" + get("bytes=7-8"))
    assert client.received.count(b"HTTP/1.1 206") == 2
    assert client.received.endswith(BODY[7:9])


def test_multipart_and_the_client_s_fin(image: Image) -> None:
    """A client that has no more to ask gets its answer whole."""
    client = Client(Host(image))
    client.connect()
    client.request(get("bytes=0-0,2-2,4-4,6-6"), "FPA")
    client.drain()
    _, fields, body = split(client.received)
    assert len(parts_of(fields, body)) == 4
    assert client.fin


def test_multipart_ends_before_a_drain(image: Image) -> None:
    """Stopping the server lets an answer come to its end, also the part of it that is not queued yet."""
    client = Client(Host(image))
    client.connect()
    client.request(get("bytes=" + ",".join(f"{first}-{last}" for first, last in spread(60))))
    lib.stack_drain(client.host.stack)
    client.drain()
    _, fields, body = split(client.received)
    assert len(parts_of(fields, body)) == 60
    assert client.fin


def test_a_multipart_request_while_no_buffer_is_free(image: Image) -> None:
    """The oldest that is under way makes room."""
    host = Host(image, config={"max_incomplete_requests": 1})
    blocker = Client(host, port=41000)
    blocker.connect()
    request = get("bytes=" + ",".join(f"{first}-{last}" for first, last in spread(60)))  # longer than the queue
    blocker.request(request)
    client = Client(host)
    client.connect()
    packets = client.request(request)
    assert [packet[TCP].dport for packet in packets if "R" in packet[TCP].flags] == [blocker.port]
    client.drain()
    _, fields, body = split(client.received)
    assert len(parts_of(fields, body)) == 60


def test_frames_in_flight_are_never_patched(image: Image) -> None:
    """Ranges over the frames whose heads are patched for others: complete() compares what was enqueued."""
    for gather_max in (1, 44):
        host = Host(image, gather_max=gather_max, prompt=False, ring=512)
        clients = []
        for port in range(40000, 40012):
            client = Client(host, port=port)
            client.connect()
            clients.append(client)
        for i, client in enumerate(clients):
            request = get("bytes=0-3000", "Connection: close") if i % 2 else get("bytes=1-2,5-2000")
            host.send(client.packet("PA", request if i % 3 else b"GET /a" + HTTP + b"\r\n"))
        host.complete()
