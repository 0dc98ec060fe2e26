"""`sscc extract`: the files back out of an image."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import Problem, SsccError
from .image import replacing
from .reader import Reader, ReadRoute


def _relative(route: ReadRoute) -> Path | None:
    """Where a route's file goes below the target; None if that is not below it."""
    name = os.fsdecode(route.path.lstrip(b"/"))
    if route.path.endswith(b"/"):
        name += "index.html"
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        return None
    return Path(*parts)


def _inside(target: Path, relative: Path) -> bool:
    """No link inside the target leads out of it."""
    return (target / relative).parent.resolve().is_relative_to(target.resolve())


def extract(reader: Reader, target: Path, *, force: bool) -> tuple[int, int]:
    """Writes every file below target; their number and bytes. Raises SsccError."""
    routes = reader.routes()
    files = {route.path for route in routes if not route.path.endswith(b"/")}
    count = size_bytes = 0
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SsccError(Problem(f"can't be made: {error.strerror}", str(target))) from None
    for route in routes:
        response = reader.identity(route)
        if response is None or (route.path.endswith(b"/") and _has_file(route, routes, files)):
            continue
        relative = _relative(route)
        if relative is None or not _inside(target, relative):
            raise SsccError(f"{route.text}: would be written outside of {target}; the image is not to be trusted")
        path = target / relative
        if path.exists() and not force:
            raise SsccError(Problem("exists already; name another folder, or say --force", str(path)))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SsccError(Problem(f"can't be made: {error.strerror}", str(path.parent))) from None
        with replacing(path) as file:
            size_bytes += sum(file.write(piece) for piece in reader.body(response))
        count += 1
    return count, size_bytes


def _has_file(route: ReadRoute, routes: list[ReadRoute], files: set[bytes]) -> bool:
    """Does a file's own route have what stands for its folder?"""
    wanted = route.variants[0].get_response
    depth = route.path.count(b"/")
    return any(
        other.path in files
        and other.path.startswith(route.path)
        and other.path.count(b"/") == depth
        and other.variants[0].get_response == wanted
        for other in routes
    )
