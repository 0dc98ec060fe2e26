"""Interfaces that go down, come back, vanish and change while ssrun serves on them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.host import build
from tests.net import (
    BACKENDS,
    CLIENT4,
    CLIENT6,
    DEVICES,
    SERVER4,
    SERVER6,
    Namespace,
    Running,
    needs,
    serving,
    ssrun,
    ssrun_command,
    until,
    veth_pair,
)

pytestmark = needs("curl", "setpriv")

OWN4 = "10.213.0.77"
OWN = ("--address", f"{OWN4}/24", "--address", "fd57:1::77/64")
MODES = pytest.mark.parametrize("own", [(), OWN], ids=["shared", "own"])
SHARED = pytest.mark.parametrize("backend", ["packet", "afxdp"])
TOLD_S = 20


class Events:
    """What a running ssrun says, line by line, without waiting for a line that does not come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.seen: list[dict[str, Any]] = []
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, stdout: Any) -> None:
        for line in stdout:
            self.lines.put(line)

    def wait(self, **fields: Any) -> dict[str, Any]:
        """The next event with these fields."""
        while True:
            event = json.loads(self.lines.get(timeout=TOLD_S))
            self.seen.append(event)
            if fields.items() <= event.items():
                return dict(event)

    def rest(self) -> list[dict[str, Any]]:
        """All that has been said so far."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.seen.append(json.loads(self.lines.get(block=False)))
        return self.seen


def ends(running: Running, number: int = signal.SIGTERM) -> int:
    """Events has its output."""
    running.process.send_signal(number)
    return running.process.wait(TOLD_S)


def fetched(running: Running, host: str = "") -> bool:
    get = ("curl", "-sS", "-m", "3", f"http://{host or running.hosts[0]}/")
    return "small" in running.client.run(*get, check=False).stdout


def mac_of(running: Running, backend: str) -> str:
    """What the client sends its frames to."""
    host = running.hosts[0]
    (entry,) = json.loads(running.client.ip("-j", "neigh", "show", host, "dev", DEVICES[backend]))
    return str(entry["lladdr"])


def side(running: Running, backend: str) -> tuple[Namespace, str]:
    """The link as ssrun has it."""
    return running.server, "sand0" if backend == "tap" else "srv0"


@MODES
@pytest.mark.parametrize("backend", BACKENDS)
def test_down_and_up_again(image: Path, backend: str, own: tuple[str, ...]) -> None:
    if backend == "tap" and own:
        pytest.skip("a TAP's addresses are always our own")
    with serving(image, backend, *own) as running:
        events, (space, link) = Events(running.process), side(running, backend)
        assert fetched(running)
        mac = mac_of(running, backend)
        for _ in range(2):
            space.ip("link", "set", link, "down")
            assert link in events.wait(event="interface", change="state", state="down")["text"]
            assert running.process.poll() is None
            assert not fetched(running)
            space.ip("link", "set", link, "up")
            events.wait(event="interface", change="state", state="up")
            assert until(lambda: fetched(running))
            assert mac_of(running, backend) == mac
        assert ends(running) == 0


@SHARED
def test_a_cable_that_is_pulled_in_the_middle_of_a_download(tmp_path: Path, large: Path, backend: str) -> None:
    with serving(large, backend) as running:
        events = Events(running.process)
        get = ("curl", "-sS", "--limit-rate", "10M", "-o", str(tmp_path / "large"), f"http://{SERVER4}/large")
        downloading = running.client.popen(*get)
        assert until((tmp_path / "large").exists)
        running.client.ip("link", "set", "cli0", "down")
        events.wait(event="interface", change="state", state="no-carrier")
        running.client.ip("link", "set", "cli0", "up")
        events.wait(event="interface", change="state", state="up")
        assert downloading.wait(60) == 0
        assert (tmp_path / "large").read_bytes() == LARGE
        assert ends(running) == 0


LARGE = bytes(range(256)) * 80_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    (folder / "large").write_bytes(LARGE)
    return build(folder, tmp_path_factory.mktemp("large-image") / "x.img")


@MODES
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interface_that_is_gone_ends_with_a_line(image: Path, backend: str, own: tuple[str, ...]) -> None:
    if backend == "tap" and own:
        pytest.skip("a TAP's addresses are always our own")
    with serving(image, backend, *own) as running:
        space, link = side(running, backend)
        space.ip("link", "del", link)
        output, error = running.process.communicate(timeout=TOLD_S)
    assert running.process.returncode == 1
    assert error.startswith(f"ssrun: {link}: the interface is gone; ")
    assert error.count("\n") == 1
    assert json.loads(output.splitlines()[-1])["event"] == "stopped"


def connect(server: Namespace, client: Namespace) -> None:
    """The veth pair again, as veth_pair makes it."""
    server.ip("link", "add", "srv0", "type", "veth", "peer", "name", "cli0", "netns", client.name)
    for space, device, v4, v6 in ((server, "srv0", SERVER4, SERVER6), (client, "cli0", CLIENT4, CLIENT6)):
        space.ip("link", "set", device, "up")
        space.ip("addr", "add", f"{v4}/24", "dev", device)
        space.ip("addr", "add", f"{v6}/64", "dev", device, "nodad")


def state(name: str) -> tuple[str, list[str]]:
    """What it answers to `ssrun list`: whether it serves, and where."""
    answers = [json.loads(line) for line in warm.run("ssrun.cli", "list", "--json").stdout.splitlines()]
    (answer,) = (answer for answer in answers if answer["name"] == name)
    return answer["state"], answer["urls"]


@MODES
@SHARED
def test_an_interface_is_waited_for(image: Path, backend: str, own: tuple[str, ...]) -> None:
    """At the start, and twice when it has gone."""
    with veth_pair() as (server, client):
        server.ip("link", "del", "srv0")
        name = f"waits-{os.getpid()}"
        options = ("--iface", "srv0", "--backend", backend, *own, "--wait-for-interface", "--name", name)
        process = server.popen(*ssrun_command(image, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running = Running(process, {}, server, client, [OWN4 if own else SERVER4])
        try:
            events = Events(process)
            events.wait(event="interface", change="waiting", interface="srv0")
            assert state(name) == ("waiting", [])
            for _ in range(3):
                connect(server, client)
                assert events.wait(event="serving")["backend"] == backend
                assert until(lambda: fetched(running))
                server.ip("link", "del", "srv0")
                events.wait(event="interface", change="gone")
                events.wait(event="interface", change="waiting")
                assert state(name) == ("waiting", [])  # who asks whether it is ready hears that it is not
            assert ends(running) == 0
            assert events.wait(event="stopped")["counters"]["http_requests"] >= 3
        finally:
            process.kill()
            process.communicate()


@MODES
@SHARED
def test_an_interface_that_comes_and_goes_at_any_moment(image: Path, backend: str, own: tuple[str, ...]) -> None:
    """While it is looked at, while ports are opened on it, while addresses are claimed."""
    with veth_pair() as (server, client):
        options = ("--iface", "srv0", "--backend", backend, *own, "--wait-for-interface")
        process = server.popen(*ssrun_command(image, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running = Running(process, {}, server, client, [OWN4 if own else SERVER4])
        try:
            events = Events(process)
            events.wait(event="serving")
            for number in range(30):
                server.ip("link", "del", "srv0")
                connect(server, client)
                time.sleep(number * 0.02)
            assert until(lambda: fetched(running) or process.poll() is not None, TOLD_S)
            assert process.poll() is None
            assert ends(running) == 0
        finally:
            process.kill()
            _, error = process.communicate()
        assert error == ""


@pytest.mark.parametrize(
    "options",
    [
        ("--iface", "tap:x", "--wait-for-interface"),
        ("--iface", "srv0", "--wait-for-interface", "--pcapng", "x"),
        ("--iface", "srv0", "--wait-for-interface", "--profile", "x"),
    ],
)
def test_what_can_t_be_waited_for_is_told(image: Path, options: tuple[str, ...]) -> None:
    with veth_pair() as (server, _):
        done = server.run(*ssrun_command(image, *options), check=False)
    assert done.returncode == 2
    assert "--wait-for-interface" in done.stderr
    assert "out" in done.stderr.split()[-1]


ADDED4, ADDED6 = "10.213.0.50", "fd57:1::50"


@SHARED
def test_addresses_that_come_and_go(image: Path, backend: str) -> None:
    with serving(image, backend) as running:
        events, server = Events(running.process), running.server
        for address, bits in ((ADDED4, 24), (ADDED6, 64)):
            server.ip("addr", "add", f"{address}/{bits}", "dev", "srv0")
            events.wait(event="interface", change="address-added", address=f"{address}/{bits}")
        for host in (ADDED4, f"[{ADDED6}]", SERVER4):
            assert until(lambda host=host: fetched(running, host), 3)
        assert listens(server, ADDED4) is False
        for address, bits in ((ADDED4, 24), (SERVER4, 24), (ADDED6, 64)):
            server.ip("addr", "del", f"{address}/{bits}", "dev", "srv0")
            events.wait(event="interface", change="address-removed", address=address)
        assert not fetched(running, ADDED4)
        assert fetched(running, f"[{SERVER6}]")
        # A DHCP client that is given another lease; and the old one again, which is now for the kernel's own to hold.
        server.ip("addr", "add", f"{ADDED4}/24", "dev", "srv0")
        events.wait(event="interface", change="address-added", address=f"{ADDED4}/24")
        assert until(lambda: fetched(running, ADDED4), 3)
        assert ends(running) == 0
        counters = events.wait(event="stopped")["counters"]
    assert "tcp_drop_port" not in counters


LISTEN = "import socket, sys; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind((sys.argv[1], 80)); s.listen()"


def listens(space: Namespace, address: str) -> bool:
    return space.run("/usr/bin/python3", "-c", LISTEN, address, check=False).returncode == 0


@SHARED
def test_an_address_that_is_away_for_a_moment_keeps_its_connections(
    tmp_path: Path, large: Path, backend: str
) -> None:
    """As when a network manager sets the interface up anew."""
    with serving(large, backend) as running:
        get = ("curl", "-sS", "--limit-rate", "10M", "-o", str(tmp_path / "large"), f"http://{SERVER4}/large")
        downloading = running.client.popen(*get)
        assert until((tmp_path / "large").exists)
        for _ in range(3):
            running.server.ip("addr", "flush", "dev", "srv0", "scope", "global")
            running.server.ip("addr", "add", f"{SERVER4}/24", "dev", "srv0")
        assert downloading.wait(60) == 0
        assert (tmp_path / "large").read_bytes() == LARGE
        assert running.stop() == 0
    assert running.stopped["counters"]["tcp_opened"] == 1


@SHARED
def test_an_address_whose_port_is_another_server_s_is_told(image: Path, backend: str) -> None:
    with serving(image, backend) as running:
        events, server = Events(running.process), running.server
        server.run("sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1")
        other = server.popen(
            "/usr/bin/python3", "-m", "http.server", "--bind", ADDED4, "80", stderr=subprocess.DEVNULL
        )
        try:
            assert until(lambda: not listens(server, ADDED4))
            server.ip("addr", "add", f"{ADDED4}/24", "dev", "srv0")
            said = events.wait(event="interface", change="address-refused", address=ADDED4)
            assert "port 80 is taken" in said["reason"]
            theirs = running.client.run("curl", "-sS", "-m", "5", f"http://{ADDED4}/").stdout
            assert "Directory listing" in theirs
        finally:
            other.kill()
            other.wait()
        assert fetched(running)
        assert ends(running) == 0


def test_more_addresses_than_can_be_served_are_told(image: Path) -> None:
    with serving(image, "packet") as running:
        events = Events(running.process)
        for number in range(40):
            running.server.ip("addr", "add", f"10.213.1.{number}/24", "dev", "srv0")
        said = events.wait(event="interface", change="address-refused")
        assert "32" in said["reason"]
        assert fetched(running)
        assert ends(running) == 0


@MODES
@SHARED
def test_another_mac_another_mtu_another_name(
    tmp_path: Path, large: Path, backend: str, own: tuple[str, ...]
) -> None:
    with serving(large, backend, *own) as running:
        events, server = Events(running.process), running.server
        host = OWN4 if own else SERVER4
        get = ("curl", "-sS", "--limit-rate", "5M", "-o", str(tmp_path / "large"), f"http://{host}/large")
        downloading = running.client.popen(*get)
        assert until((tmp_path / "large").exists)
        server.ip("link", "set", "srv0", "address", "02:00:00:00:00:42")
        events.wait(event="interface", change="mac", mac="02:00:00:00:00:42")
        server.ip("link", "set", "srv0", "mtu", "1400")
        events.wait(event="interface", change="mtu", mtu_bytes=1400)
        running.client.ip("neigh", "flush", "dev", "cli0")
        server.ip("link", "set", "srv0", "name", "web0")
        events.wait(event="interface", change="name", name="web0")
        assert downloading.wait(60) == 0
        assert (tmp_path / "large").read_bytes() == LARGE
        assert (
            running.client.run("curl", "-sS", "-o", "/dev/null", f"http://{host}/large", check=False).returncode == 0
        )
        server.ip("link", "set", "web0", "mtu", "1500")
        events.wait(event="interface", change="mtu", mtu_bytes=1500)
        assert ends(running) == 0


LOST = {"packet": "packet_drops", "afxdp": "xdp_rx_ring_full"}


@SHARED
def test_what_only_the_kernel_counts_is_told_under_another_name_too(
    image: Path, tmp_path: Path, backend: str
) -> None:
    path = tmp_path / "metrics"
    with serving(image, backend, "--metrics", f"unix:{path}") as running:
        events = Events(running.process)

        def metrics() -> str:
            get = ("curl", "-sS", "--unix-socket", str(path), "http://x/metrics")
            return running.server.run(*get).stdout

        descriptors = Path(f"/proc/{running.process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        for _ in range(8):
            assert f'sandstorm_kernel_lost_total{{why="{LOST[backend]}"}} 0.0' in metrics()
        assert until(lambda: len(list(descriptors.iterdir())) <= before)
        running.server.ip("link", "set", "srv0", "name", "web0")
        events.wait(event="interface", change="name", name="web0")
        assert fetched(running)
        assert "sandstorm_link_rx_packets_total" in metrics()
        assert "sandstorm_interface_changes_total 1.0" in metrics()
        assert ends(running) == 0


def test_a_kernel_that_is_given_our_address_is_told(image: Path) -> None:
    with serving(image, "packet", *OWN) as running:
        events = Events(running.process)
        running.server.ip("addr", "add", f"{OWN4}/24", "dev", "srv0")
        assert OWN4 in events.wait(event="interface", change="address-shared", address=OWN4)["text"]
        assert ends(running) == 0


@contextlib.contextmanager
def without_bpf(space: Namespace) -> Iterator[None]:
    popen: Callable[..., Any] = space.popen
    bounded = ("setpriv", "--bounding-set", "-bpf,-sys_admin,-perfmon")
    space.popen = lambda *command, **how: popen(*bounded, *command, **how)  # type: ignore[method-assign]
    yield
    space.popen = popen  # type: ignore[method-assign]


def test_addresses_come_and_go_without_tcx_too(image: Path) -> None:
    with (
        veth_pair() as (server, client),
        without_bpf(server),
        ssrun(image, server, client, "--iface", "srv0", "--backend", "packet") as running,
    ):
        events = Events(running.process)
        server.ip("addr", "add", f"{ADDED4}/24", "dev", "srv0")
        events.wait(event="interface", change="address-added", address=f"{ADDED4}/24")
        assert until(lambda: fetched(running, ADDED4), 3)
        server.run("curl", "-m", "3", f"http://{ADDED4}/", check=False)
        server.ip("addr", "del", f"{ADDED4}/24", "dev", "srv0")
        events.wait(event="interface", change="address-removed", address=ADDED4)
        assert fetched(running)
        assert ends(running) == 0
