"""Ports on an interface that is there: AF_XDP, AF_PACKET or netmap, beside the kernel or in its place."""

from __future__ import annotations

import errno
import os
from typing import Any

from ssimage._sandstorm import ffi, lib

from ..addresses import Interface4or6, families
from ..errors import SsrunError
from . import kernel
from .base import Opened, Opening, failure
from .kernel import Interface
from .netmap import Netmap
from .reservation import PortReservation


class ExistingInterface:
    """Opens one run's ports on an interface of the kernel's."""

    def __init__(self, opening: Opening, interface: Interface) -> None:
        """Nothing is opened yet."""
        self.opening = opening
        self.options = opening.options
        self.image = opening.image
        self.stack = opening.stack
        self.interface = interface

    def open(self) -> Opened:
        """Opens them as the options say. Raises SsrunError."""
        opened = self.described()
        self._lock_served(opened)
        if opened.own_address:
            check = self.options.address_check and self.options.handover is None  # then they are ours
            opened.acd = lib.ETH_ACD_CHECK if check else lib.ETH_ACD_ANNOUNCE
            self.stack.callback(kernel.join_all_multicast(self.interface.name).close)
        else:
            ips = [address.ip for address in opened.addresses]
            held = self.options.handover.reservation if self.options.handover is not None else {}
            opened.reservation = PortReservation(self.interface, self.options.port, ips, held)
            self.stack.callback(opened.reservation.close)
        self._choose(opened)
        if opened.reservation is not None:
            self._refuse_this_host(opened, opened.reservation)
        return opened

    def _addresses(self) -> list[Interface4or6]:
        """Gives the addresses to serve: in shared mode the kernel's. Raises SsrunError."""
        name, kernels = self.interface.name, self.interface.addresses
        versions = families(self.image)
        addresses = self.options.addresses or [address for address in kernels if address.version in versions]
        if not addresses:
            raise SsrunError(f"{name} has no address to serve on; `ip addr add` one, or give --address")
        for address in self.options.addresses:
            if any(address.ip == other.ip for other in kernels):
                raise SsrunError(f"{address.ip} is the kernel's on {name}; leave --address out to share it")
        return addresses

    def described(self) -> Opened:
        """Without ports yet, with what is to be noted of the interface."""
        interface, image_mtu_bytes = self.interface, int(self.image.header.mtu_bytes)
        addresses = self._addresses()
        opened = Opened(
            backend=self.options.backend,
            interface=interface.name,
            mac=interface.mac,
            mtu_bytes=min(interface.mtu_bytes, image_mtu_bytes),
            own_address=bool(self.options.addresses),
            addresses=addresses[: lib.ETH_ADDRESSES_MAX],
            link=interface,
        )
        for address in addresses[lib.ETH_ADDRESSES_MAX :]:
            opened.warnings.append(f"{address.ip} is not served: no more than {lib.ETH_ADDRESSES_MAX} addresses are")
        if interface.mtu_bytes < image_mtu_bytes:
            opened.warnings.append(
                f"{interface.name} has MTU {interface.mtu_bytes}, the image {image_mtu_bytes}: every segment is cut "
                "again (slow); build with the interface's MTU"
            )
        return opened

    @staticmethod
    def _refuse_this_host(opened: Opened, reservation: PortReservation) -> None:
        if opened.details.get("tcx", True):  # or XDP, or netmap: the kernel does not get what is ours
            reservation.stop_listening()
        opened.warnings.append(
            "this host itself is refused, as what it sends to its own addresses does not pass the interface; "
            "--iface tap:NAME serves it"
        )

    def _lock_served(self, opened: Opened) -> None:
        """What two could not serve without taking each other's clients."""
        if not opened.own_address:
            port = self.options.port
            refusal = f"{{}} serves port {port} on {self.interface.name} already; stop it, or choose with --port"
            self.opening.lock(f"{self.interface.index}/port/{port}", refusal)
            return
        for address in opened.addresses:
            refusal = (
                f"{{}} serves {address.ip} on {self.interface.name} already; stop it, or choose another --address"
            )
            self.opening.lock(f"{self.interface.index}/{address.ip}", refusal)

    def _choose(self, opened: Opened) -> None:
        backend = self.options.backend
        if backend == "auto" and not self.interface.is_physical:
            opened.warnings.append(
                f"{self.interface.name} is virtual ({self.interface.driver}): superframes through AF_PACKET"
            )
            backend = "packet"
        if backend == "auto":
            try:
                self._afxdp(opened)
                return
            except SsrunError as error:
                opened.warnings.append(f"AF_XDP can't be used ({error}): AF_PACKET instead")
                backend = "packet"
        if backend == "packet":
            self._packet(opened)
        elif backend == "netmap":
            self.opening.lock(
                f"netmap/{self.interface.name}", f"{self.interface.name}: {{}} has it through netmap already; stop it"
            )
            Netmap(self.opening, opened).interface(self.interface)
        else:
            self._afxdp(opened)

    def _packet(self, opened: Opened) -> None:
        if (self.options.workers or 1) != 1:
            raise SsrunError("AF_PACKET serves with one worker; leave --workers out")
        opened.backend = "packet"
        opened.gather_max = self.opening.superframe()
        region, tx = self.opening.memory()
        port = ffi.new("struct nmio_port **")
        error = lib.packet_open(
            port, self.interface.index, self.options.port, opened.own_address, region, tx, opened.gather_max
        )
        if error:
            raise failure(f"a packet socket on {self.interface.name} can't be opened", error, needed=("CAP_NET_RAW",))
        opened.ports.append(self.opening.keep(port))
        self._shield(opened)

    def _keep_filter(self, filter_: Any, opened: Opened) -> Any:
        self.stack.callback(lib.nmio_filter_close, filter_)
        for address in opened.addresses:
            packed = address.ip.packed
            error = lib.nmio_filter_address(filter_, packed, len(packed))
            if error:
                raise failure("the BPF program's addresses can't be set", error)
        opened.filter = filter_
        return filter_

    def _shield(self, opened: Opened) -> None:
        """Keeps from the kernel's IP what the packet socket has had, where that can be."""
        if self._replace_filter(opened, xdp=False):
            opened.details["tcx"] = True
            return
        holder = ffi.new("struct nmio_filter **")
        error = lib.nmio_filter_tcx(holder, self.interface.index, self.options.port, opened.own_address)
        opened.details["tcx"] = error == 0
        if error == 0:
            self._keep_filter(holder[0], opened)

    def _replace_filter(self, opened: Opened, *, xdp: bool) -> bool:
        """Takes the place of a program that another build has left. False: there is none. Raises SsrunError."""
        handover = self.options.handover
        if handover is None or handover.link_fd < 0:
            return False
        holder = ffi.new("struct nmio_filter **")
        port, own = self.options.port, opened.own_address
        error = lib.nmio_filter_replace(holder, handover.link_fd, xdp, self.interface.index, port, own)
        if error == 0:
            error = lib.nmio_filter_attach(self._keep_filter(holder[0], opened))
        if error:
            os.close(handover.link_fd)  # and with it what is there, so that another can be
            raise failure("the BPF program of the build before this can't be replaced", error)
        return True

    def _filter(self, opened: Opened) -> Any:
        if self._replace_filter(opened, xdp=True):
            assert self.options.handover is not None
            opened.details["xdp"] = self.options.handover.xdp
            return opened.filter
        native = ffi.new("bool *")
        holder = ffi.new("struct nmio_filter **")
        error = lib.nmio_filter_xdp(holder, self.interface.index, self.options.port, opened.own_address, native)
        hints = {
            errno.ENOSYS: "built without AF_XDP; install libxdp-dev, libbpf-dev and clang, then ssrun again",
            errno.EBUSY: f"another XDP program is there; `ip link set {self.interface.name} xdp off` removes it",
        }
        if error:
            what = f"no XDP program can be attached to {self.interface.name}"
            raise failure(what, error, hints, ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"))
        opened.details["xdp"] = "native" if native[0] else "generic"
        return self._keep_filter(holder[0], opened)

    def _afxdp(self, opened: Opened) -> None:
        name, queues = self.interface.name, self.interface.rx_queues
        workers = self.options.workers or queues
        if workers != queues:
            raise SsrunError(
                f"{name} has {queues} receive queues and each needs its own worker: --workers {queues}, or "
                f" `ethtool -L {name} combined {workers}`"
            )
        if self.image.header.slot_bytes > os.sysconf("SC_PAGESIZE"):
            raise SsrunError(
                "the image's slots are larger than a page, which AF_XDP can't send; build with a smaller MTU"
            )
        refusal = f"{{}} serves {self.interface.name} through AF_XDP already; stop it, or choose --backend packet"
        self.opening.lock(f"{self.interface.index}/afxdp", refusal)
        opened.backend = "afxdp"
        opened.gather_max = 1
        filter_ = self._filter(opened)
        hints = {
            errno.EBUSY: "another AF_XDP program has the queue; stop it",
            errno.ENOBUFS: "its memory can't be pinned; grant CAP_IPC_LOCK, or raise the limit "
            "(`ulimit -l unlimited`, LimitMEMLOCK=infinity in a systemd unit)",
        }
        zero_copy = ffi.new("bool *")
        for queue in range(queues):
            region, tx = self.opening.memory(pinned=True)
            port = ffi.new("struct nmio_port **")
            error = lib.afxdp_open(port, filter_, self.interface.name.encode(), queue, region, tx, zero_copy)
            if error:
                what = f"queue {queue} of {self.interface.name} can't be bound"
                raise failure(what, error, hints, ("CAP_NET_RAW",))
            opened.ports.append(self.opening.keep(port))
        opened.read_again = self.opening.read_again
        opened.details["zero_copy"] = bool(zero_copy[0])
