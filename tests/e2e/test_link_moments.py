"""What happens to an interface at the worst moment: while another image waits for the old one, while it drains or stops, while the
server is killed, and while another server is waited for."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from ssrun import control

from tests.e2e.test_links import OWN, OWN4, Events, connect
from tests.e2e.test_reload import ask
from tests.host import build
from tests.net import SERVER4, Running, namespace, needs, processes, serving, until

pytestmark = [needs("curl"), pytest.mark.slow]

BIG = random.Random(9).randbytes(24_000_000)
RATE = "2M"
MODES = pytest.mark.parametrize("own", [(), OWN], ids=["shared", "own"])
BACKENDS = pytest.mark.parametrize("backend", ["packet", "afxdp"])
WAIT_S = 40


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = []
    for version in range(2):
        folder = tmp_path_factory.mktemp(f"version{version}")
        (folder / "index.html").write_text(f"version {version}")
        (folder / "big").write_bytes(BIG)
        found.append(build(folder, tmp_path_factory.mktemp("image") / f"v{version}.img"))
    return found


class Scene:
    """ssrun that serves on srv0, with a download under way, at some moment."""

    def __init__(self, running: Running, images: list[Path], host: str, folder: Path) -> None:
        self.running, self.images, self.host, self.folder = running, images, host, folder
        self.events = Events(running.process)
        self.client = running.client
        self.version = 0
        self.name = "srv0"
        self.accepts = True  # new connections
        self.delay_s = 0.0  # until there is another server
        self.downloading: subprocess.Popen[str] | None = None

    def download(self) -> None:
        target = self.folder / "big"
        words = ("-sS", "-N", "--limit-rate", RATE, "-m", "100", "-o", str(target), f"http://{self.host}/big")
        self.downloading = self.running.client.popen("curl", *words)
        assert until(lambda: target.exists() and target.stat().st_size > 0)

    def download_more(self) -> None:
        """Where the one before has come to its end."""
        assert self.downloading is not None
        if self.downloading.poll() is not None and self.accepts:
            self.arrives()
            (self.folder / "big").unlink()
            self.download()

    def page(self) -> str:
        get = ("curl", "-sS", "-m", "2", f"http://{self.host}/")
        return self.client.run(*get, check=False).stdout

    def servers(self) -> list[int]:
        return processes(self.running.process.pid)[1:]

    def link(self, *words: str) -> None:
        self.running.server.ip("link", "set", self.name, *words)

    @staticmethod
    def state() -> str:
        """As an operator is told; there is but one to be asked."""
        return str(control.ask(control.find(None), {"command": "list"}, timeout_s=10)["state"])

    def told(self, **fields: Any) -> str:
        return str(self.events.wait(event="interface", **fields)["text"])

    def arrives(self) -> None:
        """The download, byte for byte."""
        assert self.downloading is not None
        assert self.downloading.wait(120) == 0
        assert (self.folder / "big").read_bytes() == BIG

    def goes_on(self) -> None:
        if self.accepts:
            assert until(lambda: self.page() == f"version {self.version}", WAIT_S), self.events.rest()


def serves(_: Scene) -> None:
    """Nothing else happens."""


def swap_waits(scene: Scene) -> None:
    scene.version = 1 - scene.version
    assert ask(scene.images[scene.version])["older_images"] > 0


def drains(scene: Scene) -> None:
    if scene.accepts:
        scene.running.server.run(sys.executable, "-m", "ssrun.cli", "drain")
        scene.accepts = False


def stops(scene: Scene) -> None:
    if scene.accepts:
        scene.running.process.terminate()
        scene.events.wait(event="draining")
        scene.accepts = False


def is_killed(scene: Scene) -> None:
    for pid in scene.servers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_waited_for(scene: Scene) -> None:
    """The next one comes half a second later, or more."""
    if scene.delay_s:
        return
    for _ in range(4):
        (before,) = scene.servers()
        is_killed(scene)
        assert until(lambda before=before: scene.servers() not in ([before], []), WAIT_S)  # type: ignore[misc]
    is_killed(scene)
    while scene.delay_s < 0.4:
        scene.delay_s = scene.events.wait(event="server-crashed")["again_in_s"]


MOMENTS = (serves, swap_waits, drains, stops, is_killed, is_waited_for)
AT_MOMENTS = pytest.mark.parametrize("moment", MOMENTS)


def is_reset(scene: Scene) -> None:
    scene.link("down")
    assert "srv0" in scene.told(change="state", state="down")
    scene.link("up")
    scene.told(change="state", state="up")


def loses_its_carrier(scene: Scene) -> None:
    scene.running.client.ip("link", "set", "cli0", "down")
    scene.told(change="state", state="no-carrier")
    scene.running.client.ip("link", "set", "cli0", "up")
    scene.told(change="state", state="up")


def is_renamed(scene: Scene) -> None:
    scene.link("name", "web0")
    scene.name = "web0"
    assert "srv0 is called web0 now" in scene.told(change="name", name="web0")


def has_another_mac(scene: Scene) -> None:
    scene.link("address", "02:00:00:00:00:42")
    scene.told(change="mac", mac="02:00:00:00:00:42")
    scene.running.client.ip("neigh", "flush", "dev", "cli0")


def has_another_mtu(scene: Scene) -> None:
    scene.link("mtu", "1400")
    scene.told(change="mtu", mtu_bytes=1400)


def is_without_addresses_for_a_moment(scene: Scene) -> None:
    scene.running.server.ip("addr", "flush", "dev", scene.name, "scope", "global")
    scene.running.server.ip("addr", "add", f"{SERVER4}/24", "dev", scene.name)


def has_another_address(scene: Scene) -> None:
    scene.running.server.ip("addr", "add", "10.213.0.50/24", "dev", scene.name)
    if scene.host == SERVER4:
        scene.told(change="address-added", address="10.213.0.50/24")


SURVIVED = (
    is_reset,
    loses_its_carrier,
    is_renamed,
    has_another_mac,
    has_another_mtu,
    is_without_addresses_for_a_moment,
    has_another_address,
)


@contextlib.contextmanager
def scene_of(images: list[Path], backend: str, own: tuple[str, ...], folder: Path, *options: str) -> Iterator[Scene]:
    with serving(images[0], backend, "--drain-timeout", "60", *own, *options) as running:
        host = running.hosts[0] if backend == "tap" else OWN4 if own else SERVER4
        scene = Scene(running, images, host, folder)
        try:
            scene.download()
            yield scene
        finally:
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait()
            if scene.downloading is not None:
                scene.downloading.kill()
                scene.downloading.wait()


@MODES
@AT_MOMENTS
@BACKENDS
def test_what_is_survived(
    backend: str, moment: Callable[[Scene], None], own: tuple[str, ...], images: list[Path], tmp_path: Path
) -> None:
    with scene_of(images, backend, own, tmp_path) as scene:
        for happens in SURVIVED:
            scene.download_more()
            moment(scene)
            happens(scene)
            if moment is not is_waited_for:
                scene.goes_on()
        scene.arrives()
        scene.goes_on()
        assert scene.accepts or scene.page() == ""
        if moment is not stops:
            scene.running.process.terminate()
        assert scene.running.process.wait(WAIT_S) == 0
        assert scene.running.process.stderr is not None
        assert scene.running.process.stderr.read() == ""


def is_removed_and_made_again(scene: Scene) -> None:
    scene.running.server.ip("link", "del", scene.name)
    scene.told(change="gone")
    connect(scene.running.server, scene.running.client)


def is_moved_and_comes_back(scene: Scene) -> None:
    with namespace("elsewhere") as elsewhere:
        scene.link("netns", elsewhere.name)
        scene.told(change="gone")
        elsewhere.ip("link", "set", scene.name, "netns", scene.running.server.name)
    set_up(scene)


def is_away_for_less_than_a_look(scene: Scene) -> None:
    is_away_unseen(scene)
    scene.told(change="gone")


def is_away_unseen(scene: Scene) -> None:
    """The supervisor stands still meanwhile: then it is there as before, with the same number."""
    pid = scene.running.process.pid
    with namespace("elsewhere") as elsewhere:
        os.kill(pid, signal.SIGSTOP)
        scene.link("netns", elsewhere.name)
        elsewhere.ip("link", "set", scene.name, "netns", scene.running.server.name)
        set_up(scene)
        os.kill(pid, signal.SIGCONT)


def set_up(scene: Scene) -> None:
    scene.link("up")
    scene.running.server.ip("addr", "add", f"{SERVER4}/24", "dev", scene.name)


AWAY = (is_removed_and_made_again, is_moved_and_comes_back, is_away_for_less_than_a_look)


@MODES
@pytest.mark.parametrize("moment", [serves, swap_waits, drains, is_killed, is_waited_for])
@BACKENDS
def test_what_is_waited_for(
    backend: str, moment: Callable[[Scene], None], own: tuple[str, ...], images: list[Path], tmp_path: Path
) -> None:
    """Connections are lost; what was asked for, another image and to drain, stays."""
    # Over AF_XDP a server that begins has another socket, and may have bound it to what is there again: nothing is gone then.
    away = AWAY if moment not in (is_killed, is_waited_for) else AWAY[:2]
    with scene_of(images, backend, own, tmp_path, "--wait-for-interface") as scene:
        for happens in away:
            moment(scene)
            happens(scene)
            assert scene.events.wait(event="serving")["interface"] == "srv0"
            scene.goes_on()
            scene.delay_s = 0.0
            if scene.accepts:
                assert scene.downloading is not None
                scene.downloading.kill()
                scene.downloading.wait()
                (scene.folder / "big").unlink()
                scene.download()
            assert scene.state() == ("draining" if moment is drains else "serving")
        scene.running.process.send_signal(signal.SIGTERM)
        scene.running.process.send_signal(signal.SIGTERM)
        assert scene.events.wait(event="stopped")["counters"]["interface_gone"] == len(away)
        assert scene.running.process.wait(WAIT_S) == 0


@BACKENDS
def test_one_that_is_away_unseen_as_the_server_dies_is_served_on(
    backend: str, images: list[Path], tmp_path: Path
) -> None:
    with scene_of(images, backend, (), tmp_path, "--wait-for-interface") as scene:
        is_killed(scene)
        is_away_unseen(scene)
        scene.goes_on()


@pytest.mark.parametrize("options", [(), ("--wait-for-interface",)], ids=["", "waiting"])
@pytest.mark.parametrize(
    "happens", [is_removed_and_made_again, is_moved_and_comes_back, is_away_for_less_than_a_look]
)
@BACKENDS
def test_to_stop_it_need_not_come_back(
    backend: str, happens: Callable[[Scene], None], options: tuple[str, ...], images: list[Path], tmp_path: Path
) -> None:
    with scene_of(images, backend, (), tmp_path, *options) as scene:
        stops(scene)
        happens(scene)
        assert scene.running.process.wait(WAIT_S) == 0
        assert scene.running.process.stderr is not None
        assert scene.running.process.stderr.read() == ""


@pytest.mark.parametrize("moment", [serves, swap_waits, drains, is_killed, is_waited_for])
@pytest.mark.parametrize("backend", ["packet", "afxdp", "tap"])
def test_one_that_is_gone_ends_it_with_a_line(
    backend: str, moment: Callable[[Scene], None], images: list[Path], tmp_path: Path
) -> None:
    with scene_of(images, backend, (), tmp_path) as scene:
        moment(scene)
        name = "sand0" if backend == "tap" else "srv0"
        scene.running.server.ip("link", "del", name)
        assert scene.running.process.wait(WAIT_S) == 1
        assert scene.running.process.stderr is not None
        error = scene.running.process.stderr.read()
        assert error.startswith(f"ssrun: {name}: the interface is gone; ")
        assert error.count("\n") == 1
        counters = scene.events.wait(event="stopped")["counters"]
        # Those of a server that died stay where they are until the next one has begun.
        assert moment in (is_killed, is_waited_for) or counters["http_requests"] >= 1


@pytest.mark.parametrize("moment", [serves, swap_waits, is_killed, is_waited_for])
def test_a_tap_is_served_on_in_another_namespace(
    moment: Callable[[Scene], None], images: list[Path], tmp_path: Path
) -> None:
    """As one that is made for a container. Its queue goes with it, and connections go on."""
    with namespace("container") as other, scene_of(images, "tap", (), tmp_path) as scene:
        moment(scene)
        (host,) = (address for address in scene.running.event["host_addresses"] if "." in address)
        scene.running.server.ip("link", "set", "sand0", "netns", other.name)
        assert "sand0 is in another network namespace" in scene.told(change="moved", away=True)
        other.ip("link", "set", "sand0", "up")
        # Not the address of who is in the middle of a download: this kernel would reset what comes for that.
        here = ip_interface(host)
        other.ip("addr", "add", f"{here.ip + 2}/{here.network.prefixlen}", "dev", "sand0")
        scene.client = other
        scene.goes_on()
        other.ip("link", "set", "sand0", "netns", scene.running.server.name)
        scene.told(change="moved", away=False)
        scene.running.server.ip("link", "set", "sand0", "up")
        scene.running.server.ip("addr", "add", host, "dev", "sand0")
        scene.client = scene.running.client
        scene.goes_on()
        scene.arrives()
        scene.running.process.terminate()
        assert scene.running.process.wait(WAIT_S) == 0


@pytest.mark.parametrize("way", ["down", "gone"])
def test_one_without_its_interface_does_not_say_that_it_serves(way: str, images: list[Path], tmp_path: Path) -> None:
    with scene_of(images, "packet", (), tmp_path, "--wait-for-interface") as scene:
        assert scene.state() == "serving"
        scene.running.server.ip("link", *(("set", "srv0", "down") if way == "down" else ("del", "srv0")))
        scene.told(change="state" if way == "down" else "waiting")
        assert scene.state() == "waiting"
        if way == "down":
            scene.link("up")
        else:
            connect(scene.running.server, scene.running.client)
        assert until(lambda: scene.state() == "serving")
        scene.running.process.send_signal(signal.SIGTERM)
        scene.running.process.send_signal(signal.SIGTERM)
        counters = scene.events.wait(event="stopped")["counters"]
        assert counters["interface_down" if way == "down" else "interface_gone"] == 1


@pytest.mark.parametrize(
    ("happens", "says"),
    [
        (("set", "srv0", "down"), "srv0 is down"),
        (("set", "srv0", "name", "web0"), "srv0 is called web0 now"),
    ],
    ids=["down", "renamed"],
)
def test_no_other_build_goes_on_where_it_could_not_open_it(
    happens: tuple[str, ...], says: str, images: list[Path], tmp_path: Path
) -> None:
    """It would end, and with it the connections that it was to go on with."""
    with scene_of(images, "packet", (), tmp_path) as scene:
        scene.running.server.ip("link", *happens)
        scene.told()
        done = scene.running.server.run(sys.executable, "-m", "ssrun.cli", "upgrade", check=False)
        assert (done.returncode, says in done.stderr) == (1, True), done.stderr
        scene.running.server.ip("link", "set", "web0" if "web0" in says else "srv0", "up")
        scene.goes_on()
        scene.arrives()
