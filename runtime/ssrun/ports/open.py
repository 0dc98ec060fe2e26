"""Chooses and opens ports: one a worker, with the region that it sends from."""

from __future__ import annotations

import errno
import ipaddress
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssimage._sandstorm import ffi, lib
from ssimage.loader import FrameSource

from ..errors import SsrunError
from . import instances, privileges
from . import kernel as network
from .capture import CaptureOptions
from .kernel import Interface4or6
from .netmap import NAME_BYTES_MAX, Netmap
from .reservation import PortReservation

RING = 2048  # descriptors, and so spare slots
BUFFERS = 4096  # for small frames
AFXDP_BUFFERS = BUFFERS + int(lib.AFXDP_RX_RING)  # and to receive into
NO_HOST4 = ipaddress.IPv4Network("0.0.0.0/8")  # RFC 1122 section 3.2.1.3
BROADCAST4 = ipaddress.IPv4Address("255.255.255.255")
TAP, PCAP, NETMAP = "tap:", "pcap:", "netmap:"
# For what a worker writes to: on cache lines of its own.
new_apart = ffi.new_allocator(lib.nmio_alloc, lib.nmio_free, should_clear_after_alloc=False)
BACKENDS = ("auto", "afxdp", "packet", "tap", "netmap")


@dataclass
class Options:
    """What the command line asks for."""

    iface: str
    backend: str = "auto"
    addresses: list[Interface4or6] = field(default_factory=list)
    host_addresses: list[Interface4or6] = field(default_factory=list)
    port: int = 80
    workers: int | None = None
    superframe: int = lib.NMIO_GATHER_MAX
    address_check: bool = True
    arena_bytes: int | None = None  # None: the whole image and spares
    resident: bool = False  # all of the image in memory from the start
    capture: CaptureOptions | None = None
    kept_tap: bool = False  # a KeptTap has made the device
    wait_for_interface: bool = False


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
    claim: int = lib.ETH_ACD_NONE
    link: network.Interface | None = None  # what it is of the kernel's, as it was when it was opened
    reservation: PortReservation | None = None  # in shared mode
    filter: Any = None  # struct nmio_filter *, where there is one
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def _fail(what: str, error: int, hints: dict[int, str] | None = None, needed: tuple[str, ...] = ()) -> SsrunError:
    """needed: the capabilities without which the kernel does not permit it."""
    hint = (hints or {}).get(-error)
    if hint is None and -error in (errno.EPERM, errno.EACCES):
        return SsrunError(f"{what}: {privileges.hint(*needed) if needed else 'run it as root'}")
    return SsrunError(f"{what}: {os.strerror(-error)}" + (f"; {hint}" if hint else ""))


def tap_failure(name: str, error: int) -> SsrunError:
    """What to raise where a TAP device can't be made. error: -errno."""
    hints = {
        errno.ENOENT: "load the tun module (`modprobe tun`)",
        errno.EBUSY: "the name is in use; choose another with --iface",
    }
    if not os.access(privileges.TUN, os.R_OK | os.W_OK, effective_ids=True):
        hints[errno.EACCES] = privileges.tun_hint()
    return _fail(f"tap:{name} can't be made", error, hints, ("CAP_NET_ADMIN",))


class Opener:
    """Opens the ports of one run; everything is closed with the stack it was given."""

    def __init__(self, options: Options, image: FrameSource, stack: ExitStack) -> None:
        """Nothing is opened yet."""
        self.options = options
        self.image = image
        self.stack = stack

    def open(self) -> Opened:
        """Opens what the options name. Raises SsrunError."""
        options = self.options
        if options.iface.startswith(TAP):
            return self._tap(options.iface.removeprefix(TAP))
        if options.iface.startswith(PCAP):
            return self._pcap(options.iface.removeprefix(PCAP))
        if options.iface.startswith(NETMAP):
            return self._netmap(options.iface.removeprefix(NETMAP))
        if options.backend == "tap":
            raise SsrunError(f"--backend tap makes its own device; write --iface tap:{options.iface}")
        if options.host_addresses:
            raise SsrunError("--host-address is for tap:NAME; the kernel's side of an interface stays as it is")
        interface = network.look_up(options.iface)
        network.usable(interface)
        return self._existing(interface)

    def _memory(self, *, pinned: bool = False) -> tuple[Any, Any]:
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
        buffers = AFXDP_BUFFERS if pinned else BUFFERS
        error = lib.nmio_region_create(region, header.slot_bytes, buffers, residents, spares)
        if error:
            raise _fail("memory to send from can't be laid out", error)
        stack.callback(lib.nmio_region_destroy, region)
        resident = pinned or self.options.resident
        bring = lib.nmio_region_read if resident else lib.nmio_region_map
        error = bring(region, self.image.fd, self.image.slots.offset)
        if error:
            raise _fail(f"the image's slots can't be {'read' if resident else 'mapped'}", error)
        return region, tx

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

    def _keep(self, port: Any) -> Any:
        self.stack.callback(lib.nmio_port_close, port[0])
        return port[0]

    def _lock(self, name: str, taken: str) -> None:
        """Until the stack is closed. Raises SsrunError if another ssrun has it; taken: see instances.lock."""
        self.stack.callback(instances.lock(name, taken).close)

    def _superframe(self) -> int:
        return max(1, min(self.options.superframe, int(lib.NMIO_GATHER_MAX)))

    def tap_addresses(self, name: str) -> tuple[list[Interface4or6], list[Interface4or6]]:
        """Ours and the kernel's on a TAP of that name: those asked for, and what they leave open."""
        ours, theirs = list(self.options.addresses), list(self.options.host_addresses)
        if not ours:
            given = list(theirs)
            wanted = {address.version for address in given}
            for version in sorted(families(self.image)):
                if version in wanted:
                    ours.append(network.partner(next(a for a in given if a.version == version)))
                elif not given:
                    pair = network.default_pair(name, version)
                    ours.append(pair[0])
                    theirs.append(pair[1])
        for address in ours:
            if not any(other.version == address.version for other in theirs):
                theirs.append(network.partner(address))
        return ours, theirs

    def _tap(self, name: str) -> Opened:
        if self.options.backend not in ("auto", "tap"):
            raise SsrunError(f"tap:{name} is served by the tap backend only; leave --backend out")
        network.check_name(name)
        self._lock(f"tap/{name}", f"tap:{name}: {{}} serves it already; choose another name")
        if (Path("/sys/class/net") / name).exists() and not self.options.kept_tap:
            raise SsrunError(f"an interface {name} exists already; choose another name")
        ours, theirs = self.tap_addresses(name)
        kernels = {address.ip for address in theirs} | network.host_ips()
        for address in ours:
            if address.ip in kernels:
                raise SsrunError(f"{address.ip} is this host's own; choose another --address")
        workers = self.options.workers or 1
        opened = Opened(
            backend="tap",
            interface=name,
            mac=network.stable_mac(f"{name} {ours[0]}"),
            mtu_bytes=int(self.image.header.mtu_bytes),
            own_address=True,
            addresses=ours,
            gather_max=self._superframe(),
            # Nobody to ask: the only other party on a device just made is the kernel, and none of its addresses is
            # ours, as was seen above. So it is only told.
            claim=lib.ETH_ACD_ANNOUNCE,
        )
        multi_queue = workers > 1 or self.options.kept_tap
        for _ in range(workers):
            region, tx = self._memory()
            port = ffi.new("struct nmio_port **")
            error = lib.tap_open(port, name.encode(), multi_queue, region, tx, opened.gather_max)
            if error:
                raise tap_failure(name, error)
            opened.ports.append(self._keep(port))
        # The kernel answers a frame while we write it, and drops what its queue can't hold. A whole ring may go out
        # in one turn, so the queue takes as many ACKs, and as many frames of those who ask meanwhile.
        opened.link = network.set_up_tap(name, opened.mtu_bytes, 2 * RING, theirs)
        opened.details["host_addresses"] = [str(address) for address in theirs]
        return opened

    def _pcap(self, paths: str) -> Opened:
        source, _, target = paths.partition(":")
        if not source or not target:
            raise SsrunError("write --iface pcap:IN.pcap:OUT.pcap")
        if not self.options.addresses:
            raise SsrunError("a capture needs --address: whom its packets are for")
        region, tx = self._memory()
        port = ffi.new("struct nmio_port **")
        error = lib.pcap_open(port, os.fsencode(source), os.fsencode(target), region, tx)
        if error:
            raise _fail(f"{source}", error, {errno.EINVAL: "it must be a classic pcap file of Ethernet frames"})
        return Opened(
            backend="pcap",
            interface=source,
            mac=network.stable_mac("pcap"),
            mtu_bytes=int(self.image.header.mtu_bytes),
            own_address=True,
            addresses=list(self.options.addresses),
            ports=[self._keep(port)],
        )

    def _netmap(self, name: str) -> Opened:
        if self.options.backend not in ("auto", "netmap"):
            raise SsrunError(f"netmap:{name} is served by the netmap backend only; leave --backend out")
        if not 0 < len(os.fsencode(name)) <= NAME_BYTES_MAX:
            raise SsrunError(f"{name!r} is no name of a netmap port: vale0:a, or x{{1 for one end of a pipe")
        if (Path("/sys/class/net") / name).exists():
            raise SsrunError(f"{name} is an interface; write --iface {name} --backend netmap")
        if not self.options.addresses:
            raise SsrunError(f"netmap:{name} needs --address: the kernel knows nothing of it")
        if self.options.host_addresses:
            raise SsrunError("--host-address is for tap:NAME; the kernel has no side of a netmap port")
        self._lock(f"netmap/{name}", f"netmap:{name}: {{}} serves it already; stop it, or choose another port")
        check = self.options.address_check
        opened = Opened(
            backend="netmap",
            interface=name,
            mac=network.stable_mac(f"{name} {self.options.addresses[0]}"),
            mtu_bytes=int(self.image.header.mtu_bytes),
            own_address=True,
            addresses=list(self.options.addresses),
            claim=lib.ETH_ACD_CHECK if check else lib.ETH_ACD_ANNOUNCE,
        )
        Netmap(self, opened).port(name)
        return opened

    def _existing(self, interface: network.Interface) -> Opened:
        own = bool(self.options.addresses)
        versions = families(self.image)
        addresses = self.options.addresses or [a for a in interface.addresses if a.version in versions]
        if not addresses:
            raise SsrunError(f"{interface.name} has no address to serve on; `ip addr add` one, or give --address")
        for address in self.options.addresses:
            if any(address.ip == other.ip for other in interface.addresses):
                raise SsrunError(f"{address.ip} is the kernel's on {interface.name}; leave --address out to share it")
        opened = Opened(
            backend=self.options.backend,
            interface=interface.name,
            mac=interface.mac,
            mtu_bytes=min(interface.mtu_bytes, int(self.image.header.mtu_bytes)),
            own_address=own,
            addresses=addresses[: lib.ETH_ADDRESSES_MAX],
            link=interface,
        )
        for address in addresses[lib.ETH_ADDRESSES_MAX :]:
            opened.notes.append(f"{address.ip} is not served: no more than {lib.ETH_ADDRESSES_MAX} addresses are")
        if interface.mtu_bytes < self.image.header.mtu_bytes:
            opened.notes.append(
                f"{interface.name} has MTU {interface.mtu_bytes}, the image {self.image.header.mtu_bytes}: every "
                "segment is cut again (slow); build with the interface's MTU"
            )
        self._lock_served(interface, opened)
        if own:
            check = self.options.address_check
            opened.claim = lib.ETH_ACD_CHECK if check else lib.ETH_ACD_ANNOUNCE
            self.stack.callback(network.join_all_multicast(interface.name).close)
        else:
            ips = [address.ip for address in opened.addresses]
            opened.reservation = PortReservation(interface, self.options.port, ips)
            self.stack.callback(opened.reservation.close)
        self._choose(interface, opened)
        if opened.reservation is not None:
            self._refuse_this_host(opened, opened.reservation)
        return opened

    @staticmethod
    def _refuse_this_host(opened: Opened, reservation: PortReservation) -> None:
        if opened.details.get("tcx", True):  # or XDP, or netmap: the kernel does not get what is ours
            reservation.stop_listening()
        opened.notes.append(
            "this host itself is refused, as what it sends to its own addresses does not pass the interface; "
            "--iface tap:NAME serves it"
        )

    def _lock_served(self, interface: network.Interface, opened: Opened) -> None:
        """What two could not serve without taking each other's clients."""
        if not opened.own_address:
            port = self.options.port
            taken = f"{{}} serves port {port} on {interface.name} already; stop it, or choose with --port"
            self._lock(f"{interface.index}/port/{port}", taken)
            return
        for address in opened.addresses:
            taken = f"{{}} serves {address.ip} on {interface.name} already; stop it, or choose another --address"
            self._lock(f"{interface.index}/{address.ip}", taken)

    def _choose(self, interface: network.Interface, opened: Opened) -> None:
        backend = self.options.backend
        if backend == "auto" and not interface.is_physical:
            opened.notes.append(f"{interface.name} is virtual ({interface.driver}): superframes through AF_PACKET")
            backend = "packet"
        if backend == "auto":
            try:
                self._afxdp(interface, opened)
                return
            except SsrunError as error:
                opened.notes.append(f"AF_XDP can't be used ({error}): AF_PACKET instead")
                backend = "packet"
        if backend == "packet":
            self._packet(interface, opened)
        elif backend == "netmap":
            self._lock(f"netmap/{interface.name}", f"{interface.name}: {{}} has it through netmap already; stop it")
            Netmap(self, opened).interface(interface)
        else:
            self._afxdp(interface, opened)

    def _packet(self, interface: network.Interface, opened: Opened) -> None:
        if (self.options.workers or 1) != 1:
            raise SsrunError("AF_PACKET serves with one worker; leave --workers out")
        opened.backend = "packet"
        opened.gather_max = self._superframe()
        region, tx = self._memory()
        port = ffi.new("struct nmio_port **")
        error = lib.packet_open(
            port, interface.index, self.options.port, opened.own_address, region, tx, opened.gather_max
        )
        if error:
            raise _fail(f"a packet socket on {interface.name} can't be opened", error, needed=("CAP_NET_RAW",))
        opened.ports.append(self._keep(port))
        self._shield(interface, opened)

    def _keep_filter(self, filter_: Any, opened: Opened) -> Any:
        self.stack.callback(lib.nmio_filter_close, filter_)
        for address in opened.addresses:
            packed = address.ip.packed
            error = lib.nmio_filter_address(filter_, packed, len(packed))
            if error:
                raise _fail("the BPF program's addresses can't be set", error)
        opened.filter = filter_
        return filter_

    def _shield(self, interface: network.Interface, opened: Opened) -> None:
        """Keeps from the kernel's IP what the packet socket has had, where that can be."""
        holder = ffi.new("struct nmio_filter **")
        error = lib.nmio_filter_tcx(holder, interface.index, self.options.port, opened.own_address)
        opened.details["tcx"] = error == 0
        if error == 0:
            self._keep_filter(holder[0], opened)

    def _filter(self, interface: network.Interface, opened: Opened) -> Any:
        native = ffi.new("bool *")
        holder = ffi.new("struct nmio_filter **")
        error = lib.nmio_filter_xdp(holder, interface.index, self.options.port, opened.own_address, native)
        hints = {
            errno.ENOSYS: "built without AF_XDP; install libxdp-dev, libbpf-dev and clang, then ssrun again",
            errno.EBUSY: f"another XDP program is there; `ip link set {interface.name} xdp off` removes it",
        }
        if error:
            what = f"no XDP program can be attached to {interface.name}"
            raise _fail(what, error, hints, ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"))
        opened.details["xdp"] = "native" if native[0] else "generic"
        return self._keep_filter(holder[0], opened)

    def _afxdp(self, interface: network.Interface, opened: Opened) -> None:
        queues = interface.rx_queues
        workers = self.options.workers or queues
        if workers != queues:
            raise SsrunError(
                f"{interface.name} has {queues} receive queues and each needs its own worker: --workers {queues}, or "
                f" `ethtool -L {interface.name} combined {workers}`"
            )
        if self.image.header.slot_bytes > os.sysconf("SC_PAGESIZE"):
            raise SsrunError(
                "the image's slots are larger than a page, which AF_XDP can't send; build with a smaller MTU"
            )
        taken = f"{{}} serves {interface.name} through AF_XDP already; stop it, or choose --backend packet"
        self._lock(f"{interface.index}/afxdp", taken)
        opened.backend = "afxdp"
        opened.gather_max = 1
        filter_ = self._filter(interface, opened)
        hints = {
            errno.EBUSY: "another AF_XDP program has the queue; stop it",
            errno.ENOBUFS: "its memory can't be pinned; grant CAP_IPC_LOCK, or raise the limit "
            "(`ulimit -l unlimited`, LimitMEMLOCK=infinity in a systemd unit)",
        }
        zero_copy = ffi.new("bool *")
        for queue in range(queues):
            region, tx = self._memory(pinned=True)
            port = ffi.new("struct nmio_port **")
            error = lib.afxdp_open(port, filter_, interface.name.encode(), queue, region, tx, zero_copy)
            if error:
                what = f"queue {queue} of {interface.name} can't be bound"
                raise _fail(what, error, hints, ("CAP_NET_RAW",))
            opened.ports.append(self._keep(port))
        opened.details["zero_copy"] = bool(zero_copy[0])


def put_address(entry: Any, address: Interface4or6) -> None:
    """entry: struct eth_address."""
    entry.family = lib.IP_FAMILY_V4 if address.version == 4 else lib.IP_FAMILY_V6
    entry.prefix_bits = address.network.prefixlen
    ffi.memmove(entry.bytes, address.ip.packed, len(address.ip.packed))


def families(image: FrameSource) -> set[int]:
    """IP versions that the image has frames for."""
    return {version for bit, version in ((1, 4), (2, 6)) if image.header.families & bit}


def parse_address(text: str) -> Interface4or6:
    """ADDR or ADDR/LEN; without a length a common one. Raises ValueError."""
    if "/" not in text:
        text += "/24" if ipaddress.ip_address(text).version == 4 else "/64"
    return ipaddress.ip_interface(text)


def why_no_host(address: Interface4or6) -> str | None:
    """Why no host can have this address; None: it can."""
    ip = address.ip
    if ip.is_multicast:
        return "a multicast address"
    if ip.is_loopback:
        return "a loopback address"
    if ip.is_unspecified or (ip.version == 4 and (ip in NO_HOST4 or ip == BROADCAST4)):
        return "no host's address"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return f"an IPv4 address in IPv6's clothes; write {ip.ipv4_mapped}"
    return _why_network_s(address)


def _why_network_s(address: Interface4or6) -> str | None:
    """The same of addresses that belong to the network as a whole."""
    ip, network_ = address.ip, address.network
    if ip not in (network_[0], network_[-1]) or network_.prefixlen >= network_.max_prefixlen - 1:
        return None
    if ip.version == 6:  # the first: RFC 4291 section 2.6.1
        return "the anycast address of the network's routers" if ip == network_[0] else None
    kind = "own" if ip == network_[0] else "broadcast"
    return f"the network's {kind} address; write one of {network_[1]} to {network_[-2]}"
