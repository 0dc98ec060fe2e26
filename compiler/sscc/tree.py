"""Finds what a manifest names."""

from __future__ import annotations

import operator
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .content import EVERYTHING, Content, Source, literal, matches, stamp
from .errors import Problem, Report
from .looking import Looker
from .manifest import Root, Site

READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
NS = 1_000_000_000


class _Entry(NamedTuple):
    """A file below a root."""

    relative: str
    path: str
    entry: os.DirEntry[str]
    is_plain: bool  # a file, and no link to one, nor anything else


class _Named(NamedTuple):
    """A file that is wanted."""

    path: str
    name: str  # as in Source
    route: bytes


_name = operator.attrgetter("name")
_route = operator.attrgetter("route")


class _Tree:
    """All files below a folder, in order; links are followed inside of it only.

    Paths are strings: to make a Path of each would take longer than all else.
    """

    def __init__(self, folder: Path, report: Report) -> None:
        """report: takes what is wrong."""
        self.top = folder.resolve()
        self.start = "" if folder == Path() else os.path.join(folder, "")
        self.report = report
        self.found: list[_Entry] = []

    def files(self) -> list[_Entry]:
        """All of them."""
        self._look("", frozenset({self.top}))
        return self.found

    def _look(self, before: str, seen: frozenset[Path]) -> None:
        """Into a folder. before: what stands before its names; seen: it and all above."""
        folder = self.start + before
        found = self.found
        try:
            entries = sorted(os.scandir(folder or os.curdir), key=_name)
        except OSError as error:
            self.report.add(Problem(f"can't be read: {error.strerror}", str(Path(folder))))
            return
        for entry in entries:
            name = entry.name
            if entry.is_file(follow_symlinks=False):  # as most are
                found.append(_Entry(before + name, folder + name, entry, True))
                continue
            path = folder + name
            if entry.is_symlink() and not self._stays(path):
                continue
            if not entry.is_dir():
                found.append(_Entry(before + name, path, entry, False))
                continue
            real = Path(path).resolve()
            if real in seen:
                self.report.add(Problem("a symbolic link back to a folder above it; exclude it", path))
                continue
            self._look(before + name + "/", seen | {real})

    def _stays(self, link: str) -> bool:
        """Does a symbolic link lead to something inside?"""
        try:
            real = Path(link).resolve(strict=True)
        except (OSError, RuntimeError):
            self.report.add(Problem("a symbolic link to nothing, or to itself; remove it", link))
            return False
        if not real.is_relative_to(self.top):
            self.report.add(Problem("a symbolic link that leaves the root; copy the file, or exclude it", link))
            return False
        return True


class _Wish:
    """What a root's globs take, and what is to be skipped whatever they say."""

    def __init__(self, root: Root, skip: frozenset[Path]) -> None:
        """skip: files by their resolved paths."""
        self.include = None if EVERYTHING in root.include else root.include
        self.exclude = [(literal(pattern), pattern) for pattern in root.exclude]
        self.skip = skip
        self.skip_names = {path.name for path in skip}

    def takes(self, file: _Entry) -> bool:
        """Is a file wanted?"""
        relative, path, entry, _ = file
        # Only what is named so, or is a link, needs to be followed to its end.
        could_be = self.skip and (entry.name in self.skip_names or entry.is_symlink())
        if could_be and Path(path).resolve() in self.skip:
            return False
        if self.include is not None and not any(matches(relative, pattern) for pattern in self.include):
            return False
        return not any(text in relative and matches(relative, pattern) for text, pattern in self.exclude)


class _Finder:
    """Finds the files of one site."""

    def __init__(self, site: Site, base: Path, report: Report) -> None:
        """base: what the manifest's paths start from. report: takes what is wrong."""
        self.site = site
        self.base = base
        self.report = report
        # No answer may say that a file was changed after it was sent, RFC 9110 section 8.8.2.1.
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        self.latest_s = int(epoch) if epoch.isdigit() else int(time.time())

    def _of_root(self, root: Root, folder: Path, skip: frozenset[Path]) -> Iterator[_Named]:
        before = os.path.relpath(folder, self.base)
        before = "" if before == os.curdir else before + "/"
        wish, at = _Wish(root, skip), root.at
        for file in _Tree(folder, self.report).files():
            relative, path, _, is_plain = file
            # What is no file could wait when it is opened, or do something.
            if wish.takes(file) and (is_plain or self._stat(path) is not None):
                yield _Named(path, before + relative, os.fsencode(at + relative))

    def named(self, skip: frozenset[Path]) -> list[_Named]:
        """Those that are wanted, sorted by route."""
        found: dict[bytes, _Named] = {}
        for number, root in enumerate(self.site.all_roots()):
            folder = self.base / root.path
            if not folder.is_dir():
                is_only = number == 0 and self.site.root is not None
                place = ("root",) if is_only else ("roots", number - (self.site.root is not None))
                text = f"{folder}: no such folder; roots are relative to the manifest"
                self.report.add(self.site.problem(text, *place))
                continue
            for file in self._of_root(root, folder, skip):
                other = found.setdefault(file.route, file)
                if other is not file:
                    text = f"two files for {os.fsdecode(file.route)}: {other.name} and {file.name}; exclude one"
                    self.report.add(Problem(text))
        return sorted(found.values(), key=_route)

    def _stat(self, path: str) -> os.stat_result | None:
        """Of a file; None: it is none, or there is something wrong."""
        try:
            info = os.stat(path)
        except OSError as error:
            self.report.add(Problem(f"can't be read: {error.strerror}", path))
            return None
        if not stat.S_ISREG(info.st_mode):
            self.report.add(Problem("neither a file nor a folder (a device, socket or pipe); exclude it", path))
            return None
        return info

    def by_itself(self, file: _Named) -> Source | None:
        """A file that is not read yet."""
        path = file.path
        info = self._stat(path)
        if info is None:
            return None
        # What everybody may read need not be asked for. Where an ACL says otherwise, reading it does.
        if info.st_mode & READABLE != READABLE and not os.access(path, os.R_OK):
            self.report.add(Problem("can't be read: permission denied; grant it, or exclude the file", path))
            return None
        mtime_s = min(info.st_mtime_ns // NS, self.latest_s)
        return Source(*file, info.st_size, mtime_s, stamp=stamp(info))

    def looked_at(self, files: list[_Named], looker: Looker) -> Iterator[Source | None]:
        """Files with the contents of small ones."""
        latest_s = self.latest_s
        for file, look in zip(files, looker.look([file.path for file in files]), strict=True):
            if look is None:
                yield self.by_itself(file)
                continue
            at, sha256, data, settled = look
            path, name, route = file
            size_bytes, mtime_ns, *_ = at
            content = None if sha256 is None else Content(path, size_bytes, sha256, 0, data)
            yield Source(path, name, route, size_bytes, min(mtime_ns // NS, latest_s), content, {}, None, at, settled)


def find(
    site: Site, base: Path, report: Report, skip: frozenset[Path] = frozenset(), looker: Looker | None = None
) -> list[Source]:
    """Every file that a site names but those to skip, sorted by route.

    base: what the manifest's paths start from. report: takes what is wrong. looker: reads what is small; without it
    nothing is read.
    """
    finder = _Finder(site, base, report)
    named = finder.named(skip)
    # Where something is wrong already, nothing needs to be read to tell what else is.
    made = map(finder.by_itself, named) if looker is None or report.failed else finder.looked_at(named, looker)
    sources = [source for source in made if source is not None]
    if not sources and site.all_roots() and not report.failed:
        report.add(site.problem("no file to serve: check 'root' and the include and exclude globs"))
    return sources
