"""What an image answers, response by response, for the commands that show or compare it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssimage._sandstorm import ffi, lib

from ..responses.heads import http_date
from ..responses.patches import VALIDATORS
from .reader import Reader

# A variant's other answers and the members that name them. "part" is what stands in front of each part of several
# ranges.
MEMBERS = {
    "304": "not_modified_response",
    "206": "partial_response",
    "part": "part_response",
}
HANDED_ON = b":splat"  # stands where a redirect puts what is asked for, as in a manifest
ANY = "*"  # stands for what differs from one sending to the next


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
        variant: struct ssi_variant that it is of, if it is of one: what patched ETags and dates say.
        path_offset: Where a redirect puts the path behind a tree's; 0: nowhere.
    """

    response: Any
    variant: Any = None
    path_offset: int = 0

    def head(self, reader: Reader) -> bytes:
        """Gives the head as it is sent; what differs from one sending to the next is as the image has it."""
        head = reader.head(self.response)
        for patch in reader.patches(self.response):
            if patch.field in VALIDATORS:
                head = _put(head, patch.offset, self._validator(reader, patch.field))
        if self.path_offset:
            head = head[: self.path_offset] + HANDED_ON + head[self.path_offset :]
        return head

    def _validator(self, reader: Reader, field: str) -> bytes:
        """What the variant's ETag or Last-Modified says."""
        variant = self.variant
        if field == "ETag":
            return reader.string(variant.etag_offset, variant.etag_bytes)
        return http_date(variant.last_modified_s).encode()

    def still_head(self, reader: Reader) -> bytes:
        """The head with ANY for what differs from one sending to the next."""
        head = self.head(reader)
        for field, offset, size_bytes in reversed(reader.patches(self.response)):
            if field not in VALIDATORS:
                head = head[:offset] + ANY.encode() + head[offset + size_bytes :]
        return head


def _put(head: bytes, offset: int, text: bytes) -> bytes:
    return head[:offset] + text + head[offset + len(text) :]


def _head_answer(get: Any, path_offset: int) -> Answer:
    """What HEAD is answered with."""
    head = ffi.new("struct ssi_response *", get)
    head.stream_bytes = get.head_bytes
    return Answer(head[0], path_offset=path_offset)


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
