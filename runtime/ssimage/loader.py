"""Opens packet images. A file is untrusted until everything in it has been checked here."""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import shlex
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from ._sandstorm import ffi, lib
from .lazy import lazy

if TYPE_CHECKING:
    from elftools.elf import elffile
else:  # What writes an image needs none.
    elffile = lazy("elftools.elf.elffile")

ELF_MAGIC = b"\x7fELF"
LZ4_MAGIC = b"\x04\x22\x4d\x18"
LZ4_HEADER_BYTES_MAX = 19
CHUNK_BYTES = 1 << 20
READ_BYTES_MAX = 1 << 30  # in one call; Linux reads somewhat less than 2 GiB
ELF_HEADER_BYTES = 64
MEMORY = Path("/proc/meminfo")
IN_PLACE = "written to while it was served; put a new image in its place with mv, and start ssrun again"
PREFIX = ".sandstorm."
NOTE_BYTES_MAX = 4096
SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
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
    "patches",
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


def free_memory_bytes() -> int:
    """What new memory there is without swapping, as the kernel estimates."""
    lines = MEMORY.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _unpack(path: Path, source_fd: int, fd: int) -> None:
    """Unpacks no more than the free memory holds: of a few bytes LZ4 can make 255 times as many."""
    import lz4.frame  # noqa: PLC0415, as most images are not compressed

    most = free_memory_bytes()
    too_large = ImageError(
        f"{path}: it unpacks to more than the {most >> 20} MB of memory that are free; serve what lz4 -d makes of it"
    )
    with os.fdopen(os.dup(source_fd), "rb") as packed, lz4.frame.open(packed, "rb") as source:
        head = os.pread(source_fd, LZ4_HEADER_BYTES_MAX, 0)
        if lz4.frame.get_frame_info(head)["content_size"] > most:
            raise too_large
        unpacked = 0
        while chunk := source.read(CHUNK_BYTES):
            unpacked += len(chunk)
            if unpacked > most:
                raise too_large
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]


def _decompress(path: Path, source_fd: int) -> int:
    """An LZ4 frame's contents as a file in memory, which nobody can change any more; its descriptor."""
    fd = os.memfd_create("sandstorm-image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _unpack(path, source_fd, fd)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALED)
    except (RuntimeError, EOFError, OSError) as error:
        os.close(fd)
        raise ImageError(f"{path}: the LZ4 frame can't be read ({error}); copy or build the image again") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _no_image(path: Path, head: bytes) -> str | None:
    """What else it is, as far as one can see from its name, and how it becomes an image; None: it may be one."""
    if head in (ELF_MAGIC, LZ4_MAGIC):
        return None
    source, image, what = path, path.with_suffix(".img"), ""
    if path.is_dir():
        image, what = Path(f"{path.name or 'site'}.img"), "a folder"
    elif path.suffix.lower() in (".yaml", ".yml"):
        what = "a manifest"
    elif path.suffix.lower() in (".html", ".htm", ".xhtml"):
        source, image, what = path.parent, Path("site.img"), "a page"
    if not what:
        return None
    command = shlex.join(["sscc", "build", str(source), "-o", str(image)])
    return f"this is {what}, not an image; build it first: {command}"


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _mapped(fd: int, size_bytes: int, offset: int) -> mmap.mmap:
    """Read-only. Private, as older kernels map a sealed file in no other way."""
    return mmap.mmap(fd, size_bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ, offset=offset)


def _open(path: Path) -> tuple[int, tuple[int, ...]]:
    """The image's descriptor, and which file that is.

    Non-blocking, or a pipe would hold us up before it can be refused."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImageError(f"{path}: can't be read: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        mode = status.st_mode
        head = os.pread(fd, 4, 0) if stat.S_ISREG(mode) else b""
        why = _no_image(path, head)
        if why is not None:
            raise ImageError(f"{path}: {why}")
        if not stat.S_ISREG(mode):
            raise ImageError(f"{path}: not a regular file; name an image, as sscc build writes it")
        if head != LZ4_MAGIC:
            return fd, _identity(status)
        unpacked = _decompress(path, fd)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return unpacked, _identity(status)


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
    """An image, validated. A context manager; `image` and `sections` die with it.

    Its tables are read into a file in memory that is sealed then, and checked there: nobody who writes to the image
    can change what has been checked, and another process can be given them. The slots are mapped read-only: no length
    and no offset is read from them.

    Attributes:
        fd: The file, or the decompressed one in memory.
        slots: Where the slots lie in fd.
        tables_fd: The file in memory that has all else.
        tables_bytes: How long that is.
        source: Which file it was opened as.
        image: struct image *, for the C core.
        provenance: What .sandstorm.json says.
    """

    def __init__(
        self, path: Path, *, verify_content: bool = True, handed: tuple[int, tuple[int, ...]] | None = None
    ) -> None:
        """Opens and checks. Raises ImageError.

        verify_content: the slots too are hashed. handed: fd and source of another that was opened there.
        """
        self.path = path
        self.fd, self.source = handed if handed is not None else _open(path)
        self.tables_fd = -1
        self._tables: mmap.mmap | None = None
        self._slots: mmap.mmap | None = None
        self._buffers: list[Any] = []
        self._stamp = self._file_stamp()
        try:
            self._load(verify_content)
        except BaseException:
            self.close()
            raise

    def _load(self, verify_content: bool) -> None:
        size_bytes = os.fstat(self.fd).st_size
        if size_bytes < 64:
            raise self._error("too short to be a packet image")
        self.table = self._sections(size_bytes)
        self.slots = self.table["slots"]
        if self.slots.offset % lib.SSI_PAGE_BYTES:
            raise self._error("its slots are not page-aligned; build the image again")
        self._read_tables()
        if self.slots.size_bytes > 0:
            self._slots = _mapped(self.fd, self.slots.size_bytes, self.slots.offset)
        notes = _notes(self.bytes_of("note"))
        self.build_id = notes.get(lib.SSI_NOTE_BUILD_ID, b"")
        if len(self.build_id) != lib.SSI_BUILD_ID_BYTES:
            raise self._error("it has no build-id; build the image again")
        self.sections = self._section_struct()
        self.image = ffi.new("struct image *")
        work = ffi.new("uint32_t[]", self.table["frames"].size_bytes // ffi.sizeof("struct ssi_frame") + 1)
        error = lib.image_open(self.image, self.sections, work)
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

    def _file_stamp(self) -> tuple[int, int]:
        status = os.fstat(self.fd)
        return status.st_size, status.st_mtime_ns

    def check_unchanged(self) -> None:
        """Raises ImageError if somebody has written to the file since; one that was replaced is still there."""
        if self._file_stamp() != self._stamp:
            raise self._error(IN_PLACE)

    def _sections(self, size_bytes: int) -> dict[str, Section]:
        sections: dict[str, Section] = {}
        used = [Section(0, ELF_HEADER_BYTES)]
        try:
            with os.fdopen(os.dup(self.fd), "rb") as file:
                elf = elffile.ELFFile(file)
                if not elf.little_endian or elf.elfclass != 64:
                    raise self._error("not a 64-bit little-endian ELF file, so no packet image")
                used.append(Section(int(elf["e_shoff"]), elf.num_sections() * int(elf["e_shentsize"])))
                self._sections_of(elf, sections, used)
        except ImageError:
            raise
        except Exception as error:  # pyelftools meets a damaged file with whatever comes first
            kind = type(error).__name__
            raise self._error(f"not a packet image, or damaged ({kind}); build one with sscc build") from None
        self._check_version(sections, size_bytes)
        missing = [name for name in (*SECTIONS, "note") if name not in sections]
        if missing:
            raise self._error(f"not a packet image: no section {PREFIX}{missing[0]}")
        for name, section in sections.items():
            if section.offset + section.size_bytes > size_bytes:
                raise self._error(f"section {name} ends beyond the file: truncated; copy or build it again")
        self._check_padding(used, size_bytes)
        return sections

    def _check_version(self, found: dict[str, Section], size_bytes: int) -> None:
        """Refuses another version before anything else is said of the file: such an image may have other sections."""
        note = found.get("note")
        if note is None or note.size_bytes > NOTE_BYTES_MAX or note.offset + note.size_bytes > size_bytes:
            return
        version = _notes(os.pread(self.fd, note.size_bytes, note.offset)).get(lib.SSI_NOTE_VERSION, b"")
        number = int.from_bytes(version, "little")
        if number and number != lib.SSI_VERSION:
            which = "older" if number < lib.SSI_VERSION else "newer"
            raise self._error(
                f"its format is version {number}, {which} than the one read here, {lib.SSI_VERSION}; build it again "
                "with the sscc that is beside this, or serve it with the version that built it"
            )

    @staticmethod
    def _sections_of(elf: Any, sections: dict[str, Section], used: list[Section]) -> None:
        """Ours by name, and where anything is that takes room in the file."""
        for section in elf.iter_sections():
            if section["sh_type"] not in ("SHT_NULL", "SHT_NOBITS"):
                used.append(Section(int(section["sh_offset"]), int(section["sh_size"])))
            name = "note" if section.name == ".note.sandstorm" else section.name.removeprefix(PREFIX)
            if section.name.startswith((PREFIX, ".note.sandstorm")) and name not in sections:
                sections[name] = Section(int(section["sh_offset"]), int(section["sh_size"]))

    def _check_padding(self, used: list[Section], size_bytes: int) -> None:
        """What is in no section is for alignment: zeros, and less than a page of them. No sections share bytes."""
        at = 0
        rest = Section(size_bytes, 1)
        for section in sorted((each for each in [*used, rest] if each.size_bytes > 0), key=lambda each: each.offset):
            gap = section.offset - at
            if gap < 0:
                raise self._error("two of its sections overlap; build the image again")
            if gap >= lib.SSI_PAGE_BYTES or any(os.pread(self.fd, gap, at)):
                raise self._error(f"there is something between its sections, at byte {at}; build the image again")
            at = section.offset + section.size_bytes

    def _read_tables(self) -> None:
        """Reads all sections but the slots into a file in memory, each at a multiple of 8."""
        names = [name for name in self.table if name != "slots"]
        self._places: dict[str, int] = {}
        size_bytes = 0
        for name in names:
            self._places[name] = size_bytes
            size_bytes += (self.table[name].size_bytes + 7) // 8 * 8
        self.tables_bytes = max(size_bytes, 1)
        self.tables_fd = os.memfd_create("sandstorm-tables", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.posix_fallocate(self.tables_fd, 0, self.tables_bytes)
        with mmap.mmap(self.tables_fd, self.tables_bytes) as writable, memoryview(writable) as all_of_it:
            for name in names:
                place = self._places[name]
                with all_of_it[place : place + self.table[name].size_bytes] as view:
                    self._read(view, self.table[name].offset)
        fcntl.fcntl(self.tables_fd, fcntl.F_ADD_SEALS, SEALED)
        self._tables = _mapped(self.tables_fd, self.tables_bytes, 0)

    def table_place(self, name: str) -> Section:
        """Where a table lies in tables_fd."""
        return Section(self._places[name], self.table[name].size_bytes)

    def mappings(self) -> list[tuple[int, int]]:
        """Address and bytes of all memory that `image` points to."""
        found = []
        for memory in (self._slots, self._tables):
            if memory is not None:
                with ffi.from_buffer(memory) as buffer:
                    found.append((int(ffi.cast("uintptr_t", buffer)), len(buffer)))
        return found

    def is_at(self, path: Path) -> bool:
        """Is this the very file that lies there, as it was when it was opened?"""
        try:
            return _identity(os.stat(path)) == self.source
        except OSError:
            return False

    @property
    def written_s(self) -> float:
        """When its file was written last, seconds since 1970."""
        return self.source[3] / 1e9

    def _read(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            with view[done : done + READ_BYTES_MAX] as piece:
                got = os.preadv(self.fd, [piece], offset + done)
            if got == 0:
                raise self._error("it became shorter while it was read; copy or build it again")
            done += got

    def _section_struct(self) -> Any:
        sections = ffi.new("struct image_sections *")
        tables = ffi.from_buffer("uint8_t[]", self._tables)
        self._buffers.append(tables)
        for name in SECTIONS:
            if name not in ("json", "slots"):
                setattr(sections, name, tables + self._places[name])
                setattr(sections, f"{name}_bytes", self.table[name].size_bytes)
        sections.slots_bytes = self.slots.size_bytes
        if self._slots is not None:
            slots = ffi.from_buffer("uint8_t[]", self._slots)
            self._buffers.append(slots)
            sections.slots = slots
        return sections

    def view(self, name: str) -> memoryview:
        """A table's bytes where they lie; release it before the image is closed."""
        assert self._tables is not None
        place = self._places[name]
        return memoryview(self._tables)[place : place + self.table[name].size_bytes]

    def bytes_of(self, name: str) -> bytes:
        """A copy of a section."""
        with self.view(name) as view:
            return bytes(view)

    def computed_build_id(self) -> bytes:
        """The build-id that the contents have."""
        digests = []
        for name in SECTIONS:
            if name == "slots":
                digests.append(self._slots_digest())
                continue
            with self.view(name) as view:
                digests.append(hashlib.sha256(view).digest())
        return build_id(digests)

    def _slots_digest(self) -> bytes:
        """Read, not looked at where they are mapped: a file that becomes shorter is reported, and ends nobody."""
        digest = hashlib.sha256()
        buffer = bytearray(min(CHUNK_BYTES, self.slots.size_bytes))
        for at in range(0, self.slots.size_bytes, CHUNK_BYTES):
            with memoryview(buffer)[: min(CHUNK_BYTES, self.slots.size_bytes - at)] as piece:
                self._read(piece, self.slots.offset + at)
                digest.update(piece)
        return digest.digest()

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
        return [of_site or [""] for of_site in names]

    def close(self) -> None:
        """Unmaps; the C structs must not be used any more."""
        for buffer in self._buffers:
            ffi.release(buffer)
        self._buffers.clear()
        for mapped in (self._tables, self._slots):
            if mapped is not None:
                mapped.close()
        self._tables = self._slots = None
        for fd in (self.fd, self.tables_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.tables_fd = -1

    def __enter__(self) -> Self:
        """The image itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the image."""
        self.close()
