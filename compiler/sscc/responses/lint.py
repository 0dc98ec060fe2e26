"""What a manifest says that can't have been meant: redirects in a circle or to nowhere, rules for nothing.

Looked at when all sites have their tables, as the runtime would look up one path after the other.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from ..errors import Problem, Report
from ..manifest.model import IMPORTS, Block, Manifest, Rule, Site
from ..manifest.patterns import Key, Line, decoded, location_of
from ..sources.source import Source, matches
from .routing import Entry, Moved, Table

STEPS_MAX = 20  # that browsers follow, https://fetch.spec.whatwg.org/#http-redirect-fetch
SAMPLE = b":splat"  # what stands for any path in a tree, where one is asked for
STEPS_SHOWN = 5
SUGGESTIONS_MAX = 10  # of near names: each takes long in a large site
NEAR = 0.75  # how like a name must be to be suggested: difflib's ratio


@dataclass(frozen=True)
class Place:
    """A path that is asked of a site."""

    site: int
    path: bytes


class Web:
    """All sites of a manifest, as clients go through them."""

    def __init__(self, sites: list[Site], tables: list[Table], *, merge_slashes: bool) -> None:
        """tables: of the sites. merge_slashes: slashes in a row are one."""
        self.sites = sites
        self.tables = tables
        self.merge_slashes = merge_slashes
        self.hosts = {name: number for number, site in enumerate(sites) for name in site.names}

    def find(self, place: Place) -> tuple[Key, Entry] | None:
        """The route of a path, or the longest prefix of it."""
        table, path = self.tables[place.site], place.path
        if (entry := table.get(Key(path))) is not None:
            return Key(path), entry
        end = len(path)
        while (end := path.rfind(b"/", 0, end) + 1) > 0:
            key = Key(path[:end], True)
            if (entry := table.get(key)) is not None:
                return key, entry
            end -= 1
        return None

    def led_to(self, place: Place, key: Key, entry: Moved) -> Place | None:
        """Where a redirect leads, if that is of a site here by plain HTTP."""
        splat = location_of(place.path[len(key.path) :]).lstrip("/") if entry.splat_offset else ""
        at = entry.splat_offset
        location = entry.location[:at] + splat + entry.location[at:] if at else entry.location
        parts = urlsplit(location)
        if parts.scheme not in ("", "http"):
            return None
        site: int | None = place.site
        if parts.netloc:
            site = self.hosts.get(parts.netloc.lower().removesuffix(":80").removesuffix("."))
        if site is None:
            return None
        path = decoded(parts.path or "/")
        return Place(site, re.sub(b"/+", b"/", path) if self.merge_slashes else path)

    def steps(self, place: Place) -> Iterator[tuple[Place, Key]]:
        """The places that redirects lead through from one on, each with what redirects it."""
        at: Place | None = place
        for _ in range(STEPS_MAX + 1):
            step = None if at is None else self.find(at)
            if at is None or step is None or not isinstance(step[1], Moved):
                return
            yield at, step[0]
            at = self.led_to(at, step[0], step[1])

    def text(self, place: Place, of: int) -> str:
        """A place as people write it; with its host where it is of another site. of: the site that is looked at."""
        path = location_of(place.path)
        return path if place.site == of else f"http://{self.sites[place.site].names[0]}{path}"


def _sample(number: int, key: Key) -> Place:
    return Place(number, key.path + SAMPLE if key.prefix else key.path)


Way = list[tuple[Place, Key]]


def _circle(web: Web, start: Place) -> tuple[Way, bool]:
    """The circle that redirects from a place come to, if any. And: does it close? It may go on without an end."""
    way: Way = []
    for place, key in web.steps(start):
        for number, (before, _) in enumerate(way):
            if before == place:
                return way[number:], True
        way.append((place, key))
    return (way if len(way) > STEPS_MAX else []), False


def _circle_text(web: Web, circle: Way, closed: bool, number: int) -> str:
    """number: of the site that it is reported for."""
    shown = [web.text(place, number) for place, _ in circle]
    shown = [*shown, shown[0]] if closed else [*shown[:STEPS_SHOWN], "..."]
    return f"redirects in a circle: {' -> '.join(shown)}"


def circles(web: Web, lines: list[dict[Key, Line]], report: Report) -> None:
    """Reports redirects in a circle, each once. lines: of each site, by the paths that they made."""
    reported: set[Line | None] = set()
    for number, by_path in enumerate(lines):
        for key, line in by_path.items():
            if line in reported or not isinstance(web.tables[number].get(key), Moved):
                continue
            circle, closed = _circle(web, _sample(number, key))
            members = {lines[place.site].get(path) for place, path in circle[-STEPS_SHOWN:] or circle}
            if line in members and not reported & members - {None}:
                reported |= members
                problem = line.wrong(_circle_text(web, circle, closed, number))
                report.add(replace(problem, help="let one of them lead to what is served"))


def _near(web: Web, place: Place) -> str:
    """What is there with a name like a path's."""
    paths = [key.text for key, entry in web.tables[place.site].items() if not isinstance(entry, Moved)]
    near = difflib.get_close_matches(os.fsdecode(place.path), paths, 1, NEAR)
    return f"did you mean {near[0]!r}?" if near else ""


def dead_ends(web: Web, lines: list[dict[Key, Line]], report: Report) -> None:
    """Warns of redirects to paths of a site here that nothing answers."""
    reported: set[Line] = set()
    for number, by_path in enumerate(lines):
        for key, line in by_path.items():
            entry = web.tables[number].get(key)
            if not isinstance(entry, Moved) or line in reported:
                continue
            led = web.led_to(_sample(number, key), key, entry)
            if led is None or web.find(led) is not None or (entry.splat_offset and _is_tree(web, led)):
                continue
            reported.add(line)
            problem = line.wrong(f"nothing is served at '{line.target}'")
            is_helped = not entry.splat_offset and len(reported) <= SUGGESTIONS_MAX
            report.warn(replace(problem, help=_near(web, led) if is_helped else ""))


def _is_tree(web: Web, place: Place) -> bool:
    """Is there anything beside a path, or below?"""
    start = place.path.partition(SAMPLE)[0]
    return any(key.path.startswith(start) for key in web.tables[place.site])


def _others(pattern: str) -> Iterator[str]:
    """What may have been meant by a glob."""
    rooted = pattern if pattern.startswith("/") else f"/{pattern}"
    yield from (rooted, f"/**{rooted}") if "/" in pattern else (f"/**{rooted}", rooted)
    yield re.sub(r"(?<!\*)\*(?!\*)", "**", rooted)
    yield re.sub(r"(?<![*/])\*(?!\*)|(?<!\*)\*(?=\.)", "**/*", rooted)
    yield f"{rooted.rstrip('/*')}/**"


def _suggestion(pattern: str, paths: list[str]) -> str:
    """A glob that matches something."""
    for other in dict.fromkeys(_others(pattern)):
        if other != pattern and any(matches(path, other) for path in paths):
            return f"did you mean '{other}'?"
    near = difflib.get_close_matches(pattern, paths, 1, NEAR) if not re.search(r"[*?\[]", pattern) else []
    return f"did you mean {near[0]!r}?" if near else ""


def _idle(rules: list[tuple[str, Rule]], paths: list[str]) -> list[Rule]:
    """Warns of globs that match no path. rules: with what is one rule for people."""
    busy = {name for name, rule in rules if any(matches(path, rule.match) for path in paths)}
    return list({name: rule for name, rule in reversed(rules) if name not in busy}.values())[::-1]


def _rules_by_place(manifest: Manifest, sites: list[Site]) -> Iterator[tuple[Site, list[Site]]]:
    """Whose rules there are, and the sites that have them."""
    yield manifest, [site for site in sites if site.rules is manifest.rules]
    for site in sites:
        if site.rules is not manifest.rules:
            yield site, [site]


def rules(manifest: Manifest, sites: list[Site], tables: list[Table], report: Report) -> None:
    """Warns of rules that match nothing; one that several sites have must match in one of them."""
    for owner, having in _rules_by_place(manifest, sites):
        paths = [os.fsdecode(key.path) for site in having for key in tables[sites.index(site)]]
        named = [(str(number), rule) for number, rule in enumerate(owner.rules)]
        numbers = {id(rule): number for number, rule in enumerate(owner.rules)}
        for rule in _idle(named if having else [], paths):
            problem = owner.problem(f"'{rule.match}' matches nothing", "rules", numbers[id(rule)], "match")
            report.warn(replace(problem, help=_suggestion(rule.match, paths)))


def unread_imports(site: Site, sources: list[Source], report: Report) -> None:
    """Warns of files of other servers that a manifest does not import: all can read what counts for nothing."""
    places = {os.fsencode(root.at + name): name for root in site.all_roots() for name in IMPORTS}
    for source in sources:
        if source.route in places:
            what_to_do = f"write 'imports: [{source.name}]' to have what it says, or exclude it"
            report.warn(Problem("is not imported, and served as a file", source.name, help=what_to_do))


def blocks(made: list[Block], table: Table, report: Report) -> None:
    """Warns of blocks of `_headers` that match nothing."""
    paths = [os.fsdecode(key.path) for key in table]
    for rule in _idle([(block.place, block) for block in made], paths):
        assert isinstance(rule, Block)
        file, _, line = rule.place.rpartition(":")
        help_ = "" if "*" in rule.written else _suggestion(rule.written, paths)
        report.warn(Problem(f"'{rule.written}' matches nothing", file, int(line), 1, len(rule.written), help_))
