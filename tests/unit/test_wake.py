"""How a worker waits for frames: it spins for clients that wait for nothing but it, naps where frames come steadily, and
sleeps else. A slow world in Python that has clients, and a clock, and asks wake.c after each round."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from ssimage._sandstorm import ffi, lib
from ssrun.server import wake_counters

US = 1000  # ns
MS = 1000 * US
NEVER = 2**64 - 1


@dataclass
class World:
    """Clients that ask, each in its own time, and a worker that has no other work than to answer."""

    preference: int = lib.WAKE_BALANCED
    now_ns: int = 10**9
    frames: int = 0
    requests: int = 0
    releasing: int = 0
    prompt: int = 0
    connections: int = 1
    ways: list[int] = field(default_factory=list)
    naps_us: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wake = ffi.new("struct wake *")
        lib.wake_init(self.wake, self.preference, self.now_ns)

    def choose(self, deadline_ns: int = NEVER) -> tuple[int, int]:
        seen = ffi.new(
            "struct wake_seen *",
            {name: getattr(self, name) for name in ("frames", "requests", "releasing", "prompt", "connections")},
        )
        choice = lib.wake_choose(self.wake, self.now_ns, deadline_ns, seen)
        return choice.way, choice.timeout_ns

    def come(self, frames: int, *, prompt: bool = False, releasing: int = 0) -> None:
        """A round has so many frames, the first of them a request, or ACKs that release more."""
        self.frames += frames
        if frames > 0:
            self.requests += 0 if releasing else 1
            self.releasing += releasing
            self.prompt += (releasing or 1) if prompt else 0
        lib.wake_round(self.wake, self.now_ns, frames)

    def serve(
        self, gap_us: float, seconds: float, *, prompt: bool = False, frames: int = 1, releasing: int = 0
    ) -> None:
        """One turn each gap; how the worker waited is noted."""
        end_ns, next_ns = self.now_ns + round(seconds * 1e9), self.now_ns + round(gap_us * US)
        self.ways, self.naps_us = [], []
        while self.now_ns < end_ns:
            came = 0
            while next_ns <= self.now_ns:
                came += frames
                next_ns += round(gap_us * US)
                self.come(frames, prompt=prompt, releasing=releasing)
            if came == 0:
                lib.wake_round(self.wake, self.now_ns, 0)
            self.now_ns += US  # to serve
            way, timeout_ns = self.choose()
            self.ways.append(way)
            if way == lib.WAKE_NAP:
                self.naps_us.append(timeout_ns / US)
                self.now_ns += timeout_ns
            elif way == lib.WAKE_SLEEP:
                assert timeout_ns == -1
                self.now_ns = max(self.now_ns, next_ns)

    def share(self, way: int) -> float:
        """Of the later half: what the worker has settled upon."""
        later = self.ways[len(self.ways) // 2 :]
        return later.count(way) / len(later)

    @property
    def counters(self) -> dict[str, int]:
        return wake_counters(self.wake)


def test_nobody_comes() -> None:
    world = World()
    assert world.choose() == (lib.WAKE_SLEEP, -1)
    assert world.choose(world.now_ns + 5 * MS) == (lib.WAKE_SLEEP, 5 * MS)


@pytest.mark.parametrize("preference", [lib.WAKE_BALANCED, lib.WAKE_LATENCY, lib.WAKE_POWER])
def test_seldom_frames_are_slept_for(preference: int) -> None:
    world = World(preference)
    world.serve(gap_us=20_000, seconds=2)
    assert world.share(lib.WAKE_SLEEP) > 0.4
    assert world.counters["loop_rounds"] < 1000


def test_a_client_that_waits_for_us_is_spun_for() -> None:
    world = World()
    world.serve(gap_us=25, seconds=0.1, prompt=True)
    assert world.share(lib.WAKE_SPIN) == 1
    before = world.now_ns
    ways = []
    while world.now_ns < before + 200 * US:  # and it is gone
        world.now_ns += US
        lib.wake_round(world.wake, world.now_ns, 0)
        ways.append(world.choose()[0])
    assert 0 < ways.count(lib.WAKE_SPIN) <= lib.WAKE_SPIN_NS // US
    assert ways[-1] != lib.WAKE_SPIN
    assert world.counters["loop_spins_in_vain"] == 1


def test_new_connections_one_after_the_other_are_spun_for() -> None:
    """No answer has gone before their only request, so nothing says how soon it came but how few connections there are."""
    world = World(connections=2)
    world.serve(gap_us=40, seconds=0.1, prompt=False, frames=5)
    assert world.share(lib.WAKE_SPIN) > 0.9


def test_spinning_in_vain_ends() -> None:
    """Prompt as they are, they come later than is spun for."""
    world = World()
    world.serve(gap_us=150, seconds=1, prompt=True)
    assert world.share(lib.WAKE_SPIN) < 0.9  # of choices, and a spin is fifty of them
    vain = world.counters["loop_spins_in_vain"]
    assert 1 <= vain < 200  # of 6,600 turns


def test_steady_frames_of_many_are_napped_for() -> None:
    world = World(connections=256)
    world.serve(gap_us=25, seconds=0.2, frames=2)
    assert world.share(lib.WAKE_NAP) == 1
    assert max(world.naps_us[len(world.naps_us) // 2 :]) <= lib.WAKE_NAP_NS / US
    assert world.counters["loop_sleeps"] < 100


def test_a_nap_is_shorter_where_more_frames_come() -> None:
    naps = []
    for gap_us in (50, 25, 10):
        world = World(connections=10_000)
        world.serve(gap_us=gap_us, seconds=0.2, frames=2)
        naps.append(world.naps_us[-1])
        assert naps[-1] <= lib.WAKE_NAP_FRAMES * gap_us / 2 * 1.1
    assert naps == sorted(naps, reverse=True)
    assert naps[0] > naps[-1] >= lib.WAKE_NAP_MIN_NS / US


def test_a_nap_is_little_beside_what_clients_take_themselves() -> None:
    """Sixteen clients that think for some time before they ask again."""
    world = World(connections=16)
    world.serve(gap_us=30, seconds=0.2)
    turn_us = 16 * 30
    assert world.naps_us
    assert max(world.naps_us[len(world.naps_us) // 2 :]) <= turn_us / lib.WAKE_NAP_SHARE * 1.2


def test_a_download_is_not_held_up() -> None:
    """Its window is let go by an ACK each 150 us; nobody else is there. A nap would be part of each of those."""
    world = World()
    world.serve(gap_us=150, seconds=0.2, frames=4, releasing=1)
    assert max(world.naps_us[len(world.naps_us) // 2 :], default=0) <= 150 / lib.WAKE_NAP_SHARE * 1.2


def test_latency_never_naps_and_power_never_spins() -> None:
    for gap_us in (25, 150):
        world = World(lib.WAKE_LATENCY, connections=256)
        world.serve(gap_us=gap_us, seconds=0.1)
        assert world.share(lib.WAKE_SPIN) > 0.9
        assert world.counters["loop_naps"] == 0
    world = World(lib.WAKE_POWER, connections=1000)
    world.serve(gap_us=25, seconds=0.5)
    assert world.share(lib.WAKE_NAP) == 1
    assert world.naps_us[-1] == lib.WAKE_POWER_NAP_NS / US
    world = World(lib.WAKE_POWER)
    world.serve(gap_us=25, seconds=0.5, prompt=True)
    assert world.counters["loop_spins"] == 0


def test_busy_always_spins() -> None:
    world = World(lib.WAKE_BUSY)
    for _ in range(10):
        world.now_ns += 10**9
        lib.wake_round(world.wake, world.now_ns, 0)
        assert world.choose()[0] == lib.WAKE_SPIN


def test_a_nap_ends_when_something_else_is_due() -> None:
    world = World(connections=10_000)
    world.serve(gap_us=50, seconds=0.1)
    world.come(1)
    assert world.choose(world.now_ns + 7 * US) == (lib.WAKE_NAP, 7 * US)


def test_what_was_in_vain_is_counted() -> None:
    world = World()
    world.choose()
    world.come(0)  # woken for nothing
    world.choose(world.now_ns + MS)
    world.now_ns += MS
    world.come(0)  # by a timer
    world.choose()
    world.come(1)
    assert {name: count for name, count in world.counters.items() if count} == {
        "loop_rounds": 3,
        "loop_sleeps": 3,
        "loop_sleeps_in_vain": 1,
    }


def test_when_all_is_quiet_again_it_sleeps() -> None:
    world = World(connections=256)
    world.serve(gap_us=25, seconds=0.1)
    world.come(1)
    way, timeout_ns = world.choose()
    assert way == lib.WAKE_NAP
    world.now_ns += timeout_ns
    world.come(0)
    assert world.choose() == (lib.WAKE_SLEEP, -1)
    assert world.counters["loop_naps_in_vain"] == 1


def answers(world: World, count: int, acks: int) -> int:
    """Requests that come alone, ten milliseconds apart, each with ACKs soon behind its answer: the wakings."""
    before = world.counters
    for _ in range(count):
        world.now_ns += 10 * MS
        world.come(1)
        way, timeout_ns = world.choose()
        for _ in range(acks):
            world.frames += 1
        if way == lib.WAKE_NAP:
            world.now_ns += timeout_ns
            lib.wake_round(world.wake, world.now_ns, acks)
            assert world.choose()[0] == lib.WAKE_SLEEP
        else:
            for _ in range(acks):
                lib.wake_round(world.wake, world.now_ns, 1)
                assert world.choose()[0] == lib.WAKE_SLEEP
    return sum(world.counters[name] - before[name] for name in ("loop_naps", "loop_sleeps"))


def test_nobody_is_woken_for_each_ack() -> None:
    assert answers(World(), 1000, acks=3) < 2010  # of 4,000


def test_a_nap_behind_which_nothing_comes_is_seldom() -> None:
    assert answers(World(), 1000, acks=0) < 1300
