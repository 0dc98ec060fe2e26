"""Deterministic simulation: the real core against the model clients over a seeded network, in virtual time.

    python tests/sim/world.py --seeds 1000    many seeds, on all cores
    python tests/sim/world.py --seed 17       one again; what was on the wire goes to .cache/sim/seed-17.pcapng

Invariants, at every step: each frame has good checksums and is for its client; no segment exceeds the client's MSS, or
the path's MTU once that was told, or goes beyond the window that the client told; nothing below snd_una is sent but
window probes; what is in flight stays within cwnd; the TCB pool is balanced; who waits for an ACK or a window is never
silent for longer than its RTO (checks.py). At the end every byte is right, every connection has ended, no request was
answered twice, and every TCB, buffer and slot is free.

In half of the runs there are strangers (enemy.py) or clients that take their time: a blind enemy, who must cost no more than
the link's time for what he provokes; somebody on the path who repeats what clients said, while clients close, reset, boot or
vanish; an hour without a word, readers that stop for minutes, windows of ten bytes.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import os
import random
import struct
import sys
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # so that it runs as a program

from ssimage._sandstorm import ffi, lib

from tests.host import WALL_S, Host, Image
from tests.model import DATE_OFFSET, ModelImage, Page
from tests.sim.capture import Capture
from tests.sim.checks import FIRST_PORT, NEVER_NS, Checks
from tests.sim.client import Client, Profile, Side, ones_sum
from tests.sim.enemy import Attacker, Blind, Repeat, Repeater
from tests.sim.network import Direction, Network, PathMtu, is_v6, quoted_segment

LIMIT_MS = 900_000.0
HOUR_MS = 3_600_000.0
APART = 1658  # chosen so that the seeds which found something before there were strangers (test_sim.py) have none
FAST_BYTES_MS = 100_000.0  # on less a queue without end can grow faster than the RTO learns
ENDLESS_BYTES = 1 << 30  # a queue that nothing fills
COOKIE_SLOT_NS = 64_000_000_000
TICK_MS = 4.096  # of the core's timer wheel
CONTROL_BYTES = 110  # a frame without data is no longer
BLIND_KINDS = ("noise", "paws", "icmp", "syn", "stray", "lucky", "reset")
STEPS_MAX = 200_000
START_NS = 1_000_000_000_000
PLACES = 8  # for connections
SIZES = {"/0": 0, "/1": 1, "/1k": 1000, "/s": 1428 - 160, "/20k": 20_000, "/150k": 150_000, "/1m": 1_000_000}
TO_SERVER = -1
ALGORITHMS = {"cubic": lib.CONGESTION_CUBIC, "newreno": lib.CONGESTION_NEWRENO}


@cache
def model() -> ModelImage:
    """The site that all runs serve."""
    block = bytes(i * 31 % 251 for i in range(251)) * (max(SIZES.values()) // 251 + 1)
    return ModelImage({path: Page(block[:size]) for path, size in SIZES.items()})


@cache
def image() -> Image:
    return Image(model().sections)


class RawHost(Host):
    """Host without scapy: frames as bytes, superframes cut."""

    def give(self, frame: bytes) -> list[bytes]:
        """One received frame; what was sent in answer."""
        rx = ffi.new("struct nmio_rx *", {"len_bytes": len(frame)})
        rx.data = data = ffi.new("uint8_t[]", frame)
        lib.stack_input(self.stack, rx, 1)
        del data  # it had to live until here
        return self.output()

    def output(self) -> list[bytes]:
        """What is due, and what waited for space."""
        frames: list[bytes] = []
        lib.stack_output(self.stack)
        while self.tx.count > 0:
            for desc in self.desc[0 : self.tx.count]:
                frames += self._take(desc)
            self.tx.count = self.tx.piece_count = 0
            self.complete()
            lib.stack_output(self.stack)
        return frames

    def _take(self, desc: Any) -> list[bytes]:
        places = [(desc.head, desc.head_bytes)]
        chunks = [desc.chunk]
        for piece in self.piece[desc.first_piece : desc.first_piece + desc.piece_count]:
            places.append((piece.data, piece.len_bytes))
            if piece.chunk != lib.NMIO_NONE:
                chunks.append(piece.chunk)
        data = b"".join(ffi.buffer(at, length)[:] for at, length in places)
        self.flying.append((chunks, data, places))
        if not desc.checksum_partial:
            return [data]
        return cut(data, desc.head_bytes, desc.l4_offset, desc.gso_bytes or len(data), desc.ipv6)


def cut(data: bytes, head_bytes: int, l4: int, size: int, v6: bool) -> list[bytes]:
    """Segments of a superframe, as a NIC makes them."""
    head, payload = data[:head_bytes], data[head_bytes:]
    (seq,) = struct.unpack_from(">I", head, l4 + 4)
    frames = []
    for at in range(0, max(len(payload), 1), size):
        part = payload[at : at + size]
        tcp = bytearray(head[l4:])
        struct.pack_into(">I", tcp, 4, (seq + at) % 2**32)
        if at + size < len(payload):
            tcp[13] &= 0xF6
        length = len(tcp) + len(part)
        addresses = head[22:54] if v6 else head[26:34]
        tcp[16:18] = b"\0\0"
        check = ~ones_sum(addresses + struct.pack(">HH", 6, length) + bytes(tcp) + part) & 0xFFFF
        tcp[16:18] = struct.pack(">H", check)
        ip = bytearray(head[14:l4])
        if v6:
            struct.pack_into(">H", ip, 4, length)
        else:
            struct.pack_into(">H", ip, 2, 20 + length)
            ip[10:12] = b"\0\0"
            ip[10:12] = struct.pack(">H", ~ones_sum(bytes(ip)) & 0xFFFF)
        frames.append(head[:14] + bytes(ip) + bytes(tcp) + part)
    return frames


@dataclass
class Plan:
    """One run."""

    network: Network = field(default_factory=Network)
    profiles: list[Profile] = field(default_factory=lambda: [Profile()])
    paths: list[list[str]] = field(default_factory=lambda: [["/150k"]])
    gather_max: int = 1
    congestion: int = lib.CONGESTION_CUBIC
    mtu: PathMtu = field(default_factory=PathMtu)
    blind: Blind | None = None
    repeat: Repeat | None = None
    request_bytes: int = 0  # of cookies: several segments of a request
    silence_ms: float = 300_000.0  # the server's limit
    limit_ms: float = LIMIT_MS

    @property
    def calm(self) -> bool:
        """Nothing is lost, late or overtaken: what a run takes depends on nothing but what is sent."""
        n = self.network
        mischief = n.jitter_ms or n.loss or n.duplicate or n.corrupt or n.reorder
        return not mischief and n.queue_bytes >= ENDLESS_BYTES and self.mtu.from_ms == math.inf


def network_of(rng: random.Random) -> Network:
    chance = rng.choice([0.0, 0.0, 0.01, 0.03, 0.1])
    return Network(
        delay_ms=rng.choice([0.1, 1.0, 10.0, 50.0]),
        jitter_ms=rng.choice([0.0, 0.0, 1.0, 20.0]),
        loss=chance,
        burst=rng.choice([0.0, 0.5, 0.8]) if chance else 0.0,
        duplicate=rng.choice([0.0, 0.02]),
        corrupt=rng.choice([0.0, 0.02]),
        reorder=rng.choice([0.0, 0.05, 0.2]),
        rate_bytes_ms=rng.choice([125.0, 1_250.0, 125_000.0]),
        queue_bytes=rng.choice([8_000, 64_000, 1_000_000]),
    )


def profile_of(rng: random.Random) -> Profile:
    profile = Profile(
        v6=rng.random() < 0.5,
        mss=rng.choice([88, 536, 1220, 1440, 1460, 8960]),
        timestamps=rng.random() < 0.7,
        sack=rng.random() < 0.8,
        wscale=rng.choice([-1, 0, 2, 7, 14]),
        buffer=rng.choice([1500, 5_000, 65_535, 1 << 20]),
        ack_every=rng.choice([1, 2, 4]),
        ack_delay_ms=rng.choice([1.0, 40.0, 200.0]),
        close_first=rng.random() < 0.5,
        stalls=rng.random() < 0.2,
    )
    if profile.buffer >> max(profile.wscale, 0) < 2:
        profile.buffer = 1 << 20  # with less its window would always be told as zero
    return profile


def mtu_of(rng: random.Random, delay_ms: float) -> PathMtu:
    """One in three paths becomes narrow: from the start, within some round trips, or within two seconds."""
    if rng.random() > 1 / 3:
        return PathMtu()
    return PathMtu(
        mtu=rng.choice([1400, 1280, 1000, 576]),
        from_ms=rng.choice([0.0, rng.random() * 20 * delay_ms, rng.random() * 2000]),
        silent=rng.random() < 0.3,
        icmp_loss=rng.choice([0.0, 0.0, 0.5]),
        quote_bytes=rng.choice([8, 2000]),
    )


def plan_of(seed: int) -> Plan:
    """What a seed stands for."""
    rng = random.Random(seed)
    network = network_of(rng)
    profiles, paths = [], []
    for _ in range(rng.choice([1, 1, 2, 4])):
        profiles.append(profile_of(rng))
        slow = network.rate_bytes_ms < 1000 or network.loss > 0.05
        small = slow or profiles[-1].buffer < 10_000 or profiles[-1].mss < 500
        choice = list(SIZES)[: 5 if small else 7]
        paths.append([rng.choice(choice) for _ in range(rng.choice([1, 1, 2, 5]))])
    gather_max, congestion = rng.choice([1, 1, 8, 44]), rng.randrange(lib.CONGESTION_COUNT)
    plan = Plan(network, profiles, paths, gather_max, congestion, mtu_of(rng, network.delay_ms))
    apart = random.Random(f"{APART} of {seed}")  # so that older seeds stay what they are
    plan.request_bytes = apart.choice([0, 0, 0, 3000, 6000])
    if plan.request_bytes:
        for profile in plan.profiles:
            profile.piece_bytes = apart.choice([100, 536, 1400, 1400])
    return with_strangers(plan, apart)


def with_strangers(plan: Plan, rng: random.Random) -> Plan:
    """In half of the runs: an enemy, or a client that takes its time."""
    what = rng.choice(["", "", "", "", "blind", "blind", "repeat", "patience"])
    if what and rng.random() < 0.6:
        plan.network = Network(
            plan.network.delay_ms, rate_bytes_ms=plan.network.rate_bytes_ms, queue_bytes=ENDLESS_BYTES
        )
        plan.mtu = PathMtu()
    if what == "blind":
        kinds = rng.choice([*((kind,) for kind in BLIND_KINDS), BLIND_KINDS, BLIND_KINDS])
        plan.blind = Blind(kinds, rng.choice([100, 400, 2000]), rng.choice([-0.1, 0.0, 0.3]))
    elif what == "repeat":
        plan.repeat = Repeat(rng.choice([0.1, 1.0]))
        for profile in plan.profiles:
            profile.leaves = rng.choice(["", "", "reset", "silent", "restart" if profile.timestamps else ""])
            profile.leaves_at = rng.choice([0, 1, 5_000, 100_000])
        if plan.calm:
            plan.silence_ms = 15_000.0  # so that there are connections that the server gives up
    elif what == "patience":
        plan.silence_ms, plan.limit_ms = 2 * HOUR_MS, 5 * HOUR_MS
        for place, profile in enumerate(plan.profiles):
            plan.paths[place] = be_patient(profile, plan.paths[place], rng)
    return plan


def be_patient(profile: Profile, paths: list[str], rng: random.Random) -> list[str]:
    """An hour between two requests, a reader that stops for minutes and then takes little, or a very small buffer."""
    how = rng.choice(["idle", "slow", "small"])
    if how == "idle":
        profile.think_ms = HOUR_MS
        return [*paths, rng.choice(["/20k", "/150k"])][-2:]
    if how == "slow":
        profile.stalls = False
        profile.shut_ms = rng.choice([1_000.0, 60_000.0, 400_000.0])
        profile.sip_bytes = rng.choice([0, 10, 1000])
        profile.sip_ms = rng.choice([1.0, 50.0, 5_000.0])
        profile.buffer = rng.choice([5_000, 20_000, 65_535])
        profile.wscale = rng.choice([-1, 0, 2])
        return [rng.choice(["/20k", "/150k"])]
    profile.wscale = rng.choice([-1, 0])
    profile.buffer = rng.choice([10, 50, 200])
    return ["/1k"]


class World:
    """The server, its clients, and the wire between them."""

    def __init__(self, plan: Plan, seed: int, capture: Capture | None = None) -> None:
        self.plan = plan
        self.seed = seed
        self.rng = random.Random(seed ^ 0x5EED)
        self.capture = capture
        self.now = 0.0
        self.order = itertools.count()
        # When, a number for the order, to whom (a client's number), the frame, and what is known of it if it is intact:
        # to a client its Segment, to the server what an ICMP message quotes.
        self.events: list[tuple[float, int, int, bytes, Any]] = []
        silence_ms = int(plan.silence_ms)
        settings = {
            "keep_alive_ms": silence_ms,
            "request_ms": silence_ms,
            "send_ms": silence_ms,
            "congestion": plan.congestion,
        }
        self.host = RawHost(image(), gather_max=plan.gather_max, max_connections=PLACES, config=settings)
        self.down = Direction(plan.network, self.rng)
        self.up = Direction(plan.network, self.rng)
        self.clients = [self.make_client(number) for number in range(len(plan.profiles))]
        self.checks = Checks(self.host.stack, PLACES, self.clients)
        self.deadline_ns = NEVER_NS  # the core's
        strangers = random.Random(seed ^ 0xE4E4)
        self.repeater = Repeater(plan.repeat, strangers) if plan.repeat else None
        self.attacker = Attacker(plan.blind, self.clients, strangers) if plan.blind else None
        self.attacks: list[float] = []  # when, the last first
        self.alone_ms = 0.0  # what the run takes without a blind enemy
        self.answered_bytes = self.answers = 0  # to him, but to the clients

    def make_client(self, number: int) -> Client:
        profile, paths = self.plan.profiles[number], self.plan.paths[number]
        requests, expect, total = [], [], 0
        for place, path in enumerate(paths):
            last = place == len(paths) - 1
            requests.append(
                request_of(path, close=last and not profile.close_first, more_bytes=self.plan.request_bytes)
            )
            total += len(self.stream(path))
            expect.append(total)
        side = Side(profile.v6, FIRST_PORT + number)
        return Client(side, replace(profile), requests, expect, random.Random(self.rng.random()))

    @staticmethod
    def stream(path: str) -> bytes:
        return model().streams[model().gets[path]]

    # The wire

    def post(self, direction: Direction, number: int, frame: bytes, known: Any, note: str) -> None:
        """Puts a frame on the wire."""
        arrivals = direction.carry(frame, self.now)
        for at, carried in arrivals:
            event = (at, next(self.order), number, carried, known if carried is frame else None)
            heapq.heappush(self.events, event)
        if self.capture is not None:
            fates = [f"{'' if c is frame else 'spoiled, '}arrives at {at:.3f} ms" for at, c in arrivals]
            self.capture.write(self.now, frame, f"{note}, {' and '.join(fates) or 'lost'}")

    def to_server(self) -> None:
        """Puts what the clients said on the wire."""
        for number, client in enumerate(self.clients):
            if client.out:
                for frame in client.out:
                    self.post(self.up, TO_SERVER, frame, None, f"from client {number}")
                    if self.repeater is not None:
                        self.repeater.saw(number, frame, self.now)
                client.out.clear()

    def see(self, frames: list[bytes]) -> None:
        """The core has run: looks at it, judges what it said, and puts that on the wire."""
        self.checks.look(self.now, any(len(frame) > 200 for frame in frames))
        for frame in frames:
            if not self.checks.is_for_client(frame):
                continue
            number, segment = self.checks.judge(frame, self.now)
            if self.plan.mtu.too_big(frame, self.now):
                self.refuse(number, frame)
            else:
                self.post(self.down, number, frame, segment, f"to client {number}")

    def refuse(self, number: int, frame: bytes) -> None:
        """A frame that the path does not take whole."""
        path = self.plan.mtu
        if self.capture is not None:
            self.capture.write(
                self.now, frame, f"to client {number}, above the MTU of {path.mtu_at(self.now, is_v6(frame))}"
            )
        if path.silent or self.rng.random() < path.icmp_loss:
            return
        message = path.refusal(frame, self.now)
        self.post(self.up, TO_SERVER, message, quoted_segment(message), "from the router")

    # Time

    def next_time(self) -> float | None:
        due = [t for client in self.clients if (t := client.deadline()) is not None]
        if self.events:
            due.append(self.events[0][0])
        if self.deadline_ns != NEVER_NS:
            due.append(max(self.now, (self.deadline_ns - START_NS) / 1e6))
        if self.repeater is not None and self.repeater.due:
            due.append(self.repeater.due[0][0])
        if self.attacks:
            due.append(self.attacks[-1])
        return min(due) if due else None

    def step(self, now: float) -> None:
        """Everything that is due. As in ssrun's loop, the core runs when frames came or its deadline is over."""
        self.now = max(self.now, now)
        self.checks.before_step(self.now)
        self.set_clock()
        ran = False
        while self.events and self.events[0][0] <= self.now:
            _, _, number, frame, known = heapq.heappop(self.events)
            if number == TO_SERVER:
                ran = True
                self.deliver(frame, known)
            else:
                self.clients[number].take(frame, known, self.now)
        for client in self.clients:
            client.tick(self.now)
        self.to_server()
        ran = self.strangers() or ran
        if not ran and self.host.now_ns >= self.deadline_ns:
            ran = True
            self.see(self.host.output())
        if ran:
            self.deadline_ns = self.checks.after_run(self.host.now_ns)

    def deliver(self, frame: bytes, quoted: tuple[int, int, int] | None) -> None:
        """A frame reaches the server."""
        if quoted is not None:
            self.checks.refused(*quoted, is_v6(frame))
        self.see(self.host.give(frame))

    def strangers(self) -> bool:
        """What they say reaches the server at once; true if they said anything."""
        frames: list[bytes] = []
        if self.repeater is not None:
            for number, client in enumerate(self.clients):
                if client.done:
                    self.repeater.is_over(number, self.now)
            frames += self.repeater.take(self.now)
        while self.attacker is not None and self.attacks and self.attacks[-1] <= self.now:
            self.attacks.pop()
            self.attacker.slot = self.host.now_ns // COOKIE_SLOT_NS
            frames += next(self.attacker_frames)
        for frame in frames:
            if self.capture is not None:
                self.capture.write(self.now, frame, "from a stranger, arrives at once")
            answers = self.host.give(frame)
            for answer in answers:
                if self.checks.is_for_client(answer) and len(answer) < CONTROL_BYTES:
                    self.answers += 1
                    self.answered_bytes += len(answer)
            self.see(answers)
        return bool(frames)

    def set_clock(self) -> None:
        self.host.now_ns = START_NS + int(self.now * 1e6)
        lib.stack_clock(self.host.stack, self.host.now_ns, int(self.now / 1000) + WALL_S)

    # A run

    def start(self, clients: Iterable[Client]) -> None:
        for client in clients:
            client.start(self.now)
        self.to_server()

    def run(self) -> float:
        """To the end; the virtual milliseconds it took."""
        if self.attacker is not None:
            self.plan_attacks()
        self.start(self.clients)
        for _ in range(STEPS_MAX):
            if all(client.done for client in self.clients):
                break
            now = self.next_time()
            assert now is not None, f"nothing is due, but not done: {[c.state for c in self.clients]}"
            assert now < self.plan.limit_ms, f"no end: {[(c.rcv_nxt, c.expect_bytes) for c in self.clients]}"
            self.step(now + 1e-6)
            assert all(client.state != "reset" for client in self.clients), "reset"
        assert all(client.done for client in self.clients), "too many steps"
        took = self.now
        self.check_bytes()
        self.check_time(took)
        self.check_end()
        return took

    def plan_attacks(self) -> None:
        """A blind enemy needs an idea of when; and what he does to a run is seen beside the run without him."""
        assert self.attacker is not None
        self.alone_ms = World(replace(self.plan, blind=None), self.seed).run()
        plan, rng = self.attacker.plan, self.attacker.rng
        span = self.alone_ms * (plan.end - plan.begin)
        begin = max(0.0, self.alone_ms * plan.begin)
        self.attacks = sorted((begin + rng.random() * span for _ in range(plan.packets)), reverse=True)
        self.attacker_frames = self.attacker.frames()

    def check_time(self, took: float) -> None:
        """A blind enemy costs no more than the link's time for what the server sent to a client because of him, and for what
        that may answer: on a calm wire whatever a transfer waits for is behind each of those frames at most once. Timers may
        be a tick late, before and behind."""
        stalls = any(
            client.profile.stalls for client in self.clients
        )  # by chance, and another chance at another time
        if self.attacker is None or not self.plan.calm or stalls:
            return
        link_ms = (self.answered_bytes + self.answers * CONTROL_BYTES) / self.plan.network.rate_bytes_ms
        allowed = self.alone_ms + link_ms + 2 * TICK_MS
        assert took <= allowed, f"took {took:.1f} ms instead of {self.alone_ms:.1f}; {allowed:.1f} are explained"

    def run_until(self, end_ms: float) -> None:
        """What happens before a time."""
        while (now := self.next_time()) is not None and now < end_ms:
            self.step(now + 1e-6)
        self.now = end_ms

    def check_bytes(self) -> None:
        for client, paths in zip(self.clients, self.plan.paths, strict=True):
            if client.state == "left":
                continue
            at = 0
            for place, path in enumerate(paths):
                expected = bytearray(self.stream(path))
                date = slice(DATE_OFFSET, DATE_OFFSET + 29)
                got = bytes(client.received[at : at + len(expected)])
                assert got[date].endswith(b" 1994 08" + got[date][-10:]) or got[date].startswith(b"Sun, 06 Nov 1994")
                expected[date] = got[date]
                if place == len(paths) - 1 and not client.profile.close_first:
                    expected[67:77] = b"     close"
                assert got == expected, f"bytes differ in {path}"
                at += len(expected)
            assert len(client.received) == at, "more bytes than were asked for"

    def check_end(self) -> None:
        """What is still on the wire arrives, what is due runs out; then everything is free."""
        for _ in range(STEPS_MAX):
            now = self.next_time()
            if now is None:
                break
            self.step(now + 1e-6)
        assert self.next_time() is None, "timers without end"
        assert lib.stack_connections(self.host.stack) == 0, "a connection is left"
        region = self.host.region
        assert region.free_count == region.buffer_count, "a buffer is lost"
        assert not any(self.host.in_flight), "a chunk is in flight"
        counters = self.host.counters()
        opened = counters.get("tcp_opened", 0)
        assert opened == counters.get("tcp_closed", 0)
        assert opened <= sum(client.openings for client in self.clients), "a connection that no client has opened"
        asked = sum(client.asked_before + client.sent_requests for client in self.clients)
        assert counters.get("http_requests", 0) <= asked, "a request was answered twice"
        assert "http_bad_requests" not in counters, "a request that nobody has sent"
        if self.plan.calm and self.repeater is None and self.plan.network.rate_bytes_ms >= FAST_BYTES_MS:
            assert "tcp_retransmit_timeout" not in counters, "a timeout, though nothing was lost"
        assert "arena_stalls" not in counters


def request_of(path: str, *, close: bool = False, more_bytes: int = 0) -> bytes:
    more = b"Connection: close\r\n" if close else b""
    if more_bytes:
        more += b"Cookie: %s\r\n" % (b"c" * more_bytes)
    return b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (path.encode(), more)


def capture_of(seed: int) -> Path:
    return ROOT / ".cache" / "sim" / f"seed-{seed}.pcapng"


def run_seed(seed: int, capture: Path | None = None) -> str:
    """Empty if all went well; else what went wrong, how to see it again, and where what was on the wire lies."""
    try:
        if capture is None:
            World(plan_of(seed), seed).run()
        else:
            with Capture(capture, f"seed {seed}") as wire:
                World(plan_of(seed), seed, wire).run()
    except Exception as error:  # whatever the core made go wrong, the seed must be named
        if capture is None:
            return run_seed(seed, capture_of(seed)) or f"seed {seed}: {error!r}, but not when it ran again"
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"seed {seed}: {type(error).__name__} at {where.name}:{where.lineno}: {error}\n"
            f"  again: python tests/sim/world.py --seed {seed}\n  capture: {capture}"
        )
    return ""


def main() -> None:
    """Runs seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, help="only this one, and a capture of it")
    parser.add_argument("--pcap", type=Path, help="with --seed: where the capture goes")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        capture = arguments.pcap or capture_of(arguments.seed)
        print(plan_of(arguments.seed), f"capture: {capture}", sep="\n", flush=True)
        sys.exit(run_seed(arguments.seed, capture) or 0)
    failed = 0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        for result in pool.map(run_seed, seeds, chunksize=10):
            if result:
                failed += 1
                print(result, flush=True)
    print(f"{arguments.seeds - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
