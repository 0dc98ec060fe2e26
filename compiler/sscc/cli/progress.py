"""How far a long command is, for whoever waits for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ssimage.lazy import lazy

if TYPE_CHECKING:
    from .. import terminal
else:  # Most commands show nothing.
    terminal = lazy("sscc.terminal")

BAR_S = 0.1


class Bar:
    """A progress bar on stderr, if that is a terminal."""

    def __init__(self) -> None:
        """Nothing is shown before something moves."""
        self.progress = terminal.bar() if sys.stderr.isatty() else None
        self.tasks: dict[str, Any] = {}
        self.next_s = 0.0  # when it moves again

    def __enter__(self) -> Callable[[str, int, int], None]:
        """The function that moves it."""
        if self.progress is not None:
            self.progress.start()
        return self.move

    def __exit__(self, *_: object) -> None:
        """Leaves the terminal as it was."""
        if self.progress is not None:
            self.progress.stop()

    def move(self, phase: str, done: int, total: int) -> None:
        """Shows how far a phase is, now and then: it is called for every small file."""
        if self.progress is None:
            return
        now_s = time.monotonic()
        if done < total and now_s < self.next_s:
            return
        self.next_s = now_s + BAR_S
        if phase not in self.tasks:
            self.tasks[phase] = self.progress.add_task(phase, total=total)
        self.progress.update(self.tasks[phase], completed=done)
