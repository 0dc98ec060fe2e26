"""The kernel's side of an interface: looked at, and for a TAP set up, through netlink."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ssimage.lazy import lazy

from ..addresses import Address4or6, Interface4or6
from ..errors import SsrunError
from . import privileges

if TYPE_CHECKING:
    import pyroute2
else:  # It takes longer to import than all of ssrun.
    pyroute2 = lazy("pyroute2")

SYSFS = Path("/sys/class/net")
IFNAMSIZ = 16  # with the zero behind it
IFA_F_NODAD = 0x02
IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x08, 0x40
IFF_UP, IFF_LOOPBACK, IFF_LOWER_UP = 0x1, 0x8, 0x10000
AF_XDP = 44
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_MR_ALLMULTI = 2
SIOCETHTOOL = 0x8946
TUNGETIFF = 0x800454D2  # linux/if_tun.h
# Read and set: TX checksums, segmentation in hardware, in software. Set in this order, put back in the other: no
# segmentation is without checksums.
OFFLOADS = ((0x23, 0x24), (0x1E, 0x1F), (0x16, 0x17))
TAP_NETWORKS4 = ipaddress.IPv4Network("198.18.0.0/15")  # set aside for benchmarks, RFC 2544: nobody routes it
TAP_PREFIX4 = 24
TAP_PREFIX6 = 64


@dataclass
class Interface:
    """An interface as the kernel has it."""

    name: str
    index: int
    mac: bytes
    mtu_bytes: int
    up: bool
    running: bool = True  # up, and with a carrier
    loopback: bool = False
    addresses: list[Interface4or6] = field(default_factory=list)
    tentative: set[Address4or6] = field(default_factory=set)  # of these, what the kernel does not answer for yet

    @property
    def sysfs(self) -> Path:
        """The interface's folder below /sys."""
        return SYSFS / self.name

    @property
    def is_physical(self) -> bool:
        """Is there a device behind it? Not for veth, bridges, bonds and VLANs."""
        return (self.sysfs / "device").exists()

    @property
    def driver(self) -> str:
        """The driver's name; of a virtual interface its kind."""
        link = self.sysfs / "device" / "driver"
        if link.exists():
            return link.resolve().name
        try:
            with pyroute2.IPRoute() as route:
                info = route.get_links(self.index)[0].get_attr("IFLA_LINKINFO")
        except (pyroute2.NetlinkError, IndexError):
            info = None  # it is gone
        return str(info.get_attr("IFLA_INFO_KIND")) if info else "unknown"

    @property
    def rx_queues(self) -> int:
        """Receive queues in use."""
        return max(1, len(list((self.sysfs / "queues").glob("rx-*"))))


def check_name(name: str) -> None:
    """Raises SsrunError for what no interface can be called."""
    odd = any(char in "/ " or not char.isprintable() for char in name)
    if odd or not 0 < len(os.fsencode(name)) < IFNAMSIZ:
        raise SsrunError(f"{name!r} is no interface name: 1 to 15 characters, no slash or space")


def look_up(name: str) -> Interface:
    """An existing interface. Raises SsrunError."""
    check_name(name)
    with pyroute2.IPRoute() as route:
        indices = route.link_lookup(ifname=name)
        interface = _look_up(route, indices[0]) if indices else None
    if interface is None:
        raise SsrunError(f"no interface {name}; `ip link` lists them, tap:NAME makes a TAP device")
    return interface


def look_up_index(index: int) -> Interface | None:
    """An interface that was there, under whatever name; None if it is not."""
    with pyroute2.IPRoute() as route:
        return _look_up(route, index)


def socket_of(backend: str, fd: int) -> socket.socket:
    """Duplicates a port's socket. Python can't find out by itself of what family it is: AF_XDP's do not tell."""
    return socket.socket(AF_XDP if backend == "afxdp" else socket.AF_PACKET, socket.SOCK_RAW, 0, fileno=os.dup(fd))


def is_attached(backend: str, fd: int) -> bool:
    """Does a port's descriptor lead to an interface?

    The kernel takes it off one that is removed, or leaves the network namespace (a TAP's goes with it), and does not
    put it back, though one that was away for a moment looks as before.
    """
    try:
        if backend == "tap":
            fcntl.ioctl(fd, TUNGETIFF, bytes(40))  # struct ifreq
        elif backend in ("packet", "afxdp"):
            with socket_of(backend, fd) as sock:
                if backend == "packet":
                    return bool(sock.getsockname()[0])
                sock.recv(1, socket.MSG_DONTWAIT)  # nothing comes like this: it says whether the socket is bound
    except OSError as error:
        return error.errno not in (errno.EBADFD, errno.ENXIO)
    return True


def _look_up(route: pyroute2.IPRoute, index: int) -> Interface | None:
    try:
        link = route.get_links(index)[0]
        messages = list(route.get_addr(index=index))
    except (pyroute2.NetlinkError, IndexError):
        return None
    flags = link["flags"]
    interface = Interface(
        name=link.get_attr("IFLA_IFNAME"),
        index=index,
        mac=bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", "")),
        mtu_bytes=int(link.get_attr("IFLA_MTU")),
        up=bool(flags & IFF_UP),
        running=flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP,
        loopback=bool(flags & IFF_LOOPBACK),
    )
    for message in messages:
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = ipaddress.ip_interface(f"{text}/{message['prefixlen']}")
        if message["flags"] & IFA_F_DADFAILED:
            continue  # another host has it
        interface.addresses.append(address)
        if message["flags"] & IFA_F_TENTATIVE:
            interface.tentative.add(address.ip)
    return interface


def usable(interface: Interface) -> None:
    """Raises SsrunError if nothing can be served on it."""
    if not interface.up:
        raise SsrunError(f"{interface.name} is down; `ip link set {interface.name} up`")
    if interface.loopback:
        raise SsrunError(f"{interface.name} is the loopback interface; --iface tap:NAME serves this host itself")
    if len(interface.mac) != 6:
        raise SsrunError(f"{interface.name} is no Ethernet interface")


def host_ips() -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """This host's addresses, on whatever interface: the kernel answers for all of them on each."""
    with pyroute2.IPRoute() as route:
        messages = route.get_addr()
        return {ipaddress.ip_address(m.get_attr("IFA_LOCAL") or m.get_attr("IFA_ADDRESS")) for m in messages}


def _networks_in_use() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Networks that this host has addresses in or routes to, but for default routes."""
    networks = []
    with pyroute2.IPRoute() as route:
        for message in route.get_addr():
            address = message.get_attr("IFA_ADDRESS")
            networks.append(ipaddress.ip_interface(f"{address}/{message['prefixlen']}").network)
        for message in route.get_routes():
            target = message.get_attr("RTA_DST")
            if target and message["dst_len"]:
                networks.append(ipaddress.ip_network(f"{target}/{message['dst_len']}", strict=False))
    return networks


def default_pair(name: str, version: int) -> tuple[Interface4or6, Interface4or6]:
    """Addresses for both ends of a TAP, ours and the kernel's, that clash with nothing here."""
    in_use = [network for network in _networks_in_use() if network.version == version]
    digest = hashlib.sha256(name.encode()).digest()
    if version == 6:
        network6 = ipaddress.IPv6Network((b"\xfd" + digest[:5] + bytes(10), TAP_PREFIX6))
        return (
            ipaddress.ip_interface(f"{network6[2]}/{TAP_PREFIX6}"),
            ipaddress.ip_interface(f"{network6[1]}/64"),
        )
    for network in TAP_NETWORKS4.subnets(new_prefix=TAP_PREFIX4):
        if not any(network.overlaps(other) for other in in_use):
            ours, theirs = network[2], network[1]
            return (
                ipaddress.ip_interface(f"{ours}/{TAP_PREFIX4}"),
                ipaddress.ip_interface(f"{theirs}/{TAP_PREFIX4}"),
            )
    raise SsrunError("no free network for the TAP device; choose with --address and --host-address")


def partner(address: Interface4or6) -> Interface4or6:
    """An address for the kernel's side in the network of one of ours."""
    network = address.network
    for candidate in (network[1], network[2]):
        if candidate != address.ip:
            return ipaddress.ip_interface(f"{candidate}/{network.prefixlen}")
    raise SsrunError(f"{address} leaves no room for the kernel's side; give --host-address")


def stable_mac(seed: str) -> bytes:
    """A locally administered MAC, the same at every start."""
    return b"\x02" + hashlib.sha256(seed.encode()).digest()[:5]


def set_up_tap(name: str, mtu_bytes: int, queue_frames: int, host_addresses: Iterable[Interface4or6]) -> Interface:
    """Gives the kernel's side of a TAP its MTU and addresses, and room for frames that nobody has read yet, and sets
    it up; all gone with the device."""
    try:
        with pyroute2.IPRoute() as route:
            index = route.link_lookup(ifname=name)[0]
            route.link("set", index=index, mtu=mtu_bytes, txqlen=queue_frames)
            for address in host_addresses:
                flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
                route.addr(
                    "replace", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags
                )
            route.link("set", index=index, state="up")
    except pyroute2.NetlinkError as error:
        if error.code == errno.EPERM:
            raise SsrunError(f"tap:{name} can't be set up: {privileges.hint('CAP_NET_ADMIN')}") from None
        raise SsrunError(f"tap:{name} can't be set up: {error.args[-1]}; choose other addresses") from None
    return look_up(name)


def join_all_multicast(name: str) -> socket.socket:
    """Lets multicast (neighbour solicitations for us) through the NIC's filter while the socket is open."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except PermissionError:
        hint = privileges.hint("CAP_NET_RAW")
        raise SsrunError(f"a packet socket on {name} can't be opened: {hint}") from None
    membership = struct.pack("iHH8s", socket.if_nametoindex(name), PACKET_MR_ALLMULTI, 0, b"")
    sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
    return sock


class Offloads:
    """Turned off while the kernel's frames go through us, as netmap drops those that a NIC was to finish.

    What an interface can't do, or can't turn off, is left as it is. (pyroute2's ethtool reads all
    of its flags, or none and fails.)
    """

    def __init__(self, name: str) -> None:
        """Turns them off."""
        self.name = name
        self.was: list[tuple[int, int]] = []  # how to put one back, and what it was
        for read, change in OFFLOADS:
            value = self._call(read, 0)
            if value and self._call(change, 0) is not None:
                self.was.insert(0, (change, value))

    def _call(self, command: int, value: int) -> int | None:
        """Makes one ethtool request; its value, or None if it can't be."""
        data = ctypes.create_string_buffer(struct.pack("II", command, value), 8)
        request = struct.pack("16sQ16x", self.name.encode(), ctypes.addressof(data))
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                fcntl.ioctl(sock, SIOCETHTOOL, request)
        except OSError:
            return None
        return int(struct.unpack("II", data.raw)[1])

    def close(self) -> None:
        """Puts them back."""
        for change, value in self.was:
            self._call(change, value)
