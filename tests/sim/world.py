"""Deterministic simulation: the real core against the model clients over a seeded network, in virtual time.

    python tests/sim/world.py --seeds 1000        many seeds, on all cores
    python tests/sim/world.py --seed 17 --pcap x.pcap   one again, with what was on the wire

Invariants, at every step: each frame has good checksums and is for its client; no segment exceeds the client's MSS or
goes beyond the window that it told; what is in flight stays within cwnd; every byte arrives as the image has it. At the
end every connection has ended, and every TCB, buffer and slot is free.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import random
import struct
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from client import BadFrameError, Client, Profile, Side, ones_sum
from host import Host, Image
from model import DATE_OFFSET, ModelImage, Page
from ssrun._sandstorm import ffi, lib

LIMIT_MS = 900_000.0
STEPS_MAX = 200_000
BURST_MS = 100.0  # a burst of losses is over when nothing was sent for so long
START_NS = 1_000_000_000_000
SIZES = {"/0": 0, "/1": 1, "/1k": 1000, "/s": 1428 - 160, "/20k": 20_000, "/150k": 150_000, "/1m": 1_000_000}


@cache
def model() -> ModelImage:
    """The site that all runs serve."""
    block = bytes(i * 31 % 251 for i in range(1_000_000))
    return ModelImage({path: Page(block[:size]) for path, size in SIZES.items()})


@cache
def image() -> Image:
    return Image(model().sections)


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


class RawHost(Host):
    """Host without scapy: frames as bytes, superframes cut."""

    def _take(self, desc: Any) -> Any:
        places = [(desc.head, desc.head_bytes)]
        chunks = [desc.chunk]
        for piece in self.piece[desc.first_piece : desc.first_piece + desc.piece_count]:
            places.append((piece.data, piece.len_bytes))
            if piece.chunk != lib.NMIO_NONE:
                chunks.append(piece.chunk)
        data = b"".join(bytes(ffi.buffer(at, length)) for at, length in places)
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


def plan_of(seed: int) -> Plan:
    """What a seed stands for."""
    rng = random.Random(seed)
    chance = rng.choice([0.0, 0.0, 0.01, 0.03, 0.1])
    network = Network(
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
    profiles, paths = [], []
    for _ in range(rng.choice([1, 1, 2, 4])):
        profiles.append(
            Profile(
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
        )
        if profiles[-1].buffer >> max(profiles[-1].wscale, 0) < 2:
            profiles[-1].buffer = 1 << 20  # with less its window would always be told as zero
        small = (
            network.rate_bytes_ms < 1000 or profiles[-1].buffer < 10_000 or chance > 0.05 or profiles[-1].mss < 500
        )
        choice = list(SIZES)[: 5 if small else 7]
        paths.append([rng.choice(choice) for _ in range(rng.choice([1, 1, 2, 5]))])
    return Plan(network, profiles, paths, rng.choice([1, 1, 8, 44]), rng.randrange(lib.CONGESTION_COUNT))


class World:
    """The server, its clients, and the wire between them."""

    def __init__(self, plan: Plan, seed: int, wire: Any = None) -> None:
        self.plan = plan
        self.rng = random.Random(seed ^ 0x5EED)
        self.wire = wire
        self.now = 0.0
        self.order = itertools.count()
        self.sent_to: dict[int, int] = {}
        self.events: list[tuple[float, int, int | None, bytes]] = []  # client's number: to it; None: to the server
        settings = {"keep_alive_ms": 300_000, "request_ms": 300_000, "congestion": plan.congestion}
        self.host = RawHost(image(), gather_max=plan.gather_max, max_connections=8, config=settings)
        self.down = Direction(plan.network, self.rng)
        self.up = Direction(plan.network, self.rng)
        self.clients = [self.make_client(number) for number in range(len(plan.profiles))]

    def make_client(self, number: int) -> Client:
        profile, paths = self.plan.profiles[number], self.plan.paths[number]
        requests, expect, total = [], [], 0
        for place, path in enumerate(paths):
            last = place == len(paths) - 1
            close = b"Connection: close\r\n" if last and not profile.close_first else b""
            requests.append(b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (path.encode(), close))
            total += len(self.stream(path))
            expect.append(total)
        side = Side(profile.v6, 40_000 + number)
        return Client(side, replace(profile), requests, expect, random.Random(self.rng.random()))

    @staticmethod
    def stream(path: str) -> bytes:
        return model().streams[list(SIZES).index(path) * 3]

    def record(self, frame: bytes) -> None:
        if self.wire is not None:
            us = int(self.now * 1000)
            self.wire.write(struct.pack("<IIII", us // 1000000, us % 1000000, len(frame), len(frame)) + frame)

    def to_server(self) -> None:
        """Puts what the clients said on the wire."""
        for client in self.clients:
            for frame in client.out:
                self.record(frame)
                for at, carried in self.up.carry(frame, self.now):
                    heapq.heappush(self.events, (at, next(self.order), None, carried))
            client.out.clear()

    def to_clients(self, batches: list[Any]) -> None:
        """Judges what the server said, and puts it on the wire."""
        sent = [frame for batch in batches for frame in batch]
        for frame in sent:
            self.record(frame)
            number = self.judge(frame)
            for at, carried in self.down.carry(frame, self.now):
                heapq.heappush(self.events, (at, next(self.order), number, carried))
        if any(len(frame) > 200 for frame in sent):
            self.check_windows()

    def judge(self, frame: bytes) -> int:
        """Whom a frame is for. It must be well-formed and within what that client allows."""
        port = struct.unpack_from(">H", frame, (54 if frame[12:14] == b"\x86\xdd" else 34) + 2)[0]
        client = self.clients[port - 40_000]
        segment = client.side.parse(frame)
        options = 12 if client.profile.timestamps else 0
        assert len(segment.payload) <= client.profile.mss - options, "above the MSS"
        if segment.payload and client.state == "established":
            start = (segment.seq - client.irs - 1) % 2**32
            assert start + len(segment.payload) <= client.edge, "beyond the window"
        return port - 40_000

    def check_windows(self) -> None:
        """In flight is no more than cwnd, and the one segment that a probe may send beyond it."""
        info = ffi.new("struct stack_connection *")
        for index in range(8):
            if lib.stack_connection_at(self.host.stack, index, info):
                new = info.snd_nxt - self.sent_to.get(index, info.snd_una)
                self.sent_to[index] = info.snd_nxt
                if new <= info.mss_bytes or not self.clients[info.peer_port - 40_000].profile.sack:
                    continue  # nothing, or a probe; without SACK what is in flight is guessed from duplicate ACKs
                assert info.pipe <= max(info.cwnd, info.mss_bytes) + 2 * info.mss_bytes, (info.pipe, info.cwnd)
                assert info.snd_una <= info.snd_nxt <= info.snd_end + 1
                assert 200_000 <= info.rto_us <= 60_000_000

    def next_time(self) -> float | None:
        times = [client.deadline() for client in self.clients]
        due = [t for t in times if t is not None]
        if self.events:
            due.append(self.events[0][0])
        deadline_ns = lib.stack_deadline_ns(self.host.stack)
        if deadline_ns != 2**64 - 1:
            due.append(max(self.now, (deadline_ns - START_NS) / 1e6))
        return min(due) if due else None

    def step(self, now: float) -> None:
        """Everything that is due."""
        self.now = max(self.now, now)
        while self.events and self.events[0][0] <= self.now:
            _, _, number, frame = heapq.heappop(self.events)
            if number is None:
                self.set_clock()
                self.to_clients(self.host.send(frame))
                continue
            try:
                self.clients[number].take(frame, self.now)
            except (BadFrameError, struct.error, IndexError):
                continue
        for client in self.clients:
            client.tick(self.now)
        self.to_server()
        self.set_clock()
        self.to_clients(self.host.advance(0))

    def set_clock(self) -> None:
        self.host.now_ns = START_NS + int(self.now * 1e6)
        lib.stack_clock(self.host.stack, self.host.now_ns, int(self.now / 1000) + 784111777)

    def run(self) -> float:
        """To the end; the virtual milliseconds it took."""
        for client in self.clients:
            client.start(0.0)
        self.to_server()
        for _ in range(STEPS_MAX):
            if all(client.done for client in self.clients):
                break
            now = self.next_time()
            assert now is not None, f"nothing is due, but not done: {[c.state for c in self.clients]}"
            assert now < LIMIT_MS, f"no end: {[(c.rcv_nxt, c.expect_bytes) for c in self.clients]}"
            self.step(now + 1e-6)
            assert all(client.state != "reset" for client in self.clients), "reset"
        assert all(client.done for client in self.clients), "too many steps"
        took = self.now
        self.check_bytes()
        self.check_end()
        return took

    def check_bytes(self) -> None:
        for client, paths in zip(self.clients, self.plan.paths, strict=True):
            at = 0
            for place, path in enumerate(paths):
                expected = bytearray(self.stream(path))
                date = slice(DATE_OFFSET, DATE_OFFSET + 29)
                got = bytes(client.received[at : at + len(expected)])
                assert got[date].endswith(b" 1994 08" + got[date][-10:]) or got[date].startswith(b"Sun, 06 Nov 1994")
                expected[date] = got[date]
                if place == len(paths) - 1 and not client.profile.close_first:
                    expected[67:77] = b"close     "
                assert got == expected, f"bytes differ in {path}"
                at += len(expected)
            assert len(client.received) == at

    def check_end(self) -> None:
        """What is still on the wire arrives; then everything is free."""
        for _ in range(3):
            while self.events:
                self.step(self.events[0][0])
            self.now += 400_000
            self.step(self.now)
        assert lib.stack_connections(self.host.stack) == 0
        region = self.host.region
        assert region.free_count == region.first_slot
        assert not any(self.host.in_flight)
        counters = self.host.counters()
        assert counters["tcp_opened"] == counters["tcp_closed"]
        assert "arena_stalls" not in counters


def run_seed(seed: int, pcap: Path | None = None) -> str:
    """Empty if all went well; else what went wrong, and how to see it again."""
    try:
        if pcap is None:
            World(plan_of(seed), seed).run()
        else:
            with pcap.open("wb") as wire:
                wire.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
                World(plan_of(seed), seed, wire).run()
    except AssertionError as error:
        again = f"python tests/sim/world.py --seed {seed} --pcap seed-{seed}.pcap"
        return f"seed {seed}: {error}\n  again: {again}"
    return ""


def main() -> None:
    """Runs seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--pcap", type=Path, help="with --seed: what was on the wire")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        print(plan_of(arguments.seed))
        sys.exit(run_seed(arguments.seed, arguments.pcap) or 0)
    failed = 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        for result in pool.map(run_seed, seeds, chunksize=10):
            if result:
                failed += 1
                print(result, flush=True)
    print(f"{arguments.seeds - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
