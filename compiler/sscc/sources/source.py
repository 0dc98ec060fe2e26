"""Files and what is known of them: their contents, their types, and which globs match their paths."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wcmatch import glob

from ..errors import unreadable
from ..manifest.model import Site
from .charsets import DECLARED, GZIP, HEAD_BYTES, charset, traits

GLOB_FLAGS = glob.GLOBSTAR | glob.DOTGLOB
EVERYTHING = "**"  # matches every path

OCTETS = "application/octet-stream"
# What differs from Debian's table: what browsers, players, feed readers and package managers go by, and texts that it
# has not, which browsers would save instead of show.
MEDIA_TYPES = {
    ".bz2": "application/x-bzip2",
    ".cjs": "text/javascript",
    ".cur": "image/vnd.microsoft.icon",
    ".exe": "application/vnd.microsoft.portable-executable",
    ".gpx": "application/gpx+xml",
    ".img": "application/vnd.efi.img",  # UEFI HTTP Boot knows what to do by these two
    ".iso": "application/vnd.efi.iso",
    ".m2ts": "video/mp2t",
    ".m3u": "application/vnd.apple.mpegurl",  # RFC 8216 section 4
    ".m4b": "audio/mp4",
    ".map": "application/json",
    ".mka": "audio/x-matroska",
    ".mobileconfig": "application/x-apple-aspen-config",
    ".ndjson": "application/x-ndjson",
    ".opml": "text/x-opml",
    ".opus": "audio/ogg",  # RFC 7845 section 9
    ".pbf": "application/x-protobuf",
    ".rpm": "application/x-rpm",
    ".rss": "application/rss+xml",
    ".tgz": "application/gzip",
    ".toml": "application/toml",
    ".topojson": "application/json",
    ".ts": "video/mp2t",  # segments of RFC 8216
    ".whl": "application/zip",
    ".xsd": "application/xml",
    ".yaml": "application/yaml",  # RFC 9512
    ".yml": "application/yaml",
    **dict.fromkeys(
        (".cfg", ".conf", ".go", ".ini", ".log", ".lua", ".md5", ".rs", ".sha256", ".sha512"), "text/plain"
    ),
}
SVGZ = ".svgz"  # image/svg+xml, and the stream is a content coding of it
COMPRESSIBLE = {
    *("application/json", "application/xml", "application/yaml", "application/toml", "application/x-ndjson"),
    *("application/javascript", "application/wasm", "application/vnd.apple.mpegurl", "application/x-sh"),
    *("application/postscript", "application/rtf", "application/vnd.ms-fontobject", "font/ttf", "font/otf"),
    *("image/vnd.microsoft.icon", "image/bmp", "model/obj", "model/stl"),
}


@functools.cache
def standard_types() -> dict[str, str]:
    """Debian's table, the same on every machine: media types by extension."""
    types: dict[str, str] = {}
    for line in Path(__file__).with_name("media_types.txt").read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            media_type, *extensions = line.split()
            for extension in extensions:
                types.setdefault(f".{extension}", media_type)
    return types


NO_TIME = -1  # of a file whose time says nothing
ETAG_DIGITS = 32  # of an entity tag, which are of the content's digest

Stamp = tuple[int, int, int, int, int]


def stamp(info: os.stat_result) -> Stamp:
    """What changes when a file does."""
    return info.st_size, info.st_mtime_ns, info.st_ino, info.st_dev, info.st_ctime_ns


class Content(NamedTuple):
    """Bytes to be served: a file's, or those of a variant made beside it."""

    path: str
    size_bytes: int
    sha256: str
    offset_bytes: int = 0  # where they begin in the file
    kept: memoryview | None = None  # the bytes, from when they were hashed, if there was room

    @property
    def etag(self) -> str:
        """A strong entity tag: equal for equal bytes only, on every machine."""
        return f'"{self.sha256[:ETAG_DIGITS]}"'


@dataclass(slots=True)
class Source:
    """A file and the route it is served under."""

    path: str
    name: str  # relative to the manifest, for provenance and messages
    route: bytes  # decoded path
    size_bytes: int
    mtime_s: int
    content: Content | None = None
    variants: dict[str, Content] = field(default_factory=dict)  # by content coding
    media_type: str | None = None  # of what was made for the build; a file's follows from its name
    stamp: Stamp | None = None  # of a file when it was found
    stat_is_stable: bool = False  # will any later change show in it?
    traits: int = 0  # see charsets

    def head(self) -> bytes:
        """Gives the file's first bytes if they may say what it is written in. Raises SsccError."""
        if not self.traits & DECLARED:
            return b""
        if self.content is not None and self.content.kept is not None:
            return bytes(self.content.kept[:HEAD_BYTES])
        try:
            with open(self.path, "rb", buffering=0) as file:
                return file.read(HEAD_BYTES)
        except OSError as error:
            raise unreadable(self.path, error) from None


def literal(pattern: str) -> str:
    """The longest text that is in every path that a glob matches."""
    if "[" in pattern or "\\" in pattern:
        return ""
    return max(re.split(r"[*?/]", pattern), key=len)


@functools.cache
def _compiled(pattern: str) -> tuple[str, list[re.Pattern[str]]]:
    """A glob as its literal and regular expressions.

    Kept: making them takes longer than all else about a small file.
    """
    return literal(pattern), [re.compile(expression) for expression in glob.translate(pattern, flags=GLOB_FLAGS)[0]]


def matches(path: str, pattern: str) -> bool:
    """Does a path match a glob? `**` crosses slashes, `*` does not."""
    if pattern == EVERYTHING:
        return True
    literal, regexes = _compiled(pattern)
    # A regular expression of `**` takes long to say no.
    return literal in path and any(regex.match(path) for regex in regexes)


def bare_type(site: Site, route: str) -> str:
    """The media type of a file by its name, as far as that and the manifest say."""
    extension = os.path.splitext(route)[1].lower()
    media_type = site.mime.get(extension) or MEDIA_TYPES.get(extension) or standard_types().get(extension, OCTETS)
    for rule in site.rules:
        if rule.mime is not None and matches(route, rule.match):
            media_type = rule.mime
    return media_type


def is_open(media_type: str) -> bool:
    """Is it left to the bytes of a text what it is written in?"""
    return media_type.startswith("text/") and "charset" not in media_type.lower()


def media_type_of(site: Site, route: str, data: bytes) -> str:
    """The Content-Type of these bytes under that name."""
    return typed(bare_type(site, route), traits(data), data[:HEAD_BYTES])


def typed(media_type: str, file_traits: int, head: bytes) -> str:
    """A Content-Type with the charset, if it is a text that shows it."""
    name = charset(media_type.partition(";")[0].strip().lower(), file_traits, head) if is_open(media_type) else None
    return media_type if name is None else f"{media_type}; charset={name}"


def type_of(site: Site, source: Source) -> str:
    """The Content-Type of a source, whose bytes have been scanned."""
    return source.media_type or typed(bare_type(site, os.fsdecode(source.route)), source.traits, source.head())


def coding_of(source: Source) -> str | None:
    """The content coding that a file is in by itself."""
    if not source.traits & GZIP:  # as of most
        return None
    return "gzip" if source.route[-len(SVGZ) :].lower() == SVGZ.encode() else None


def is_compressible(media_type: str) -> bool:
    """Is it worth trying to compress this media type?"""
    bare = media_type.partition(";")[0].strip()
    return bare.startswith("text/") or bare in COMPRESSIBLE or bare.endswith(("+xml", "+json"))
