"""ARP, neighbour discovery, echo and what is dropped, judged by scapy."""

from __future__ import annotations

import random
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Pad1,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.host import (
    CLIENT_IP,
    CLIENT_IP6,
    CLIENT_MAC,
    SERVER_IP,
    SERVER_IP6,
    SERVER_MAC,
    Client,
    Host,
    Image,
    checked,
)
from tests.model import ModelImage, Page


@pytest.fixture(scope="module")
def image() -> Image:
    return Image(ModelImage({"/a": Page(b"hello")}).sections)


def ether() -> Packet:
    return Ether(src=CLIENT_MAC, dst=SERVER_MAC)


def test_arp(image: Image) -> None:
    host = Host(image)
    ask = Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=CLIENT_IP, hwsrc=CLIENT_MAC, pdst=SERVER_IP)
    (reply,) = host.send(ask)
    assert (reply.dst, reply.src) == (CLIENT_MAC, SERVER_MAC)
    assert (reply[ARP].op, reply[ARP].psrc, reply[ARP].hwsrc) == (2, SERVER_IP, SERVER_MAC)
    assert (reply[ARP].pdst, reply[ARP].hwdst) == (CLIENT_IP, CLIENT_MAC)
    ask[ARP].pdst = "192.0.2.9"
    assert host.send(ask) == []
    assert Host(image, own_address=False).send(ask) == []


@pytest.mark.parametrize("source", [CLIENT_IP6, "::"])
def test_neighbour_solicitation(image: Image, source: str) -> None:
    host = Host(image)
    ask = Ether(src=CLIENT_MAC, dst="33:33:ff:00:00:01") / IPv6(src=source, dst="ff02::1:ff00:1", hlim=255)
    ask /= ICMPv6ND_NS(tgt=SERVER_IP6)
    (reply,) = host.send(ask)
    assert Ether(bytes(reply))[IPv6].hlim == 255
    assert reply[ICMPv6ND_NA].tgt == SERVER_IP6
    assert reply[ICMPv6NDOptDstLLAddr].lladdr == SERVER_MAC
    assert reply[IPv6].dst == ("ff02::1" if source == "::" else CLIENT_IP6)
    assert (source != "::") == reply[ICMPv6ND_NA].S
    again = reply.copy()
    del again[ICMPv6ND_NA].cksum
    assert bytes(Ether(bytes(again))) == bytes(reply)
    ask[IPv6].hlim = 254
    assert host.send(ask) == []
    assert host.counters()["nd_drop_malformed"] == 1


@pytest.mark.parametrize("size", [0, 1, 56, 57, 1400])
def test_echo(image: Image, size: int) -> None:
    host = Host(image)
    data = Raw(bytes(range(256)) * 6)
    data.load = data.load[:size]
    (reply,) = host.send(ether() / IP(src=CLIENT_IP, dst=SERVER_IP) / ICMP(id=7, seq=9) / data)
    assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (0, 7, 9)
    assert bytes(reply[ICMP].payload)[:size] == data.load
    again = reply.copy()
    del again[ICMP].chksum, again[IP].chksum
    assert bytes(Ether(bytes(again))) == bytes(reply)
    (reply6,) = host.send(
        ether() / IPv6(src=CLIENT_IP6, dst=SERVER_IP6) / ICMPv6EchoRequest(id=7, seq=9, data=data.load)
    )
    assert (reply6[ICMPv6EchoReply].id, reply6[ICMPv6EchoReply].seq) == (7, 9)
    assert reply6[ICMPv6EchoReply].data == data.load


def test_every_drop_has_its_reason(image: Image) -> None:
    ip4, ip6 = IP(src=CLIENT_IP, dst=SERVER_IP), IPv6(src=CLIENT_IP6, dst=SERVER_IP6)
    tcp = TCP(sport=1, dport=80, flags="S")
    cases = {
        "eth_drop_short": b"\0" * 13,
        "eth_drop_not_ours": Ether(src=CLIENT_MAC, dst="02:00:00:00:00:99") / ip4 / tcp,
        "eth_drop_source": Ether(src="01:00:5e:00:00:01", dst=SERVER_MAC) / ip4 / tcp,
        "eth_drop_type": Ether(src=CLIENT_MAC, dst=SERVER_MAC, type=0x88CC) / Raw(b"lldp"),
        "ip_drop_short": bytes(ether() / ip4 / tcp)[:30],
        "ip_drop_version": bytes(ether() / ip4 / tcp)[:14] + b"\x55" + bytes(ether() / ip4 / tcp)[15:],
        "ip_drop_fragment": ether() / IP(src=CLIENT_IP, dst=SERVER_IP, flags="MF") / tcp,
        "ip_drop_not_ours": ether() / IP(src=CLIENT_IP, dst="192.0.2.99") / tcp,
        "ip_drop_source": ether() / IP(src="224.0.0.1", dst=SERVER_IP) / tcp,
        "ip_drop_group_frame": Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff") / ip4 / tcp,
        "ip_drop_extension": ether() / ip6 / IPv6ExtHdrRouting(segleft=1, addresses=[CLIENT_IP6]) / tcp,
        "ip_drop_protocol": ether() / ip4 / UDP(),
        "icmp_drop_type": ether() / ip4 / ICMP(type=13),
        "tcp_drop_flags": ether() / ip4 / TCP(sport=1, dport=80, flags="SF"),
        "tcp_drop_no_connection": ether() / ip6 / TCP(sport=1, dport=80, flags="R"),
        "tcp_drop_short": ether() / ip4 / TCP(sport=1, dport=80, flags="S", dataofs=15),
    }
    for reason, frame in cases.items():
        host = Host(image)
        assert host.send(frame) == [], reason
        assert host.counters() == {"eth_rx_frames": 1, reason: 1} | (
            {"tcp_rx_segments": 1} if reason.startswith("tcp") else {}
        )


@pytest.mark.parametrize("flags", ["S", "A", "PA", "R"])
@pytest.mark.parametrize("mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:ff:00:00:01"])
def test_a_segment_to_many_is_not_answered(image: Image, mac: str, flags: str) -> None:
    """RFC 1122 section 4.2.3.10, RFC 9293 section 3.9.2.3."""
    host = Host(image)
    tcp = TCP(sport=1, dport=80, flags=flags)
    for packet in (IP(src=CLIENT_IP, dst=SERVER_IP), IPv6(src=CLIENT_IP6, dst=SERVER_IP6)):
        assert host.send(Ether(src=CLIENT_MAC, dst=mac) / packet / tcp) == []
    assert host.counters() == {"eth_rx_frames": 2, "ip_drop_group_frame": 2}
    group = IPv6(src=CLIENT_IP6, dst="ff02::1:ff00:1")
    assert host.send(Ether(src=CLIENT_MAC, dst="33:33:ff:00:00:01") / group / tcp) == []
    assert host.counters()["ip_drop_not_ours"] == 1


IMPOSSIBLE = ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", SERVER_IP, "::", "::1", "ff02::1", SERVER_IP6]


@pytest.mark.parametrize("source", IMPOSSIBLE)
@pytest.mark.parametrize("dport", [80, 81])
def test_nobody_sends_from_there(image: Image, source: str, dport: int) -> None:
    """Also not from our own address, which would have us talk to ourselves."""
    packet = IPv6(src=source, dst=SERVER_IP6) if ":" in source else IP(src=source, dst=SERVER_IP)
    host = Host(image)
    assert host.send(ether() / packet / TCP(sport=1, dport=dport, flags="S")) == []
    assert host.send(ether() / packet / (ICMPv6EchoRequest() if ":" in source else ICMP())) == []
    assert host.counters() == {"eth_rx_frames": 2, "ip_drop_source": 2}


def test_an_address_that_only_ends_as_ours_may_send(image: Image) -> None:
    for packet in (
        IP(src="198.51.100." + SERVER_IP.rpartition(".")[2], dst=SERVER_IP),
        IPv6(src="fd00::1", dst=SERVER_IP6),
    ):
        assert len(Host(image).send(ether() / packet / TCP(sport=1, dport=80, flags="S"))) == 1


def tagged(vlan: int, type_: int, rest: bytes) -> bytes:
    """prio, DEI and VLAN in front of a frame's type."""
    return bytes(Ether(src=CLIENT_MAC, dst=SERVER_MAC, type=0x8100))[:14] + struct.pack("!HH", vlan, type_) + rest


@pytest.mark.parametrize("control", [0, 0x2000, 0x1000, 0xF000, 1, 0x2001, 0xFFF])
def test_a_priority_is_no_vlan(image: Image, control: int) -> None:
    """IEEE 802.1Q section 9.6: VLAN 0 is none; the answer has no tag."""
    host = Host(image)
    frame = bytes(ether() / IP(src=CLIENT_IP, dst=SERVER_IP) / TCP(sport=1, dport=80, flags="S"))
    answers = host.send(tagged(control, 0x0800, frame[14:]))
    assert len(answers) == (control & 0xFFF == 0)
    assert host.counters().get("eth_drop_type", 0) == (control & 0xFFF != 0)
    for answer in answers:
        assert (answer.dst, answer.type, checked(answer)[TCP].flags) == (CLIENT_MAC, 0x0800, "SA")


def test_a_tag_that_is_cut_or_repeated(image: Image) -> None:
    host = Host(image)
    whole = tagged(0, 0x8100, struct.pack("!HH", 0, 0x0800) + bytes(ether() / IP(dst=SERVER_IP) / TCP())[14:])
    for length in range(14, 18):
        assert host.send(whole[:length]) == []
    assert host.send(whole) == []
    assert host.counters() == {"eth_rx_frames": 5, "eth_drop_short": 4, "eth_drop_type": 1}


HOP, DESTINATION, ATOMIC = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment()
ROUTED = IPv6ExtHdrRouting(segleft=0, addresses=[CLIENT_IP6])
UNKNOWN = HBHOptUnknown(otype=0x1E, optdata=b"x" * 20)  # who doesn't know it skips it
MUST_KNOW = [HBHOptUnknown(otype=action | 0x1E, optdata=b"x") for action in (0x40, 0x80, 0xC0)]


@pytest.mark.parametrize(
    "chain",
    [
        [HOP],
        [DESTINATION],
        [ATOMIC],
        [ROUTED],
        [HOP, DESTINATION, ROUTED, ATOMIC, DESTINATION],
        [DESTINATION] * 8,
        [IPv6ExtHdrHopByHop(options=[UNKNOWN, Pad1(), UNKNOWN])],
        [IPv6ExtHdrHopByHop(options=[RouterAlert()])],
        [IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=b"x" * 250)] * 3)],
    ],
)
def test_extension_headers_hide_nothing(image: Image, chain: list[Packet]) -> None:
    """RFC 8200 section 4: of the handshake, the request, and a SYN to another port."""
    host = Host(image)
    client = Client(host, v6=True)
    bare = client.packet

    def behind(packet: Packet) -> Packet:
        head = ether() / IPv6(src=CLIENT_IP6, dst=SERVER_IP6)
        for header in chain:
            head /= header.copy()
        rest = packet[TCP].copy()
        del rest.chksum
        return head / rest

    client.packet = lambda *fields, **more: behind(bare(*fields, **more))  # type: ignore[method-assign]
    client.connect()
    client.request(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.received.endswith(b"hello")
    assert len(host.send(behind(IPv6() / TCP(sport=9, dport=81, flags="S")))) == 1


@pytest.mark.parametrize(
    "chain",
    [
        [DESTINATION, HOP],
        [HOP, HOP],
        [DESTINATION] * 9,
        [IPv6ExtHdrRouting(segleft=1, addresses=[CLIENT_IP6])],
        [IPv6ExtHdrDestOpt(len=200)],
        *([IPv6ExtHdrHopByHop(options=[option])] for option in MUST_KNOW),
        *([IPv6ExtHdrDestOpt(options=[option])] for option in MUST_KNOW),
        [Raw(bytes([6, 0, 1, 5, 0, 0, 0, 0]))],  # an option that ends beyond its header
    ],
)
def test_a_chain_that_is_not_for_us_to_follow(image: Image, chain: list[Packet]) -> None:
    head = ether() / IPv6(src=CLIENT_IP6, dst=SERVER_IP6, nh=60 if isinstance(chain[0], Raw) else 59)
    if not isinstance(chain[0], Raw):
        del head[IPv6].nh
    for header in chain:
        head /= header.copy()
    host = Host(image)
    assert host.send(bytes(head / TCP(sport=1, dport=80, flags="S"))) == []
    assert host.counters() == {"eth_rx_frames": 1, "ip_drop_extension": 1}


def test_a_chain_may_be_cut_anywhere(image: Image) -> None:
    host = Host(image)
    packet = (
        IPv6(src=CLIENT_IP6, dst=SERVER_IP6) / HOP / ROUTED / ATOMIC / DESTINATION / TCP(sport=1, dport=80, flags="S")
    )
    whole = bytes(packet)
    for length in range(40, len(whole)):
        cut = whole[:4] + struct.pack("!H", length - 40) + whole[6:length]
        assert host.send(bytes(ether())[:12] + b"\x86\xdd" + cut) == []
    drops = host.counters()
    del drops["eth_rx_frames"]
    assert drops.keys() == {"ip_drop_extension", "tcp_drop_short", "tcp_rx_segments"}


def test_neighbour_discovery_is_not_in_fragments(image: Image) -> None:
    """RFC 6980 section 5."""
    host = Host(image)
    solicitation = IPv6(src=CLIENT_IP6, dst="ff02::1:ff00:1", hlim=255) / ATOMIC / ICMPv6ND_NS(tgt=SERVER_IP6)
    assert host.send(Ether(src=CLIENT_MAC, dst="33:33:ff:00:00:01") / solicitation) == []
    assert host.counters() == {"eth_rx_frames": 1, "nd_drop_malformed": 1}


def test_another_port_is_refused_in_own_address_mode_only(image: Image) -> None:
    syn = ether() / IP(src=CLIENT_IP, dst=SERVER_IP) / TCP(sport=1, dport=81, flags="S", seq=5)
    (reset,) = Host(image).send(syn)
    assert (checked(reset)[TCP].flags, reset[TCP].ack) == ("RA", 6)
    assert Host(image, own_address=False).send(syn) == []


def test_mutated_frames_do_no_harm(image: Image) -> None:
    """Whatever comes in, the stack answers well-formed frames and serves on. ASan watches in `make sanitize`."""
    host = Host(image, max_connections=8)
    source = random.Random(3)
    client = Client(host, port=50000)
    client.connect()
    base = [bytes(client.packet("PA", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")), bytes(client.packet("FA"))]
    base.append(bytes(client.packet("S", options=client.options)))
    base.append(bytes(ether() / IPv6(src=CLIENT_IP6, dst=SERVER_IP6) / ICMPv6EchoRequest(data=b"x" * 50)))
    base.append(bytes(ether() / IP(src=CLIENT_IP, dst=SERVER_IP) / ICMP() / Raw(b"x" * 50)))
    base.append(bytes(Ether(src=CLIENT_MAC, dst=SERVER_MAC) / ARP(pdst=SERVER_IP)))
    for _ in range(20000):
        frame = bytearray(source.choice(base))
        for _ in range(source.randrange(1, 4)):
            frame[source.randrange(12, len(frame))] = source.randrange(256)
        host.send(bytes(frame[: source.randrange(1, len(frame) + 1)]), checksum_ok=True)
    last = Client(host, port=50001)
    last.connect()
    last.request(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert last.received.endswith(b"hello")
