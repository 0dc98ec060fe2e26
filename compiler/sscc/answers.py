"""What an image answers, response by response, for the commands that show or compare it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssrun._sandstorm import ffi, lib

from .reader import Reader

# A variant's other answers and the members that name them. "part" is what stands in front of each part of several
# ranges.
MEMBERS = {
    "304": "not_modified_response",
    "206": "partial_response",
    "part": "part_response",
}
MOVING = "*"  # stands for the value of a field that moves


@dataclass(frozen=True)
class Head:
    """A head as clients read it. A part's has no status line."""

    status_line: str
    fields: list[tuple[str, str]]


def _head_of(reader: Reader, get: Any) -> Any:
    """What HEAD is answered with: a struct ssi_response of as much of another as is its head."""
    made = ffi.new("struct ssi_response *", get)
    made.stream_bytes = get.head_bytes
    made.frame_count = -(-get.head_bytes // reader.header.segment_bytes)
    return made[0]


def page_answers(reader: Reader, row: Any) -> Iterator[tuple[str, Any]]:
    """Names and struct ssi_response of what a variant or an error page answers GET and HEAD with."""
    get = reader.response(row.get_response)
    yield "GET", get
    yield "HEAD", _head_of(reader, get)


def answers(reader: Reader, variant: Any) -> Iterator[tuple[str, Any]]:
    """Names and struct ssi_response of the answers that a variant has."""
    yield from page_answers(reader, variant)
    for name, member in MEMBERS.items():
        index = getattr(variant, member)
        if index != lib.SSI_NONE:
            yield name, reader.response(index)


def moving_places(response: Any) -> Iterator[tuple[str, int, int]]:
    """Names, offsets and sizes of the fields that can move; offset 0: does not."""
    yield "Date", response.date_offset, int(lib.SSI_DATE_BYTES)
    yield "Connection", response.connection_offset, int(lib.SSI_CONNECTION_BYTES)
    yield "Content-Length", response.length_offset, response.length_bytes
    yield "Content-Range", response.range_offset, response.range_bytes


def moving_bytes(response: Any) -> int:
    """Bytes of the fields that are written for each sending."""
    return sum(size_bytes for _, offset, size_bytes in moving_places(response) if offset)


def still_head(reader: Reader, response: Any) -> bytes:
    """A response's head with MOVING for what differs from one sending to the next."""
    head = reader.head(response)
    for offset, size_bytes in sorted([place[1:] for place in moving_places(response)], reverse=True):
        if offset:
            head = head[:offset] + MOVING.encode() + head[offset + size_bytes :]
    return head


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
