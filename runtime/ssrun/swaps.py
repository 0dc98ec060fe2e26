"""Handing images to workers in this process; a process of their own has its own way, `process`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Protocol

from ssimage._sandstorm import ffi, lib
from ssimage.loader import ImageFile

from .errors import SsrunError
from .events import Events

# What becomes of an image: SWAPS_SERVED, SWAPS_REFUSED or SWAPS_GONE, its number, and the result.
Told = Callable[[int, int, int], None]

REASONS = {
    errno.ENOSPC: f"{lib.SWAPS_IMAGES_MAX} images are still being sent to clients that began with them; try again "
    "when one is done with, or start with a shorter --swap-timeout",
    errno.ENOMEM: "there is no memory for its tables",
    errno.EBUSY: "the image before it has not been taken up yet",
    errno.EINVAL: "it does not fit what is served",
}


def nobody(_kind: int, _number: int, _result: int) -> None:
    """Nobody wants to know."""


def reason(error: int) -> str:
    """Why an image has been refused. error: -errno."""
    return REASONS.get(-error) or (os.strerror(-error) if error < 0 else f"result {error}")


class Swapper(Protocol):
    """What has an image served. `told` may be called whenever the main thread waits."""

    told: Told
    keeps_first: bool  # what was served at first must stay open, though nobody needs it

    def swap(self, number: int, image: ImageFile, fault_line: bytes) -> None:
        """Hands it over. Raises SsrunError."""

    def end_image(self, number: int) -> None:
        """Has connections reset that still need one. Raises SsrunError."""


class OwnThreads:
    """Workers that are threads of this process. All is the main thread's."""

    def __init__(self, app: Any, workers: list[Any], events: Events, *, sockets: bool = False) -> None:
        """Nothing is swapped yet. app: of the workers, struct worker * or struct sockets *."""
        self.told: Told = nobody
        self.keeps_first = False
        self._events = events
        kind = "sockets" if sockets else "workers"
        self._pointers = ffi.new(f"struct {'sockets' if sockets else 'worker'} *[]", workers)
        described = {kind: self._pointers, "count": len(workers), "app": app}
        self._workers = ffi.new("struct swaps_workers *", described)
        self._swaps = ffi.NULL
        self._looks = False
        self._closed = False

    def swap(self, number: int, image: ImageFile, fault_line: bytes) -> None:
        """Hands it over. Raises SsrunError."""
        if self._swaps == ffi.NULL:
            self._swaps = lib.swaps_create(self._workers, ffi.NULL)
        error = (
            lib.swaps_begin(self._swaps, number, image.image, ffi.NULL) if self._swaps != ffi.NULL else -errno.ENOMEM
        )
        if error:
            raise SsrunError(reason(error))
        lib.fault_line_set(fault_line)
        self._look_later()

    def end_image(self, number: int) -> None:
        """Has connections reset that still need one."""
        if not self._closed:
            lib.swaps_end(self._swaps, number)

    def close(self) -> None:
        """The workers do not run any more."""
        self._closed = True
        if self._swaps != ffi.NULL:
            lib.swaps_destroy(self._swaps)
            self._swaps = ffi.NULL

    def _look_later(self) -> None:
        look_ms = lib.swaps_look_ms(self._swaps) if not self._closed else -1
        if not self._looks and look_ms >= 0:
            self._looks = True
            self._events.later(look_ms / 1000, self._look)

    def _look(self) -> None:
        self._looks = False
        news = ffi.new("struct swaps_news *")
        while not self._closed and lib.swaps_news(self._swaps, news):
            self.told(int(news.kind), int(news.number), int(news.result))
        self._look_later()
