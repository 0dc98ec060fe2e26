"""The image's only writer."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import starmap
from json.encoder import encode_basestring_ascii
from types import TracebackType
from typing import IO, Any, ClassVar, Self, cast

from ssimage._sandstorm import ffi, lib
from ssimage.loader import CHUNK_BYTES, SECTIONS, build_id

from ..errors import SsccError
from ..manifest.model import Manifest
from ..responses import patches
from ..responses.heads import (
    AnyVariant,
    Blanks,
    ErrorPage,
    FileVariant,
    Multipart,
    Response,
    Route,
    Variant,
    date_is_patched,
)
from ..sources.source import ETAG_DIGITS
from .bulk import BODY_BYTES_MAX, Files
from .framer import NONE, Framer, Progress

SHT_PROGBITS, SHT_STRTAB, SHT_NOTE = 1, 3, 7
ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
ROUTE_PREFIX, ROUTE_ALIAS = int(lib.SSI_ROUTE_PREFIX), int(lib.SSI_ROUTE_ALIAS)
HASH_SEEDS = 64  # tried before giving up; one is nearly always enough


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


class _Row:
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
        kind = ffi.typeof(f"struct {name}")
        self.names = [member for member, _ in kind.fields]
        self.struct = struct.Struct("<" + "".join(self.CODES[item.type.cname] for _, item in kind.fields))
        assert self.struct.size == ffi.sizeof(kind)

    def __call__(self, **fields: int) -> bytes:
        """All members, by name."""
        assert len(fields) == len(self.names)
        return self.struct.pack(*[fields[name] for name in self.names])


HEADER, HOST, SITE, ROUTE, VARIANT, RESPONSE, ERROR = (
    _Row(f"ssi_{name}") for name in ("header", "host", "site", "route", "variant", "response", "error")
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


@dataclass
class Summary:
    """What a build made."""

    files: int = 0
    routes: int = 0
    variants: int = 0
    responses: int = 0
    frames: int = 0
    slots: int = 0
    content_bytes: int = 0
    image_bytes: int = 0
    shared_frames: int = 0  # of equal streams, which are there once
    shared_bytes: int = 0  # of the slots that they would have
    files_hashed: int = 0
    variants_made: int = 0
    variants_reused: int = 0
    build_id: str = ""


def _source(path: str, size_bytes: int, sha256: str) -> str:
    """As json writes it with an indent, which it does slowly."""
    return (
        f'  {{\n   "bytes": {size_bytes},\n   "path": {encode_basestring_ascii(path)},\n   "sha256": "{sha256}"\n  }}'
    )


def _document(provenance: dict[str, Any], sources: list[tuple[str, int, str]]) -> bytes:
    """As JSON, for people too: sorted and indented. sources: path, size and SHA-256 of each."""
    text = json.dumps({**provenance, "sources": []}, sort_keys=True, indent=1)
    if sources:
        text = text.replace('"sources": []', '"sources": [\n' + ",\n".join(starmap(_source, sources)) + "\n ]")
    return text.encode()


_Known = tuple[int, int, int, int]  # a stream's first frame, their number, a response's status and index


class Writer:
    """Writes slots as they come, then the tables, then the ELF headers."""

    def __init__(self, file: IO[bytes], manifest: Manifest, progress: Progress) -> None:
        """file: empty, seekable. progress: called with bytes of content as they are done."""
        self.file = file
        self.manifest = manifest
        self.progress = progress
        self.segment_bytes = segment_bytes(manifest)
        self.slot_bytes = slot_bytes(manifest)
        self.responses = bytearray()
        self.response_count = 0
        self.known: dict[tuple[bytes, str, int], _Known] = {}  # by Response.key
        self.response_index: dict[tuple[int, int], int] = {}  # by first frame and status, but for those in known
        self.patches = bytearray()
        self.patch_index: dict[bytes, int] = {}  # of rows that follow each other, the first one's
        self.variants = bytearray()
        self.variant_count = 0
        self.variant_index: dict[int, tuple[int, int]] = {}
        self.strings = bytearray()
        self.string_index: dict[bytes, int] = {}
        self.summary = Summary()
        file.write(bytes(lib.SSI_PAGE_BYTES))
        ipv6 = "ipv4" not in manifest.families
        self.framer = Framer(file, self.segment_bytes, self.slot_bytes, ipv6, progress)
        self.files = Files(self.framer)
        self.shared_etags: set[str] = set()  # their digits
        self.learned: dict[int, int] = {}  # frames that files share, by the id of Blanks that Files has learned

    def __enter__(self) -> Self:
        """The writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends what runs beside it."""
        self.framer.__exit__(kind, error, trace)

    def _string(self, data: bytes) -> int:
        at = self.string_index.get(data)
        if at is None:
            at = self.string_index[data] = len(self.strings)
            self.strings += data
        return at

    def add_response(self, response: Response) -> int:
        """Adds a response, once; its index. Equal streams share frames."""
        key = response.key()
        known = self.known.get(key)
        if known is not None:
            return self._add_known(response, *known)
        first, count = self.framer.add(response)
        index = self._add_row(response, first)
        self.known[key] = (first, count, response.status, index)
        return index

    def _add_known(self, response: Response, first: int, count: int, status: int, index: int) -> int:
        """One whose frames are there, with a row of this status and index."""
        self.summary.shared_frames += count
        self.summary.shared_bytes += count * response.copies * self.slot_bytes
        if response.body:
            self.progress(response.body_bytes)
        if response.status == status:
            return index
        other = first, response.status
        if other not in self.response_index:
            self.response_index[other] = self._add_row(response, first)
        return self.response_index[other]

    def _add_row(self, response: Response, first: int) -> int:
        """first: of its frames."""
        self.responses += RESPONSE.struct.pack(
            response.stream_bytes,
            first,
            len(response.head),
            self._first_patch(response.patches),
            response.status,
            patches.count(response.patches),
        )
        self.response_count += 1
        return self.response_count - 1

    def _first_patch(self, rows: bytes) -> int:
        """The index of the first of these rows, which are there once."""
        first = self.patch_index.get(rows)
        if first is None:
            first = self.patch_index[rows] = patches.count(self.patches)
            self.patches += rows
        return first

    def _add_if(self, response: Response | None) -> int:
        """add_response, or that there is none."""
        return NONE if response is None else self.add_response(response)

    def _add_variant(self, variant: Variant) -> None:
        row = VARIANT.struct.pack(
            self.add_response(variant.get),
            self._add_if(variant.not_modified),
            self._add_if(variant.partial),
            self._add_if(variant.part),
            variant.swap_offset,
            variant.swap_bytes,
            self._string(variant.etag),
            len(variant.etag),
            variant.encoding,
            variant.last_modified_s,
            variant.content_bytes,
        )
        self.variants += row

    def _share(self, variants: list[AnyVariant]) -> None:
        """Looks for equal files among all variants: their answers may be equal too.

        All others have an ETag of their own, so their answers need not be looked up.
        """
        seen: set[str] = set()
        for variant in variants:
            if isinstance(variant, FileVariant):
                digits = variant.content.sha256[:ETAG_DIGITS]
                (self.shared_etags if digits in seen else seen).add(digits)

    def _blanks(self, variant: FileVariant) -> Blanks | None:
        """The heads that C makes its answers by; None if that is for `add_response`."""
        mould, content, time_s = variant
        if content.size_bytes > BODY_BYTES_MAX or not date_is_patched(time_s):
            return None
        if content.sha256[:ETAG_DIGITS] in self.shared_etags:
            return None
        return mould.blanks_for(content.size_bytes)

    def _learn(self, blanks: Blanks) -> None:
        """After its first file, with whose answers those were added that all share."""
        shared = [self.known[each.key()] for each in (blanks.not_modified, blanks.partial, blanks.part)]
        self.files.learn(blanks, self._first_patch(blanks.full.patches), [index for *_, index in shared])
        self.learned[id(blanks)] = sum(frames for _, frames, *_ in shared)

    def _cut_files(self) -> None:
        """None waits any longer."""
        files = self.files
        while files.waiting:
            count = files.cut(self.response_count, len(self.strings))
            if count:
                self.responses += files.responses
                self.response_count += count
                self.variants += files.variants
                self.strings += files.strings
            else:
                self._add_variant(files.pop().made())

    def add_routes(self, routes: list[Route]) -> None:
        """Adds the variants of all routes, once for those that share them. To be called once."""
        variants: list[AnyVariant] = []
        for route in routes:
            key = id(route.variants)
            if key not in self.variant_index:
                self.variant_index[key] = (len(variants), len(route.variants))
                variants += route.variants
        self._share(variants)
        self._add_variants(variants)
        self.variant_count = len(variants)
        self.summary.content_bytes = sum([variant.content_bytes for variant in variants])

    def _add_variants(self, variants: list[AnyVariant]) -> None:
        files, shared = self.files, 0
        for variant in variants:
            blanks = self._blanks(variant) if isinstance(variant, FileVariant) else None
            frames = self.learned.get(id(blanks))
            if frames is not None:
                files.add(cast(FileVariant, variant), cast(Blanks, blanks))
                shared += frames
                if files.is_full:
                    self._cut_files()
                continue
            self._cut_files()
            self._add_variant(variant.made())
            if blanks is not None:
                self._learn(blanks)
        self._cut_files()
        # They have one copy each.
        self.summary.shared_frames += shared
        self.summary.shared_bytes += shared * self.slot_bytes

    def _route_rows(self, routes: list[Route], rows: list[tuple[int, int]], options_rows: list[int]) -> bytearray:
        """Rows without their hashes, in the order of routes."""
        made = bytearray()
        pack, string = ROUTE.struct.pack, self._string
        for route, (first, count), options in zip(routes, rows, options_rows, strict=True):
            flags = (ROUTE_PREFIX if route.prefix else 0) | (ROUTE_ALIAS if route.alias else 0)
            path = route.path
            made += pack(0, string(path), len(path), first, count, options, route.site, flags)
        return made

    def _route_tables(
        self, routes: list[Route], rows: list[tuple[int, int]], options_rows: list[int]
    ) -> tuple[bytearray, bytes, int]:
        """The hash table's entries and displacements, and the seed."""
        table_len = bucket_count = 1
        while table_len * 3 < len(routes) * 4:
            table_len *= 2
        while bucket_count * 4 < len(routes):
            bucket_count *= 2
        made = ffi.from_buffer("struct ssi_route[]", self._route_rows(routes, rows, options_rows))
        strings = bytes(self.strings)
        hashes = ffi.new("uint64_t[]", len(routes))
        displacements = ffi.new("uint32_t[]", bucket_count)
        work = ffi.new("uint32_t[]", 5 * len(routes) + 2 * bucket_count + 8 + table_len)
        for seed in range(1, HASH_SEEDS):
            wrong = lib.route_build_hash(made, len(routes), ffi.from_buffer(strings), len(strings), seed, hashes)
            assert not wrong
            if lib.image_route_perfect(hashes, len(routes), displacements, bucket_count, table_len, work) == 0:
                break
        else:
            raise SsccError("no perfect hash for the routes was found; please report the manifest")
        table = bytearray(table_len * ROUTE.struct.size)
        entries = ffi.from_buffer("struct ssi_route[]", table)
        lib.route_build_table(made, len(routes), displacements, bucket_count, entries, table_len)
        return table, bytes(ffi.buffer(displacements)), seed

    def _host_rows(self, sites: list[list[str]]) -> list[bytes]:
        names = sorted((name.encode("ascii"), number) for number, site in enumerate(sites) for name in site)
        return [HOST(name_offset=self._string(name), name_bytes=len(name), site=number) for name, number in names]

    def _site_rows(self, count: int, routes: list[Route], errors: list[ErrorPage]) -> list[bytes]:
        """errors: those of a site next to each other."""
        longest = [0] * count
        for route in routes:
            if route.prefix:
                longest[route.site] = max(longest[route.site], len(route.path))
        numbers = [page.site for page in errors]
        return [
            SITE(
                first_error=numbers.index(site),
                error_count=numbers.count(site),
                prefix_bytes_max=longest[site],
            )
            for site in range(count)
        ]

    def _error_rows(self, errors: list[ErrorPage]) -> list[bytes]:
        return [
            ERROR(
                status=page.status,
                get_response=self.add_response(page.get),
            )
            for page in errors
        ]

    def finish(
        self,
        sites: list[list[str]],
        routes: list[Route],
        errors: list[ErrorPage],
        multipart: Multipart,
        provenance: dict[str, Any],
        sources: list[tuple[str, int, str]],
    ) -> Summary:
        """Adds everything and writes the file to its end.

        sites: the names of each. provenance, sources: as _document takes them.
        """
        rows = [self.variant_index[id(route.variants)] for route in routes]
        multipart_type, multipart_end = self.add_response(multipart.type), self.add_response(multipart.end)
        options_rows = [self._add_if(route.options) for route in routes]
        error_rows = self._error_rows(errors)
        table, buckets, seed = self._route_tables(routes, rows, options_rows)
        host_rows, site_rows = self._host_rows(sites), self._site_rows(len(sites), routes, errors)
        contents: dict[str, bytes | bytearray] = {
            "json": _document(provenance, sources),
            "strings": bytes(self.strings),
            "hosts": b"".join(host_rows),
            "sites": b"".join(site_rows),
            "buckets": buckets,
            "routes": table,
            "variants": self.variants,
            "responses": self.responses,
            "patches": self.patches,
            "errors": b"".join(error_rows),
            "frames": self.framer.frames,
        }
        contents["header"] = HEADER(
            version=lib.SSI_VERSION,
            header_bytes=ffi.sizeof("struct ssi_header"),
            slot_bytes=self.slot_bytes,
            segment_bytes=self.segment_bytes,
            mtu_bytes=self.manifest.mtu,
            families=(lib.SSI_FAMILY_IPV4 if "ipv4" in self.manifest.families else 0)
            | (lib.SSI_FAMILY_IPV6 if "ipv6" in self.manifest.families else 0),
            flags=lib.SSI_IMAGE_MERGE_SLASHES if self.manifest.merge_slashes else 0,
            slot_count=self.framer.slot_count,
            frame_count=self.framer.frame_count,
            response_count=self.response_count,
            variant_count=self.variant_count,
            route_count=len(routes),
            route_table_len=len(table) // ffi.sizeof("struct ssi_route"),
            bucket_count=len(buckets) // 4,
            error_count=len(error_rows),
            host_count=len(host_rows),
            site_count=len(site_rows),
            multipart_type_response=multipart_type,
            multipart_end_response=multipart_end,
            patch_count=patches.count(self.patches),
            string_bytes=len(self.strings),
            route_hash_seed=seed,
        )
        slots_digest = self.framer.finish()
        digests = [hashlib.sha256(contents[name]).digest() for name in SECTIONS[:-1]]
        image_id = build_id([*digests, slots_digest])
        self._write_tables(contents, image_id)
        self.summary.routes = len(routes)
        self.summary.variants = self.variant_count
        self.summary.responses = self.response_count
        self.summary.frames = self.framer.frame_count
        self.summary.slots = self.framer.slot_count
        self.summary.build_id = image_id.hex()
        return self.summary

    @staticmethod
    def _note(image_id: bytes) -> bytes:
        name = b"Sandstorm\0\0\0"
        notes = b""
        for kind, desc in (
            (lib.SSI_NOTE_BUILD_ID, image_id),
            (lib.SSI_NOTE_VERSION, struct.pack("<I", lib.SSI_VERSION)),
        ):
            notes += struct.pack("<III", 10, len(desc), kind) + name + desc
        return notes

    def _write_tables(self, contents: dict[str, bytes | bytearray], image_id: bytes) -> None:
        page = int(lib.SSI_PAGE_BYTES)
        names = bytearray(b"\0")
        headers = [SECTION_HEADER.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]

        def add(name: str, kind: int, offset: int, size_bytes: int, align: int) -> None:
            headers.append(SECTION_HEADER.pack(len(names), kind, 0, 0, offset, size_bytes, 0, 0, align, 0))
            names.extend(name.encode() + b"\0")

        def put(data: bytes | bytearray) -> int:
            self.file.write(bytes(-self.file.tell() % 8))
            offset = self.file.tell()
            self.file.write(data)
            return offset

        note = self._note(image_id)
        add(".note.sandstorm", SHT_NOTE, put(note), len(note), 4)
        for name in SECTIONS[:-1]:
            add(f".sandstorm.{name}", SHT_PROGBITS, put(contents[name]), len(contents[name]), 8)
        add(".sandstorm.slots", SHT_PROGBITS, page, self.framer.slot_count * self.slot_bytes, page)
        strtab_at = len(names)
        names.extend(b".shstrtab\0")
        offset = put(bytes(names))
        headers.append(SECTION_HEADER.pack(strtab_at, SHT_STRTAB, 0, 0, offset, len(names), 0, 0, 1, 0))
        table = put(b"".join(headers))
        self.summary.image_bytes = self.file.tell()
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        self.file.seek(0)
        # ET_REL, EM_NONE: a container of sections, nothing to run.
        self.file.write(ELF_HEADER.pack(ident, 1, 0, 1, 0, 0, table, 0, 64, 0, 0, 64, len(headers), len(headers) - 1))


def compress(source: IO[bytes], target: IO[bytes], progress: Callable[[int], None]) -> None:
    """Writes source as an LZ4 frame with its size and checksum."""
    import lz4.frame  # noqa: PLC0415, as few images are compressed

    size_bytes = source.seek(0, os.SEEK_END)
    source.seek(0)
    context = lz4.frame.LZ4FrameCompressor(content_checksum=True, block_linked=True)
    target.write(context.begin(size_bytes))
    while chunk := source.read(CHUNK_BYTES):
        target.write(context.compress(chunk))
        progress(len(chunk))
    target.write(context.flush())
