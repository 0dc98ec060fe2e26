"""From a manifest or a folder to an image: the phases in their order."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .errors import Problem, Report, SsccError
from .image.compress import compress
from .image.writer import Summary, Writer
from .manifest.choice import Choice
from .plan import Plan, Progress, own_images, plan, read_source, survey, with_own_files
from .responses import profile as profiles
from .scratch import scratch
from .sources.cache import Cache, forgetting
from .target import FULL, STDOUT, check_stdout, replacing


def build(
    source: Path,
    target: Path,
    progress: Progress,
    cache: Cache | None = None,
    profile: Path | None = None,
    report: Report | None = None,
    choice: Choice | None = None,
) -> Summary:
    """Builds target, whole or not at all. Raises SsccError.

    profile: of a run, to build by. report: takes warnings. choice: what is said of all roots.
    """
    _check_target(target)
    choice = replace(choice or Choice(), own_files=own_images(target))
    planning = functools.partial(plan, source, progress=progress, choice=choice)
    with contextlib.ExitStack() as stack:
        planned = _plan(planning, cache, stack, report or Report())
        if profile is not None:
            _apply_profile(planned, profile)
        with forgetting(planned.digests):
            summary = _frame(planned, target, progress)
    if planned.digests is not None:
        planned.digests.save()
    if cache is not None:
        cache.trim()
    return summary


def check(source: Path, report: Report, choice: Choice | None = None) -> None:
    """Finds everything that can be wrong but for the contents of files. Raises SsccError. report: takes warnings."""
    manifest, base, _ = read_source(source)
    with scratch() as folder:
        survey(manifest, base, folder, report, with_own_files(choice, source))


def _check_target(target: Path) -> None:
    """Raises SsccError for what can't be written to, before much is done for nothing."""
    if target == STDOUT:
        check_stdout()
    elif not target.parent.is_dir():
        raise SsccError(Problem("no such folder; make it, or write the image elsewhere", str(target.parent)))
    elif target.is_dir():
        raise SsccError(Problem("is a folder; name the image file to write", str(target)))


def _plan(planning: Callable[..., Plan], cache: Cache | None, stack: contextlib.ExitStack, report: Report) -> Plan:
    """The plan, with the cache unless that takes no more. The variants that were made live as long as the stack."""
    if cache is not None:
        planned = _plan_with_cache(planning, cache, stack, report)
        if planned is not None:
            return planned
    try:
        return planning(stack.enter_context(scratch()), report=report)
    except OSError as error:
        if error.errno not in FULL:
            raise
        advice = "make room, or name another folder with TMPDIR"
        raise SsccError(Problem(f"can't be written: {error.strerror}", tempfile.gettempdir(), help=advice)) from None


def _plan_with_cache(
    planning: Callable[..., Plan], cache: Cache, stack: contextlib.ExitStack, report: Report
) -> Plan | None:
    """A plan whose variants lie in the cache's scratch folder; None, and a warning, where that takes no more."""
    try:
        return planning(stack.enter_context(cache.scratch()), cache=cache, report=report)
    except OSError as error:
        if error.filename is not None and not Path(error.filename).is_relative_to(cache.folder):
            raise
        stack.close()
        text = f"the cache can't be written: {error.strerror}; built without it"
        report.warn(Problem(text, str(cache.folder), help="make room, or name another with --cache"))
        return None


def _apply_profile(planned: Plan, path: Path) -> None:
    """Sets copies and order as a run has shown them to be of use."""
    profiles.apply(profiles.load(path), path, planned.hosts, planned.routes)


def _frame(planned: Plan, target: Path, progress: Progress) -> Summary:
    """Writes the image."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(replacing(target))
        compressed = target.suffix == ".lz4"
        raw = stack.enter_context(tempfile.TemporaryFile(dir=target.parent)) if compressed else file
        advance = _advancing("Framing", planned.content_bytes, progress)
        writer = stack.enter_context(Writer(raw, planned.manifest, advance))
        writer.add_routes(sorted(planned.routes, key=lambda route: (not route.hot, -route.requests)))
        summary = writer.finish(
            planned.hosts, planned.routes, planned.errors, planned.multipart, planned.provenance, planned.sources()
        )
        if compressed:
            compress(raw, file, _advancing("Compressing", summary.image_bytes, progress))
    summary.files = planned.file_count
    summary.files_hashed = planned.work.files_hashed
    summary.variants_made = planned.work.variants_made
    summary.variants_reused = planned.work.variants_reused
    return summary


def _advancing(phase: str, total: int, progress: Progress) -> Callable[[int], None]:
    """A function that takes what has been done since it was last called."""
    done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress(phase, done, total)

    return advance
