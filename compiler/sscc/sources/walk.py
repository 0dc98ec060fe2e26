"""Walks through a root: which of its files and folders are wanted, and which links are followed."""

from __future__ import annotations

import contextlib
import errno
import functools
import operator
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ssimage.output import is_left_over
from wcmatch import glob

from ..errors import Problem, Report
from ..manifest.model import VERSION_CONTROL, Root
from .source import EVERYTHING, GLOB_FLAGS, literal, matches

WELL_KNOWN = ".well-known"  # RFC 8615
NAMES_MAX = 20  # that one message has
MAGIC = re.compile(r"[*?\[\\]")  # what is not itself in a glob

_name = operator.attrgetter("name")


class Entry(NamedTuple):
    """A file below a root."""

    relative: str
    path: str
    entry: os.DirEntry[str]
    is_plain: bool  # a file, and no link to one, nor anything else


class Skipped:
    """Files that are left out, known by what they are, whatever their names and wherever links lead."""

    def __init__(self, silently: Iterable[Path] = (), reported: Iterable[Path] = ()) -> None:
        """Paths of files that need not be there. reported: those of which it is said that they are left out."""
        self.names: set[str] = set()
        self.files: dict[tuple[int, int], bool] = {}  # by inode and device: is it reported?
        for paths, is_reported in ((reported, True), (silently, False)):
            for path in paths:
                with contextlib.suppress(OSError):
                    info = path.stat()
                    if stat.S_ISREG(info.st_mode):
                        self.files[info.st_ino, info.st_dev] = is_reported
                        self.names.add(path.resolve().name)
        self.inodes = {inode for inode, _ in self.files}

    def find(self, entry: os.DirEntry[str]) -> bool | None:
        """Is it reported that this is left out? None: it is not. Only links, and equal names or inodes, can be."""
        with contextlib.suppress(OSError):
            info = entry.stat()
            return self.files.get((info.st_ino, info.st_dev))
        return None


@functools.cache
def _segments(pattern: str) -> list[re.Pattern[str] | None]:
    """The parts of a glob between slashes, as regular expressions; None: any number of folders."""
    segments: list[re.Pattern[str] | None] = []
    for part in pattern.split("/"):
        regexes = glob.translate(part, flags=GLOB_FLAGS)[0] if part and part != EVERYTHING else ["$"]
        segments.append(None if part == EVERYTHING else re.compile(regexes[0]))
    return segments


def may_match_below(folder: str, pattern: str) -> bool:
    """Could a glob match anything below a folder? In doubt yes."""
    segments = _segments(pattern)
    for number, name in enumerate(folder.split("/")):
        if number >= len(segments):
            return False
        regex = segments[number]
        if regex is None:
            return True
        if not regex.match(name):
            return False
    return len(segments) > folder.count("/") + 1


def names_folder(folder: str, pattern: str) -> bool:
    """Does a glob take a folder with all that is in it? `a/**` and `a/` do, and so does its name: `a`, `**/a`."""
    if matches(folder + "/", pattern):
        return True
    return not MAGIC.search(pattern.rpartition("/")[2]) and matches(folder, pattern)


class _Wish:
    """What a root's globs take."""

    def __init__(self, root: Root) -> None:
        """root: with everything that is said of it."""
        self.include = None if EVERYTHING in root.include else root.include
        self.exclude = [(literal(pattern), pattern) for pattern in root.exclude]
        self.used: set[str] = set()  # globs that something was like

    def takes(self, relative: str) -> bool:
        """Is a file wanted?"""
        if self.include is not None:
            matching = [pattern for pattern in self.include if matches(relative, pattern)]
            self.used.update(matching)
            if not matching:
                return False
        for text, pattern in self.exclude:
            if text in relative and matches(relative, pattern):
                self.used.add(pattern)
                return False
        return True

    def enters(self, folder: str) -> bool:
        """Can there be anything wanted in a folder?"""
        for _, pattern in self.exclude:
            if names_folder(folder, pattern):
                self.used.add(pattern)
                return False
        return self.include is None or any(may_match_below(folder, pattern) for pattern in self.include)

    def takes_link(self, relative: str, is_folder: bool) -> bool:
        """Is what a link leads to wanted? What takes its name out, takes it out, whatever is there."""
        for _, pattern in self.exclude:
            if matches(relative, pattern) or names_folder(relative, pattern):
                self.used.add(pattern)
                return False
        return self.enters(relative) if is_folder else self.takes(relative)

    def unused(self) -> list[str]:
        """Globs that nothing was like."""
        patterns = [*(self.include or []), *(pattern for _, pattern in self.exclude)]
        return [pattern for pattern in patterns if pattern not in self.used]


def _listed(names: list[str]) -> str:
    """Some names in a message, however many there are."""
    more = f", and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more


class Tree:
    """The wanted files below a folder, in order.

    Paths are strings: to make a Path of each would take longer than all else.
    """

    def __init__(
        self, folder: Path, root: Root, skipped: Skipped, report: Report, problem: Callable[[str, str], Problem]
    ) -> None:
        """root: the folder's. skipped: what is left out whatever it says. report: takes what is wrong.

        problem: makes one of a message about a glob.
        """
        self.problem = problem
        self.top = folder.resolve()
        self.start = "" if folder == Path() else os.path.join(folder, "")
        self.place = str(folder)
        self.root = root
        self.wish = _Wish(root)
        self.skipped = skipped
        self.report = report
        self.entries: list[Entry] = []
        self.hidden: list[str] = []  # left out
        self.links: list[str] = []  # that are not followed, with where they lead
        self.own: list[str] = []  # left out too, as they are what is built from or written

    def files(self) -> list[Entry]:
        """Finds all of them. What is left out or wrong is reported, each sort in one message."""
        self._enter("", frozenset({self.top}))
        self._report_hidden()
        self._report_links()
        self._report_globs()
        for name in self.own:
            text = "is not served: it is the manifest, or the image that is written"
            self.report.note(Problem(text, self.start + name))
        return self.entries

    def _enter(self, before: str, seen: frozenset[Path]) -> None:
        """Finds what is wanted in a folder. before: what stands before its names; seen: it and all above."""
        folder = self.start + before
        entries_found, takes = self.entries, self.wish.takes
        names, inodes = self.skipped.names, self.skipped.inodes
        try:
            entries = sorted(os.scandir(folder or os.curdir), key=_name)
        except OSError as error:
            advice = "grant it, or exclude the folder"
            self.report.add(Problem(f"can't be read: {error.strerror}", str(Path(folder)), help=advice))
            return
        for entry in entries:
            name = entry.name
            relative = before + name
            if name[0] == "." and self._is_hidden(relative, entry):
                continue
            if not entry.is_file(follow_symlinks=False):
                self._enter_other(relative, entry, seen)
            elif takes(relative):  # as most are
                file = Entry(relative, folder + name, entry, True)
                if name in names or entry.inode() in inodes:  # else it need not be looked up
                    self._take(file)
                else:
                    entries_found.append(file)

    def _take(self, file: Entry) -> None:
        """A file that is wanted, if it isn't one of those to skip."""
        is_reported = self.skipped.find(file.entry)
        if is_reported is None:
            self.entries.append(file)
        elif is_reported:
            self.own.append(file.relative)

    def _enter_other(self, relative: str, entry: os.DirEntry[str], seen: frozenset[Path]) -> None:
        """Takes or enters what is no plain file."""
        path = self.start + relative
        if entry.is_symlink() and not self._follows(relative, path, seen):
            return
        if entry.is_dir():
            if self.wish.enters(relative):
                self._enter(relative + "/", seen | {Path(path).resolve()})
        elif self.wish.takes(relative):
            self._take(Entry(relative, path, entry, False))

    def _is_hidden(self, relative: str, entry: os.DirEntry[str]) -> bool:
        """Is something whose name begins with a dot left out?"""
        name = entry.name
        if is_left_over(name):
            return True
        if name in VERSION_CONTROL and entry.is_dir():
            if self.root.include_hidden and self.wish.enters(relative):
                text = "a folder of version control is served, with all its history"
                self.report.warn(Problem(text, self.start + relative, help=f"exclude it: '**/{name}/**'"))
            return not self.root.include_hidden
        if self.root.include_hidden or name == WELL_KNOWN or f"/{WELL_KNOWN}/" in f"/{relative}":
            return False
        is_folder = entry.is_dir()
        if name not in VERSION_CONTROL and (self.wish.enters if is_folder else self.wish.takes)(relative):
            self.hidden.append(relative + "/" * is_folder)
        return True

    def _follows(self, relative: str, path: str, seen: frozenset[Path]) -> bool:
        """Is a symbolic link followed?"""
        if self.root.symlinks == "skip":
            return False
        why = "it is a link" if self.root.symlinks == "refuse" else self._why_not(path, seen)
        if why is not None and self.wish.takes_link(relative, os.path.isdir(path)):
            self.links.append(f"{relative} -> {os.readlink(path)} ({why})")
        return why is None

    def _why_not(self, link: str, seen: frozenset[Path]) -> str | None:
        """Why a link can't be followed."""
        try:
            real = Path(link).resolve(strict=True)
        except FileNotFoundError:
            return "leads to nothing"
        except (OSError, RuntimeError) as error:
            # From Python 3.13 on a circle has a number.
            number = error.errno if isinstance(error, OSError) else errno.ELOOP
            return "leads to itself" if number == errno.ELOOP else os.strerror(number or errno.EIO)
        if not real.is_relative_to(self.top):
            return "leaves the root"
        return "leads back to a folder above it" if real in seen else None

    def _report_hidden(self) -> None:
        if self.hidden:
            what = "a hidden file is" if len(self.hidden) == 1 else f"{len(self.hidden)} hidden files are"
            advice = "serve them by 'include_hidden: true' of the root, or exclude them (--exclude) to hear no more"
            self.report.warn(Problem(f"{what} left out: {_listed(self.hidden)}", self.place, help=advice))

    def _report_links(self) -> None:
        if not self.links:
            return
        many = len(self.links) > 1
        what = f"{len(self.links)} symbolic links" if many else "a symbolic link"
        if self.root.symlinks == "skip-outside":
            self.report.warn(Problem(f"{what} {'are' if many else 'is'} left out: {_listed(self.links)}", self.place))
            return
        them = "them" if many else "it"
        advice = (
            f"leave {them} out with '--symlinks skip-outside' (of a root 'symlinks: skip-outside'), or exclude {them}"
        )
        if self.root.symlinks == "refuse":
            advice = f"exclude {them}, or say 'symlinks: follow-inside' of the root"
        text = f"{what} can't be followed: {_listed(self.links)}"
        self.report.add(Problem(text, self.place, help=advice))

    def _report_globs(self) -> None:
        """Reports globs that are like nothing here, where something else was meant."""
        for pattern in self.wish.unused():
            near = self._near(pattern)
            if near is not None or pattern in (self.wish.include or []):
                advice = f"write '{near}'" if near is not None else "globs are relative to the root's folder"
                problem = self.problem(f"nothing in {self.place} is like the glob '{pattern}'", pattern)
                self.report.warn(replace(problem, help=advice))

    def _near(self, pattern: str) -> str | None:
        """A glob like this one that something is like."""
        bare = pattern.lstrip("/")
        others = [f"**/{bare}", f"{bare.rstrip('/')}/**", f"**/{bare.rstrip('/')}/**"]
        names = [entry.relative for entry in self.entries]
        if bare != pattern:
            return bare
        return next((pattern for pattern in others if any(matches(name, pattern) for name in names)), None)
