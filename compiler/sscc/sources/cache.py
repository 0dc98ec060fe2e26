"""What earlier builds found out: encoded variants by content, and digests of files that have not been touched since.

    FOLDER/1/ab/cdef...       an entry: a header, then an encoded variant's bytes; or the header alone, where it is
                              enough to know how many they would be
    FOLDER/1/trees/abcdef...  a DigestIndex
    FOLDER/build-*            scratch folders of builds that run

Entries are written elsewhere and renamed, and checked when they are read. So any number of builds can share a folder,
and nothing bad happens when one is ended or the disk fails: what is missing or damaged is made again. A build links
what it uses into its scratch folder, so another may remove the entry. Entries were last used when they were modified.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import ChangedError, Problem, SsccError
from ..scratch import scratch
from .source import Content, Stamp, stamp

LAYOUT = "1"
MAGIC = b"SSCACHE1"
HEADER = struct.Struct("<8sQ32s")  # MAGIC, size in bytes, SHA-256
BLOCK_BYTES = 512  # what st_blocks counts
SCRATCH_PREFIX = "build-"
STALE_S = 2 * 24 * 3600  # no build takes so long: its scratch folder was left behind
# A file that was written just before it was hashed could be written again within the same tick of its clock and look
# the same (git calls that racy). Two seconds is the coarsest clock of any file system (FAT).
RACY_NS = 2_000_000_000


def default_folder() -> Path:
    """Where the XDG Base Directory Specification has caches: $XDG_CACHE_HOME, if it is absolute, or ~/.cache.

    SsccError where nobody is at home.
    """
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(caches):
        return Path(caches) / "sandstorm"
    try:
        return Path.home() / ".cache" / "sandstorm"
    except RuntimeError:
        raise SsccError("no home folder to cache in; name a folder with --cache, or say --no-cache") from None


def stat_is_stable(info: os.stat_result, began_ns: int) -> bool:
    """Was a file old enough when its hashing began that any later change shows in its stamp?"""
    return max(info.st_mtime_ns, info.st_ctime_ns) < began_ns - RACY_NS


def header(size_bytes: int, digest: bytes) -> bytes:
    """The header of an entry. digest: SHA-256 of its bytes."""
    return HEADER.pack(MAGIC, size_bytes, digest)


@dataclass(frozen=True)
class Entry:
    """What is known about a variant."""

    size_bytes: int
    content: Content | None  # None: its size alone is


class DigestIndex:
    """The digests of a tree's files, for as long as their stamps stay the same.

    Only what a build asks for or records is saved, so files that are gone are forgotten.
    """

    def __init__(self, path: Path) -> None:
        """path: of its file, which need not be there."""
        self.path = path
        self.old: dict[str, list[object]] = {}
        self.old_decoded: dict[str, str] = {}
        self.files: dict[str, list[object]] = {}
        self.decoded: dict[str, str] = {}
        self.old_traits: dict[str, int] = {}
        self.kept_traits: dict[str, int] = {}
        self.is_changed = False
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            check, _, text = path.read_bytes().partition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() == check:
                document = json.loads(text)
                self.old, self.old_decoded = document["files"], document["inner"]
                self.old_traits = document["traits"]

    def digest(self, name: str, path: str) -> str | None:
        """The SHA-256 that a file had, if it is still the same file. name: the tree's for it."""
        if name not in self.old:
            return None
        try:
            return self.digest_at(name, stamp(os.stat(path)))
        except OSError:
            return None

    def digest_at(self, name: str, now: Stamp) -> str | None:
        """Gives the SHA-256 that a file had, if this was its stamp."""
        known = self.old.get(name)
        if known is None or known[:-1] != list(now):
            return None
        self.files[name] = known
        return str(known[-1])

    def record(self, name: str, at: Stamp, sha256: str) -> None:
        """A file has been hashed."""
        self.files[name] = [*at, sha256]
        self.is_changed = True

    def decoded_sha256(self, coding: str, sha256: str) -> str | None:
        """The SHA-256 of what a stream decodes to, by the stream's own."""
        key = f"{coding}:{sha256}"
        known = self.old_decoded.get(key)
        if known is not None:
            self.decoded[key] = known
        return known

    def record_decoded(self, coding: str, sha256: str, decoded_sha256: str) -> None:
        """A stream has been decoded."""
        self.decoded[f"{coding}:{sha256}"] = decoded_sha256
        self.is_changed = True

    def traits(self, sha256: str) -> int | None:
        """What a large text turned out to be (charsets)."""
        known = self.old_traits.get(sha256)
        if known is not None:
            self.kept_traits[sha256] = known
        return known

    def record_traits(self, sha256: str, traits: int) -> None:
        """A large text has been read."""
        self.kept_traits[sha256] = traits
        self.is_changed = True

    def save(self) -> None:
        """Writes the index for the next build. What can't be written is not remembered."""
        if not self.is_changed and len(self.files) == len(self.old) and len(self.decoded) == len(self.old_decoded):
            return
        text = json.dumps({"files": self.files, "inner": self.decoded, "traits": self.kept_traits}).encode()
        with contextlib.suppress(OSError), _beside(self.path) as name:
            name.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    def forget(self) -> None:
        """Something that it said was wrong."""
        with contextlib.suppress(OSError):
            self.path.unlink()


@contextlib.contextmanager
def forgetting(digests: DigestIndex | None) -> Iterator[None]:
    """If a file has changed, its recorded digest may be what is wrong: the next build must not fail too."""
    try:
        yield
    except ChangedError:
        if digests is not None:
            digests.forget()
        raise


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A new name beside path; what is there at the end takes path's place. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{secrets.token_hex(8)}")
    try:
        yield name
        name.replace(path)
    finally:
        name.unlink(missing_ok=True)


@dataclass(frozen=True)
class Cache:
    """A cache folder.

    Attributes:
        folder: The folder, which is there.
        max_bytes: What it may take of the disk when a build has ended.
    """

    folder: Path
    max_bytes: int

    @classmethod
    def open(cls, folder: Path, max_bytes: int) -> Cache:
        """Makes the folder if need be. SsccError if nothing can be written there."""
        try:
            (folder / LAYOUT / "trees").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            why = f"is no place for a cache: {error.strerror}; name another with --cache, or say --no-cache"
            raise SsccError(Problem(why, str(folder))) from None
        return cls(folder, max_bytes)

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A folder for one build on the same file system, so that entries can be linked."""
        return scratch(self.folder, SCRATCH_PREFIX)

    def digests(self, tree: Path) -> DigestIndex:
        """The digests of the tree at an absolute path."""
        return DigestIndex(self.folder / LAYOUT / "trees" / hashlib.sha256(os.fsencode(tree)).hexdigest())

    def _path(self, sha256: str, recipe: str) -> Path:
        key = hashlib.sha256(f"{sha256}\n{recipe}".encode()).hexdigest()
        return self.folder / LAYOUT / key[:2] / key[2:]

    def find(self, sha256: str, recipe: str, target: Path) -> Entry | None:
        """The variant of a content by a recipe; its bytes are put at target. A damaged entry is removed."""
        path = self._path(sha256, recipe)
        try:
            entry = self._read(path, target)
            if entry is None:
                path.unlink()
            else:
                os.utime(path)
        except OSError:
            return None
        return entry

    @staticmethod
    def _read(path: Path, target: Path) -> Entry | None:
        """Reads an entry; None if it is damaged."""
        with path.open("rb", buffering=0) as file:
            head = file.read(HEADER.size)
            if len(head) != HEADER.size:
                return None
            magic, size_bytes, digest = HEADER.unpack(head)
            total = os.fstat(file.fileno()).st_size
            if magic != MAGIC:
                return None
            if total == HEADER.size:
                return Entry(size_bytes, None)
            if total != HEADER.size + size_bytes or hashlib.file_digest(file, "sha256").digest() != digest:
                return None
        _link(path, target)
        return Entry(size_bytes, Content(str(target), size_bytes, digest.hex(), HEADER.size))

    def keep(self, sha256: str, recipe: str, variant: Path) -> None:
        """Keeps a variant that is there with its header. What can't be written is not kept."""
        with contextlib.suppress(OSError), _beside(self._path(sha256, recipe)) as name:
            _link(variant, name)

    def keep_size(self, sha256: str, recipe: str, size_bytes: int) -> None:
        """Keeps how large a variant would be that is not worth its bytes."""
        with contextlib.suppress(OSError), _beside(self._path(sha256, recipe)) as name:
            name.write_bytes(header(size_bytes, bytes(32)))

    def trim(self) -> None:
        """Removes what was used longest ago until the rest fits, and what builds that were ended have left."""
        entries = []
        for folder in _folders(self.folder / LAYOUT):
            with contextlib.suppress(OSError), os.scandir(folder) as scan:
                for entry in scan:
                    with contextlib.suppress(OSError):
                        info = entry.stat(follow_symlinks=False)
                        entries.append((info.st_mtime_ns, info.st_blocks * BLOCK_BYTES, entry.path))
        total = sum(size_bytes for _, size_bytes, _ in entries)
        for _, size_bytes, name in sorted(entries):
            if total <= self.max_bytes:
                break
            with contextlib.suppress(OSError):
                os.unlink(name)
            total -= size_bytes
        for folder in _folders(self.folder):
            with contextlib.suppress(OSError):
                if folder.name.startswith(SCRATCH_PREFIX) and folder.stat().st_mtime < time.time() - STALE_S:
                    shutil.rmtree(folder)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _link(source: Path, target: Path) -> None:
    """A second name, or a copy where a file system has no such thing."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)
