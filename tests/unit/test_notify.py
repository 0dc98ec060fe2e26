"""What a service manager is told. The witness is a socket as systemd has it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from ssrun.notify import Watchdog, notify, watchdog_s


def manager(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind("\0" + address[1:] if address.startswith("@") else address)
    return sock


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_hears_what_it_is_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@sandstorm-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with manager(address) as sock:
        notify("READY=1")
        notify("STOPPING=1")
        assert [sock.recv(100), sock.recv(100)] == [b"READY=1", b"STOPPING=1"]


@pytest.mark.parametrize("address", [None, "", "nothing", "/nowhere/at/all", "/" + "x" * 200, "@"])
def test_without_one_nothing_happens(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_how_often_it_wants_to_hear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_s() is None
    for usec, expected in (("30000000", 30.0), ("0", None), ("-1", None), ("often", None)):
        monkeypatch.setenv("WATCHDOG_USEC", usec)
        assert watchdog_s() == expected
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert watchdog_s() is None  # it is another's
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_s() == 1.0


def test_it_hears_nothing_while_a_worker_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    heard = []
    with manager(address) as sock:
        watchdog = Watchdog()
        for rounds in ([0, 0], [5, 1], [6, 1], [7, 1], [8, 2]):
            watchdog.look(lambda rounds=rounds: rounds)
            try:
                heard.append(sock.recv(100) == b"WATCHDOG=1")
            except BlockingIOError:
                heard.append(False)
    assert heard == [True, True, False, False, True]


def test_nobody_is_woken_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    Watchdog().look(lambda: pytest.fail("workers were looked at"))
