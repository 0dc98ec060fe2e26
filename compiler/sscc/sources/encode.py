"""Hashes files and makes their encoded variants, over all cores and no oftener than needed."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import brotli
import zstandard
from ssimage.lazy import lazy

from ..errors import ChangedError, Problem, Report, SsccError, unreadable
from ..manifest.model import Encoding, Site
from ..signals import as_a_child, end_with_parent, held_back
from .cache import HEADER, Cache, DigestIndex, header, stat_is_stable
from .charsets import TextScan
from .source import (
    SVGZ,
    Content,
    Source,
    Stamp,
    bare_type,
    coding_of,
    is_compressible,
    is_open,
    stamp,
)

if TYPE_CHECKING:
    import multiprocessing
    from concurrent import futures
else:  # What only hashes small files needs none.
    futures, multiprocessing = lazy("concurrent.futures"), lazy("multiprocessing")

CHUNK_BYTES = 1 << 20
SUFFIXES = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
COMPRESS_BYTES_MAX = 64 << 20  # brotli at its best takes a second for a megabyte
# What a process is given at once, and what is not worth giving away: passing it on takes longer than doing it.
BATCH_BYTES = 4 << 20
BATCH_FILES = 256
POLL_S = 0.2
# What a variant's bytes follow from besides the content: encoders promise nothing from version to version.
RECIPES = {
    "gzip": f"gzip 9, zlib {zlib.ZLIB_RUNTIME_VERSION}, by {CHUNK_BYTES}",
    "br": f"br 11, brotli {brotli.__version__}, by {CHUNK_BYTES}",
    "zstd": f"zstd 19 sized, zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}, by {CHUNK_BYTES}",
}

Progress = Callable[[str, int, int], None]  # phase, how much of it is done, and is to be done


@dataclass(frozen=True)
class Sibling:
    """A precompressed file beside a file."""

    path: str
    size_bytes: int
    sha256: str | None = None  # its own, where that and what it holds are known
    decoded_sha256: str | None = None


@dataclass(slots=True)
class Job:
    """What there is to do for a source."""

    number: int  # of the source
    path: str
    size_bytes: int
    sha256: str | None  # where it is known
    siblings: dict[str, Sibling]  # by content coding
    make: Sequence[str]  # content codings, where no sibling has them
    min_gain_percent: int
    is_text: bool = False  # to be scanned, see charsets

    @property
    def work_bytes(self) -> int:
        """What is read for it."""
        unknown = sum(sibling.size_bytes for sibling in self.siblings.values() if sibling.decoded_sha256 is None)
        make = sum(coding not in self.siblings for coding in self.make)
        return unknown + self.size_bytes * (make + (self.sha256 is None))

    def pays(self, size_bytes: int) -> bool:
        """Is a variant of that size worth having?"""
        return size_bytes * 100 <= self.size_bytes * (100 - self.min_gain_percent)


@dataclass(slots=True)
class Work:
    """What a build had to do, and what it did not have to."""

    files_hashed: int = 0
    variants_made: int = 0
    variants_reused: int = 0  # that the cache had, or had the size of

    def add(self, other: Work) -> None:
        """Adds what another had to do."""
        self.files_hashed += other.files_hashed
        self.variants_made += other.variants_made
        self.variants_reused += other.variants_reused


@dataclass(slots=True)
class Done:
    """What came of a job."""

    number: int
    content: Content
    variants: dict[str, Content] = field(default_factory=dict)
    stamp: Stamp | None = None  # of the file, if it was hashed and can be trusted
    decoded: list[tuple[str, str, str]] = field(default_factory=list)  # coding, digest, digest of what it holds
    traits: int | None = None  # if it was scanned
    work: Work = field(default_factory=Work)
    stale: list[Problem] = field(default_factory=list)  # siblings that are left out


def _read(fd: int, wanted: int) -> bytes:
    """So many bytes, or all that are left; encoders' output depends on where chunks end."""
    chunk = os.read(fd, wanted)
    while chunk and len(chunk) < wanted:
        more = os.read(fd, wanted - len(chunk))
        if not more:
            break
        chunk += more
    return chunk


def _trusted(before: os.stat_result, after: os.stat_result, began_ns: int) -> Stamp | None:
    """The stamp of a file that was read in between, if any later change will show in it."""
    now = stamp(after)
    return now if stamp(before) == now and stat_is_stable(after, began_ns) else None


class Reading:
    """Reads a file to its end in chunks and hashes it.

    Attributes:
        stamp: Of the file, once it was read, if it can be trusted.
        sha256: The digest, once it was read.
    """

    def __init__(self, path: str, size_bytes: int, advance: Callable[[int], None]) -> None:
        """size_bytes: what it must have. advance: called with the bytes of each chunk."""
        self.path = path
        self.size_bytes = size_bytes
        self.advance = advance
        self.stamp: Stamp | None = None
        self.sha256 = ""

    def __iter__(self) -> Iterator[bytes]:
        """The chunks. SsccError if it can't be read, or isn't of the size it had."""
        hasher = hashlib.sha256()
        done = 0
        began_ns = time.time_ns()
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                before = os.fstat(fd)
                # One byte more than there should be is enough to tell.
                while done <= self.size_bytes and (chunk := _read(fd, min(CHUNK_BYTES, self.size_bytes - done) or 1)):
                    hasher.update(chunk)
                    done += len(chunk)
                    self.advance(len(chunk))
                    yield chunk
                after = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise unreadable(self.path, error) from None
        if done != self.size_bytes:
            raise ChangedError(self.path)
        self.sha256 = hasher.hexdigest()
        self.stamp = _trusted(before, after, began_ns)


def _compressor(coding: str, size_bytes: int) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    """Functions that take a chunk and that end the stream. Output depends on the input alone.

    zstd is told the size: else it makes room for a window of 8 MiB, which takes 100 times as long as a small file.
    """
    if coding == "gzip":
        gzip = zlib.compressobj(9, zlib.DEFLATED, 31)
        return gzip.compress, gzip.flush
    if coding == "zstd":
        zstd = zstandard.ZstdCompressor(level=19).compressobj(size=size_bytes)
        return zstd.compress, zstd.flush
    br = brotli.Compressor(quality=11)
    return br.process, br.finish


def _decompressor(coding: str) -> Callable[[bytes], bytes]:
    if coding == "gzip":
        return zlib.decompressobj(31).decompress
    if coding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress
    process: Callable[[bytes], bytes] = brotli.Decompressor().process
    return process


class StaleError(SsccError):
    """A precompressed file is not that of the file beside it."""

    def __init__(self, message: str, path: str) -> None:
        """path: of the precompressed file."""
        super().__init__(Problem(f"{message}, and is not used", path, help="make it again, or remove it"))


@dataclass
class Worker:
    """Does jobs, in this process or in one of its own."""

    scratch: Path
    cache: Cache | None
    advance: Callable[[int], None]  # called with bytes as they are read

    def run(self, job: Job) -> Done:
        """Raises SsccError."""
        done = self._hash(job)
        for coding, sibling in job.siblings.items():
            try:
                done.variants[coding] = self._sibling(job, sibling, coding, done)
            except StaleError as error:
                done.stale += error.problems
        for coding in job.make:
            if coding in done.variants:
                continue
            target = self.scratch / f"{job.number}{SUFFIXES[coding]}"
            variant = self._variant(job, done, coding, target)
            if variant is not None:
                done.variants[coding] = variant
        return done

    def _hash(self, job: Job) -> Done:
        if job.sha256 is not None:
            return Done(job.number, Content(job.path, job.size_bytes, job.sha256))
        reading = Reading(job.path, job.size_bytes, self.advance)
        scan = TextScan()
        for chunk in reading:
            if job.is_text:
                scan.read(chunk)
        content = Content(job.path, job.size_bytes, reading.sha256)
        traits = scan.finish() if job.is_text else None
        return Done(job.number, content, stamp=reading.stamp, traits=traits, work=Work(files_hashed=1))

    def _sibling(self, job: Job, sibling: Sibling, coding: str, done: Done) -> Content:
        """A variant that somebody else made. StaleError if it does not hold the same bytes."""
        sha256, decoded = sibling.sha256, sibling.decoded_sha256
        if sha256 is None or decoded is None:
            sha256, decoded = self._decode(sibling, coding)
            done.decoded.append((coding, sha256, decoded))
        if decoded != done.content.sha256:
            raise StaleError(f"does not hold what {os.path.basename(job.path)} holds", sibling.path)
        return Content(sibling.path, sibling.size_bytes, sha256)

    def _decode(self, sibling: Sibling, coding: str) -> tuple[str, str]:
        """The digests of a stream and of what it holds."""
        decompress = _decompressor(coding)
        decoded = hashlib.sha256()
        reading = Reading(sibling.path, sibling.size_bytes, self.advance)
        try:
            for chunk in reading:
                decoded.update(decompress(chunk))
        except (zlib.error, brotli.error, zstandard.ZstdError):
            raise StaleError(f"is no {coding} stream", sibling.path) from None
        return reading.sha256, decoded.hexdigest()

    def _variant(self, job: Job, done: Done, coding: str, target: Path) -> Content | None:
        """Takes a variant from the cache, or makes it; None if it does not pay."""
        recipe, plain = RECIPES[coding], done.content
        known = self.cache.find(plain.sha256, recipe, target) if self.cache is not None else None
        if known is not None and (known.content is not None or not job.pays(known.size_bytes)):
            self.advance(plain.size_bytes)
            done.work.variants_reused += 1
            return known.content if job.pays(known.size_bytes) else None
        variant = self._compress(plain, coding, target)
        done.work.variants_made += 1
        pays = job.pays(variant.size_bytes)
        if self.cache is not None:
            if pays:
                self.cache.keep(plain.sha256, recipe, target)
            else:
                self.cache.keep_size(plain.sha256, recipe, variant.size_bytes)
        if not pays:
            target.unlink()
        return variant if pays else None

    def _compress(self, plain: Content, coding: str, target: Path) -> Content:
        """Makes a variant, with the header that entries of the cache have."""
        compress, finish = _compressor(coding, plain.size_bytes)
        sha256 = hashlib.sha256()
        reading = Reading(plain.path, plain.size_bytes, self.advance)
        size_bytes = 0
        with target.open("wb") as file:
            file.write(bytes(HEADER.size))

            def put(data: bytes) -> None:
                nonlocal size_bytes
                sha256.update(data)
                size_bytes += file.write(data)

            try:
                for chunk in reading:
                    put(compress(chunk))
                put(finish())
            except zstandard.ZstdError:  # it is not of the size it had
                raise ChangedError(plain.path) from None
            file.seek(0)
            file.write(header(size_bytes, sha256.digest()))
        if reading.sha256 != plain.sha256:
            raise ChangedError(plain.path)
        return Content(str(target), size_bytes, sha256.hexdigest(), HEADER.size)


_HERE: list[Worker] = []  # the worker of a pool's process


def _begin(scratch: Path, cache: Cache | None, counter: Any) -> None:
    def advance(size_bytes: int) -> None:
        with counter.get_lock():
            counter.value += size_bytes

    as_a_child()
    end_with_parent()
    _HERE.append(Worker(scratch, cache, advance))


def _run(jobs: list[Job]) -> list[Done]:
    return [_HERE[0].run(job) for job in jobs]


def _batches(jobs: list[Job]) -> list[list[Job]]:
    """The large ones first, so that no process is left with one at the end; small ones together."""
    batches: list[list[Job]] = []
    size_bytes = BATCH_BYTES
    for job in sorted(jobs, key=lambda job: job.work_bytes, reverse=True):
        if size_bytes >= BATCH_BYTES or len(batches[-1]) >= BATCH_FILES:
            batches.append([])
            size_bytes = 0
        batches[-1].append(job)
        size_bytes += job.work_bytes
    return batches


def _run_all(jobs: list[Job], begin: tuple[Path, Cache | None], progress: Callable[[int], None]) -> list[Done]:
    """Does the jobs over all cores. progress: called with bytes done since it was last called."""
    if len(batches := _batches(jobs)) < 2:
        here = Worker(*begin, progress)
        return [here.run(job) for job in jobs]
    counter = multiprocessing.Value("Q", 0)
    reported = 0
    results: list[Done] = []
    processes = min(len(os.sched_getaffinity(0)), len(batches))
    pool = futures.ProcessPoolExecutor(processes, initializer=_begin, initargs=(*begin, counter))
    try:
        with held_back():
            pending: set[futures.Future[list[Done]]] = {pool.submit(_run, batch) for batch in batches}
        while pending:
            finished, pending = futures.wait(pending, POLL_S, futures.FIRST_COMPLETED)
            for future in finished:
                results += future.result()
            now = counter.value
            progress(now - reported)
            reported = now
    except futures.process.BrokenProcessPool:
        raise SsccError("a process that read files was ended, most likely for lack of memory") from None
    except BaseException:  # nobody waits for what they do
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _siblings(source: Source, by_route: dict[bytes, Source], digests: DigestIndex | None) -> dict[str, Sibling]:
    siblings = {}
    for coding, suffix in SUFFIXES.items():
        other = by_route.get(source.route + suffix.encode())
        if other is not None:
            sha256 = digests.digest(other.name, other.path) if digests is not None else None
            decoded = digests.decoded_sha256(coding, sha256) if digests is not None and sha256 is not None else None
            siblings[coding] = Sibling(other.path, other.size_bytes, sha256, decoded)
    return siblings


@dataclass
class _Tasks:
    """What there is to do for all sources of all sites."""

    digests: DigestIndex | None
    report: Report
    sources: list[Source] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    work: Work = field(default_factory=Work)

    def _digest(self, source: Source) -> str | None:
        """The SHA-256 of a source, where it is known. SsccError if it is not what it was said to be."""
        digests, at = self.digests, source.stamp
        # A page made for this build, which has no stamp, is another file each time.
        known = digests.digest_at(source.name, at) if digests is not None and at is not None else None
        if source.content is None:
            return known
        read = source.content.sha256
        if known is None:
            self.work.files_hashed += 1
            if digests is not None and at is not None and source.stat_is_stable:
                digests.record(source.name, at, read)
        elif known != read:
            raise ChangedError(source.path)
        return read

    def _needs_scan(self, media_type: str, source: Source, sha256: str | None) -> bool:
        """Does it depend on the bytes of a file that was not scanned yet how it is served?"""
        if source.content is not None or not (is_open(media_type) or source.route.lower().endswith(SVGZ.encode())):
            return False
        known = self.digests.traits(sha256) if self.digests is not None and sha256 is not None else None
        source.traits = known or 0
        return known is None

    @staticmethod
    def _to_make(site: Site, source: Source) -> tuple[str, list[Encoding]]:
        """A source's media type, as far as its work depends on it ("" else), and the encodings worth a try."""
        encodings = site.encodings
        fits = encodings.make and encodings.min_bytes <= source.size_bytes <= COMPRESS_BYTES_MAX
        media_type = source.media_type or ""
        if not media_type and (fits or source.content is None):
            media_type = bare_type(site, os.fsdecode(source.route))
        worth = fits and is_compressible(media_type) and coding_of(source) is None
        return media_type, encodings.make if worth else []

    def add(self, site: Site, sources: list[Source]) -> None:
        """Adds what there is to do for one site."""
        encodings = site.encodings
        suffixes = tuple(suffix.encode() for suffix in SUFFIXES.values())
        beside = encodings.precompressed and any(source.route.endswith(suffixes) for source in sources)
        by_route = {source.route: source for source in sources} if beside else {}
        for number, source in enumerate(sources, len(self.sources)):
            siblings = _siblings(source, by_route, self.digests) if beside else {}
            media_type, make = self._to_make(site, source)
            sha256 = self._digest(source)
            is_text = self._needs_scan(media_type, source, sha256)
            if siblings or make or source.content is None:
                gain = encodings.min_gain_percent
                known = None if is_text else sha256
                self.jobs.append(Job(number, source.path, source.size_bytes, known, siblings, make, gain, is_text))
        self.sources += sources

    def take(self, done: Done) -> None:
        """Puts what came of a job where it belongs."""
        source = self.sources[done.number]
        source.content, source.variants = source.content or done.content, done.variants
        if done.traits is not None:
            source.traits = done.traits
            if self.digests is not None:
                self.digests.record_traits(done.content.sha256, done.traits)
        for problem in done.stale:
            self.report.warn(problem)
        if self.digests is not None and source.stamp is not None:
            if done.stamp is not None:
                self.digests.record(source.name, done.stamp, done.content.sha256)
            for stream in done.decoded:
                self.digests.record_decoded(*stream)
        self.work.add(done.work)


def prepare(
    sites: list[tuple[Site, list[Source]]],
    scratch: Path,
    progress: Progress,
    report: Report,
    cache: Cache | None = None,
    digests: DigestIndex | None = None,
) -> Work:
    """Sets the content and the variants of all sources of all sites. Raises SsccError.

    scratch: a folder for variants that are made; with a cache, its own. report: takes warnings.
    """
    tasks = _Tasks(digests, report)
    for site, sources in sites:
        tasks.add(site, sources)
    total = sum(job.work_bytes for job in tasks.jobs)
    phase = "Encoding" if any(job.make for job in tasks.jobs) else "Hashing"
    done_bytes = 0

    def advance(size_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += size_bytes
        progress(phase, done_bytes, total)

    begin = (scratch, cache)
    for done in _run_all([job for job in tasks.jobs if job.work_bytes], begin, advance):
        tasks.take(done)
    here = Worker(*begin, advance)
    for job in tasks.jobs:
        if not job.work_bytes:
            tasks.take(here.run(job))
    return tasks.work
