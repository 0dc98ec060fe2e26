"""Tests disturb nobody: what they send ends in a network that they made, and nothing runs beside one that measures."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading

import pytest

from tests.net import needs, needs_root, run, until
from tests.turns import FOLDER, Turns


@needs_root
@needs("ip")
def test_the_tests_have_a_network_of_their_own() -> None:
    """With a loopback and no way out; what is made in it is not the machine's."""
    assert [link["ifname"] for link in json.loads(run("ip", "-j", "link", "show", "up").stdout)] == ["lo"]
    assert sorted(os.listdir("/sys/class/net")) == sorted(name for _, name in socket.if_nameindex())
    assert run("ip", "route", "show", "table", "main").stdout == ""


def is_free(turns: Turns, name: str, how: int) -> bool:
    file = getattr(turns, name)
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def test_who_measures_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    workers = [Turns() for _ in range(3)]
    try:
        first, second, third = workers
        with first.turn(alone=False), second.turn(alone=False):
            assert not is_free(third, "room", fcntl.LOCK_EX)
        with first.turn(alone=True):
            assert not is_free(second, "room", fcntl.LOCK_SH)
        measured = []

        def measure() -> None:
            with second.turn(alone=True):
                measured.append(1)

        waits = threading.Thread(target=measure)
        with first.turn(alone=False):
            waits.start()
            assert until(lambda: not is_free(third, "gate", fcntl.LOCK_EX))  # so that nobody comes before it
            assert measured == []
        waits.join()
        assert measured == [1]
    finally:
        for worker in reversed(workers):
            worker.end()
