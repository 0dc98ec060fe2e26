"""Scans many files, and reads and hashes the small ones, over all cores.

Processes that were forked take files from one queue, and put what they find into memory that all share: to pass it on
would take as long as to read it. What can't be read, or grows meanwhile, is left for others, who say why.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
import struct
import time
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, NoReturn

from ..signals import as_a_child, held_back
from .cache import stat_is_stable
from .charsets import traits
from .source import Stamp, stamp

SMALL_BYTES = 128 << 10  # a file up to this is read
EXTENT_BYTES = 4 << 20  # of what is kept, that one process fills by itself
QUEUE_ITEM = struct.Struct("=I")  # the number of a chunk, or of an extent
QUEUE_MAX = 1024  # numbers that the smallest pipe holds while nobody reads it
CHUNK_FILES = 256
FORK_FILES = 2048  # for fewer, a process takes longer to make than it saves
RECORD = struct.Struct("=BB32sqQqQQq")  # how far it is, traits, SHA-256, where its bytes are kept, stamp
UNREAD, LARGE, READ, STABLE = range(4)
# A file that has become a pipe must not be waited for, nor a terminal become ours.
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class FileScan(NamedTuple):
    """A file as it was when it was scanned."""

    stamp: Stamp
    sha256: str | None  # of a small one
    data: memoryview | None  # its bytes, if there was room
    stat_is_stable: bool  # will any later change of the file show in its stamp?
    traits: int  # of a small one, see charsets


class _Queue:
    """The numbers from 0 to a count, each given to one of several processes."""

    def __init__(self, count: int) -> None:
        """count: at most QUEUE_MAX."""
        self.fd, enter = os.pipe()
        os.write(enter, b"".join(map(QUEUE_ITEM.pack, range(count))))
        os.close(enter)

    def take(self) -> int | None:
        """The next; None: there is none."""
        item = os.read(self.fd, QUEUE_ITEM.size)
        return int(QUEUE_ITEM.unpack(item)[0]) if item else None

    def drain(self) -> int:
        """How many are left, which are taken."""
        left = 0
        while items := os.read(self.fd, mmap.PAGESIZE):
            left += len(items) // QUEUE_ITEM.size
        return left

    def close(self) -> None:
        """Gives back its descriptor."""
        os.close(self.fd)


class _Scan:
    """One scan of files."""

    def __init__(self, paths: Sequence[str], extents: int) -> None:
        """extents: that may be kept."""
        self.paths = paths
        # Of at least a byte, as there is no map of none.
        self.records = memoryview(mmap.mmap(-1, len(paths) * RECORD.size + 1))
        self.view = memoryview(mmap.mmap(-1, extents * EXTENT_BYTES + 1))
        self.extents = _Queue(extents)
        self.chunk_files = max(CHUNK_FILES, -(-len(paths) // QUEUE_MAX))
        self.chunk_count = -(-len(paths) // self.chunk_files)
        self.chunks = _Queue(self.chunk_count)
        self.done = memoryview(mmap.mmap(-1, self.chunk_count + 1))  # 1 for each that has been scanned
        self.spare = memoryview(bytearray(SMALL_BYTES + 1))  # to read into when all extents have been given away
        self.room, self.at, self.end = self.view, 0, 0  # where this process reads into
        self.extents_left = 0  # when all is over

    def scans(self) -> Generator[list[FileScan | None]]:
        """Of the files of each chunk, in order, as soon as they are there: while the caller takes them in, other
        processes scan more. To be closed, or taken to its end."""
        others: list[int] = []
        yielded = 0
        try:
            if len(self.paths) >= FORK_FILES:
                others = [self._fork() for _ in range(min(len(os.sched_getaffinity(0)), self.chunk_count) - 1)]
            for chunk in iter(self.chunks.take, None):
                self._scan(chunk)
                while yielded < self.chunk_count and self.done[yielded]:
                    yield list(self._results(yielded))
                    yielded += 1
        finally:
            self.chunks.drain()  # if something went wrong, nobody begins another
            self.chunks.close()
            for process in others:
                with contextlib.suppress(ChildProcessError):  # whoever started us may have asked for no notice
                    os.waitpid(process, 0)
            self.extents_left = self.extents.drain()
            self.extents.close()
        for chunk in range(yielded, self.chunk_count):
            yield list(self._results(chunk))

    def _fork(self) -> int:
        """A process that takes from the queue; its id."""
        # An interrupt must not be raised in the new process before it can't get out of here.
        with held_back():
            process = os.fork()
            if process == 0:
                self._serve()
        return process

    def _serve(self) -> NoReturn:
        """What the new process does: takes from the queue until it is empty, and ends."""
        status = 1
        try:
            as_a_child()
            for chunk in iter(self.chunks.take, None):
                self._scan(chunk)
            status = 0
        finally:
            os._exit(status)  # no handler and no buffer of the other's is for here, whatever was raised

    def _files(self, chunk: int) -> range:
        """The numbers of a chunk's files."""
        first = chunk * self.chunk_files
        return range(first, min(first + self.chunk_files, len(self.paths)))

    def _scan(self, chunk: int) -> None:
        """Scans all files of a chunk."""
        began_ns = time.time_ns()
        for number in self._files(chunk):
            try:
                fd = os.open(self.paths[number], OPEN_FLAGS)
                try:
                    self._read(number, fd, began_ns)
                finally:
                    os.close(fd)
            except OSError:  # whoever misses it finds out why
                pass
        self.done[chunk] = 1

    def _read(self, number: int, fd: int, began_ns: int) -> None:
        info = os.fstat(fd)
        size_bytes = info.st_size
        if not stat.S_ISREG(info.st_mode):
            return
        if size_bytes > SMALL_BYTES:
            RECORD.pack_into(self.records, number * RECORD.size, LARGE, 0, b"", -1, *stamp(info))
            return
        if self.end - self.at <= SMALL_BYTES:
            self._next_extent()
        at = self.at
        if os.readv(fd, [self.room[at : at + size_bytes + 1]]) != size_bytes:
            return
        data = bytes(self.room[at : at + size_bytes])
        digest = hashlib.sha256(data).digest()
        how = STABLE if stat_is_stable(info, began_ns) else READ
        place = -1 if self.room is self.spare else at
        RECORD.pack_into(self.records, number * RECORD.size, how, traits(data), digest, place, *stamp(info))
        if place >= 0:
            self.at = at + size_bytes

    def _next_extent(self) -> None:
        """Has what is read go into another extent, or where it can't stay if there is none."""
        extent = self.extents.take()
        if extent is not None:
            self.at, self.end = extent * EXTENT_BYTES, (extent + 1) * EXTENT_BYTES
        else:
            self.room, self.at, self.end = self.spare, 0, len(self.spare)

    def _results(self, chunk: int) -> Generator[FileScan | None]:
        """Gives the scan of each file of a chunk; None: it could not be read."""
        files = self._files(chunk)
        records = self.records[files.start * RECORD.size : files.stop * RECORD.size]
        view = self.view
        for how, seen, digest, place, size_bytes, *others in RECORD.iter_unpack(records):
            if how == UNREAD:
                yield None
            elif how == LARGE:
                yield FileScan((size_bytes, *others), None, None, False, 0)
            else:
                kept = None if place < 0 else view[place : place + size_bytes]
                yield FileScan((size_bytes, *others), digest.hex(), kept, how == STABLE, seen)


class Scanner:
    """Scans files, and keeps the bytes of small ones for as long as there is room."""

    def __init__(self, keep_bytes: int, advance: Callable[[int, int], None]) -> None:
        """keep_bytes: at most, of all. advance: called with how many of so many files have been scanned."""
        self.extents = min(keep_bytes // EXTENT_BYTES, QUEUE_MAX)
        self.advance = advance

    def scan(self, paths: Sequence[str]) -> Generator[FileScan | None]:
        """Scans each file; None: it could not be read as it was, which is for others to look into."""
        scan = _Scan(paths, self.extents)
        done = 0
        with contextlib.closing(scan.scans()) as chunks:
            for scans in chunks:
                done += len(scans)
                self.advance(done, len(paths))
                yield from scans
        self.extents = scan.extents_left
