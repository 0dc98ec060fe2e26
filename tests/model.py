"""A slow model of the compiler, written from image_format.h alone: images for tests of the core, in memory.

It shares only the route hash with the core, since that is defined by the core's code.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any

from ssimage._sandstorm import ffi, lib

EPOCH = b"Thu, 01 Jan 1970 00:00:00 GMT"
DATE_OFFSET = 24
CONNECTION_OFFSET = DATE_OFFSET + 29 + 2 + 12  # odd, to try both halves of a word
LENGTH_OFFSET = CONNECTION_OFFSET + 10 + 2 + 16  # Content-Length of a 206, LENGTH_BYTES wide
LENGTH_BYTES = 13
RANGE_OFFSET = LENGTH_OFFSET + LENGTH_BYTES + 2 + 6 + 34 + 2 + 15 + 29 + 2 + 15  # behind ETag and Last-Modified
RANGE_BYTES = 41
ERRORS = (204, 400, 404, 405, 406, 408, 412, 414, 416, 417, 421, 431, 501, 505)
BOUNDARY = b"models"
NONE = 0xFFFFFFFF
DATE, CONNECTION, LENGTH, RANGE, ETAG, LAST_MODIFIED = range(6)  # kinds of patches
Patches = tuple[tuple[int, int, int], ...]  # offset, bytes and kind, in order
HEAD: Patches = ((DATE_OFFSET, 29, DATE), (CONNECTION_OFFSET, 10, CONNECTION))
ETAG_BYTES = 34


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071 over little-endian words: slow and plain."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "little")
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass
class Page:
    """A file to serve."""

    body: bytes
    last_modified_s: int = 784111777
    encodings: dict[int, bytes] = field(default_factory=dict)
    headers: bytes = b""
    options: bytes = b""  # header fields of its own answer to OPTIONS
    location: bytes = b""  # where a redirect leads, which hands the request's query on
    hands_path_on: bool = False  # in front of the query

    def etag(self, body: bytes) -> bytes:
        return b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'


@dataclass(frozen=True)
class Route:
    """A row of the table. A path with an asterisk at its end is a prefix."""

    path: bytes
    first: int
    count: int
    options: int
    site: int
    prefix: int

    @property
    def key(self) -> tuple[Any, int, int, int]:
        return ffi.from_buffer(self.path), len(self.path), self.site, self.prefix


class ModelImage:
    """Sections as bytes, by name without the prefix.

    pages are those of any host that has no site of its own; none means that there is no such site. The names of a site
    in sites are parted by spaces. The site that was given first is the first.
    """

    def __init__(
        self,
        pages: dict[str, Page],
        *,
        sites: dict[str, dict[str, Page]] | None = None,
        segment_bytes: int = 1428,
        copies: int = 1,
        mtu: int = 1500,
        merge_slashes: bool = True,
    ) -> None:
        self.segment_bytes = segment_bytes
        self.copies = copies
        self.slot_bytes = 2048 if segment_bytes <= 1920 else 16384
        self.strings = b""
        self.shared: dict[bytes, int] = {}
        self.gets: dict[str, int] = {}  # the GET response of each page, without encoding
        self.streams: list[bytes] = []  # of each response, as stored
        self.tables: dict[str, list[bytes]] = {
            name: [] for name in ("sites", "variants", "responses", "patches", "errors", "frames", "slots")
        }
        routes: list[Route] = []
        hosts: dict[bytes, int] = {}
        for names, site_pages in [*([("", pages)] if pages or not sites else []), *(sites or {}).items()]:
            hosts |= dict.fromkeys((name.encode() for name in names.split(" ")), len(self.tables["sites"]))
            routes += self.add_site(site_pages)
        self.tables["hosts"] = [
            struct.pack("<III", self.string(name), len(name), site) for name, site in sorted(hosts.items())
        ]
        kind = self.add_still(206, b"Content-Type: multipart/byteranges; boundary=" + BOUNDARY + b"\r\n")
        end = self.add_still(206, b"\r\n--" + BOUNDARY + b"--\r\n")
        self.sections = {name: b"".join(rows) for name, rows in self.tables.items()}
        self.sections["strings"] = self.strings
        self.place(routes)
        self.sections["header"] = struct.pack(
            "<5IHH14IQ",
            7,
            88,
            self.slot_bytes,
            segment_bytes,
            mtu,
            3,
            int(merge_slashes),
            len(self.tables["slots"]),
            len(self.tables["frames"]),
            len(self.tables["responses"]),
            len(self.tables["variants"]),
            len(routes),
            len(self.sections["routes"]) // 32,
            len(self.sections["buckets"]) // 4,
            len(self.tables["errors"]),
            len(self.tables["hosts"]),
            len(self.tables["sites"]),
            kind,
            end,
            len(self.tables["patches"]),
            len(self.strings),
            7,
        )

    def string(self, data: bytes) -> int:
        self.strings += data
        return len(self.strings) - len(data)

    def add_site(self, pages: dict[str, Page]) -> list[Route]:
        routes = [self.add_page(path.encode(), page, len(self.tables["sites"])) for path, page in pages.items()]
        longest = max((len(route.path) for route in routes if route.prefix), default=0)
        first_error = len(self.tables["errors"])
        for status in ERRORS:
            self.add_error(status, b"%d" % len(self.tables["sites"]))
        self.tables["sites"].append(struct.pack("<III", first_error, len(ERRORS), longest))
        return routes

    def add_error(self, status: int, site: bytes) -> None:
        if status == 416:
            self.add_unsatisfiable()
            return
        body = b"" if status == 204 else b"<p>%d %s</p>\n" % (status, site)
        length = None if status == 204 else len(body)
        allow = b"Allow: GET, HEAD, OPTIONS\r\n" if status in (204, 405) else b""
        get = self.add_response(status, body, b"Content-Type: text/html\r\n" + allow, length)
        self.tables["errors"].append(struct.pack("<II", status, get))

    def add_redirect(self, page: Page) -> None:
        """The query goes behind the location."""
        get = self.add_response(301, page.body, b"Location: " + page.location + b"\r\n", len(page.body))
        at = self.streams[get].index(b"\r\nLocation: ") + len(b"\r\nLocation: ") + len(page.location)
        path_at = at if page.hands_path_on else 0
        row = struct.pack("<7IHHqQ", get, NONE, NONE, NONE, at, path_at, 0, 0, 0, -1, len(page.body))
        self.tables["variants"].append(row)

    def add_page(self, path: bytes, page: Page, site: int) -> Route:
        first = len(self.tables["variants"])
        if page.location:
            self.add_redirect(page)
            return Route(path.removesuffix(b"*"), first, 1, NONE, site, int(path.endswith(b"*")))
        bodies = page.encodings | {0: page.body}
        for encoding, body in bodies.items():
            etag = page.etag(body)
            names = {1: b"gzip", 2: b"br", 3: b"zstd"}
            more = page.headers
            more += b"Vary: Accept-Encoding\r\n" if len(bodies) > 1 else b""
            if encoding:
                more += b"Content-Encoding: " + names[encoding] + b"\r\n"
            get = self.add_response(200, body, b"ETag: " + etag + b"\r\n" + more, len(body))
            if not encoding:
                self.gets[path.decode()] = get
            vary = b"Vary: Accept-Encoding\r\n" if len(bodies) > 1 else b""
            unmodified = self.add_unmodified(vary)
            partial, swap_offset, swap_bytes = self.add_partial(more)
            row = struct.pack(
                "<7IHHqQ",
                get,
                unmodified,
                partial,
                self.add_part(),
                swap_offset,
                swap_bytes,
                self.string(etag),
                len(etag),
                encoding,
                page.last_modified_s,
                len(body),
            )
            self.tables["variants"].append(row)
        options = NONE if not page.options else self.add_response(204, b"", page.options, None)
        return Route(path.removesuffix(b"*"), first, len(bodies), options, site, int(path.endswith(b"*")))

    def add_response(self, status: int, body: bytes, more: bytes, length: int | None) -> int:
        # The reason phrase is padded so that the two patches lie where they should.
        head = (b"HTTP/1.1 %d " % status).ljust(DATE_OFFSET - 8, b"-") + b"\r\nDate: " + EPOCH + b"\r\n"
        head += b"Connection: keep-alive\r\n"
        head += more + (b"" if length is None else b"Content-Length: %d\r\n" % length) + b"\r\n"
        assert head[DATE_OFFSET:].startswith(EPOCH)
        assert head[CONNECTION_OFFSET:].startswith(b"keep-alive")
        return self.add_stream(status, head, body, HEAD)

    def add_still(self, status: int, head: bytes) -> int:
        return self.add_stream(status, head, b"", ())

    def add_partial(self, more: bytes) -> tuple[int, int, int]:
        """The head of a 206; where it has Content-Range and Content-Type."""
        head = self.begin(206) + b"Content-Length: " + b"?" * LENGTH_BYTES + b"\r\n"
        head, validators = self.with_validators(head)
        swap = len(head)
        head += b"Content-Range: " + b"?" * RANGE_BYTES + b"\r\nContent-Type: text/model\r\n"
        swap_bytes = len(head) - swap
        assert head.index(b"?") == LENGTH_OFFSET
        assert head.rindex(b"?") == RANGE_OFFSET + RANGE_BYTES - 1
        patches = (*HEAD, (LENGTH_OFFSET, LENGTH_BYTES, LENGTH), *validators, (RANGE_OFFSET, RANGE_BYTES, RANGE))
        return self.add_shared(206, head + more + b"\r\n", patches), swap, swap_bytes

    def add_unmodified(self, more: bytes) -> int:
        """The 304, which all pages share."""
        head, validators = self.with_validators(self.begin(304))
        return self.add_shared(304, head + more + b"\r\n", (*HEAD, *validators))

    @staticmethod
    def begin(status: int) -> bytes:
        return b"HTTP/1.1 %d ---\r\nDate: " % status + EPOCH + b"\r\nConnection: keep-alive\r\n"

    @staticmethod
    def with_validators(head: bytes) -> tuple[bytes, Patches]:
        """Gaps for a page's ETag and Last-Modified; where they are."""
        etag_at = len(head) + len(b"ETag: ")
        date_at = etag_at + ETAG_BYTES + len(b"\r\nLast-Modified: ")
        head += b"ETag: " + b"?" * ETAG_BYTES + b"\r\nLast-Modified: " + b"?" * 29 + b"\r\n"
        return head, ((etag_at, ETAG_BYTES, ETAG), (date_at, 29, LAST_MODIFIED))

    def add_shared(self, status: int, head: bytes, patches: Patches) -> int:
        """A head that is there once."""
        if head not in self.shared:
            self.shared[head] = self.add_stream(status, head, b"", patches)
        return self.shared[head]

    def add_part(self) -> int:
        """In front of every part; the same for all pages."""
        head = b"\r\n--" + BOUNDARY + b"\r\nContent-Type: text/model\r\nContent-Range: "
        at = len(head)
        assert at % 2 == 1
        return self.add_shared(206, head + b"?" * RANGE_BYTES + b"\r\n\r\n", ((at, RANGE_BYTES, RANGE),))

    def add_unsatisfiable(self) -> None:
        """The 416."""
        head = self.begin(416) + b"Content-Range: "
        patches = (*HEAD, (len(head), RANGE_BYTES, RANGE))
        head += b"?" * RANGE_BYTES + b"\r\nContent-Length: 4\r\n\r\n"
        self.tables["errors"].append(struct.pack("<II", 416, self.add_stream(416, head, b"416\n", patches)))

    def add_stream(self, status: int, head: bytes, body: bytes, patches: Patches) -> int:
        """A response as it will be sent, but for its patches."""
        stream = head + body
        first_frame = len(self.tables["frames"])
        for at in range(0, len(stream), self.segment_bytes):
            self.add_frame(stream[at : at + self.segment_bytes], patches if at == 0 else ())
        row = struct.pack(
            "<QIIIHH", len(stream), first_frame, len(head), len(self.tables["patches"]), status, len(patches)
        )
        self.tables["patches"] += [struct.pack("<HBB", *patch) for patch in patches]
        self.tables["responses"].append(row)
        self.streams.append(stream)
        return len(self.tables["responses"]) - 1

    def add_frame(self, payload: bytes, patches: Patches) -> None:
        still = bytearray(payload)
        for offset, size, _ in patches:
            still[offset : offset + size] = bytes(size)
        slot = len(self.tables["slots"])
        row = struct.pack(
            "<IHHHH", slot, self.copies, len(payload), ones_complement_sum(bytes(still)), int(patches != ())
        )
        self.tables["frames"].append(row)
        for _ in range(self.copies):
            self.tables["slots"].append((bytes(128) + payload).ljust(self.slot_bytes, b"\0"))

    def place(self, routes: list[Route]) -> None:
        """Fills the hash table, trying displacements one after the other."""
        table_len, bucket_count = 4, 1
        while table_len < 2 * len(routes):
            table_len *= 2
        while bucket_count < len(routes) // 2:
            bucket_count *= 2
        table: list[bytes | None] = [None] * table_len
        buckets: dict[int, list[tuple[int, Route]]] = {}
        for route in routes:
            value = int(lib.image_route_hash(*route.key, 7))
            buckets.setdefault((value >> 32) % bucket_count, []).append((value, route))
        displacements = [0] * bucket_count
        for bucket, members in sorted(buckets.items(), key=lambda item: -len(item[1])):
            while True:
                entries = [lib.image_route_entry(value, displacements[bucket], table_len) for value, _ in members]
                if len(set(entries)) == len(entries) and all(table[entry] is None for entry in entries):
                    break
                displacements[bucket] += 1
            for entry, (value, route) in zip(entries, members, strict=True):
                at = self.string(route.path)
                numbers = (at, len(route.path), route.first, route.count, route.options, route.site, route.prefix)
                table[entry] = struct.pack("<QIIIIIHH", value, *numbers)
        self.sections["routes"] = b"".join(row or bytes(32) for row in table)
        self.sections["buckets"] = struct.pack(f"<{bucket_count}I", *displacements)
        self.sections["strings"] = self.strings

    def expected(self, response: int, date: bytes, *, close: bool = False) -> bytes:
        """What the client must receive: the stream with Date and Connection set."""
        stream = bytearray(self.streams[response])
        stream[DATE_OFFSET : DATE_OFFSET + 29] = date
        stream[CONNECTION_OFFSET : CONNECTION_OFFSET + 10] = b"     close" if close else b"keep-alive"
        return bytes(stream)
