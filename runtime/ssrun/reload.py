"""Another image in the place of the one that is served, while it is served.

It is opened and checked beside all else, by a thread; then the workers take it up. What had been begun from an older
one is ended from there, so those stay open until nobody needs them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ssimage import console
from ssimage._sandstorm import ffi, lib
from ssimage.loader import IN_PLACE, ImageError, ImageFile

from .errors import SsrunError
from .events import Events
from .notify import notify, notify_reloading
from .swaps import Swapper, reason

TAKEN_UP_S = 10.0  # a worker that has not gone round in this time hangs
AGAIN_S = 0.1  # what is about to start

ImageLoader = Callable[[Path], ImageFile]


def fault_line(name: str, path: Path, others: bool) -> bytes:
    """What is said when memory that is an image's file can't be read any more. others: it may be one before this."""
    which = f"{path}, or an image served before it" if others else str(path)
    return os.fsencode(console.printable(f"{name}: {which}: cut short or not readable any more; {IN_PLACE}")) + b"\n"


@dataclass(frozen=True)
class Reloaded:
    """What has become of asking for another image."""

    image: ImageFile  # that is served now
    changed: bool = True  # False: it is the very file that was served
    connections: int = 0  # that still get what they began to get, from one before it
    older: int = 0  # how many images are still needed beside it
    error: str | None = None  # why the one that was asked for is not


Answer = Callable[[Reloaded], None]


class Served(Protocol):
    """What shows the image."""

    image: ImageFile

    def replace(self, image: ImageFile) -> None:
        """From now on this one."""


@dataclass
class _Asked:
    path: Path | None  # None: the one that is served
    answers: list[Answer]


class Reloads:
    """All images of a run. All is the main thread's, but for the loading of one."""

    def __init__(
        self, served: Served, load: ImageLoader, name: str, swap_s: float, events: Events, done: Answer
    ) -> None:
        """Nothing is asked for yet.

        name: of the command. swap_s: so long connections may need an image that is served no more.
        done: is told of each that was asked for, before whoever asked; and of images that are needed no more.
        """
        self._served = served
        self._load = load
        self._name = name
        self._swap_s = swap_s
        self._events = events
        self._done = done
        self._swapper: Swapper | None = None  # None: nothing is served now
        self._is_starting = False
        self._number = 0  # of the image that is served, and the last that was given
        self._numbers = 0
        self._older: dict[int, ImageFile] = {}
        self._queue: deque[_Asked] = deque()
        self._current: _Asked | None = None
        self._first: ImageFile | None = None  # that the workers were laid out for, and nobody needs
        self._handed_over: tuple[int, ImageFile] | None = None
        self._refusal = ""  # of all that is asked for from now on

    @property
    def older(self) -> int:
        """How many images are still needed beside the one that is served."""
        return len(self._older)

    @property
    def is_busy(self) -> bool:
        """Another image has been asked for, and it has not become of it yet what it does."""
        return self._current is not None

    def ask(self, path: Path | None, answer: Answer) -> None:
        """Has another image served; None: the file that is served, as it is now. Raises SsrunError."""
        if self._refusal:
            raise SsrunError(self._refusal)
        for asked in self._queue:
            if asked.path == path:  # it is not looked at yet: the same will do
                asked.answers.append(answer)
                return
        self._queue.append(_Asked(path, [answer]))
        self._next()

    def starting(self) -> None:
        """Ports and workers are made for the image that is served; it must stay until they run."""
        self._is_starting = True

    def begins(self, swapper: Swapper) -> None:
        """Workers serve it."""
        self._is_starting = False
        self._number = 0
        self._swapper = swapper
        swapper.told = self._told
        self._next()

    def stops(self) -> None:
        """We have been told to end: nothing new is begun."""
        self._refusal = "it has been told to stop; start it again with the image"
        asked = [*self._queue, *([self._current] if self._current and self._handed_over is None else [])]
        self._queue.clear()
        for each in asked:
            self._answer(each, Reloaded(self._served.image, error=self._refusal))
        if self._handed_over is None:
            self._current = None

    def ended(self) -> None:
        """The workers have ended: nothing older is needed. There may be others later."""
        self._is_starting = False
        self._swapper = None
        if self._handed_over is not None:  # for those to come
            self._take_up(0)
        self._close_older()
        self._next()

    def _close_older(self) -> None:
        for image in (*self._older.values(), self._first):
            if image is not None:
                image.close()
        self._older.clear()
        self._first = None

    def close(self) -> None:
        """Closes what is served, and all else. Nothing is served any more."""
        self._refusal = self._refusal or "it ends"
        self._close_older()
        self._served.image.close()

    def mappings(self) -> list[tuple[int, int]]:
        """Where in memory what is served is."""
        return self._served.image.mappings()

    def check(self) -> None:
        """Raises ImageError if an image that is needed is not what it was."""
        for image in self._older.values():
            image.check_unchanged()

    def _next(self) -> None:
        if self._current is not None or not self._queue or self._is_starting:
            return
        self._current = self._queue.popleft()
        path = self._current.path or self._served.image.path
        if self._swapper is not None:
            notify_reloading()
        if self._served.image.is_at(path):
            self._end(Reloaded(self._served.image, changed=False, older=self.older))
            return
        threading.Thread(target=self._open, args=(path,), daemon=True).start()

    def _open(self, path: Path) -> None:
        """In a thread of its own: a large image takes its time."""
        try:
            image = self._load(path)
        except (ImageError, SsrunError) as error:
            self._events.put(partial(self._refuse, str(error)))
        except (OSError, MemoryError) as error:
            self._events.put(partial(self._refuse, f"{path}: {error or 'out of memory'}"))
        else:
            self._events.put(partial(self._opened, image))

    def _opened(self, image: ImageFile) -> None:
        if self._current is None:  # we have been told to stop
            image.close()
            return
        why = lib.generation_error(self._served.image.image, image.image)
        if why != ffi.NULL:
            self._refuse(
                f"{image.path}: {ffi.string(why).decode()}; build it alike, or start {self._name} again", image
            )
            return
        if self._is_starting:
            self._events.later(AGAIN_S, partial(self._opened, image))
            return
        self._numbers += 1
        self._handed_over = self._numbers, image
        if self._swapper is None:
            self._take_up(0)
            return
        try:
            line = fault_line(self._name, image.path, others=True)
            self._swapper.swap(self._numbers, image, line)
        except SsrunError as error:
            self._handed_over = None
            self._refuse(f"{image.path}: {error}", image)
            return
        self._events.later(TAKEN_UP_S, partial(self._look_whether_taken_up, self._numbers))

    def _look_whether_taken_up(self, number: int) -> None:
        """Says so to whoever waits; it may be taken up yet."""
        if self._handed_over is None or self._handed_over[0] != number or self._current is None:
            return
        path = self._handed_over[1].path
        text = f"{path}: the workers have not taken it up in {TAKEN_UP_S:g} s; start {self._name} again"
        for asked in (self._current, *self._queue):
            self._answer(asked, Reloaded(self._served.image, error=text))
            asked.answers.clear()
        self._queue.clear()

    def _told(self, kind: int, number: int, result: int) -> None:
        """The workers, of an image. Those of another process may say anything."""
        if kind == lib.SWAPS_GONE and number != self._number:
            image = self._older.pop(number, None)
            if image is not None and number == 0 and self._swapper is not None and self._swapper.keeps_first:
                self._first = image
            elif image is not None:
                image.close()
        elif self._handed_over is None or self._handed_over[0] != number:
            return
        elif kind == lib.SWAPS_SERVED:
            self._take_up(result)
        elif kind == lib.SWAPS_REFUSED:
            image = self._handed_over[1]
            self._handed_over = None
            self._refuse(f"{image.path}: {reason(result)}", image)

    def _take_up(self, connections: int) -> None:
        """What was handed over is served."""
        assert self._handed_over is not None
        number, image = self._handed_over
        self._handed_over = None
        before, before_number = self._served.image, self._number
        self._number = number
        self._served.replace(image)
        if self._swapper is None:
            before.close()
        else:
            self._older[before_number] = before
            self._events.later(self._swap_s, partial(self._end_image, self._swapper, before_number))
        self._end(Reloaded(image, connections=max(0, connections), older=self.older))

    def _end_image(self, swapper: Swapper, number: int) -> None:
        if swapper is self._swapper and number in self._older:
            swapper.end_image(number)

    def _refuse(self, error: str, image: ImageFile | None = None) -> None:
        if image is not None:
            image.close()
        self._end(Reloaded(self._served.image, older=self.older, error=error))

    def _end(self, reloaded: Reloaded) -> None:
        """Of what was asked for."""
        asked, self._current = self._current, None
        if self._swapper is not None and not self._refusal:
            notify("READY=1")
        if asked is not None:
            self._answer(asked, reloaded)
        self._next()

    def _answer(self, asked: _Asked, reloaded: Reloaded) -> None:
        self._done(reloaded)
        for answer in asked.answers:
            answer(reloaded)
