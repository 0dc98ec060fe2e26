"""What of the frames on a netmap port is ours, and what the kernel's."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6MLQuery2,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from ssimage._sandstorm import ffi, lib

OUR4, OUR6 = "192.0.2.10", "2001:db8::10"
NODE6 = "ff02::1:ff00:10"  # solicited-node multicast of OUR6
PEER4, PEER6 = "192.0.2.20", "2001:db8::20"
PORT = 8080
CLIENT, SERVER = "02:00:00:00:00:01", "02:00:00:00:00:02"
NOBODY, OWN, BOTH = "nobody", "own", "both"


def filter_(own_address: bool) -> Any:
    made = ffi.new("struct netmap_filter *", {"own_address": own_address, "tcp_port": PORT, "address_count": 2})
    for place, address in enumerate((OUR4, OUR6)):
        packed = ipaddress.ip_address(address).packed
        made.family[place] = lib.IP_FAMILY_V4 if len(packed) == 4 else lib.IP_FAMILY_V6
        ffi.memmove(made.address[place], packed, len(packed))
    return made


def is_ours(frame: bytes, own_address: bool) -> bool:
    data = ffi.new("uint8_t[]", frame)
    return bool(lib.netmap_is_ours(filter_(own_address), data, len(frame)))


def to4(dst: str = OUR4, **fields: Any) -> Packet:
    return Ether(src=CLIENT, dst=SERVER) / IP(src=PEER4, dst=dst, **fields)


def to6(dst: str = OUR6, **fields: Any) -> Packet:
    return Ether(src=CLIENT, dst=SERVER) / IPv6(src=PEER6, dst=dst, **fields)


def segment(dport: int = PORT) -> Packet:
    return TCP(sport=40000, dport=dport)


FROM_US4 = IP(src=OUR4, dst=PEER4) / TCP(sport=PORT, dport=40000)
FROM_US6 = IPv6(src=OUR6, dst=PEER6) / TCP(sport=PORT, dport=40000)

CASES: dict[str, tuple[Packet, str]] = {
    "tcp4": (to4() / segment(), BOTH),
    "tcp4-options": (to4(options=[IPOption_NOP()] * 4) / segment(), BOTH),
    "tcp4-other-port": (to4() / segment(PORT + 256), OWN),
    "tcp4-port-of-the-source": (to4() / TCP(sport=PORT, dport=22), OWN),
    "tcp4-for-another": (to4("192.0.2.11") / segment(), NOBODY),
    "tcp4-first-fragment": (to4(flags="MF") / segment(), OWN),
    "tcp4-later-fragment": (to4(frag=8) / segment(), OWN),
    "tcp4-last-fragment-far-on": (to4(frag=256) / segment(), OWN),
    "tcp4-dont-fragment": (to4(flags="DF") / segment(), BOTH),
    "tcp4-tagged": (Ether(src=CLIENT, dst=SERVER) / Dot1Q(vlan=3) / IP(src=PEER4, dst=OUR4) / segment(), NOBODY),
    "tcp4-priority": (
        Ether(src=CLIENT, dst=SERVER) / Dot1Q(vlan=0, prio=5) / IP(src=PEER4, dst=OUR4) / segment(),
        BOTH,
    ),
    "tcp6-priority": (Ether(src=CLIENT, dst=SERVER) / Dot1Q(vlan=0) / IPv6(src=PEER6, dst=OUR6) / segment(), BOTH),
    "udp4": (to4() / UDP(sport=40000, dport=PORT), OWN),
    "echo4": (to4() / ICMP(), OWN),
    "broadcast4": (to4("255.255.255.255") / UDP(), NOBODY),
    "too-big4": (to4() / ICMP(type=3, code=4) / FROM_US4, BOTH),
    "too-big4-of-another-port": (to4() / ICMP(type=3, code=4) / IP(src=OUR4) / TCP(sport=22), OWN),
    "too-big4-of-udp": (to4() / ICMP(type=3, code=4) / IP(src=OUR4) / UDP(sport=PORT), OWN),
    "unreachable4": (to4() / ICMP(type=3, code=1) / FROM_US4, OWN),
    "tcp6": (to6() / segment(), BOTH),
    "tcp6-other-port": (to6() / segment(22), OWN),
    "tcp6-for-another": (to6("2001:db8::11") / segment(), NOBODY),
    "tcp6-hop-by-hop": (to6() / IPv6ExtHdrHopByHop() / segment(), BOTH),
    "tcp6-hop-by-hop-other-port": (to6() / IPv6ExtHdrHopByHop() / segment(22), OWN),
    "tcp6-whole-in-a-fragment-header": (to6() / IPv6ExtHdrFragment() / segment(), BOTH),
    "mld-query": (to6("ff02::1") / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLQuery2(), OWN),
    "mld-report": (to6("ff02::16") / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2(), NOBODY),
    "tcp6-to-be-forwarded": (to6() / IPv6ExtHdrRouting(segleft=1, addresses=[PEER6]) / segment(), NOBODY),
    "tcp6-fragment": (to6() / IPv6ExtHdrFragment(m=1) / segment(), OWN),
    "echo6": (to6() / ICMPv6EchoRequest(), OWN),
    "too-big6": (to6() / ICMPv6PacketTooBig() / FROM_US6, BOTH),
    "too-big6-of-another-port": (to6() / ICMPv6PacketTooBig() / IPv6(src=OUR6) / TCP(sport=22), OWN),
    "unreachable6": (to6() / ICMPv6DestUnreach() / FROM_US6, OWN),
    "solicitation": (to6(NODE6) / ICMPv6ND_NS(tgt=OUR6) / ICMPv6NDOptSrcLLAddr(), OWN),
    "solicitation-for-another": (to6("ff02::1:ff00:11") / ICMPv6ND_NS(tgt="2001:db8::11"), NOBODY),
    "advertisement-to-all": (to6("ff02::1") / ICMPv6ND_NA(tgt=OUR6), OWN),
    "advertisement-of-another": (to6("ff02::1") / ICMPv6ND_NA(tgt=PEER6), NOBODY),
    "router": (to6("ff02::1") / ICMPv6ND_RA(), NOBODY),
    "arp-for-us": (Ether(src=CLIENT, dst=SERVER) / ARP(op=1, psrc=PEER4, pdst=OUR4), OWN),
    "arp-from-our-address": (Ether(src=CLIENT, dst=SERVER) / ARP(op=1, psrc=OUR4, pdst=PEER4), OWN),
    "arp-probe": (Ether(src=CLIENT, dst=SERVER) / ARP(op=1, psrc="0.0.0.0", pdst=OUR4), OWN),
    "arp-for-another": (Ether(src=CLIENT, dst=SERVER) / ARP(op=1, psrc=PEER4, pdst="192.0.2.11"), NOBODY),
    "lldp": (Ether(src=CLIENT, dst=SERVER, type=0x88CC) / Raw(bytes(60)), NOBODY),
}


@pytest.mark.parametrize(("packet", "whose"), CASES.values(), ids=CASES.keys())
def test_whose_it_is(packet: Packet, whose: str) -> None:
    frame = bytes(packet)
    assert is_ours(frame, own_address=True) is (whose in (OWN, BOTH))
    assert is_ours(frame, own_address=False) is (whose == BOTH)


@pytest.mark.parametrize("packet", [packet for packet, _ in CASES.values()], ids=CASES.keys())
def test_cut_short_anywhere(packet: Packet) -> None:
    """Nothing is read beyond the end: the sanitizers watch, and what has no ports isn't ours in shared mode."""
    frame = bytes(packet)
    for length in range(len(frame)):
        ours = is_ours(frame[:length], own_address=False)
        is_ours(frame[:length], own_address=True)
        assert not ours or length >= 14 + 20 + 8


@pytest.mark.parametrize(
    ("packet", "change"),
    [
        (to4() / segment(), {14: 0x44}),  # a header of 16 bytes
        (to4() / segment(), {14: 0x4F}),  # of 60, which there aren't
        (to4() / segment(), {14: 0x65}),  # of IPv6
        (to6() / segment(), {14: 0x40}),
        (to4() / ICMP(type=3, code=4) / FROM_US4, {42: 0x41}),  # the packet quoted
        (to4() / ICMP(type=3, code=4) / FROM_US4, {42: 0x4F}),
    ],
)
def test_lengths_that_lie(packet: Packet, change: dict[int, int]) -> None:
    frame = bytearray(bytes(packet))
    for offset, value in change.items():
        frame[offset] = value
    assert not is_ours(bytes(frame), own_address=False)
