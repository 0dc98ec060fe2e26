"""Two of our flows behind one bottleneck: the one that comes later gets its share.

20 Mbit/s, 40 ms, and a queue of one bandwidth-delay product. Both flows always have something to send: their clients
keep some requests waiting at the server. A drop-tail queue and a clock without noise can favour one flow for as long as
their phases agree (Floyd and Jacobson, On Traffic Phase Effects in Packet-Switched Gateways, 1991), so there is some
jitter, less than a frame's time so that nothing is reordered; and the shares are the mean of some seeds.
"""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.sim.checks import FIRST_PORT
from tests.sim.client import Client, Profile, Side
from tests.sim.network import Network
from tests.sim.world import ALGORITHMS, Plan, World, request_of

RATE_BYTES_MS = 2_500.0
RTT_MS = 40.0
QUEUE_BYTES = int(RATE_BYTES_MS * RTT_MS)
LATER_MS = 5_000.0  # when the second flow begins
FROM_MS, TO_MS = 20_000.0, 40_000.0  # what is measured: both have been through several losses by then
SEEDS = 3
AHEAD_BYTES = 2_000_000  # of answers that a client has asked for


class Sink(Client):
    """Asks for the same page again and again, counts what comes and forgets it."""

    def append(self, start: int, payload: bytes) -> None:
        super().append(start, payload)
        self.received.clear()
        self.consumed = 0

    def proceed(self) -> None:
        asked = self.sent_requests * self.expect_bytes[0]
        if self.snd_una == self.snd_nxt and asked - self.rcv_nxt < AHEAD_BYTES:
            self.unacked = self.requests[0]
            self.sent_requests += 1
            self.snd_nxt += len(self.unacked)
            self.send_unacked()


class Shared(World):
    """Two sinks."""

    def make_client(self, number: int) -> Client:
        (path,) = self.plan.paths[number]
        side, rng = Side(False, FIRST_PORT + number), random.Random(self.rng.random())
        return Sink(side, self.plan.profiles[number], [request_of(path)], [len(self.stream(path))], rng)


def shares(congestion: int, seed: int) -> tuple[int, int]:
    """What each of the flows got in the time measured, in bytes."""
    network = Network(delay_ms=RTT_MS / 2, jitter_ms=0.4, rate_bytes_ms=RATE_BYTES_MS, queue_bytes=QUEUE_BYTES)
    world = Shared(Plan(network, [Profile(), Profile()], [["/1m"], ["/1m"]], 1, congestion), seed)
    first, second = world.clients
    world.start([first])
    world.run_until(LATER_MS + seed * 100)
    world.start([second])
    world.run_until(FROM_MS)
    before = first.rcv_nxt, second.rcv_nxt
    world.run_until(TO_MS)
    return first.rcv_nxt - before[0], second.rcv_nxt - before[1]


def jain(values: list[float]) -> float:
    """Jain's index: 1 if all get the same, 1/n if one gets all."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


@pytest.fixture(scope="module")
def results() -> dict[int, list[tuple[int, int]]]:
    """Of every algorithm and seed, so that no core waits for another."""
    runs = [(congestion, seed) for congestion in ALGORITHMS.values() for seed in range(SEEDS)]
    with ProcessPoolExecutor() as pool:
        got = list(pool.map(shares, *zip(*runs, strict=True)))
    return {c: [flows for (of, _), flows in zip(runs, got, strict=True) if of == c] for c in ALGORITHMS.values()}


@pytest.mark.parametrize("congestion", ALGORITHMS.values(), ids=ALGORITHMS)
def test_two_flows_share(results: dict[int, list[tuple[int, int]]], congestion: int) -> None:
    got = results[congestion]
    first, second = (sum(flows) / SEEDS for flows in zip(*got, strict=True))
    assert 0.4 <= first / (first + second) <= 0.6, got
    assert jain([first, second]) > 0.95, got
    assert first + second > 0.8 * RATE_BYTES_MS * (TO_MS - FROM_MS), "the link is not used"
