"""Files that appear whole or not at all: written beside their name, and renamed when all went well."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
LEFT_OVER = re.compile(
    r"\.sandstorm-[0-9a-f]{16}-[0-9a-f]{16}\Z"
)  # what is being written: the target's name, digested


def is_left_over(name: str) -> bool:
    """Is a file named as those that are not whole yet?"""
    return LEFT_OVER.match(name) is not None


def _is_pipe(path: Path) -> bool:
    """True for a pipe, false for a regular file or for nothing. OSError for all else: a rename would replace it."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        return False
    if kind in KINDS:
        text = f"it is {KINDS[kind]}, which would be replaced; name a file that is not there, or a regular one"
        raise OSError(errno.EINVAL, text)
    return kind == stat.S_IFIFO


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[IO[bytes]]:
    fd, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(fd, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
        os.replace(name, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, to be written and read, that takes path's place at the end; nothing of it stays if that fails.

    A symbolic link is followed and stays; a pipe gets the bytes at the end. OSError for a device, a socket, a folder.
    """
    if _is_pipe(path):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with path.open("wb") as pipe:
                shutil.copyfileobj(file, pipe)
    else:
        with _beside(Path(os.path.realpath(path))) as file:
            yield file
