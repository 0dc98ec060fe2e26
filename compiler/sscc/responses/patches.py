"""The fields of a response's head that ssrun writes when it sends it: rows of struct ssi_patch."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ssimage._sandstorm import ffi, lib

ROW = struct.Struct("<HBB")  # written whole: there is one for each field of each head
MAX = int(lib.SSI_PATCH_KINDS)  # of a response
FIELDS = {
    lib.SSI_PATCH_DATE: "Date",
    lib.SSI_PATCH_CONNECTION: "Connection",
    lib.SSI_PATCH_CONTENT_LENGTH: "Content-Length",
    lib.SSI_PATCH_CONTENT_RANGE: "Content-Range",
    lib.SSI_PATCH_ETAG: "ETag",
    lib.SSI_PATCH_LAST_MODIFIED: "Last-Modified",
}
KINDS = {field: kind for kind, field in FIELDS.items()}
VALIDATORS = frozenset(("ETag", "Last-Modified"))  # what they say depends on the variant, and not on the sending

assert [name for name, _ in ffi.typeof("struct ssi_patch").fields] == ["offset", "bytes", "kind"]
assert ROW.size == ffi.sizeof("struct ssi_patch")
assert len(KINDS) == MAX


class Patch(NamedTuple):
    """A field's value: where it is in the head, and how wide."""

    field: str
    offset: int
    size_bytes: int


def row(patch: Patch) -> bytes:
    """Packs a patch as the image has it."""
    return ROW.pack(patch.offset, patch.size_bytes, KINDS[patch.field])


def count(rows: bytes | bytearray) -> int:
    """How many rows there are."""
    return len(rows) // ROW.size


def read(rows: bytes) -> Iterator[Patch]:
    """What rows say."""
    for offset, size_bytes, kind in ROW.iter_unpack(rows):
        yield Patch(FIELDS[kind], offset, size_bytes)
