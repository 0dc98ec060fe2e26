"""Files and what is known of them: their contents, their types, and which globs match their paths."""

from __future__ import annotations

import functools
import mimetypes
import os
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from wcmatch import glob

from .manifest import Site

GLOB_FLAGS = glob.GLOBSTAR | glob.DOTGLOB
EVERYTHING = "**"  # matches every path

# What Python's table lacks, or has differently from version to version.
MEDIA_TYPES = {
    ".avif": "image/avif",
    ".deb": "application/vnd.debian.binary-package",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
}
STANDARD_TYPES = mimetypes.MimeTypes(filenames=()).types_map[True]  # Python's own, whatever the machine has
TEXT_TYPES = {"application/json", "application/xml", "application/manifest+json", "image/svg+xml"}
COMPRESSIBLE = TEXT_TYPES | {
    "application/wasm",
    "application/javascript",
    "application/xhtml+xml",
    "font/ttf",
}


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
    kind: str | None = None  # media type of what was made for the build; a file's follows from its name
    stamp: Stamp | None = None  # of a file when it was found
    settled: bool = False  # will any later change show in it?


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
    return literal(pattern), [re.compile(each) for each in glob.translate(pattern, flags=GLOB_FLAGS)[0]]


def matches(path: str, pattern: str) -> bool:
    """Does a path match a glob? `**` crosses slashes, `*` does not."""
    if pattern == EVERYTHING:
        return True
    literal, regexes = _compiled(pattern)
    # A regular expression of `**` takes long to say no.
    return literal in path and any(regex.match(path) for regex in regexes)


def media_type(manifest: Site, route: str) -> str:
    """The Content-Type of a file, with charset where it is text."""
    extension = os.path.splitext(route)[1].lower()
    kind = manifest.mime.get(extension) or MEDIA_TYPES.get(extension)
    if kind is None:
        kind = STANDARD_TYPES.get(extension, "application/octet-stream")
    for rule in manifest.rules:
        if rule.mime is not None and matches(route, rule.match):
            kind = rule.mime
    is_text = kind.startswith("text/") or kind in TEXT_TYPES
    return f"{kind}; charset=utf-8" if is_text and "charset" not in kind else kind


def type_of(site: Site, source: Source) -> str:
    """The Content-Type of a source."""
    return source.kind or media_type(site, os.fsdecode(source.route))


def is_compressible(kind: str) -> bool:
    """Is it worth trying to compress this media type?"""
    bare = kind.partition(";")[0].strip()
    return bare.startswith("text/") or bare in COMPRESSIBLE or bare.endswith(("+xml", "+json"))
