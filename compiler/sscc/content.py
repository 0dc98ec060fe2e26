"""Files: finds what a manifest names."""

from __future__ import annotations

import functools
import mimetypes
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wcmatch import glob

from .errors import Problem, SsccError
from .manifest import Root, Site

GLOB_FLAGS = glob.GLOBSTAR | glob.DOTGLOB

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


@dataclass(frozen=True)
class Content:
    """Bytes to be served: a file's, or those of a variant made beside it."""

    path: Path
    size_bytes: int
    sha256: str
    offset_bytes: int = 0  # where they begin in the file

    @property
    def etag(self) -> str:
        """A strong entity tag: equal for equal bytes only, on every machine."""
        return f'"{self.sha256[:32]}"'


@dataclass
class Source:
    """A file and the route it is served under."""

    path: Path
    name: str  # relative to the manifest, for provenance and messages
    route: bytes  # decoded path
    size_bytes: int
    mtime_s: int
    content: Content | None = None
    variants: dict[str, Content] = field(default_factory=dict)  # by content coding
    kind: str | None = None  # media type of what was made for the build; a file's follows from its name


@functools.cache
def _regexes(pattern: str) -> list[re.Pattern[str]]:
    """A glob as regular expressions. Kept: making them takes longer than all else about a small file."""
    return [re.compile(each) for each in glob.translate(pattern, flags=GLOB_FLAGS)[0]]


def matches(path: str, pattern: str) -> bool:
    """Does a path match a glob? `**` crosses slashes, `*` does not."""
    return any(regex.match(path) for regex in _regexes(pattern))


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


def _walk(folder: Path, top: Path, seen: frozenset[Path], problems: list[Problem]) -> Iterator[Path]:
    """All files below a folder, sorted; links are followed inside of top only."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(Problem(f"can't be read: {error.strerror}", str(folder)))
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.is_symlink():
            try:
                real = path.resolve(strict=True)
            except (OSError, RuntimeError):
                problems.append(Problem("a symbolic link to nothing, or to itself; remove it", str(path)))
                continue
            if not real.is_relative_to(top):
                problems.append(
                    Problem("a symbolic link that leaves the root; copy the file, or exclude it", str(path))
                )
                continue
        if entry.is_dir():
            real = path.resolve()
            if real in seen:
                problems.append(Problem("a symbolic link back to a folder above it; exclude it", str(path)))
                continue
            yield from _walk(path, top, seen | {real}, problems)
        else:
            yield path


def _source(path: Path, root_path: Path, root: Root, base: Path, problems: list[Problem]) -> Source | None:
    try:
        info = path.stat()
    except OSError as error:
        problems.append(Problem(f"can't be read: {error.strerror}", str(path)))
        return None
    if not stat.S_ISREG(info.st_mode):
        problems.append(Problem("neither a file nor a folder (a device, socket or pipe); exclude it", str(path)))
        return None
    if not os.access(path, os.R_OK):
        problems.append(Problem("can't be read: permission denied; grant it, or exclude the file", str(path)))
        return None
    route = os.fsencode(root.at) + os.fsencode(path.relative_to(root_path).as_posix())
    name = os.path.relpath(path, base)
    return Source(path, name, route, info.st_size, int(info.st_mtime))


def find(site: Site, base: Path, skip: frozenset[Path] = frozenset()) -> list[Source]:
    """Every file that a site names but those to skip, sorted by route. base: what the manifest's paths start from."""
    problems: list[Problem] = []
    found: dict[bytes, Source] = {}
    for number, root in enumerate(site.all_roots()):
        root_path = base / root.path
        if not root_path.is_dir():
            place = (
                ("root",) if number == 0 and site.root is not None else ("roots", number - (site.root is not None))
            )
            text = f"{root_path}: no such folder; roots are relative to the manifest"
            problems.append(site.problem(text, *place))
            continue
        top = root_path.resolve()
        for path in _walk(root_path, top, frozenset({top}), problems):
            relative = path.relative_to(root_path).as_posix()
            if skip and path.resolve() in skip:
                continue
            if not any(matches(relative, pattern) for pattern in root.include):
                continue
            if any(matches(relative, pattern) for pattern in root.exclude):
                continue
            source = _source(path, root_path, root, base, problems)
            if source is None:
                continue
            other = found.setdefault(source.route, source)
            if other is not source:
                route = os.fsdecode(source.route)
                problems.append(Problem(f"two files for {route}: {other.name} and {source.name}; exclude one"))
    if problems:
        raise SsccError(*problems)
    if not found and site.all_roots():
        raise SsccError(site.problem("no file to serve: check 'root' and the include and exclude globs"))
    # No answer may say that a file was changed after it was sent, RFC 9110 section 8.8.2.1.
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    latest_s = int(epoch) if epoch.isdigit() else int(time.time())
    for source in found.values():
        source.mtime_s = min(source.mtime_s, latest_s)
    return [found[route] for route in sorted(found)]
