"""Reads and hashes many small files, over all cores.

Processes that were forked take files from one queue, and put digests and bytes into memory that all share: to pass
them on would take as long as to read them. What can't be read as it was found is left for others, who say why.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from .cache import is_settled
from .content import Stamp, stamp

QUEUE_ITEM = struct.Struct("=I")  # the number of a chunk
CHUNK_FILES = 256
CHUNKS_MAX = 1024  # whose numbers the smallest pipe holds while nobody reads it
FORK_FILES = 2048  # for fewer, a process takes longer to make than it saves
RECORD = struct.Struct("=B32s")  # how far it is, SHA-256
UNREAD, READ, SETTLED = range(3)


class Wanted(NamedTuple):
    """A file as it was found."""

    path: str
    stamp: Stamp


class Small(NamedTuple):
    """A file that was read."""

    sha256: str
    data: memoryview | None  # if there was room
    settled: bool  # will any later change of the file show in its stamp?


class SmallFiles:
    """Files that are read, and then what was read."""

    def __init__(self, wanted: list[Wanted], room_bytes: int) -> None:
        """room_bytes: for what is kept of them, the first first."""
        self.wanted = wanted
        self.places: list[int] = []  # of the bytes of each; -1: they are not kept
        kept_bytes = 0
        for _, (size_bytes, *_) in wanted:
            fits = kept_bytes + size_bytes <= room_bytes
            self.places.append(kept_bytes if fits else -1)
            kept_bytes += size_bytes if fits else 0
        # Of at least a byte, as there is no map of none.
        self.records = mmap.mmap(-1, len(wanted) * RECORD.size + 1)
        self.data = mmap.mmap(-1, kept_bytes + 1)
        self.chunk_files = max(CHUNK_FILES, -(-len(wanted) // CHUNKS_MAX))
        self.chunks = -(-len(wanted) // self.chunk_files)

    def read(self, advance: Callable[[int], None]) -> None:
        """advance: called with bytes as they are read, those of other processes at the end."""
        queue, enter = os.pipe()
        os.write(enter, b"".join(map(QUEUE_ITEM.pack, range(self.chunks))))
        os.close(enter)
        others: list[int] = []
        try:
            if len(self.wanted) >= FORK_FILES:
                others = [self._fork(queue) for _ in range(min(len(os.sched_getaffinity(0)), self.chunks) - 1)]
            left = sum(each.stamp[0] for each in self.wanted)
            for size_bytes in self._take(queue):
                advance(size_bytes)
                left -= size_bytes
        finally:
            while os.read(queue, mmap.PAGESIZE):  # if something went wrong, nobody begins another
                pass
            os.close(queue)
            for process in others:
                with contextlib.suppress(ChildProcessError):  # whoever started us may have asked for no notice
                    os.waitpid(process, 0)
        advance(left)

    def _fork(self, queue: int) -> int:
        """A process that takes from the queue; its id."""
        # An interrupt must not be raised in the new process before it can't get out of here.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = os.fork()
            if process == 0:
                self._serve(queue)
        finally:  # also where there can be no more processes
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return process

    def _serve(self, queue: int) -> NoReturn:
        """What the new process does: takes from the queue until it is empty, and ends."""
        status = 1
        try:
            if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it without a word
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            for _ in self._take(queue):
                pass
            status = 0
        finally:
            os._exit(status)  # no handler and no buffer of the other's is for here, whatever was raised

    def _take(self, queue: int) -> Iterator[int]:
        """Reads chunks until the queue is empty; the bytes of each."""
        while item := os.read(queue, QUEUE_ITEM.size):
            (chunk,) = QUEUE_ITEM.unpack(item)
            first = chunk * self.chunk_files
            yield self._read(first, min(first + self.chunk_files, len(self.wanted)))

    def _read(self, first: int, end: int) -> int:
        """Files from a number up to another; their bytes."""
        began_ns = time.time_ns()
        total = 0
        for number in range(first, end):
            path, found = self.wanted[number]
            size_bytes = found[0]
            total += size_bytes
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    data = os.read(fd, size_bytes + 1)
                    info = os.fstat(fd)
                finally:
                    os.close(fd)
            except OSError:
                continue
            if len(data) != size_bytes or info.st_size != size_bytes:
                continue
            settled = stamp(info) == found and is_settled(info, began_ns)
            place = self.places[number]
            if place >= 0:
                self.data[place : place + size_bytes] = data
            how = SETTLED if settled else READ
            RECORD.pack_into(self.records, number * RECORD.size, how, hashlib.sha256(data).digest())
        return total

    def results(self) -> Iterator[Small | None]:
        """Of each file; None: it could not be read as it was found."""
        data = memoryview(self.data)
        records = memoryview(self.records)[: len(self.wanted) * RECORD.size]
        for wanted, place, (how, digest) in zip(self.wanted, self.places, RECORD.iter_unpack(records), strict=True):
            if how == UNREAD:
                yield None
                continue
            kept = None if place < 0 else data[place : place + wanted.stamp[0]]
            yield Small(digest.hex(), kept, how == SETTLED)
