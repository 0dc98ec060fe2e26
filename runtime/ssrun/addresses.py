"""Addresses of ours: as the command line has them, as the core has them, and which no host can have."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssimage._sandstorm import ffi, lib

if TYPE_CHECKING:
    from ssimage.loader import FrameSource

Address4or6 = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface4or6 = ipaddress.IPv4Interface | ipaddress.IPv6Interface

NO_HOST4 = ipaddress.IPv4Network("0.0.0.0/8")  # RFC 1122 section 3.2.1.3
ANY4, ANY6 = "0.0.0.0", "::"  # noqa: S104, as that is what is asked for
LOOPBACK4, LOOPBACK6 = "127.0.0.1", "::1"
PASSED = "systemd"
BROADCAST4 = ipaddress.IPv4Address("255.255.255.255")


@dataclass(frozen=True)
class Endpoint:
    """Where to listen."""

    host: str  # empty: all addresses; localhost: its own; PASSED: sockets that are open already
    port: int  # 0: any

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses themselves."""
        return {"": (ANY4, ANY6), "localhost": (LOOPBACK4, LOOPBACK6)}.get(self.host, (self.host,))

    def __str__(self) -> str:
        """As it stands on a command line."""
        if self.host == PASSED:
            return PASSED
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """ADDR:PORT, [ADDR]:PORT or :PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(text)
    if host.startswith("[") and host.endswith("]"):
        return Endpoint(str(ipaddress.IPv6Address(host[1:-1])), int(port))
    if host not in ("", "localhost"):
        host = str(ipaddress.IPv4Address(host))
    return Endpoint(host, int(port))


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
    """Says why no host can have an address that belongs to the network as a whole."""
    ip, network_ = address.ip, address.network
    if ip not in (network_[0], network_[-1]) or network_.prefixlen >= network_.max_prefixlen - 1:
        return None
    if ip.version == 6:  # the first: RFC 4291 section 2.6.1
        return "the anycast address of the network's routers" if ip == network_[0] else None
    kind = "own" if ip == network_[0] else "broadcast"
    return f"the network's {kind} address; write one of {network_[1]} to {network_[-2]}"
