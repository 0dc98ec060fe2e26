"""Response templates: the answers of files that differ in size, entity tag and time alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ssimage.loader import ENCODING_NAMES

from ..manifest.model import Site
from ..sources.source import ETAG_DIGITS, NO_TIME, Content
from .fields import PathSettings, cors_fields
from .heads import (
    EPOCH,
    NO_ETAG,
    HeadBuilder,
    Response,
    date_is_patched,
    field_lines,
    http_date,
    response_head,
    server_field,
)
from .multipart import PARTS_MAX, Multipart, range_bytes

CONTENT_LENGTH, ETAG, LAST_MODIFIED = "Content-Length: ", "ETag: ", "Last-Modified: "
ENCODINGS = {name: number for number, name in ENCODING_NAMES.items()}
# What only comes with the content. A 304 has all other fields of the 200, RFC 9111 section 4.3.4: who has that stored
# takes them for those it had.
OF_CONTENT = frozenset(("content-disposition", "content-language", "digest", "repr-digest", "content-digest"))


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

    def complete(self) -> Variant:
        """Returns itself: its answers are there."""
        return self


class FileVariant(NamedTuple):
    """One encoding of a file, its answers not made yet: of many, C makes them together (image.bulk)."""

    template: ResponseTemplate
    content: Content
    last_modified_s: int

    @property
    def etag(self) -> bytes:
        """The entity tag as it is sent."""
        return self.content.etag.encode()

    @property
    def content_bytes(self) -> int:
        """The body's length."""
        return self.content.size_bytes

    @property
    def encoding(self) -> int:
        """The encoding's number in the image."""
        return int(self.template.encoding)

    def complete(self) -> Variant:
        """Makes its answers."""
        return self.template.variant(self.content, self.last_modified_s)


AnyVariant = Variant | FileVariant


class TemplateHead(NamedTuple):
    """GET's head with gaps, as struct file_build_head has them; a place of 0 is none."""

    status: int
    text: bytes
    patches: bytes
    etag_offset: int  # behind the quote
    last_modified_offset: int
    content_length_offset: int
    content_length_bytes: int


class SizedTemplate(NamedTuple):
    """The heads of files of a template whose sizes have as many digits, and what else they share."""

    full: TemplateHead
    not_modified: Response
    partial: Response
    part: Response
    copies: int
    encoding: int
    swap_offset: int
    swap_bytes: int


class Partial(NamedTuple):
    """The head of a 206.

    swap_offset, swap_bytes: what a multipart answer swaps, Content-Range and Content-Type.
    """

    response: Response
    swap_offset: int
    swap_bytes: int


class ResponseTemplate:
    """The answers of files that differ in size, entity tag and time alone.

    In a 304 and a 206 these are patched, so that files share them: a 304 all, a 206 those whose sizes have as many
    digits.
    """

    def __init__(
        self,
        site: Site,
        multipart: Multipart,
        media_type: str,
        coding: str | None,
        varies: bool,
        settings: PathSettings,
        own_coding: str | None = None,
    ) -> None:
        """coding: of the content; varies: there are variants in others; own_coding: that the file is in by itself."""
        server = server_field(site)
        self.multipart = multipart
        self.media_type = media_type
        self.copies = settings.copies
        self.encoding = ENCODINGS[coding or "identity"]
        self.content_type = [("Content-Type", media_type)]
        self.server = server
        sent = coding or own_coding
        self.coding = field_lines([("Content-Encoding", sent)] if sent else [])
        self.vary = [("Vary", "Accept-Encoding")] if varies else []
        self.site_fields = [("Accept-Ranges", "bytes"), *settings.all_fields]
        self.rest = field_lines([*self.vary, *self.site_fields]) + "\r\n"
        without_content = [item for item in settings.fields if item[0].lower() not in OF_CONTENT]
        self.not_modified_fields = without_content + cors_fields(settings.cors)
        full = response_head(200)
        self.patches = bytes(full.patches)
        self.full = full.text + field_lines([*server, *self.content_type])
        self.not_modified: dict[str | None, Response] = {}  # by Last-Modified; None: it is patched
        self.partials: dict[tuple[int, int, str | None], Partial] = {}
        self.sized: dict[tuple[int, int], SizedTemplate] = {}
        self.by_size: dict[int, SizedTemplate] = {}

    @staticmethod
    def _add_validators(head: HeadBuilder, date: str | None) -> None:
        """date: Last-Modified; empty: none; None: it is patched."""
        head.patch("ETag", NO_ETAG)
        if date is None:
            head.patch("Last-Modified", EPOCH)
        elif date:
            head.add([("Last-Modified", date)])

    def _not_modified(self, date: str | None) -> Response:
        head = response_head(304)
        self._add_validators(head, date)
        head.add([*self.server, *self.vary, *self.not_modified_fields])
        return head.response(304)

    def _partial(self, length_bytes: int, digits: int, date: str | None) -> Partial:
        """length_bytes: width of Content-Length; digits: of the file's size."""
        head = response_head(206)
        head.patch("Content-Length", "0".rjust(length_bytes))
        self._add_validators(head, date)
        swap = len(head.text)
        head.patch("Content-Range", "bytes 0-0/1".rjust(range_bytes(digits)))
        head.add(self.content_type)
        swap_bytes = len(head.text) - swap
        head.add(self.server)
        head.text += self.coding
        head.add([*self.vary, *self.site_fields])
        return Partial(head.response(206), swap, swap_bytes)

    def _digits(self, size_bytes: int, part: Response) -> tuple[int, int]:
        """Counts the digits of the longest multipart answer, and of the file's size. part: of a body of that size."""
        multipart_bytes = PARTS_MAX * part.stream_bytes + self.multipart.end.stream_bytes
        return len(str(size_bytes + multipart_bytes)), len(str(size_bytes))

    def not_modified_for(self, date: str | None) -> Response:
        """The 304. date: Last-Modified; None: it is patched."""
        if date not in self.not_modified:
            self.not_modified[date] = self._not_modified(date)
        return self.not_modified[date]

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
        part = self.multipart.part(self.media_type, size)
        partial = self.partial_for(self._digits(size, part), still)
        return Variant(
            get=Response(200, full.encode("latin-1"), content, self.copies, self.patches),
            not_modified=self.not_modified_for(still),
            partial=partial.response,
            part=part,
            swap_offset=partial.swap_offset,
            swap_bytes=partial.swap_bytes,
            etag=etag.encode(),
            encoding=self.encoding,
            last_modified_s=mtime_s,
            content_bytes=size,
        )

    def sized_for(self, size_bytes: int) -> SizedTemplate:
        """What `variant` gives for files of that size but for what differs from file to file."""
        known = self.by_size.get(size_bytes)
        if known is None:
            digits = self._digits(size_bytes, self.multipart.part(self.media_type, size_bytes))
            if digits not in self.sized:
                self.sized[digits] = self._sized(size_bytes)
            known = self.by_size[size_bytes] = self.sized[digits]
        return known

    def _sized(self, size_bytes: int) -> SizedTemplate:
        like = self.variant(Content("", size_bytes, ""), 0)
        assert like.not_modified is not None
        assert like.partial is not None
        assert like.part is not None
        return SizedTemplate(
            full=self._head(like.get.head, len(str(size_bytes))),
            not_modified=like.not_modified,
            partial=like.partial,
            part=like.part,
            copies=self.copies,
            encoding=self.encoding,
            swap_offset=like.swap_offset,
            swap_bytes=like.swap_bytes,
        )

    def _head(self, like: bytes, length_bytes: int) -> TemplateHead:
        """like: GET's head with an empty tag. length_bytes: of Content-Length."""
        # From its end, where heads of the template are alike.
        date_at = len(like) - len(self.rest) - len("\r\n") - len(EPOCH)
        etag_at = date_at - len(LAST_MODIFIED) - len('"\r\n')
        head = like[:etag_at] + bytes(ETAG_DIGITS) + like[etag_at:]
        length_at = len(self.full) + len(CONTENT_LENGTH)
        return TemplateHead(200, head, self.patches, etag_at, date_at + ETAG_DIGITS, length_at, length_bytes)
