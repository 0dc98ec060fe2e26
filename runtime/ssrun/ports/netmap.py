"""Opens netmap ports: an interface's rings, or a port of a VALE switch or one end of a pipe."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssimage._sandstorm import ffi, lib
from ssimage.loader import FrameSource

from ..errors import SsrunError
from . import kernel
from .base import Opened, Opening

NAME_BYTES_MAX = 63
ETHERNET_BYTES = 18  # a header with a VLAN tag
RING_MAX = 4096  # slots of a TX ring, and so spares, where the ring's size is not known yet
# What can't be in place, and why; then frames are copied.
NOT_IN_PLACE = {
    errno.EOPNOTSUPP: "its slots have no offsets",
    errno.ENOBUFS: "netmap has too few buffers to spare: load its module with a larger buf_num",
    errno.EMSGSIZE: "netmap's buffers have another size than the image's slots",
}
HINTS = {
    errno.ENOENT: "there is no /dev/netmap: load the module (`modprobe netmap`)",
    errno.ENXIO: "netmap knows no port of that name, or not how to take the interface over",
    errno.EBUSY: "another netmap program has it; stop that",
    errno.ENOMEM: "netmap has no memory left: load its module with larger buf_num, ring_num and if_num",
    errno.EINVAL: "netmap speaks another version of its interface than 14, or has no such ring",
}


@dataclass
class External:
    """Memory in huge pages, for netmap to keep an interface's rings and buffers in."""

    plan: Any  # struct netmap_plan *
    memory: Any


def huge_pages_free() -> int:
    """How many pages of NMIO_HUGE_PAGE_BYTES are reserved and not in use."""
    path = Path(f"/sys/kernel/mm/hugepages/hugepages-{lib.NMIO_HUGE_PAGE_BYTES // 1024}kB/free_hugepages")
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


@dataclass
class Request:
    """One port to open."""

    name: str
    ring: int  # one pair, or NETMAP_RINGS_ALL
    host_rings: bool
    tcp_port: int
    opened: Opened


def frames_of(image: FrameSource) -> dict[str, Any]:
    """struct nmio_frames: what the image has to send."""
    header = image.header
    return {
        "slots": image.image.slots,
        "slot_count": header.slot_count,
        "slot_bytes": header.slot_bytes,
        "mtu_bytes": header.mtu_bytes,
    }


def _request(image: FrameSource, wanted: Request, external: External | None, *, copy: bool) -> Any:
    """struct netmap_request *; it does not outlive what it is made of."""
    opened = wanted.opened
    request = ffi.new(
        "struct netmap_request *",
        {
            "name": os.fsencode(wanted.name),
            "ring": wanted.ring,
            "copy": copy,
            "host_rings": wanted.host_rings,
            "extra_buffers": int(image.header.slot_count) + RING_MAX,
            "frames": frames_of(image),
        },
    )
    if external:
        request.external = external.memory
        request.plan = external.plan[0]
        request.extra_buffers = external.plan.extra_buffers
    filter_ = request.filter
    filter_.own_address = opened.own_address
    filter_.tcp_port = wanted.tcp_port
    addresses = opened.addresses[: lib.NETMAP_ADDRESSES_MAX]
    filter_.address_count = len(addresses)
    for place, address in enumerate(addresses):
        filter_.family[place] = lib.IP_FAMILY_V4 if address.version == 4 else lib.IP_FAMILY_V6
        ffi.memmove(filter_.address[place], address.ip.packed, len(address.ip.packed))
    return request


def _error(name: str, error: int, info: Any, image: FrameSource) -> SsrunError:
    if -error == errno.EMSGSIZE:
        least = 14 + int(image.header.mtu_bytes)
        return SsrunError(
            f"netmap's buffers have {info.buffer_bytes} bytes and the image's frames up to {least}; load its module "
            f"with buf_size={image.header.slot_bytes}, or build the image with a smaller MTU"
        )
    hint = HINTS.get(-error, "run it as root" if -error in (errno.EPERM, errno.EACCES) else "")
    return SsrunError(f"{name} can't be opened through netmap: {hint or os.strerror(-error)}")


class Netmap:
    """Opens one run's netmap ports."""

    def __init__(self, opening: Opening, opened: Opened) -> None:
        """Nothing is opened yet; opened is filled in."""
        self.opening = opening
        self.opened = opened
        self.external: External | None = None
        self.external_memory = opening.stack.enter_context(ExitStack())  # dies with this, or earlier
        self.huge_pages = 0  # that the whole image takes in external memory
        opened.backend = "netmap"
        opened.gather_max = 1

    def interface(self, interface: kernel.Interface) -> None:
        """An interface: one worker with all rings beside the kernel, or a worker for each pair of rings."""
        workers = self.opening.options.workers or 1
        if workers > 1 and not self.opened.own_address:
            raise SsrunError("netmap shares an interface with the kernel with one worker only; leave --workers out")
        self.external = self._external(interface.name, workers)
        if workers == 1:
            self.opening.stack.callback(kernel.Offloads(interface.name).close)
            request = Request(interface.name, lib.NETMAP_RINGS_ALL, True, self.opening.options.port, self.opened)
            self._fits(interface, self._open(request))
            return
        self.opened.warnings.append(f"{workers} workers have all rings: the kernel is cut off from {interface.name}")
        for ring in range(workers):
            info = self._open(Request(interface.name, ring, False, self.opening.options.port, self.opened))
            self._fits(interface, info)
            if info.rx_rings != workers:
                raise SsrunError(
                    f"{interface.name} has {info.rx_rings} pairs of rings and each needs its own worker: "
                    f"--workers {info.rx_rings}"
                )

    def _external(self, name: str, ports: int) -> External | None:
        """Memory for all ports of an interface; None without huge pages enough."""
        plan = ffi.new("struct netmap_plan *")
        frames = ffi.new("struct nmio_frames *", frames_of(self.opening.image))
        error = lib.netmap_plan(lib.netmap_kernel(), os.fsencode(name), frames, ports, plan)
        if error:
            return None  # opening it says why
        self.huge_pages = -(-int(plan.bytes) // lib.NMIO_HUGE_PAGE_BYTES)
        if huge_pages_free() < self.huge_pages:
            return None
        memory = lib.nmio_huge_alloc(plan.bytes)
        if memory == ffi.NULL:
            return None
        self.external_memory.callback(lib.nmio_huge_free, memory, int(plan.bytes))
        return External(plan, memory)

    @staticmethod
    def _fits(interface: kernel.Interface, info: Any) -> None:
        """What is longer than a buffer would be lost, or come in pieces."""
        frame_bytes = interface.mtu_bytes + ETHERNET_BYTES
        if frame_bytes > info.buffer_bytes:
            raise SsrunError(
                f"{interface.name} has frames of up to {frame_bytes} bytes and netmap's buffers {info.buffer_bytes}; "
                f"`ip link set {interface.name} mtu {info.buffer_bytes - ETHERNET_BYTES}`, or load its module with a "
                "larger buf_size"
            )

    def port(self, name: str) -> None:
        """A port of netmap's own, which the kernel knows nothing of."""
        if (self.opening.options.workers or 1) != 1:
            raise SsrunError(f"netmap:{name} has one ring; leave --workers out")
        request = Request(name, lib.NETMAP_RINGS_ALL, False, self.opening.options.port, self.opened)
        # A pipe hands the buffers themselves to its other end, which writes to them. A switch copies cache lines:
        # a receiver without offsets then looks for the frame where it isn't.
        is_pipe = "{" in name or "}" in name
        self._open(request, copied="a pipe moves buffers" if is_pipe else "a switch loses offsets")

    def _open(self, wanted: Request, *, copied: str = "") -> Any:
        """Opens a port, in place if that can be and nothing speaks against it. Returns struct netmap_info *."""
        info = ffi.new("struct netmap_info *")
        if not copied and self.external and not self._try(wanted, info, copy=False):
            self._describe("in place, external memory")
            return info
        if not self.opened.ports:
            self.external_memory.close()  # no port has it
        self.external = None
        error = errno.EOPNOTSUPP if copied else self._try(wanted, info, copy=False)
        if not error:
            self._in_place(info)
            return info
        why = NOT_IN_PLACE.get(error)
        if why is None:
            raise _error(wanted.name, -error, info, self.opening.image)
        error = self._try(wanted, info, copy=True)
        if error:
            raise _error(wanted.name, -error, info, self.opening.image)
        self._describe("copied", f"every frame is copied, as {copied or why}")
        return info

    def _in_place(self, info: Any) -> None:
        """Says whether the image lies in netmap's own buffers or passes through them."""
        if info.resident:
            self._describe("in place")
            return
        header = self.opening.image.header
        more = header.slot_count + info.tx_slots - info.extra_buffers
        self._describe(
            "in place, cached",
            f"netmap gave {info.extra_buffers} buffers, the image has {header.slot_count} slots: those asked for "
            f"most are kept; {more} buffers more (module parameter buf_num) hold all of it, or, with a module that "
            f"takes external memory, {self.huge_pages} free huge pages (vm.nr_hugepages)",
        )

    def _describe(self, sending: str, note: str = "") -> None:
        self.opened.details["sending"] = sending
        if note and note not in self.opened.warnings:
            self.opened.warnings.append(note)

    def _try(self, wanted: Request, info: Any, *, copy: bool) -> int:
        """Tries to open a port; 0, or the errno, and nothing stays open then."""
        with ExitStack() as undo:
            memory = self.opening.image_memory(undo) if copy else self.opening.lent_memory(undo)
            port = ffi.new("struct nmio_port **")
            request = _request(self.opening.image, wanted, self.external, copy=copy)
            error = lib.netmap_open(port, lib.netmap_kernel(), request, *memory, info)
            if error:
                return int(-error)
            undo.callback(lib.nmio_port_close, port[0])
            self.opening.stack.push(undo.pop_all())
            self.opened.ports.append(port[0])
            self.opened.details["ring_slots"] = int(info.tx_slots)
            return 0


def open_netmap(opening: Opening, name: str) -> Opened:
    """Opens a port of netmap's own. Raises SsrunError."""
    if opening.options.backend not in ("auto", "netmap"):
        raise SsrunError(f"netmap:{name} is served by the netmap backend only; leave --backend out")
    if not 0 < len(os.fsencode(name)) <= NAME_BYTES_MAX:
        raise SsrunError(f"{name!r} is no name of a netmap port: vale0:a, or x{{1 for one end of a pipe")
    if (Path("/sys/class/net") / name).exists():
        raise SsrunError(f"{name} is an interface; write --iface {name} --backend netmap")
    if not opening.options.addresses:
        raise SsrunError(f"netmap:{name} needs --address: the kernel knows nothing of it")
    if opening.options.host_addresses:
        raise SsrunError("--host-address is for tap:NAME; the kernel has no side of a netmap port")
    opening.lock(f"netmap/{name}", f"netmap:{name}: {{}} serves it already; stop it, or choose another port")
    check = opening.options.address_check
    opened = Opened(
        backend="netmap",
        interface=name,
        mac=kernel.stable_mac(f"{name} {opening.options.addresses[0]}"),
        mtu_bytes=int(opening.image.header.mtu_bytes),
        own_address=True,
        addresses=list(opening.options.addresses),
        acd=lib.ETH_ACD_CHECK if check else lib.ETH_ACD_ANNOUNCE,
    )
    Netmap(opening, opened).port(name)
    return opened
