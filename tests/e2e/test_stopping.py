"""Told to stop, a server ends answers that it has begun, and says what becomes of the rest."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import build
from tests.net import BACKENDS, Running, namespace, needs, serving, ssrun, until

pytestmark = needs("curl")
BIG = 30_000_000
RATE = 10_000_000  # bytes a second that curl takes


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    (folder / "big").write_bytes(os.urandom(BIG))
    (folder / "small").write_text("small")
    return build(folder, tmp_path_factory.mktemp("image") / "site.img")


@pytest.fixture(params=[*BACKENDS, "listen"])
def run(request: pytest.FixtureRequest, image: Path) -> Iterator[Running]:
    """With a limit that is never reached, unless a test says otherwise."""
    options = ("--drain-timeout", str(getattr(request.function, "limit_s", 60)))
    if request.param == "listen":
        with (
            namespace("stop") as space,
            ssrun(image, space, space, "--listen", "127.0.0.1:80", *options) as running,
        ):
            yield running
        return
    with serving(image, request.param, *options) as running:
        yield running


def download(run: Running, target: Path) -> subprocess.Popen[str]:
    """curl that takes its time; some has come."""
    words = ("-sS", "--limit-rate", str(RATE), "-m", "60", "-o", str(target), f"http://{run.hosts[0]}/big")
    process = run.client.popen("curl", *words, stderr=subprocess.PIPE)
    assert until(lambda: target.exists() and target.stat().st_size > 0)
    return process


def drains(run: Running) -> dict[str, object]:
    """What it says when it has begun to."""
    assert run.process.stdout is not None
    event: dict[str, object] = json.loads(run.process.stdout.readline())
    assert event["event"] == "draining"
    return event


def test_answers_end(run: Running, image: Path, tmp_path: Path) -> None:
    process = download(run, tmp_path / "big")
    run.process.send_signal(signal.SIGTERM)
    assert drains(run) == {"event": "draining", "connections": 1, "limit_s": 60.0}
    again = run.client.run(
        "curl", "-sS", "--connect-timeout", "1", "-m", "1", f"http://{run.hosts[0]}/small", check=False
    )
    assert again.returncode in (7, 28)  # refused, or nobody answers
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert (tmp_path / "big").stat().st_size == BIG
    assert run.stop() == 0
    assert run.stopped["counters"]["http_requests"] == 1
    assert "tcp_tx_rst" not in run.stopped["counters"]


def test_a_second_signal_ends_them(run: Running, tmp_path: Path) -> None:
    process = download(run, tmp_path / "big")
    run.process.send_signal(signal.SIGTERM)
    drains(run)
    assert run.stop() == 0
    _, error = process.communicate(timeout=60)
    assert process.returncode in (18, 56), error  # cut, or reset: it is not taken for whole
    assert run.stopped["counters"]["tcp_tx_rst"] == 1


def test_so_does_the_limit(run: Running, tmp_path: Path) -> None:
    process = download(run, tmp_path / "big")
    run.process.send_signal(signal.SIGTERM)
    drains(run)
    output, _ = run.process.communicate(timeout=30)
    _, error = process.communicate(timeout=60)
    assert run.process.returncode == 0
    assert json.loads(output.splitlines()[-1])["counters"]["tcp_tx_rst"] == 1
    assert process.returncode in (18, 56), error


test_so_does_the_limit.limit_s = 0.5  # type: ignore[attr-defined]


def test_idle_connections_hold_nothing_up(run: Running) -> None:
    """They are closed: their clients see the end, and no reset."""
    client = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], 80), 10);"
        "s.sendall(b'GET /small HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'); print(len(s.recv(9999)), flush=True); print(s.recv(9))"
    )
    host = run.hosts[0].rpartition(":")[0] if run.hosts[0].endswith(":80") else run.hosts[0]
    process = run.client.popen("python3", "-c", client, host, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 5
    assert run.stop() == 0
    output, _ = process.communicate(timeout=20)
    assert output == "b''\n"
    assert "tcp_tx_rst" not in run.stopped["counters"]


@pytest.mark.parametrize("way", ["listen", "tap"])
def test_a_service_manager_is_told(way: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is ready, that it lives, though it sleeps, and that it stops."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "5000000")
    where = ("--listen", "127.0.0.1:80") if way == "listen" else ("--iface", "tap:sand0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, namespace("notify") as space:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(30)
        with ssrun(image, space, space, *where) as running:
            assert sock.recv(100) == b"READY=1"
            assert [sock.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            assert running.stop() == 0
        told = sock.recv(100)
        while told == b"WATCHDOG=1":
            told = sock.recv(100)
        assert told == b"STOPPING=1"


@needs("systemd-analyze")
def test_the_unit_is_one(tmp_path: Path) -> None:
    """systemd reads all lines of it, and finds little that a service need not have."""
    unit = Path(__file__).resolve().parents[2] / "runtime" / "systemd" / "ssrun@.service"
    copy = tmp_path / "ssrun@site.service"
    copy.write_text(unit.read_text().replace("/opt/sandstorm/bin/ssrun", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    words = ("systemd-analyze", "security", "--offline=yes", "--threshold=30", str(copy))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
