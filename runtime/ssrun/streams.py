"""The standard streams, as a command finds them: closed, or of an encoding that can't write every name."""

from __future__ import annotations

import io
import os
import sys


def prepare_streams() -> None:
    """Makes them safe to use.

    What was closed (`>&-`) leads nowhere: else the next file that is opened would get its number.
    What can't be encoded is written as an escape.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
