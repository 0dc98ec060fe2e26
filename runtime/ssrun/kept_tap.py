"""A TAP device that stays while who serves on it is changed for another."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from .errors import SsrunError

# linux/if_tun.h
TUNSETIFF, TUNSETQUEUE = 0x400454CA, 0x400454D9
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE, IFF_DETACH_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100, 0x0400
IFF_TUN_EXCL = 0x8000  # no queue of a device that is there already
DEVICE = "/dev/net/tun"


class KeptTap:
    """Makes a TAP device, and holds it by a queue that takes no frames.

    The device is gone when this is closed, or its process ends, and nobody else has a queue.
    """

    def __init__(self, name: str) -> None:
        """Raises SsrunError."""
        try:
            self.fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise self._error(name, error) from None
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE | IFF_TUN_EXCL
        try:
            fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            fcntl.ioctl(self.fd, TUNSETQUEUE, struct.pack("16sH22x", b"", IFF_DETACH_QUEUE))
        except OSError as error:
            self.close()
            raise self._error(name, error) from None

    @staticmethod
    def _error(name: str, error: OSError) -> SsrunError:
        hints = {
            errno.ENOENT: "load the tun module",
            errno.EBUSY: "the name is in use; choose another with --iface",
            errno.EPERM: "it needs CAP_NET_ADMIN: run it as root, with sudo",
            errno.EACCES: f"{DEVICE} may not be opened: run it as root, with sudo",
        }
        hint = hints.get(error.errno or 0)
        return SsrunError(f"tap:{name} can't be made: {error.strerror}" + (f"; {hint}" if hint else ""))

    def close(self) -> None:
        """Gives it up."""
        os.close(self.fd)
