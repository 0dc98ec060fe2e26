"""The process that serves has no rights beside that; and what becomes of it and of its supervisor when either dies."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.host import build
from tests.net import (
    BACKENDS,
    DEVICES,
    Running,
    namespace,
    needs,
    processes,
    serving,
    shared_memory,
    ssrun_command,
    until,
)

pytestmark = needs("curl")
NOBODY = 65534
# Of descriptors that the server may have: standard error, its link to the supervisor, what wakes workers, and ports. In a chroot the
# path of a device that another namespace has opened begins outside.
DESCRIPTORS = {"tap": ("/dev/net/tun", 1), "packet": ("socket:", 2), "afxdp": ("socket:", 2)}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process")
    (folder / "index.html").write_text("small")
    return build(folder, tmp_path_factory.mktemp("image") / "site.img")


def server_pid(running: Running) -> int:
    """Of the supervisor's one child."""
    _, server = processes(running.process.pid)
    return server


def status(pid: int) -> dict[str, str]:
    """Of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def fetch(running: Running) -> str:
    return running.client.run("curl", "-sS", "-m", "5", f"http://{running.hosts[0]}/").stdout


def is_gone(pid: int) -> bool:
    try:
        return status(pid)["State"].startswith("Z")
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_server_has_no_rights(image: Path, backend: str) -> None:
    with serving(image, backend) as running:
        assert fetch(running) == "small"
        pid = server_pid(running)
        of = status(pid)
        assert {int(word) for word in (of["Uid"] + " " + of["Gid"]).split()} == {NOBODY}
        assert of["Groups"] == ""
        for which in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
            assert int(of[which], 16) == 0
        assert (of["NoNewPrivs"], of["Seccomp"]) == ("1", "2")
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0  # not its user's: it is not dumpable, proc(5)
        seccomp = {status_["Seccomp"] for status_ in map(status, map(int, os.listdir(f"/proc/{pid}/task")))}
        assert seccomp == {"2"}  # of all threads
        found = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        assert len(found) == 4
        assert sum(name.startswith("anon_inode:[eventfd]") for name in found) == 1
        of_port, count = DESCRIPTORS[backend]
        assert sum(of_port in name for name in found) == count
        assert running.event["server"] == {"pid": pid, "user": "nobody", "confined": ["files", "calls"]}


def test_the_server_is_whose_it_is_told_to_be(image: Path) -> None:
    with serving(image, "tap", "--user", "daemon") as running:
        assert status(server_pid(running))["Uid"].split()[0] != str(NOBODY)
        assert running.event["server"]["user"] == "daemon"


def test_a_user_that_is_none_is_told(image: Path) -> None:
    with namespace("user") as space:
        done = space.run(*ssrun_command(image, "--iface", "tap:sand0", "--user", "nosuchuser"), check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "ssrun: --user nosuchuser: there is no such user; make one (`useradd --system nosuchuser`), or name another\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_the_supervisors(image: Path, number: signal.Signals) -> None:
    """A service manager tells all processes to end, and a terminal all in front: it is the supervisor who says when."""
    with serving(image, "tap") as running:
        os.kill(server_pid(running), number)
        assert fetch(running) == "small"
        assert running.stop() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_supervisor_dies_and_nothing_is_left(image: Path, backend: str) -> None:
    with serving(image, backend) as running:
        pid = server_pid(running)
        space = running.server
        running.process.kill()
        running.process.wait()
        assert until(lambda: is_gone(pid))
        if backend == "tap":
            assert DEVICES["tap"] not in space.ip("link", "show")
        else:
            assert re.search("xdp|tcx", space.ip("link", "show", "srv0")) is None


@pytest.mark.parametrize("rubbish", [b"\xff", b"\x41", b""])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server_that_is_a_strangers_leads_nobody_astray(
    image: Path, backend: str, rubbish: bytes, tmp_path: Path
) -> None:
    """Whatever it writes to the memory that it shares with the supervisor: that answers operators, and ends with a word."""
    with serving(image, backend, "--pcapng", str(tmp_path / "x.pcapng"), "--name", "astray") as running:
        assert fetch(running) == "small"
        pid = server_pid(running)
        os.kill(pid, signal.SIGSTOP)
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
            for start, size_bytes in shared_memory(pid):
                memory.seek(start)
                memory.write(rubbish * size_bytes or os.urandom(size_bytes))
        for command in ("counters", "list"):
            assert json.loads(running.server.run(sys.executable, "-m", "ssrun.cli", command, "--json").stdout)
        os.kill(pid, signal.SIGCONT)
        running.tell(signal.SIGUSR1)
        running.process.terminate()
        _, errors = running.process.communicate(timeout=30)
        assert "Traceback" not in errors
        assert running.process.returncode in (0, 1), errors
        assert is_gone(pid)
