"""What an image answers, response by response, for the commands that show or compare it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from ssimage._sandstorm import ffi, lib

from ..responses.heads import http_date
from .reader import Reader

# A variant's other answers and the members that name them. "part" is what stands in front of each part of several
# ranges.
MEMBERS = {
    "304": "not_modified_response",
    "206": "partial_response",
    "part": "part_response",
}
HANDED_ON = b":splat"  # stands where a redirect puts what is asked for, as in a manifest
MOVING = "*"  # stands for the value of a field that moves
SENDING = {"Date", "Connection", "Content-Length", "Content-Range"}  # those that differ from one sending to the next


@dataclass(frozen=True)
class Head:
    """A head as clients read it. A part's has no status line."""

    status_line: str
    fields: list[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """A response as an answer of something.

    Attributes:
        response: struct ssi_response; of HEAD, of as much of GET's as is its head.
        variant: struct ssi_variant that it is of, if it is of one: what ETag and Last-Modified say where they move.
        path_offset: Where a redirect puts the path behind a tree's; 0: nowhere.
    """

    response: Any
    variant: Any = None
    path_offset: int = 0

    def head(self, reader: Reader) -> bytes:
        """As it is sent, but for what differs from one sending to the next, which is as the image has it."""
        head, response, variant = reader.head(self.response), self.response, self.variant
        if response.etag_offset:
            head = _put(head, response.etag_offset, reader.string(variant.etag_offset, variant.etag_bytes))
        if response.last_modified_offset:
            head = _put(head, response.last_modified_offset, http_date(variant.last_modified_s).encode())
        if self.path_offset:
            head = head[: self.path_offset] + HANDED_ON + head[self.path_offset :]
        return head

    def still_head(self, reader: Reader) -> bytes:
        """The head with MOVING for what differs from one sending to the next."""
        head = self.head(reader)
        for name, offset, size_bytes in sorted(moving_places(self.response), key=itemgetter(1), reverse=True):
            if name in SENDING:
                head = head[:offset] + MOVING.encode() + head[offset + size_bytes :]
        return head


def _put(head: bytes, offset: int, text: bytes) -> bytes:
    return head[:offset] + text + head[offset + len(text) :]


def _head_answer(get: Any, path_offset: int) -> Answer:
    """What HEAD is answered with."""
    made = ffi.new("struct ssi_response *", get)
    made.stream_bytes = get.head_bytes
    return Answer(made[0], path_offset=path_offset)


def page_answers(reader: Reader, row: Any) -> Iterator[tuple[str, Answer]]:
    """Names and what a variant or an error page answers GET and HEAD with."""
    get = reader.response(row.get_response)
    path_offset = row.swap_bytes if getattr(row, "partial_response", None) == lib.SSI_NONE else 0
    yield "GET", Answer(get, path_offset=path_offset)
    yield "HEAD", _head_answer(get, path_offset)


def answers(reader: Reader, variant: Any) -> Iterator[tuple[str, Answer]]:
    """Names and answers that a variant has."""
    yield from page_answers(reader, variant)
    for name, member in MEMBERS.items():
        index = getattr(variant, member)
        if index != lib.SSI_NONE:
            yield name, Answer(reader.response(index), variant)


def moving_places(response: Any) -> Iterator[tuple[str, int, int]]:
    """Names, offsets and sizes of the fields that move."""
    places = (
        ("Date", response.date_offset, int(lib.SSI_DATE_BYTES)),
        ("Connection", response.connection_offset, int(lib.SSI_CONNECTION_BYTES)),
        ("Content-Length", response.length_offset, response.length_bytes),
        ("Content-Range", response.range_offset, response.range_bytes),
        ("ETag", response.etag_offset, int(lib.SSI_ETAG_BYTES)),
        ("Last-Modified", response.last_modified_offset, int(lib.SSI_DATE_BYTES)),
    )
    yield from (place for place in places if place[1])


def moving_bytes(response: Any) -> int:
    """Bytes of the fields that are written for each sending."""
    return sum(size_bytes for _, _, size_bytes in moving_places(response))


def parsed(head: bytes) -> Head:
    """A head's parts, RFC 9112 section 2.1."""
    lines = head.decode("latin-1").split("\r\n")
    status_line = lines[0] if lines[0].startswith("HTTP/") else ""
    pairs = (line.partition(":") for line in lines[bool(status_line) :])
    return Head(status_line, [(name, value.strip(" \t")) for name, colon, value in pairs if colon])


def boundary(reader: Reader) -> bytes:
    """What separates the parts of several ranges; empty without."""
    index = reader.header.multipart_type_response
    if index == lib.SSI_NONE:
        return b""
    return reader.head(reader.response(index)).partition(b"boundary=")[2].strip()
