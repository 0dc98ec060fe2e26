"""The path becomes narrow in the middle of a transfer."""

from __future__ import annotations

import pytest

from tests.sim.client import Profile
from tests.sim.network import Network, PathMtu
from tests.sim.world import Plan, World

NARROW_MS = 120.0  # the transfers below are under way by then
QUEUE_BYTES = 1 << 20  # holds what two slow starts send: a loss of the last segment is another matter


def run(mtu: PathMtu, *profiles: Profile) -> dict[str, int]:
    """To the end, with all of World's checks; the counters."""
    world = World(Plan(Network(queue_bytes=QUEUE_BYTES), list(profiles), [["/1m"] for _ in profiles], mtu=mtu), 0)
    world.run()
    return world.host.counters()


@pytest.mark.parametrize("sack", [False, True])
@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("mtu", [1400, 1280, 576])
def test_what_the_router_tells_costs_no_timeout(mtu: int, v6: bool, sack: bool) -> None:
    counters = run(PathMtu(mtu, from_ms=NARROW_MS), Profile(v6=v6, sack=sack))
    assert counters["pmtu_learned"] == 1
    assert "tcp_retransmit_timeout" not in counters


@pytest.mark.parametrize("v6", [False, True])
def test_each_connection_to_a_host_learns(v6: bool) -> None:
    """The second message tells what the host's table has already: it is news to its connection all the same."""
    counters = run(PathMtu(1400, from_ms=NARROW_MS), Profile(v6=v6), Profile(v6=v6))
    assert counters["pmtu_learned"] == 2
    assert "tcp_retransmit_timeout" not in counters


@pytest.mark.parametrize(("v6", "mtu"), [(False, 1400), (False, 576), (True, 1280)])
def test_a_black_hole_is_found_by_timeouts(v6: bool, mtu: int) -> None:
    counters = run(PathMtu(mtu, from_ms=NARROW_MS, silent=True), Profile(v6=v6))
    assert counters["pmtu_black_holes"] == (2 if mtu < 1280 else 1)
    assert 2 <= counters["tcp_retransmit_timeout"] <= 5
