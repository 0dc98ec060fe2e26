"""A capture as a port: its packets are received, and the answers written to another one."""

from __future__ import annotations

import errno
import os

from ssimage._sandstorm import ffi, lib

from ..errors import SsrunError
from . import kernel
from .base import Opened, Opening, failure


def open_replay(opening: Opening, paths: str) -> Opened:
    """paths: of the capture, and of the one to be written, with a colon between. Raises SsrunError."""
    source, _, target = paths.partition(":")
    if not source or not target:
        raise SsrunError("write --iface pcap:IN.pcap:OUT.pcap")
    if not opening.options.addresses:
        raise SsrunError("a capture needs --address: whom its packets are for")
    region, tx = opening.memory()
    port = ffi.new("struct nmio_port **")
    error = lib.pcap_open(port, os.fsencode(source), os.fsencode(target), region, tx)
    if error:
        raise failure(f"{source}", error, {errno.EINVAL: "it must be a classic pcap file of Ethernet frames"})
    return Opened(
        backend="pcap",
        interface=source,
        mac=kernel.stable_mac("pcap"),
        mtu_bytes=int(opening.image.header.mtu_bytes),
        own_address=True,
        addresses=list(opening.options.addresses),
        ports=[opening.keep(port)],
    )
