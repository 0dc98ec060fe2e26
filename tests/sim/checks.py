"""What must hold at every step of the simulation. Checks look at the core only through stack.h."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from ssimage._sandstorm import ffi, lib

from tests.host import view_of
from tests.sim.client import ACK, Client, Segment
from tests.sim.network import ETHERNET, MACS, is_v6

FIRST_PORT = 40_000
CLIENT_MAC = MACS[6:]
IP_PROTOCOL_TCP = 6
M32 = 2**32
NEVER_NS = 2**64 - 1
MTU_MIN_IPV4 = 576  # RFC 1191 section 3: less is not believed
LONG_MS = 60_000.0  # a silence after which nothing is known of the path
TICK_MS = 1.0  # of the core's timers
RTO_US = range(200_000, 60_000_001)


@dataclass
class Connection:
    """What the core says of a connection, and what is kept here to judge it."""

    una: int = 0
    nxt: int = 0
    end: int = 0
    rto_us: int = 0
    rto_max_us: int = 0  # since snd_una moved
    since_ms: float = 0.0  # the last time that snd_una moved or anything was sent
    judged_nxt: int | None = None  # snd_nxt when cwnd was looked at last
    sent_ms: float = math.inf  # the last time that data were sent
    waiting: bool = False  # for an ACK, or for the window to open
    probes: int = 0  # of a window, since data was sent
    cwnd_max: int = 0  # since what was in flight was judged last


def position(seq: int, base: int) -> int:
    """How far a sequence number is ahead of a position; less than 0 if it is behind."""
    ahead = (seq - base) % M32
    return ahead - M32 if ahead >= M32 // 2 else ahead


class Checks:
    """Judges one stack and its clients."""

    def __init__(self, stack: Any, places: int, clients: list[Client]) -> None:
        self.stack, self.view = stack, view_of(stack)
        self.places = places
        self.clients = clients
        self.info = ffi.new("struct stack_connection *")
        self.known: dict[int, Connection] = {}  # by the client's number
        self.told: dict[int, int] = {}  # the path's MTU, as far as ICMP told the server of it
        names = {
            ffi.string(lib.stack_counter_name(self.view, i)): i for i in range(lib.stack_counter_count(self.view))
        }
        self.opened, self.closed = names[b"tcp_opened"], names[b"tcp_closed"]

    def look(self, now_ms: float, frames_sent: bool) -> None:
        """Reads all connections. The TCB pool is balanced; what is in flight is within cwnd, timeouts within bounds."""
        info, found = self.info, 0
        open_now = lib.stack_connections(self.stack)
        gone = set(self.known) if self.known else None
        for index in range(self.places):
            if found == open_now:
                break
            if not lib.stack_connection_at(self.stack, index, info):
                continue
            found += 1
            number = info.peer_port - FIRST_PORT
            if gone:
                gone.discard(number)
            self.note(self.known.setdefault(number, Connection(since_ms=now_ms)), now_ms)
            if frames_sent:
                self.check_window(number, now_ms)
        assert found == open_now, "more connections are counted than there are"
        balance = lib.stack_counter(self.view, self.opened) - lib.stack_counter(self.view, self.closed)
        assert balance == open_now, f"{balance} connections opened and not closed, but {open_now} are there"
        for number in gone or ():
            del self.known[number]

    def note(self, connection: Connection, now_ms: float) -> None:
        info = self.info
        una, rto_us = info.snd_una, info.rto_us
        connection.nxt, connection.end, connection.rto_us = info.snd_nxt, info.snd_end, rto_us
        assert una <= connection.nxt <= connection.end + 1, "sent what was not written"
        assert rto_us in RTO_US, f"an RTO of {rto_us} us"
        waiting = una < connection.nxt or connection.nxt < connection.end
        if una != connection.una or waiting != connection.waiting:
            connection.since_ms, connection.rto_max_us = now_ms, 0
        connection.una, connection.waiting = una, waiting
        connection.rto_max_us = max(connection.rto_max_us, rto_us)
        connection.cwnd_max = max(connection.cwnd_max, info.cwnd)

    def check_window(self, number: int, now_ms: float) -> None:
        """In flight is no more than cwnd, and the one segment that a probe may send beyond it; after a long silence no more
        than the initial window (RFC 5681 section 4.1)."""
        info, connection = self.info, self.known[number]
        fresh = connection.judged_nxt is None or connection.judged_nxt == info.snd_una
        if fresh and now_ms - connection.sent_ms > max(LONG_MS, 20 * info.rto_us / 1000):
            burst = info.snd_nxt - info.snd_una
            assert burst <= 10 * info.mss_bytes, f"{burst} bytes at once after a long silence"
        connection.sent_ms = now_ms
        before = info.snd_una if connection.judged_nxt is None else connection.judged_nxt
        connection.judged_nxt = info.snd_nxt
        allowed, connection.cwnd_max = connection.cwnd_max, info.cwnd  # it may have shrunk after all had been sent
        if info.snd_nxt - before <= info.mss_bytes or not self.clients[number].profile.sack:
            return  # nothing, or a probe; without SACK what is in flight is guessed from duplicate ACKs
        assert info.pipe <= max(allowed, info.mss_bytes) + 2 * info.mss_bytes, (info.pipe, allowed)

    def is_for_client(self, frame: bytes) -> bool:
        """It is TCP to one of the clients' ports. To another's MAC no data may go; and what goes there does not arrive."""
        v6 = is_v6(frame)
        at = 54 if v6 else 34
        if frame[20 if v6 else 23] != IP_PROTOCOL_TCP:
            return False
        number = struct.unpack_from(">H", frame, at + 2)[0] - FIRST_PORT
        if not 0 <= number < len(self.clients) or v6 != self.clients[number].side.v6:
            return False
        ours = frame[:6] == CLIENT_MAC
        data = len(frame) - at - (frame[at + 12] >> 4) * 4
        assert ours or data <= 0, f"data for client {number} to the MAC of a stranger"
        return ours

    def judge(self, frame: bytes, now_ms: float) -> tuple[int, Segment]:
        """Whom a frame is for. It must be well-formed, and within what that client and the path are known to allow."""
        v6 = is_v6(frame)
        port = struct.unpack_from(">H", frame, (54 if v6 else 34) + 2)[0]
        number = port - FIRST_PORT
        client = self.clients[number]
        segment = client.side.parse(frame)
        assert v6 or frame[20] & 0x40, "DF is not set"
        options = 12 if client.profile.timestamps else 0
        assert len(segment.payload) <= client.profile.mss - options, "above the MSS"
        assert len(frame) - ETHERNET <= self.told.get(number, 65_535), "above the MTU that ICMP told"
        if segment.payload and client.state == "established":
            start = (segment.seq - client.irs - 1) % M32
            assert start + len(segment.payload) <= client.edge, "beyond the window"
        if number in self.known:
            self.check_position(self.known[number], segment)
            self.known[number].since_ms = now_ms
        return number, segment

    @staticmethod
    def check_position(connection: Connection, segment: Segment) -> None:
        """Nothing below snd_una is sent, but for the probe of a shut window; nothing ends beyond snd_nxt."""
        ahead = position(segment.seq, connection.una)
        if ahead < 0:
            probe = ahead == -1 and not segment.payload and segment.flags == ACK
            assert probe, f"{len(segment.payload)} bytes from {-ahead} below snd_una"
            connection.probes += 1
        assert ahead + len(segment.payload) <= connection.nxt - connection.una, "beyond snd_nxt"

    def refused(self, port: int, seq: int, mtu: int, v6: bool) -> None:
        """An ICMP message arrives unspoiled: from now on it counts, if what it quotes is in flight (RFC 5927)."""
        connection = self.known.get(port - FIRST_PORT)
        if connection is not None and 0 <= position(seq, connection.una) < connection.nxt - connection.una:
            known = self.told.get(port - FIRST_PORT, 65_535)
            self.told[port - FIRST_PORT] = min(known, mtu if v6 else max(mtu, MTU_MIN_IPV4))

    def before_step(self, now_ms: float) -> None:
        """Who waits for an ACK, or for the window to open, is silent no longer than its timer allows."""
        for number, connection in self.known.items():
            if connection.una < connection.nxt:
                connection.probes = 0
            longest_us = min(connection.rto_max_us << connection.probes, RTO_US[-1])  # the persist timer's backoff
            limit = connection.since_ms + longest_us / 1000 + 2 * TICK_MS
            if connection.waiting and now_ms > limit:
                quiet = now_ms - connection.since_ms
                raise AssertionError(f"client {number}: silence for {quiet:.1f} ms, RTO {connection.rto_us} us")

    def after_run(self, now_ns: int) -> int:
        """The core's next deadline is ahead, and there is one while there are connections."""
        deadline_ns = int(lib.stack_deadline_ns(self.stack))
        assert deadline_ns > now_ns, f"the deadline is {(now_ns - deadline_ns) / 1e6:.3f} ms old"
        assert not self.known or deadline_ns != NEVER_NS, "connections, but no timer runs"
        return deadline_ns
