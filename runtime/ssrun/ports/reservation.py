"""The served port in shared mode, held against the kernel and other servers."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Mapping
from functools import partial

from ..addresses import Address4or6
from ..errors import SsrunError
from ..events import Events
from . import privileges
from .kernel import Interface

SO_ATTACH_FILTER = 26
SO_BINDTOIFINDEX = 62
IP_FREEBIND = 15
BACKLOG = 16
NO_LINGER = struct.pack("ii", 1, 0)
# Classic BPF (linux/filter.h): load a word, jump if equal, return.
BPF_LD_W_ABS, BPF_JEQ_K, BPF_RET_K = 0x20, 0x15, 0x06
SKF_AD_IFINDEX = 0x100000000 - 0x1000 + 8
WHOLE = 0xFFFFFFFF


def _only_from_this_host() -> bytes:
    """A filter that lets through what comes over the loopback interface and drops the rest."""
    loopback = socket.if_nametoindex("lo")
    program = (
        (BPF_LD_W_ABS, 0, 0, SKF_AD_IFINDEX),
        (BPF_JEQ_K, 0, 1, loopback),
        (BPF_RET_K, 0, 0, WHOLE),
        (BPF_RET_K, 0, 0, 0),
    )
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _attach_filter(sock: socket.socket) -> None:
    program = _only_from_this_host()
    instructions = ctypes.create_string_buffer(program)  # must live through the call
    described = struct.pack("HP", len(program) // 8, ctypes.addressof(instructions))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)


class PortReservation:
    """Keeps the kernel from answering the served port with RST while we serve it, and other servers from taking it.

    A socket of the kernel's own holds the port at each address; a filter in front drops what comes to it from others.
    What this host sends to itself never gets to us: it is reset, so that nobody waits for an answer. Where the kernel
    gets nothing of what is ours, the sockets need not listen (`stop_listening`), and it refuses this host at once.

    Nothing is left when this process is gone, however it ends.
    """

    def __init__(
        self, interface: Interface, port: int, addresses: Iterable[Address4or6], held: Mapping[str, int] = {}
    ) -> None:
        """Raises SsrunError if another server has the port at one of the addresses.

        held: descriptors of sockets that hold it at some already, by address; ours from now on.
        """
        self.interface = interface
        self.port = port
        self.listens = True
        self.events: Events | None = None
        self.sockets: dict[Address4or6, socket.socket] = {}
        wanted = list(addresses)
        for name, fd in held.items():
            sock = socket.socket(fileno=fd)
            address = next((address for address in wanted if str(address) == name), None)
            if address is None or sock.getsockname()[:2] != (str(address), port):
                sock.close()
            else:
                self.sockets[address] = sock
        try:
            for address in wanted:
                if address not in self.sockets:
                    self.hold(address)
        except BaseException:
            self.close()
            raise

    def hold(self, address: Address4or6) -> None:
        """Holds the port at one address more. Raises SsrunError."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._listen(sock, address)
        except OSError as error:
            sock.close()
            raise self._error(error) from None
        self.sockets[address] = sock
        if not self.listens:
            self._stop(sock)
        self._watch(sock)

    def _listen(self, sock: socket.socket, address: Address4or6) -> None:
        _attach_filter(sock)
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, self.interface.index)  # its name may be another by now
        # TIME-WAIT of a server that has ended is no obstacle; one that listens still is.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)  # an IPv6 address may be tentative yet
        if address.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((str(address), self.port, 0, self.interface.index if address.is_link_local else 0))
        else:
            sock.bind((str(address), self.port))
        sock.listen(BACKLOG)

    def _error(self, error: OSError) -> SsrunError:
        if error.errno == errno.EADDRINUSE:
            return SsrunError(
                f"port {self.port} is taken by another server on this host; stop it, or choose with --port"
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            # The filter (from Linux 6.17 on), and binding to a device (before 5.7).
            needed = ("CAP_NET_BIND_SERVICE",) if error.errno == errno.EACCES else ("CAP_NET_ADMIN", "CAP_NET_RAW")
            return SsrunError(f"port {self.port} can't be held: {privileges.hint(*needed)}")
        return SsrunError(f"port {self.port} can't be held: {error.strerror}")

    def release(self, address: Address4or6) -> None:
        """That address is served no more."""
        sock = self.sockets.pop(address, None)
        if sock is not None:
            self._close(sock)

    def stop_listening(self) -> None:
        """The kernel's TCP does not see what others send to us: it may refuse what is left, this host's own."""
        self.listens = False
        for sock in self.sockets.values():
            self._stop(sock)

    @staticmethod
    def _stop(sock: socket.socket) -> None:
        """Lets a socket listen no more. Bound, it keeps even those out that would share the port (SO_REUSEADDR)."""
        with contextlib.suppress(OSError):  # it does not listen
            sock.shutdown(socket.SHUT_RD)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)

    def reset_this_host(self, events: Events) -> None:
        """Where the sockets listen, this host's own connections arrive there: they are accepted, and end with RST."""
        self.events = events
        for sock in self.sockets.values():
            self._watch(sock)

    def _watch(self, sock: socket.socket) -> None:
        if self.events is not None and self.listens:
            self.events.watch(sock, partial(self._reset, sock))

    @staticmethod
    def _reset(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = sock.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                connection.close()

    def close(self) -> None:
        """Gives the port back."""
        for sock in self.sockets.values():
            self._close(sock)
        self.sockets.clear()

    def _close(self, sock: socket.socket) -> None:
        if self.events is not None and self.listens:
            self.events.forget(sock)
        sock.close()
