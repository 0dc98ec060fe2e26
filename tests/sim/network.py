"""The simulated wire: a rate with a bounded queue, mischief, and a path whose MTU may drop. All of it is seeded."""

from __future__ import annotations

import math
import random
import struct
from dataclasses import dataclass

from tests.sim.client import ones_sum

BURST_MS = 100.0  # a burst of losses is over when nothing was sent for so long
ETHERNET = 14
ETHERTYPE_IPV6 = b"\x86\xdd"
MTU_MIN_IPV6 = 1280
ROUTER = bytes((192, 0, 2, 254)), bytes.fromhex("20010db8" + "00" * 11 + "fe")
MACS = bytes.fromhex("020000000001020000000002")  # the link's last hop: from where the clients are


@dataclass
class Network:
    """What the wire does to frames, each way."""

    delay_ms: float = 10.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    burst: float = 0.0  # chance that a loss takes the next frame too
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    rate_bytes_ms: float = 12_500.0  # 100 Mbit/s
    queue_bytes: int = 256_000


@dataclass
class PathMtu:
    """What the way to the clients lets through, and what its narrowest hop says to the rest."""

    mtu: int = 1500
    from_ms: float = math.inf  # before, everything passes
    silent: bool = False  # a black hole
    icmp_loss: float = 0.0
    quote_bytes: int = 8  # of what is behind the IP header: RFC 792's, or as much as RFC 1812 allows

    def mtu_at(self, now: float, v6: bool) -> int:
        if now < self.from_ms:
            return 65_535
        return max(self.mtu, MTU_MIN_IPV6) if v6 else self.mtu

    def too_big(self, frame: bytes, now: float) -> bool:
        return len(frame) - ETHERNET > self.mtu_at(now, is_v6(frame))

    def refusal(self, frame: bytes, now: float) -> bytes:
        """The ICMP message that the hop sends back."""
        v6 = is_v6(frame)
        make = packet_too_big if v6 else fragmentation_needed
        return make(frame, self.mtu_at(now, v6), self.quote_bytes)


def is_v6(frame: bytes) -> bool:
    return frame[12:14] == ETHERTYPE_IPV6


def fragmentation_needed(frame: bytes, mtu: int, quote_bytes: int) -> bytes:
    """RFC 792 with RFC 1191 section 4."""
    quoted = frame[ETHERNET : ETHERNET + 20 + min(quote_bytes, 576 - 48)]
    icmp = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + quoted
    icmp = icmp[:2] + struct.pack(">H", ~ones_sum(icmp) & 0xFFFF) + icmp[4:]
    head = struct.pack(">BBHHHBBH", 0x45, 0xC0, 20 + len(icmp), 0, 0, 64, 1, 0) + ROUTER[0] + frame[26:30]
    head = head[:10] + struct.pack(">H", ~ones_sum(head) & 0xFFFF) + head[12:]
    return MACS + b"\x08\x00" + head + icmp


def packet_too_big(frame: bytes, mtu: int, quote_bytes: int) -> bytes:
    """RFC 4443 section 3.2."""
    quoted = frame[ETHERNET : ETHERNET + 40 + min(quote_bytes, MTU_MIN_IPV6 - 88)]
    icmp = struct.pack(">BBHI", 2, 0, 0, mtu) + quoted
    addresses = ROUTER[1] + frame[22:38]
    check = ~ones_sum(addresses + struct.pack(">II", len(icmp), 58) + icmp) & 0xFFFF
    icmp = icmp[:2] + struct.pack(">H", check) + icmp[4:]
    return MACS + ETHERTYPE_IPV6 + struct.pack(">IHBB", 6 << 28, len(icmp), 58, 64) + addresses + icmp


def quoted_segment(refusal: bytes) -> tuple[int, int, int]:
    """The port and the sequence number that an ICMP message of ours quotes, and the MTU that it tells."""
    if is_v6(refusal):
        mtu, tcp = struct.unpack_from(">I", refusal, 58)[0], 62 + 40
    else:
        mtu, tcp = struct.unpack_from(">H", refusal, 40)[0], 42 + 20
    _, port, seq = struct.unpack_from(">HHI", refusal, tcp)
    return port, seq, mtu


class Direction:
    """One way of the wire: a queue of bounded length in front of a rate, then delay and mischief."""

    def __init__(self, network: Network, rng: random.Random) -> None:
        self.network = network
        self.rng = rng
        self.free_at = 0.0
        self.bursting = False
        self.last = 0.0

    def carry(self, frame: bytes, now: float) -> list[tuple[float, bytes]]:
        """When, and as what, a frame arrives; an empty list if it does not."""
        n, rng = self.network, self.rng
        backlog = max(0.0, self.free_at - now)
        if backlog * n.rate_bytes_ms > n.queue_bytes:
            return []
        self.free_at = max(self.free_at, now) + len(frame) / n.rate_bytes_ms
        if now - self.last > BURST_MS:
            self.bursting = False
        self.last = now
        self.bursting = rng.random() < (n.burst if self.bursting else n.loss)
        if self.bursting:
            return []
        at = self.free_at + n.delay_ms + rng.random() * n.jitter_ms
        if rng.random() < n.reorder:
            at += rng.random() * n.delay_ms
        if rng.random() < n.corrupt:
            spoiled = bytearray(frame)
            spoiled[rng.randrange(14, len(frame))] ^= 1 << rng.randrange(8)
            frame = bytes(spoiled)
        copies = 2 if rng.random() < n.duplicate else 1
        return [(at + i * rng.random() * n.delay_ms, frame) for i in range(copies)]
