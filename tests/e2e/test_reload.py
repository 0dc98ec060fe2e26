"""What is served is swapped for something else, over and over, while clients are answered: each answer is wholly one version."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ssrun import control
from ssrun.errors import SsrunError

from tests.host import build
from tests.net import BACKENDS, WAYS, Running, needs, processes, serving, until

pytestmark = needs("curl", "wrk")
SWAPS = int(os.environ.get("SANDSTORM_SWAPS", "50"))
VERSIONS = 2
FILES = 8
BIG = 30_000_000
RATE = 4_000_000  # bytes a second that a slow client takes
ASKER = Path(__file__).with_name("versions.py")


def contents(version: int, number: int) -> bytes:
    """Of a small file: what it is of is said in each line."""
    return b"".join(b"version %d file %d line %d\n" % (version, number, line) for line in range(40 + 60 * number))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = []
    for version in range(VERSIONS):
        folder = tmp_path_factory.mktemp(f"version{version}")
        for number in range(FILES):
            (folder / f"{number}.txt").write_bytes(contents(version, number))
        for number in range(version):  # the same path has other frames
            (folder / f"0{number}.txt").write_bytes(contents(version, 1))
        (folder / "big").write_bytes(bytes([version]) * BIG)
        found.append(build(folder, tmp_path_factory.mktemp("image") / f"v{version}.img"))
    return found


def reload(running: Running, *words: Any, status: int = 0) -> dict[str, Any]:
    """The command, and its answer."""
    command = [sys.executable, "-m", "ssrun.cli", "reload", "--json", *map(str, words)]
    done = running.server.run(*command, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return dict(json.loads(done.stdout)) if status == 0 else {"error": done.stderr}


def ask(image: Path | None = None) -> dict[str, Any]:
    """The same without the time that a command takes to begin. There is but one that could be asked."""
    asked = {"command": "reload", **({"image": str(image)} if image is not None else {})}
    return control.ask(control.find(None), asked, timeout_s=60)


def swap_to(image: Path) -> dict[str, Any]:
    """Over and over faster than old ones go, on a busy machine: then it is tried again, as the answer says."""
    while True:
        try:
            return ask(image)
        except SsrunError as error:
            assert "16 images are still being sent" in str(error)  # noqa: PT017, as it is no failure
            time.sleep(0.1)


def server_pid(running: Running) -> int:
    """Of the process that has the workers."""
    return processes(running.process.pid)[-1]


def mappings(pid: int) -> int:
    return len(Path(f"/proc/{pid}/maps").read_text().splitlines())


def memory_kb(pid: int, kind: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(f"{kind}:")[2].split()[0])


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def download(running: Running, target: Path, rate: int = RATE) -> subprocess.Popen[str]:
    """curl that takes its time; some has come."""
    words = ("-sS", "--limit-rate", str(rate), "-m", "100", "-o", str(target), f"http://{running.hosts[0]}/big")
    process = running.client.popen("curl", *words, stderr=subprocess.PIPE)
    assert until(lambda: target.exists() and target.stat().st_size > 0)
    return process


class Load:
    """Clients that ask for all files over and over, and look at each answer; and wrk, which is fast and counts what fails."""

    def __init__(self, running: Running, clients: int) -> None:
        words = [sys.executable, ASKER, running.hosts[0], str(FILES), str(clients)]
        self.process = running.client.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "begun\n"
        words = [
            "wrk",
            "-t",
            "1",
            "-c",
            str(clients),
            "-d",
            "1h",
            "--timeout",
            "30s",
            f"http://{running.hosts[0]}:80/3.txt",
        ]
        self.wrk = running.client.popen(*words, stdout=subprocess.PIPE)

    def end(self) -> dict[str, Any]:
        """What they have seen."""
        output, _ = self.process.communicate("", timeout=60)
        assert self.process.returncode == 0
        self.wrk.send_signal(signal.SIGINT)
        said, _ = self.wrk.communicate(timeout=60)
        requests = re.search(r"(\d+) requests in", said)
        assert requests, said
        assert int(requests[1]) > 0
        assert "Non-2xx" not in said, said
        assert "Socket errors" not in said, said
        return dict(json.loads(output)) | {"wrk": int(requests[1])}


@pytest.fixture(params=WAYS)
def site(request: pytest.FixtureRequest, images: list[Path]) -> Iterator[Running]:
    with serving(images[0], request.param) as running:
        # Its events would fill the pipe.
        assert running.process.stdout is not None
        thread = threading.Thread(target=running.process.stdout.read)
        thread.start()
        yield running
        running.process.terminate()  # and whoever reads has read all
        thread.join()
        running.process.wait()


@pytest.mark.slow
@pytest.mark.timeout(300 + SWAPS)
def test_under_load_each_answer_is_of_one_version(site: Running, images: list[Path], tmp_path: Path) -> None:
    """None fails, what took longer than ten swaps ends byte for byte, and nothing of all that is left."""
    for version in (1, 0, 1, 0):  # all that is made once is there
        ask(images[version])
    assert until(lambda: ask()["older_images"] == 0)
    pid = server_pid(site)
    mapped, before, rss_kb = mappings(pid), descriptors(pid), memory_kb(pid, "VmRSS")
    load = Load(site, 4)
    slow = download(site, tmp_path / "big")
    during = 0
    for number in range(SWAPS):
        answer = swap_to(images[(number + 1) % VERSIONS])
        assert answer["changed"]
        during += slow.poll() is None
    _, error = slow.communicate(timeout=100)
    assert (slow.returncode, error) == (0, "")
    assert (tmp_path / "big").read_bytes() == bytes(BIG)
    assert during >= 10
    seen = load.end()
    assert seen["wrong"] == []
    assert set(seen["versions"]) == {"0", "1"}
    assert until(lambda: ask()["older_images"] == 0, 120)  # who was cut off is waited for, as anybody who is silent
    assert mappings(pid) < mapped + 16  # of Python's own threads, where workers are some
    assert until(lambda: descriptors(pid) <= before)
    assert memory_kb(pid, "VmRSS") < rss_kb + 3 * BIG // 1000  # as much as is mapped of two images, and the arena
    print(
        f"{SWAPS} swaps, {sum(seen['versions'].values()) + seen['wrk']} answers, {memory_kb(pid, 'VmRSS') - rss_kb} kB more"
    )


def fetch(running: Running, path: str = "0.txt") -> bytes:
    return running.client.run("curl", "-sS", "-m", "10", f"http://{running.hosts[0]}/{path}").stdout.encode()


@pytest.mark.parametrize("way", WAYS)
def test_the_file_is_read_again_at_sighup(way: str, images: list[Path], tmp_path: Path) -> None:
    image, new = tmp_path / "site.img", tmp_path / "new.img"
    image.write_bytes(images[0].read_bytes())
    with serving(image, way) as running:
        assert fetch(running) == contents(0, 0)
        slow = download(running, tmp_path / "big")
        new.write_bytes(images[1].read_bytes())
        new.rename(image)
        running.process.send_signal(signal.SIGHUP)
        assert running.process.stdout is not None
        event = json.loads(running.process.stdout.readline())
        assert (event["event"], event["changed"], event["connections"], event["older_images"]) == (
            "reloaded",
            True,
            1,
            1,
        )
        assert fetch(running) == contents(1, 0)
        assert slow.wait(100) == 0
        assert (tmp_path / "big").read_bytes() == bytes(BIG)
        running.process.send_signal(signal.SIGHUP)
        event = json.loads(running.process.stdout.readline())
        assert (event["event"], event["changed"]) == ("reloaded", False)
        assert running.stop() == 0


@pytest.mark.parametrize("way", WAYS)
def test_who_needs_the_old_one_for_too_long_is_reset(way: str, images: list[Path], tmp_path: Path) -> None:
    with serving(images[0], way, "--swap-timeout", "0.5") as running:
        slow = download(running, tmp_path / "big")
        assert reload(running, images[1])["connections"] == 1
        _, error = slow.communicate(timeout=60)
        assert slow.returncode in (18, 56), error
        assert until(lambda: ask()["older_images"] == 0)
        assert fetch(running) == contents(1, 0)
        assert running.stop() == 0
        assert running.stopped["counters"]["tcp_timeout_swap"] == 1


@pytest.mark.parametrize("way", BACKENDS)
def test_the_server_dies_after_it(way: str, images: list[Path], tmp_path: Path) -> None:
    """The next one serves what was served last, and goes on with what had been begun of that; and can be given another."""
    with serving(images[0], way) as running:
        slow = []
        for number, version in enumerate((1, 0, 1)):
            ask(images[version])
            slow.append(download(running, tmp_path / f"big{number}"))
            os.kill(server_pid(running), signal.SIGKILL)
            assert fetch(running) == contents(version, 0)
            assert ask()["image"]["path"] == str(images[version])
        assert slow.pop().wait(100) == 0
        assert (tmp_path / "big2").read_bytes() == bytes([1]) * BIG
        for process in slow:  # of images that the next one does not know: reset, or done
            process.wait(100)
            assert process.returncode in (0, 56)
        assert until(lambda: ask()["older_images"] == 0)
        assert running.stop() == 0
        assert running.stopped["counters"]["tcp_resumed"] > 0


@pytest.mark.parametrize("way", BACKENDS)
def test_it_is_asked_as_the_server_dies(way: str, images: list[Path]) -> None:
    """The next one begins with what was served, and is given what is asked for right away: it waits until that is taken up."""
    with serving(images[0], way) as running:
        for number in range(1, 7):
            os.kill(server_pid(running), signal.SIGKILL)
            assert ask(images[number % VERSIONS])["changed"]
            assert fetch(running) == contents(number % VERSIONS, 0)
        assert running.stop() == 0


@pytest.mark.parametrize("way", ["tap", "sockets"])
def test_while_it_drains(way: str, images: list[Path], tmp_path: Path) -> None:
    """As a load balancer has it looked elsewhere: what is begun ends, and it can be given another image meanwhile."""
    with serving(images[0], way) as running:
        slow = download(running, tmp_path / "big")
        running.server.run(sys.executable, "-m", "ssrun.cli", "drain")
        assert reload(running, images[1])["connections"] == 1
        assert slow.wait(100) == 0
        assert (tmp_path / "big").read_bytes() == bytes(BIG)
        assert until(lambda: ask()["older_images"] == 0)


def test_once_it_stops_it_is_refused(images: list[Path], tmp_path: Path) -> None:
    with serving(images[0], "tap", "--drain-timeout", "60") as running:
        slow = download(running, tmp_path / "big")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.stdout is not None
        assert json.loads(running.process.stdout.readline())["event"] == "draining"
        assert "it has been told to stop" in reload(running, images[1], status=1)["error"]
        assert slow.wait(100) == 0
        assert running.stop() == 0


def test_no_more_than_so_many_at_once(images: list[Path], tmp_path: Path) -> None:
    """Each is kept by a client; one more is refused, and what is served is served on."""
    with serving(images[0], "tap") as running:
        slow = []
        for number in range(16):
            slow.append(download(running, tmp_path / f"big{number}", 50_000))
            if number < 15:
                ask(images[(number + 1) % VERSIONS])
        assert "16 images are still being sent" in reload(running, images[0], status=1)["error"]
        assert fetch(running) == contents(1, 0)
        slow.pop(3).kill()
        assert until(lambda: ask()["older_images"] == 14)
        assert ask(images[0])["older_images"] == 15
        assert fetch(running) == contents(0, 0)
        for process in slow:
            process.kill()
            process.wait()


def test_the_server_has_no_more_rights_after_it(images: list[Path]) -> None:
    with serving(images[0], "tap") as running:
        pid = server_pid(running)
        before = descriptors(pid)
        reload(running, images[1])
        assert descriptors(pid) == before == 4
        assert server_pid(running) == pid
        assert "w" not in {
            line.split()[1][1]
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
            if "sandstorm-tables" in line
        }


def test_the_kernels_own_server_beside_it_notices_nothing(images: list[Path]) -> None:
    """The same interface and address."""
    with serving(images[0], "packet") as running:
        script = "import socketserver as s; s.TCPServer(('', 22), s.StreamRequestHandler).serve_forever()"
        process = running.server.popen(sys.executable, "-c", script)
        try:
            connect = ["python3", "-c", f"import socket; socket.create_connection(('{running.hosts[0]}', 22), 10)"]
            assert until(lambda: running.client.run(*connect, check=False).returncode == 0)
            for number in range(4):
                reload(running, images[(number + 1) % VERSIONS])
                assert running.client.run(*connect, check=False).returncode == 0
        finally:
            process.kill()
            process.wait()
