"""Heads of responses: header fields as text, and where those are that are written when it is sent."""

from __future__ import annotations

import functools
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from ssimage._sandstorm import lib

from ..manifest.model import Site
from ..sources.source import ETAG_DIGITS, Content
from . import patches

Headers = dict[str, str | None]
Fields = list[tuple[str, str]]

EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"  # stands where Date will be, and Last-Modified where it is patched
NO_ETAG = f'"{"0" * ETAG_DIGITS}"'  # stands where ETag will be where it is patched
LAST_MODIFIED_MAX_S = int(lib.SSI_LAST_MODIFIED_MAX_S)
KEEP_ALIVE = "keep-alive"
ALLOW = ("Allow", "GET, HEAD, OPTIONS")
DATES_MAX = 4096  # that are kept
PHRASES = {414: "URI Too Long", 416: "Range Not Satisfiable"}


class Response(NamedTuple):
    """Head and body, before they are cut into frames."""

    status: int
    head: bytes
    body: Content | bytes | None = None
    copies: int = 1
    patches: bytes = b""  # rows of patches.row, in order

    @property
    def body_bytes(self) -> int:
        """Length of the body."""
        body = self.body
        if body is None:
            return 0
        return body.size_bytes if isinstance(body, Content) else len(body)

    @property
    def stream_bytes(self) -> int:
        """Length of head and body."""
        return len(self.head) if self.body is None else len(self.head) + self.body_bytes

    def key(self) -> tuple[bytes, str, int]:
        """A key that is equal for responses whose frames can be shared."""
        _, head, body, copies, _ = self
        if body is None:
            return head, "", copies
        return head, body.sha256 if isinstance(body, Content) else body.hex(), copies


def phrase(status: int) -> str:
    """RFC 9110's reason phrase; older Pythons have some of RFC 7231, and an image must not depend on that."""
    return PHRASES.get(status) or HTTPStatus(status).phrase


@functools.lru_cache(maxsize=DATES_MAX)
def http_date(seconds: int) -> str:
    """IMF-fixdate, RFC 9110 section 5.6.7. Kept, as files have often been written within the same seconds."""
    return formatdate(seconds, usegmt=True)


def date_is_patched(seconds: int) -> bool:
    """Is Last-Modified as wide as all that are patched?"""
    return 0 <= seconds <= LAST_MODIFIED_MAX_S


def field_lines(fields: Fields) -> str:
    """The fields' lines."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields)


class HeadBuilder:
    """A head in the making. Fields that are patched begin at even offsets, so that their sums need no swap."""

    def __init__(self, text: str) -> None:
        """text: what it begins with."""
        self.text = text
        self.patches = bytearray()  # their rows

    def patch(self, name: str, value: str) -> None:
        """Adds a field that is patched, value as wide as it will ever be: blanks in front, which readers skip."""
        # An optional space in front of a value (RFC 9110 section 5.5) moves it to an even offset.
        self.text += f"{name}: " if (len(self.text) + len(name) + 2) % 2 == 0 else f"{name}:  "
        self.patches += patches.row(patches.Patch(name, len(self.text), len(value)))
        self.text += value + "\r\n"

    def add(self, fields: Fields) -> None:
        """Adds fields that stay."""
        self.text += field_lines(fields)

    def response(self, status: int, body: Content | bytes | None = None, copies: int = 1) -> Response:
        """The response, its head ended by the empty line."""
        return Response(status, (self.text + "\r\n").encode("latin-1"), body, copies, bytes(self.patches))


def response_head(status: int) -> HeadBuilder:
    """Status line, Date and Connection: what is patched comes first, so that it is in the first frame."""
    head = HeadBuilder(f"HTTP/1.1 {status} {phrase(status)}\r\n")
    head.patch("Date", EPOCH)
    head.patch("Connection", KEEP_ALIVE)
    return head


def server_field(site: Site) -> Fields:
    """Server, if the site sends it."""
    return [("Server", "Sandstorm")] if site.server else []


def simple_response(
    site: Site,
    status: int,
    fields: Fields,
    body: Content | bytes | None = None,
    copies: int = 1,
) -> Response:
    """A response with these fields behind those that all have."""
    head = response_head(status)
    head.add([*server_field(site), *fields])
    return head.response(status, body, copies)


def html_page(title: str, text: str) -> bytes:
    """A page for people."""
    return (
        f"<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<title>{title}</title>\n"
        f"<h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
    ).encode()
