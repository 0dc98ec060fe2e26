"""The image's only writer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import starmap
from json.encoder import encode_basestring_ascii
from types import TracebackType
from typing import IO, Any, Self, cast

from ssimage._sandstorm import ffi, lib
from ssimage.loader import SECTIONS, build_id

from ..errors import SsccError
from ..manifest.model import Manifest
from ..responses import patches
from ..responses.builder import Route
from ..responses.errors import ErrorPage
from ..responses.heads import Response, date_is_patched
from ..responses.multipart import Multipart
from ..responses.templates import AnyVariant, FileVariant, SizedTemplate, Variant
from ..sources.source import ETAG_DIGITS
from .bulk import BODY_BYTES_MAX, Files
from .elf import write_elf
from .framer import NONE, Framer, Progress
from .layout import ERROR, HEADER, HOST, RESPONSE, ROUTE, SITE, VARIANT, segment_bytes, slot_bytes

ROUTE_PREFIX, ROUTE_ALIAS = int(lib.SSI_ROUTE_PREFIX), int(lib.SSI_ROUTE_ALIAS)
HASH_SEEDS = 64  # tried before giving up; one is nearly always enough


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
    """Writes a file's provenance as json does with an indent, which it does slowly."""
    return (
        f'  {{\n   "bytes": {size_bytes},\n   "path": {encode_basestring_ascii(path)},\n   "sha256": "{sha256}"\n  }}'
    )


def _document(provenance: dict[str, Any], sources: list[tuple[str, int, str]]) -> bytes:
    """Writes provenance as JSON, for people too: sorted and indented. sources: path, size and SHA-256 of each."""
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
        self.learned: dict[
            int, int
        ] = {}  # frames that files share, by the id of SizedTemplate that Files has learned

    def __enter__(self) -> Self:
        """Gives the writer."""
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
        """Adds a response whose frames are there, with a row of this status and index."""
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

    def _sized_template(self, variant: FileVariant) -> SizedTemplate | None:
        """The heads that C makes its answers by; None if that is for `add_response`."""
        template, content, time_s = variant
        if content.size_bytes > BODY_BYTES_MAX or not date_is_patched(time_s):
            return None
        if content.sha256[:ETAG_DIGITS] in self.shared_etags:
            return None
        return template.sized_for(content.size_bytes)

    def _learn(self, sized: SizedTemplate) -> None:
        """Makes a template known to C after its first file, with whose answers those were added that all share."""
        shared = [self.known[response.key()] for response in (sized.not_modified, sized.partial, sized.part)]
        self.files.learn(sized, self._first_patch(sized.full.patches), [index for *_, index in shared])
        self.learned[id(sized)] = sum(frames for _, frames, *_ in shared)

    def _cut_files(self) -> None:
        """Cuts all files that wait."""
        files = self.files
        while files.waiting:
            count = files.cut(self.response_count, len(self.strings))
            if count:
                self.responses += files.responses
                self.response_count += count
                self.variants += files.variants
                self.strings += files.strings
            else:
                self._add_variant(files.pop().complete())

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
            sized = self._sized_template(variant) if isinstance(variant, FileVariant) else None
            frames = self.learned.get(id(sized))
            if frames is not None:
                files.add(cast(FileVariant, variant), cast(SizedTemplate, sized))
                shared += frames
                if files.is_full:
                    self._cut_files()
                continue
            self._cut_files()
            self._add_variant(variant.complete())
            if sized is not None:
                self._learn(sized)
        self._cut_files()
        # They have one copy each.
        self.summary.shared_frames += shared
        self.summary.shared_bytes += shared * self.slot_bytes

    def _route_rows(self, routes: list[Route], rows: list[tuple[int, int]], options_rows: list[int]) -> bytearray:
        """Rows without their hashes, in the order of routes."""
        packed = bytearray()
        pack, string = ROUTE.struct.pack, self._string
        for route, (first, count), options in zip(routes, rows, options_rows, strict=True):
            flags = (ROUTE_PREFIX if route.prefix else 0) | (ROUTE_ALIAS if route.alias else 0)
            path = route.path
            packed += pack(0, string(path), len(path), first, count, options, route.site, flags)
        return packed

    def _route_tables(
        self, routes: list[Route], rows: list[tuple[int, int]], options_rows: list[int]
    ) -> tuple[bytearray, bytes, int]:
        """The hash table's entries and displacements, and the seed."""
        table_len = bucket_count = 1
        while table_len * 3 < len(routes) * 4:
            table_len *= 2
        while bucket_count * 4 < len(routes):
            bucket_count *= 2
        unhashed = ffi.from_buffer("struct ssi_route[]", self._route_rows(routes, rows, options_rows))
        strings = bytes(self.strings)
        hashes = ffi.new("uint64_t[]", len(routes))
        displacements = ffi.new("uint32_t[]", bucket_count)
        work = ffi.new("uint32_t[]", 5 * len(routes) + 2 * bucket_count + 8 + table_len)
        for seed in range(1, HASH_SEEDS):
            wrong = lib.route_build_hash(unhashed, len(routes), ffi.from_buffer(strings), len(strings), seed, hashes)
            assert not wrong
            if lib.image_route_perfect(hashes, len(routes), displacements, bucket_count, table_len, work) == 0:
                break
        else:
            raise SsccError("no perfect hash for the routes was found; please report the manifest")
        table = bytearray(table_len * ROUTE.struct.size)
        entries = ffi.from_buffer("struct ssi_route[]", table)
        lib.route_build_table(unhashed, len(routes), displacements, bucket_count, entries, table_len)
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
        header = self._header(
            route_count=len(routes),
            route_table_len=len(table) // ffi.sizeof("struct ssi_route"),
            bucket_count=len(buckets) // 4,
            error_count=len(error_rows),
            host_count=len(host_rows),
            site_count=len(site_rows),
            multipart_type_response=multipart_type,
            multipart_end_response=multipart_end,
            route_hash_seed=seed,
        )
        self._write({"header": header, **contents})
        self.summary.routes = len(routes)
        self.summary.variants = self.variant_count
        self.summary.responses = self.response_count
        self.summary.frames = self.framer.frame_count
        self.summary.slots = self.framer.slot_count
        return self.summary

    def _header(self, **fields: int) -> bytes:
        """struct ssi_header. fields: those that the tables do not give."""
        families = self.manifest.families
        return HEADER(
            version=lib.SSI_VERSION,
            header_bytes=ffi.sizeof("struct ssi_header"),
            slot_bytes=self.slot_bytes,
            segment_bytes=self.segment_bytes,
            mtu_bytes=self.manifest.mtu,
            families=(lib.SSI_FAMILY_IPV4 if "ipv4" in families else 0)
            | (lib.SSI_FAMILY_IPV6 if "ipv6" in families else 0),
            flags=lib.SSI_IMAGE_MERGE_SLASHES if self.manifest.merge_slashes else 0,
            slot_count=self.framer.slot_count,
            frame_count=self.framer.frame_count,
            response_count=self.response_count,
            variant_count=self.variant_count,
            patch_count=patches.count(self.patches),
            string_bytes=len(self.strings),
            **fields,
        )

    def _write(self, contents: dict[str, bytes | bytearray]) -> None:
        """Ends the slots, and writes the sections behind them."""
        slots_digest = self.framer.finish()
        digests = [hashlib.sha256(contents[name]).digest() for name in SECTIONS[:-1]]
        image_id = build_id([*digests, slots_digest])
        slots_bytes = self.framer.slot_count * self.slot_bytes
        self.summary.image_bytes = write_elf(self.file, contents, slots_bytes, image_id)
        self.summary.build_id = image_id.hex()
