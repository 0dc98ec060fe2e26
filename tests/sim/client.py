"""A small TCP client for the simulation, from the RFCs: slow, plain, and of no code with the core.

It keeps what RFC 9293 asks of a receiver, RFC 7323's timestamps and RFC 2018's SACK, and as a sender no more than a
request needs: its segments all at once, and what of them has not been SACKed again after a second.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field, replace

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
RETRY_MS = 1000
CHALLENGE_MS = 500  # no two challenge ACKs within it, RFC 5961 section 7
M32 = 2**32


def ones_sum(data: bytes) -> int:
    """RFC 1071, big-endian words. 65536 leaves 1 modulo 65535, so the sum of words is the number that they make."""
    value = int.from_bytes(data, "big") << 8 * (len(data) % 2)
    return (value % 65_535 or 65_535) if value else 0


@dataclass
class Segment:
    """A TCP segment as it was on the wire."""

    seq: int
    ack: int
    flags: int
    window: int
    options: dict[int, bytes]
    payload: bytes


class BadFrameError(Exception):
    """A frame that no receiver would take."""


@dataclass
class Side:
    """Both ends' addresses."""

    v6: bool
    port: int
    server: bytes = b""
    client: bytes = b""

    def __post_init__(self) -> None:
        if self.v6:
            server, client = (bytes.fromhex("20010db8" + "00" * 11 + last) for last in ("01", "02"))
        else:
            server, client = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
        self.server, self.client = self.server or server, self.client or client

    def frame(self, tcp: bytes) -> bytes:
        """Ethernet and IP around a segment whose checksum is still zero."""
        check = ~ones_sum(self.client + self.server + struct.pack(">HH", 6, len(tcp)) + tcp) & 0xFFFF
        tcp = tcp[:16] + struct.pack(">H", check) + tcp[18:]
        macs = bytes.fromhex("020000000001020000000002")
        if self.v6:
            head = struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64) + self.client + self.server
            return macs + b"\x86\xdd" + head + tcp
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + self.client + self.server
        head = head[:10] + struct.pack(">H", ~ones_sum(head) & 0xFFFF) + head[12:]
        return macs + b"\x08\x00" + head + tcp

    def parse(self, frame: bytes) -> Segment:
        """Takes a frame apart; BadFrameError if a checksum or length is wrong."""
        if self.v6:
            length = struct.unpack_from(">H", frame, 18)[0]
            pseudo, tcp = frame[22:54], frame[54 : 54 + length]
        else:
            if ones_sum(frame[14:34]) != 0xFFFF:
                raise BadFrameError("IP checksum")
            length = struct.unpack_from(">H", frame, 16)[0] - 20
            pseudo, tcp = frame[26:34], frame[34 : 34 + length]
        if len(tcp) != length or length < 20:
            raise BadFrameError("length")
        if ones_sum(pseudo + struct.pack(">HH", 6, length) + tcp) != 0xFFFF:
            raise BadFrameError("TCP checksum")
        _, port, seq, ack, offset, flags, window = struct.unpack_from(">HHIIBBH", tcp)
        if port != self.port:
            raise BadFrameError("port")
        head = (offset >> 4) * 4
        return Segment(seq, ack, flags, window, parse_options(tcp[20:head]), tcp[head:])


def parse_options(data: bytes) -> dict[int, bytes]:
    """Options by kind."""
    found = {}
    at = 0
    while at < len(data) and data[at]:
        if data[at] == 1:
            at += 1
            continue
        found[data[at]] = data[at + 2 : at + data[at + 1]]
        at += data[at + 1]
    return found


@dataclass
class Profile:
    """What a client can do and how it behaves."""

    v6: bool = False
    mss: int = 1460
    timestamps: bool = True
    sack: bool = True
    wscale: int = 7
    buffer: int = 1 << 20
    ack_every: int = 2
    ack_delay_ms: float = 40.0
    close_first: bool = True
    stalls: bool = False
    shut_ms: float = 0.0  # once its buffer is full, it is not read for so long,
    sip_bytes: int = 0  # and then so much at a time (0: all of it),
    sips: int = 20  # so often
    sip_ms: float = 50.0
    think_ms: float = 0.0  # between an answer and the next request
    piece_bytes: int = 1400  # of a request, in one segment
    leaves: str = ""  # in the middle: "reset", "silent" without a word, or "restart" likewise, and connects again
    leaves_at: int = 0  # bytes received


@dataclass
class Client:
    """One connection: connects, sends requests, takes the answers, closes."""

    side: Side
    profile: Profile
    requests: list[bytes]
    expect_bytes: list[int]  # what has come in all after each answer
    rng: random.Random
    state: str = "closed"
    iss: int = 0
    snd_nxt: int = 0
    snd_una: int = 0
    irs: int = 0
    rcv_nxt: int = 0  # count from the first byte of data
    received: bytearray = field(default_factory=bytearray)
    early: dict[int, bytes] = field(default_factory=dict)  # out of order, by position
    latest: int = -1
    out: list[bytes] = field(default_factory=list)
    unacked: bytes = b""
    held: list[tuple[int, int]] = field(default_factory=list)  # of it, as the server's SACK blocks say: from snd_una
    sent_requests: int = 0
    fin_sent: bool = False
    fin_at: int | None = None
    retry_at: float | None = None
    ack_at: float | None = None
    pending_acks: int = 0
    ts_recent: int = 0
    consumed: int = 0
    stalled_until: float = 0.0
    edge: int = 0  # highest right edge told, as a count
    now: float = 0.0
    resets: int = 0
    sips_left: int = -1  # -1: its buffer has not been full yet
    think_until: float | None = None
    thought: bool = False
    challenge_after: float = 0.0
    openings: int = 1
    asked_before: int = 0

    def start(self, now: float) -> None:
        self.now = now
        self.choose_iss()
        self.send_syn()

    def choose_iss(self) -> None:
        self.iss = self.rng.randrange(M32)
        self.snd_una = self.iss
        self.snd_nxt = self.iss + 1
        self.state = "syn-sent"

    # What goes out

    def options(self, syn: bool) -> bytes:
        p = self.profile
        made = b""
        if syn:
            made += struct.pack(">BBH", 2, 4, p.mss)
            made += bytes((4, 2, 1, 1)) if p.sack else b""
            made += bytes((1, 3, 3, p.wscale)) if p.wscale >= 0 else b""
        if p.timestamps:
            made += struct.pack(">BBBBII", 1, 1, 8, 10, int(self.now) % M32, self.ts_recent)
        if not syn and p.sack and self.early:
            blocks = self.blocks()[: 3 if p.timestamps else 4]
            made += bytes((1, 1, 5, 2 + 8 * len(blocks)))
            for start, end in blocks:
                made += struct.pack(">II", (self.irs + 1 + start) % M32, (self.irs + 1 + end) % M32)
        return made

    def blocks(self) -> list[tuple[int, int]]:
        """Ranges held out of order; the one that came last first, RFC 2018 section 4."""
        ranges: list[list[int]] = []
        for start in sorted(self.early):
            end = start + len(self.early[start])
            if ranges and start <= ranges[-1][1]:
                ranges[-1][1] = max(ranges[-1][1], end)
            else:
                ranges.append([start, end])
        ranges.sort(key=lambda r: not r[0] <= self.latest < r[1])
        return [(start, end) for start, end in ranges]

    def window(self) -> int:
        """Free room; never taken back once told."""
        held = len(self.received) - self.consumed
        free = max(self.profile.buffer - held, self.edge - self.rcv_nxt, 0)
        scale = max(self.profile.wscale, 0)
        told = min(free >> scale, 65535) << scale
        self.edge = max(self.edge, self.rcv_nxt + told)
        return told >> scale

    def expected(self) -> int:
        """The next sequence number of the server's."""
        return (self.irs + 1 + self.rcv_nxt + (self.fin_at is not None and self.fin_at <= self.rcv_nxt)) % M32

    def emit(self, flags: int, payload: bytes = b"", seq: int | None = None) -> None:
        syn = bool(flags & SYN)
        options = self.options(syn)
        ack = self.expected()
        window = min(self.profile.buffer, 65535) if syn else self.window()
        if syn:
            self.edge = max(self.edge, window)
        head = struct.pack(
            ">HHIIBBHHH",
            self.side.port,
            80,
            (self.snd_nxt if seq is None else seq) % M32,
            ack if flags & ACK else 0,
            (20 + len(options)) // 4 << 4,
            flags,
            window,
            0,
            0,
        )
        self.out.append(self.side.frame(head + options + payload))
        if flags & ACK:
            self.pending_acks = 0
            self.ack_at = None

    def send_syn(self) -> None:
        self.emit(SYN, seq=self.iss)
        self.retry_at = self.now + RETRY_MS

    def send_unacked(self) -> None:
        """All that is not acknowledged, but for what the server says it holds."""
        size = self.profile.piece_bytes
        for at in range(0, max(len(self.unacked), 1), size):
            part = self.unacked[at : at + size]
            last = at + size >= len(self.unacked)
            if not last and any(start <= at and at + size <= end for start, end in self.held):
                continue
            flags = ACK | PSH if part and last else ACK
            self.emit(flags | FIN if self.fin_sent and last else flags, part, seq=self.snd_una + at)
        self.held.clear()  # what is said once more is believed once more: it may be given up, RFC 2018 section 8
        self.retry_at = self.now + RETRY_MS

    # What is due

    def deadline(self) -> float | None:
        times = [t for t in (self.retry_at, self.ack_at, self.think_until) if t is not None]
        if self.stalled_until > self.now:
            times.append(self.stalled_until)
        return min(times) if times else None

    def tick(self, now: float) -> None:
        self.now = now
        if self.retry_at is not None and self.retry_at <= now:
            if self.state == "syn-sent":
                self.send_syn()
            else:
                self.send_unacked()
        if self.ack_at is not None and self.ack_at <= now:
            self.emit(ACK)
        if self.profile.stalls and self.stalled_until <= now and self.consumed < len(self.received):
            self.consumed = len(self.received)
            self.emit(ACK)
            self.stalled_until = now + self.rng.choice([0.0, 5.0, 300.0])
        if self.sips_left >= 0 and self.stalled_until <= now and self.consumed < len(self.received):
            self.sip()
        if self.think_until is not None and self.think_until <= now:
            self.think_until = None
            self.proceed()

    def sip(self) -> None:
        """The reader of a buffer that was full comes back. It tells each bit of room, wise or not."""
        p = self.profile
        all_of_it = p.sip_bytes == 0 or self.sips_left == 0
        self.consumed = len(self.received) if all_of_it else min(self.consumed + p.sip_bytes, len(self.received))
        self.emit(ACK)
        if not all_of_it:
            self.sips_left -= 1
            self.stalled_until = self.now + p.sip_ms

    # What comes in

    def take(self, frame: bytes, segment: Segment | None, now: float) -> None:
        """A frame; segment: what is in it, if somebody has taken it apart already."""
        self.now = now
        try:
            segment = segment or self.side.parse(frame)
        except (BadFrameError, struct.error, IndexError):
            return
        if self.state == "left" and self.profile.leaves == "reset" and segment.flags & (ACK | RST) == ACK:
            self.emit(RST, seq=segment.ack)
        if self.state in ("closed", "reset", "left"):
            return
        if segment.flags & RST:
            self.take_reset(segment)
            return
        if self.state == "syn-sent":
            self.take_syn_ack(segment)
            return
        if segment.flags & SYN:
            self.challenge()
            return
        self.take_ack(segment)
        self.take_data(segment)
        self.proceed()

    def challenge(self) -> None:
        if self.now >= self.challenge_after:
            self.challenge_after = self.now + CHALLENGE_MS
            self.emit(ACK)

    def take_reset(self, segment: Segment) -> None:
        """RFC 5961 section 3.2: it must be exact. In SYN-SENT it must acknowledge the SYN; TIME-WAIT: RFC 1337."""
        if self.state == "syn-sent":
            if not segment.flags & ACK or segment.ack != (self.iss + 1) % M32:
                return
        elif self.done:
            return
        elif segment.seq != self.expected():
            if (segment.seq - self.expected()) % M32 < self.profile.buffer:
                self.challenge()
            return
        self.resets += 1
        self.state = "reset"
        self.retry_at = self.ack_at = self.think_until = None

    def take_syn_ack(self, segment: Segment) -> None:
        if segment.flags & ACK and segment.ack != (self.iss + 1) % M32:
            # RFC 9293 section 3.10.7.3: it is not about our SYN.
            self.emit(RST, seq=segment.ack)
            return
        if segment.flags & (SYN | ACK) != SYN | ACK:
            return
        assert (8 in segment.options) == self.profile.timestamps
        assert (4 in segment.options) == self.profile.sack
        assert (3 in segment.options) == (self.profile.wscale >= 0)
        self.irs = segment.seq
        self.snd_una = self.snd_nxt = self.iss + 1
        if 8 in segment.options:
            self.ts_recent = struct.unpack_from(">I", segment.options[8])[0]
        self.state = "established"
        self.retry_at = None
        if self.rng.random() < 0.5:
            self.emit(ACK)
        self.proceed()

    def take_ack(self, segment: Segment) -> None:
        acked = (segment.ack - self.snd_una) % M32
        if 5 in segment.options and acked <= self.snd_nxt - self.snd_una:
            self.take_blocks(segment, acked)
        if 0 < acked <= self.snd_nxt - self.snd_una:
            self.held = [(start - acked, end - acked) for start, end in self.held if end > acked]
            self.unacked = self.unacked[acked:]
            self.snd_una += acked
            self.retry_at = None if self.snd_una == self.snd_nxt else self.now + RETRY_MS

    def take_blocks(self, segment: Segment, acked: int) -> None:
        """SACK blocks must be of what was sent and is not acknowledged, apart from each other; the first may tell of what came
        twice (RFC 2883)."""
        assert self.profile.sack, "SACK blocks for a client that knows nothing of them"
        blocks = []
        for place, (start, end) in enumerate(struct.iter_unpack(">II", segment.options[5])):
            first, behind = ((edge - self.snd_una + M32 // 2) % M32 - M32 // 2 for edge in (start, end))
            assert first < behind <= self.snd_nxt - self.snd_una, (
                f"a SACK block of what was not sent: {first}:{behind}"
            )
            if place > 0 or first > acked:
                assert first > acked, f"a SACK block {first}:{behind} at or below the ACK, {acked}"
                blocks.append((first, behind))
        if len(blocks) > 1 and any(f <= blocks[0][0] and blocks[0][1] <= b for f, b in blocks[1:]):
            del blocks[0]  # it tells of what came twice
        ordered = sorted(blocks)
        assert all(a[1] < b[0] for a, b in zip(ordered, ordered[1:], strict=False)), f"SACK blocks overlap: {blocks}"
        self.held = [*blocks, *self.held]

    def take_data(self, segment: Segment) -> None:
        """Payload and FIN: what came twice is acknowledged, what came early is kept, what is next is taken."""
        start = (segment.seq - self.irs - 1) % M32
        start = start - M32 if start > M32 // 2 else start
        end = start + len(segment.payload)
        in_order = start <= self.rcv_nxt
        if 8 in segment.options and in_order:
            self.ts_recent = struct.unpack_from(">I", segment.options[8])[0]
        if segment.flags & FIN:
            assert self.fin_at in (None, end)
            self.fin_at = end
        if not in_order and not segment.payload and not segment.flags & FIN:
            return  # an ACK that has overtaken data: nothing that would be out of order
        if end <= self.rcv_nxt:
            if segment.payload or segment.flags & FIN or start < self.rcv_nxt:
                self.emit(ACK)
        elif in_order:
            self.take_next(start, segment.payload)
        else:
            self.keep_early(start, segment.payload)

    def keep_early(self, start: int, payload: bytes) -> None:
        if len(payload) > len(self.early.get(start, b"")):
            self.early[start] = payload
        self.latest = start
        self.emit(ACK)

    def take_next(self, start: int, payload: bytes) -> None:
        """Takes a payload, and what came early and follows it. A hole that it fills is told at once (RFC 5681)."""
        hole = bool(self.early)
        self.append(start, payload)
        while (at := next((s for s in self.early if s <= self.rcv_nxt), None)) is not None:
            self.append(at, self.early.pop(at))
        self.pending_acks += 1
        if hole or self.pending_acks >= self.profile.ack_every or self.fin_at == self.rcv_nxt:
            self.emit(ACK)
        elif self.ack_at is None:
            self.ack_at = self.now + self.profile.ack_delay_ms

    def append(self, start: int, payload: bytes) -> None:
        new = payload[self.rcv_nxt - start :]
        self.received += new
        self.rcv_nxt += len(new)
        if self.profile.shut_ms > 0:
            self.read_slowly()
        elif not self.profile.stalls:
            self.consumed = len(self.received)
        elif self.stalled_until <= self.now:
            self.stalled_until = self.now + self.rng.choice([1.0, 50.0, 700.0])

    def read_slowly(self) -> None:
        """Nothing is read until the buffer is full, and then nothing for a long time; behind the sips all at once."""
        full = len(self.received) - self.consumed >= min(self.profile.buffer // 2, self.expect_bytes[-1])
        if self.sips_left < 0 and full:
            self.sips_left = self.profile.sips
            self.stalled_until = self.now + self.profile.shut_ms
        elif self.sips_left == 0 and self.stalled_until <= self.now:
            self.consumed = len(self.received)

    def leave(self) -> None:
        """In the middle of it all."""
        if self.profile.leaves == "reset":
            self.emit(RST | ACK)
        if self.profile.leaves == "restart":
            self.restart()
            return
        self.state = "left"
        self.retry_at = self.ack_at = self.think_until = None

    def restart(self) -> None:
        """Its host has booted and knows nothing of the connection, but takes the same port again."""
        self.profile = replace(self.profile, leaves="")
        self.asked_before, self.openings = self.sent_requests, self.openings + 1
        self.sent_requests = self.rcv_nxt = self.consumed = self.edge = self.ts_recent = self.pending_acks = 0
        self.received, self.early, self.latest, self.unacked, self.held = bytearray(), {}, -1, b"", []
        self.fin_sent, self.fin_at, self.ack_at, self.stalled_until = False, None, None, 0.0
        self.choose_iss()
        self.retry_at = self.now + RETRY_MS  # the first SYN

    def proceed(self) -> None:
        """Sends the next request when the answers so far are complete, and closes behind the last."""
        if self.profile.leaves and self.state == "established" and len(self.received) >= self.profile.leaves_at:
            self.leave()
        if self.snd_una != self.snd_nxt or self.state != "established" or self.think_until is not None:
            return
        due = self.expect_bytes[self.sent_requests - 1] if self.sent_requests else 0
        if len(self.received) < due:
            return
        if self.sent_requests < len(self.requests):
            self.ask_next()
        elif not self.fin_sent and (self.profile.close_first or self.fin_at is not None):
            self.fin_sent = True
            self.snd_nxt += 1
            self.send_unacked()

    def ask_next(self) -> None:
        """Sends a request; before all but the first it may think for a while."""
        if self.sent_requests and self.profile.think_ms and not self.thought:
            self.thought = True
            self.think_until = self.now + self.profile.think_ms
            return
        self.thought = False
        self.unacked = self.requests[self.sent_requests]
        self.sent_requests += 1
        self.snd_nxt += len(self.unacked)
        self.send_unacked()

    @property
    def done(self) -> bool:
        """Both directions are closed and acknowledged, or it went away."""
        return self.state == "left" or (
            self.fin_sent and self.snd_una == self.snd_nxt and self.fin_at == self.rcv_nxt
        )
