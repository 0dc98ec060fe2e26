"""Paths and patterns as a manifest writes them: `/blog/:year/*`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from ..errors import Problem
from .model import Site

PATH_SAFE = "/~!$&'()*+,;=:@"  # pchar and slash, RFC 3986 section 3.3
PLACEHOLDER = re.compile(r":([A-Za-z]\w*)")
SPLAT = "splat"


class Key(NamedTuple):
    """A decoded path; a prefix stands for every path that begins with it."""

    path: bytes
    prefix: bool = False

    @property
    def text(self) -> str:
        """Writes the path for people."""
        return self.path.decode("utf-8", "backslashreplace") + ("*" if self.prefix else "")


@dataclass(frozen=True)
class Line:
    """One line of a list of patterns.

    Attributes:
        status: 200 for a rewrite, 3xx for a redirect, else what goes with the target's body.
        force: What becomes of files at its paths: True takes them away, False leaves them; None: there may be none.
        wrong: A message about it as a mistake at its place.
        yields: Of two lines for a path the first counts, and the second is no mistake.
    """

    source: str
    target: str
    status: int
    force: bool | None
    wrong: Callable[[str], Problem]
    yields: bool = False


def lines_of(site: Site) -> list[Line]:
    """What a manifest says of redirects and rewrites."""

    def at(*place: int | str) -> Callable[[str], Problem]:
        return lambda message: site.problem(message, *place)

    lines = [
        Line(redirect.source, redirect.to, redirect.status, redirect.force, at("redirects", number))
        for number, redirect in enumerate(site.redirects)
    ]
    # A tree that one page answers for is an application's, whose files go before it.
    lines += [
        Line(path, target, 200, False if path.endswith("/*") else None, at("rewrites", path))
        for path, target in site.rewrites.items()
    ]
    if site.fallback is not None:
        lines.append(Line("/*", site.fallback, 200, False, at("fallback")))
    return lines


def decoded(path: str) -> bytes:
    """A written path, decoded as a request's is."""
    return unquote_to_bytes(os.fsencode(path))


def key_of(path: str) -> Key:
    """A written path without names; a tree ends with an asterisk."""
    return Key(decoded(path.removesuffix("*")), path.endswith("/*"))


def location_of(path: bytes) -> str:
    """A path as a redirect's target."""
    return quote(path, safe=PATH_SAFE)


def names_in(pattern: str) -> list[str]:
    """The placeholders of a pattern; an asterisk at its end is the splat."""
    names = PLACEHOLDER.findall(pattern.partition("://")[2] if "://" in pattern else pattern)
    return [*names, *([SPLAT] if pattern.endswith("/*") else [])]


def pieces(pattern: str) -> Iterator[tuple[str, str]]:
    """A pattern's text up to each placeholder, with that; the last has none."""
    parts = PLACEHOLDER.split(pattern)
    return zip(parts[::2], [*parts[1::2], ""], strict=True)


def matcher(target: str) -> re.Pattern[bytes]:
    """Finds a target's placeholders in an existing path: a name is a segment, the splat whatever is left."""
    expression = b""
    seen = set()
    for text, name in pieces(target):
        expression += re.escape(decoded(text))
        if name in seen:
            expression += f"(?P={name})".encode()
        elif name:
            expression += f"(?P<{name}>{'.*' if name == SPLAT else '[^/]+'})".encode()
        seen.add(name)
    return re.compile(expression + rb"\Z", re.DOTALL)


def filled(pattern: str, values: dict[str, bytes]) -> bytes:
    """A pattern's path with its placeholders set."""
    if pattern.endswith("/*"):
        pattern = pattern[:-1] + f":{SPLAT}"
    return b"".join(decoded(text) + (values[name] if name else b"") for text, name in pieces(pattern))


def shape(source: str) -> bytes:
    """Equal for patterns of the same paths."""
    return b"\0".join(decoded(text) for text, _ in pieces(source))
