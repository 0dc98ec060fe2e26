"""The container: ELF sections and notes, so that readelf and objcopy know an image."""

from __future__ import annotations

import struct
from typing import IO

from ssimage._sandstorm import lib
from ssimage.loader import SECTIONS

SHT_PROGBITS, SHT_STRTAB, SHT_NOTE = 1, 3, 7
ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")


def _note(image_id: bytes) -> bytes:
    name = b"Sandstorm\0\0\0"
    notes = b""
    for note_type, desc in (
        (lib.SSI_NOTE_BUILD_ID, image_id),
        (lib.SSI_NOTE_VERSION, struct.pack("<I", lib.SSI_VERSION)),
    ):
        notes += struct.pack("<III", 10, len(desc), note_type) + name + desc
    return notes


def write_elf(file: IO[bytes], contents: dict[str, bytes | bytearray], slots_bytes: int, image_id: bytes) -> int:
    """Writes everything but the slots, which lie behind the first page; the image's size.

    contents: of the sections, by name. image_id: the build-id.
    """
    page = int(lib.SSI_PAGE_BYTES)
    names = bytearray(b"\0")
    headers = [SECTION_HEADER.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]

    def add(name: str, section_type: int, offset: int, size_bytes: int, align: int) -> None:
        headers.append(SECTION_HEADER.pack(len(names), section_type, 0, 0, offset, size_bytes, 0, 0, align, 0))
        names.extend(name.encode() + b"\0")

    def put(data: bytes | bytearray) -> int:
        file.write(bytes(-file.tell() % 8))
        offset = file.tell()
        file.write(data)
        return offset

    note = _note(image_id)
    add(".note.sandstorm", SHT_NOTE, put(note), len(note), 4)
    for name in SECTIONS[:-1]:
        add(f".sandstorm.{name}", SHT_PROGBITS, put(contents[name]), len(contents[name]), 8)
    add(".sandstorm.slots", SHT_PROGBITS, page, slots_bytes, page)
    strtab_at = len(names)
    names.extend(b".shstrtab\0")
    offset = put(bytes(names))
    headers.append(SECTION_HEADER.pack(strtab_at, SHT_STRTAB, 0, 0, offset, len(names), 0, 0, 1, 0))
    table = put(b"".join(headers))
    image_bytes = file.tell()
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    file.seek(0)
    # ET_REL, EM_NONE: a container of sections, nothing to run.
    file.write(ELF_HEADER.pack(ident, 1, 0, 1, 0, 0, table, 0, 64, 0, 0, 64, len(headers), len(headers) - 1))
    return image_bytes
