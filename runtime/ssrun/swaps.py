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

TAKEN_UP_POLL_S = 0.002  # whether workers have taken an image up
NEEDED_POLL_S = 0.1  # and whether they still need one

# What becomes of an image: SERVER_SWAPPED, SERVER_SWAP_REFUSED or SERVER_IMAGE_GONE, its number, and the result.
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
        self._numbers = [0]  # of all that are needed, the newest last
        self._is_new = False
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
        self._numbers.append(number)
        self._is_new = True
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
        if not self._looks and (self._is_new or len(self._numbers) > 1):
            self._looks = True
            self._events.later(TAKEN_UP_POLL_S if self._is_new else NEEDED_POLL_S, self._look)

    def _look(self) -> None:
        self._looks = False
        if self._closed:
            return
        self._look_at_newest()
        for number in self._numbers[:-1]:
            if lib.swaps_state(self._swaps, number) == lib.GENERATION_GONE:
                self._give_back(number)
                self.told(lib.SERVER_IMAGE_GONE, number, 0)
        if len(self._numbers) > 1:
            lib.swaps_poke(self._swaps)
        self._look_later()

    def _look_at_newest(self) -> None:
        number = self._numbers[-1]
        state = lib.swaps_state(self._swaps, number)
        if not self._is_new or state == lib.GENERATION_NEW:
            return
        self._is_new = False
        if state != lib.GENERATION_REFUSED:
            self.told(lib.SERVER_SWAPPED, number, int(lib.swaps_need_older(self._swaps)))
            return
        self._give_back(number)
        self.told(lib.SERVER_SWAP_REFUSED, number, -errno.EINVAL)

    def _give_back(self, number: int) -> None:
        lib.swaps_give_back(self._swaps, number)
        self._numbers.remove(number)
