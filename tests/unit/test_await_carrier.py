"""A link that its driver resets when ports are opened on it is waited for: an address that is asked for meanwhile seems free."""

from __future__ import annotations

import pytest
from ssrun import link
from ssrun.ports import kernel
from ssrun.ports.kernel import Interface

pytestmark = pytest.mark.usefixtures("clock")


class Clock:
    """Time passes by waiting; the link is as it is at that time."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.states: dict[float, Interface | None] = {}  # from which time on
        self.stop_s = float("inf")

    def link(self, _: int) -> Interface | None:
        return [state for since_s, state in sorted(self.states.items()) if since_s <= self.now_s][-1]

    def stopped(self, timeout_s: float) -> bool:
        self.now_s += timeout_s
        return self.now_s >= self.stop_s


def nic(*, up: bool = True, running: bool = True) -> Interface:
    return Interface("eth0", 7, bytes(6), 1500, up=up, running=running)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(kernel, "look_up_index", clock.link)
    monkeypatch.setattr(link.time, "monotonic", lambda: clock.now_s)
    return clock


def waited(clock: Clock, before: Interface, states: dict[float, Interface | None]) -> tuple[bool, int]:
    """Whether it goes on, and after how many seconds. states: what becomes of the link, by time."""
    clock.states = {100.0 + since_s: state for since_s, state in states.items()}
    goes_on = link.await_carrier(before, clock.stopped)
    return goes_on, round(clock.now_s - 100.0)


def test_a_link_that_stays_is_not_waited_for(clock: Clock) -> None:
    assert waited(clock, nic(), {0: nic()}) == (True, 0)


def test_a_link_that_is_reset_is_waited_for(clock: Clock) -> None:
    assert waited(clock, nic(), {0: nic(running=False), 2.95: nic()}) == (True, 3)


def test_a_link_that_never_was_is_not_waited_for(clock: Clock) -> None:
    assert waited(clock, nic(running=False), {0: nic(running=False)}) == (True, 0)


def test_a_link_that_does_not_come_back_is_not_waited_for_without_end(clock: Clock) -> None:
    assert waited(clock, nic(), {0: nic(running=False)}) == (True, 10)


@pytest.mark.parametrize("then", [None, nic(up=False, running=False)])
def test_an_interface_that_is_taken_away_meanwhile_is_no_link_that_is_reset(
    clock: Clock, then: Interface | None
) -> None:
    assert waited(clock, nic(), {0: nic(running=False), 0.95: then}) == (True, 1)


def test_who_is_told_to_stop_waits_no_longer(clock: Clock) -> None:
    clock.stop_s = 101.0
    assert waited(clock, nic(), {0: nic(running=False)}) == (False, 1)
