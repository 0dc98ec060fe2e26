"""Strangers on the wire. None of them can stop a frame or change one.

A blind one sees nothing but addresses and ports, and may send anything at any rate. Where a guess would take him a
number of tries that a fast link makes in a second (a sequence number within the window), it is given to him; where it would
take hours (that, and an acceptable ACK beside it), it is not.

A repeater is on the path: he sees what the clients say, and says it again, once or often, soon or minutes later, also when
the connection is over.
"""

from __future__ import annotations

import heapq
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.sim.client import ACK, FIN, PSH, RST, SYN, Client, Side
from tests.sim.network import MACS, fragmentation_needed, packet_too_big

M32 = 2**32
HALF = 2**31
SERVER_MAC = MACS[:6]
ENEMY_MAC = bytes.fromhex("02000000dead")
FAR = (
    2**26
)  # of an ACK that can't be good: beyond all that any client here has in flight, or has ever told as its window
RECORDED_MAX = 400  # frames that a repeater keeps


@dataclass
class Blind:
    """What a blind enemy does."""

    kinds: tuple[str, ...]
    packets: int = 1000
    begin: float = 0.0  # shares of the time that the run takes without him
    end: float = 1.2


@dataclass
class Repeat:
    """What a repeater does."""

    share: float = 0.5  # of the frames he sees
    times: int = 2
    delays_ms: tuple[float, ...] = (5.0, 500.0, 30_000.0)
    # All again, once a connection is over: as long as TIME-WAIT lasts, and when no SYN cookie is good any more.
    afterwards_ms: tuple[float, ...] = (10.0, 20_000.0, 50_000.0, 140_000.0)


def spoofed(frame: bytes) -> bytes:
    """From another station on the link."""
    return frame[:6] + ENEMY_MAC + frame[12:]


def timestamps(value: int, echo: int) -> bytes:
    return struct.pack(">BBBBII", 1, 1, 8, 10, value % M32, echo % M32)


def segment(side: Side, seq: int, ack: int, flags: int, window: int, options: bytes, payload: bytes) -> bytes:
    """A whole frame, as if from a client."""
    fixed = (side.port, 80, seq % M32, ack % M32, (20 + len(options)) // 4 << 4, flags, window, 0, 0)
    return side.frame(struct.pack(">HHIIBBHHH", *fixed) + options + payload)


class Attacker:
    """Makes a blind enemy's frames. Of the clients he may know the sides; the rest only for luck, see above."""

    def __init__(self, plan: Blind, clients: list[Client], rng: random.Random) -> None:
        self.plan = plan
        self.clients = clients
        self.rng = rng
        self.slot = 0  # of the server's clock for cookies
        self.kinds: dict[str, Callable[[Client], list[bytes]]] = {
            "noise": self.noise,
            "paws": self.paws,
            "icmp": self.icmp,
            "syn": self.syn,
            "stray": self.stray,
            "lucky": self.lucky,
            "reset": self.reset,
        }

    def frames(self) -> Iterator[list[bytes]]:
        """What he sends in one go, again and again."""
        while True:
            made = self.kinds[self.rng.choice(self.plan.kinds)](self.rng.choice(self.clients))
            yield [spoofed(frame) if self.rng.random() < 0.5 else frame for frame in made]

    def number(self) -> int:
        return self.rng.randrange(M32)

    def ack(self, client: Client | None = None) -> int:
        """Any; but where there may be no connection, none that could be a cookie by chance (one in millions, and all seeds
        together send that many): its slot's two bits are those of the next slot, or the one after."""
        ack = self.number()
        if client is not None and client.state == "established" and not client.done:
            return ack
        return (ack % 2**29 + 2) | (self.slot + self.rng.choice([1, 2])) % 4 << 30

    def options(self) -> bytes:
        """Any that a segment may have."""
        made = b""
        if self.rng.random() < 0.8:
            made += timestamps(self.number(), self.number())
        for _ in range(self.rng.choice([0, 0, 0, 1, 3])):
            made += struct.pack(">BBBBII", 1, 1, 5, 10, self.number(), self.number())
        return made[:40]

    def payload(self) -> bytes:
        texts = [b"", b"", b"\0", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", self.rng.randbytes(self.rng.randrange(1400))]
        return self.rng.choice(texts)

    def noise(self, client: Client) -> list[bytes]:
        flags = self.rng.choice(
            [SYN, ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, SYN | ACK, 0, self.rng.randrange(256)]
        )
        window = self.rng.choice([0, 1, 1000, 65_535])
        ack = self.ack(client)
        return [segment(client.side, self.number(), ack, flags, window, self.options(), self.payload())]

    def paws(self, client: Client) -> list[bytes]:
        """Of four one is below what has been acknowledged and has the newer timestamp (CVE-2005-0356)."""
        flags = self.rng.choice([ACK, ACK, RST, SYN, FIN | ACK, RST | ACK, 0])
        seq, value, ack = self.number(), self.number(), self.ack(client)
        pairs = [(seq + s, value + t) for s in (0, HALF) for t in (0, HALF)]
        return [segment(client.side, s, ack, flags, 500, timestamps(t, self.number()), b"") for s, t in pairs]

    def syn(self, client: Client) -> list[bytes]:
        """From a client's port, and from ports of nobody's."""
        options = struct.pack(">BBH", 2, 4, 1460) + bytes((4, 2, 1, 1)) + timestamps(self.number(), 0)
        side = Side(client.side.v6, self.rng.randrange(1024, 30_000))
        return [segment(s, self.number(), 0, SYN, 65_535, options, b"") for s in (client.side, side)]

    def stray(self, client: Client) -> list[bytes]:
        """ACKs of no connection: each asks for a reset."""
        sides = [Side(client.side.v6, self.rng.randrange(1024, 30_000)) for _ in range(20)]
        return [segment(s, self.number(), self.ack(), ACK, 500, b"", b"") for s in sides]

    def reset(self, client: Client) -> list[bytes]:
        """In the window, but not exact: RFC 5961 section 3."""
        ahead = self.rng.randrange(1, 10_000)
        flags = self.rng.choice([RST, RST | ACK, SYN])
        return [segment(client.side, client.snd_nxt + ahead, self.ack(client), flags, 0, self.options(), b"")]

    def lucky(self, client: Client) -> list[bytes]:
        """The sequence number is in the window, or just below it; the ACK is not acceptable (RFC 5961 section 5.2)."""
        seq = client.snd_nxt + self.rng.choice([0, 0, 1, 100, 5000, -1, -1, -500])
        told = client.irs + 1 + client.rcv_nxt
        ack = told + FAR + self.rng.randrange(M32 - 2 * FAR)
        if client.state != "established" or client.done:
            ack = self.ack()
        flags = self.rng.choice([ACK, ACK | PSH, FIN | ACK, 0, SYN | ACK])
        window = self.rng.choice([0, 1, 65_535])
        return [segment(client.side, seq, ack, flags, window, self.options(), self.payload())]

    def icmp(self, client: Client) -> list[bytes]:
        """About a segment that we may have sent: too big, or that nobody is there."""
        side = client.side
        tcp = struct.pack(">HHIIBBHHH", 80, side.port, self.number(), self.number(), 0x50, ACK, 500, 0, 0)
        if side.v6:
            inner = (
                MACS + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64) + side.server + side.client + tcp
            )
            made = packet_too_big(inner, self.rng.choice([0, 68, 1280, 1400, 9000]), 2000)
            return [made, retyped(made, self.rng.choice([1, 3, 4]), 58)]
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + side.server + side.client
        inner = MACS + b"\x08\x00" + head + tcp
        made = fragmentation_needed(inner, self.rng.choice([0, 68, 576, 1400]), 2000)
        return [made, retyped(made, self.rng.choice([3, 4, 11, 12]), 1)]


def retyped(frame: bytes, kind: int, protocol: int) -> bytes:
    """Another ICMP message about the same; its checksum is made good by what it has changed."""
    at = 54 if protocol == 58 else 34
    old = struct.unpack_from(">H", frame, at)[0]
    new = kind << 8 | (frame[at + 1] if protocol == 58 else 3)
    check = struct.unpack_from(">H", frame, at + 2)[0]
    total = (~check & 0xFFFF) + (~old & 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return frame[:at] + struct.pack(">HH", new, ~total & 0xFFFF) + frame[at + 4 :]


@dataclass
class Repeater:
    """Keeps what he saw of each client, and when he will say it again."""

    plan: Repeat
    rng: random.Random
    recorded: dict[int, list[bytes]] = field(default_factory=dict)  # by the client's number
    over: set[int] = field(default_factory=set)
    due: list[tuple[float, int, bytes]] = field(default_factory=list)
    count: int = 0

    def saw(self, number: int, frame: bytes, now: float) -> None:
        kept = self.recorded.setdefault(number, [])
        if len(kept) < RECORDED_MAX and number not in self.over:
            kept.append(frame)
            if self.rng.random() < self.plan.share:
                for _ in range(self.rng.randint(1, self.plan.times)):
                    self.put(frame, now + self.rng.random() * self.rng.choice(self.plan.delays_ms))

    def put(self, frame: bytes, at: float) -> None:
        self.count += 1
        heapq.heappush(self.due, (at, self.count, frame))

    def is_over(self, number: int, now: float) -> None:
        """A client has closed, or is gone: all that it said again, in order or not."""
        if number in self.over:
            return
        self.over.add(number)
        for later in self.plan.afterwards_ms:
            order = list(self.recorded.get(number, ()))
            if self.rng.random() < 0.5:
                self.rng.shuffle(order)
            for place, frame in enumerate(order):
                self.put(frame, now + later + place * 0.1)

    def take(self, now: float) -> list[bytes]:
        """What is due."""
        frames = []
        while self.due and self.due[0][0] <= now:
            frames.append(heapq.heappop(self.due)[2])
        return frames
