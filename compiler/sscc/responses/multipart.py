"""Answers of several ranges: what stands in front of each part, and behind the last one."""

from __future__ import annotations

import hashlib

from ssimage._sandstorm import lib

from ..sources.source import Source
from .heads import HeadBuilder, Response

# Digits of the sizes that part headers have room for: in steps, so that most files of a type share one.
PART_DIGITS = (6, 9, 12, 20)
PARTS_MAX = int(lib.SSI_RANGES_MAX)
BOUNDARY_DIGITS = 32


def range_bytes(digits: int) -> int:
    """Width of a Content-Range whose numbers have so many digits: "bytes 0-0/1"."""
    return len("bytes -/") + 3 * digits


class Multipart:
    """What all multipart/byteranges answers of a site share, RFC 9110 section 14.6.

    Attributes:
        type: The line that stands in for Content-Range and Content-Type of a single range's head.
        end: The closing delimiter.
    """

    def __init__(self, boundary: str) -> None:
        """boundary: which is in no body."""
        self.boundary = boundary
        self.type = Response(206, f"Content-Type: multipart/byteranges; boundary={boundary}\r\n".encode())
        self.end = Response(206, f"\r\n--{boundary}--\r\n".encode())
        self._parts: dict[tuple[str, int], Response] = {}

    def part(self, media_type: str, size_bytes: int) -> Response:
        """What stands in front of a part of a body of that media type and size."""
        digits = next(step for step in PART_DIGITS if step >= len(str(size_bytes)))
        if (media_type, digits) not in self._parts:
            head = HeadBuilder(f"\r\n--{self.boundary}\r\nContent-Type: {media_type}\r\n")
            head.patch("Content-Range", "bytes 0-0/1".rjust(range_bytes(digits)))
            self._parts[media_type, digits] = head.response(206)
        return self._parts[media_type, digits]


def multipart_of(sources: list[Source]) -> Multipart:
    """The boundary follows from the contents, so no content can hold it but by breaking SHA-256."""
    digests = {source.content.sha256 for source in sources if source.content is not None}
    digests |= {content.sha256 for source in sources if source.variants for content in source.variants.values()}
    return Multipart(hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:BOUNDARY_DIGITS])
