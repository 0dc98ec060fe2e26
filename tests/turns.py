"""Tests that run side by side, and those that measure, which run alone: marker `alone`.

Each worker of pytest-xdist takes a lock for the length of a test, shared with the others or, to be alone, for itself. Who waits to be
alone closes the gate first, so that the others come to an end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

FOLDER = "SANDSTORM_TEST_TURNS"  # in the environment of workers


class Turns:
    """The locks of a run of the tests."""

    def __init__(self) -> None:
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        if FOLDER not in os.environ:
            self.folder = tempfile.TemporaryDirectory(prefix="sandstorm-turns-")
            os.environ[FOLDER] = self.folder.name
        self.gate, self.room = (Path(os.environ[FOLDER], name).open("w") for name in ("gate", "room"))  # noqa: SIM115

    @contextlib.contextmanager
    def turn(self, alone: bool) -> Iterator[None]:
        """The length of a test."""
        fcntl.flock(self.gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self.room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self.gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self.room, fcntl.LOCK_UN)

    def end(self) -> None:
        """After the last test."""
        self.gate.close()
        self.room.close()
        if self.folder is not None:
            del os.environ[FOLDER]
            self.folder.cleanup()
