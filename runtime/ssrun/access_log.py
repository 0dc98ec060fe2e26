"""The access log: a thread takes what has become of each answer from the workers' memory, and writes lines.

The memory is the server's, which may have been taken over: lib.access_log_read bounds all that it reads there, and no
pointer from there is followed once the readers are open, before the server begins.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

from ssimage._sandstorm import ffi, lib

from .errors import SsrunError
from .log_formats import compile_format
from .log_sinks import Loss, Sink, sink
from .settings import AccessLogOptions, Limits

POLL_S = 0.02  # an answer is in the log so long after its end at most, if it is not busy
LOOK_S = 1.0  # whether the file is still there
GRACE_S = 1.0  # at the end, for who reads slowly
ENTRIES_SPARE = 16384  # of answers that have ended and are not written yet, beside one for each connection
OUT_BYTES = 2 * lib.ACCESS_OUT_BYTES_MIN

Tell = Callable[..., None]


def web_config(limits: Limits, log: AccessLogOptions | None) -> Any:
    """struct web_config *: what a worker keeps of answers until they have ended; it must be kept."""
    format_ = compile_format(log.pattern) if log is not None else None
    entries = min(limits.max_connections + ENTRIES_SPARE, lib.WEB_FOLLOWED_MAX)
    return ffi.new(
        "struct web_config *",
        {
            "followed_max": entries,
            "log_read": log is not None,
            "log_heads": format_ is not None and format_.heads,
        },
    )


class AccessLog:
    """One log, through all times that something is served. The sink is the thread's as long as that runs."""

    TOTALS: ClassVar[dict[str, int]] = {"log_lines": 0, "log_lines_lost": 0, "log_sampled_out": 0, "log_damaged": 0}

    def __init__(self, options: AccessLogOptions, tell: Tell) -> None:
        """Opens it. tell: says a line to the operator, from any thread. Raises SsrunError."""
        self.options = options
        self.tell = tell
        self.warnings: list[str] = []
        self.format: Any = compile_format(options.pattern)
        self.sink: Sink = sink(options.target)
        self.readers: list[Any] = []
        self.reading = threading.Lock()  # of the readers' memory
        self.thread: threading.Thread | None = None
        self.out = ffi.new("uint8_t[]", OUT_BYTES)
        self.totals = dict(self.TOTALS)
        self.failing = 0  # lines lost since it last went well
        self.is_failing = False
        self.look_s = 0.0
        self.is_to_reopen = False
        self.ending = threading.Event()
        self.ending_s = float("inf")
        try:
            self.sink.open()
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise SsrunError(
                    f"--access-log {self.sink.name}: can't be written to: {error.strerror or error}; choose another "
                    "place"
                ) from None
            self.is_failing = True
            self.warnings.append(
                f"{self.sink.name}: nobody reads from it yet; lines of the access log are lost so long"
            )

    def reopen(self) -> None:
        """Writes on to whatever has the log's name now; to be called when it has been moved away."""
        if self.thread is not None:
            self.is_to_reopen = True
        else:
            self._reopen()

    def _reopen(self) -> None:
        self.is_to_reopen = False
        try:
            self.sink.open()
        except OSError as error:
            why = error.strerror or error
            self.tell(
                f"{self.sink.name}: can't be opened anew: {why}; the access log goes on where it was", change="failed"
            )
            return
        self.tell(f"{self.sink.name}: the access log is opened anew", change="reopened")

    def attach(self, states: list[Any]) -> None:
        """Takes workers, before anybody not trusted may write to their memory. states: their applications'."""
        readers = []
        for state in states:
            reader = ffi.new("struct access_reader *")
            lib.access_reader_open(reader, lib.web_access_log(state))
            reader.sample = self.options.sample
            readers.append(reader)
        self.readers = readers

    def start(self) -> None:
        """Begins to read."""
        self.ending.clear()
        self.ending_s = float("inf")
        self.thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self.thread.start()

    def detach(self) -> None:
        """The workers have ended, and their memory goes: what is there is written, as far as somebody takes it."""
        if self.thread is not None:
            self.ending_s = time.monotonic() + GRACE_S
            self.ending.set()
            self.thread.join(2 * GRACE_S)
            if not self.thread.is_alive():
                self.thread = None
                for reader in self.readers:
                    lib.access_reader_end(reader, time.monotonic_ns() // 1000)
                self._round()
        with self.reading:
            self.totals = self.counters()
            self.readers = []

    def close(self) -> None:
        """Ends it."""
        if self.thread is None:  # else it hangs where the kernel does
            self.sink.close()

    def counters(self) -> dict[str, int]:
        """What has become of lines."""
        counters = dict(self.totals)
        for reader in self.readers:
            counters["log_lines"] += reader.lines
            counters["log_sampled_out"] += reader.left_out
            counters["log_damaged"] += reader.damaged
        return counters

    def _run(self) -> None:
        while not self.ending.wait(POLL_S):
            if self.is_to_reopen:
                self._reopen()
            self._round()
            if time.monotonic() > self.look_s + LOOK_S:
                self.look_s = time.monotonic()
                if self.sink.was_moved():  # and nobody has said so
                    self._reopen()

    def _round(self) -> None:
        now_s, monotonic_us = time.time(), time.monotonic_ns() // 1000
        wall_us = int(now_s * 1e6) - monotonic_us
        offset_s = time.localtime(now_s).tm_gmtoff
        for index in range(len(self.readers)):
            while lines := self._read(index, wall_us, offset_s):
                self._write(lines)

    def _read(self, index: int, wall_us: int, offset_s: int) -> bytes:
        with self.reading:
            if index >= len(self.readers):  # the memory has gone while we hung
                return b""
            reader = self.readers[index]
            reader.wall_us = wall_us
            reader.utc_offset_s = offset_s
            count = lib.access_log_read(reader, self.format, self.out, OUT_BYTES)
        return bytes(ffi.buffer(self.out, count))

    def _write(self, lines: bytes) -> None:
        loss = self.sink.write(lines, lambda: time.monotonic() > self.ending_s)
        if loss is not None:
            self._failed(loss)
        elif self.is_failing:
            self.tell(f"{self.sink.name}: the access log goes on; {self.failing} lines are lost", change="recovered")
            self.is_failing, self.failing = False, 0

    def _failed(self, loss: Loss) -> None:
        self.totals["log_lines_lost"] += loss.lines
        self.failing += loss.lines
        if not self.is_failing:
            self.is_failing = True
            self.tell(
                f"{self.sink.name}: {loss.reason}; lines of the access log are lost, serving goes on", change="failed"
            )
