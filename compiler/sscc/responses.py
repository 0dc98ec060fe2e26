"""Heads: every answer that the runtime can pick, with its header fields."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from urllib.parse import quote

from ssrun._sandstorm import lib

from .content import Content, Source, matches, media_type
from .manifest import Manifest

EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"  # stands where Date will be
KEEP_ALIVE = "keep-alive"
ENCODINGS = {"gzip": lib.SSI_ENCODING_GZIP, "br": lib.SSI_ENCODING_BR, "zstd": lib.SSI_ENCODING_ZSTD}
ERROR_STATUSES = (400, 404, 405, 406, 408, 412, 414, 416, 417, 421, 431, 501, 503, 505)
ALLOW = ("Allow", "GET, HEAD, OPTIONS")
# Digits of the sizes that part headers have room for: in steps, so that most files of a type share one.
PART_DIGITS = (6, 9, 12, 20)
PARTS_MAX = int(lib.HTTP_RANGES_MAX)
BOUNDARY_DIGITS = 32
PHRASES = {414: "URI Too Long", 416: "Range Not Satisfiable"}
PATH_SAFE = "/~!$&'()*+,;=:@"  # pchar and slash, RFC 3986 section 3.3


@dataclass(frozen=True)
class Response:
    """Head and body, before they are cut into frames."""

    status: int
    head: bytes
    body: Content | bytes | None = None
    copies: int = 1
    date_offset: int = 0
    connection_offset: int = 0
    length_offset: int = 0
    range_offset: int = 0
    length_bytes: int = 0
    range_bytes: int = 0

    def moving(self) -> dict[str, int]:
        """Where its moving fields are, by the names that the image and frame_build have for them."""
        return {name: getattr(self, name) for name in MOVING}

    @property
    def stream_bytes(self) -> int:
        """Length of head and body."""
        if self.body is None:
            return len(self.head)
        return len(self.head) + (len(self.body) if isinstance(self.body, bytes) else self.body.size_bytes)

    def key(self) -> tuple[bytes, str, int]:
        """Equal for responses whose frames can be shared."""
        body = self.body.sha256 if isinstance(self.body, Content) else (self.body or b"").hex()
        return self.head, body, self.copies


MOVING = ("date_offset", "connection_offset", "length_offset", "range_offset", "length_bytes", "range_bytes")


@dataclass(frozen=True)
class Multipart:
    """What all multipart/byteranges answers of a site share, RFC 9110 section 14.6."""

    boundary: str

    @property
    def type(self) -> Response:
        """The line that stands in for Content-Range and Content-Type of a single range's head."""
        return Response(206, f"Content-Type: multipart/byteranges; boundary={self.boundary}\r\n".encode())

    @property
    def end(self) -> Response:
        """The closing delimiter."""
        return Response(206, f"\r\n--{self.boundary}--\r\n".encode())

    def part(self, kind: str, size_bytes: int) -> Response:
        """What stands in front of a part of a body of that media type and size."""
        digits = next(each for each in PART_DIGITS if each >= len(str(size_bytes)))
        head = _Head(f"\r\n--{self.boundary}\r\nContent-Type: {kind}\r\n")
        head.move("range", "Content-Range", "bytes 0-0/1".ljust(_range_bytes(digits)))
        return head.response(206)


@dataclass
class Variant:
    """One encoding of a route and its answers."""

    get: Response
    head: Response
    not_modified: Response | None
    partial: Response | None = None
    part: Response | None = None
    swap_offset: int = 0  # of Content-Range and Content-Type in partial
    swap_bytes: int = 0
    etag: bytes = b""
    encoding: int = 0
    last_modified_s: int = -1
    content_bytes: int = 0


@dataclass
class Route:
    """A path and its variants, best first."""

    path: bytes
    variants: list[Variant] = field(default_factory=list)


@dataclass
class ErrorPage:
    """The site's answer for a status."""

    status: int
    get: Response
    head: Response


def _phrase(status: int) -> str:
    """RFC 9110's; older Pythons have some of RFC 7231, and an image must not depend on that."""
    return PHRASES.get(status) or HTTPStatus(status).phrase


def http_date(seconds: int) -> str:
    """IMF-fixdate, RFC 9110 section 5.6.7."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def _range_bytes(digits: int) -> int:
    """Width of a Content-Range whose numbers have so many digits: "bytes 0-0/1"."""
    return len("bytes -/") + 3 * digits


class _Head:
    """A head in the making. Fields that move begin at even offsets, so that their sums need no swap."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.places: dict[str, int] = {}

    def move(self, key: str, name: str, value: str) -> None:
        """Adds a field that moves, value as wide as it will ever be."""
        # An optional space in front of a value (RFC 9110 section 5.5) moves it to an even offset.
        self.text += f"{name}: " if (len(self.text) + len(name) + 2) % 2 == 0 else f"{name}:  "
        self.places[f"{key}_offset"] = len(self.text)
        if key in ("length", "range"):
            self.places[f"{key}_bytes"] = len(value)
        self.text += value + "\r\n"

    def add(self, fields: list[tuple[str, str]]) -> None:
        """Adds fields that stay."""
        self.text += "".join(f"{name}: {value}\r\n" for name, value in fields)

    def response(self, status: int, body: Content | bytes | None = None, copies: int = 1) -> Response:
        """The whole, with the empty line."""
        return Response(status, (self.text + "\r\n").encode("latin-1"), body, copies, **self.places)


def _begin(status: int) -> _Head:
    """Status line, Date and Connection: what moves comes first, so that it is in the first frame."""
    head = _Head(f"HTTP/1.1 {status} {_phrase(status)}\r\n")
    head.move("date", "Date", EPOCH)
    head.move("connection", "Connection", KEEP_ALIVE)
    return head


def _server(manifest: Manifest) -> list[tuple[str, str]]:
    return [("Server", "Sandstorm")] if manifest.server else []


def _response(
    manifest: Manifest,
    status: int,
    fields: list[tuple[str, str]],
    body: Content | bytes | None = None,
    copies: int = 1,
) -> Response:
    head = _begin(status)
    head.add([*_server(manifest), *fields])
    return head.response(status, body, copies)


def _custom(manifest: Manifest, route: str) -> tuple[list[tuple[str, str]], int]:
    """Header fields and copies that the manifest gives a path."""
    fields = dict(manifest.headers)
    copies = manifest.copies
    for rule in manifest.rules:
        if matches(route, rule.match):
            fields.update(rule.headers)
            copies = rule.copies or copies
    return sorted(fields.items()), copies


def _partial(
    manifest: Manifest, size_bytes: int, kind: str, rest: list[tuple[str, str]], part: Response, end: Response
) -> tuple[Response, int, int]:
    """The head of a 206, and where it has what a multipart answer swaps."""
    largest = size_bytes + PARTS_MAX * part.stream_bytes + end.stream_bytes
    head = _begin(206)
    head.move("length", "Content-Length", str(size_bytes).ljust(len(str(largest))))
    swap = len(head.text)
    digits = len(str(size_bytes))
    head.move("range", "Content-Range", f"bytes 0-{max(size_bytes, 1) - 1}/{size_bytes}".ljust(_range_bytes(digits)))
    head.add([("Content-Type", kind)])
    swap_bytes = len(head.text) - swap
    head.add([*_server(manifest), *rest])
    return head.response(206), swap, swap_bytes


@dataclass(frozen=True)
class _Maker:
    """Makes the answers of files."""

    manifest: Manifest
    multipart: Multipart

    def variant(self, source: Source, content: Content, coding: str | None, varies: bool) -> Variant:
        """All answers of one encoding."""
        manifest = self.manifest
        route = os.fsdecode(source.route)
        custom, copies = _custom(manifest, route)
        kind = media_type(manifest, route)
        # What a 304 has of the 200's fields, RFC 9110 section 15.4.5.
        shared = [("ETag", content.etag), *([("Vary", "Accept-Encoding")] if varies else [])]
        modified = [("Last-Modified", http_date(source.mtime_s))]
        rest = [
            *([("Content-Encoding", coding)] if coding else []),
            *shared,
            *modified,
            ("Accept-Ranges", "bytes"),
            *custom,
        ]
        full = [("Content-Type", kind), ("Content-Length", str(content.size_bytes)), *rest]
        kept = [item for item in custom if item[0].lower() in ("cache-control", "expires", "content-location")]
        part = self.multipart.part(kind, content.size_bytes)
        partial, swap_offset, swap_bytes = _partial(
            manifest, content.size_bytes, kind, rest, part, self.multipart.end
        )
        return Variant(
            get=_response(manifest, 200, full, content, copies),
            head=_response(manifest, 200, full),
            not_modified=_response(manifest, 304, [*shared, *modified, *kept]),
            partial=partial,
            part=part,
            swap_offset=swap_offset,
            swap_bytes=swap_bytes,
            etag=content.etag.encode(),
            encoding=ENCODINGS[coding] if coding else lib.SSI_ENCODING_IDENTITY,
            last_modified_s=source.mtime_s,
            content_bytes=content.size_bytes,
        )

    def route(self, source: Source) -> Route:
        """A file's route, the smallest variant first."""
        assert source.content is not None
        contents: list[tuple[str | None, Content]] = [(None, source.content), *source.variants.items()]
        contents.sort(key=lambda item: (item[1].size_bytes, item[0] or ""))
        varies = bool(source.variants)
        return Route(source.route, [self.variant(source, each, coding, varies) for coding, each in contents])


def _page(title: str, text: str) -> bytes:
    return (
        f"<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<title>{title}</title>\n"
        f"<h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
    ).encode()


ERROR_FIELDS = {
    405: [ALLOW],
    406: [("Vary", "Accept-Encoding")],
}
ERROR_TEXTS = {
    400: "The request is not well-formed HTTP.",
    404: "There is nothing here under this address.",
    405: "Only GET and HEAD are answered here.",
    406: "There is no variant of this file in an encoding that would be accepted.",
    408: "The request took too long to arrive.",
    412: "The file is not the one that the request is about.",
    414: "The address is too long.",
    416: "The ranges that were asked for are not in this file.",
    417: "The request expects what is not done here.",
    421: "The request is for another server.",
    431: "The request has too many header fields.",
    501: "The request's method is not known.",
    503: "Not available at the moment.",
    505: "This version of HTTP is not spoken here.",
}


def _redirect(manifest: Manifest, path: bytes) -> Route:
    target = quote(path + b"/", safe=PATH_SAFE)
    body = _page("Moved", f'The folder is at <a href="{target}">{target}</a>.')
    fields = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Location", target),
    ]
    get, head = _response(manifest, 301, fields, body), _response(manifest, 301, fields)
    return Route(path, [Variant(get, head, None, content_bytes=len(body))])


def multipart(sources: list[Source]) -> Multipart:
    """The boundary follows from the contents, so no content can hold it but by breaking SHA-256."""
    contents = [content for source in sources for content in (source.content, *source.variants.values()) if content]
    digests = sorted({content.sha256 for content in contents})
    return Multipart(hashlib.sha256("".join(digests).encode()).hexdigest()[:BOUNDARY_DIGITS])


def routes(manifest: Manifest, sources: list[Source], multipart: Multipart) -> list[Route]:
    """All routes: files, folders by their index, and folders without their slash. Sorted by path."""
    maker = _Maker(manifest, multipart)
    made = {source.route: maker.route(source) for source in sources}
    for name in reversed(manifest.index):
        suffix = b"/" + os.fsencode(name)
        for source in sources:
            if source.route.endswith(suffix):
                folder = source.route[: -len(suffix) + 1]
                made[folder] = Route(folder, made[source.route].variants)
                if len(folder) > 1:
                    made.setdefault(folder[:-1], _redirect(manifest, folder[:-1]))
    return [made[path] for path in sorted(made)]


def error_pages(manifest: Manifest, pages: dict[int, bytes]) -> list[ErrorPage]:
    """The answers that no route decides, and OPTIONS'. pages: bodies that the manifest gives."""
    options = _response(manifest, 204, [ALLOW])  # no Content-Length, RFC 9110 section 8.6
    made = [ErrorPage(204, options, options)]
    for status in ERROR_STATUSES:
        body = pages.get(status) or _page(f"{status} {_phrase(status)}", ERROR_TEXTS[status])
        head = _begin(status)
        if status == 416:
            head.move("range", "Content-Range", "bytes */0".ljust(len("bytes */") + PART_DIGITS[-1]))
        head.add([*_server(manifest), ("Content-Type", "text/html; charset=utf-8")])
        head.add([("Content-Length", str(len(body)))])
        head.add(ERROR_FIELDS.get(status, []))
        made.append(ErrorPage(status, head.response(status, body), head.response(status)))
    return made
