"""Writes what ports receive and send to a pcapng file, from a thread of its own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any

from ssimage._sandstorm import ffi, lib

from ..errors import SsrunError
from ..settings import CaptureOptions

DRAIN_S = 0.01  # between looks at empty rings
DAMAGED = "frames on their way to the file are damaged in memory; the process that serves may be in strange hands"


class Capture:
    """One file; an interface in it for each port."""

    def __init__(self, options: CaptureOptions) -> None:
        """Makes the file, or empties it. Raises SsrunError."""
        self.options = options
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed: Callable[[str], None] | None = None
        holder = ffi.new("struct capture **")
        error = lib.capture_open(holder, os.fsencode(options.path), options.snap_bytes, b"ssrun")
        if error:
            raise SsrunError(
                f"--pcapng {options.path}: {os.strerror(-error)}; name a file in a folder that can be written to"
            )
        self._capture = holder[0]

    def wrap(self, ports: list[Any], interface: str, backend: str) -> list[Any]:
        """struct nmio_port * that capture what these do, until `close`. Before `start`. Raises SsrunError."""
        wrapped = []
        for number, port in enumerate(ports):
            captured = ffi.new("struct nmio_port **")
            what = f"{backend}, worker {number + 1} of {len(ports)}"
            error = lib.capture_add(
                self._capture, port, self.options.ring_bytes, interface.encode(), what.encode(), captured
            )
            if error:
                raise SsrunError(f"--pcapng {self.options.path}: {os.strerror(-error)}; lower --pcapng-buffer")
            wrapped.append(captured[0])
        return wrapped

    def start(self, failed: Callable[[str], None]) -> None:
        """Starts the thread. failed: what to do, in any thread, when the file can't be written any more; once."""
        self._failed = failed
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _report(self, error: int) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(DAMAGED if error == -errno.EBADMSG else os.strerror(-error))

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            count = lib.capture_drain(self._capture)
            if count < 0:
                self._report(count)
                return
            if stopping:
                return
            if count == 0:
                self._stop.wait(DRAIN_S)

    def finish(self) -> None:
        """Writes what is left; the workers have ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            error = lib.capture_finish(self._capture)
            if error:
                self._report(error)

    def counters(self) -> dict[str, int]:
        """Frames that are in the file, and those for which there was no room on the way."""
        return {
            "capture_frames": int(lib.capture_written(self._capture)),
            "capture_dropped": int(lib.capture_dropped(self._capture)),
        }

    def close(self) -> None:
        """Ends the file; the wrapped ports must not be used any more."""
        self.finish()
        error = lib.capture_close(self._capture)
        if error:
            self._report(error)
