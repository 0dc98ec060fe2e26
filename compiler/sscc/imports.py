"""Reads `_headers` and `_redirects`, the plain text files that Netlify and Cloudflare Pages take beside a site.

They are described at https://docs.netlify.com/manage/routing/redirects/overview/ and
https://developers.cloudflare.com/pages/configuration/headers/. What can't be decided before a request comes
(countries, languages, cookies, query parameters, functions) is a mistake here, told with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from wcmatch import glob

from .errors import Problem, Report, SsccError, unreadable
from .manifest import OWN_FIELDS, Rule, Site
from .manifest_file import phrase
from .routing import Line, names_in, pieces

STATUS = re.compile(r"(\d{3})(!?)\Z")
REDIRECTS = (301, 302, 303, 307, 308)
ERRORS = (401, 403, 404, 410, 451, 500, 503)
STATUS_DEFAULT = 301
HOST = re.compile(r"(?:https?:)?//([^/]*)(/.*)?\Z")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; comments and empty ones left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SsccError(Problem(f"not UTF-8 text (byte {error.start}); save it as UTF-8", str(path))) from None
    except OSError as error:
        raise unreadable(path, error) from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _path_of(pattern: str, site: Site) -> str | None:
    """The path of a pattern that may name a host; None: it is for a host that is not this site's."""
    match = HOST.match(pattern)
    if match is None:
        return pattern
    return (match[2] or "/") if match[1].lower() in site.hosts else None


class _Redirects:
    """Reads one file of redirects."""

    def __init__(self, path: Path, site: Site, report: Report) -> None:
        self.path = path
        self.site = site
        self.report = report

    def read(self) -> list[Line]:
        made = []
        for number, text in _lines(self.path):
            line = self._line(number, text.split(" #")[0].split())
            if line is not None:
                made.append(line)
        return made

    def _wrong(self, number: int, message: str) -> None:
        self.report.add(Problem(message, str(self.path), number))

    def _line(self, number: int, words: list[str]) -> Line | None:
        source, *rest = words
        target, status, force, more = "", STATUS_DEFAULT, False, []
        for word in rest:
            match = STATUS.match(word)
            if match is not None and target:
                status, force = int(match[1]), bool(match[2])
            elif not target and word.startswith(("/", "http://", "https://")):
                target = word
            else:
                more.append(word)
        message = self._mistake(source, target, status, more)
        path = _path_of(source, self.site)
        if message is not None:
            self._wrong(number, message)
        if message is not None or path is None:
            return None
        return Line(path, target, status, force, True, lambda message: Problem(message, str(self.path), number))

    @staticmethod
    def _mistake(source: str, target: str, status: int, more: list[str]) -> str | None:
        if not source.startswith(("/", "http://", "https://")):
            return f"'{source}' is no path; a line is '/from /to 301'"
        if not target:
            return "a line is '/from /to 301'; there is no target in this one"
        if more:
            return f"'{more[0]}' depends on the request, and answers are made before it; take the line out"
        if status not in (200, *REDIRECTS, *ERRORS):
            return f"status {status} is none that a line here can have: 200, 301, 302, 303, 307, 308, 404 and 410"
        if "*" in source.removesuffix("/*"):
            return "an asterisk is the whole last segment of a path: '/old/*'"
        return None


def _escaped(pattern: str) -> str:
    """As a glob, but for the asterisk: a name is one segment."""
    return "*".join(glob.escape(text) for text, _ in pieces(pattern))


def _globs(pattern: str) -> list[str]:
    """A pattern of _headers as globs of rules. Its asterisk stands for anything, slashes too."""
    before, asterisk, after = pattern.partition("*")
    before, after = _escaped(before), _escaped(after)
    if not asterisk:
        return [before]
    if before.endswith("/"):
        return [f"{before}**{after}" if after.startswith("/") or not after else f"{before}**/*{after}"]
    return [f"{before}*{after}", f"{before}*/**{after}" if not after else f"{before}*/**/*{after}"]


class _Headers:
    """Reads one file of header fields."""

    def __init__(self, path: Path, site: Site, report: Report) -> None:
        self.path = path
        self.site = site
        self.report = report
        self.rules: list[Rule] = []
        self.pattern: str | None = None
        self.fields: dict[str, Any] = {}
        self.at = 0

    def read(self) -> list[Rule]:
        for number, text in _lines(self.path):
            if text[0] in " \t":
                self._field(number, text.strip())
            else:
                self._end()
                self.pattern, self.fields, self.at = text.strip(), {}, number
                if not self.pattern.startswith(("/", "http://", "https://")):
                    self._wrong(number, f"'{self.pattern}' is no path; fields are indented below their path")
        self._end()
        return self.rules

    def _wrong(self, number: int, message: str) -> None:
        self.report.add(Problem(message, str(self.path), number))

    def _field(self, number: int, text: str) -> None:
        name, colon, value = (part.strip() for part in text.partition(":"))
        if self.pattern is None:
            self._wrong(number, "a field before any path; write the path that it is for above it")
        elif text.startswith("!"):
            self.fields[text[1:].strip()] = None
        elif not colon or not value:
            self._wrong(number, f"'{text}' is no field; write 'Name: value'")
        elif any(f":{each}" in value for each in [*names_in(self.pattern), "splat"]):
            self._wrong(number, f"the value of {name} depends on the request, and answers are made before it")
        elif name.lower() in OWN_FIELDS and name.lower() != "content-type":
            self._wrong(number, f"{name} is set by sscc itself; leave it out")
        else:
            before = self.fields.get(name)
            self.fields[name] = f"{before}, {value}" if before else value

    def _end(self) -> None:
        """A path and its fields are a rule."""
        path = None if self.pattern is None else _path_of(self.pattern, self.site)
        if path is None or not self.fields:
            return
        if path.count("*") > 1:
            self._wrong(self.at, f"'{path}' has more than one asterisk; write a block for each path")
            return
        kinds = [self.fields.pop(name) for name in list(self.fields) if name.lower() == "content-type"]
        try:
            for each in _globs(path):
                self.rules.append(Rule(match=each, headers=self.fields, mime=kinds[-1] if kinds else None))
        except ValidationError as error:
            for wrong in error.errors():
                message, help_ = phrase(wrong)
                self.report.add(
                    Problem(message.removeprefix("headers").lstrip(".: "), str(self.path), self.at, help=help_)
                )


def read(site: Site, base: Path, report: Report) -> tuple[list[Rule], list[Line], frozenset[Path]]:
    """The rules and redirects of a site's imports, and the files themselves. report: takes what is wrong."""
    rules: list[Rule] = []
    lines: list[Line] = []
    files = set()
    for number, name in enumerate(site.imports):
        path = base / name
        files.add(path.resolve())
        with report.gathering():
            if path.name == "_redirects":
                lines += _Redirects(path, site, report).read()
            elif path.name == "_headers":
                rules += _Headers(path, site, report).read()
            else:
                text = f"{name}: only files named _headers and _redirects can be imported"
                report.add(site.problem(text, "imports", number))
    return rules, lines, frozenset(files)
