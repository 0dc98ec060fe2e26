"""The web in memory: which of the image's answers a request gets."""

from __future__ import annotations

import gzip

import pytest

from tests.host import WALL_S, WALL_TEXT, Client, Host, Image
from tests.model import CONNECTION_OFFSET, ModelImage, Page

A = b"hello"
TEXT = b"text " * 100
GZIP = gzip.compress(TEXT, mtime=0)
HTTP = b" HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture(scope="module")
def model() -> ModelImage:
    pages = {"/": Page(b"root"), "/a": Page(A, last_modified_s=WALL_S - 10), "/a b": Page(b"space")}
    pages["/t"] = Page(TEXT, encodings={1: GZIP})
    return ModelImage(pages)


@pytest.fixture(scope="module")
def image(model: ModelImage) -> Image:
    return Image(model.sections)


def ask(image: Image, *requests: bytes, gather_max: int = 1) -> Client:
    """A connection after these requests, each in a segment of its own."""
    client = Client(Host(image, gather_max=gather_max))
    client.connect()
    for request in requests:
        client.request(request, check=gather_max == 1)
    client.drain(check=gather_max == 1)
    return client


def split(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.split(":", 1) for line in lines[1:])
    return int(lines[0].split()[1]), {name: value.strip() for name, value in fields.items()}, body


def one(image: Image, request: bytes) -> tuple[int, dict[str, str], bytes]:
    return split(ask(image, request).received)


def test_get_and_head(image: Image) -> None:
    status, fields, body = one(image, b"GET /a" + HTTP + b"\r\n")
    assert (status, body) == (200, A)
    head_status, head_fields, nothing = one(image, b"HEAD /a" + HTTP + b"\r\n")
    assert (head_status, head_fields, nothing) == (200, fields, b"")
    assert fields["Date"] == WALL_TEXT.decode()
    assert fields["Content-Length"] == "5"
    assert fields["Connection"] == "keep-alive"


SEGMENT_BYTES = 512


def page_with_head(head_bytes: int, body: bytes) -> Page:
    """Whose GET has a head of that length."""
    without = ModelImage({"/": Page(body)})
    without_bytes = len(without.streams[without.gets["/"]]) - len(body)
    return Page(body, headers=b"X: ".ljust(head_bytes - without_bytes - 2, b"x") + b"\r\n")


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("body_bytes", [0, 1, 300, 10_000])
def test_a_head_is_what_get_begins_with(body_bytes: int, gather_max: int) -> None:
    """Whether it ends within a frame that has some of the body, at a frame's end, or with the answer; one after another
    in one connection, which the body of a GET in between and an ending do not change."""
    sizes = (400, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES, 3 * SEGMENT_BYTES - 100)
    body = bytes(range(256)) * 40
    pages = {f"/{size}": page_with_head(size, body[:body_bytes]) for size in sizes}
    model = ModelImage(pages, segment_bytes=SEGMENT_BYTES)
    image = Image(model.sections)
    expected = b""
    requests = []
    for path, get in model.gets.items():
        whole = model.expected(get, WALL_TEXT)
        head = whole[: len(whole) - body_bytes]
        assert head.endswith(b"\r\n\r\n")
        assert len(head) == int(path[1:])
        requests += [f"{method} {path}".encode() + HTTP + b"\r\n" for method in ("HEAD", "GET", "HEAD")]
        expected += head + whole + head
    get = model.gets["/400"]
    requests.append(b"HEAD /400" + HTTP + b"Connection: close\r\n\r\n")
    expected += model.expected(get, WALL_TEXT, close=True)[:400]
    client = ask(image, *requests, gather_max=gather_max)
    assert client.received == expected
    assert client.fin


def test_paths(image: Image) -> None:
    assert one(image, b"GET /a%20b?x=%zz" + HTTP + b"\r\n")[2] == b"space"
    assert one(image, b"GET /x/../%61" + HTTP + b"\r\n")[2] == A
    assert one(image, b"GET http://a/a" + HTTP + b"\r\n")[2] == A
    assert one(image, b"GET http://a" + HTTP + b"\r\n")[2] == b"root"
    assert one(image, b"GET /A" + HTTP + b"\r\n")[0] == 404
    assert one(image, b"GET /a/" + HTTP + b"\r\n")[0] == 404


def test_methods(image: Image) -> None:
    status, fields, _ = one(image, b"POST /a" + HTTP + b"Content-Length: 0\r\n\r\n")
    assert (status, fields["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert one(image, b"BREW /a" + HTTP + b"\r\n")[0] == 501


# https://www.iana.org/assignments/http-methods, but for those that are answered, and PRI, which is HTTP/2's.
REGISTERED = """ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR
MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT REBIND REPORT SEARCH TRACE UNBIND
UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL"""


def test_registered_methods_are_not_allowed_and_others_not_known(image: Image) -> None:
    """RFC 9110 section 9.1."""
    for method in REGISTERED.split():
        assert one(image, method.encode() + b" /a" + HTTP + b"\r\n")[0] == 405
        for other in (method + "S", method.lower(), method[:-1]):
            assert one(image, other.encode() + b" /a" + HTTP + b"\r\n")[0] == 501


def test_conditions(image: Image, model: ModelImage) -> None:
    etag = Page(A).etag(A)
    assert one(image, b"GET /a" + HTTP + b"If-None-Match: " + etag + b"\r\n\r\n")[0] == 304
    assert one(image, b"GET /a" + HTTP + b'If-None-Match: "x", W/' + etag + b"\r\n\r\n")[0] == 304
    assert one(image, b"GET /a" + HTTP + b'If-None-Match: "x"\r\n\r\n')[0] == 200
    since = b"If-Modified-Since: " + WALL_TEXT + b"\r\n\r\n"
    assert one(image, b"GET /a" + HTTP + since)[0] == 304
    before = since.replace(b"08:49:37", b"08:49:26")
    assert one(image, b"GET /a" + HTTP + before)[0] == 200
    # If-None-Match wins, RFC 9110 section 13.2.2.
    assert one(image, b"GET /a" + HTTP + b'If-None-Match: "x"\r\n' + since)[0] == 200


def test_options(image: Image) -> None:
    """RFC 9110 section 9.3.7, of the server and of an address."""
    for target in (b"*", b"/a", b"http://a/a", b"/none"):
        status, fields, body = one(image, b"OPTIONS " + target + HTTP + b"\r\n")
        assert (status, fields["Allow"], body) == (204, "GET, HEAD, OPTIONS", b"")
        assert "Content-Length" not in fields  # RFC 9110 section 8.6
    assert one(image, b"GET *" + HTTP + b"\r\n")[0] == 400
    assert one(image, b"POST *" + HTTP + b"\r\n")[0] == 400


EARLIER, SAME, LATER = "Sun, 06 Nov 1994 08:49:26 GMT", "Sun, 06 Nov 1994 08:49:27 GMT", WALL_TEXT.decode()
ETAG = Page(A).etag(A).decode()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        # If-Match: strong comparison, RFC 9110 section 13.1.1
        (f"If-Match: {ETAG}", 200),
        (f'If-Match: "x", {ETAG}', 200),
        (f"If-Match: W/{ETAG}", 412),
        ('If-Match: "x"', 412),
        ("If-Match: *", 200),
        ("If-Match:", 412),
        # If-Unmodified-Since, section 13.1.4
        (f"If-Unmodified-Since: {EARLIER}", 412),
        (f"If-Unmodified-Since: {SAME}", 200),
        (f"If-Unmodified-Since: {LATER}", 200),
        ("If-Unmodified-Since: yesterday", 200),
        # and If-Match goes before it, section 13.2.2
        (f"If-Match: {ETAG}\r\nIf-Unmodified-Since: {EARLIER}", 200),
        (f'If-Match: "x"\r\nIf-Unmodified-Since: {LATER}', 412),
        # what holds leads on to If-None-Match
        (f"If-Match: {ETAG}\r\nIf-None-Match: {ETAG}", 304),
        (f'If-Match: "x"\r\nIf-None-Match: {ETAG}', 412),
        (f"If-Unmodified-Since: {LATER}\r\nIf-Modified-Since: {LATER}", 304),
        ("If-None-Match: *", 304),
        # If-Modified-Since, only without If-None-Match
        (f"If-Modified-Since: {EARLIER}", 200),
        (f"If-Modified-Since: {SAME}", 304),
        (f'If-None-Match: "x"\r\nIf-Modified-Since: {LATER}', 200),
        ("If-Modified-Since: yesterday", 200),
        # Range comes last
        ("If-Match: *\r\nRange: bytes=0-1", 206),
        ('If-Match: "x"\r\nRange: bytes=0-1', 412),
        (f"If-Modified-Since: {SAME}\r\nRange: bytes=0-1", 304),
        (f"If-Modified-Since: {EARLIER}\r\nRange: bytes=0-1\r\nIf-Range: {ETAG}", 206),
        ('If-None-Match: "x"\r\nRange: bytes=0-1\r\nIf-Range: "x"', 200),
    ],
)
def test_conditions_in_their_order(image: Image, fields: str, status: int) -> None:
    assert one(image, b"GET /a" + HTTP + fields.encode() + b"\r\n\r\n")[0] == status
    head = one(image, b"HEAD /a" + HTTP + fields.encode() + b"\r\n\r\n")
    assert (head[0], head[2]) == (200 if status == 206 else status, b"")
    assert one(image, b"GET /none" + HTTP + fields.encode() + b"\r\n\r\n")[0] == 404


@pytest.mark.parametrize(
    ("accepted", "status"),
    [("identity;q=0", 406), ("*;q=0", 406), ("identity;q=0, br", 406), ("*;q=0, identity", 200), ("br", 200)],
)
def test_no_acceptable_encoding(image: Image, accepted: str, status: int) -> None:
    """406 only for who refuses the file as it is."""
    field = f"Accept-Encoding: {accepted}\r\n\r\n".encode()
    assert one(image, b"GET /a" + HTTP + field)[0] == status
    assert one(image, b"GET /t" + HTTP + field)[0] == status
    assert one(image, b"GET /t" + HTTP + b"Accept-Encoding: identity;q=0, gzip\r\n\r\n")[2] == GZIP


def test_vary_goes_with_every_variant(image: Image) -> None:
    etag = Page(TEXT).etag(TEXT)
    for fields, status in ((b"", 200), (b"Range: bytes=1-2\r\n", 206), (b"Accept-Encoding: gzip\r\n", 200)):
        got = one(image, b"GET /t" + HTTP + fields + b"\r\n")
        assert (got[0], got[1]["Vary"]) == (status, "Accept-Encoding")
    assert one(image, b"GET /t" + HTTP + b"If-None-Match: " + etag + b"\r\n\r\n")[1]["Vary"] == "Accept-Encoding"
    assert "Vary" not in one(image, b"GET /a" + HTTP + b"\r\n")[1]


def test_expectations(image: Image) -> None:
    """RFC 9110 section 10.1.1"""
    assert one(image, b"GET /a" + HTTP + b"Expect: 100-Continue\r\n\r\n")[0] == 200
    status, fields, _ = one(image, b"GET /a" + HTTP + b"Expect: 200-ok\r\n\r\n")
    assert (status, fields["Connection"]) == (417, "keep-alive")
    client = ask(image, b"GET /a" + HTTP + b"Expect: x\r\nContent-Length: 5\r\n\r\n")
    assert split(client.received)[0] == 417
    assert client.fin
    client = ask(image, b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\nExpect: x\r\nContent-Length: 1\r\n\r\n")
    assert client.received == b"" or split(client.received)[0] == 200


def test_absolute_form_goes_before_host(image: Image) -> None:
    """RFC 9112 section 3.2.2; Host must be there all the same."""
    assert one(image, b"GET http://b/a HTTP/1.1\r\nHost: other\r\n\r\n")[2] == A
    assert one(image, b"GET http://b/a HTTP/1.1\r\n\r\n")[0] == 400


def test_encodings(image: Image) -> None:
    _, fields, body = one(image, b"GET /t" + HTTP + b"\r\n")
    assert (fields.get("Content-Encoding"), body) == (None, TEXT)
    _, fields, body = one(image, b"GET /t" + HTTP + b"Accept-Encoding: br, gzip;q=0.5\r\n\r\n")
    assert (fields["Content-Encoding"], body) == ("gzip", GZIP)
    assert one(image, b"GET /t" + HTTP + b"Accept-Encoding: gzip;q=0\r\n\r\n")[2] == TEXT
    assert one(image, b"GET /t" + HTTP + b"Accept-Encoding: *\r\n\r\n")[2] == GZIP


def test_a_request_byte_by_byte(image: Image) -> None:
    request = b"GET /a" + HTTP + b"\r\n"
    client = ask(image, *(request[i : i + 1] for i in range(len(request))))
    assert split(client.received)[2] == A
    assert client.host.counters()["http_requests"] == 1


@pytest.mark.long
@pytest.mark.parametrize("piece_bytes", [1, 7, 700])
def test_a_long_head_in_pieces(image: Image, piece_bytes: int) -> None:
    """Behind an answer and an empty line, and in front of another request."""
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"x" * (number * 7 % 90)) for number in range(40))
    request = b"GET /a" + HTTP + lines + b"\r\n"
    stream = b"\r\n" + request + b"\r\n\r\n" + request + b"GET /t" + HTTP + b"\r\n"
    client = ask(image, *(stream[at : at + piece_bytes] for at in range(0, len(stream), piece_bytes)))
    assert client.received.count(b"HTTP/1.1 200") == 3
    assert client.received.endswith(TEXT)
    assert client.host.counters()["http_requests"] == 3


def test_a_head_that_gave_up_its_buffer_is_not_gone_on_with(image: Image) -> None:
    """The oldest half request makes room: what has been seen of it does not count for whoever takes the place."""
    host = Host(image, config={"max_incomplete_requests": 1})
    first, second = Client(host, port=41000), Client(host)
    first.connect()
    second.connect()
    request = b"GET /a" + HTTP + b"X: y\r\n\r\n"
    first.request(request[:30])
    second.request(request[:12])
    assert host.counters()["tcp_evicted_incomplete_requests"] == 1
    for piece in (request[12:31], request[31:]):
        second.request(piece)
    assert second.drain().endswith(A)


@pytest.mark.parametrize("count", [2, 10, 100])
@pytest.mark.parametrize("gather_max", [1, 44])
def test_pipelining_keeps_the_order(image: Image, count: int, gather_max: int) -> None:
    """More than the connection queues: the rest waits unread, in a bounded buffer."""
    requests = b"".join((b"GET /a" if i % 2 else b"GET /t") + HTTP + b"\r\n" for i in range(count))
    client = Client(Host(image, gather_max=gather_max))
    client.connect()
    for at in range(0, len(requests), 1400):
        client.request(requests[at : at + 1400], check=gather_max == 1)
    data = client.drain(check=gather_max == 1)
    for i in range(count):
        body = A if i % 2 else TEXT
        head, _, data = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert data[: len(body)] == body
        data = data[len(body) :]
    assert data == b""
    host = client.host
    assert host.counters()["http_requests"] == count


def test_connection_close_is_said_and_done(image: Image, model: ModelImage) -> None:
    client = ask(image, b"GET /a" + HTTP + b"Connection: close\r\n\r\n")
    assert client.received[CONNECTION_OFFSET:].startswith(b"     close\r\n")
    assert client.fin


def test_http_1_0(image: Image) -> None:
    client = ask(image, b"GET /a HTTP/1.0\r\n\r\n")
    assert client.fin
    client = ask(image, b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert not client.fin
    assert split(client.received)[1]["Connection"] == "keep-alive"


@pytest.mark.parametrize(
    "request_",
    [b"\x16\x03\x01\x02\0\x01", b"GET /\r\n\r\n", b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_garbage_is_refused_and_the_connection_ends(image: Image, request_: bytes) -> None:
    client = ask(image, request_, b"GET /a" + HTTP + b"\r\n")
    status, fields, _ = split(client.received)
    assert (status, fields["Connection"]) == (400, "close")
    assert client.fin


def test_a_head_too_large(image: Image) -> None:
    pieces = [b"GET /a" + HTTP, *([b"X: " + b"a" * 1000 + b"\r\n"] * 20)]
    client = ask(image, *pieces)
    assert split(client.received)[0] == 431
    assert client.fin


def test_bodies_are_drained_or_refused(image: Image) -> None:
    get = b"GET /a" + HTTP + b"\r\n"
    client = ask(image, b"POST /a" + HTTP + b"Content-Length: 10\r\n\r\n01234", b"56789" + get)
    assert b"405" in client.received
    assert client.received.endswith(A)
    for field in (
        b"Content-Length: 100000",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 5\r\nExpect: 100-continue",
    ):
        client = ask(image, b"GET /a" + HTTP + field + b"\r\n\r\n")
        assert split(client.received)[1]["Connection"] == "close"
        assert client.fin


def test_a_request_that_never_ends_gets_408(image: Image) -> None:
    client = Client(Host(image))
    client.connect()
    client.request(b"GET /a HTT")
    for _ in range(8):
        assert client.note(client.host.advance(600)) == []
        client.request(b"P")
    client.note(client.host.advance(600))
    assert split(client.received)[0] == 408
    assert client.fin


@pytest.mark.parametrize("empty", [b"\r\n", b"\r\n\r\n\r\n"])
@pytest.mark.parametrize("apart", [False, True])
def test_empty_lines_are_no_request(image: Image, empty: bytes, apart: bool) -> None:
    """RFC 9112 section 2.2: in front of a request, or behind one with a body, as old clients send it."""
    post = b"POST /a" + HTTP + b"Content-Length: 2\r\n\r\nab"
    for before in ([post, empty], [empty]):
        client = Client(Host(image))
        client.connect()
        for piece in before if apart else [b"".join(before)]:
            client.request(piece)
        client.drain()
        answered = len(client.received)
        for _ in range(15):
            client.note(client.host.advance(600))
        assert not client.fin
        assert len(client.received) == answered
        assert "tcp_timeout_request" not in client.host.counters()
        client.request(b"GET /a" + HTTP + b"\r\n")
        client.drain()
        assert client.received[answered:].endswith(A)


def test_an_empty_line_in_two_segments(image: Image) -> None:
    client = Client(Host(image))
    client.connect()
    client.request(b"\r")
    client.request(b"\n")
    for _ in range(15):
        client.note(client.host.advance(600))
    assert (client.received, client.fin) == (b"", False)
    client.request(b"\r\nGET /a" + HTTP + b"\r\n")
    assert client.drain().endswith(A)


def test_a_bare_cr_in_front_is_refused(image: Image) -> None:
    assert one(image, b"\rGET /a" + HTTP + b"\r\n")[0] == 400


def test_https_is_for_another_server(image: Image) -> None:
    """RFC 9110 section 7.4: what is asked for as https must not be answered over an unsecured connection."""
    client = ask(image, b"GET https://a/a" + HTTP + b"\r\n")
    assert split(client.received)[0] == 421


def test_date_goes_with_the_clock(image: Image) -> None:
    client = ask(image, b"GET /a" + HTTP + b"\r\n")
    client.host.advance(1000)
    client.request(b"GET /a" + HTTP + b"\r\n")
    assert client.received.count(WALL_TEXT) == 1
    assert client.received.count(WALL_TEXT.replace(b":37", b":38")) == 1
