"""TAP devices: made for a run, and gone with it."""

from __future__ import annotations

import errno
import os
from ipaddress import ip_interface

from ssimage._sandstorm import ffi, lib
from ssimage.loader import FrameSource

from ..addresses import Interface4or6, families
from ..errors import SsrunError
from ..settings import Options
from . import kernel, privileges
from .base import RING, Opened, Opening, failure


def tap_failure(name: str, error: int) -> SsrunError:
    """What to raise where a TAP device can't be made. error: -errno."""
    hints = {
        errno.ENOENT: "load the tun module (`modprobe tun`)",
        errno.EBUSY: "the name is in use; choose another with --iface",
    }
    if not os.access(privileges.TUN, os.R_OK | os.W_OK, effective_ids=True):
        hints[errno.EACCES] = privileges.tun_hint()
    return failure(f"tap:{name} can't be made", error, hints, ("CAP_NET_ADMIN",))


def tap_addresses(options: Options, image: FrameSource, name: str) -> tuple[list[Interface4or6], list[Interface4or6]]:
    """Ours and the kernel's on a TAP of that name: those asked for, and what they leave open."""
    if options.handover is not None:  # the device has them
        left = options.handover
        return [ip_interface(text) for text in left.tap_addresses], [
            ip_interface(text) for text in left.tap_host_addresses
        ]
    ours, theirs = list(options.addresses), list(options.host_addresses)
    if not ours:
        given = list(theirs)
        wanted = {address.version for address in given}
        for version in sorted(families(image)):
            if version in wanted:
                ours.append(kernel.partner(next(a for a in given if a.version == version)))
            elif not given:
                pair = kernel.default_pair(name, version)
                ours.append(pair[0])
                theirs.append(pair[1])
    for address in ours:
        if not any(other.version == address.version for other in theirs):
            theirs.append(kernel.partner(address))
    return ours, theirs


def open_tap(opening: Opening, name: str) -> Opened:
    """Makes the device, and a port for each worker. Raises SsrunError."""
    if opening.options.backend not in ("auto", "tap"):
        raise SsrunError(f"tap:{name} is served by the tap backend only; leave --backend out")
    kernel.check_name(name)
    opening.lock(f"tap/{name}", f"tap:{name}: {{}} serves it already; choose another name")
    handover = opening.options.handover
    if (kernel.SYSFS / name).exists() and not opening.options.kept_tap and handover is None:
        raise SsrunError(f"an interface {name} exists already; choose another name")
    ours, theirs = tap_addresses(opening.options, opening.image, name)
    kernels = {address.ip for address in theirs} | kernel.host_ips()
    for address in ours:
        if address.ip in kernels:
            raise SsrunError(f"{address.ip} is this host's own; choose another --address")
    workers = opening.options.workers or 1
    opened = Opened(
        backend="tap",
        interface=name,
        mac=kernel.stable_mac(f"{name} {ours[0]}"),
        mtu_bytes=int(opening.image.header.mtu_bytes),
        own_address=True,
        addresses=ours,
        gather_max=opening.superframe(),
        # Nobody to ask: the only other party on a device just made is the kernel, and none of its addresses is
        # ours, as was seen above. So the address is only announced.
        acd=lib.ETH_ACD_ANNOUNCE,
    )
    multi_queue = workers > 1 or opening.options.kept_tap
    queues = iter(handover.taps if handover is not None else [])
    for _ in range(workers):
        region, tx = opening.memory()
        port = ffi.new("struct nmio_port **")
        error = lib.tap_open(port, name.encode(), multi_queue, next(queues, -1), region, tx, opened.gather_max)
        if error:
            raise tap_failure(name, error)
        opened.ports.append(opening.keep(port))
    # The kernel answers a frame while we write it, and drops what its queue can't hold. A whole ring may go out
    # in one turn, so the queue takes as many ACKs, and as many frames of those who ask meanwhile.
    opened.link = kernel.set_up_tap(name, opened.mtu_bytes, 2 * RING, theirs)
    opened.details["host_addresses"] = [str(address) for address in theirs]
    return opened
