"""Another build of ssrun goes on in the place of the one that serves, and downloads with it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_reload import Load, download, processes, server_pid
from tests.e2e.test_reload import images as images  # noqa: PLC0414, a fixture
from tests.host import build
from tests.net import BACKENDS, Running, needs, serving, until

ROOT = Path(__file__).resolve().parents[2]
UPGRADES = int(os.environ.get("SANDSTORM_UPGRADES", "3"))
BIG = bytes(range(251)) * 100_000
pytestmark = needs("curl", "wrk")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "big").write_bytes(BIG)
    (folder / "small").write_bytes(b"small")
    return build(folder, tmp_path_factory.mktemp("image") / "site.img")


def upgrade(running: Running, status: int = 0) -> dict[str, Any]:
    done = running.server.run(sys.executable, "-m", "ssrun.cli", "upgrade", "--json", check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return dict(json.loads(done.stdout)) if status == 0 else {"error": done.stderr}


def fetch(running: Running) -> str:
    return running.client.run("curl", "-sS", "-m", "10", f"http://{running.hosts[0]}/small").stdout


def event(running: Running) -> dict[str, Any]:
    assert running.process.stdout is not None
    return dict(json.loads(running.process.stdout.readline()))


class Installed:
    """Where ssrun is, of which there are several builds."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.use(ROOT / "runtime")

    def use(self, build: Path) -> None:
        """Puts one there, in a moment."""
        new = self.place.with_suffix(".new")
        new.symlink_to(build)
        new.rename(self.place)


@pytest.fixture(scope="module")
def other_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program with everything elsewhere in a connection's memory."""
    folder = tmp_path_factory.mktemp("other") / "runtime"
    shutil.copytree(ROOT / "runtime", folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    header = folder / "csrc/libtcpip/tcb.h"
    text = header.read_text()
    moved = "    uint64_t snd_una, snd_nxt; /* oldest"
    assert text.count(moved) == 1
    header.write_text(text.replace(moved, "    uint64_t room[5];\n" + moved))
    # Optimized less, as that takes half a minute.
    source = folder / "ffi_build.py"
    source.write_text(source.read_text().replace('"-O3"', '"-O1"').replace('"-flto"', '"-O1"'))
    program = "import runpy; print(runpy.run_path('runtime/ffi_build.py')['ffi'].compile(tmpdir='.'))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder.parent, check=True, capture_output=True, text=True)
    core = Path(done.stdout.splitlines()[-1])
    core.rename(folder / "ssimage" / core.name)
    return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    made = Installed(tmp_path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(made.place))
    return made


def core_of(pid: int) -> str:
    """Which build's core a process has."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "_sandstorm" in line and line.endswith(".so"))


@pytest.mark.slow
@pytest.mark.timeout(300 + 30 * UPGRADES)
@pytest.mark.parametrize("way", BACKENDS)
def test_downloads_go_on_in_another_build(
    way: str, image: Path, other_build: Path, installed: Installed, tmp_path: Path
) -> None:
    """To and fro, in the middle of each."""
    with serving(image, way) as running:
        pid = running.process.pid
        for number in range(UPGRADES):
            slow = [download(running, tmp_path / f"big{each}") for each in range(3)]
            build = other_build if number % 2 == 0 else ROOT / "runtime"
            installed.use(build)
            answer = upgrade(running)
            assert (answer["pid"], answer["upgrades"]) == (pid, number + 1)
            # In a chroot what is before that is another's.
            assert f"{build}/ssimage/" in core_of(pid)
            assert f"{build}/ssimage/" in core_of(server_pid(running))
            assert fetch(running) == "small"
            for each, process in enumerate(slow):
                _, error = process.communicate(timeout=100)
                assert (process.returncode, error) == (0, "")
                assert (tmp_path / f"big{each}").read_bytes() == BIG
        assert [event(running)["event"] for _ in range(2 * UPGRADES)] == ["upgrading", "serving"] * UPGRADES
        assert running.stop() == 0
        assert running.stopped["counters"]["tcp_resumed"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("way", BACKENDS)
def test_under_load(way: str, images: list[Path]) -> None:
    """Connections come and go, and none of them fails; of the next image no answer is lost either."""
    with serving(images[0], way) as running:
        load = Load(running, 4)
        for number in range(UPGRADES):
            assert upgrade(running)["upgrades"] == number + 1
            words = ("-m", "ssrun.cli", "reload", str(images[(number + 1) % 2]))
            running.server.run(sys.executable, *words)
        seen = load.end()
        assert seen["wrong"] == []
        assert set(seen["versions"]) == {"0", "1"}
        assert running.stop() == 0


@pytest.mark.parametrize("way", BACKENDS)
def test_what_it_was_told_goes_on_too(way: str, images: list[Path], tmp_path: Path) -> None:
    """The image that is served now, that no more connections are wanted, and a server that dies afterwards."""
    with serving(images[0], way) as running:
        running.server.run(sys.executable, "-m", "ssrun.cli", "reload", str(images[1]))
        slow = download(running, tmp_path / "big")
        running.server.run(sys.executable, "-m", "ssrun.cli", "drain")
        upgrade(running)
        (said,) = map(
            json.loads, running.server.run(sys.executable, "-m", "ssrun.cli", "list", "--json").stdout.splitlines()
        )
        assert (said["state"], said["image"]["path"]) == ("draining", str(images[1]))
        before = server_pid(running)
        os.kill(before, signal.SIGKILL)
        assert until(lambda: server_pid(running) not in (before, running.process.pid))
        assert slow.wait(100) == 0
        assert (tmp_path / "big").read_bytes() == bytes([1]) * 30_000_000
        assert running.stop() == 0


def test_its_log_and_its_metrics_go_on(image: Path, tmp_path: Path) -> None:
    """In the same file and at the same address; counters begin anew, and what was under way is logged as far as it came."""
    log, where = tmp_path / "log", "127.0.0.1:9100"
    with serving(image, "tap", "--access-log", str(log), "--metrics", where) as running:
        assert fetch(running) == "small"
        slow = download(running, tmp_path / "big")
        upgrade(running)
        assert fetch(running) == "small"
        found = running.server.run("curl", "-sS", f"http://{where}/metrics").stdout
        assert "sandstorm_tcp_resumed_total 1.0\n" in found
        assert running.server.run("curl", "-sS", f"http://{where}/readyz").stdout == "ok\n"
        assert slow.wait(100) == 0
        assert (tmp_path / "big").read_bytes() == BIG
        assert running.stop() == 0
    lines = [line.split('"')[1] for line in log.read_text().splitlines()]
    assert lines == ["GET /small HTTP/1.1", "GET /big HTTP/1.1", "GET /small HTTP/1.1"]


def left_of(way: str, running: Running) -> list[str]:
    """What would stay of it: programs and addresses."""
    command = ["ip", "-d", "link", "show"] if way == "tap" else ["ip", "-d", "link", "show", "srv0"]
    text = running.server.run(*command).stdout
    return [word for word in ("sand0", "prog/xdp") if word in text]


@pytest.mark.parametrize("way", BACKENDS)
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_it(way: str, end: signal.Signals, image: Path) -> None:
    with serving(image, way) as running:
        upgrade(running)
        upgrade(running)
        assert fetch(running) == "small"
        assert len(processes(running.process.pid)) == 2
        running.process.send_signal(end)
        running.process.wait(30)
        assert until(lambda: left_of(way, running) == [])
        if way != "tap":
            refused = running.client.run("curl", "-sS", "-m", "10", f"http://{running.hosts[0]}/", check=False)
            assert refused.returncode == 7  # by the kernel


@contextlib.contextmanager
def wrong_build(installed: Installed, tmp_path: Path, module: str, text: str) -> Iterator[None]:
    """One of which a module is another."""
    folder = tmp_path / "wrong"
    shutil.copytree(ROOT / "runtime", folder, ignore=shutil.ignore_patterns("csrc", "__pycache__"))
    (folder / module).write_text(text)
    installed.use(folder)
    yield
    installed.use(ROOT / "runtime")


WRONG = {
    "does not start": (
        "ssrun/cli.py",
        "raise SystemExit('ssrun: it is broken')\n",
        "could not go on: ssrun: it is broken",
    ),
    "is another program": ("ssrun/cli.py", "print('hello')\n", "no ssrun that could go on"),
    "has other records": (
        "ssrun/cli.py",
        'print(\'{"version": "9.9", "records": 999}\')\n',
        "can't go on in 9.9, which keeps them in another way; drain and start again",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_one_that_could_not_go_on_is_refused(kind: str, image: Path, installed: Installed, tmp_path: Path) -> None:
    module, text, why = WRONG[kind]
    with serving(image, "tap") as running:
        slow = download(running, tmp_path / "big")
        with wrong_build(installed, tmp_path, module, text):
            monkey = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
            command = ["ip", "netns", "exec", running.server.name, sys.executable, "-m", "ssrun.cli", "upgrade"]
            done = subprocess.run(command, env=monkey, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert why in done.stderr
        assert fetch(running) == "small"
        assert slow.wait(100) == 0
        assert (tmp_path / "big").read_bytes() == BIG
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("way", "options", "why"),
    [
        ("sockets", [], "only what serves over TAP, AF_PACKET or AF_XDP"),
        ("tap", ["--pcapng", "{folder}/x.pcapng"], "it writes a capture"),
        ("tap", ["--profile", "{folder}/x.json"], "a profile is of one image"),
    ],
)
def test_where_that_is_not_possible(way: str, options: list[str], why: str, image: Path, tmp_path: Path) -> None:
    with serving(image, way, *(word.format(folder=tmp_path) for word in options)) as running:
        assert why in upgrade(running, 1)["error"]
        assert fetch(running) == "small"
        assert running.stop() == 0
