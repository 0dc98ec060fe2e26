"""What `ssrun check` looks at: all that serving needs, without serving."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from ssimage._sandstorm import lib
from ssimage.loader import ImageError, ImageFile
from ssimage.problems import Problem

from . import listen
from .errors import SsrunError
from .ports import kernel, privileges
from .ports.base import Opening
from .ports.open import existing
from .process import server_user
from .settings import NETMAP, PCAP, TAP, Limits, Options
from .web import open_image


class Check:
    """Looks at one thing after the other, and goes on behind whatever is wrong."""

    def __init__(self) -> None:
        """Nothing has been found."""
        self.problems: list[Problem] = []

    @contextlib.contextmanager
    def _gathering(self) -> Iterator[None]:
        try:
            yield
        except (SsrunError, ImageError) as error:
            self.problems.append(Problem(str(error)))
        except (OSError, MemoryError) as error:
            self.problems.append(Problem(str(error) or "out of memory"))

    def _warn(self, message: str) -> None:
        self.problems.append(Problem(message, severity="warning"))

    def image(self, path: Path, verify_content: bool, stack: ExitStack) -> ImageFile | None:
        """The image, if it can be served; it is closed with the stack."""
        with self._gathering():
            return stack.enter_context(open_image(path, verify_content))
        return None

    def options(self, options: Options, limits: Limits, image: ImageFile | None) -> None:
        """Where it is to be served, and whether we may."""
        if options.listen:
            for error, is_taken in listen.check(options.listen):
                if is_taken:  # most likely by the very one that is to be started again
                    self._warn(str(error))
                else:
                    self.problems.append(Problem(str(error)))
            return
        with self._gathering():
            server_user(limits.user)
        if options.capture is not None:
            self.folder(options.capture.path, "--pcapng")
        if options.iface.startswith(TAP):
            self._tap(options)
        elif options.iface.startswith(PCAP):
            self._replay(options)
        elif not options.iface.startswith(NETMAP):
            self._interface(options, image)

    def folder(self, path: Path, option: str) -> None:
        """Of a file that is to be written."""
        folder = path.absolute().parent
        if not folder.is_dir():
            self.problems.append(Problem(f"{option} {path}: no such folder; make it: mkdir -p {folder}"))
        elif not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            self.problems.append(
                Problem(f"{option} {path}: this user may not write into {folder}; choose another folder")
            )

    def _tap(self, options: Options) -> None:
        name = options.iface.removeprefix(TAP)
        with self._gathering():
            kernel.check_name(name)
            if (kernel.SYSFS / name).exists():
                self._warn(f"an interface {name} exists already; stop who made it, or choose another name")
        if not os.access(privileges.TUN, os.R_OK | os.W_OK, effective_ids=True):
            self.problems.append(Problem(privileges.tun_hint()))
        self._may(privileges.TAP)

    def _replay(self, options: Options) -> None:
        source, _, target = options.iface.removeprefix(PCAP).partition(":")
        if not source or not target:
            self.problems.append(
                Problem("--iface: a capture and where to write answers; write pcap:IN.pcap:OUT.pcap")
            )
            return
        if not options.addresses:
            self.problems.append(Problem("a capture needs --address: whom its packets are for"))
        if not os.access(source, os.R_OK, effective_ids=True):
            self.problems.append(Problem(f"{source}: there is no such capture, or it may not be read; name another"))
        self.folder(Path(target), "--iface")

    def _interface(self, options: Options, image: ImageFile | None) -> None:
        is_physical = False
        try:
            is_physical = kernel.look_up(options.iface).is_physical
            if image is not None:
                with ExitStack() as stack:
                    opened = existing(Opening(options, image, stack)).described()
                for warning in opened.warnings:
                    self._warn(warning)
        except SsrunError as error:
            is_waited_for = options.wait_for_interface
            self.problems.append(Problem(str(error), severity="warning" if is_waited_for else "error"))
        shared = not options.addresses
        packet, afxdp = (
            (privileges.PACKET_SHARED, privileges.AFXDP_SHARED) if shared else (privileges.PACKET, privileges.AFXDP)
        )
        if options.backend == "afxdp":
            self._may(_of_port(afxdp, options.port), image)
        elif options.backend in ("packet", "auto"):
            self._may(_of_port(packet, options.port))
            lacked = privileges.lacked_here(_without_memory(afxdp, image)) if is_physical else []
            if lacked and options.backend == "auto":
                self._warn(f"this process lacks {_and(lacked)}: AF_PACKET instead of AF_XDP; grant that for AF_XDP")
            elif shared and (lacked := privileges.lacked_here(privileges.TCX)):
                self._warn(f"this process lacks {_and(lacked)}, so the kernel gets a copy of each frame; grant that")

    def _may(self, needed: tuple[str, ...], image: ImageFile | None = None) -> None:
        lacked = privileges.lacked_here(_without_memory(needed, image))
        if lacked:
            self.problems.append(Problem(f"this process lacks {_and(lacked)}; run it as root, or grant that"))


def _of_port(needed: tuple[str, ...], port: int) -> tuple[str, ...]:
    """Without the capability that only low ports need, for another one."""
    try:
        first = int(listen.UNPRIVILEGED_PORTS.read_text())
    except (OSError, ValueError):
        first = 1024
    return needed if port < first else tuple(name for name in needed if name != "CAP_NET_BIND_SERVICE")


def _without_memory(needed: tuple[str, ...], image: ImageFile | None) -> tuple[str, ...]:
    """Without the capability to lock memory, where the limit of locked memory holds the image."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    received_bytes = int(lib.AFXDP_RX_RING) * os.sysconf("SC_PAGESIZE")  # a page a frame
    size_bytes = received_bytes + (image.slots.size_bytes if image is not None else 0)
    if limit != resource.RLIM_INFINITY and limit < size_bytes:
        return needed
    return tuple(name for name in needed if name != "CAP_IPC_LOCK")


def _and(names: list[str]) -> str:
    return " and ".join(names)
