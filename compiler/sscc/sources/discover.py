"""Finds what a manifest names."""

from __future__ import annotations

import contextlib
import difflib
import functools
import operator
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import Problem, Report
from ..manifest.choice import Choice
from ..manifest.model import Root, Site
from .scan import Scanner
from .source import NO_TIME, Content, Source, stamp
from .walk import Skipped, Tree

READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
NS = 1_000_000_000
HTTP_DATE_MAX_S = 253402300799  # the last of the year 9999: IMF-fixdate has four digits, RFC 9110 section 5.6.7


class _Named(NamedTuple):
    """A file that is wanted."""

    path: str
    name: str  # as in Source
    route: bytes


_route = operator.attrgetter("route")


def _no_folder(folder: Path) -> str:
    """What to say of a root that is none."""
    if folder.exists():
        return f"{folder} is a file, not a folder; name the folder, and the file with 'include'"
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()]
    near = difflib.get_close_matches(folder.name, names, 1)
    help_ = f"did you mean '{folder.with_name(near[0])}'?" if near else "roots are relative to the manifest"
    return f"{folder}: no such folder; {help_}"


def _chosen(root: Root, choice: Choice) -> Root:
    """A root with what is said of all of them."""
    changes = {"exclude": [*root.exclude, *choice.exclude], "symlinks": choice.symlinks or root.symlinks}
    return root.model_copy(update=changes)


class _Finder:
    """Finds the files of one site."""

    def __init__(self, site: Site, base: Path, report: Report, choice: Choice) -> None:
        """base: what the manifest's paths start from. report: takes what is wrong."""
        self.site = site
        self.base = base
        self.report = report
        self.choice = choice
        # No answer may say that a file was changed after it was sent, RFC 9110 section 8.8.2.1.
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        self.latest_s = min(int(epoch), HTTP_DATE_MAX_S) if epoch.isdigit() else int(time.time())

    def _place(self, number: int) -> tuple[int | str, ...]:
        """Where in the manifest a root is. number: of all."""
        has_short = self.site.root is not None
        return ("root",) if has_short and number == 0 else ("roots", number - has_short)

    def _problem(self, number: int, message: str, pattern: str) -> Problem:
        """A mistake in a glob of a root, or of the command line."""
        root = self.site.all_roots()[number]
        for key, patterns in (("include", root.include), ("exclude", root.exclude)):
            if pattern in patterns:
                return self.site.problem(message, *self._place(number), key, patterns.index(pattern))
        return Problem(message)

    def _of_root(self, number: int, root: Root, folder: Path, skipped: Skipped) -> Iterator[_Named]:
        problem = functools.partial(self._problem, number)
        before = os.path.relpath(folder, self.base)
        before = "" if before == os.curdir else before + "/"
        at = root.at
        for relative, path, _, is_plain in Tree(folder, root, skipped, self.report, problem).files():
            # What is no file could wait when it is opened, or do something.
            if is_plain or self._stat(path) is not None:
                yield _Named(path, before + relative, os.fsencode(at + relative))

    def named(self, skipped: Skipped) -> list[_Named]:
        """Finds the files that are wanted, sorted by route."""
        by_route: dict[bytes, _Named] = {}
        for number, root in enumerate(self.site.all_roots()):
            folder = self.base / root.path
            if not folder.is_dir():
                self.report.add(self.site.problem(_no_folder(folder), *self._place(number)))
                continue
            for file in self._of_root(number, _chosen(root, self.choice), folder, skipped):
                other = by_route.setdefault(file.route, file)
                if other is not file:
                    text = f"two files for {os.fsdecode(file.route)}: {other.name} and {file.name}; exclude one"
                    self.report.add(Problem(text))
        return sorted(by_route.values(), key=_route)

    def _stat(self, path: str) -> os.stat_result | None:
        """Gives a file's status; None: it is none, or there is something wrong."""
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
        return Source(*file, info.st_size, self._time_s(info.st_mtime_ns), stamp=stamp(info))

    def _time_s(self, mtime_ns: int) -> int:
        """What is said of when a file was changed."""
        mtime_s = min(mtime_ns // NS, self.latest_s)
        return mtime_s if mtime_s > 0 else NO_TIME  # as in trees made to be the same everywhere: nobody knows

    def scanned(self, files: list[_Named], scanner: Scanner) -> Iterator[Source | None]:
        """Files with the contents of small ones."""
        for file, scan in zip(files, scanner.scan([file.path for file in files]), strict=True):
            if scan is None:
                yield self.by_itself(file)
                continue
            at, sha256, data, is_stable, traits = scan
            path, name, route = file
            size_bytes, mtime_ns, *_ = at
            content = None if sha256 is None else Content(path, size_bytes, sha256, 0, data)
            mtime_s = self._time_s(mtime_ns)
            yield Source(path, name, route, size_bytes, mtime_s, content, {}, None, at, is_stable, traits)


def find(
    site: Site,
    base: Path,
    report: Report,
    skip: frozenset[Path] = frozenset(),
    scanner: Scanner | None = None,
    choice: Choice | None = None,
) -> list[Source]:
    """Every file that a site names but those to skip, sorted by route.

    base: what the manifest's paths start from. report: takes what is wrong. scanner: reads what is small; without it
    nothing is read. choice: what is said of all roots.
    """
    choice = choice or Choice()
    finder = _Finder(site, base, report, choice)
    named = finder.named(Skipped(skip, choice.own_files))
    # Where something is wrong already, nothing needs to be read to tell what else is.
    unread = map(finder.by_itself, named)
    found = unread if scanner is None or report.failed else finder.scanned(named, scanner)
    sources = [source for source in found if source is not None]
    if not sources and site.all_roots() and not report.failed:
        report.add(site.problem("no file to serve: check 'root' and the include and exclude globs"))
    return sources
