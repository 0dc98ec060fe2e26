"""`ssrun reload` and SIGHUP: another image while one is served, and what is refused. Over --listen, as any user."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ssimage._sandstorm import lib
from ssimage.loader import ImageFile
from ssrun.events import Events
from ssrun.reload import Reloaded, Reloads
from ssrun.swaps import Told, nobody

from tests import warm
from tests.host import build
from tests.sockets import DEADLINE_S, Command, listening

SMALL = "small"
LARGE_BYTES = 24 << 20  # more than the kernel's buffers take at once


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = []
    for version in range(3):
        folder = tmp_path_factory.mktemp("site")
        (folder / "index.html").write_text(f"version {version}")
        (folder / "large.bin").write_bytes(bytes([version]) * LARGE_BYTES)
        found.append(build(folder, tmp_path_factory.mktemp("image") / f"v{version}.img"))
    return found


@pytest.fixture(scope="module")
def of_another_mtu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mtu")
    public = folder / "public"
    public.mkdir()
    (public / "index.html").write_text("other")
    (folder / "site.yaml").write_text("version: 1\nmtu: 9000\nroot: public\n")
    return build(folder / "site.yaml", folder / "x.img")


class Site:
    """One that serves, called `one`, and what is asked of it."""

    def __init__(self, command: Command, env: dict[str, str]) -> None:
        self.command = command
        self.env = env

    def ssrun(self, *words: str | Path, status: int = 0) -> str:
        done = warm.run("ssrun.cli", *words, env=self.env)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    def reload(self, *words: str | Path) -> dict[str, Any]:
        return dict(json.loads(self.ssrun("reload", *words, "--json")))

    def refused(self, *words: str | Path) -> str:
        """Why; and it has been told on both sides."""
        said = self.ssrun("reload", *words, status=1)
        event = self.command.line()
        assert event["event"] == "reload-refused"
        assert said == f"ssrun: one: {event['reason']}; the old one is served on\n"
        return str(event["reason"])

    def get(self, path: str = "/") -> bytes:
        with self.command.connect() as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return sock.makefile("rb").read().partition(b"\r\n\r\n")[2]


@contextmanager
def serving(image: Path, folder: Path, *words: str, **how: Any) -> Iterator[Site]:
    env = {**os.environ, "RUNTIME_DIRECTORY": str(folder / "run")}
    with listening(image, "--listen", "127.0.0.1:0", "--name", "one", *words, env=env, **how) as command:
        yield Site(command, env)


@pytest.fixture
def site(images: list[Path], tmp_path: Path) -> Iterator[Site]:
    shutil.copy(images[0], tmp_path / "site.img")
    with serving(tmp_path / "site.img", tmp_path) as served:
        yield served


def build_id(image: Path) -> str:
    return str(json.loads(warm.run("sscc.cli", "inspect", str(image), "--json").stdout)["build_id"])


def test_another_image_and_back(site: Site, images: list[Path]) -> None:
    assert site.get() == b"version 0"
    answer = site.reload(images[1])
    event = site.command.line()
    assert event == {"event": "reloaded", **{key: value for key, value in answer.items() if key != "name"}}
    assert answer["name"] == "one"
    assert answer["image"]["path"] == str(images[1])
    assert answer["image"]["build_id"] == build_id(images[1])
    assert (answer["changed"], answer["connections"], answer["older_images"]) == (True, 0, 1)
    assert site.get() == b"version 1"
    listed = json.loads(site.ssrun("list", "--json"))
    assert listed["image"] == answer["image"]
    said = site.ssrun("reload", images[0])
    assert said == f"one serves {images[0]}: 3 routes, build-id {build_id(images[0])[:16]}\n"
    assert site.get() == b"version 0"


def test_metrics_are_of_what_is_served(images: list[Path], tmp_path: Path) -> None:
    with serving(images[0], tmp_path, "--metrics", "127.0.0.1:0") as site:
        site.get()
        site.reload(images[1])
        site.get()
        place = site.command.event["metrics"][0]
        with urllib.request.urlopen(place, timeout=DEADLINE_S) as answer:
            text = answer.read().decode()
        assert f'build_id="{build_id(images[1])}"' in text
        assert build_id(images[0]) not in text


def test_a_relative_path_is_the_command_s(site: Site, images: list[Path], tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    shutil.copy(images[1], there / "x.img")
    done = warm.run("ssrun.cli", "reload", "x.img", "--json", env=site.env, cwd=there)
    assert json.loads(done.stdout)["image"]["path"] == str(there / "x.img")
    assert site.get() == b"version 1"


def test_without_a_name_the_file_is_read_again(site: Site, images: list[Path], tmp_path: Path) -> None:
    """By its name; and where it is the same file there is nothing to do."""
    assert site.reload()["changed"] is False
    shutil.copy(images[1], tmp_path / "new.img")
    (tmp_path / "new.img").rename(tmp_path / "site.img")
    assert site.reload()["changed"] is True
    assert site.get() == b"version 1"
    assert "the file is the same as before" in site.ssrun("reload")


def test_a_link_is_followed_anew(images: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "site.img"
    link.symlink_to(images[0])
    with serving(link, tmp_path) as site:
        link.unlink()
        link.symlink_to(images[2])
        assert site.reload()["changed"]
        assert site.get() == b"version 2"


def test_sighup_reads_it_again(site: Site, images: list[Path], tmp_path: Path) -> None:
    shutil.copy(images[1], tmp_path / "new.img")
    (tmp_path / "new.img").rename(tmp_path / "site.img")
    site.command.process.send_signal(signal.SIGHUP)
    event = site.command.line()
    assert (event["event"], event["changed"], event["image"]["build_id"]) == ("reloaded", True, build_id(images[1]))
    (tmp_path / "site.img").unlink()
    site.command.process.send_signal(signal.SIGHUP)
    event = site.command.line()
    assert event["event"] == "reload-refused"
    assert "No such file" in event["reason"]
    assert site.get() == b"version 1"


def damaged(image: Path, target: Path) -> None:
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)


def shortened(image: Path, target: Path) -> None:
    target.write_bytes(image.read_bytes()[:100_000])


def a_page(_: Path, target: Path) -> None:
    target.write_text("<p>hello")


def a_folder(_: Path, target: Path) -> None:
    target.mkdir()


def a_pipe(_: Path, target: Path) -> None:
    os.mkfifo(target)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (damaged, "its contents don't match its build-id"),
        (shortened, "damaged"),
        (a_page, "too short to be a packet image"),
        (a_folder, "this is a folder, not an image"),
        (a_pipe, "not a regular file"),
        (lambda _image, _target: None, "can't be read: No such file or directory"),
    ],
)
def test_what_is_no_image_is_refused(
    site: Site, images: list[Path], tmp_path: Path, make: Callable[[Path, Path], None], reason: str
) -> None:
    """And the old one is served on; then the next one is taken."""
    make(images[1], tmp_path / "bad.img")
    why = site.refused(tmp_path / "bad.img")
    assert why.startswith(f"{tmp_path}/bad.img: ")
    assert reason in why
    assert site.get() == b"version 0"
    assert site.reload(images[1])["changed"]
    assert site.get() == b"version 1"


def test_one_of_another_mtu_is_refused(site: Site, of_another_mtu: Path) -> None:
    assert site.refused(of_another_mtu) == (
        f"{of_another_mtu}: it is built for another MTU (`mtu` of the manifest); build it alike, or start ssrun again"
    )
    assert site.get() == b"version 0"


def test_one_that_may_not_be_read_is_refused(images: list[Path], tmp_path: Path) -> None:
    """By the one that serves: root who may not read all, or whoever we are."""
    front = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    shutil.copy(images[1], tmp_path / "x.img")
    (tmp_path / "x.img").chmod(0)
    with serving(images[0], tmp_path, front=front) as site:
        assert site.refused(tmp_path / "x.img") == f"{tmp_path}/x.img: can't be read: Permission denied"
        assert site.get() == b"version 0"


@pytest.mark.parametrize("image", ["x.img", 7, "", "/a\0b", ["/x"]])
def test_nonsense_is_refused(site: Site, tmp_path: Path, image: object) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "run" / "one.sock"))
        sock.sendall(json.dumps({"command": "reload", "image": image}).encode() + b"\n")
        assert "absolute path" in json.loads(sock.makefile().readline())["error"]
    assert site.get() == b"version 0"


def test_with_a_profile_it_is_refused(images: list[Path], tmp_path: Path) -> None:
    with serving(images[0], tmp_path, "--profile", str(tmp_path / "profile.json")) as site:
        said = site.ssrun("reload", images[1], status=1)
        assert said == "ssrun: one: a profile is of one image: start ssrun again, or without --profile\n"
        site.command.process.send_signal(signal.SIGHUP)
        assert site.command.line()["event"] == "hangup"
        assert site.get() == b"version 0"


def download(site: Site) -> socket.socket:
    """A client that has got a little of the large file, and takes no more yet."""
    sock = site.command.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.sendall(b"GET /large.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert sock.recv(100)
    return sock


def rest(sock: socket.socket) -> bytes:
    with sock, sock.makefile("rb") as file:
        return file.read()


def older(site: Site) -> int:
    return int(site.reload()["older_images"])


def until_none_is_needed(site: Site) -> None:
    end = time.monotonic() + DEADLINE_S
    while older(site):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_is_begun_ends_as_it_was(site: Site, images: list[Path]) -> None:
    """A client of each version; while nothing else happens the old ones go when theirs are done."""
    clients = []
    for version in (1, 2, 0):
        clients.append(download(site))
        answer = site.reload(images[version])
        assert (answer["connections"], answer["older_images"]) == (len(clients), len(clients))
    for version, client in enumerate(clients):
        data = rest(client)
        assert data[-1_000_000:] == bytes([version]) * 1_000_000
        assert data.count(bytes([version])) >= LARGE_BYTES
    until_none_is_needed(site)
    assert site.get() == b"version 0"


def test_who_takes_too_long_is_reset(images: list[Path], tmp_path: Path) -> None:
    with serving(images[0], tmp_path, "--swap-timeout", "0") as site:
        client = download(site)
        assert site.reload(images[1])["connections"] == 1
        with pytest.raises(ConnectionResetError):
            rest(client)
        until_none_is_needed(site)
        assert site.get() == b"version 1"
        site.command.end()
        assert site.command.stopped["counters"]["tcp_timeout_swap"] == 1


def test_many_at_once_wait_for_their_turn(site: Site, images: list[Path]) -> None:
    """Each is answered; and no answer is lost when whoever asked has gone."""
    words = [["reload", str(images[number % 3]), "--json"] for number in range(9)]
    command = [sys.executable, "-m", "ssrun.cli"]
    popen = [subprocess.Popen([*command, *each], env=site.env, stdout=subprocess.PIPE, text=True) for each in words]
    popen[4].kill()
    for number, process in enumerate(popen):
        output, _ = process.communicate(timeout=60)
        if number != 4:
            assert process.returncode == 0
            assert json.loads(output)["image"]["path"] == str(images[number % 3])
    assert site.reload(images[1])["image"]["path"] == str(images[1])
    assert site.get() == b"version 1"


def test_a_service_manager_is_told(images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it reloads, and that it is done, whatever came of it."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(DEADLINE_S)
        with serving(images[0], tmp_path) as site:
            assert sock.recv(100) == b"READY=1"
            for image, status in ((images[1], 0), (tmp_path / "none.img", 1)):
                site.ssrun("reload", image, status=status)
                first, second = sock.recv(100).decode().splitlines()
                assert first == "RELOADING=1"
                assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
                assert sock.recv(100) == b"READY=1"


def test_what_is_needed_must_stay_as_it_is(site: Site, images: list[Path], tmp_path: Path) -> None:
    """Also an older one: it is still mapped."""
    shutil.copy(images[1], tmp_path / "one.img")
    site.reload(tmp_path / "one.img")
    client = download(site)
    site.reload(images[2])
    os.utime(tmp_path / "one.img", (1, 1))
    assert site.command.process.wait(DEADLINE_S) == 1
    site.command.end()
    assert f"ssrun: {tmp_path}/one.img: written to while it was served" in site.command.said
    client.close()


def test_one_that_is_needed_no_more_may_change(site: Site, images: list[Path], tmp_path: Path) -> None:
    site.reload(images[1])
    until_none_is_needed(site)
    (tmp_path / "site.img").write_bytes(b"")
    time.sleep(1.5)  # it is looked once a second
    assert site.get() == b"version 1"


class Shown:
    """What serves, as Reloads knows it."""

    def __init__(self, image: ImageFile) -> None:
        self.image = image

    def replace(self, image: ImageFile) -> None:
        self.image = image


class Says:
    """A server that says what it likes."""

    def __init__(self) -> None:
        self.told: Told = nobody
        self.keeps_first = False
        self.asked: list[int] = []

    def swap(self, number: int, image: ImageFile, fault_line: bytes) -> None:
        assert image.fd >= 0
        assert fault_line.endswith(b"\n")
        self.asked.append(number)

    def end_image(self, number: int) -> None:
        self.asked.append(-number)


def test_a_server_that_says_anything(images: list[Path]) -> None:
    """Of images that there are not, in any order: what is served and what would be next stays open."""
    with closing(Events()) as events, ImageFile(images[0]) as first:
        shown, server, answers = Shown(first), Says(), list[Reloaded]()
        reloads = Reloads(shown, ImageFile, "ssrun", 0, events, lambda _: None)
        reloads.begins(server)
        kinds = (lib.SWAPS_SERVED, lib.SWAPS_REFUSED, lib.SWAPS_GONE, 0, 7)
        seed = random.Random(5)

        def say_anything(*, but: int) -> None:
            for _ in range(300):
                number = seed.choice((0, 1, 2, 3, 1 << 31, (1 << 32) - 1))
                if number != but:
                    server.told(seed.choice(kinds), number, seed.randrange(-(1 << 31), 1 << 31))

        say_anything(but=-1)
        assert shown.image is first
        reloads.ask(images[1], answers.append)
        events.wait(DEADLINE_S)()
        assert server.asked == [1]
        say_anything(but=1)
        assert (shown.image, answers) == (first, [])
        server.told(lib.SWAPS_SERVED, 1, -5)
        assert (shown.image.path, answers[0].connections, answers[0].older) == (images[1], 0, 1)
        say_anything(but=0)
        assert first.fd >= 0
        server.told(lib.SWAPS_GONE, 1, 0)
        assert shown.image.fd >= 0
        events.wait(0)  # the time is over in which the first may be needed
        assert server.asked == [1, 0]
        server.told(lib.SWAPS_GONE, 0, 0)
        assert first.fd < 0
        reloads.close()
        assert shown.image.fd < 0


def test_nothing_is_left_of_many(site: Site, images: list[Path]) -> None:
    """No descriptor, no mapping."""
    pid = site.command.process.pid

    def held() -> tuple[int, int]:
        until_none_is_needed(site)
        mapped = [
            line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if ".img" in line or "memfd" in line
        ]
        return len(mapped), len(list(Path(f"/proc/{pid}/fd").iterdir()))

    site.reload(images[1])
    before = held()
    for number in range(30):
        site.reload(images[number % 2])
        site.ssrun("reload", "/nothing", status=1)
    site.reload(images[1])
    assert held() == before
