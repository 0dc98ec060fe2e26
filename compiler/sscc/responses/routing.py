"""What each path of a site is answered with: files, folders, and what the manifest says beside them.

Answers are made before the first request, so a pattern (`/blog/:year/*`) is expanded here to the paths that it stands
for: those for which its target exists. Only whole trees are left for the runtime, as prefixes: one with one answer
(`/app/*` to one page), and one that has moved as it is (`/old/*` to `https://example.org/:splat`).
"""

from __future__ import annotations

import bisect
import difflib
import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlsplit

from ssimage._sandstorm import lib

from ..errors import Problem, Report
from ..manifest.model import Fixed as FixedModel
from ..manifest.model import Site
from ..manifest.patterns import (
    PATH_SAFE,
    SPLAT,
    Key,
    Line,
    decoded,
    filled,
    key_of,
    location_of,
    matcher,
    names_in,
    pieces,
    shape,
)
from ..sources.source import Source, media_type_of

TARGET_SAFE = PATH_SAFE + "%?#[]"  # what a target that somebody wrote may hold already
# What may stand in front of a splat that only a request says: behind a part of a host it would name another host.
BEFORE_SPLAT = re.compile(r"(?:https?://[^/?#\s]+)?/(?:[^/?#][^?#]*/)?\Z")
BODY_BYTES_MAX = 16 << 20  # of a fixed response, which is held in memory; larger ones are files


@dataclass(frozen=True)
class File:
    """The file of that route, with all that files have: variants, conditions, ranges."""

    route: bytes


@dataclass(frozen=True)
class Moved:
    """A redirect. location: as it is sent. splat_offset: where in it the path behind a tree's goes; 0: nowhere."""

    status: int
    location: str
    splat_offset: int = 0


@dataclass(frozen=True)
class Fixed:
    """An answer by itself. body: bytes, or a file's route; None: there is none."""

    status: int
    body: bytes | File | None = None
    media_type: str | None = None
    headers: dict[str, str | None] = field(default_factory=dict)


Entry = File | Moved | Fixed
Table = dict[Key, Entry]


def _never_asked_for(path: str, merge_slashes: bool) -> str | None:
    """Why no request has a written path, if none has."""
    decoded_path = key_of(path).path
    reason = None
    if "?" in path or "#" in path:
        reason = "as requests are looked up without their query, and have no fragment"
    elif any(segment in (b".", b"..") for segment in decoded_path.split(b"/")):
        reason = "as dots are resolved before a path is looked up"
    elif b"\0" in decoded_path:
        reason = "as a path with NUL is refused"
    elif merge_slashes and b"//" in decoded_path:
        reason = "as slashes in a row are one; write one, or say 'merge_slashes: false'"
    return reason


def _hands_on(line: Line) -> bool:
    """Does a line redirect a whole tree to another one, path by path?"""
    return 300 <= line.status <= 399 and names_in(line.source) == [SPLAT] == names_in(line.target)


def _leads_into_itself(line: Line) -> bool:
    """Is the tree that a line leads to part of its own? Only paths that are there can be redirected into it then."""
    before, _ = next(pieces(line.target))
    return decoded(before).startswith(key_of(line.source).path)


def _is_reference(target: str) -> bool:
    """Is it a path, or an address with a host that can be one (RFC 3986 section 4.1)?"""
    try:
        parts = urlsplit(target)
        return bool(parts.hostname) or not (parts.scheme or target.startswith("//"))
    except ValueError:
        return False


# Complexity: a list of mistakes, a branch each. The first that is there is told, so their order is part of it.
def _line_problem(line: Line) -> str | None:
    """What is wrong with a line's target, or with its names."""
    source, target = names_in(line.source), names_in(line.target)
    path = re.split("[?#]", line.target)[0]
    unknown = [name for name in target if name not in source]
    missing = sorted(set(source) - set(target))
    text = None
    if unknown:
        text = f"':{unknown[0]}' is not in '{line.source}'"
    elif target != names_in(path):
        text = f"names stand in the path of '{line.target}'; a request's query is handed on by itself"
    elif target and _hands_on(line) and BEFORE_SPLAT.match(next(pieces(path))[0]) is None:
        text = f"':splat' stands behind a slash of the path, not as in '{line.target}'; write such as '/:splat'"
    elif not _is_reference(line.target):
        text = f"'{line.target}' is no address; write one such as 'https://example.org/'"
    elif target and not _hands_on(line) and not path.startswith("/"):
        text = f"where '{line.target}' leads depends on the request; only a tree can go there: '/old/*' to ':splat'"
    elif target and missing:
        text = f"':{missing[0]}' is not in '{line.target}', so the paths meant are unclear; use all names, or none"
    elif not target and source not in ([], [SPLAT]):
        text = f"'{line.target}' has no names, so it is unclear which paths '{line.source}' means; write '/path/*'"
    return text


FORCE_HELP = "say 'force: true' to take files away, or 'force: false' to leave them where they are"


def _files_text(key: Key, files: list[Key]) -> str:
    """What to say of files where there is to be another answer."""
    if not key.prefix:
        return f"there is a file for {key.text} already"
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"files in {key.text} go before this: {files[0].text}{more}"


class Router:
    """Resolves what each path of one site is answered with."""

    def __init__(
        self, site: Site, base: Path, sources: list[Source], report: Report, *, merge_slashes: bool = True
    ) -> None:
        """base: what paths of the manifest are relative to. report: takes what is wrong."""
        self.site = site
        self.base = base
        self.sources = sources
        self.report = report
        self.merge_slashes = merge_slashes
        self.table: Table = {Key(source.route): File(source.route) for source in sources}
        self.implied: set[Key] = set()  # what nobody asked for by name, and gives way
        self.reported: set[Line | None] = set()  # whose files have been: it may be for thousands
        self.lines: dict[Key, Line] = {}  # what a line has spoken of: the first counts
        self.folders: set[Key] = set()  # what stands for a folder because it does for all below: gives way to others
        self.files: list[Key] = []  # what there is without responses and lines, in order

    def resolve(self, lines: list[Line]) -> Table:
        """Makes the whole table. The first line that speaks of a path counts."""
        self._folders()
        self._clean_urls()
        self.files = sorted(self.table)
        self._responses()
        existing = dict(self.table)
        first: dict[bytes, Line] = {}
        for line in lines:
            before = first.setdefault(shape(line.source), line)
            if self._is_asked_for(line.source, line.wrong) and (before is line or self._is_second(before, line)):
                for key, entry in self._expanded(line, existing):
                    self._put(line, key, entry)
        self._check_prefixes()
        return self.table

    def _is_asked_for(self, path: str, wrong: Callable[[str], Problem]) -> bool:
        """Can a request have this path? If not, that is reported."""
        message = _never_asked_for(path, self.merge_slashes)
        if message is not None:
            self.report.add(wrong(f"'{path}' is never asked for, {message}"))
        return message is None

    def _is_second(self, before: Line, line: Line) -> bool:
        """Reports that there are two lines for one path. False: it is not to be looked at."""
        at = before.wrong("")
        where = f" in {at.place}" if at.file != line.wrong("").file else f" in line {at.line}" if at.line else ""
        problem = replace(line.wrong(f"'{line.source}' has a line already,{where}"), help="keep one of them")
        if not line.yields:
            self.report.add(problem)
        elif (before.target, before.status) != (line.target, line.status):
            self.report.warn(problem)
        return False

    def _folders(self) -> None:
        """A folder is answered by its index, and without its slash redirected."""
        for name in reversed(self.site.index):
            suffix = b"/" + os.fsencode(name)
            for source in self.sources:
                if source.route.endswith(suffix):
                    self.table[Key(source.route[: -len(suffix) + 1])] = File(source.route)
        for key in list(self.table):
            if key.path.endswith(b"/") and len(key.path) > 1:
                bare = Key(key.path[:-1])
                if bare not in self.table:
                    self.table[bare] = Moved(301, location_of(key.path))
                    self.implied.add(bare)

    def _clean_urls(self) -> None:
        for source in self.sources if self.site.clean_urls else []:
            key = Key(source.route.removesuffix(b".html"))
            if key.path != source.route and not key.path.endswith(b"/") and key not in self.table:
                self.table[key] = File(source.route)
                self.implied.add(key)

    def _responses(self) -> None:
        first: dict[Key, str] = {}
        for path, model in self.site.responses.items():
            wrong = functools.partial(self._response_problem, path)
            before = first.setdefault(key_of(path), path)
            if before != path:
                self.report.add(wrong(f"'{path}' has a response already, as '{before}'; keep one of them"))
            if before != path or not self._is_asked_for(path, wrong):
                continue
            entry = self._fixed(path, model)
            for key in self._with_folder(key_of(path)):
                if self._gives_way(key, model.force, wrong):
                    self.table[key] = entry
                    self.implied.discard(key)
                    self.folders |= {key} if key != key_of(path) else set()

    def _files_at(self, key: Key) -> list[Key]:
        """What there is at a path or in a tree without responses and lines, and has not been taken away."""
        keys = [key]
        if key.prefix:
            start, end = (bisect.bisect_left(self.files, Key(path)) for path in (key.path, key.path[:-1] + b"0"))
            keys = self.files[start:end]
        return [item for item in keys if item in self.implied or isinstance(self.table.get(item), File)]

    def _gives_way(
        self, key: Key, force: bool | None, wrong: Callable[[str], Problem], once: Line | None = None
    ) -> bool:
        """Can there be another answer at a path or a tree? Files that would hide it are reported."""
        if key.prefix and force is False:
            return True
        present = [item for item in self._files_at(key) if item not in self.lines]
        files = [item for item in present if item not in self.implied]
        if force:
            self._take_away(key, present)
        elif files and force is None and once not in self.reported:
            self.reported |= {once} - {None}
            self.report.add(replace(wrong(_files_text(key, files)), help=FORCE_HELP))
        return key.prefix or not files or force is not False

    def _take_away(self, key: Key, present: list[Key]) -> None:
        """Removes what there is at a path or in a tree, and the redirect from the folder to the tree."""
        folder = Key(key.path[:-1])
        redirect = [folder] if key.prefix and folder in self.implied else []
        for item in [*present, *redirect]:
            del self.table[item]
            self.implied.discard(item)

    def _with_folder(self, key: Key) -> Iterator[Key]:
        """What stands for all below a folder stands for the folder too, if nothing does when that is in its place."""
        yield key
        bare = Key(key.path[:-1])
        if key.prefix and bare.path and bare not in self.table:
            yield bare

    def _response_problem(self, path: str, message: str) -> Problem:
        return self.site.problem(message, "responses", path)

    def _fixed(self, path: str, model: FixedModel) -> Fixed:
        if model.status == HTTPStatus.NO_CONTENT:
            return Fixed(model.status, None, None, model.headers)
        body = (model.body or "").encode()
        media_type = model.type or "text/plain; charset=utf-8"
        if model.file is not None:
            body = self._file_body(path, self.base / model.file)
            media_type = model.type or media_type_of(self.site, "/" + model.file, body)
        return Fixed(model.status, body, media_type, model.headers)

    def _file_body(self, path: str, file: Path) -> bytes:
        try:
            size_bytes = file.stat().st_size
            if size_bytes > BODY_BYTES_MAX:
                text = f"{file} is larger than {BODY_BYTES_MAX >> 20} MiB; serve it from a root"
                self.report.add(self._response_problem(path, text))
                return b""
            return file.read_bytes()
        except OSError as error:
            self.report.add(self._response_problem(path, f"{file} can't be read: {error.strerror}"))
            return b""

    def _put(self, line: Line, key: Key, entry: Entry) -> None:
        if key in self.lines and key not in self.folders:
            return
        if isinstance(self.table.get(key), Fixed) and key not in self.folders:
            problem = line.wrong(f"there is a response for {key.text} already; keep one of them")
            if line.yields:
                self.report.warn(problem)
            else:
                self.report.add(problem)
            return
        if self._gives_way(key, line.force, line.wrong, once=line):
            self.lines[key] = line
            self.implied.discard(key)
            self.table[key] = entry
            self.folders.discard(key)
            self.folders |= {key} if Key(key.path + b"/", True) == key_of(line.source) else set()

    def _expanded(self, line: Line, existing: Table) -> Iterator[tuple[Key, Entry]]:
        """Every path that a line speaks of."""
        message = _line_problem(line)
        if message is not None:
            self.report.add(line.wrong(message))
        elif _hands_on(line) and not _leads_into_itself(line):
            yield from self._moved_tree(line)
        elif names_in(line.target):
            yield from self._for_each_target(line, existing)
        else:
            yield from self._as_it_is(line, existing)

    def _moved_tree(self, line: Line) -> Iterator[tuple[Key, Entry]]:
        """A tree that is elsewhere as it was here: whether there is such a path, its new place knows."""
        (before, _), (after, _) = pieces(line.target)
        start = quote(before, safe=TARGET_SAFE)
        moved = Moved(line.status, start + quote(after, safe=TARGET_SAFE), len(start))
        yield from ((key, moved) for key in self._with_folder(key_of(line.source)))

    def _for_each_target(self, line: Line, existing: Table) -> Iterator[tuple[Key, Entry]]:
        path = line.target.partition("?")[0].partition("#")[0]
        rest = line.target[len(path) :]
        expression = matcher(path)
        has_match = has_route = False
        for key, entry in sorted(existing.items()):
            match = None if key.prefix or isinstance(entry, Moved) else expression.match(key.path)
            if match is not None:
                has_match = True
                route = Key(filled(line.source, match.groupdict()))
                if route != key:
                    has_route = True
                    yield route, self._entry(line, entry, location_of(key.path) + quote(rest, safe=TARGET_SAFE))
        if not has_match:
            self.report.add(line.wrong(f"nothing in this site is like '{line.target}'"))
        elif not has_route:
            self.report.add(line.wrong(f"'{line.source}' leads to itself, '{line.target}'"))

    def _as_it_is(self, line: Line, existing: Table) -> Iterator[tuple[Key, Entry]]:
        key = key_of(line.source)
        entry: Entry | None = None
        if not 300 <= line.status <= 399:
            wanted = Key(decoded(line.target))
            entry = existing.get(wanted)
            if not isinstance(entry, File | Fixed):
                self.report.add(line.wrong(self._missing(line.target, existing)))
                return
        location = quote(line.target, safe=TARGET_SAFE)
        if location == location_of(key.path) and not key.prefix:
            self.report.add(line.wrong(f"'{line.source}' redirects to itself"))
            return
        moved = self._entry(line, entry, location)
        yield from ((path, moved) for path in self._with_folder(key))

    @staticmethod
    def _entry(line: Line, entry: Entry | None, location: str) -> Entry:
        if 300 <= line.status <= 399:
            return Moved(line.status, location)
        assert entry is not None
        if line.status == HTTPStatus.OK:
            return entry
        if isinstance(entry, File):
            return Fixed(line.status, entry)
        assert isinstance(entry, Fixed)
        return Fixed(line.status, entry.body, entry.media_type, entry.headers)

    def _missing(self, target: str, existing: Table) -> str:
        if not target.startswith("/"):
            return f"'{target}' is elsewhere; only a path of this site can answer in another's place"
        near = difflib.get_close_matches(target, [key.text for key in existing], 1)
        return f"nothing is served at '{target}'" + (f"; did you mean {near[0]!r}?" if near else "")

    def _check_prefixes(self) -> None:
        for key in self.table:
            if key.prefix and len(key.path) > lib.SSI_PREFIX_BYTES_MAX:
                text = f"'{key.text}' is longer than {lib.SSI_PREFIX_BYTES_MAX} bytes, which a tree's path may have"
                self.report.add(self.site.problem(text))


def forced_trees(site: Site, lines: list[Line]) -> tuple[bytes, ...]:
    """The trees whose files are taken away."""
    forced = [path for path, model in site.responses.items() if model.force]
    forced += [line.source for line in lines if line.force and names_in(line.source) == [SPLAT]]
    return tuple(key_of(path).path for path in forced if path.endswith("/*"))


def used(table: Table, sources: list[Source]) -> list[Source]:
    """Gives the sources that something answers with; the others are none of the site's."""
    routes = {entry.route for entry in table.values() if isinstance(entry, File)}
    bodies = [entry.body for entry in table.values() if isinstance(entry, Fixed)]
    routes |= {body.route for body in bodies if isinstance(body, File)}
    return [source for source in sources if source.route in routes]
