"""Lines for the operator: whatever is in a name, and whether or not anybody takes them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO, TypeVar

import click

Result = TypeVar("Result")
STANDARD_FDS = (0, 1, 2)
CLOSED: set[int] = set()  # those of them that were closed when the command began


def printable(text: str) -> str:
    """One line that moves no cursor and looks like no other: control characters are written as escapes, and so are
    bytes that are no text."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a file's name, see os.fsdecode
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def prepare() -> None:
    """Opens closed standard streams before anything else takes their place. And no encoding is a reason to fail."""
    for fd in STANDARD_FDS:
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            CLOSED.add(fd)
    sys.stdout = _stream(sys.stdout, 1)
    sys.stderr = _stream(sys.stderr, 2)


def _stream(stream: Any, fd: int) -> Any:
    if stream is None:
        stream = os.fdopen(fd, "w", closefd=False)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream


def say(text: str, *, err: bool = False) -> bool:
    """A line, escaped. As `write`."""
    return write(printable(text) + "\n", err=err)


def write(text: str, *, err: bool = False) -> bool:
    """Writes text as it is. A terminal that has gone, a full disk or a closed pipe is no reason to stop serving.

    False: nobody takes it."""
    stream = sys.stderr if err else sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        _to_nobody(stream)
        return False
    return True


def _to_nobody(stream: TextIO) -> None:
    """What is left in the stream's buffer, and all that follows, is written nowhere; else Python fails at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Command(click.Command):
    """A command whose messages about wrong usage are escaped too."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        prepare()
        return escaped(lambda: super(Command, self).make_context(*args, **extra))

    def invoke(self, ctx: click.Context) -> Any:
        return escaped(lambda: super(Command, self).invoke(ctx))


def escaped(run: Callable[[], Result]) -> Result:
    """Runs something whose messages about wrong usage are to be escaped."""
    try:
        return run()
    except click.UsageError as error:
        raise click.UsageError(printable(error.format_message()), error.ctx) from None
