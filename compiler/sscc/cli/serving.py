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


class RebuiltError(Exception):
    """There is a newer image: not an error, but the way out of serving the older one."""


class Site(embed.Web):
    """An image that gives way to a newer one."""

    name = "sscc"
    ends_on_hangup = True

    def __init__(self, image: ImageFile, source: Path, builder: Builder) -> None:
        """source: what the image is of, for people."""
        super().__init__(image)
        self.source = source
        self.builder = builder

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
        if self.builder.is_new.is_set() or self.asked_to_stop:
            raise RebuiltError


@dataclass
class Builder:
    """Builds, at first and whenever something changes.

    Attributes:
        target: The newest image.
        is_new: Set when there is one that nobody has taken.
        failure: Why files can't be watched any more.
    """

    source: Path
    target: Path
    strict: bool
    choice: Choice
    is_new: threading.Event = field(default_factory=threading.Event)
    asked_to_stop: bool = False
    failure: SsccError | None = None
    served: bytes = b""  # build-id of the image that was taken last
    built: bytes = b""  # stamp of the files when they were built last
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def build(self) -> bool:
        """Is there an image now? What is wrong has been reported.

        In a process of its own, which shares no lock with the threads that serve."""
        self.built = Watched.of(self.source).stamp()
        words = [sys.executable, "-m", "sscc.cli", "build", str(self.source), "-o", str(self.target), "--quiet"]
        words += [*self.choice.words, *(["--strict"] if self.strict else [])]
        return subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode == 0

    def take(self) -> ImageFile:
        """Opens the newest image, whose name is free for the next one then."""
        with self.lock:
            self.is_new.clear()
            image = ImageFile(self.target, verify_content=False)
            self.target.unlink()
            self.served = image.build_id
            return image

    def _rebuild(self, names: list[str]) -> None:
        more = f" and {len(names) - CHANGES_SHOWN} more" if len(names) > CHANGES_SHOWN else ""
        click.echo(f"{', '.join(names[:CHANGES_SHOWN])}{more}: changed; building", err=True)
        with self.lock:
            if not self.build():
                click.echo("sscc: the site is served as it was; mend it, and it is built again", err=True)
                return
            with ImageFile(self.target, verify_content=False) as image:
                same = image.build_id == self.served
            if same:
                self.target.unlink()
            else:
                self.is_new.set()

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
        builder = Builder(source, folder / "site.img", strict, choice)
        if not builder.build():
            sys.exit(1)
        name = wanted.iface.removeprefix("tap:")
        stack.callback(embed.KeptTap(name).close)
        if watch:
            thread = threading.Thread(target=builder.watch, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(builder.stop.set)
        while True:
            with builder.take() as image:
                # The same ones again for the next image, though they are in use now.
                ours, theirs = embed.tap_addresses(wanted, image, name)
                wanted = replace(wanted, addresses=ours, host_addresses=theirs)
                site = Site(image, source, builder)
                with contextlib.suppress(RebuiltError):
                    embed.serve(site, wanted, embed.Limits(drain_s=1), as_json)
                    return
                if site.asked_to_stop:
                    return
