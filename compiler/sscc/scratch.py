"""Folders for what a build needs on the way: gone when it ends, and when it was killed, with the next one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ssimage.output import abandoned, lock_new

PREFIX = "sscc-"
LOCK = ".lock"  # locked for as long as the folder is in use


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Removes what builds left that were killed. Without a lock it is not one of those, whatever its name."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                with abandoned(Path(entry.path, LOCK)) as is_free:
                    if is_free:
                        shutil.rmtree(entry.path, ignore_errors=True)


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder and the descriptor of its lock. Raises OSError."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            fd = lock_new(folder / LOCK)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if fd is not None:
            return folder, fd


@contextlib.contextmanager
def scratch(parent: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """A folder in parent, or where the system has such. Raises OSError."""
    where = parent if parent is not None else Path(tempfile.gettempdir())
    _remove_abandoned(where, prefix)
    folder, fd = _make(where, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)
