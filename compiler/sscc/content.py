"""Files: finds what a manifest names."""

from __future__ import annotations

import functools
import mimetypes
import operator
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wcmatch import glob

from .errors import Problem, SsccError
from .manifest import Root, Site

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


READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


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


def _literal(pattern: str) -> str:
    """The longest text that is in every path that a glob matches."""
    if "[" in pattern or "\\" in pattern:
        return ""
    return max(re.split(r"[*?/]", pattern), key=len)


@functools.cache
def _compiled(pattern: str) -> tuple[str, list[re.Pattern[str]]]:
    """A glob as its literal and regular expressions.

    Kept: making them takes longer than all else about a small file.
    """
    return _literal(pattern), [re.compile(each) for each in glob.translate(pattern, flags=GLOB_FLAGS)[0]]


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


class _Found(NamedTuple):
    """A file below a root."""

    relative: str
    path: str
    entry: os.DirEntry[str]


_name = operator.attrgetter("name")


class _Tree:
    """All files below a folder, in order; links are followed inside of it only.

    Paths are strings: to make a Path of each would take longer than all else.
    """

    def __init__(self, folder: Path, problems: list[Problem]) -> None:
        """problems: takes what is wrong."""
        self.top = folder.resolve()
        self.start = "" if folder == Path() else os.path.join(folder, "")
        self.problems = problems

    def __iter__(self) -> Iterator[_Found]:
        """The files."""
        return self._below("", frozenset({self.top}))

    def _below(self, before: str, seen: frozenset[Path]) -> Iterator[_Found]:
        """Those of a folder. before: what stands before its names; seen: it and all above."""
        folder = self.start + before
        try:
            entries = sorted(os.scandir(folder or os.curdir), key=_name)
        except OSError as error:
            self.problems.append(Problem(f"can't be read: {error.strerror}", str(Path(folder))))
            return
        for entry in entries:
            name = entry.name
            if entry.is_file(follow_symlinks=False):  # as most are
                yield _Found(before + name, folder + name, entry)
                continue
            path = folder + name
            if entry.is_symlink() and not self._stays(path):
                continue
            if not entry.is_dir():
                yield _Found(before + name, path, entry)
                continue
            real = Path(path).resolve()
            if real in seen:
                self.problems.append(Problem("a symbolic link back to a folder above it; exclude it", path))
                continue
            yield from self._below(before + name + "/", seen | {real})

    def _stays(self, link: str) -> bool:
        """Does a symbolic link lead to something inside?"""
        try:
            real = Path(link).resolve(strict=True)
        except (OSError, RuntimeError):
            self.problems.append(Problem("a symbolic link to nothing, or to itself; remove it", link))
            return False
        if not real.is_relative_to(self.top):
            self.problems.append(Problem("a symbolic link that leaves the root; copy the file, or exclude it", link))
            return False
        return True


class _Wish:
    """What a root's globs take, and what is to be skipped whatever they say."""

    def __init__(self, root: Root, skip: frozenset[Path]) -> None:
        """skip: files by their resolved paths."""
        self.include = None if EVERYTHING in root.include else root.include
        self.exclude = [(_literal(pattern), pattern) for pattern in root.exclude]
        self.skip = skip
        self.skip_names = {path.name for path in skip}

    def takes(self, found: _Found) -> bool:
        """Is a file wanted?"""
        relative, path, entry = found
        # Only what is named so, or is a link, needs to be followed to its end.
        could_be = self.skip and (entry.name in self.skip_names or entry.is_symlink())
        if could_be and Path(path).resolve() in self.skip:
            return False
        if self.include is not None and not any(matches(relative, pattern) for pattern in self.include):
            return False
        return not any(literal in relative and matches(relative, pattern) for literal, pattern in self.exclude)


def _source(found: _Found, name: str, route: bytes, problems: list[Problem]) -> Source | None:
    _, path, entry = found
    try:
        info = entry.stat()
    except OSError as error:
        problems.append(Problem(f"can't be read: {error.strerror}", path))
        return None
    mode = info.st_mode
    if not stat.S_ISREG(mode):
        problems.append(Problem("neither a file nor a folder (a device, socket or pipe); exclude it", path))
        return None
    # What everybody may read need not be asked for. Where an ACL says otherwise, reading it does.
    if mode & READABLE != READABLE and not os.access(path, os.R_OK):
        problems.append(Problem("can't be read: permission denied; grant it, or exclude the file", path))
        return None
    return Source(path, name, route, info.st_size, int(info.st_mtime), stamp=stamp(info))


def find(site: Site, base: Path, skip: frozenset[Path] = frozenset()) -> list[Source]:
    """Every file that a site names but those to skip, sorted by route. base: what the manifest's paths start from."""
    problems: list[Problem] = []
    sources: dict[bytes, Source] = {}
    for number, root in enumerate(site.all_roots()):
        folder = base / root.path
        if not folder.is_dir():
            place = (
                ("root",) if number == 0 and site.root is not None else ("roots", number - (site.root is not None))
            )
            text = f"{folder}: no such folder; roots are relative to the manifest"
            problems.append(site.problem(text, *place))
            continue
        before = os.path.relpath(folder, base)
        before = "" if before == os.curdir else before + "/"
        wish = _Wish(root, skip)
        for found in _Tree(folder, problems):
            if not wish.takes(found):
                continue
            route = os.fsencode(root.at + found.relative)
            source = _source(found, before + found.relative, route, problems)
            if source is None:
                continue
            other = sources.setdefault(route, source)
            if other is not source:
                text = f"two files for {os.fsdecode(route)}: {other.name} and {source.name}; exclude one"
                problems.append(Problem(text))
    if problems:
        raise SsccError(*problems)
    if not sources and site.all_roots():
        raise SsccError(site.problem("no file to serve: check 'root' and the include and exclude globs"))
    # No answer may say that a file was changed after it was sent, RFC 9110 section 8.8.2.1.
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    latest_s = int(epoch) if epoch.isdigit() else int(time.time())
    for source in sources.values():
        source.mtime_s = min(source.mtime_s, latest_s)
    return [sources[route] for route in sorted(sources)]
