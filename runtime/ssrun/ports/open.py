"""Chooses how to reach what --iface names, and opens ports there: one a worker."""

from __future__ import annotations

from contextlib import ExitStack

from ssimage.loader import FrameSource

from ..errors import SsrunError
from ..settings import NETMAP, PCAP, TAP, Options
from . import kernel
from .base import Opened, Opening
from .existing import ExistingInterface
from .netmap import open_netmap
from .replay import open_replay
from .tap import open_tap


def open_ports(options: Options, image: FrameSource, stack: ExitStack) -> Opened:
    """Opens what the options name; all is closed with the stack. Raises SsrunError."""
    opening = Opening(options, image, stack)
    if options.iface.startswith(TAP):
        return open_tap(opening, options.iface.removeprefix(TAP))
    if options.iface.startswith(PCAP):
        return open_replay(opening, options.iface.removeprefix(PCAP))
    if options.iface.startswith(NETMAP):
        return open_netmap(opening, options.iface.removeprefix(NETMAP))
    return existing(opening).open()


def existing(opening: Opening) -> ExistingInterface:
    """The interface of the kernel's that the options name, before anything is opened. Raises SsrunError."""
    options = opening.options
    if options.backend == "tap":
        raise SsrunError(f"--backend tap makes its own device; write --iface tap:{options.iface}")
    if options.host_addresses:
        raise SsrunError("--host-address is for tap:NAME; the kernel's side of an interface stays as it is")
    interface = kernel.look_up(options.iface)
    kernel.usable(interface)
    return ExistingInterface(opening, interface)
