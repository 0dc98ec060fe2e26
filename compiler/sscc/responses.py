"""Heads: every answer that the runtime can pick, with its header fields."""

from __future__ import annotations

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
ERROR_STATUSES = (400, 404, 405, 408, 414, 431, 501, 503, 505)
PATH_SAFE = "/~!$&'()*+,;=:@"  # pchar and slash, RFC 3986 section 3.3


@dataclass(frozen=True)
class Response:
    """Head and body, before they are cut into frames."""

    status: int
    head: bytes
    date_offset: int
    connection_offset: int
    body: Content | bytes | None
    copies: int = 1

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


@dataclass
class Variant:
    """One encoding of a route and its answers."""

    get: Response
    head: Response
    not_modified: Response | None
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


def http_date(seconds: int) -> str:
    """IMF-fixdate, RFC 9110 section 5.6.7."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def _head(manifest: Manifest, status: int, fields: list[tuple[str, str]]) -> tuple[bytes, int, int]:
    """A head with the two fields that move, at even offsets so that their sums need no swap."""
    phrase = HTTPStatus(status).phrase
    line = f"HTTP/1.1 {status} {phrase}\r\n"
    # An optional space in front of a value (RFC 9110 section 5.5) moves it to an even offset.
    date = "Date: " if (len(line) + 6) % 2 == 0 else "Date:  "
    date_offset = len(line) + len(date)
    text = line + date + EPOCH + "\r\n"
    connection = "Connection: " if (len(text) + 12) % 2 == 0 else "Connection:  "
    connection_offset = len(text) + len(connection)
    text += connection + KEEP_ALIVE + "\r\n"
    if manifest.server:
        fields = [("Server", "Sandstorm"), *fields]
    text += "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    return text.encode("latin-1"), date_offset, connection_offset


def _response(
    manifest: Manifest,
    status: int,
    fields: list[tuple[str, str]],
    body: Content | bytes | None = None,
    copies: int = 1,
) -> Response:
    head, date_offset, connection_offset = _head(manifest, status, fields)
    return Response(status, head, date_offset, connection_offset, body, copies)


def _custom(manifest: Manifest, route: str) -> tuple[list[tuple[str, str]], int]:
    """Header fields and copies that the manifest gives a path."""
    fields = dict(manifest.headers)
    copies = manifest.copies
    for rule in manifest.rules:
        if matches(route, rule.match):
            fields.update(rule.headers)
            copies = rule.copies or copies
    return sorted(fields.items()), copies


def _variant(manifest: Manifest, source: Source, content: Content, coding: str | None, varies: bool) -> Variant:
    route = os.fsdecode(source.route)
    custom, copies = _custom(manifest, route)
    # What a 304 has of the 200's fields, RFC 9110 section 15.4.5.
    shared = [("ETag", content.etag), *([("Vary", "Accept-Encoding")] if varies else [])]
    modified = [("Last-Modified", http_date(source.mtime_s))]
    full = [
        ("Content-Type", media_type(manifest, route)),
        ("Content-Length", str(content.size_bytes)),
        *([("Content-Encoding", coding)] if coding else []),
        *shared,
        *modified,
        ("Accept-Ranges", "none"),
        *custom,
    ]
    kept = [item for item in custom if item[0].lower() in ("cache-control", "expires", "content-location")]
    return Variant(
        get=_response(manifest, 200, full, content, copies),
        head=_response(manifest, 200, full),
        not_modified=_response(manifest, 304, [*shared, *modified, *kept]),
        etag=content.etag.encode(),
        encoding=ENCODINGS[coding] if coding else lib.SSI_ENCODING_IDENTITY,
        last_modified_s=source.mtime_s,
        content_bytes=content.size_bytes,
    )


def _file_route(manifest: Manifest, source: Source) -> Route:
    assert source.content is not None
    varies = bool(source.variants)
    contents: list[tuple[str | None, Content]] = [(None, source.content), *source.variants.items()]
    contents.sort(key=lambda item: (item[1].size_bytes, item[0] or ""))
    return Route(source.route, [_variant(manifest, source, each, coding, varies) for coding, each in contents])


def _page(title: str, text: str) -> bytes:
    return (
        f"<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<title>{title}</title>\n"
        f"<h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
    ).encode()


ERROR_TEXTS = {
    400: "The request is not well-formed HTTP.",
    404: "There is nothing here under this address.",
    405: "Only GET and HEAD are answered here.",
    408: "The request took too long to arrive.",
    414: "The address is too long.",
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


def routes(manifest: Manifest, sources: list[Source]) -> list[Route]:
    """All routes: files, folders by their index, and folders without their slash. Sorted by path."""
    made = {source.route: _file_route(manifest, source) for source in sources}
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
    """The answers that no route decides. pages: bodies that the manifest gives."""
    made = []
    for status in ERROR_STATUSES:
        body = pages.get(status) or _page(f"{status} {HTTPStatus(status).phrase}", ERROR_TEXTS[status])
        fields = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
        if status == 405:
            fields.append(("Allow", "GET, HEAD"))
        made.append(ErrorPage(status, _response(manifest, status, fields, body), _response(manifest, status, fields)))
    return made
