"""The in-memory benchmark does what its figures say: connections that come and go, and an order that is none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.bench.memory import build_image, build_program, run

pytestmark = pytest.mark.long

REQUESTS, CONNECTIONS, FILES, FRAMES = 1_000, 50, 3, 16


Memory = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    """The program on an image, to be given phases and options."""
    folder = tmp_path_factory.mktemp("bench")
    return partial(run, build_program(folder / "memory", "-O2", "-UNDEBUG"), build_image(folder, FILES))


@pytest.mark.parametrize("gather", [1, 44])
def test_a_new_connection_for_each_request(memory: Memory, gather: int) -> None:
    phases = [f"{REQUESTS}:0-2"] * 2
    one, two = memory(*phases, connections=CONNECTIONS, close=1, gather=gather)
    for number, phase in enumerate((one, two), 1):
        assert phase["requests"] == REQUESTS
        assert phase["mismatches"] == 0
        assert phase["counters"]["tcp_opened"] == phase["counters"]["tcp_time_wait"] == number * REQUESTS
        assert phase["counters"]["tcp_retransmit_timeout"] == 0
    assert one["bytes"] == two["bytes"] > REQUESTS * 22_000


def test_at_random_all_is_asked_for(memory: Memory) -> None:
    phases = [f"{REQUESTS}:0-2"] * 2
    in_turn, _ = memory(*phases, connections=CONNECTIONS)
    _, at_random = memory(*phases, connections=CONNECTIONS, random=1)
    assert at_random["requests"] == REQUESTS
    assert at_random["mismatches"] == 0
    assert at_random["bytes"] == in_turn["bytes"]  # files of one size


@pytest.mark.parametrize("at_random", [0, 1])
def test_the_bound_sends_the_same_answers(memory: Memory, at_random: int) -> None:
    (served,) = memory(f"{REQUESTS}:0-2", connections=CONNECTIONS, random=at_random)
    (bound,) = memory(f"{REQUESTS}:0-2", connections=CONNECTIONS, random=at_random, bound=1)
    assert bound["bytes"] == served["bytes"]
    assert bound["segments"] == REQUESTS * FRAMES
