"""`sscc diff`: what clients of two images would see differently.

Compared are heads, without the fields that are patched, and bodies. Not compared: how an image is made (MTU, copies,
order of frames), and the boundary of several ranges, which follows from all contents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from ssimage._sandstorm import lib
from ssimage.loader import ENCODING_NAMES

from ..terminal import shown
from .reader import Reader, ReadRoute
from .responses import ANY, Answer, Head, answers, boundary, page_answers, parsed

Progress = Callable[[str, int, int], None]  # phase, done bytes, total bytes


@dataclass
class Change:
    """One thing that is different."""

    what: str  # "status", "header", "body", "answer" or "variants"
    old: Any
    new: Any  # of a header field None where it is absent
    encoding: str = ""
    name: str = ""  # of the header field
    answers: list[str] = field(default_factory=list)  # whose it is: GET, HEAD, 304, 206, part

    def key(self) -> tuple[str, ...]:
        """Equal for changes that differ in answers alone."""
        return self.what, self.encoding, self.name, repr(self.old), repr(self.new)


@dataclass
class Difference:
    """Everything that is different."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, list[Change]] = field(default_factory=dict)  # by path
    errors: dict[str, list[Change]] = field(default_factory=dict)  # by status
    hosts_added: list[str] = field(default_factory=list)
    hosts_removed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Is there any?"""
        hosts = self.hosts_added or self.hosts_removed
        return bool(self.added or self.removed or self.changed or self.errors or hosts)

    def document(self) -> dict[str, Any]:
        """Gives the difference as --json prints it."""

        def listed(changes: dict[str, list[Change]], key: str) -> list[dict[str, Any]]:
            return [{key: name, "changes": [asdict(change) for change in all_]} for name, all_ in changes.items()]

        return {
            "added": self.added,
            "removed": self.removed,
            "changed": listed(self.changed, "path"),
            "errors": listed(self.errors, "status"),
            "hosts_added": self.hosts_added,
            "hosts_removed": self.hosts_removed,
        }


class _Side:
    """One of the images. Bodies that several answers share are hashed once."""

    def __init__(self, reader: Reader, names: dict[int, str], advance: Callable[[int], None]) -> None:
        """names: of sites, by which the two images' are paired. advance: called with the bytes that were hashed."""
        self.reader = reader
        self.advance = advance
        self.boundary = boundary(reader)
        self.routes = {names[route.site] + route.text: route for route in reader.routes()}
        self.errors = {f"{names[site]} {row.status}".lstrip(): row for site in names for row in reader.errors(site)}
        self.digests: dict[tuple[int, int, int], str] = {}

    def options(self, route: ReadRoute) -> dict[str, Answer]:
        """A route's own answer to OPTIONS, if it has one."""
        return {} if route.options == lib.SSI_NONE else {"OPTIONS": Answer(self.reader.response(route.options))}

    def head(self, answer: Answer) -> Head:
        """Without what differs from one sending to the next."""
        head = answer.still_head(self.reader)
        return parsed(head.replace(self.boundary, ANY.encode()) if self.boundary else head)

    def body(self, answer: Answer) -> dict[str, Any]:
        """What is known of a body."""
        response = answer.response
        size_bytes = response.stream_bytes - response.head_bytes
        key = (response.first_frame, response.head_bytes, response.stream_bytes)
        if key not in self.digests:
            self.digests[key] = self.reader.body_sha256(response)
            self.advance(size_bytes)
        return {"bytes": size_bytes, "sha256": self.digests[key]}


class _Comparison:
    """Two images side by side."""

    def __init__(self, old: _Side, new: _Side) -> None:
        self.old = old
        self.new = new

    def _fields(self, old: Head, new: Head) -> list[Change]:
        changes = []
        names = {name.lower(): name for head in (old, new) for name, _ in head.fields}
        for key, name in sorted(names.items()):
            values = [[value for name, value in head.fields if name.lower() == key] for head in (old, new)]
            if values[0] != values[1]:
                before, after = (", ".join(texts) if texts else None for texts in values)
                changes.append(Change("header", before, after, name=name))
        return changes

    def _answer(self, old: Answer, new: Answer) -> list[Change]:
        heads = self.old.head(old), self.new.head(new)
        changes = []
        if heads[0].status_line != heads[1].status_line:
            changes.append(Change("status", heads[0].status_line, heads[1].status_line))
        bodies = self.old.body(old), self.new.body(new)
        if bodies[0] != bodies[1]:
            changes.append(Change("body", *bodies))
        return changes + self._fields(*heads)

    def responses(self, old: dict[str, Answer], new: dict[str, Answer], encoding: str) -> list[Change]:
        """Answers by name; what several have alike is shown once."""
        by_change: dict[tuple[str, ...], Change] = {}
        for name in dict.fromkeys([*old, *new]):
            if name in old and name in new:
                changes = self._answer(old[name], new[name])
            else:
                changes = [Change("answer", name in old, name in new)]
            for change in changes:
                change.encoding = encoding
                by_change.setdefault(change.key(), change).answers.append(name)
        return list(by_change.values())

    def route(self, old: ReadRoute, new: ReadRoute) -> list[Change]:
        """Two routes of one path."""
        sides = [
            {ENCODING_NAMES[int(variant.encoding)]: dict(answers(side.reader, variant)) for variant in route.variants}
            for side, route in ((self.old, old), (self.new, new))
        ]
        changes = self.responses(self.old.options(old), self.new.options(new), "")
        if list(sides[0]) != list(sides[1]):
            changes.append(Change("variants", list(sides[0]), list(sides[1])))
        for encoding in sides[0]:
            if encoding in sides[1]:
                changes += self.responses(sides[0][encoding], sides[1][encoding], encoding)
        return changes

    def error(self, status: str) -> list[Change]:
        """The page of a status."""
        sides: list[dict[str, Answer]] = []
        for side in (self.old, self.new):
            row = side.errors.get(status)
            sides.append({} if row is None else dict(page_answers(side.reader, row)))
        return self.responses(sides[0], sides[1], "")


def _paired(old: list[list[str]], new: list[list[str]]) -> tuple[dict[int, str], dict[int, str]]:
    """A name for each site of the two images; sites that have a host in common have the same."""
    names = {host: hosts[0] for hosts in reversed(old) for host in hosts}
    return (
        {number: hosts[0] for number, hosts in enumerate(old)},
        {
            number: next((names[host] for host in hosts if host in names), hosts[0])
            for number, hosts in enumerate(new)
        },
    )


def compare(old: Reader, new: Reader, progress: Progress) -> Difference:
    """Everything that clients would see differently."""
    difference = Difference()
    if old.file.build_id == new.file.build_id:
        return difference
    total = sum(reader.header.frame_count * reader.header.segment_bytes for reader in (old, new))
    done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress("Comparing", done, total)

    names = _paired(old.hosts, new.hosts)
    sides = _Side(old, names[0], advance), _Side(new, names[1], advance)
    hosts = [{host for site in reader.hosts for host in site} for reader in (old, new)]
    difference.hosts_added = sorted(hosts[1] - hosts[0])
    difference.hosts_removed = sorted(hosts[0] - hosts[1])
    comparison = _Comparison(*sides)
    for path in sorted(sides[0].routes.keys() | sides[1].routes.keys()):
        if path not in sides[0].routes:
            difference.added.append(path)
        elif path not in sides[1].routes:
            difference.removed.append(path)
        elif changes := comparison.route(sides[0].routes[path], sides[1].routes[path]):
            difference.changed[path] = changes
    for status in sorted(sides[0].errors.keys() | sides[1].errors.keys()):
        if changes := comparison.error(status):
            difference.errors[status] = changes
    return difference


def _text(change: Change) -> str:
    """A change for people."""
    if change.what == "body":
        sizes = [decimal(body["bytes"]) for body in (change.old, change.new)]
        text = f"body: {sizes[0]}, now {sizes[1]}" if sizes[0] != sizes[1] else f"body: other {sizes[0]}"
    elif change.what == "variants":
        text = f"variants: {', '.join(change.old)}, now {', '.join(change.new)}"
    elif change.what == "answer":
        text = "now answered" if change.new else "no longer answered"
    else:
        before, after = (body if body is not None else "absent" for body in (change.old, change.new))
        text = f"{change.name or change.what}: {before}, now {after}"
    if change.encoding:
        text = f"{change.encoding}: {text}"
    return f"{text} ({', '.join(change.answers)})" if change.answers else text


def show(difference: Difference, console: Console) -> None:
    """Shows the difference to people: + added, - removed, ~ changed."""

    def put(text: str, style: str = "") -> None:
        console.print(shown(text, style), soft_wrap=True)

    for sign, style, hosts in (("-", "red", difference.hosts_removed), ("+", "green", difference.hosts_added)):
        for host in hosts:
            put(f"{sign} host {host or '*'}", style)
    for path in difference.removed:
        put(f"- {path}", "red")
    for path in difference.added:
        put(f"+ {path}", "green")
    pages = {f"error {status}": changes for status, changes in difference.errors.items()}
    for name, changes in (difference.changed | pages).items():
        put(f"~ {name}", "yellow")
        for change in changes:
            put(f"    {_text(change)}")
    counts = len(difference.added), len(difference.removed), len(difference.changed), len(pages)
    put("routes: {} added, {} removed, {} changed; error pages: {} changed".format(*counts))
