"""Where a command writes an image or a capture to: a file, whole or not at all, or stdout."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ssimage import console
from ssimage.lazy import lazy

from .errors import Problem, SsccError

if TYPE_CHECKING:
    from ssimage import output
else:  # Most commands write nothing.
    output = lazy("ssimage.output")

STDOUT = Path("-")
STDOUT_FILENO = 1
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_ADVICE = "make room, or write it elsewhere; what was there before is as it was"


@contextlib.contextmanager
def replacing(path: Path, *, clean: bool = True) -> Iterator[IO[bytes]]:
    """Opens a target as ssimage.output does; STDOUT gets the bytes at the end. SsccError if that can't be."""
    is_stdout = path == STDOUT
    try:
        with output.to_descriptor(STDOUT_FILENO) if is_stdout else output.replacing(path, clean=clean) as file:
            yield file
    except OSError as error:
        advice = FULL_ADVICE if error.errno in FULL else ""
        where = "stdout" if is_stdout else str(path)
        raise SsccError(Problem(f"can't be written: {error.strerror}", where, help=advice)) from None


def check_stdout() -> None:
    """SsccError if that is nothing for an image or a capture."""
    if STDOUT_FILENO in console.CLOSED:
        raise SsccError(Problem("is closed", "stdout", help="name a file with -o"))
    if os.isatty(STDOUT_FILENO):
        raise SsccError(
            Problem("is a terminal", "stdout", help="send it to a file or a pipe, or name a file with -o")
        )
