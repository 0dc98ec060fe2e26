"""What comes of it when an operator has another build go on: that is asked whether it could, and then it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from . import handover
from .control import Answer
from .errors import SsrunError
from .events import Events

ANSWERED_S = 0.02  # until an answer is out


class Upgrades:
    """Of one run. All is the main thread's, but for the asking."""

    def __init__(
        self,
        count: int,
        events: Events,
        why_not: Callable[[], str],
        image: Callable[[], handover.HandedImage],
        go: Callable[[str, int], None],
    ) -> None:
        """Nobody has asked yet.

        count: of those that there have been since the process began. why_not: why no other build can go on now, empty
        where one can. image: that it would go on with. go: goes over to one of that version, with so many then.
        """
        self.count = count
        self._events = events
        self._why_not = why_not
        self._image = image
        self._go = go
        self._is_under_way = False

    def ask(self, name: str, answer: Answer) -> None:
        """Answers when the build that is installed now has said that it could go on, just before it does.

        name: of us. Raises SsrunError."""
        if self._is_under_way:
            raise SsrunError("it is going over already")
        why_not = self._why_not()
        if why_not:
            raise SsrunError(why_not)
        self._is_under_way = True
        image = self._image()

        def check() -> None:
            try:
                done = partial(self._checked, name, answer, handover.checked(image))
            except SsrunError as error:
                done = partial(self._stay, answer, str(error))
            self._events.put(done)

        threading.Thread(target=check, daemon=True).start()

    def _stay(self, answer: Answer, why: str) -> None:
        self._is_under_way = False
        answer({"error": why})

    def _checked(self, name: str, answer: Answer, version: str) -> None:
        """Who has asked hears of it before it happens, and may look whether it serves then."""
        why_not = self._why_not()  # it has taken a while
        if why_not:
            self._stay(answer, why_not)
            return
        told: dict[str, Any] = {"name": name, "version": version, "upgrades": self.count + 1}
        answer(told)
        self._events.later(ANSWERED_S, partial(self._go_over, version))

    def _go_over(self, version: str) -> None:
        self._is_under_way = False
        if not self._why_not():
            self._go(version, self.count + 1)
