"""Slow start on a long fat path overshoots by hundreds of segments at once: they are sent again, and little else is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.client import Profile
from tests.sim.network import Direction, Network
from tests.sim.test_fairness import Shared
from tests.sim.world import Plan, lib

RATE_BYTES_MS = 12_500.0
RUN_MS = 4_000.0


class Counting(Direction):
    """Counts what it lets fall."""

    dropped = 0

    def carry(self, frame: bytes, now: float) -> list[tuple[float, bytes]]:
        arrivals = super().carry(frame, now)
        self.dropped += not arrivals
        return arrivals


@pytest.mark.parametrize(
    ("gather", "congestion"),
    [(44, lib.CONGESTION_CUBIC), (1, lib.CONGESTION_NEWRENO)],
    ids=["cubic", "newreno"],
)
def test_what_was_lost_is_sent_again_and_little_else(gather: int, congestion: int) -> None:
    network = Network(delay_ms=50, rate_bytes_ms=RATE_BYTES_MS, queue_bytes=500_000)
    world: Any = Shared(Plan(network, [Profile(buffer=8 << 20)], [["/1m"]], gather, congestion), 1)
    world.down = Counting(network, world.rng)
    world.start(world.clients)
    world.run_until(RUN_MS)
    resent = world.host.counters()["tcp_retransmit_segments"]
    assert world.down.dropped > 100
    assert resent < 1.1 * world.down.dropped
    assert world.clients[0].rcv_nxt > 0.35 * RATE_BYTES_MS * RUN_MS  # a second of it went into slow start
