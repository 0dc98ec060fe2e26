"""The image's tables: their rows as struct.Struct, and the sizes that follow from a manifest."""

from __future__ import annotations

import struct
from typing import ClassVar

from ssimage._sandstorm import ffi, lib

from ..manifest.model import Manifest


def segment_bytes(manifest: Manifest) -> int:
    """Payload of a frame: what the MTU leaves behind IP and TCP headers with timestamps."""
    ip_bytes = 40 if "ipv6" in manifest.families else 20
    return manifest.mtu - ip_bytes - 32


def slot_bytes(manifest: Manifest) -> int:
    """The power of two that a frame with its room in front fits in."""
    size = int(lib.SSI_SLOT_BYTES_MIN)
    while size < lib.SSI_PAYLOAD_OFFSET + segment_bytes(manifest):
        size *= 2
    return size


class Row:
    """Packs a struct of the format; quicker than cffi, which would allocate each."""

    CODES: ClassVar[dict[str, str]] = {
        "uint8_t": "B",
        "uint16_t": "H",
        "uint32_t": "I",
        "uint64_t": "Q",
        "int64_t": "q",
    }

    def __init__(self, name: str) -> None:
        """name: of a struct in image_format.h, whose members need no padding."""
        struct_type = ffi.typeof(f"struct {name}")
        self.names = [member for member, _ in struct_type.fields]
        self.struct = struct.Struct("<" + "".join(self.CODES[item.type.cname] for _, item in struct_type.fields))
        assert self.struct.size == ffi.sizeof(struct_type)

    def __call__(self, **fields: int) -> bytes:
        """Packs all members, given by name."""
        assert len(fields) == len(self.names)
        return self.struct.pack(*[fields[name] for name in self.names])


HEADER, HOST, SITE, ROUTE, VARIANT, RESPONSE, ERROR = (
    Row(f"ssi_{name}") for name in ("header", "host", "site", "route", "variant", "response", "error")
)
# By position, as there are so many of them.
assert ROUTE.names == [
    *("hash", "path_offset", "path_bytes", "first_variant", "variant_count", "options_response", "site", "flags")
]
assert VARIANT.names == [
    *("get_response", "not_modified_response", "partial_response", "part_response"),
    *("swap_offset", "swap_bytes", "etag_offset", "etag_bytes", "encoding", "last_modified_s", "content_bytes"),
]
assert RESPONSE.names == ["stream_bytes", "first_frame", "head_bytes", "first_patch", "status", "patch_count"]
