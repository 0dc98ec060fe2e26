"""What an image is to hold, before anything is framed: sites, their files, and the answer to every path."""

from __future__ import annotations

import functools
import hashlib
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .errors import Problem, Report, SsccError
from .manifest import netlify
from .manifest.choice import Choice
from .manifest.model import Block, Manifest, Site
from .manifest.patterns import Key, Line, lines_of
from .manifest.yaml_file import load, of_folder
from .responses import lint, listing
from .responses.builder import ResponseBuilder, Route, routes_of
from .responses.errors import ErrorPage, error_pages
from .responses.multipart import Multipart, multipart_of
from .responses.routing import Router, Table, forced_trees, used
from .sources import discover, encode
from .sources.cache import Cache, DigestIndex, forgetting
from .sources.scan import Scanner
from .sources.source import Source
from .target import STDOUT

FILES_MIN, FILES_PER_PROCESS = 32, 4  # that are open at once
KEPT_BYTES = 128 << 20  # of small files, at most, that need not be read again to be framed

Progress = Callable[[str, int, int], None]  # phase, how much of it is done, and is to be done


@dataclass
class SitePlan:
    """A site of the manifest: what it says, imports included, its files, and what answers for each path."""

    site: Site
    sources: list[Source]
    table: Table
    lines: dict[Key, Line]  # that made what of the table
    error_bodies: dict[int, bytes]


@dataclass
class Plan:
    """All answers of an image, before they are framed."""

    manifest: Manifest
    sites: list[SitePlan]
    routes: list[Route]
    errors: list[ErrorPage]
    multipart: Multipart
    provenance: dict[str, Any]
    work: encode.Work
    digests: DigestIndex | None

    @property
    def hosts(self) -> list[list[str]]:
        """The names of each site."""
        return [plan.site.names for plan in self.sites]

    @property
    def content_bytes(self) -> int:
        """The bytes of all bodies, those that routes share counted once."""
        distinct = {id(route.variants): route.variants for route in self.routes}
        of_routes = sum(variant.content_bytes for variants in distinct.values() for variant in variants)
        return of_routes + sum(page.get.body_bytes for page in self.errors)

    @property
    def file_count(self) -> int:
        """How many files were read."""
        return sum(source.media_type is None for plan in self.sites for source in plan.sources)

    def sources(self) -> list[tuple[str, int, str]]:
        """Path, size and SHA-256 of each file."""
        return [
            (source.name, source.size_bytes, source.content.sha256)
            for plan in self.sites
            for source in plan.sources
            if source.content is not None and source.media_type is None
        ]


def read_source(source: Path) -> tuple[Manifest, Path, bytes]:
    """The manifest of a manifest file or a folder, what its paths are relative to, and its text."""
    if source.is_dir():
        return of_folder(source), source, b""
    if not source.exists():
        raise SsccError(Problem("no such file or folder; name a manifest (.yaml) or a folder of files", str(source)))
    return load(source), source.parent, source.read_bytes()


def plan(
    source: Path,
    folder: Path,
    progress: Progress,
    cache: Cache | None = None,
    report: Report | None = None,
    choice: Choice | None = None,
    boundary: str = "",
) -> Plan:
    """Reads everything and makes all heads. Variants made on the way lie in folder; with a cache, its own.

    report: takes warnings. choice: what is said of all roots. boundary: of several ranges, instead of the contents'.
    Raises SsccError with every mistake.
    """
    report = report or Report()
    _check_open_files()
    manifest, base, text = read_source(source)
    scanner = Scanner(KEPT_BYTES, functools.partial(progress, "Reading"))
    plans = survey(manifest, base, folder, report, with_own_files(choice, source), scanner)
    digests = cache.digests(base.resolve()) if cache is not None else None
    with forgetting(digests):
        sites = [(plan.site, plan.sources) for plan in plans]
        work = encode.prepare(sites, folder, progress, report, cache, digests)
    report.finish()
    multipart = Multipart(boundary) if boundary else multipart_of([item for each in plans for item in each.sources])
    routes, errors = [], []
    for number, each in enumerate(plans):
        routes += routes_of(number, ResponseBuilder(each.site, each.sources, multipart), each.table)
        errors += error_pages(number, each.site, each.error_bodies)
    return Plan(manifest, plans, routes, errors, multipart, _provenance(text), work, digests)


def survey(
    manifest: Manifest, base: Path, scratch: Path, report: Report, choice: Choice, scanner: Scanner | None = None
) -> list[SitePlan]:
    """Plans all sites. Raises SsccError with the mistakes of all, those that are reported already too.

    report: takes warnings. choice: what is said of all roots. scanner: reads files that are small.
    """
    plans = []
    sites = manifest.all_sites()
    for number, site in enumerate(sites):
        folder = scratch / str(number)
        folder.mkdir()
        with report.gathering():
            merge_slashes = manifest.merge_slashes
            plans.append(_site_plan(site, base, folder, report, scanner, choice, merge_slashes=merge_slashes))
    if len(plans) == len(sites):
        _lint(manifest, sites, plans, report)
    report.finish()
    return plans


def _site_plan(
    site: Site,
    base: Path,
    scratch: Path,
    report: Report,
    scanner: Scanner | None,
    choice: Choice,
    *,
    merge_slashes: bool,
) -> SitePlan:
    """A site's files, and the contents of small ones if there is a scanner."""
    rules, lines, imported = netlify.read(site, base, report)
    site = site.model_copy(update={"rules": [*rules, *site.rules]})
    sources = discover.find(site, base, report, imported, scanner, choice)
    lint.unread_imports(site, sources, report)
    lines = [*lines_of(site), *lines]
    forced = forced_trees(site, lines)
    listed = [source for source in sources if not source.route.startswith(forced)]
    sources = sorted([*sources, *listing.pages(site, listed, scratch)], key=lambda source: source.route)
    router = Router(site, base, sources, report, merge_slashes=merge_slashes)
    table = router.resolve(lines)
    lint.blocks([rule for rule in rules if isinstance(rule, Block)], table, report)
    return SitePlan(site, used(table, sources), table, router.lines, _error_bodies(site, base, report))


def _error_bodies(site: Site, base: Path, report: Report) -> dict[int, bytes]:
    bodies = {}
    for status, name in site.error_pages.items():
        try:
            bodies[int(status)] = (base / name).read_bytes()
        except OSError as error:
            text = f"{base / name}: error page {status} can't be read: {error.strerror}"
            report.add(site.problem(text, "error_pages", status))
    return bodies


def _lint(manifest: Manifest, sites: list[Site], plans: list[SitePlan], report: Report) -> None:
    """Reports what can be found out when all sites are known."""
    tables = [plan.table for plan in plans]
    web = lint.Web(sites, tables, merge_slashes=manifest.merge_slashes)
    lint.circles(web, [plan.lines for plan in plans], report)
    lint.dead_ends(web, [plan.lines for plan in plans], report)
    lint.rules(manifest, sites, tables, report)


def own_images(target: Path) -> tuple[Path, ...]:
    """An image and its other form, plain or compressed: a build that takes in the last one grows each time."""
    if target == STDOUT:
        return (Path("/proc/self/fd/1"),)
    other = target.with_suffix("") if target.suffix == ".lz4" else target.with_name(f"{target.name}.lz4")
    return target, other


def with_own_files(choice: Choice | None, source: Path) -> Choice:
    """What is said of all roots; and that a manifest is not served from where it lies."""
    choice = choice or Choice()
    return choice if source.is_dir() else replace(choice, own_files=(*choice.own_files, source))


def _provenance(text: bytes) -> dict[str, Any]:
    """What made the image. text: the manifest's, if there is one."""
    return {
        "tool": "sscc",
        "version": version("sandstorm"),
        "manifest_sha256": hashlib.sha256(text).hexdigest() if text else None,
    }


def _check_open_files() -> None:
    """Raises the limit of open files if need be.

    With too few, processes that share the work can't be made, or wait for each other for ever.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_MIN + FILES_PER_PROCESS * len(os.sched_getaffinity(0))
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise SsccError(
                Problem(f"only {hard} files may be open at once", help=f"allow {needed}: ulimit -n {needed}")
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
