"""The files that a site is made of, watched."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import watchfiles

from ..errors import SsccError
from ..plan import read_source
from ..sources.source import stamp

DEBOUNCE_MS = 300  # changes that come together are one
READY_MS = 1000  # after which files are watched for sure


@dataclass(frozen=True)
class Watched:
    """What a site is made of.

    Attributes:
        folders: Everything below them.
        files: Single files elsewhere.
    """

    folders: list[Path]
    files: list[Path]

    @classmethod
    def of(cls, source: Path) -> Watched:
        """What a manifest names. Of one that can't be read, itself: what is wrong with it will be mended there."""
        if source.is_dir():
            return cls([source.resolve()], [])
        files, folders = [source.absolute()], []
        with contextlib.suppress(SsccError):
            manifest, base, _ = read_source(source)
            for site in manifest.all_sites():
                folders += [(base / root.path).resolve() for root in site.all_roots()]
                named = [*site.error_pages.values(), *site.imports]
                named += [fixed.file for fixed in site.responses.values() if fixed.file is not None]
                files += [(base / name).absolute() for name in named]
        return cls([folder for folder in folders if folder.is_dir()], files)

    def stamp(self) -> bytes:
        """Another when a file has changed, come or gone."""
        digest = hashlib.sha256()
        for path in [*map(str, self.files), *self._below()]:
            with contextlib.suppress(OSError):
                digest.update(repr((path, stamp(os.stat(path)))).encode("utf-8", "surrogateescape"))
        return digest.digest()

    def _below(self) -> Iterator[str]:
        for folder in self.folders:
            for here, folders, names in os.walk(folder):
                folders.sort()
                yield from (os.path.join(here, name) for name in sorted(names))


class Watcher:
    """Says which files have changed.

    Folders are watched with all below them. A file elsewhere is seen from its folder, without what lies deeper, as it
    is another file when an editor has replaced it.
    """

    def __init__(self, watched: Watched) -> None:
        """Nothing is watched before it is entered."""
        self.changes: queue.SimpleQueue[set[str]] = queue.SimpleQueue()
        self.files = {str(path) for path in watched.files}
        self.folders = [str(folder) for folder in watched.folders]
        self.done = threading.Event()
        parents = sorted({str(path.parent) for path in watched.files if path.parent.is_dir()})
        self.threads = [
            threading.Thread(target=self._watch, args=(paths, recursive), daemon=True)
            for paths, recursive in ((self.folders, True), (parents, False))
            if paths
        ]

    def _wanted(self, _: watchfiles.Change, path: str) -> bool:
        return path in self.files or any(Path(path).is_relative_to(folder) for folder in self.folders)

    def _watch(self, paths: list[str], recursive: bool) -> None:
        changes: Iterable[set[tuple[watchfiles.Change, str]]] = watchfiles.watch(
            *paths,
            watch_filter=self._wanted,
            stop_event=self.done,
            debounce=DEBOUNCE_MS,
            recursive=recursive,
            raise_interrupt=False,
            yield_on_timeout=True,
            rust_timeout=READY_MS,
        )
        for change in changes:
            self.changes.put({path for _, path in change})

    def wait(self) -> list[str]:
        """Names of files that have changed; none: it is watched, and nothing has."""
        return sorted(os.path.relpath(path) for path in self.changes.get())

    def __enter__(self) -> Self:
        """Begins to watch."""
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the threads."""
        self.done.set()
        for thread in self.threads:
            thread.join()
