"""Every status and shape of answer from a compiled image, before a linter that nobody here wrote: httplint, which is what
REDbot judges by. Python's http.client cuts the answers out of the stream."""

from __future__ import annotations

import http.client
import io
import itertools
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from httplint import HttpRequestLinter, HttpResponseLinter, levels
from sscc.responses.errors import ERROR_STATUSES

from tests.host import WALL_S, Client, Host, Image, build

REQUEST_MS = 6_000  # longer than the server waits for the rest of a request
MODIFIED_S = WALL_S - 100_000
IDENTITY_REFUSED = "Accept-Encoding: identity;q=0"
MANIFEST = """version: 1
root: files
headers: {Cache-Control: max-age=3600}
encodings: {make: [br, gzip, zstd]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with and without encodings."""
    made = tmp_path_factory.mktemp("lint")
    files = made / "files"
    (files / "sub").mkdir(parents=True)
    (files / "index.html").write_text("<!DOCTYPE html><title>home</title>" + "<p>text</p>\n" * 400)
    (files / "sub" / "index.html").write_text("<!DOCTYPE html><title>sub</title>")
    (files / "empty.txt").write_bytes(b"")
    (files / "pixels.png").write_bytes(b"\x89PNG\r\n\x1a\n" + random.Random(0).randbytes(5000))
    for path in files.rglob("*"):
        os.utime(path, (MODIFIED_S, MODIFIED_S))
    (made / "site.yaml").write_text(MANIFEST)
    return made


@dataclass
class Shape:
    """A request, and the status of its answer."""

    status: int
    method: str
    target: str
    fields: tuple[str, ...]
    version: str = "1.1"
    whole: bool = True  # else only its line, and then silence

    @property
    def text(self) -> str:
        lines = (f"{self.method} {self.target} HTTP/{self.version}", *self.fields, "", "")
        return "\r\n".join(lines if self.whole else lines[:1])


def shape(status: int, method: str, target: str, *fields: str, **how: Any) -> Shape:
    return Shape(status, method, target, ("Host: www.example", "User-Agent: test", *fields), **how)


def both(name: str, status: int, target: str, *fields: str, head: int = 0, **how: Any) -> dict[str, Shape]:
    """A GET, and the HEAD of the same, whose status may be another."""
    return {
        name: shape(status, "GET", target, *fields, **how),
        f"{name}, HEAD": shape(head or status, "HEAD", target, *fields, **how),
    }


SHAPES: dict[str, Shape] = {
    **both("page with variants", 200, "/"),
    **both("picture", 200, "/pixels.png"),
    **both("empty file", 200, "/empty.txt"),
    **both("brotli", 200, "/", "Accept-Encoding: br"),
    **both("gzip", 200, "/", "Accept-Encoding: gzip"),
    **both("zstd", 200, "/", "Accept-Encoding: zstd"),
    "HTTP/1.0": shape(200, "GET", "/", version="1.0"),
    "close": shape(200, "GET", "/", "Connection: close"),
    "options of a path": shape(204, "OPTIONS", "/"),
    "options of the server": shape(204, "OPTIONS", "*"),
    **both("range", 206, "/pixels.png", "Range: bytes=10-29", head=200),
    **both("range of gzip", 206, "/", "Range: bytes=5-9", "Accept-Encoding: gzip", head=200),
    **both("range with If-Range", 206, "/pixels.png", "Range: bytes=0-9", "If-Range: TAG", head=200),
    **both("ranges", 206, "/pixels.png", "Range: bytes=0-9,20-29", head=200),
    **both("ranges of gzip", 206, "/", "Range: bytes=0-9,20-29", "Accept-Encoding: gzip", head=200),
    **both("folder without its slash", 301, "/sub"),
    **both("not modified", 304, "/pixels.png", "If-None-Match: TAG"),
    **both("gzip not modified", 304, "/", "If-None-Match: *", "Accept-Encoding: gzip"),
    **both("not modified since", 304, "/", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"),
    **both("bad target", 400, "/%zz"),
    "no Host": Shape(400, "GET", "/", ("User-Agent: test",)),
    **both("not found", 404, "/none"),
    "method not allowed": shape(405, "POST", "/", "Content-Length: 0"),
    **both("identity refused", 406, "/", IDENTITY_REFUSED),
    **both("identity refused, no variants", 406, "/pixels.png", IDENTITY_REFUSED),
    "half a request": shape(408, "GET", "/", whole=False),
    **both("other tag", 412, "/", 'If-Match: "x"'),
    **both("target too long", 414, "/" + "a" * 8_500),
    **both("range behind the end", 416, "/pixels.png", "Range: bytes=10000-", head=200),
    **both("unknown expectation", 417, "/", "Expect: something"),
    **both("head too large", 431, "/", *(f"X-{number}: {'a' * 1000}" for number in range(17))),
    "unknown method": shape(501, "BREW", "/"),
    **both("HTTP/2.0", 505, "/", version="2.0"),
}
# What it may say, of which answers, and why that is no flaw of theirs.
ALLOWED: dict[str, tuple[set[str], str]] = {
    "STATUS_BAD_REQUEST": ({"bad target", "no Host"}, "says what the status means"),
    "STATUS_URI_TOO_LONG": ({"target too long"}, "says what the status means"),
    "STATUS_VERSION_NOT_SUPPORTED": ({"HTTP/2.0"}, "says what the status means"),
    "PARTIAL_WITHOUT_RANGE": (
        {"ranges", "ranges of gzip"},
        "with several parts it is in them and must not be above, section 15.3.7.2",
    ),
    "BAD_GZIP": (
        {"ranges of gzip"},
        "the parts are cut from the coded file, which the linter takes them to be whole",
    ),
}
NOT_SENT = {421, 503}


class Stream(io.BytesIO):
    """What http.client reads from instead of a socket, and leaves the rest in."""

    def makefile(self, _: str) -> Stream:
        return self

    def close(self) -> None:
        pass


def cut(wanted: Shape, data: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    """The answer as Python's client reads it, and its body; nothing may follow."""
    stream = Stream(data)
    parsed = http.client.HTTPResponse(stream, method=wanted.method)  # type: ignore[arg-type]
    parsed.begin()
    body = parsed.read()
    assert stream.read() == b""
    return parsed, body


def field_pair(line: str) -> tuple[bytes, bytes]:
    name, _, value = line.partition(": ")
    return name.encode(), value.encode()


def linted(wanted: Shape, data: bytes, now_s: int) -> tuple[int, set[str]]:
    """The answer's status, and the notes that are warnings or worse."""
    request = HttpRequestLinter()
    request.process_request_topline(wanted.method.encode(), wanted.target.encode(), wanted.version.encode())
    request.process_headers([field_pair(line) for line in wanted.fields])
    request.finish_content(True)
    parsed, body = cut(wanted, data)
    response = HttpResponseLinter(start_time=now_s)
    response.request = request
    response.is_head_response = wanted.method == "HEAD"
    response.process_response_topline(b"1.1", str(parsed.status).encode(), parsed.reason.encode())
    response.process_headers([(name.encode(), value.encode()) for name, value in parsed.getheaders()])
    response.feed_content(body)
    response.finish_content(True)
    notes = [note for top in response.notes for note in (top, *top.subnotes)]
    return parsed.status, {type(note).__name__ for note in notes if note.level in {levels.BAD, levels.WARN}}


class Server:
    """The image in memory; a connection for each request."""

    def __init__(self, image: Image) -> None:
        self.host = Host(image)
        self.now_s = WALL_S
        self.ports = itertools.count(40000)
        picture = self.exchange(SHAPES["picture"].text)
        self.tag = next(line[6:] for line in picture.decode("latin-1").split("\r\n") if line.startswith("ETag: "))

    def exchange(self, text: str) -> bytes:
        """All that comes for a request until nothing more does."""
        client = Client(self.host, port=next(self.ports))
        client.connect()
        for at in range(0, len(text), 1400):
            client.request(text[at : at + 1400].encode())
        if not text.endswith("\r\n\r\n"):
            client.note(self.host.advance(REQUEST_MS))
            self.now_s += REQUEST_MS // 1000
        data = client.drain()
        self.host.send(client.packet("RA"))
        return data

    def answer(self, wanted: Shape) -> bytes:
        return self.exchange(wanted.text.replace("TAG", self.tag))


@pytest.fixture(scope="module")
def server(folder: Path) -> Server:
    return Server(Image.read(build(folder / "site.yaml", folder / "site.img")))


@pytest.mark.parametrize("name", SHAPES)
def test_the_linter_finds_nothing_wrong(server: Server, name: str) -> None:
    """And what is allowed is found: an exception that is no longer needed goes."""
    wanted = SHAPES[name]
    data = server.answer(wanted)
    status, notes = linted(wanted, data, server.now_s)
    assert data.startswith(b"HTTP/1.1 ")  # http.client takes others too
    assert status == wanted.status
    expected = {note for note, (names, _) in ALLOWED.items() if name.removesuffix(", HEAD") in names}
    if wanted.method == "HEAD":
        assert notes <= expected
    else:
        assert notes == expected


def test_every_status_is_among_them() -> None:
    assert {wanted.status for wanted in SHAPES.values()} == {200, 204, 206, 301, 304, *ERROR_STATUSES} - NOT_SENT


@pytest.mark.parametrize(
    ("name", "old", "new", "note"),
    [
        ("picture", b"\r\nETag: ", b"\r\nETag: x", "BAD_SYNTAX"),
        ("picture", b"\r\nDate: ", b"\r\nX-Date: ", "DATE_CLOCKLESS"),
        ("picture", b"\r\nDate:  Sun, 06", b"\r\nDate:  Sat, 05", "DATE_INCORRECT"),
        ("picture", b"max-age=3600", b"max-age=x", "CC_BAD_VALUE_TYPE"),
        ("picture", b"\r\nAccept-Ranges: bytes", b"\r\nAccept-Ranges: lines", "UNKNOWN_RANGE"),
        ("picture", b"\r\nAccept-Ranges: bytes", b"\r\nTransfer-Encoding: x", "TRANSFER_CODING_UNWANTED"),
        ("picture", b"\r\nLast-Modified: Sat, 05", b"\r\nLast-Modified: Mon, 07", "LM_FUTURE"),
        (
            "page with variants",
            b"\r\nLast-Modified: Sat, 05 Nov 1994",
            b"\r\nLast-Modified: 1994-11-05",
            "BAD_DATE_SYNTAX",
        ),
        ("gzip", b"\r\nContent-Encoding: gzip", b"\r\nContent-Encoding: deflate", "BAD_DEFLATE"),
        ("gzip", b"\r\nContent-Encoding: gzip", b"\r\nContent-Encoding: br", "ENCODING_UNWANTED"),
        ("range", b"\r\nContent-Range: ", b"\r\nX-Range: ", "PARTIAL_WITHOUT_RANGE"),
        ("range behind the end", b"\r\nContent-Range: ", b"\r\nX-Range: ", "STATUS_416_WITHOUT_CONTENT_RANGE"),
        ("folder without its slash", b"\r\nLocation: ", b"\r\nX: ", "REDIRECT_WITHOUT_LOCATION"),
        ("not modified", b"\r\nETag: ", b"\r\nContent-Type: text/plain\r\nETag: ", "HEADER_SHOULD_NOT_BE_IN_304"),
    ],
)
def test_the_linter_sees_what_is_wrong(server: Server, name: str, old: bytes, new: bytes, note: str) -> None:
    data = server.answer(SHAPES[name])
    assert data.count(old) == 1
    assert note in linted(SHAPES[name], data.replace(old, new), server.now_s)[1]
