"""A TAP device that stays while who serves on it is changed for another."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from .kernel import check_name
from .privileges import TUN
from .tap import tap_failure

# linux/if_tun.h
TUNSETIFF, TUNSETQUEUE = 0x400454CA, 0x400454D9
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE, IFF_DETACH_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100, 0x0400
IFF_TUN_EXCL = 0x8000  # no queue of a device that is there already


class KeptTap:
    """Makes a TAP device, and holds it by a queue that takes no frames.

    The device is gone when this is closed, or its process ends, and nobody else has a queue.
    """

    def __init__(self, name: str) -> None:
        """Raises SsrunError."""
        check_name(name)  # the kernel's structure would take the beginning of a longer one
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE | IFF_TUN_EXCL
        with contextlib.ExitStack() as stack:
            try:
                self.fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
                stack.callback(self.close)
                fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", os.fsencode(name), flags))
                fcntl.ioctl(self.fd, TUNSETQUEUE, struct.pack("16sH22x", b"", IFF_DETACH_QUEUE))
            except OSError as error:
                raise tap_failure(name, -(error.errno or 0)) from None
            stack.pop_all()

    def close(self) -> None:
        """Gives it up."""
        os.close(self.fd)
