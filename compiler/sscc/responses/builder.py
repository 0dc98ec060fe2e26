"""Every response that the runtime can pick for a path, and the paths' routes."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass, field
from typing import Any

from ..errors import SsccError
from ..manifest.model import Cors, Site
from ..manifest.patterns import Key
from ..sources.charsets import DECLARED
from ..sources.source import Content, Source, coding_of, matches, type_of
from .fields import PathSettings, cors_fields, path_settings
from .heads import ALLOW, Headers, Response, html_page, simple_response
from .multipart import Multipart
from .routing import Entry, File, Fixed, Moved, Table
from .templates import AnyVariant, FileVariant, ResponseTemplate, Variant

# Of a redirect that a path is put into: half of COMPOSED_BYTES, runtime/csrc/libtcpip/composed.h.
MOVED_BYTES_MAX = 2048


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


def _places(head: bytes, entry: Moved) -> tuple[int, int]:
    """Where in a redirect's head the request's query goes, and the path behind a tree's.

    0: nowhere, as the location has a query of its own, or no splat.
    """
    target, _, _ = entry.location.partition("#")
    field = b"\r\nLocation: "
    start = head.index(field) + len(field)
    return 0 if "?" in target else start + len(target), start + entry.splat_offset if entry.splat_offset else 0


class ResponseBuilder:
    """Builds the responses of one site."""

    def __init__(self, site: Site, sources: list[Source], multipart: Multipart) -> None:
        """sources: with their contents."""
        self.site = site
        self.multipart = multipart
        self.sources = {source.route: source for source in sources}
        self.file_variants: dict[tuple[Any, ...], list[AnyVariant]] = {}
        self.settings: dict[tuple[Any, ...], PathSettings] = {}
        self.templates: dict[tuple[Any, ...], ResponseTemplate] = {}
        self.media_types: dict[tuple[bytes, int], str] = {}  # by what is behind the last dot, and it, and traits
        self.rules_have_media_types = any(rule.mime is not None for rule in site.rules)
        self.plain = None if site.rules else self._settings(set(), {})  # of all paths

    def _settings(self, paths: set[bytes], more: Headers) -> PathSettings:
        """What the site says of an answer by its path, and by that of the file that it is. Most have the same."""
        rules = self.site.rules
        texts = [os.fsdecode(path) for path in paths] if rules else []
        numbers = [number for number, rule in enumerate(rules) if any(matches(text, rule.match) for text in texts)]
        key = (*numbers, *more.items())
        if key not in self.settings:
            self.settings[key] = path_settings(self.site, [rules[number] for number in numbers], more)
        return self.settings[key]

    def _media_type(self, source: Source) -> str:
        """type_of, the same for all files of an extension and traits where neither they nor a rule say otherwise."""
        route = source.route
        dot = route.rfind(b".")
        seen = source.traits
        # A name that begins with dots has no extension, and quicker than to tell is to go without.
        is_odd = source.media_type is not None or seen & DECLARED or dot < 1 or route[dot - 1] in b"/."
        if is_odd or self.rules_have_media_types:
            return type_of(self.site, source)
        known = self.media_types.get((route[dot:], seen))
        if known is None:
            known = self.media_types[route[dot:], seen] = type_of(self.site, source)
        return known

    def _variant(self, source: Source, content: Content, coding: str | None, settings: PathSettings) -> FileVariant:
        """Makes the variant of one encoding."""
        own_coding = coding_of(source) if coding is None else None
        key = self._media_type(source), coding, bool(source.variants), settings, own_coding
        template = self.templates.get(key)
        if template is None:
            template = self.templates[key] = ResponseTemplate(self.site, self.multipart, *key)
        return FileVariant(template, content, source.mtime_s)

    def _file(self, source: Source, settings: PathSettings) -> list[AnyVariant]:
        """A file's variants, the smallest first; the same for all paths that get the same fields."""
        key = (source.route, settings.key)
        variants = self.file_variants.get(key)
        if variants is None:
            assert source.content is not None
            contents: list[tuple[str | None, Content]] = [(None, source.content)]
            if source.variants:
                contents += source.variants.items()
                contents.sort(key=lambda item: (item[1].size_bytes, item[0] or ""))
            variants = self.file_variants[key] = [
                self._variant(source, content, coding, settings) for coding, content in contents
            ]
        return variants

    def _moved(self, entry: Moved, settings: PathSettings) -> Variant:
        target = html.escape(entry.location)
        # Where a path is handed on, only Location can say where to.
        text = "It is at another address." if entry.splat_offset else f'It is at <a href="{target}">{target}</a>.'
        body = html_page("Moved", text)
        fields = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Location", entry.location),
            *settings.all_fields,
        ]
        get = simple_response(self.site, entry.status, fields, body)
        query, path = _places(get.head, entry)
        if path and get.stream_bytes > MOVED_BYTES_MAX:
            over = get.stream_bytes - MOVED_BYTES_MAX
            text = f"header fields leave no room for paths in redirects; take {over} bytes of them away"
            raise SsccError(self.site.problem(text, "redirects"))
        return Variant(get, None, swap_offset=query, swap_bytes=path, content_bytes=len(body))

    def _fixed(self, entry: Fixed, settings: PathSettings) -> Variant:
        body: Content | bytes | None = None
        media_type, own_coding = entry.media_type, None
        if isinstance(entry.body, File):
            source = self.sources[entry.body.route]
            body, media_type = source.content, type_of(self.site, source)
            own_coding = coding_of(source)
        elif entry.body is not None:
            body = entry.body
        fields = [*([("Content-Encoding", own_coding)] if own_coding else []), *settings.all_fields]
        size_bytes = body.size_bytes if isinstance(body, Content) else len(body or b"")
        if body is not None:  # a 204 has no Content-Length, RFC 9110 section 8.6
            fields = [("Content-Type", media_type or "text/plain"), ("Content-Length", str(size_bytes)), *fields]
        get = simple_response(self.site, entry.status, fields, body or None, settings.copies)
        return Variant(get, None, content_bytes=size_bytes)

    def _options(self, cors: Cors | None) -> Response | None:
        """What a browser asks before it asks, https://fetch.spec.whatwg.org/#http-cors-protocol."""
        if cors is None:
            return None
        fields = [
            ALLOW,
            *cors_fields(cors.model_copy(update={"expose": []})),
            ("Access-Control-Allow-Methods", "GET, HEAD"),
            ("Access-Control-Allow-Headers", ", ".join(cors.headers)),
            ("Access-Control-Max-Age", str(cors.max_age_s)),
        ]
        return simple_response(self.site, 204, fields)

    def _file_route(self, number: int, key: Key, route: bytes) -> Route:
        """A path that a file answers for. route: the file's."""
        path = key.path
        settings = self.plain or self._settings({path, route}, {})
        variants = self._file(self.sources[route], settings)
        return Route(path, variants, number, key.prefix, self._options(settings.cors), settings.hot, route != path)

    def route(self, number: int, key: Key, entry: Entry) -> Route:
        """A path's answers. number: of its site."""
        if isinstance(entry, File):
            return self._file_route(number, key, entry.route)
        settings = self._settings({key.path}, entry.headers if isinstance(entry, Fixed) else {})
        variant = self._moved(entry, settings) if isinstance(entry, Moved) else self._fixed(entry, settings)
        return Route(key.path, [variant], number, key.prefix, self._options(settings.cors), settings.hot)


def routes_of(number: int, builder: ResponseBuilder, table: Table) -> list[Route]:
    """Builds all routes of a site, sorted. number: the site's."""
    return [builder.route(number, key, table[key]) for key in sorted(table)]
