"""`sscc serve`: builds a site into memory, serves it on a TAP device, and does so again when its files change."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from ssimage.loader import ImageError, ImageFile
from ssrun import embed
from ssrun.embed import Interface4or6, Options

from ..errors import Problem, SsccError
from ..manifest.choice import Choice
from ..scratch import scratch
from .watching import Watched, Watcher

MEMORY = Path("/dev/shm")  # noqa: S108, where POSIX shared memory lies on Linux: a folder with no disk below it
CHANGES_SHOWN = 3
PREFIX = "sscc-serve-"


class AnewError(Exception):
    """The newest image can't take the place of the one that is served while that is: the way out of serving."""


class Site(embed.Web):
    """An image that gives way to a newer one, while it is served where that can be."""

    name = "sscc"
    ends_on_hangup = True
    goes_on_in_another_build = False

    def __init__(self, image: ImageFile, source: Path, builder: Builder) -> None:
        """source: what the image is of, for people."""
        super().__init__(image, self._open)
        self.source = source
        self.builder = builder
        self._asked: Path | None = None  # whether it can take the place
        self._begins_anew = False
        builder.served(image)

    def _open(self, path: Path) -> ImageFile:
        if path != self._asked:
            raise embed.SsrunError("sscc serves what it builds; serve an image with ssrun")
        return ImageFile(path, verify_content=False)

    def newer(self) -> tuple[Path, embed.Answer] | None:
        """The image that was built last, unless it is served or on its way."""
        if self._asked is not None or (path := self.builder.newest()) is None:
            return None
        self._asked = path
        return path, self._answered

    def _answered(self, reloaded: embed.Reloaded) -> None:
        """Another MTU or address family takes other workers."""
        self._asked = None
        self._begins_anew = reloaded.error is not None

    def replace(self, image: ImageFile) -> None:
        """From now on this one is served."""
        super().replace(image)
        self.builder.served(image)

    def headline(self) -> str:
        header = self.image.header
        return f"{self.source}: {header.route_count} routes in {header.frame_count} frames"

    @property
    def asked_to_stop(self) -> bool:
        """The flag is the builder's: a signal that comes between two images is heeded too."""
        return self.builder.asked_to_stop

    @asked_to_stop.setter
    def asked_to_stop(self, value: bool) -> None:
        self.builder.asked_to_stop = value

    def check(self) -> None:
        if self.builder.failure is not None:
            raise self.builder.failure
        if self._begins_anew or self.asked_to_stop:
            raise AnewError


@dataclass
class Builder:
    """Builds, at first and whenever something changes.

    Attributes:
        folder: Where images are made, a name for each.
        failure: Why files can't be watched any more.
    """

    source: Path
    folder: Path
    strict: bool
    choice: Choice
    asked_to_stop: bool = False
    failure: SsccError | None = None
    built: bytes = b""  # stamp of the files when they were built last
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of what follows
    _builds: int = 0
    _newest: Path | None = None  # that is not served
    _given: Path | None = None  # which somebody may be about to open
    _served: bytes = b""  # build-id of the image that is

    def build(self) -> bool:
        """Is there an image now? What is wrong has been reported.

        In a process of its own, which shares no lock with the threads that serve."""
        self.built = Watched.of(self.source).stamp()
        self._builds += 1
        target = self.folder / f"site{self._builds}.img"
        words = [sys.executable, "-m", "sscc.cli", "build", str(self.source), "-o", str(target), "--quiet"]
        words += [*self.choice.words, *(["--strict"] if self.strict else [])]
        if subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            return False
        with ImageFile(target, verify_content=False) as image, self._lock:
            before, same = self._newest, image.build_id == self._served
            self._newest = target if not same else None
            if before == self._given:
                before = None
        for path in (before, target if same else None):
            if path is not None:
                path.unlink(missing_ok=True)
        return True

    def newest(self) -> Path | None:
        """The image that was built last, to be opened; None: it is served."""
        with self._lock:
            self._given = self._newest
            return self._newest

    def served(self, image: ImageFile) -> None:
        """An image has been taken: it needs its name no more."""
        with self._lock:
            self._served = image.build_id
            if self._newest == image.path:
                self._newest = None
        image.path.unlink(missing_ok=True)

    def _rebuild(self, names: list[str]) -> None:
        more = f" and {len(names) - CHANGES_SHOWN} more" if len(names) > CHANGES_SHOWN else ""
        click.echo(f"{', '.join(names[:CHANGES_SHOWN])}{more}: changed; building", err=True)
        if not self.build():
            click.echo("sscc: the site is served as it was; mend it, and it is built again", err=True)

    def watch(self) -> None:
        """Rebuilds the site whenever it changes, until told to stop."""
        try:
            while not self.stop.is_set():
                self._watch_once(Watched.of(self.source))
        except (OSError, RuntimeError) as error:
            text = f"files can't be watched: {error}; serve without with --no-watch"
            self.failure = SsccError(Problem(text, str(self.source)))

    def _watch_once(self, watched: Watched) -> None:
        """Watches as long as the same files are what the site is made of."""
        with Watcher(watched) as watcher:
            was_looked_at = False  # what changed while nobody watched, as in the midst of a build, shows in the stamp
            while not self.stop.is_set():
                names = watcher.wait()
                if was_looked_at and not names:
                    continue
                was_looked_at = True
                if watched.stamp() != self.built:
                    self._rebuild(names or [str(self.source)])
                if watched != Watched.of(self.source):
                    return


def address(value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Interface4or6:
    """Reads an address as ssrun takes it on its command line."""
    return embed.Address().convert(value, param, ctx)


def options(iface: str, *, addresses: Sequence[Any], host_addresses: Sequence[Any], port: int) -> Options:
    """Makes ssrun's settings."""
    return Options(iface, addresses=list(addresses), host_addresses=list(host_addresses), port=port, kept_tap=True)


def serve(source: Path, wanted: Options, choice: Choice, *, watch: bool, strict: bool, as_json: bool) -> None:
    """Builds and serves until told to stop. choice: what is said of all roots. Raises SsccError."""
    try:
        _serve(source, wanted, choice, watch=watch, strict=strict, as_json=as_json)
    except (embed.SsrunError, ImageError) as error:
        raise SsccError(str(error)) from None


def _serve(source: Path, wanted: Options, choice: Choice, *, watch: bool, strict: bool, as_json: bool) -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch(MEMORY if MEMORY.is_dir() else None, PREFIX))
        builder = Builder(source, folder, strict, choice)
        if not builder.build():
            sys.exit(1)
        newest = builder.newest()
        name = wanted.iface.removeprefix("tap:")
        stack.callback(embed.KeptTap(name).close)
        if watch:
            thread = threading.Thread(target=builder.watch, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(builder.stop.set)
        while newest is not None:
            image = ImageFile(newest, verify_content=False)
            # The same ones again for the next image, though they are in use now.
            ours, theirs = embed.tap_addresses(wanted, image, name)
            wanted = replace(wanted, addresses=ours, host_addresses=theirs)
            site = Site(image, source, builder)
            with contextlib.suppress(AnewError):
                embed.serve(site, wanted, embed.Limits(drain_s=1), as_json)
                return
            newest = builder.newest() if not site.asked_to_stop else None
