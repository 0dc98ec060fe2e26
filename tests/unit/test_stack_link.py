"""ARP, neighbour discovery, echo and what is dropped, judged by scapy."""

from __future__ import annotations

import random

import pytest
from host import CLIENT_IP, CLIENT_IP6, CLIENT_MAC, SERVER_IP, SERVER_IP6, SERVER_MAC, Client, Host, Image, checked
from model import ModelImage, Page
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw


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
        "eth_drop_type": Ether(src=CLIENT_MAC, dst=SERVER_MAC, type=0x88CC) / Raw(b"lldp"),
        "ip_drop_short": bytes(ether() / ip4 / tcp)[:30],
        "ip_drop_version": bytes(ether() / ip4 / tcp)[:14] + b"\x55" + bytes(ether() / ip4 / tcp)[15:],
        "ip_drop_fragment": ether() / IP(src=CLIENT_IP, dst=SERVER_IP, flags="MF") / tcp,
        "ip_drop_not_ours": ether() / IP(src=CLIENT_IP, dst="192.0.2.99") / tcp,
        "ip_drop_source": ether() / IP(src="224.0.0.1", dst=SERVER_IP) / tcp,
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
