"""Heads: every answer that the runtime can pick, with its header fields."""

from __future__ import annotations

import functools
import hashlib
import html
import os
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple

from ssimage._sandstorm import lib
from ssimage.loader import ENCODING_NAMES

from ..errors import SsccError
from ..manifest.model import Block, Cors, Rule, Site
from ..manifest.patterns import Key
from ..sources.charsets import DECLARED, HEAD_BYTES, traits
from ..sources.source import ETAG_DIGITS, NO_TIME, Content, Source, coding_of, matches, type_of, typed
from . import patches
from .routing import Entry, File, Fixed, Moved, Table

Headers = dict[str, str | None]

CONTENT_LENGTH, ETAG, LAST_MODIFIED = "Content-Length: ", "ETag: ", "Last-Modified: "
EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"  # stands where Date will be, and Last-Modified where it is patched
NO_ETAG = f'"{"0" * ETAG_DIGITS}"'  # stands where ETag will be where it is patched
LAST_MODIFIED_MAX_S = int(lib.SSI_LAST_MODIFIED_MAX_S)
KEEP_ALIVE = "keep-alive"
ENCODINGS = {name: number for number, name in ENCODING_NAMES.items()}
# Of a redirect that a path is put into: half of COMPOSED_BYTES, runtime/csrc/libtcpip/composed.h.
MOVED_BYTES_MAX = 2048
ERROR_STATUSES = (400, 404, 405, 406, 408, 412, 414, 416, 417, 421, 431, 501, 503, 505)
ALLOW = ("Allow", "GET, HEAD, OPTIONS")
# Digits of the sizes that part headers have room for: in steps, so that most files of a type share one.
PART_DIGITS = (6, 9, 12, 20)
PARTS_MAX = int(lib.SSI_RANGES_MAX)
BOUNDARY_DIGITS = 32
# Not the locale's, which strftime would write.
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DATES_MAX = 4096  # that are kept
PHRASES = {414: "URI Too Long", 416: "Range Not Satisfiable"}


class Response(NamedTuple):
    """Head and body, before they are cut into frames."""

    status: int
    head: bytes
    body: Content | bytes | None = None
    copies: int = 1
    patches: bytes = b""  # rows of patches.row, in order

    @property
    def body_bytes(self) -> int:
        """Length of the body."""
        body = self.body
        if body is None:
            return 0
        return body.size_bytes if isinstance(body, Content) else len(body)

    @property
    def stream_bytes(self) -> int:
        """Length of head and body."""
        return len(self.head) if self.body is None else len(self.head) + self.body_bytes

    def key(self) -> tuple[bytes, str, int]:
        """Equal for responses whose frames can be shared."""
        _, head, body, copies, _ = self
        if body is None:
            return head, "", copies
        return head, body.sha256 if isinstance(body, Content) else body.hex(), copies


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

    def part(self, kind: str, size_bytes: int) -> Response:
        """What stands in front of a part of a body of that media type and size."""
        digits = next(each for each in PART_DIGITS if each >= len(str(size_bytes)))
        if (kind, digits) not in self._parts:
            head = _Head(f"\r\n--{self.boundary}\r\nContent-Type: {kind}\r\n")
            head.patch("Content-Range", "bytes 0-0/1".rjust(_range_bytes(digits)))
            self._parts[kind, digits] = head.response(206)
        return self._parts[kind, digits]


@dataclass(slots=True)
class Variant:
    """One encoding of a route and its answers, ready."""

    get: Response  # HEAD is answered with its head
    not_modified: Response | None
    partial: Response | None = None
    part: Response | None = None
    swap_offset: int = 0  # of Content-Range and Content-Type in partial; of a redirect, where a query goes
    swap_bytes: int = 0  # likewise; of a redirect, where a path goes
    etag: bytes = b""
    encoding: int = 0
    last_modified_s: int = -1
    content_bytes: int = 0

    def made(self) -> Variant:
        """This."""
        return self


class FileVariant(NamedTuple):
    """One encoding of a file, its answers not made yet: of many, C makes them together (framing.Framer.add_files)."""

    mould: Mould
    content: Content
    last_modified_s: int

    @property
    def etag(self) -> bytes:
        """As sent."""
        return self.content.etag.encode()

    @property
    def content_bytes(self) -> int:
        """Of the body."""
        return self.content.size_bytes

    @property
    def encoding(self) -> int:
        """By its number in the image."""
        return int(self.mould.encoding)

    def made(self) -> Variant:
        """With its answers."""
        return self.mould.variant(self.content, self.last_modified_s)


AnyVariant = Variant | FileVariant


class Blank(NamedTuple):
    """GET's head with gaps, as struct file_build_head has them; a place of 0 is none."""

    status: int
    text: bytes
    patches: bytes
    etag_offset: int  # behind the quote
    last_modified_offset: int
    content_length_offset: int
    content_length_bytes: int


class Blanks(NamedTuple):
    """The heads of files of a mould whose sizes have as many digits, and what else they share."""

    full: Blank
    not_modified: Response
    partial: Response
    part: Response
    copies: int
    encoding: int
    swap_offset: int
    swap_bytes: int


@dataclass(slots=True)
class Route:
    """A path and its variants, best first."""

    path: bytes
    variants: list[AnyVariant] = field(default_factory=list)
    site: int = 0
    prefix: bool = False
    options: Response | None = None
    hot: bool = False
    alias: bool = False  # a file under another path than its own
    requests: int = 0  # that a profile has counted


@dataclass
class ErrorPage:
    """A site's answer for a status."""

    site: int
    status: int
    get: Response


def _phrase(status: int) -> str:
    """RFC 9110's; older Pythons have some of RFC 7231, and an image must not depend on that."""
    return PHRASES.get(status) or HTTPStatus(status).phrase


@functools.lru_cache(maxsize=DATES_MAX)
def http_date(seconds: int) -> str:
    """IMF-fixdate, RFC 9110 section 5.6.7. Kept, as files have often been written within the same seconds."""
    at = time.gmtime(seconds)
    day, month = DAYS[at.tm_wday], MONTHS[at.tm_mon - 1]
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year:04} {clock} GMT"


def _range_bytes(digits: int) -> int:
    """Width of a Content-Range whose numbers have so many digits: "bytes 0-0/1"."""
    return len("bytes -/") + 3 * digits


def _text(fields: list[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields)


class _Head:
    """A head in the making. Fields that are patched begin at even offsets, so that their sums need no swap."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.patches = bytearray()  # their rows

    def patch(self, name: str, value: str) -> None:
        """Adds a field that is patched, value as wide as it will ever be: blanks in front, which readers skip."""
        # An optional space in front of a value (RFC 9110 section 5.5) moves it to an even offset.
        self.text += f"{name}: " if (len(self.text) + len(name) + 2) % 2 == 0 else f"{name}:  "
        self.patches += patches.row(patches.Patch(name, len(self.text), len(value)))
        self.text += value + "\r\n"

    def add(self, fields: list[tuple[str, str]]) -> None:
        """Adds fields that stay."""
        self.text += _text(fields)

    def response(self, status: int, body: Content | bytes | None = None, copies: int = 1) -> Response:
        """The whole, with the empty line."""
        return Response(status, (self.text + "\r\n").encode("latin-1"), body, copies, bytes(self.patches))


def _begin(status: int) -> _Head:
    """Status line, Date and Connection: what is patched comes first, so that it is in the first frame."""
    head = _Head(f"HTTP/1.1 {status} {_phrase(status)}\r\n")
    head.patch("Date", EPOCH)
    head.patch("Connection", KEEP_ALIVE)
    return head


def _server(site: Site) -> list[tuple[str, str]]:
    return [("Server", "Sandstorm")] if site.server else []


def _response(
    site: Site,
    status: int,
    fields: list[tuple[str, str]],
    body: Content | bytes | None = None,
    copies: int = 1,
) -> Response:
    head = _begin(status)
    head.add([*_server(site), *fields])
    return head.response(status, body, copies)


@dataclass(eq=False)
class Custom:
    """What a manifest says of a path's answers."""

    fields: list[tuple[str, str]]
    cors: Cors | None
    copies: int
    hot: bool

    @functools.cached_property
    def key(self) -> tuple[Any, ...]:
        """Equal where the answers of a file are."""
        return tuple(self.fields), self.cors and self.cors.model_dump_json(), self.copies

    @property
    def all_fields(self) -> list[tuple[str, str]]:
        """Those of CORS among them."""
        return [*self.fields, *_cors_fields(self.cors)]


def _cors_fields(cors: Cors | None) -> list[tuple[str, str]]:
    if cors is None:
        return []
    made = [("Access-Control-Allow-Origin", cors.origin)]
    if cors.credentials:
        made.append(("Access-Control-Allow-Credentials", "true"))
    if cors.expose:
        made.append(("Access-Control-Expose-Headers", ", ".join(cors.expose)))
    return made


COOKIES = "\n"  # between values of Set-Cookie, each of which has a line of its own (RFC 6265 section 3)


class _Fields:
    """Header fields by their names in any case; the later wins."""

    def __init__(self) -> None:
        self.by_name: dict[str, tuple[str, str]] = {}

    def join(self, blocks: list[Block]) -> None:
        """What blocks of one path say, in their order: values of a name are one list (RFC 9110 section 5.2)."""
        said: dict[str, list[str]] = {}
        for block in {block.place: block for block in blocks}.values():
            for name in block.taken_away:
                said.pop(name.lower(), None)
                self.by_name.pop(name.lower(), None)
            for name, value in block.fields:
                self.by_name[name.lower()] = (name, "")
                said.setdefault(name.lower(), []).append(value)
        for key, values in said.items():
            self.by_name[key] = (self.by_name[key][0], (COOKIES if key == "set-cookie" else ", ").join(values))

    def update(self, headers: Headers, cache: str | None = None) -> None:
        """cache: Cache-Control, unless headers have it."""
        said: dict[str, str | None] = {} if cache is None else {"Cache-Control": cache}
        for name, value in [*said.items(), *headers.items()]:
            if value is None:
                self.by_name.pop(name.lower(), None)
            else:
                self.by_name[name.lower()] = (name, value)

    def sorted(self) -> list[tuple[str, str]]:
        fields = [self.by_name[name] for name in sorted(self.by_name)]
        return [(name, each) for name, value in fields for each in value.split(COOKIES)]


def _custom(site: Site, rules: list[Rule], more: Headers) -> Custom:
    """What a site says of an answer. rules: those for its path; more: fields of this one."""
    fields = _Fields()
    fields.update(site.headers, site.cache)
    fields.join([rule for rule in rules if isinstance(rule, Block)])  # imports go before the site's own
    made = Custom([], site.cors, site.copies, False)
    for rule in rules:
        fields.update(rule.headers, rule.cache)
        made.cors = rule.cors or made.cors
        made.copies = rule.copies or made.copies
        made.hot = made.hot or rule.hot
    fields.update(more)
    made.fields = fields.sorted()
    return made


# What only comes with the content. A 304 has all other fields of the 200, RFC 9111 section 4.3.4: who has that stored
# takes them for those it had.
OF_CONTENT = frozenset(("content-disposition", "content-language", "digest", "repr-digest", "content-digest"))
# What is of no error: how long to keep a page, and what goes with it.
OF_PAGES = OF_CONTENT | {"cache-control", "expires", "content-location", "link", "refresh", "set-cookie"}
EVERYWHERE = ("**", "/**")  # what a rule for all paths is for


class Partial(NamedTuple):
    """The head of a 206.

    swap_offset, swap_bytes: what a multipart answer swaps, Content-Range and Content-Type.
    """

    response: Response
    swap_offset: int
    swap_bytes: int


def date_is_patched(seconds: int) -> bool:
    """Is Last-Modified as wide as all that move?"""
    return 0 <= seconds <= LAST_MODIFIED_MAX_S


class Mould:
    """The answers of files that differ in size, entity tag and time alone.

    Of a 304 and a 206 these move, so that files share them: a 304 all, a 206 those whose sizes have as many digits.
    """

    def __init__(
        self,
        site: Site,
        multipart: Multipart,
        kind: str,
        coding: str | None,
        varies: bool,
        said: Custom,
        own: str | None = None,
    ) -> None:
        """coding: of the content; varies: there are variants in others; own: coding that the file is in by itself."""
        server = _server(site)
        self.multipart = multipart
        self.kind = kind
        self.copies = said.copies
        self.encoding = ENCODINGS[coding or "identity"]
        self.content_type = [("Content-Type", kind)]
        self.server = server
        sent = coding or own
        self.coding = _text([("Content-Encoding", sent)] if sent else [])
        self.vary = [("Vary", "Accept-Encoding")] if varies else []
        self.said = [("Accept-Ranges", "bytes"), *said.all_fields]
        self.rest = _text([*self.vary, *self.said]) + "\r\n"
        self.kept = [item for item in said.fields if item[0].lower() not in OF_CONTENT] + _cors_fields(said.cors)
        full = _begin(200)
        self.patches = bytes(full.patches)
        self.full = full.text + _text([*server, *self.content_type])
        self.shorts: dict[str | None, Response] = {}  # by Last-Modified; None: it is patched
        self.partials: dict[tuple[int, int, str | None], Partial] = {}
        self.blanks: dict[tuple[int, int], Blanks] = {}
        self.by_size: dict[int, Blanks] = {}

    @staticmethod
    def _add_validators(head: _Head, date: str | None) -> None:
        """date: Last-Modified; empty: none; None: it is patched."""
        head.patch("ETag", NO_ETAG)
        if date is None:
            head.patch("Last-Modified", EPOCH)
        elif date:
            head.add([("Last-Modified", date)])

    def _short(self, date: str | None) -> Response:
        head = _begin(304)
        self._add_validators(head, date)
        head.add([*self.server, *self.vary, *self.kept])
        return head.response(304)

    def _partial(self, length_bytes: int, digits: int, date: str | None) -> Partial:
        """length_bytes: width of Content-Length; digits: of the file's size."""
        head = _begin(206)
        head.patch("Content-Length", "0".rjust(length_bytes))
        self._add_validators(head, date)
        swap = len(head.text)
        head.patch("Content-Range", "bytes 0-0/1".rjust(_range_bytes(digits)))
        head.add(self.content_type)
        swap_bytes = len(head.text) - swap
        head.add(self.server)
        head.text += self.coding
        head.add([*self.vary, *self.said])
        return Partial(head.response(206), swap, swap_bytes)

    def _digits(self, size_bytes: int, part: Response) -> tuple[int, int]:
        """Of the most that a multipart answer can have, and of the file's size. part: of a body of that size."""
        multipart_bytes = PARTS_MAX * part.stream_bytes + self.multipart.end.stream_bytes
        return len(str(size_bytes + multipart_bytes)), len(str(size_bytes))

    def short_for(self, date: str | None) -> Response:
        """The 304. date: Last-Modified; None: it is patched."""
        if date not in self.shorts:
            self.shorts[date] = self._short(date)
        return self.shorts[date]

    def partial_for(self, digits: tuple[int, int], date: str | None) -> Partial:
        """The 206 of files whose sizes have so many."""
        key = (*digits, date)
        if key not in self.partials:
            self.partials[key] = self._partial(*key)
        return self.partials[key]

    def variant(self, content: Content, mtime_s: int) -> Variant:
        """A file's answers."""
        size, etag, date = content.size_bytes, content.etag, http_date(mtime_s) if mtime_s != NO_TIME else ""
        full = f"{self.full}{CONTENT_LENGTH}{size}\r\n{self.coding}{ETAG}{etag}\r\n"
        full += (f"{LAST_MODIFIED}{date}\r\n" if date else "") + self.rest
        still = None if date_is_patched(mtime_s) else date
        part = self.multipart.part(self.kind, size)
        partial = self.partial_for(self._digits(size, part), still)
        return Variant(
            get=Response(200, full.encode("latin-1"), content, self.copies, self.patches),
            not_modified=self.short_for(still),
            partial=partial.response,
            part=part,
            swap_offset=partial.swap_offset,
            swap_bytes=partial.swap_bytes,
            etag=etag.encode(),
            encoding=self.encoding,
            last_modified_s=mtime_s,
            content_bytes=size,
        )

    def blanks_for(self, size_bytes: int) -> Blanks:
        """What `variant` gives for files of that size but for what differs from file to file."""
        known = self.by_size.get(size_bytes)
        if known is None:
            digits = self._digits(size_bytes, self.multipart.part(self.kind, size_bytes))
            if digits not in self.blanks:
                self.blanks[digits] = self._blanks(size_bytes)
            known = self.by_size[size_bytes] = self.blanks[digits]
        return known

    def _blanks(self, size_bytes: int) -> Blanks:
        like = self.variant(Content("", size_bytes, ""), 0)
        assert like.not_modified is not None
        assert like.partial is not None
        assert like.part is not None
        return Blanks(
            full=self._blank(like.get.head, len(str(size_bytes))),
            not_modified=like.not_modified,
            partial=like.partial,
            part=like.part,
            copies=self.copies,
            encoding=self.encoding,
            swap_offset=like.swap_offset,
            swap_bytes=like.swap_bytes,
        )

    def _blank(self, like: bytes, length_bytes: int) -> Blank:
        """like: GET's head with an empty tag. length_bytes: of Content-Length."""
        # From its end, where heads of the mould are alike.
        date_at = len(like) - len(self.rest) - len("\r\n") - len(EPOCH)
        etag_at = date_at - len(LAST_MODIFIED) - len('"\r\n')
        head = like[:etag_at] + bytes(ETAG_DIGITS) + like[etag_at:]
        length_at = len(self.full) + len(CONTENT_LENGTH)
        return Blank(200, head, self.patches, etag_at, date_at + ETAG_DIGITS, length_at, length_bytes)


def _places(head: bytes, entry: Moved) -> tuple[int, int]:
    """Where in a redirect's head the request's query goes, and the path behind a tree's.

    0: nowhere, as the location has a query of its own, or no splat.
    """
    target, _, _ = entry.location.partition("#")
    field = b"\r\nLocation: "
    start = head.index(field) + len(field)
    return 0 if "?" in target else start + len(target), start + entry.splat_offset if entry.splat_offset else 0


class Maker:
    """Makes the answers of one site."""

    def __init__(self, site: Site, sources: list[Source], multipart: Multipart) -> None:
        """sources: with their contents."""
        self.site = site
        self.multipart = multipart
        self.sources = {source.route: source for source in sources}
        self.made: dict[tuple[Any, ...], list[AnyVariant]] = {}
        self.said: dict[tuple[Any, ...], Custom] = {}
        self.moulds: dict[tuple[Any, ...], Mould] = {}
        self.kinds: dict[tuple[bytes, int], str] = {}  # by what is behind the last dot, and it, and traits
        self.rules_have_kinds = any(rule.mime is not None for rule in site.rules)
        self.plain = None if site.rules else self._custom(set(), {})  # of all paths

    def _custom(self, paths: set[bytes], more: Headers) -> Custom:
        """What the site says of an answer by its path, and by that of the file that it is. Most have the same."""
        rules = self.site.rules
        texts = [os.fsdecode(path) for path in paths] if rules else []
        mine = [number for number, rule in enumerate(rules) if any(matches(text, rule.match) for text in texts)]
        key = (*mine, *more.items())
        if key not in self.said:
            self.said[key] = _custom(self.site, [rules[number] for number in mine], more)
        return self.said[key]

    def _kind(self, source: Source) -> str:
        """type_of, the same for all files of an extension and traits where neither they nor a rule say otherwise."""
        route = source.route
        dot = route.rfind(b".")
        seen = source.traits
        # A name that begins with dots has no extension, and quicker than to tell is to go without.
        is_odd = source.kind is not None or seen & DECLARED or dot < 1 or route[dot - 1] in b"/."
        if is_odd or self.rules_have_kinds:
            return type_of(self.site, source)
        known = self.kinds.get((route[dot:], seen))
        if known is None:
            known = self.kinds[route[dot:], seen] = type_of(self.site, source)
        return known

    def _variant(self, source: Source, content: Content, coding: str | None, said: Custom) -> FileVariant:
        """All answers of one encoding."""
        own = coding_of(source) if coding is None else None
        key = self._kind(source), coding, bool(source.variants), said, own
        mould = self.moulds.get(key)
        if mould is None:
            mould = self.moulds[key] = Mould(self.site, self.multipart, *key)
        return FileVariant(mould, content, source.mtime_s)

    def _file(self, source: Source, said: Custom) -> list[AnyVariant]:
        """A file's variants, the smallest first; the same for all paths that get the same fields."""
        key = (source.route, said.key)
        made = self.made.get(key)
        if made is None:
            assert source.content is not None
            contents: list[tuple[str | None, Content]] = [(None, source.content)]
            if source.variants:
                contents += source.variants.items()
                contents.sort(key=lambda item: (item[1].size_bytes, item[0] or ""))
            made = self.made[key] = [self._variant(source, each, coding, said) for coding, each in contents]
        return made

    def _moved(self, entry: Moved, said: Custom) -> Variant:
        target = html.escape(entry.location)
        # Where a path is handed on, only Location can say where to.
        text = "It is at another address." if entry.splat_offset else f'It is at <a href="{target}">{target}</a>.'
        body = _page("Moved", text)
        fields = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Location", entry.location),
            *said.all_fields,
        ]
        get = _response(self.site, entry.status, fields, body)
        query, path = _places(get.head, entry)
        if path and get.stream_bytes > MOVED_BYTES_MAX:
            over = get.stream_bytes - MOVED_BYTES_MAX
            text = f"header fields leave no room for paths in redirects; take {over} bytes of them away"
            raise SsccError(self.site.problem(text, "redirects"))
        return Variant(get, None, swap_offset=query, swap_bytes=path, content_bytes=len(body))

    def _fixed(self, entry: Fixed, said: Custom) -> Variant:
        body: Content | bytes | None = None
        kind, own = entry.kind, None
        if isinstance(entry.body, File):
            source = self.sources[entry.body.route]
            body, kind = source.content, type_of(self.site, source)
            own = coding_of(source)
        elif entry.body is not None:
            body = entry.body
        fields = [*([("Content-Encoding", own)] if own else []), *said.all_fields]
        size_bytes = body.size_bytes if isinstance(body, Content) else len(body or b"")
        if body is not None:  # a 204 has no Content-Length, RFC 9110 section 8.6
            fields = [("Content-Type", kind or "text/plain"), ("Content-Length", str(size_bytes)), *fields]
        get = _response(self.site, entry.status, fields, body or None, said.copies)
        return Variant(get, None, content_bytes=size_bytes)

    def _options(self, cors: Cors | None) -> Response | None:
        """What a browser asks before it asks, https://fetch.spec.whatwg.org/#http-cors-protocol."""
        if cors is None:
            return None
        fields = [
            ALLOW,
            *_cors_fields(cors.model_copy(update={"expose": []})),
            ("Access-Control-Allow-Methods", "GET, HEAD"),
            ("Access-Control-Allow-Headers", ", ".join(cors.headers)),
            ("Access-Control-Max-Age", str(cors.max_age_s)),
        ]
        return _response(self.site, 204, fields)

    def _file_route(self, number: int, key: Key, route: bytes) -> Route:
        """A path that a file answers for. route: the file's."""
        path = key.path
        said = self.plain or self._custom({path, route}, {})
        variants = self._file(self.sources[route], said)
        return Route(path, variants, number, key.prefix, self._options(said.cors), said.hot, route != path)

    def route(self, number: int, key: Key, entry: Entry) -> Route:
        """A path's answers. number: of its site."""
        if isinstance(entry, File):
            return self._file_route(number, key, entry.route)
        said = self._custom({key.path}, entry.headers if isinstance(entry, Fixed) else {})
        made = self._moved(entry, said) if isinstance(entry, Moved) else self._fixed(entry, said)
        return Route(key.path, [made], number, key.prefix, self._options(said.cors), said.hot)


def _page(title: str, text: str) -> bytes:
    return (
        f"<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<title>{title}</title>\n"
        f"<h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
    ).encode()


ERROR_FIELDS = {
    405: [ALLOW],
    406: [("Vary", "Accept-Encoding")],
}
ERROR_TEXTS = {
    400: "The request is not well-formed HTTP.",
    404: "There is nothing here under this address.",
    405: "Only GET and HEAD are answered here.",
    406: "There is no variant of this file in an encoding that would be accepted.",
    408: "The request took too long to arrive.",
    412: "The file is not the one that the request is about.",
    414: "The address is too long.",
    416: "The ranges that were asked for are not in this file.",
    417: "The request expects what is not done here.",
    421: "The request is for another server.",
    431: "The request has too many header fields.",
    501: "The request's method is not known.",
    503: "Not available at the moment.",
    505: "This version of HTTP is not spoken here.",
}


def multipart(sources: list[Source]) -> Multipart:
    """The boundary follows from the contents, so no content can hold it but by breaking SHA-256."""
    digests = {source.content.sha256 for source in sources if source.content is not None}
    digests |= {content.sha256 for source in sources if source.variants for content in source.variants.values()}
    return Multipart(hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:BOUNDARY_DIGITS])


def routes(number: int, maker: Maker, table: Table) -> list[Route]:
    """All routes of a site, sorted. number: the site's."""
    return [maker.route(number, key, table[key]) for key in sorted(table)]


def error_pages(number: int, site: Site, pages: dict[int, bytes]) -> list[ErrorPage]:
    """The answers that no route decides, and OPTIONS'. pages: bodies that the manifest gives."""
    everywhere = _custom(site, [rule for rule in site.rules if rule.match in EVERYWHERE], {})
    fields = [item for item in everywhere.fields if item[0].lower() not in OF_PAGES]
    options = _response(site, 204, [ALLOW])  # no Content-Length, RFC 9110 section 8.6
    made = [ErrorPage(number, 204, options)]
    for status in ERROR_STATUSES:
        body = pages.get(status) or _page(f"{status} {_phrase(status)}", ERROR_TEXTS[status])
        head = _begin(status)
        if status == 416:
            head.patch("Content-Range", "bytes */0".rjust(len("bytes */") + PART_DIGITS[-1]))
        kind = typed("text/html", traits(body), body[:HEAD_BYTES])
        head.add([*_server(site), ("Content-Type", kind)])
        head.add([("Content-Length", str(len(body)))])
        own = ERROR_FIELDS.get(status, [])
        head.add(own)
        if status != HTTPStatus.MISDIRECTED_REQUEST:  # whose host is none of the site's
            head.add([item for item in fields if item[0].lower() not in [name.lower() for name, _ in own]])
        head.add(_cors_fields(everywhere.cors))
        made.append(ErrorPage(number, status, head.response(status, body)))
    return made
