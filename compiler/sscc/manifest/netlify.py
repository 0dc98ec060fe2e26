"""Reads `_headers` and `_redirects`, the plain text files that Netlify and Cloudflare Pages take beside a site.

They are described at https://docs.netlify.com/manage/routing/redirects/overview/ and
https://developers.cloudflare.com/pages/configuration/headers/. What can't be decided before a request comes
(countries, languages, cookies, query parameters, functions) is a mistake here, reported with its line.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wcmatch import glob

from ..errors import Problem, Report, SsccError, unreadable
from .model import FIELD_VALUE, MEDIA_TYPE, NEVER_SENT, OWN_FIELDS, TOKEN, Block, Rule, Site, host_name
from .patterns import Line, names_in, pieces

STATUS = re.compile(r"(\d{3})(!?)\Z")
REDIRECTS = (301, 302, 303, 307, 308)
ERRORS = (401, 403, 404, 410, 451, 500, 503)
STATUS_DEFAULT = 301
ADDRESS = re.compile(r"(?:https?:)?//([^/]*)(/.*)?\Z")
FROM = ("/", "http://", "https://")
# What Netlify decides by who asks, and what it does while it hands a request on.
CONDITIONS = ("country", "language", "role", "cookie")
SIGNED = "signed"
FUNCTIONS = "/.netlify/"


class _File:
    """One file of lines."""

    def __init__(self, path: Path, site: Site, report: Report) -> None:
        self.path = path
        self.site = site
        self.report = report

    def lines(self) -> Iterator[tuple[int, str]]:
        """Reads the lines that say something, with their numbers. A byte-order mark is none of the text."""
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise SsccError(
                Problem(f"not UTF-8 text (byte {error.start}); save it as UTF-8", str(self.path))
            ) from None
        except OSError as error:
            raise unreadable(self.path, error) from None
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield number, line

    def problem(self, at: tuple[int, str], word: str, message: str, what_to_do: str = "") -> Problem:
        """Makes a problem at a word of a line. at: the line's number and text."""
        number, text = at
        column = text.find(word) + 1
        return Problem(message, str(self.path), number, column, len(word) if column else 0, what_to_do)

    def add(self, at: tuple[int, str], word: str, message: str, what_to_do: str = "") -> None:
        """Reports a problem at a word of a line."""
        self.report.add(self.problem(at, word, message, what_to_do))

    def path_of(self, at: tuple[int, str], pattern: str) -> str | None:
        """The path of a pattern that may name a host; None: that is not this site's, which is reported."""
        match = ADDRESS.match(pattern)
        if match is None:
            return pattern
        try:
            host = host_name(match[1].removesuffix(":80"))
        except ValueError:
            host = ""
        if [host] == self.site.hosts:
            return match[2] or "/"
        if host in self.site.hosts:
            message = f"'{match[1]}' is one of several hosts of this site, and a line here is for all of them"
        elif self.site.hosts:
            message = f"'{match[1]}' is not the host of this site ({', '.join(self.site.hosts)})"
        else:
            message = f"'{match[1]}' is one host, and this site is for any"
        what_to_do = "take it out, or give that host a site of its own in a manifest: 'sites: [{hosts: [...], ...}]'"
        self.add(at, pattern, message, what_to_do)
        return None


class _Redirects(_File):
    """One file of redirects."""

    def read(self) -> list[Line]:
        """Reads the file's lines, but for those that are wrong."""
        lines = (self._line((number, text)) for number, text in self.lines())
        return [line for line in lines if line is not None]

    def _line(self, at: tuple[int, str]) -> Line | None:
        source, *rest = re.split(r"\s#", at[1])[0].split()
        target, status, force, more = "", STATUS_DEFAULT, False, []
        for word in rest:
            match = STATUS.match(word)
            if match is not None:
                status, force = int(match[1]), bool(match[2])
            elif not target and word.startswith(FROM):
                target = word
            else:
                more.append(word)
        mistake = self._mistake(source, target, status, more)
        if mistake is not None:
            self.add(at, *mistake)
            return None
        path = self.path_of(at, source)
        if path is None:
            return None
        wrong = functools.partial(self.problem, at, source)
        return Line(path, target, status, force, wrong, yields=True)

    @classmethod
    def _mistake(cls, source: str, target: str, status: int, more: list[str]) -> tuple[str, str, str] | None:
        """The word that is wrong, what is wrong with it, and what to do."""
        mistake = None
        if not source.startswith(FROM):
            mistake = source, f"'{source}' is no path", "a line is '/from /to 301'"
        elif more:
            mistake = more[0], *cls._unknown(more[0])
        elif not target:
            mistake = source, "there is no target in this line", "a line is '/from /to 301'"
        elif status not in (200, *REDIRECTS, *ERRORS):
            mistake = str(status), f"{status} is no status of a line", "200, 301, 302, 303, 307, 308, 404 and 410 are"
        elif status not in REDIRECTS and not target.startswith("/"):
            mistake = target, "requests are not handed on to other hosts", "redirect there: with 301 or 302"
        elif target.startswith(FUNCTIONS):
            mistake = target, "functions are run by Netlify alone", "take the line out"
        elif "*" in source.removesuffix("/*"):
            mistake = source, "an asterisk is the whole last segment of a path", "write '/old/*'"
        return mistake

    @staticmethod
    def _unknown(word: str) -> tuple[str, str]:
        """What to say of a word that is neither path nor status."""
        name, equals, _ = word.partition("=")
        if name.lower() == SIGNED:
            return f"'{word}' is for requests that are handed on to other hosts, which none are", "take the line out"
        if equals and name.lower() in CONDITIONS:
            return f"'{word}' depends on who asks, and answers are made before anybody does", "take the line out"
        if equals:
            return f"'{word}' depends on the request's query, and answers are made before it", "take the line out"
        return f"'{word}' is neither a path nor a status", "a line is '/from /to 301'"


def _escaped(pattern: str) -> str:
    """Writes a pattern as a glob, but for the asterisk: a name is one segment."""
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


class _Headers(_File):
    """One file of header fields."""

    def __init__(self, path: Path, site: Site, report: Report) -> None:
        super().__init__(path, site, report)
        self.blocks: list[Block] = []
        self.pattern: str | None = None
        self.fields: list[tuple[str, str]] = []
        self.taken_away: list[str] = []
        self.at = (0, "")
        self.is_empty = True

    def read(self) -> list[Block]:
        """A block for each path, or for each glob that one takes."""
        for number, text in self.lines():
            if text[0] in " \t":
                self._field((number, text), text.strip())
            else:
                self._end()
                self._begin((number, text), text.strip())
        self._end()
        return self.blocks

    def _begin(self, at: tuple[int, str], pattern: str) -> None:
        self.at, self.pattern, self.is_empty = at, pattern, True
        self.fields, self.taken_away = [], []
        if not pattern.startswith(FROM):
            self.add(at, pattern, f"'{pattern}' is no path", "fields are indented below their path")

    def _field(self, at: tuple[int, str], text: str) -> None:
        self.is_empty = False
        name, value = (part.strip() for part in text.partition(":")[::2])
        if text.startswith("!"):
            name = text[1:].strip()
            mistake = None if TOKEN.match(name) else (f"'{name}' is no name of a field", "write '! Name'")
        else:
            mistake = self._mistake(text, name, value)
        if self.pattern is None:
            mistake = "a field before any path", "write the path that it is for above it"
        if mistake is not None:
            self.add(at, text, *mistake)
        elif text.startswith("!"):
            self.taken_away.append(name)
        else:
            self.fields.append((name, value))

    def _mistake(self, text: str, name: str, value: str) -> tuple[str, str] | None:
        """What is wrong with a field, and what to do."""
        mistake = None
        if not value:
            mistake = f"'{text}' is no field", "write 'Name: value'"
        elif TOKEN.match(name) is None:
            mistake = f"'{name}' is no header field name", "it has letters, digits and - only"
        elif FIELD_VALUE.match(value) is None:
            mistake = f"the value of {name} is no printable ASCII", "write it in ASCII, in one line"
        elif name.lower() in NEVER_SENT:
            what_to_do = "take the line out, and what it was to protect out of the folder"
            mistake = f"{name} {NEVER_SENT[name.lower()]}", what_to_do
        elif any(f":{placeholder}" in value for placeholder in [*names_in(self.pattern or ""), "splat"]):
            mistake = (
                f"the value of {name} depends on the request, and answers are made before it",
                "take the line out",
            )
        elif name.lower() == "content-type" and MEDIA_TYPE.match(value) is None:
            mistake = f"'{value}' is no media type", "write one such as 'text/plain'"
        elif name.lower() in OWN_FIELDS and name.lower() != "content-type":
            mistake = f"{name} is set by sscc itself", "leave it out"
        return mistake

    def _end(self) -> None:
        """A path and its fields are a rule."""
        if self.pattern is None:
            return
        path = self.path_of(self.at, self.pattern)
        if path is None:
            return
        if self.is_empty:
            self.report.warn(self.problem(self.at, self.pattern, f"there is no field for '{self.pattern}'"))
        if path.count("*") > 1:
            self.add(self.at, self.pattern, f"'{path}' has more than one asterisk", "write a block for each path")
        elif self.fields or self.taken_away:
            kinds = [value for name, value in self.fields if name.lower() == "content-type"]
            self.fields = [(name, value) for name, value in self.fields if name.lower() != "content-type"]
            more: dict[str, Any] = {
                "written": self.pattern,
                "fields": self.fields,
                "taken_away": self.taken_away,
                "mime": kinds[-1] if kinds else None,
            }
            self.blocks += [
                Block(match=pattern, place=f"{self.path}:{self.at[0]}", **more) for pattern in _globs(path)
            ]


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
