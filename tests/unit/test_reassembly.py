"""Packets in fragments, made by scapy, and put together again in own-address mode."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.host import CLIENT_IP, CLIENT_IP6, CLIENT_MAC, SERVER_IP, SERVER_IP6, SERVER_MAC, Client, Host, Image
from tests.model import ModelImage, Page

GET = b"GET /a HTTP/1.1\r\nHost: a\r\nCookie: " + b"c" * 900 + b"\r\n\r\n"
HEADER = (Path(__file__).resolve().parents[2] / "runtime" / "csrc" / "libtcpip" / "reassembly.h").read_text()
CONSTANTS = {name: int(value) for name, value in re.findall(r"#define FRAGMENT_(\w+) (\d+)", HEADER)}
PLACES, OF_SOURCE, PAYLOAD_MAX = (CONSTANTS[name] for name in ("PACKETS", "PACKETS_OF_SOURCE", "PAYLOAD_BYTES"))
NUMBERS = iter(range(1, 1 << 30))


@pytest.fixture(scope="module")
def image() -> Image:
    return Image(ModelImage({"/a": Page(b"hello")}).sections)


def split(packet: Packet, size: int = 400) -> list[bytes]:
    """A frame's packet in fragments of so many bytes of payload each, with an id of its own."""
    packet = Ether(bytes(packet))
    if IP in packet:
        packet[IP].flags = 0
        packet[IP].id = next(NUMBERS) % 65536
        del packet[IP].chksum
        whole = IP(bytes(packet[IP]))
        return [bytes(Ether(src=packet.src, dst=packet.dst) / piece) for piece in fragment(whole, size)]
    whole = packet[IPv6]
    header = IPv6ExtHdrFragment(id=next(NUMBERS), nh=whole.nh)
    whole = IPv6(src=whole.src, dst=whole.dst) / header / whole.payload
    pieces = fragment6(whole, 40 + 8 + size // 8 * 8)
    return [bytes(Ether(src=packet.src, dst=packet.dst) / piece) for piece in pieces]


def echo(v6: bool, size: int, source: str | None = None) -> Packet:
    data = random.Random(size).randbytes(size)
    ether = Ether(src=CLIENT_MAC, dst=SERVER_MAC)
    if v6:
        return ether / IPv6(src=source or CLIENT_IP6, dst=SERVER_IP6) / ICMPv6EchoRequest(id=7, seq=1, data=data)
    return ether / IP(src=source or CLIENT_IP, dst=SERVER_IP) / ICMP(id=7, seq=1) / Raw(data)


def answered(host: Host, *frames: bytes) -> int:
    """How many answers there were to frames that came one by one."""
    return sum(len(host.send(frame)) for frame in frames)


ORDERS: list[Callable[[list[bytes]], list[bytes]]] = [
    lambda frames: frames,
    lambda frames: frames[::-1],
    lambda frames: random.Random(1).sample(frames, len(frames)),
    lambda frames: [frame for frame in frames for _ in range(2)],  # each comes twice
]


@pytest.mark.parametrize("order", ORDERS, ids=["in-order", "backwards", "shuffled", "twice"])
@pytest.mark.parametrize("size", [8, 64, 400, 600])
@pytest.mark.parametrize("v6", [False, True])
def test_a_request_in_fragments_is_answered(
    image: Image, v6: bool, size: int, order: Callable[[list[bytes]], list[bytes]]
) -> None:
    host = Host(image)
    client = Client(host, v6=v6)
    client.connect()
    request = client.packet("PA", GET)
    client.seq += len(GET)
    frames = split(request, size)
    assert len(frames) > 1
    for frame in order(frames):
        client.note(host.send(frame))
    assert client.received.endswith(b"hello")
    counters = host.counters()
    # What comes again after the whole begins another, of which nothing comes.
    assert counters["ip_reassembled"] == 1
    assert counters["http_requests"] == 1
    assert counters.get("ip_drop_fragment") is counters.get("ip_drop_fragment_overlap") is None


@pytest.mark.parametrize("v6", [False, True])
def test_the_handshake_too(image: Image, v6: bool) -> None:
    host = Host(image)
    client = Client(host, v6=v6)
    assert answered(host, *split(client.packet("S", options=client.options), 8)) == 1


def test_extension_headers_before_and_behind(image: Image) -> None:
    """Those of the whole are in each fragment, the others in what is put together."""
    host = Host(image)
    head = IPv6(src=CLIENT_IP6, dst=SERVER_IP6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=5)
    whole = (
        head / IPv6ExtHdrDestOpt() / TCP(sport=1, dport=80, flags="S", options=[("MSS", 1440)] + [("NOP", 0)] * 20)
    )
    frames = [bytes(Ether(src=CLIENT_MAC, dst=SERVER_MAC) / piece) for piece in fragment6(whole, 80)]
    assert len(frames) == 3
    assert answered(host, *frames) == 1


def changed(frame: bytes, *, by: int = 0, more: int | None = None, flip: bool = False) -> bytes:
    """A fragment so many units further on, with another flag, or another last byte."""
    data = frame[:-1] + bytes([frame[-1] ^ flip])
    packet = Ether(data)
    if IP in packet:
        packet[IP].frag += by
        if more is not None:
            packet[IP].flags = more
        del packet[IP].chksum
        return bytes(packet)
    header = packet[IPv6ExtHdrFragment]
    header.offset += by
    if more is not None:
        header.m = more
    return bytes(packet)


CHANGES: dict[str, Callable[[list[bytes]], bytes]] = {
    "a unit back": lambda frames: changed(frames[1], by=-1),
    "a unit further": lambda frames: changed(frames[1], by=1),
    "other bytes": lambda frames: changed(frames[1], flip=True),
    "another begin": lambda frames: changed(frames[0], by=50, flip=True),
    "another end": lambda frames: changed(frames[1], more=0),
    "beyond the end": lambda frames: changed(frames[1], by=100),
    "a later end": lambda frames: changed(frames[2], by=100),
}


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_overlapping_fragments_end_it(image: Image, v6: bool, change: str) -> None:
    """RFC 5722: nothing of such a packet is used, also not what comes later."""
    host = Host(image)
    frames = split(echo(v6, 1000), 400)
    assert len(frames) == 3
    bad = CHANGES[change](frames)
    assert answered(host, frames[1], frames[2], bad, frames[0], frames[1], frames[2]) == 0
    assert host.counters()["ip_drop_fragment_overlap"] == 4
    # Another packet of the same sender is put together.
    assert answered(host, *split(echo(v6, 1000), 400)) == 1


@pytest.mark.parametrize("v6", [False, True])
def test_a_fragment_waits_for_half_a_minute(image: Image, v6: bool) -> None:
    host = Host(image)
    first, *rest = split(echo(v6, 1000), 400)
    assert answered(host, first) == 0
    host.advance(29_900)
    assert answered(host, *rest) == 1
    first, *rest = split(echo(v6, 1000), 400)
    assert answered(host, first) == 0
    host.advance(30_100)
    assert answered(host, *rest) == 0
    assert answered(host, *split(echo(v6, 1000), 400)) == 1


@pytest.mark.parametrize("v6", [False, True])
def test_one_source_has_a_share_only(image: Image, v6: bool) -> None:
    """Its oldest goes; what others have begun stays."""
    host = Host(image)
    other = split(echo(v6, 1000, "2001:db8::77" if v6 else "198.51.100.77"), 400)
    assert answered(host, other[0]) == 0
    begun = []
    for _ in range(3 * PLACES):
        host.advance(1)
        begun.append(split(echo(v6, 1000), 400))
        assert answered(host, begun[-1][0]) == 0
    assert host.counters()["ip_evicted_fragments"] == 3 * PLACES - OF_SOURCE
    assert [answered(host, *rest) for _, *rest in begun[-OF_SOURCE:]] == [1] * OF_SOURCE
    assert answered(host, *begun[-OF_SOURCE - 1][1:]) == 0
    assert answered(host, *other[1:]) == 1


def test_of_many_sources_the_oldest_goes(image: Image) -> None:
    host = Host(image)
    begun = []
    for number in range(2 * PLACES):
        host.advance(1)
        begun.append(split(echo(False, 1000, f"198.51.100.{number + 1}"), 400))
        assert answered(host, begun[-1][0]) == 0
    assert [answered(host, *rest) for _, *rest in begun[PLACES:]] == [1] * PLACES


@pytest.mark.parametrize("v6", [False, True])
def test_what_is_no_fragment_is_dropped(image: Image, v6: bool) -> None:
    """Longer than a packet may be here, of no whole units, of nothing."""
    host = Host(image)
    for offset, more, size in ((PAYLOAD_MAX // 8, 0, 8), (8191, 0, 8), (0, 1, 12), (0, 1, 0), (8, 0, 0)):
        if v6:
            packet = IPv6(src=CLIENT_IP6, dst=SERVER_IP6) / IPv6ExtHdrFragment(offset=offset, m=more, nh=6)
        else:
            packet = IP(src=CLIENT_IP, dst=SERVER_IP, proto=6, frag=offset, flags=more)
        assert host.send(Ether(src=CLIENT_MAC, dst=SERVER_MAC) / packet / Raw(bytes(size))) == []
    assert host.counters() == {"eth_rx_frames": 5, "ip_drop_fragment": 5}


def test_a_whole_that_is_a_fragment_again_is_dropped(image: Image) -> None:
    host = Host(image)
    inner = bytes(IPv6ExtHdrFragment(nh=6, m=1)) + bytes(40)
    head = IPv6(src=CLIENT_IP6, dst=SERVER_IP6)
    outer = [IPv6ExtHdrFragment(nh=44, m=1, id=1), IPv6ExtHdrFragment(nh=44, offset=3, id=1)]
    for header, data in zip(outer, (inner[:24], inner[24:]), strict=True):
        assert host.send(Ether(src=CLIENT_MAC, dst=SERVER_MAC) / head / header / Raw(data)) == []
    assert host.counters()["ip_drop_fragment"] == 1


def test_in_shared_mode_they_are_the_kernels(image: Image) -> None:
    host = Host(image, own_address=False)
    client = Client(host)
    frames = split(client.packet("S", options=client.options), 8)
    assert answered(host, *frames) == 0
    assert host.counters() == {"eth_rx_frames": len(frames), "ip_drop_fragment": len(frames)}


def test_a_damaged_whole_is_dropped(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    frames = [bytearray(frame) for frame in split(client.packet("S", options=client.options), 16)]
    frames[1][-1] ^= 1
    assert answered(host, *map(bytes, frames)) == 0
    assert host.counters()["tcp_drop_checksum"] == 1


@pytest.mark.parametrize("v6", [False, True])
def test_an_echo_goes_back_whole_or_not_at_all(image: Image, v6: bool) -> None:
    host = Host(image)
    size = 1500 - (48 if v6 else 28)
    (reply,) = [answer for frame in split(echo(v6, size), 800) for answer in host.send(frame)]
    data = reply[ICMPv6EchoReply].data if v6 else bytes(reply[ICMP].payload)
    assert data == random.Random(size).randbytes(size)
    assert answered(host, *split(echo(v6, size + 1), 800)) == 0
    assert host.counters()["icmp_drop_short"] == 1


@pytest.mark.parametrize("seed", range(300))
def test_random_pieces_do_no_harm(image: Image, seed: int) -> None:
    """Whatever is put together is what was sent, or nothing. ASan watches in `make sanitize`."""
    host = Host(image)
    source = random.Random(seed)
    frames = [frame for v6 in (False, True) for frame in split(echo(v6, source.randrange(100, 3000)), 200)]
    for _ in range(100):
        frame = bytearray(source.choice(frames))
        if source.random() < 0.5:
            frame[source.randrange(14, min(62, len(frame)))] ^= 1 << source.randrange(8)
        if source.random() < 0.2:
            frame = frame[: source.randrange(14, len(frame))]
        if frame[12:14] == b"\x08\x00" and len(frame) > 34:
            fixed = IP(bytes(frame[14:34]))
            del fixed.chksum
            frame[14:34] = bytes(fixed)[:20].ljust(20, b"\0")
        host.send(bytes(frame))
    client = Client(host)
    client.connect()
    client.request(GET)
    assert client.received.endswith(b"hello")
