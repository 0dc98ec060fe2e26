"""Pages that list the names in a folder, made at build time."""

from __future__ import annotations

import hashlib
import html
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.filesize import decimal

from ..manifest.model import Site
from ..manifest.patterns import location_of
from ..sources.source import NO_TIME, Source

MEDIA_TYPE = "text/html; charset=utf-8"
STYLE = (
    "body{font:16px system-ui,sans-serif;margin:2em}td,th{padding:.2em 1em .2em 0;text-align:left}"
    "td:nth-child(2){text-align:right;white-space:nowrap}"
)


def _text(name: bytes) -> str:
    return html.escape(name.decode("utf-8", "replace"))


def _row(name: bytes, size: str, mtime_s: int) -> str:
    # "./" keeps a colon in the name from ending a scheme, RFC 3986 section 4.2.
    when = datetime.fromtimestamp(mtime_s, UTC).strftime("%Y-%m-%d %H:%M") if mtime_s != NO_TIME else ""
    return f'<tr><td><a href="./{html.escape(location_of(name))}">{_text(name)}</a><td>{size}<td>{when}\n'


def page(folder: bytes, folders: dict[bytes, int], files: list[Source]) -> bytes:
    """A folder's page. folders: its folders' names with the time of the newest file below each."""
    title = f"Index of {_text(folder)}"
    rows = [_row(name + b"/", "", mtime_s) for name, mtime_s in sorted(folders.items())]
    rows += [_row(source.route[len(folder) :], decimal(source.size_bytes), source.mtime_s) for source in files]
    up = "" if folder == b"/" else '<tr><td><a href="../">../</a><td><td>\n'
    return (
        f'<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n"
        f"<table>\n<tr><th>Name<th>Size<th>Modified (UTC)\n{up}{''.join(rows)}</table>\n</html>\n"
    ).encode()


def _parents(route: bytes) -> Iterator[bytes]:
    """Gives all folders above a route, the root first."""
    at = route.find(b"/")
    while at >= 0:
        yield route[: at + 1]
        at = route.find(b"/", at + 1)


def pages(site: Site, sources: list[Source], scratch: Path) -> list[Source]:
    """A source for each folder that has no index. Their files lie in scratch."""
    if not site.listing:
        return []
    files: dict[bytes, list[Source]] = {}
    folders: dict[bytes, dict[bytes, int]] = {}
    for source in sources:
        above = list(_parents(source.route))
        files.setdefault(above[-1], []).append(source)
        for parent, child in zip(above, above[1:], strict=False):
            names = folders.setdefault(parent, {})
            below = child[len(parent) : -1]
            names[below] = max(names.get(below, 0), source.mtime_s)
    indexed = {os.fsencode(name) for name in site.index}
    listings = []
    for folder in sorted(files.keys() | folders.keys()):
        here = files.get(folder, [])
        if any(source.route[len(folder) :] in indexed for source in here):
            continue
        text = page(folder, folders.get(folder, {}), here)
        path = scratch / f"listing-{hashlib.sha256(folder).hexdigest()[:32]}.html"
        path.write_bytes(text)
        mtime_s = max([source.mtime_s for source in here] + list(folders.get(folder, {}).values()))
        name = f"listing of {folder.decode('utf-8', 'backslashreplace')}"
        listings.append(Source(str(path), name, folder, len(text), mtime_s, media_type=MEDIA_TYPE))
    return listings
