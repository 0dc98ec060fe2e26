"""The control socket, and the commands that use it: over --listen, as any user."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ssrun.names import NAME_MAX, check_name, derived_name

from tests import warm
from tests.host import build
from tests.sockets import DEADLINE_S, Command, cpu_ticks, listening


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("hello")
    (folder / "large.bin").write_bytes(os.urandom(8 << 20))
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


class Place:
    """A folder for control sockets of a test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "RUNTIME_DIRECTORY": str(folder)}

    @contextmanager
    def serving(self, image: Path, *words: str, **how: Any) -> Iterator[Command]:
        with listening(image, "--listen", "127.0.0.1:0", *words, env=self.env, **how) as command:
            yield command

    def ssrun(self, *words: str, status: int = 0) -> str:
        done = warm.run("ssrun.cli", *words, env=self.env)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    def listed(self) -> dict[str, dict[str, Any]]:
        return {answer["name"]: answer for answer in map(json.loads, self.ssrun("list", "--json").splitlines())}

    def connect(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.folder / f"{name}.sock"))  # waits for room
        sock.settimeout(DEADLINE_S)
        return sock

    def ask(self, name: str, data: bytes) -> dict[str, Any]:
        with self.connect(name) as sock:
            sock.sendall(data)
            return dict(json.loads(sock.makefile().readline()))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "run")


def get(command: Command, path: str = "/") -> bytes:
    with command.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return sock.makefile("rb").read()


def test_what_runs_is_listed(image: Path, place: Place) -> None:
    assert place.listed() == {}
    with place.serving(image, "--name", "one") as one, place.serving(image, "--name", "two"):
        get(one)
        listed = place.listed()
        assert list(listed) == ["one", "two"]
        answer = listed["one"]
        assert (answer["pid"], answer["state"], answer["command"]) == (one.process.pid, "serving", "ssrun")
        assert answer["urls"] == one.event["urls"]
        assert answer["image"] == one.event["image"]
        assert f"one: ssrun (pid {one.process.pid}), serving, {one.event['urls'][0]}, " in place.ssrun("list")
        assert stat.S_IMODE((place.folder / "one.sock").stat().st_mode) == 0o600
    assert place.listed() == {}
    assert [path.name for path in place.folder.iterdir()] == [".lock"]


def test_counters_are_those_of_one(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one") as one:
        get(one)
        assert "http_requests 1\n" in place.ssrun("counters")
        with place.serving(image, "--name", "two"):
            assert place.ssrun("counters", status=1) == "ssrun: several run here; say which: one, two\n"
            assert "http_requests 1\n" in place.ssrun("counters", "one")
            assert json.loads(place.ssrun("counters", "two", "--json"))["counters"].get("http_requests") is None
    assert place.ssrun("counters", status=1) == "ssrun: nothing runs here\n"
    assert place.ssrun("counters", "x", status=1) == "ssrun: nothing that runs is called x; nothing runs here\n"


def test_a_name_is_one_s_alone(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one") as one:
        done = warm.run("ssrun.cli", str(image), "--listen", "127.0.0.1:0", "--name", "one", env=place.env)
        assert done.returncode == 1
        wanted = f"ssrun: another ssrun is called one (pid {one.process.pid}); stop it, or choose another --name\n"
        assert done.stderr == wanted


def test_a_name_that_nobody_chose_keeps_nobody_from_serving(image: Path, place: Place) -> None:
    with place.serving(image), place.serving(image):
        assert set(place.listed()) == {"127.0.0.1:0", "127.0.0.1:0-2"}


def test_the_socket_of_one_that_was_killed_is_in_nobody_s_way(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one") as one:
        one.process.send_signal(signal.SIGKILL)
        one.process.wait(DEADLINE_S)
        assert (place.folder / "one.sock").exists()
        assert place.listed() == {}
        with place.serving(image, "--name", "other"):
            assert not (place.folder / "one.sock").exists()
        with place.serving(image, "--name", "one"):
            assert list(place.listed()) == ["one"]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"1\n",
        b'{"command": []}\n',
        b'{"command": "nothing"}\n',
        b"\xff\xfe\n",
        b"[" * 10000 + b"\n",
        b'{"command": "list"}\n{"command": "list"}\n',
    ],
)
def test_what_is_no_command_is_told(image: Path, place: Place, line: bytes) -> None:
    with place.serving(image, "--name", "one") as one:
        assert "error" in place.ask("one", line)
        assert b"hello" in get(one)
        assert "one" in place.listed()


def test_who_says_nothing_holds_nobody_up(image: Path, place: Place) -> None:
    """Ten thousand, and half a line; and one who says too much."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with place.serving(image, "--name", "one") as one, ExitStack() as stack:
        for _ in range(10_000):
            stack.enter_context(place.connect("one")).send(b'{"comm')
        assert "one" in place.listed()
        assert b"hello" in get(one)
        with place.connect("one") as sock:
            sock.sendall(b"x" * 100_000)
            with suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        assert len(os.listdir(f"/proc/{one.process.pid}/fd")) < 200


def test_without_descriptors_it_serves_on_and_answers_later(image: Path, place: Place) -> None:
    """The limit is lowered while it runs."""
    with place.serving(image, "--name", "one") as one:
        limits = resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        with place.connect("one") as sock:
            sock.sendall(b'{"command": "list"}\n')
            busy = cpu_ticks(one.process.pid)
            time.sleep(0.5)
            assert cpu_ticks(one.process.pid) - busy < 25  # of a hundred a second
            resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, limits)
            assert b'"serving"' in sock.makefile("rb").readline()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_other_users_may_not_ask(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one") as one:
        path = place.folder / "one.sock"
        for folder in (place.folder, *place.folder.parents):
            if str(folder).startswith("/tmp/"):
                folder.chmod(0o755)
        asks = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); s.send(b'x\\n'); print(s.recv(9))"
        words = ["setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", asks]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "PermissionError" in done.stderr
        path.chmod(0o666)  # and if somebody opens it
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.stdout == "b''\n" or "ConnectionReset" in done.stderr or "BrokenPipe" in done.stderr
        assert b"hello" in get(one)


def test_where_no_socket_can_be_it_serves_and_says_so(image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = Place(tmp_path / "file" / "run")
    with place.serving(image) as one:
        assert one.event["warnings"][0].startswith("no control socket, so `ssrun list` and the like")
        assert b"hello" in get(one)
    done = warm.run("ssrun.cli", str(image), "--listen", "127.0.0.1:0", "--name", "one", env=place.env)
    assert done.returncode == 1


def test_a_folder_that_others_may_write_to_is_refused(image: Path, place: Place) -> None:
    place.folder.mkdir()
    place.folder.chmod(0o777)
    with place.serving(image) as one:
        assert "must be a folder that only this user can write to" in one.event["warnings"][0]


def test_a_folder_s_path_may_be_long(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    place = Place(folder)
    with place.serving(image, "--name", "one") as one:
        assert one.event["warnings"] == []
        assert list(place.listed()) == ["one"]


def test_drained_it_refuses_and_ends_what_is_begun(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one") as one:
        with one.connect() as slow:
            slow.sendall(b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            file = slow.makefile("rb")
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
            assert place.ssrun("drain") == "one accepts no more connections; 1 answer is being finished\n"
            assert place.listed()["one"]["state"] == "draining"
            with pytest.raises(ConnectionRefusedError):
                one.connect()
            assert len(file.read()) > 8 << 20
        assert json.loads(place.ssrun("drain", "one", "--json"))["connections"] == 0
        assert one.process.poll() is None
        assert one.end() == 0


def test_a_command_s_name_is_the_command_and_its_path_an_image(image: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(image.read_bytes())
    place = Place(tmp_path / "run")
    assert warm.run("ssrun.cli", "list", cwd=tmp_path, env=place.env).stdout == ""
    words = [sys.executable, "-m", "ssrun.cli", "./list", "--json", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=place.env)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "serving"
    process.terminate()
    process.communicate(timeout=DEADLINE_S)
    assert warm.run("ssrun.cli", "list", "--frobnicate").returncode == 2


def test_names() -> None:
    assert derived_name("ix0", "", "80") == "ix0-80"
    assert derived_name("pcap:/x/in.pcap:out", "80") == "pcap:-x-in.pcap:out-80"
    assert derived_name("vale0:1", "2001:db8::1", "80") == "vale0:1-2001:db8::1-80"
    for parts in (("",), ("/",), ("..",), ("é",), ("x" * 200, "80"), ("a b\n",), ("-x",)):
        assert check_name(derived_name(*parts)) is None
    for name in ("", ".", "..", "a/b", "-x", ".x", "a b", "x" * (NAME_MAX + 1), "é", "a\n", "\0"):
        assert check_name(name) is not None


def test_a_bad_name_is_wrong_usage(image: Path) -> None:
    done = warm.run("ssrun.cli", str(image), "--listen", "127.0.0.1:0", "--name", "a/b")
    assert done.returncode == 2
    assert "'a/b' is no name" in done.stderr
