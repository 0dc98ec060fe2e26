"""`ssrun --listen systemd`: sockets that a parent has opened and passes on, as sd_listen_fds(3) has it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ssrun import listen
from ssrun.addresses import PASSED, Endpoint, parse_endpoint
from ssrun.errors import SsrunError

from tests import warm
from tests.host import build
from tests.net import needs
from tests.sockets import DEADLINE_S, listening

UNITS = Path(__file__).resolve().parents[2] / "runtime" / "systemd"
PAGE = b"<title>small</title>"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
# What a service manager does: puts descriptors where they are looked for, says so, and becomes the command.
PARENT = """
import os, sys
given, pid, *command = sys.argv[1:]
fds = [os.dup(int(fd)) for fd in given.split(",") if fd]
spare = [os.dup2(fd, 100 + number) for number, fd in enumerate(fds)]
for number, fd in enumerate(spare):
    os.dup2(fd, 3 + number)
os.environ["LISTEN_PID"] = pid or str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(fds))
os.execv(command[0], command)
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_bytes(PAGE)
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


def passing(
    image: Path, *sockets: Any, options: tuple[str, ...] = ("--listen", PASSED), pid: str = "", **how: Any
) -> Any:
    """The command, with these passed to it. pid: whom they are said to be for."""
    fds = [sock.fileno() for sock in sockets]
    front = (sys.executable, "-c", PARENT, ",".join(map(str, fds)), pid)
    return listening(image, *options, front=front, pass_fds=fds, **how)


def opened(host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


def asked(sock: socket.socket) -> socket.socket:
    """A client that has asked."""
    return asked_at(sock.getsockname()[1], sock.getsockname()[0])


def asked_at(port: int, host: str = "127.0.0.1") -> socket.socket:
    client = socket.create_connection((host, port), timeout=DEADLINE_S)
    client.sendall(GET)
    return client


def answer(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(1 << 16), b"")).partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_sockets_of_others_are_served(image: Path, workers: str) -> None:
    with opened() as one, opened("::1") as other:
        with passing(image, one, other, options=("--listen", PASSED, "--workers", workers)) as command:
            assert command.addresses == [("127.0.0.1", one.getsockname()[1]), ("::1", other.getsockname()[1])]
            for sock in (one, other) * 4:
                assert answer(asked(sock)) == PAGE
            assert command.end() == 0
        assert command.stopped["counters"]["http_requests"] == 8


def test_who_asks_before_it_runs_and_between_two_is_answered(image: Path) -> None:
    """The socket is the parent's: nobody is refused."""
    with opened() as sock:
        before = asked(sock)
        with passing(image, sock) as command:
            assert answer(before) == PAGE
            assert command.end() == 0
        between = asked(sock)
        with passing(image, sock):
            assert answer(between) == PAGE


def test_others_may_be_listened_on_beside_them(image: Path) -> None:
    with opened() as sock, passing(image, sock, options=("--listen", "127.0.0.1:0", "--listen", PASSED)) as command:
        assert len(command.addresses) == 2
        with command.connect() as client:
            client.sendall(GET)
            assert client.recv(9) == b"HTTP/1.1 "
        assert answer(asked(sock)) == PAGE


def test_answers_go_out_at_once(image: Path) -> None:
    """The options that we need are ours to set: the unit need not."""
    with opened() as sock, passing(image, sock):
        assert answer(asked(sock)) == PAGE
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_it_is_called_by_the_first_of_them(image: Path, tmp_path: Path) -> None:
    with opened() as sock:
        env = os.environ | {"RUNTIME_DIRECTORY": str(tmp_path)}
        with passing(image, sock, env=env):
            assert (tmp_path / f"127.0.0.1:{sock.getsockname()[1]}.sock").exists()


def complaint(image: Path, *sockets: Any, **how: Any) -> str:
    with pytest.raises(AssertionError) as error, passing(image, *sockets, **how):
        pass
    said = str(error.value).partition("ssrun: ")[2]
    assert "Traceback" not in said
    return said


def test_none_is_told(image: Path) -> None:
    none = (
        "--listen systemd: no sockets have been passed; start it by a socket unit (ssrun@.socket), or give an address"
    )
    assert complaint(image).startswith(none)
    with opened() as sock:  # in an environment that has come from another
        assert complaint(image, sock, pid="1").startswith(none)


def test_what_can_t_be_served_is_told(image: Path, tmp_path: Path) -> None:
    no_tcp = (
        "--listen systemd: descriptor 3 is no TCP socket; write ListenStream=PORT or ADDRESS:PORT in the socket unit"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert complaint(image, sock).startswith(no_tcp)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "x.sock"))
        sock.listen()
        assert complaint(image, sock).startswith(no_tcp)
    with socket.socket() as sock:
        assert complaint(image, sock).startswith("--listen systemd: descriptor 3 does not listen; ")
    with (tmp_path / "file").open("w") as file, opened() as good:
        assert complaint(image, good, file).startswith("--listen systemd: descriptor 4 is no socket; ")


def test_once_is_enough() -> None:
    assert str(Endpoint(PASSED, 0)) == "systemd"
    with pytest.raises(SsrunError, match="once is enough"):
        listen.all_different([Endpoint(PASSED, 0), Endpoint(PASSED, 0)])
    assert listen.check([Endpoint(PASSED, 0)]) == []  # who looks before has none


def test_it_is_no_address_for_anything_else(image: Path) -> None:
    with pytest.raises(ValueError, match="systemd"):
        parse_endpoint(PASSED)
    done = warm.run("ssrun.cli", image, "--listen", "127.0.0.1:0", "--metrics", PASSED)
    assert done.returncode == 2
    assert "'systemd' is no place for metrics" in done.stderr


@needs("systemd-socket-activate")
def test_systemd_s_own_tool_passes_them(image: Path) -> None:
    with opened() as sock:
        port = sock.getsockname()[1]  # free a moment later
    words = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}"]
    command = [sys.executable, "-m", "ssrun.cli", image, "--listen", PASSED]
    process = subprocess.Popen([*words, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Listening on ")
        assert answer(asked_at(port)) == PAGE
        process.terminate()
        output, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert "stopped: 1 requests on 1 connections" in output
    assert process.returncode == 0


@needs("systemd-analyze")
def test_the_socket_unit_is_one(tmp_path: Path) -> None:
    for name in ("ssrun@.service", "ssrun@.socket"):
        text = (UNITS / name).read_text().replace("/opt/sandstorm/bin/ssrun", "/bin/true")
        (tmp_path / name.replace("@", "@site")).write_text(text)
    words = ["systemd-analyze", "verify", tmp_path / "ssrun@site.socket"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
