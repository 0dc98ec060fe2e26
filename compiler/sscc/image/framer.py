"""Responses become slots: cut by C into buffers that are used again, which one thread hashes and another writes.

Reading, cutting, hashing and writing run without the interpreter's lock, so they overlap. What waits to be written is
bounded, BATCHES times BATCH_BYTES, whatever the size of the site.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import queue
import struct
import threading
from collections.abc import Callable
from typing import IO, Any, Self

from ssimage._sandstorm import ffi, lib

from ..errors import ChangedError, SsccError, unreadable
from ..responses import patches
from ..responses.heads import Response
from ..sources.source import Content

BATCHES = 4  # one that is filled, hashed, written, and that waits
BATCH_BYTES = 8 << 20
PIECE_BYTES = 1 << 20  # of streams, at most
SHORT_BYTES = 64 << 10  # streams up to this are cut together
NONE = int(lib.SSI_NONE)
FRAME_BYTES = int(ffi.sizeof("struct ssi_frame"))

# struct frame_build, and struct frame_build_whole. Written whole: member by member through cffi takes as long as all
# else about a small response.
BUILD = struct.Struct(f"=5I{patches.MAX * patches.ROW.size}s")
assert [name for name, _ in ffi.typeof("struct frame_build").fields] == [
    *("slot_bytes", "segment_bytes", "copies", "ipv6", "patch_count", "patches")
]
WHOLE = struct.Struct(BUILD.format + "I")
assert (BUILD.size, WHOLE.size) == (ffi.sizeof("struct frame_build"), ffi.sizeof("struct frame_build_whole"))

Progress = Callable[[int], None]  # bytes of content, since it was last called


class _Batch:
    """Room for slots, filled from its beginning."""

    def __init__(self, slot_bytes: int) -> None:
        """slot_bytes: of each slot."""
        self.slot_bytes = slot_bytes
        self.memory = mmap.mmap(-1, BATCH_BYTES)  # of which a small site touches a few pages only
        self.slots = ffi.from_buffer("uint8_t[]", self.memory)
        self.room = BATCH_BYTES // slot_bytes  # slots that there is room for
        self.used = 0  # slots

    def next(self) -> Any:
        """Where the next slot goes, uint8_t *."""
        return self.slots + self.used * self.slot_bytes

    def take(self, slots: int) -> None:
        """The next slots have been filled."""
        self.used += slots
        self.room -= slots

    def filled(self) -> memoryview:
        """The slots' bytes."""
        return memoryview(self.memory)[: self.used * self.slot_bytes]

    def clear(self) -> None:
        """Empties the batch, to be filled again."""
        self.room += self.used
        self.used = 0


class _Sink:
    """The threads that hash and write batches in their order, and give them back."""

    def __init__(self, file: IO[bytes], slot_bytes: int) -> None:
        """file: written from where it stands; nobody else may move it until join."""
        self.file = file
        self.at = file.tell()
        self.sha256 = hashlib.sha256()
        self.error: Exception | None = None
        self.free: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self.full: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self.hashed: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        for _ in range(BATCHES):
            self.free.put(_Batch(slot_bytes))
        self.threads = [
            threading.Thread(target=run, name=f"sscc-{run.__name__}", daemon=True)
            for run in (self._hash, self._write)
        ]
        for thread in self.threads:
            thread.start()

    def _hash(self) -> None:
        while (batch := self.full.get()) is not None:
            with batch.filled() as filled:
                self.sha256.update(filled)
            self.hashed.put(batch)
        self.hashed.put(None)

    def _write(self) -> None:
        while (batch := self.hashed.get()) is not None:
            if self.error is None:
                self._put(batch)
            batch.clear()
            self.free.put(batch)

    def _put(self, batch: _Batch) -> None:
        try:
            with batch.filled() as filled:
                self.file.write(filled)
                self._begin_writeback(len(filled))
        except Exception as error:  # raised where the next batch is taken
            self.error = error

    def _begin_writeback(self, size_bytes: int) -> None:
        """What was just written goes to the disk while more is cut, or fsync would have to wait for all of it.

        That is how Linux takes this advice for pages that have not been written: it does not drop them.
        """
        self.file.flush()
        with contextlib.suppress(OSError):
            os.posix_fadvise(self.file.fileno(), self.at, size_bytes, os.POSIX_FADV_DONTNEED)
        self.at += size_bytes

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def take(self) -> _Batch:
        """An empty batch. Raises what went wrong with those before."""
        batch = self.free.get()
        self._check()
        return batch

    def join(self) -> None:
        """Ends the threads when all is written."""
        self.full.put(None)
        for thread in self.threads:
            thread.join()

    def finish(self) -> None:
        """join, and raises what went wrong."""
        self.join()
        self._check()


def _read(body: Content) -> bytes:
    """Reads all bytes of a body, and one more if there is one. Raises OSError."""
    fd = os.open(body.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        wanted = body.size_bytes + 1
        data = os.pread(fd, wanted, body.offset_bytes)
        while 0 < len(data) < wanted - 1:
            more = os.pread(fd, wanted - len(data), body.offset_bytes + len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(fd)


def whole(body: Content) -> bytes | memoryview:
    """A short body on disk. SsccError if it is not what it was when it was hashed."""
    if body.kept is not None:
        return body.kept
    try:
        data = _read(body)
    except OSError as error:
        raise unreadable(body.path, error) from None
    if hashlib.sha256(data).hexdigest() != body.sha256:
        raise ChangedError(body.path)
    return data


class _File:
    """A body on disk, a context manager. It must be what it was when it was hashed.

    By descriptor: for a small file a file object takes longer than all else.
    """

    def __init__(self, body: Content) -> None:
        """Opens it. SsccError if that fails."""
        self.body = body
        self.sha256 = hashlib.sha256()
        try:
            self.fd = os.open(body.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(body.path, error) from None
        self.at = body.offset_bytes

    def __enter__(self) -> Self:
        """Gives the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        os.close(self.fd)

    def fill(self, into: memoryview) -> None:
        """Reads the next bytes. SsccError if there are not enough."""
        done = 0
        try:
            while done < len(into):
                got = os.preadv(self.fd, [into[done:]], self.at + done)
                if not got:
                    raise ChangedError(self.body.path)
                done += got
        except OSError as error:
            raise unreadable(self.body.path, error) from None
        self.at += done
        self.sha256.update(into)

    def finish(self) -> None:
        """Checks that all has been read. SsccError if the file is longer, or something else."""
        try:
            longer = os.pread(self.fd, 1, self.at)
        except OSError as error:
            raise unreadable(self.body.path, error) from None
        if longer or self.sha256.hexdigest() != self.body.sha256:
            raise ChangedError(self.body.path)


class _Shorts:
    """Short streams that are noted, to be cut by one call: to call for each would take longer than the cutting."""

    def __init__(self) -> None:
        """Begins with no stream."""
        self.builds = bytearray()  # struct frame_build_whole of each
        self.streams = bytearray()
        self.slots = 0  # that they take

    def cut(self, first_slot: int, slots: Any, rows: Any) -> int:
        """Cuts them all; the number of frames. first_slot: number of the first slot; rows: struct ssi_frame *."""
        builds = ffi.from_buffer("struct frame_build_whole[]", self.builds)
        streams = ffi.from_buffer("uint8_t[]", self.streams)
        return int(lib.frame_build_streams(builds, len(builds), streams, first_slot, slots, rows))


class Framer:
    """Cuts responses into slots. A context manager; after `finish` the file may be written on.

    Attributes:
        frames: struct ssi_frame of all frames, so far.
        frame_count: Their number.
        slot_count: Slots that they have.
        sizes: slot_bytes and segment_bytes.
        ipv6: 1 if the headers built in are IPv6's.
    """

    def __init__(self, file: IO[bytes], segment_bytes: int, slot_bytes: int, ipv6: bool, progress: Progress) -> None:
        """file: slots go where it stands. ipv6: of the headers built in."""
        self.segment_bytes = segment_bytes
        self.progress = progress
        self.frames = bytearray()
        self.frame_count = 0
        self.slot_count = 0
        self.sizes = (slot_bytes, segment_bytes)
        self.ipv6 = int(ipv6)
        self._fields = bytearray(BUILD.size)
        self._build = ffi.from_buffer("struct frame_build *", self._fields)
        self._piece_bytes = PIECE_BYTES // segment_bytes * segment_bytes
        self._piece = bytearray(self._piece_bytes)
        self._view = memoryview(self._piece)
        self._piece_at = ffi.from_buffer("uint8_t[]", self._piece)
        self._rows = ffi.new("struct ssi_frame[]", BATCH_BYTES // slot_bytes)
        self._sink = _Sink(file, slot_bytes)
        self._batch = self._sink.take()
        self._slots_max = self._batch.room
        self._shorts = _Shorts()  # never more than there is room for in the batch

    def __enter__(self) -> Self:
        """Gives the framer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the thread, whatever happened."""
        self._sink.join()

    def add(self, response: Response) -> tuple[int, int]:
        """Cuts a response; its first frame and their number. SsccError if its file has changed."""
        first = self.frame_count
        stream_bytes = response.stream_bytes
        frames = -(-stream_bytes // self.segment_bytes)
        slots = frames * response.copies
        if stream_bytes <= SHORT_BYTES and slots <= self._slots_max:
            self._add_short(response, stream_bytes, slots)
            self.frame_count += frames
        else:
            self._cut_shorts()
            self._add_long(response, stream_bytes)
        self._check_count()
        return first, frames

    def _check_count(self) -> None:
        if self.slot_count >= NONE:
            raise SsccError("the site has more frames than an image can number (2^32); split it")

    def file_output(self) -> Any:
        """A struct file_build_output * for add_files, without room for rows and strings."""
        output = ffi.new("struct file_build_output *")
        output.frames, output.stream, output.stream_bytes_max = self._rows, self._piece_at, self._piece_bytes
        return output

    def add_files(self, templates: Any, texts: Any, files: Any, bodies: Any, output: Any) -> int:
        """Cuts files by file_build, as many as there is room for; how many. 0: not even an empty batch has it."""
        self._cut_shorts()
        count = self._cut_files(templates, texts, files, bodies, output)
        if not count and self._batch.used:
            self._next_batch()
            count = self._cut_files(templates, texts, files, bodies, output)
        self._check_count()
        return count

    def _cut_files(self, templates: Any, texts: Any, files: Any, bodies: Any, output: Any) -> int:
        batch = self._batch
        output.slots, output.slots_max = batch.next(), batch.room
        output.first_slot, output.first_frame = self.slot_count, self.frame_count
        arrays = [item for array in (templates, texts, files, bodies) for item in (array, len(array))]
        count = int(lib.file_build(*arrays, output))
        self.frames += ffi.buffer(self._rows, output.frames_made * FRAME_BYTES)
        batch.take(output.slots_made)
        self.frame_count += output.frames_made
        self.slot_count += output.slots_made
        self.progress(output.bodies_bytes)
        return count

    def _add_short(self, response: Response, stream_bytes: int, slots: int) -> None:
        """slots: that it takes."""
        shorts = self._shorts
        if shorts.slots + slots > self._batch.room:
            self._cut_shorts()
            self._next_batch()
            shorts = self._shorts
        _, head, body, copies, rows = response
        shorts.builds += WHOLE.pack(*self.sizes, copies, self.ipv6, patches.count(rows), rows, stream_bytes)
        shorts.streams += head
        shorts.slots += slots
        self.slot_count += slots
        if body:
            shorts.streams += whole(body) if isinstance(body, Content) else body
            self.progress(stream_bytes - len(head))

    def _cut_shorts(self) -> None:
        shorts = self._shorts
        slots = shorts.slots
        if slots:
            frames = shorts.cut(self.slot_count - slots, self._batch.next(), self._rows)
            self._shorts = _Shorts()
            self.frames += ffi.buffer(self._rows, frames * FRAME_BYTES)
            self._batch.take(slots)

    def _next_batch(self) -> None:
        self._sink.full.put(self._batch)
        self._batch = self._sink.take()

    def _add_long(self, response: Response, stream_bytes: int) -> None:
        rows = response.patches
        BUILD.pack_into(self._fields, 0, *self.sizes, response.copies, self.ipv6, patches.count(rows), rows)
        body = response.body
        if isinstance(body, Content):
            with _File(body) as file:
                self._cut_pieces(response.head, file, stream_bytes, response.copies)
                file.finish()
        else:
            stream = response.head + body if body else response.head
            self._cut_pieces(stream, None, stream_bytes, response.copies)
            if body:
                self.progress(len(body))

    def _cut_pieces(self, front: bytes, file: _File | None, stream_bytes: int, copies: int) -> None:
        """Cuts front and what file has, piece by piece."""
        done = 0
        while done < stream_bytes:
            size = min(self._piece_bytes, stream_bytes - done)
            ahead = front[done : done + size]
            self._piece[: len(ahead)] = ahead
            if file is not None:
                file.fill(self._view[len(ahead) : size])
                self.progress(size - len(ahead))
            self._cut(size, done, done + size == stream_bytes, copies)
            done += size

    def _cut(self, size_bytes: int, offset: int, last: bool, copies: int) -> None:
        """Cuts a piece, which lies at offset of its stream."""
        at = 0
        while at < size_bytes:
            if self._batch.room < copies:
                self._next_batch()
            part = min(self._batch.room // copies * self.segment_bytes, size_bytes - at)
            frames = lib.frame_build_stream(
                self._build,
                self._piece_at + at,
                part,
                offset + at,
                last and at + part == size_bytes,
                self.slot_count,
                self._batch.next(),
                self._rows,
            )
            self.frames += ffi.buffer(self._rows, frames * FRAME_BYTES)
            self._batch.take(frames * copies)
            self.frame_count += frames
            self.slot_count += frames * copies
            at += part

    def finish(self) -> bytes:
        """Writes what is left; the SHA-256 of all slots. Raises OSError if they can't be written."""
        self._cut_shorts()
        self._sink.full.put(self._batch)
        self._sink.finish()
        return self._sink.sha256.digest()
