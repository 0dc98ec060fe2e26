"""What all ports have in common: what is asked for, what has been opened, and the memory that they send from."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ssimage._sandstorm import ffi, lib
from ssimage.loader import FrameSource

from ..addresses import Interface4or6
from ..errors import SsrunError
from ..settings import Options
from . import instances, privileges
from .kernel import Interface
from .reservation import PortReservation

RING = 2048  # descriptors, and so spare slots
BUFFERS = 4096  # for small frames
# For what a worker writes to: on cache lines of its own.
new_apart = ffi.new_allocator(lib.nmio_alloc, lib.nmio_free, should_clear_after_alloc=False)


@dataclass
class Opened:
    """Ports that are open, and what is to be said of them."""

    backend: str
    interface: str
    mac: bytes
    mtu_bytes: int
    own_address: bool
    addresses: list[Interface4or6]
    ports: list[Any] = field(default_factory=list)  # struct nmio_port *
    gather_max: int = 1
    acd: int = lib.ETH_ACD_NONE
    link: Interface | None = None  # what it is of the kernel's, as it was when it was opened
    reservation: PortReservation | None = None  # in shared mode
    filter: Any = None  # struct nmio_filter *, where there is one
    read_again: list[Callable[[], None]] = field(default_factory=list)  # of the image, what others write to
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def failure(what: str, error: int, hints: dict[int, str] | None = None, needed: tuple[str, ...] = ()) -> SsrunError:
    """needed: the capabilities without which the kernel does not permit it."""
    hint = (hints or {}).get(-error)
    if hint is None and -error in (errno.EPERM, errno.EACCES):
        return SsrunError(f"{what}: {privileges.hint(*needed) if needed else 'run it as root'}")
    return SsrunError(f"{what}: {os.strerror(-error)}" + (f"; {hint}" if hint else ""))


class Opening:
    """One run's ports on their way to be open; everything is closed with the stack it was given."""

    def __init__(self, options: Options, image: FrameSource, stack: ExitStack) -> None:
        """Nothing is opened yet."""
        self.options = options
        self.image = image
        self.stack = stack
        self.read_again: list[Callable[[], None]] = []  # Opened.read_again

    def memory(self, *, pinned: bool = False) -> tuple[Any, Any]:
        """A region with the image's slots, and a TX queue, for as long as this run."""
        return self.image_memory(self.stack, pinned=pinned)

    def lent_memory(self, stack: ExitStack) -> tuple[Any, Any]:
        """A region that the port fills in, and a TX queue that is closed with the stack."""
        tx = new_apart("struct nmio_tx *")
        if lib.nmio_tx_create(tx, RING):
            raise SsrunError("out of memory")
        stack.callback(lib.nmio_tx_destroy, tx)
        region = new_apart("struct nmio_region *")
        stack.callback(ffi.release, region)
        return region, tx

    def image_memory(self, stack: ExitStack, *, pinned: bool = False) -> tuple[Any, Any]:
        """A region with the image's slots, and a TX queue; both are closed with the stack.

        pinned: for AF_XDP, which makes all of it resident, so it is read at once, as with --resident, and not mapped;
        and receives into it."""
        header = self.image.header
        residents, spares = self._arena()
        region, tx = self.lent_memory(stack)
        buffers = BUFFERS
        if pinned:  # pages to receive into
            buffers += int(lib.AFXDP_RX_RING) * max(1, os.sysconf("SC_PAGESIZE") // header.slot_bytes)
        error = lib.nmio_region_create(region, header.slot_bytes, buffers, residents, spares)
        if error:
            raise failure("memory to send from can't be laid out", error)
        stack.callback(lib.nmio_region_destroy, region)
        if pinned:  # its pages are the kernel's too, whichever process sends
            error = lib.nmio_region_share(region)
            if error:
                raise failure("memory to send from can't be shared", error)
        self._bring(region, resident=pinned or self.options.resident)
        if pinned:
            self.read_again.append(partial(self._bring, region, resident=True))
        return region, tx

    def _bring(self, region: Any, *, resident: bool) -> None:
        """Has a region hold the image's slots."""
        bring = lib.nmio_region_read if resident else lib.nmio_region_map
        error = bring(region, self.image.fd, self.image.slots.offset)
        if error:
            raise failure(f"the image's slots can't be {'read' if resident else 'mapped'}", error)

    def _arena(self) -> tuple[int, int]:
        """Slots that hold the image, and spares. An arena too small for the image is a cache: it has spares only."""
        header = self.image.header
        wanted = self.options.arena_bytes
        if wanted is None or wanted >= (header.slot_count + RING) * header.slot_bytes:
            return header.slot_count, RING
        if wanted <= RING * header.slot_bytes:
            least = -(-(RING + 1) * header.slot_bytes // 1_000_000)
            raise SsrunError(f"--arena must be larger than what can be in flight; {least}M is enough")
        return 0, wanted // header.slot_bytes

    def keep(self, port: Any) -> Any:
        """struct nmio_port * of a struct nmio_port **, which is closed with the stack."""
        self.stack.callback(lib.nmio_port_close, port[0])
        return port[0]

    def lock(self, name: str, refusal: str) -> None:
        """Locks until the stack is closed. Raises SsrunError if another ssrun has it; refusal: see instances.lock."""
        self.stack.callback(instances.lock(name, refusal).close)

    def superframe(self) -> int:
        """How many segments go behind one header."""
        return max(1, min(self.options.superframe, int(lib.NMIO_GATHER_MAX)))
