"""Commands that go on until Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Interrupted(BaseException):
    """We are to end at once."""


@dataclass
class Ending:
    """How we are to end."""

    looks: bool = False  # somebody looks at is_asked now and then, so the first word is not for ending at once
    is_asked: bool = False


@contextmanager
def ended_by_signals() -> Iterator[Ending]:
    """What ends us is no error, at whatever moment it comes."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ending = Ending()

    def interrupt(*_: Any) -> None:
        if ending.looks and not ending.is_asked:
            ending.is_asked = True
            return
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    try:
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, interrupt)
        yield ending
    except Interrupted:
        return
