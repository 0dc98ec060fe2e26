"""From a manifest or a folder to an image: the phases in their order."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .errors import ChangedError, Problem, Report, SsccError
from .image import writer as image
from .manifest import netlify as imports
from .manifest.choice import Choice
from .manifest.model import Block, Manifest, Site
from .manifest.patterns import Key, Line, lines_of
from .manifest.yaml_file import load, of_folder
from .responses import heads as responses
from .responses import lint as sense
from .responses import listing, routing
from .responses import profile as profiles
from .scratch import scratch
from .sources import discover as tree
from .sources import encode as variants
from .sources import source as content
from .sources.cache import Cache, Memory
from .sources.scan import Looker
from .target import FULL, STDOUT, check_stdout, replacing

FILES_MIN, FILES_PER_PROCESS = 32, 4  # that are open at once
KEPT_BYTES = 128 << 20  # of small files, at most, that need not be read again to be framed

Progress = Callable[[str, int, int], None]  # phase, how much of it is done, and is to be done


@dataclass
class Part:
    """A site of the manifest: what it says, imports included, its files, and what answers for each path."""

    site: Site
    sources: list[content.Source]
    table: routing.Table
    lines: dict[Key, Line]  # that made what of the table
    error_bodies: dict[int, bytes]


@dataclass
class Plan:
    """All answers of an image, before they are framed."""

    manifest: Manifest
    parts: list[Part]
    routes: list[responses.Route]
    errors: list[responses.ErrorPage]
    multipart: responses.Multipart
    provenance: dict[str, Any]
    work: variants.Work
    memory: Memory | None

    @property
    def files(self) -> int:
        """How many were read."""
        return sum(source.kind is None for part in self.parts for source in part.sources)


def read_source(source: Path) -> tuple[Manifest, Path, bytes]:
    """The manifest of a manifest file or a folder, what its paths are relative to, and its text."""
    if source.is_dir():
        return of_folder(source), source, b""
    if not source.exists():
        raise SsccError(Problem("no such file or folder; name a manifest (.yaml) or a folder of files", str(source)))
    return load(source), source.parent, source.read_bytes()


def _error_bodies(site: Site, base: Path, report: Report) -> dict[int, bytes]:
    bodies = {}
    for status, name in site.error_pages.items():
        try:
            bodies[int(status)] = (base / name).read_bytes()
        except OSError as error:
            text = f"{base / name}: error page {status} can't be read: {error.strerror}"
            report.add(site.problem(text, "error_pages", status))
    return bodies


@contextlib.contextmanager
def _forgetting(memory: Memory | None) -> Iterator[None]:
    """If a file has changed, what was remembered of it may be what is wrong: the next build must not fail too."""
    try:
        yield
    except ChangedError:
        if memory is not None:
            memory.forget()
        raise


def _part(
    site: Site,
    base: Path,
    scratch: Path,
    report: Report,
    looker: Looker | None,
    choice: Choice,
    *,
    merge_slashes: bool,
) -> Part:
    """A site's files, and the contents of small ones if there is a looker."""
    rules, lines, imported = imports.read(site, base, report)
    site = site.model_copy(update={"rules": [*rules, *site.rules]})
    sources = tree.find(site, base, report, imported, looker, choice)
    sense.unread_imports(site, sources, report)
    lines = [*lines_of(site), *lines]
    forced = routing.forced_trees(site, lines)
    shown = [each for each in sources if not each.route.startswith(forced)]
    sources = sorted([*sources, *listing.pages(site, shown, scratch)], key=lambda each: each.route)
    router = routing.Router(site, base, sources, report, merge_slashes=merge_slashes)
    table = router.made(lines)
    sense.blocks([rule for rule in rules if isinstance(rule, Block)], table, report)
    return Part(site, routing.used(table, sources), table, router.taken, _error_bodies(site, base, report))


def _look_for_sense(manifest: Manifest, sites: list[Site], parts: list[Part], report: Report) -> None:
    """What can be told when all sites are known."""
    tables = [part.table for part in parts]
    web = sense.Web(sites, tables, merge_slashes=manifest.merge_slashes)
    sense.circles(web, [part.lines for part in parts], report)
    sense.dead_ends(web, [part.lines for part in parts], report)
    sense.rules(manifest, sites, tables, report)


def survey(
    manifest: Manifest, base: Path, scratch: Path, report: Report, choice: Choice, looker: Looker | None = None
) -> list[Part]:
    """All sites. Raises SsccError with the mistakes of all, those that are reported already too.

    report: takes warnings. choice: what is said of all roots. looker: reads files that are small.
    """
    parts = []
    sites = manifest.all_sites()
    for number, site in enumerate(sites):
        folder = scratch / str(number)
        folder.mkdir()
        with report.gathering():
            part = _part(site, base, folder, report, looker, choice, merge_slashes=manifest.merge_slashes)
            parts.append(part)
    if len(parts) == len(sites):
        _look_for_sense(manifest, sites, parts, report)
    report.finish()
    return parts


def _provenance(text: bytes) -> dict[str, Any]:
    return {
        "tool": "sscc",
        "version": version("sandstorm"),
        "manifest_sha256": hashlib.sha256(text).hexdigest() if text else None,
    }


def _sources(parts: list[Part]) -> list[tuple[str, int, str]]:
    """Path, size and SHA-256 of each file."""
    return [
        (each.name, each.size_bytes, each.content.sha256)
        for part in parts
        for each in part.sources
        if each.content is not None and each.kind is None
    ]


def _counting(phase: str, total: int, progress: Progress) -> Callable[[int], None]:
    """A function that takes what has been done since it was last called."""
    done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress(phase, done, total)

    return advance


def own_images(target: Path) -> tuple[Path, ...]:
    """An image and its other form, plain or compressed: a build that takes in the last one grows each time."""
    if target == STDOUT:
        return (Path("/proc/self/fd/1"),)
    other = target.with_suffix("") if target.suffix == ".lz4" else target.with_name(f"{target.name}.lz4")
    return target, other


def _own(source: Path, choice: Choice | None) -> Choice:
    """What is said of all roots; and that a manifest is not served from where it lies."""
    choice = choice or Choice()
    return choice if source.is_dir() else replace(choice, own_files=(*choice.own_files, source))


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
    looker = Looker(KEPT_BYTES, functools.partial(progress, "Reading"))
    parts = survey(manifest, base, folder, report, _own(source, choice), looker)
    memory = cache.memory(base.resolve()) if cache is not None else None
    with _forgetting(memory):
        wanted = [(part.site, part.sources) for part in parts]
        work = variants.prepare(wanted, folder, progress, report, cache, memory)
    report.finish()
    all_sources = [each for part in parts for each in part.sources]
    multipart = responses.Multipart(boundary) if boundary else responses.multipart(all_sources)
    routes, errors = [], []
    for number, part in enumerate(parts):
        maker = responses.Maker(part.site, part.sources, multipart)
        routes += responses.routes(number, maker, part.table)
        errors += responses.error_pages(number, part.site, part.error_bodies)
    return Plan(manifest, parts, routes, errors, multipart, _provenance(text), work, memory)


def check(source: Path, report: Report, choice: Choice | None = None) -> None:
    """Everything that can be wrong but for the contents of files. Raises SsccError. report: takes warnings."""
    manifest, base, _ = read_source(source)
    with scratch() as folder:
        survey(manifest, base, folder, report, _own(source, choice))


def _by_profile(made: Plan, path: Path) -> None:
    """Copies and order as a run has shown them to be of use."""
    profiles.apply(profiles.load(path), path, [part.site.names for part in made.parts], made.routes)


def _frame(made: Plan, target: Path, progress: Progress) -> image.Summary:
    distinct = {id(route.variants): route.variants for route in made.routes}
    total = sum(variant.content_bytes for each in distinct.values() for variant in each)
    total += sum(page.get.body_bytes for page in made.errors)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(replacing(target))
        compressed = target.suffix == ".lz4"
        raw = stack.enter_context(tempfile.TemporaryFile(dir=target.parent)) if compressed else file
        writer = stack.enter_context(image.Writer(raw, made.manifest, _counting("Framing", total, progress)))
        writer.add_routes(sorted(made.routes, key=lambda each: (not each.hot, -each.requests)))
        sites = [part.site.names for part in made.parts]
        documented = (made.provenance, _sources(made.parts))
        summary = writer.finish(sites, made.routes, made.errors, made.multipart, *documented)
        if compressed:
            image.compress(raw, file, _counting("Compressing", summary.image_bytes, progress))
    summary.files = made.files
    summary.files_hashed = made.work.hashed
    summary.variants_made = made.work.made
    summary.variants_reused = made.work.reused
    return summary


def _check_target(target: Path) -> None:
    """Before much is done for nothing."""
    if target == STDOUT:
        check_stdout()
    elif not target.parent.is_dir():
        raise SsccError(Problem("no such folder; make it, or write the image elsewhere", str(target.parent)))
    elif target.is_dir():
        raise SsccError(Problem("is a folder; name the image file to write", str(target)))


def _plan_with(
    cache: Cache, stack: contextlib.ExitStack, report: Report, planned: Callable[..., Plan]
) -> Plan | None:
    """A plan whose variants lie in the cache's scratch folder; None, and a warning, where that takes no more."""
    try:
        return planned(stack.enter_context(cache.scratch()), cache=cache, report=report)
    except OSError as error:
        if error.filename is not None and not Path(error.filename).is_relative_to(cache.folder):
            raise
        stack.close()
        text = f"the cache can't be written: {error.strerror}; built without it"
        report.warn(Problem(text, str(cache.folder), help="make room, or name another with --cache"))
        return None


def _plan_without(stack: contextlib.ExitStack, planned: Callable[..., Plan]) -> Plan:
    """A plan whose variants lie where the system has temporary files."""
    try:
        return planned(stack.enter_context(scratch()))
    except OSError as error:
        if error.errno not in FULL:
            raise
        advice = "make room, or name another folder with TMPDIR"
        raise SsccError(Problem(f"can't be written: {error.strerror}", tempfile.gettempdir(), help=advice)) from None


def _check_open_files() -> None:
    """With too few, processes that share the work can't be made, or wait for each other for ever."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_MIN + FILES_PER_PROCESS * len(os.sched_getaffinity(0))
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise SsccError(
                Problem(f"only {hard} files may be open at once", help=f"allow {needed}: ulimit -n {needed}")
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def build(
    source: Path,
    target: Path,
    progress: Progress,
    cache: Cache | None = None,
    profile: Path | None = None,
    report: Report | None = None,
    choice: Choice | None = None,
) -> image.Summary:
    """Builds target, whole or not at all. Raises SsccError.

    profile: of a run, to build by. report: takes warnings. choice: what is said of all roots.
    """
    choice = replace(choice or Choice(), own_files=own_images(target))
    _check_target(target)
    report = report or Report()
    with contextlib.ExitStack() as stack:
        made = None
        if cache is not None:
            made = _plan_with(cache, stack, report, functools.partial(plan, source, progress=progress, choice=choice))
        if made is None:
            made = _plan_without(
                stack, functools.partial(plan, source, progress=progress, report=report, choice=choice)
            )
        if profile is not None:
            _by_profile(made, profile)
        with _forgetting(made.memory):
            summary = _frame(made, target, progress)
    if made.memory is not None:
        made.memory.save()
    if cache is not None:
        cache.trim()
    return summary
