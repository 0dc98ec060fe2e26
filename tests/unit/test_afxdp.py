"""The AF_XDP port's system calls, with a kernel that is played."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ssimage._sandstorm import lib

from tests.net import run

CSRC = Path(__file__).resolve().parents[2] / "runtime" / "csrc"


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Of each case: calls of sendto, frames left, the port's error, whether it waits for room."""
    if not lib.nmio_filter_built():
        pytest.skip("built without AF_XDP")
    program = tmp_path_factory.mktemp("afxdp") / "afxdp_calls"
    sources = [Path(__file__).with_name("afxdp_calls.c"), CSRC / "libnmio" / "region.c"]
    run("gcc", "-O1", "-Wall", "-Wno-unused-function", f"-I{CSRC}", *sources, "-lxdp", "-lbpf", "-o", program)
    lines = run(program).stdout.splitlines()
    return {name: rest for name, *rest in (line.split() for line in lines)}


def test_a_wakeup_is_asked_for_once(calls: dict[str, list[str]]) -> None:
    """In zero-copy mode a call only raises an interrupt: what is unsent then is on its way."""
    assert calls["wakes"][:4] == ["1", "3", "0", "-"]


def test_a_driver_on_its_way_is_not_told_again(calls: dict[str, list[str]]) -> None:
    """It takes what is behind the frames that it comes for; if it came a moment too early it is told. To sleep tells it without a
    call of ours, and what it has not taken then it is told of again."""
    told, more, came_early, more_again, asleep, awake = map(int, calls["rounds"])
    assert (told, more) == (1, 1)
    assert (came_early, more_again) == (2, 2)
    assert (asleep, awake) == (2, 3)


def test_a_driver_that_forgot_is_told_again(calls: dict[str, list[str]]) -> None:
    """As when its link was reset: nobody sleeps with `--busy-poll`."""
    assert calls["forgets"] == ["1", "2"]


def test_a_driver_that_falls_behind_is_told_each_time(calls: dict[str, list[str]]) -> None:
    """Frames that are in flight for long are copied for whoever else wants them: over virtio-net 1 MB took half as much again."""
    assert calls["behind"] == ["1", "2", "3"]


def test_what_is_copied_is_sent_to_its_end(calls: dict[str, list[str]]) -> None:
    """EAGAIN says that there is more to send: 32 frames a call."""
    assert calls["copies"][:4] == ["4", "0", "0", "-"]


def test_a_queue_that_stands_still_is_left_alone(calls: dict[str, list[str]]) -> None:
    """The worker sleeps for a moment, until there is room where the ring is full: POLLOUT says at half of it."""
    assert calls["stopped"][:4] == ["1", "3", "0", "-"]
    assert calls["busy"][:4] == ["1", "3", "0", "-"]
    assert calls["stopped-full"][:4] == ["1", "1500", "0", "POLLOUT"]


def test_an_interface_that_is_down_or_gone_is_waited_for(calls: dict[str, list[str]]) -> None:
    """Frames stay in the ring, and nothing spins."""
    assert calls["down"][:4] == ["1", "3", "0", "-"]
    assert calls["gone"][:4] == ["1", "3", "0", "-"]


def test_what_else_goes_wrong_is_told(calls: dict[str, list[str]]) -> None:
    assert calls["broken"][:4] == ["1", "3", str(-errno.EIO), "-"]


def test_who_sleeps_looks_soon_for_what_is_not_sent(calls: dict[str, list[str]]) -> None:
    """Or where the ring fills up. What the NIC has is only taken back, which any other waking does as well; most drivers say nothing
    when a frame has left."""
    assert calls["wakes"][4] == calls["stopped"][4] == "1"
    assert calls["takes-many"][4] == "1"
    assert calls["takes"][4] == "100"
    assert calls["down"][4] == calls["gone"][4] == "100"
    assert calls["copies"][4] == "-1"


def test_a_driver_without_buffers_is_woken_once_it_has_some(calls: dict[str, list[str]]) -> None:
    """In zero-copy mode it stops receiving when it has none, until it is woken: sleeping does that, rounds that find nothing must
    do it where nobody sleeps."""
    assert calls["hungry"][:2] == ["0", "1"]
    assert calls["awake"][:2] == ["0", "0"]
    assert calls["receives"][:2] == ["1", "0"]


def test_a_buffer_is_given_back_from_its_start(calls: dict[str, list[str]]) -> None:
    """A frame lies somewhere within."""
    assert calls["receives"][2] == str(3 * 4096)


def test_buffers_stand_ready_when_the_queue_is_bound(calls: dict[str, list[str]]) -> None:
    """From then on all that the queue receives goes into them, also what is the kernel's, and rounds begin later. Pages without
    copies, two chunks each; where that can't be, single chunks. A fifth of 2,048 stays."""
    assert calls["binds-4096"] == ["819", "1"]
    assert calls["binds-2048"] == ["1639", "1"]
    assert calls["opens"] == [str(-errno.EOPNOTSUPP)]
