"""From a manifest or a folder to an image: the phases in their order."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import content, image, responses
from .errors import Problem, SsccError
from .manifest import Manifest, load, of_folder

Progress = Callable[[str, int, int], None]  # phase, done bytes, total bytes


@dataclass
class Site:
    """All answers of a site, before they are framed."""

    manifest: Manifest
    sources: list[content.Source]
    routes: list[responses.Route]
    errors: list[responses.ErrorPage]
    multipart: responses.Multipart
    provenance: dict[str, Any]


def read_source(source: Path) -> tuple[Manifest, Path, bytes]:
    """The manifest of a manifest file or a folder, what its paths are relative to, and its text."""
    if source.is_dir():
        return of_folder(), source, b""
    if not source.exists():
        raise SsccError(Problem("no such file or folder; name a manifest (.yaml) or a folder of files", str(source)))
    return load(source), source.parent, source.read_bytes()


def _error_bodies(manifest: Manifest, base: Path) -> dict[int, bytes]:
    bodies = {}
    problems = []
    for status, name in manifest.error_pages.items():
        try:
            bodies[int(status)] = (base / name).read_bytes()
        except OSError as error:
            problems.append(Problem(f"error page {status} can't be read: {error.strerror}", str(base / name)))
    if problems:
        raise SsccError(*problems)
    return bodies


def plan(source: Path, scratch: Path, progress: Progress) -> Site:
    """Reads everything and makes all heads. Variants made on the way lie in scratch."""
    manifest, base, text = read_source(source)
    error_bodies = _error_bodies(manifest, base)
    sources = content.find(manifest, base)
    total = sum(each.size_bytes for each in sources)
    done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress("Reading", done, total)

    sources = content.prepare(sources, manifest, scratch, advance)
    provenance = {
        "tool": "sscc",
        "version": version("sandstorm"),
        "manifest_sha256": hashlib.sha256(text).hexdigest() if text else None,
        "sources": [
            {"path": each.name, "bytes": each.size_bytes, "sha256": each.content.sha256}
            for each in sources
            if each.content is not None
        ],
    }
    multipart = responses.multipart(sources)
    routes = responses.routes(manifest, sources, multipart)
    errors = responses.error_pages(manifest, error_bodies)
    return Site(manifest, sources, routes, errors, multipart, provenance)


def _frame(site: Site, target: Path, progress: Progress) -> image.Summary:
    total = sum(variant.content_bytes for route in site.routes for variant in route.variants)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(image.replacing(target))
        compressed = target.suffix == ".lz4"
        raw = stack.enter_context(tempfile.TemporaryFile(dir=target.parent)) if compressed else file
        writer = image.Writer(raw, site.manifest)
        for route in site.routes:
            writer.add_variants(route.variants)
            progress("Framing", writer.summary.content_bytes, total)
        summary = writer.finish(site.routes, site.errors, site.multipart, site.provenance)
        if compressed:
            done = 0

            def advance(size_bytes: int) -> None:
                nonlocal done
                done += size_bytes
                progress("Compressing", done, summary.image_bytes)

            image.compress(raw, file, advance)
    summary.files = len(site.sources)
    return summary


def build(source: Path, target: Path, progress: Progress) -> image.Summary:
    """Builds target, whole or not at all. Raises SsccError."""
    if not target.parent.is_dir():
        raise SsccError(Problem("no such folder; make it, or write the image elsewhere", str(target.parent)))
    if target.is_dir():
        raise SsccError(Problem("is a folder; name the image file to write", str(target)))
    with tempfile.TemporaryDirectory(prefix="sscc-") as scratch:
        site = plan(source, Path(scratch), progress)
        return _frame(site, target, progress)
