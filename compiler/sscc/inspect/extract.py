"""`sscc extract`: the files back out of an image."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import Problem, SsccError
from ..target import replacing
from .reader import Reader, ReadRoute


def _relative(reader: Reader, route: ReadRoute) -> Path | None:
    """Where a route's file goes below the target; None if that is not below it. Several sites have a folder each."""
    name = os.fsdecode(route.path.lstrip(b"/"))
    if route.path.endswith(b"/"):
        name += "index.html"
    if reader.header.site_count > 1:
        name = f"{route.host.replace('*', 'any') or 'default'}/{name}"
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        return None
    return Path(*parts)


def _inside(target: Path, relative: Path) -> bool:
    """No link inside the target leads out of it."""
    return (target / relative).parent.resolve().is_relative_to(target.resolve())


def extract(reader: Reader, target: Path, *, force: bool) -> tuple[int, int]:
    """Writes every file below target; their number and bytes. Raises SsccError."""
    count = size_bytes = 0
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SsccError(Problem(f"can't be made: {error.strerror}", str(target))) from None
    for route in reader.routes():
        response = reader.original(route)
        if response is None:
            continue
        relative = _relative(reader, route)
        if relative is None or not _inside(target, relative):
            raise SsccError(f"{route.text}: would be written outside of {target}; the image is not to be trusted")
        path = target / relative
        if path.exists() and not force:
            raise SsccError(Problem("exists already; name another folder, or say --force", str(path)))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SsccError(Problem(f"can't be made: {error.strerror}", str(path.parent))) from None
        with replacing(path, clean=False) as file:
            size_bytes += sum(file.write(piece) for piece in reader.body(response))
        count += 1
    return count, size_bytes
