"""Files that appear whole or not at all: written without a name, or beside theirs, and named when all went well."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
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
# What is being written: the digest of its name to be, and a random number. No longer than names may be anywhere.
LEFT_OVER = re.compile(r"\.sandstorm-([0-9a-f]{16})-[0-9a-f]{16}\Z")


def is_left_over(name: str) -> bool:
    """Is a file named as those that are not whole yet?"""
    return LEFT_OVER.match(name) is not None


def _digest(target: Path) -> str:
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]


def _name_beside(target: Path) -> Path:
    return target.with_name(f".sandstorm-{_digest(target)}-{secrets.token_hex(8)}")


@contextlib.contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Is a file ours, and whoever locked it gone? The lock is with the open file, so the kernel knows.

    While the answer is looked at, nobody else can lock it.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        is_free = False
        with contextlib.suppress(OSError):
            fd = os.open(path, flags)
            stack.callback(os.close, fd)
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_free = True
        yield is_free


def _remove_left_over(target: Path) -> None:
    """What was written for the same name when somebody was killed."""
    digest = _digest(target)
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            match = LEFT_OVER.match(entry.name)
            if match is not None and match[1] == digest:
                with abandoned(Path(entry.path)) as is_free, contextlib.suppress(OSError):
                    if is_free:
                        os.unlink(entry.path)


def lock_new(path: Path) -> int | None:
    """Makes a file and locks it; its descriptor. None: another has taken it for abandoned already. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:
            return fd
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    os.close(fd)
    return None


class _New:
    """A file that has no name yet, or a name beside the target's."""

    def __init__(self, target: Path) -> None:
        """Makes it. Raises OSError."""
        self.target = target
        self.name: Path | None = None
        self.fd = self._without_name()
        while self.fd < 0:
            self.name = _name_beside(target)
            fd = lock_new(self.name)
            self.fd = -1 if fd is None else fd

    def _without_name(self) -> int:
        """Where a file system has such files, nothing can be left of them, whoever is killed. -1: it has not."""
        try:
            fd = os.open(self.target.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            return -1
        if os.path.exists(f"/proc/self/fd/{fd}"):  # by which it gets a name
            fcntl.flock(fd, fcntl.LOCK_EX)
            return fd
        os.close(fd)
        return -1

    def place(self) -> None:
        """Puts the file in the target's place. Raises OSError."""
        if self.name is None:
            try:
                self._link(self.target)
                return
            except FileExistsError:  # only a rename replaces it
                self.name = _name_beside(self.target)
                self._link(self.name)
        os.replace(self.name, self.target)
        self.name = None

    def _link(self, name: Path) -> None:
        folder = os.open(self.target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # With a folder's descriptor it is linkat, which follows this link to the file itself.
            os.link(f"/proc/self/fd/{self.fd}", name, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def forget(self) -> None:
        """Whatever name it has is taken away."""
        if self.name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.name)


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
def _beside(target: Path, clean: bool) -> Iterator[IO[bytes]]:
    if clean:
        _remove_left_over(target)
    new = _New(target)
    try:
        with os.fdopen(new.fd, "w+b") as file:
            yield file
            file.flush()
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(new.fd, 0o666 & ~umask)
            os.fsync(new.fd)
            new.place()
    finally:
        new.forget()


@contextlib.contextmanager
def to_descriptor(fd: int) -> Iterator[IO[bytes]]:
    """A new file, to be written and read, whose bytes go there at the end."""
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        with open(fd, "wb", closefd=False, buffering=0) as raw:
            while chunk := file.read(1 << 20):
                view = memoryview(chunk)
                while view:
                    view = view[raw.write(view) :]


@contextlib.contextmanager
def replacing(path: Path, *, clean: bool = True) -> Iterator[IO[bytes]]:
    """A new file, to be written and read, that takes path's place at the end; nothing of it stays if that fails.

    A symbolic link is followed and stays; a pipe gets the bytes at the end. OSError for a device, a socket, a folder.
    clean: looks through the folder for what is left of others that were killed.
    """
    if _is_pipe(path):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with path.open("wb") as pipe:
                shutil.copyfileobj(file, pipe)
    else:
        with _beside(Path(os.path.realpath(path)), clean) as file:
            yield file
