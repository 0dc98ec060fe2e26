"""The server process dies at any moment, and another one goes on with the connections that are open."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests import pcapng
from tests.host import build
from tests.net import BACKENDS, Running, needs, processes, serving, until

pytestmark = needs("curl")
BIG_BYTES = 32 << 20
KILLS = int(os.environ.get("SANDSTORM_KILLS", "3"))
KILLS_OF_ONE = 3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("restart")
    data = random.Random(3).randbytes(BIG_BYTES)
    (folder / "big.bin").write_bytes(data)
    (folder / "index.html").write_text("small")
    return build(folder, tmp_path_factory.mktemp("image") / "site.img"), data


def kill_server(running: Running) -> None:
    _, server = processes(running.process.pid)
    os.kill(server, signal.SIGKILL)
    until(lambda: len(pids := processes(running.process.pid)) == 2 and pids[1] != server)


def downloads_killed(image: Path, data: bytes, backend: str, folder: Path, kills: int) -> None:
    """One ssrun, and for each kill a download that it is in the middle of."""
    with serving(image, backend) as running:
        for number in range(kills):
            path = folder / f"{number}"
            command = ["curl", "-sS", "-N", "-m", "60", "--limit-rate", "32M", "-o", str(path)]
            download = running.client.popen(*command, f"http://{running.hosts[number % 2]}/big.bin")
            until(lambda path=path: path.exists() and path.stat().st_size > 0)  # type: ignore[misc]
            time.sleep(0.2 * random.random())
            kill_server(running)
            assert download.wait(timeout=60) == 0, number
            assert path.read_bytes() == data
            path.unlink()
        running.stop()
    assert running.stopped["counters"]["tcp_resumed"] >= kills
    assert "tcp_drop_resume" not in running.stopped["counters"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_downloads_go_on(site: tuple[Path, bytes], backend: str, tmp_path: Path) -> None:
    """Each has the right bytes; a client notices a pause. A few of an ssrun, as one that dies soon again is waited for."""
    image, data = site
    for first in range(0, KILLS, KILLS_OF_ONE):
        downloads_killed(image, data, backend, tmp_path, min(KILLS_OF_ONE, KILLS - first))


@pytest.mark.parametrize("backend", ["tap"])
def test_the_log_goes_on(site: tuple[Path, bytes], backend: str, tmp_path: Path) -> None:
    """What was under way is logged as far as it came, and what comes then from beginning to end."""
    image, _ = site
    log = tmp_path / "access.log"
    with serving(image, backend, "--access-log", str(log), "--access-log-format", "$status $request_uri") as running:
        for _ in range(3):
            for _ in range(5):
                assert running.client.run("curl", "-sS", "-m", "5", f"http://{running.hosts[0]}/").stdout == "small"
            kill_server(running)
        assert running.client.run("curl", "-sS", "-m", "5", f"http://{running.hosts[0]}/").stdout == "small"
        assert running.stop() == 0
    assert log.read_text().splitlines() == ["200 /"] * 16
    assert running.stopped["counters"]["http_requests"] == 16


def test_a_crash_loop_backs_off_and_says_so(site: tuple[Path, bytes]) -> None:
    image, _ = site
    with serving(image, "tap") as running:
        assert running.process.stdout is not None
        delays = []
        for _ in range(4):
            kill_server(running)
            event = json.loads(running.process.stdout.readline())
            assert (event["event"], event["how"]) == ("server-crashed", "was killed by SIGKILL")
            delays.append(event["again_in_s"])
        assert delays == [0.0, 0.1, 0.2, 0.4]
        assert running.client.run("curl", "-sS", "-m", "5", f"http://{running.hosts[0]}/").stdout == "small"


def test_a_stop_while_a_server_is_waited_for(site: tuple[Path, bytes]) -> None:
    image, _ = site
    with serving(image, "tap") as running:
        for _ in range(5):
            kill_server(running)
        _, server = processes(running.process.pid)
        os.kill(server, signal.SIGKILL)
        assert running.stop() == 0


def test_a_server_that_dies_while_answers_end(site: tuple[Path, bytes], tmp_path: Path) -> None:
    """Told to stop, and killed while it drains: the download ends, and so does ssrun."""
    image, data = site
    with serving(image, "tap", "--drain-timeout", "60") as running:
        path = tmp_path / "x"
        command = ["curl", "-sS", "-N", "-m", "60", "--limit-rate", "32M", "-o", str(path)]
        download = running.client.popen(*command, f"http://{running.hosts[0]}/big.bin")
        until(lambda: path.exists() and path.stat().st_size > 0)
        running.process.terminate()
        assert running.process.stdout is not None
        assert json.loads(running.process.stdout.readline())["event"] == "draining"
        kill_server(running)
        assert download.wait(timeout=60) == 0
        assert path.read_bytes() == data
        assert running.process.wait(timeout=60) == 0


def test_a_capture_goes_on(site: tuple[Path, bytes], tmp_path: Path) -> None:
    image, _ = site
    path = tmp_path / "x.pcapng"
    with serving(image, "tap", "--pcapng", str(path)) as running:
        for _ in range(3):
            assert running.client.run("curl", "-sS", "-m", "5", f"http://{running.hosts[0]}/").stdout == "small"
            kill_server(running)
        assert running.client.run("curl", "-sS", "-m", "5", f"http://{running.hosts[0]}/").stdout == "small"
        assert running.stop() == 0
    frames = pcapng.read(path).frames
    assert len(frames) == running.stopped["counters"]["capture_frames"]
    assert sum(b"GET / HTTP/1.1" in frame.data for frame in frames) == 4
