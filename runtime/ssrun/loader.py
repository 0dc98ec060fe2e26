"""Opens packet images. A file is untrusted until everything in it has been checked here."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, cast

import lz4.frame

from ._sandstorm import ffi, lib
from .lazy import lazy

if TYPE_CHECKING:
    from elftools.elf import elffile
else:  # What writes an image needs none.
    elffile = lazy("elftools.elf.elffile")

LZ4_MAGIC = b"\x04\x22\x4d\x18"
CHUNK_BYTES = 1 << 20
PREFIX = ".sandstorm."
# The order of image_format.h, in which the build-id covers them.
SECTIONS = (
    "header",
    "json",
    "strings",
    "hosts",
    "sites",
    "buckets",
    "routes",
    "variants",
    "responses",
    "errors",
    "frames",
    "slots",
)

ENCODING_NAMES = {
    lib.SSI_ENCODING_IDENTITY: "identity",
    lib.SSI_ENCODING_GZIP: "gzip",
    lib.SSI_ENCODING_BR: "br",
    lib.SSI_ENCODING_ZSTD: "zstd",
}


class ImageError(Exception):
    """The file can't be served; one line that says why and what to do."""


@dataclass(frozen=True)
class Section:
    """Where a section lies in the file."""

    offset: int
    size_bytes: int


class FrameSource(Protocol):
    """What a port and a stack need of an image, whoever made it."""

    fd: int  # of a file that holds the slots
    slots: Section  # and where in it
    image: Any  # struct image *

    @property
    def header(self) -> Any:
        """struct ssi_header"""


def frame_count(header: Any, response: Any) -> int:
    """How many frames a struct ssi_response of an image with this struct ssi_header has."""
    return -(-int(response.stream_bytes) // int(header.segment_bytes))


def build_id(digests: list[bytes]) -> bytes:
    """The build-id of an image, from its sections' SHA-256 digests in the order of SECTIONS."""
    return hashlib.sha256(b"".join(digests)).digest()


def _decompress(path: Path) -> int:
    """An LZ4 frame's contents as a file in memory; its descriptor."""
    fd = os.memfd_create("sandstorm-image")
    try:
        with lz4.frame.open(str(path), "rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
    except (RuntimeError, EOFError, OSError) as error:
        os.close(fd)
        raise ImageError(f"{path}: the LZ4 frame can't be read ({error}); copy or build the image again") from None
    return fd


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        magic = os.pread(fd, 4, 0)
    except OSError as error:
        raise ImageError(f"{path}: can't be read: {error.strerror}") from None
    if magic != LZ4_MAGIC:
        return fd
    os.close(fd)
    return _decompress(path)


def _notes(data: bytes) -> dict[int, bytes]:
    """The notes of ours, by type."""
    notes = {}
    at = 0
    while at + 12 <= len(data):
        name_bytes, desc_bytes, kind = struct.unpack_from("<III", data, at)
        name_at = at + 12
        desc_at = name_at + (name_bytes + 3) // 4 * 4
        at = desc_at + (desc_bytes + 3) // 4 * 4
        if data[name_at : name_at + name_bytes] == b"Sandstorm\0":
            notes[kind] = data[desc_at : desc_at + desc_bytes]
    return notes


class ImageFile:
    """An image, mapped read-only and validated. A context manager; `image` and `sections` die with it.

    Attributes:
        fd: The file, or the decompressed one in memory.
        slots: Where the slots lie in fd.
        image: struct image *, for the C core.
        provenance: What .sandstorm.json says.
    """

    def __init__(self, path: Path, *, verify_content: bool = True) -> None:
        """Opens and checks. verify_content: the slots too are hashed. Raises ImageError."""
        self.path = path
        self.fd = _open(path)
        self._map: mmap.mmap | None = None
        self._buffer: Any = None
        try:
            self._load(verify_content)
        except BaseException:
            self.close()
            raise

    def _load(self, verify_content: bool) -> None:
        size_bytes = os.fstat(self.fd).st_size
        if size_bytes < 64:
            raise self._error("too short to be a packet image")
        self._map = mmap.mmap(self.fd, 0, access=mmap.ACCESS_READ)
        self._buffer = ffi.from_buffer(self._map)
        self.table = self._sections(size_bytes)
        self.slots = self.table["slots"]
        if self.slots.offset % lib.SSI_PAGE_BYTES:
            raise self._error("its slots are not page-aligned; build the image again")
        notes = _notes(self.bytes_of("note"))
        self.build_id = notes.get(lib.SSI_NOTE_BUILD_ID, b"")
        if len(self.build_id) != lib.SSI_BUILD_ID_BYTES:
            raise self._error("it has no build-id; build the image again")
        self.sections = self._section_struct()
        self.image = ffi.new("struct image *")
        error = lib.image_open(self.image, self.sections)
        if error != 0:
            text = ffi.new("char[200]")
            lib.image_error_text(error, text, 200)
            raise self._error(f"{ffi.string(text).decode()}; build the image again")
        if verify_content and self.computed_build_id() != self.build_id:
            raise self._error("its contents don't match its build-id: damaged; copy or build it again")
        try:
            self.provenance: dict[str, Any] = json.loads(self.bytes_of("json"))
        except (ValueError, RecursionError):
            raise self._error("its provenance is no JSON; build the image again") from None

    def _error(self, why: str) -> ImageError:
        return ImageError(f"{self.path}: {why}")

    def _sections(self, size_bytes: int) -> dict[str, Section]:
        found: dict[str, Section] = {}
        assert self._map is not None
        try:
            elf = elffile.ELFFile(cast(IO[bytes], self._map))
            if not elf.little_endian or elf.elfclass != 64:
                raise self._error("not a 64-bit little-endian ELF file, so no packet image")
            for each in elf.iter_sections():
                name = "note" if each.name == ".note.sandstorm" else each.name.removeprefix(PREFIX)
                if each.name.startswith((PREFIX, ".note.sandstorm")) and name not in found:
                    found[name] = Section(int(each["sh_offset"]), int(each["sh_size"]))
        except ImageError:
            raise
        except Exception as error:  # pyelftools meets a damaged file with whatever comes first
            kind = type(error).__name__
            raise self._error(f"not a packet image, or damaged ({kind}); build one with sscc build") from None
        missing = [name for name in (*SECTIONS, "note") if name not in found]
        if missing:
            raise self._error(f"not a packet image: no section {PREFIX}{missing[0]}")
        for name, section in found.items():
            if section.offset + section.size_bytes > size_bytes:
                raise self._error(f"section {name} ends beyond the file: truncated; copy or build it again")
        return found

    def _section_struct(self) -> Any:
        sections = ffi.new("struct image_sections *")
        base = ffi.cast("uint8_t *", self._buffer)
        for name in SECTIONS:
            if name == "json":
                continue
            section = self.table[name]
            setattr(sections, name, base + section.offset)
            setattr(sections, f"{name}_bytes", section.size_bytes)
        return sections

    def view(self, name: str) -> memoryview:
        """A section's bytes where they lie; release it before the image is closed."""
        assert self._map is not None
        section = self.table[name]
        return memoryview(self._map)[section.offset : section.offset + section.size_bytes]

    def bytes_of(self, name: str) -> bytes:
        """A copy of a section."""
        with self.view(name) as view:
            return bytes(view)

    def computed_build_id(self) -> bytes:
        """The build-id that the contents have."""
        digests = []
        for name in SECTIONS:
            with self.view(name) as view:
                digests.append(hashlib.sha256(view).digest())
        return build_id(digests)

    @property
    def header(self) -> Any:
        """struct ssi_header"""
        return self.image.header

    def string(self, offset: int, size_bytes: int) -> bytes:
        """A copy of a string."""
        return bytes(ffi.buffer(self.image.strings + offset, size_bytes))

    def hosts(self) -> list[list[str]]:
        """The names of each site, sorted; an empty one stands for all that no other site has."""
        names: list[list[str]] = [[] for _ in range(self.header.site_count)]
        for row in self.image.hosts[0 : self.header.host_count]:
            names[row.site].append(self.string(row.name_offset, row.name_bytes).decode("latin-1"))
        return [each or [""] for each in names]

    def close(self) -> None:
        """Unmaps; the C structs must not be used any more."""
        if self._buffer is not None:
            ffi.release(self._buffer)
            self._buffer = None
        if self._map is not None:
            self._map.close()
            self._map = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        """The image itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()
