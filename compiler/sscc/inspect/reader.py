"""An image as its routes, for the commands that look into one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssimage._sandstorm import ffi, lib
from ssimage.loader import ImageError, ImageFile, frame_count

from ..errors import SsccError
from ..manifest.patterns import location_of
from ..responses import patches
from ..responses.patches import Patch


def open_image(path: Path, *, verify_content: bool = False) -> ImageFile:
    """ImageFile, with its error as ours."""
    try:
        return ImageFile(path, verify_content=verify_content)
    except ImageError as error:
        raise SsccError(str(error)) from None


@dataclass(frozen=True)
class ReadRoute:
    """A route as the image has it."""

    path: bytes
    variants: list[Any]  # struct ssi_variant *
    site: int = 0
    host: str = ""  # the site's first name; empty for the site of all other names
    prefix: bool = False
    options: int = lib.SSI_NONE  # the response to OPTIONS
    alias: bool = False  # a file under another path than its own

    @property
    def key(self) -> tuple[int, bytes, bool]:
        """What requests are looked up by."""
        return self.site, self.path, self.prefix

    @property
    def text(self) -> str:
        """The path for people."""
        return self.path.decode("utf-8", "backslashreplace") + ("*" if self.prefix else "")

    @property
    def name(self) -> str:
        """The path with its host."""
        return self.host + self.text

    @property
    def request(self) -> bytes:
        """The shortest request for it that HTTP/1.1 allows, but for its Host."""
        host = (self.host or "sandstorm.example").replace("*", "sandstorm")
        return f"GET {location_of(self.path)} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


class Reader:
    """Looks things up in an open image."""

    def __init__(self, image: ImageFile) -> None:
        """The image must stay open."""
        self.file = image
        self.image = image.image
        self.header = image.header
        self.string = image.string
        self.hosts = image.hosts()

    def routes(self) -> list[ReadRoute]:
        """Reads all routes, sorted by path."""
        routes = []
        for entry in self.image.routes[0 : self.header.route_table_len]:
            if entry.variant_count:
                variants = [self.image.variants + entry.first_variant + i for i in range(entry.variant_count)]
                path = self.string(entry.path_offset, entry.path_bytes)
                prefix, alias = (bool(entry.flags & bit) for bit in (lib.SSI_ROUTE_PREFIX, lib.SSI_ROUTE_ALIAS))
                host = self.hosts[entry.site][0]
                routes.append(ReadRoute(path, variants, entry.site, host, prefix, entry.options_response, alias))
        return sorted(routes, key=lambda route: route.key)

    def errors(self, site: int) -> list[Any]:
        """struct ssi_error of a site."""
        row = self.image.sites[site]
        return list(self.image.errors[row.first_error : row.first_error + row.error_count])

    def response(self, index: int) -> Any:
        """struct ssi_response"""
        return self.image.responses[index]

    def patch_rows(self, response: Any) -> Any:
        """struct ssi_patch of each of a response's patches."""
        return self.image.patches[response.first_patch : response.first_patch + response.patch_count]

    def patches(self, response: Any) -> list[Patch]:
        """A response's patches."""
        return list(patches.read(bytes(ffi.buffer(self.patch_rows(response)))))

    def frame_count(self, response: Any) -> int:
        """How many frames a response has."""
        return frame_count(self.header, response)

    def frames(self, response: Any) -> Iterator[Any]:
        """struct ssi_frame of each of a response's frames."""
        yield from self.image.frames[response.first_frame : response.first_frame + self.frame_count(response)]

    def slot(self, number: int) -> Any:
        """A slot's address."""
        return self.image.slots + number * self.header.slot_bytes

    def payload(self, frame: Any) -> bytes:
        """A copy of a frame's payload."""
        return bytes(ffi.buffer(self.slot(frame.slot) + lib.SSI_PAYLOAD_OFFSET, frame.payload_bytes))

    def stream(self, response: Any) -> Iterator[bytes]:
        """A response's bytes, frame by frame. Of the last frame a HEAD's answer has the beginning only."""
        left = int(response.stream_bytes)
        for frame in self.frames(response):
            yield self.payload(frame)[:left]
            left -= frame.payload_bytes

    def head(self, response: Any) -> bytes:
        """A response's head."""
        head = b""
        for piece in self.stream(response):
            head += piece
            if len(head) >= response.head_bytes:
                break
        return head[: response.head_bytes]

    def body(self, response: Any) -> Iterator[bytes]:
        """A response's body."""
        skip = int(response.head_bytes)
        for piece in self.stream(response):
            if skip < len(piece):
                yield piece[skip:]
            skip = max(0, skip - len(piece))

    def body_sha256(self, response: Any) -> str:
        """The SHA-256 of a response's body."""
        sha256 = hashlib.sha256()
        for piece in self.body(response):
            sha256.update(piece)
        return sha256.hexdigest()

    def original(self, route: ReadRoute) -> Any | None:
        """The GET response that holds a file as it was; None for what is no file, or one under another path."""
        for variant in route.variants:
            is_file = variant.not_modified_response != lib.SSI_NONE and not route.alias
            if is_file and variant.encoding == lib.SSI_ENCODING_IDENTITY:
                return self.response(variant.get_response)
        return None
