"""A TCP service of the kernel's on the same interface and address, as ssh is on a box that serves, through all that happens to ssrun.

Over AF_PACKET and AF_XDP. A TAP's addresses are ssrun's alone: there is none that the kernel could have a service at.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.e2e.test_reload import BIG, FILES, Load, ask, contents, swap_to
from tests.host import build
from tests.net import SERVER4, SERVER6, Namespace, Running, needs, processes, run, serving, unpacked, until

pytestmark = needs("curl", "ssh", "ssh-keygen", "unshare")
PORT = 22
BLOCK_BYTES = 32768
WAIT_S = 60
PROGRAM = Path(__file__).with_name("beside.py")


@dataclass
class Beside:
    """A service that runs: what a client says to it comes back."""

    connect: Callable[[str], list[str]]  # the client's command, for a host


@contextlib.contextmanager
def echo(server: Namespace, folder: Path) -> Iterator[Beside]:
    process = server.popen("python3", PROGRAM, "serve", str(PORT), cwd=folder)
    try:
        yield Beside(lambda host: ["python3", str(PROGRAM), "ask", host, str(PORT)])
    finally:
        process.kill()
        process.wait()


SSHD = """
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
MaxStartups 100
"""
# The user and the folder that it wants, in a mount namespace of its own.
START = """
mount --bind "$1/passwd" /etc/passwd && mount -t tmpfs none /run && mkdir /run/sshd && exec "$2" -D -e -f "$1/sshd_config" 2>"$1/said"
"""


@contextlib.contextmanager
def sshd(server: Namespace, folder: Path) -> Iterator[Beside]:
    program = unpacked("sshd", "-V")
    if program is None:
        pytest.skip("needs sshd, which .ci/setup unpacks")
    for key in ("host", "client"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    (folder / "sshd_config").write_text(SSHD.format(port=PORT, folder=folder))
    users = Path("/etc/passwd").read_text()
    (folder / "passwd").write_text(f"{users}sshd:x:59999:65534::/run/sshd:/usr/sbin/nologin\n")
    options = {
        "IdentityFile": folder / "client",
        "UserKnownHostsFile": os.devnull,
        "StrictHostKeyChecking": "no",
        "LogLevel": "ERROR",
        "BatchMode": "yes",
        "ConnectTimeout": "30",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    process = server.popen("unshare", "--mount", "sh", "-c", START, "sh", folder, program)
    try:
        yield Beside(lambda host: ["ssh", "-F", "none", *words, f"root@{host}", "cat"])
    finally:
        process.kill()
        process.wait()


class Talk:
    """What a client has of it: connections that stay, and new ones, one after the other. All say and hear as much as they can."""

    def __init__(self, client: Namespace, beside: Beside, hosts: tuple[str, ...]) -> None:
        self.client, self.beside = client, beside
        self.over = threading.Event()
        self.wrong: list[str] = []
        self.blocks = dict.fromkeys(hosts, 0)  # that have come back over the connection that stays
        self.connections = dict.fromkeys(hosts, 0)  # that were new
        self.threads = [
            threading.Thread(target=each, args=(host,)) for host in hosts for each in (self.keep, self.renew)
        ]
        for thread in self.threads:
            thread.start()

    def popen(self, host: str) -> subprocess.Popen[bytes]:
        command = ["ip", "netns", "exec", self.client.name, *self.beside.connect(host)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def keep(self, host: str) -> None:
        process = self.popen(host)
        assert process.stdin is not None
        assert process.stdout is not None
        generator = random.Random(host)
        while not self.over.is_set():
            block = generator.randbytes(BLOCK_BYTES)
            if not self.says(process.stdin, block) or process.stdout.read(BLOCK_BYTES) != block:
                self.wrong.append(f"the connection to {host} broke off after {self.blocks[host]} blocks")
                break
            self.blocks[host] += 1
        left, said = process.communicate(timeout=WAIT_S)
        self.ends(process, f"the connection to {host}", left, said)

    @staticmethod
    def says(to: IO[bytes], block: bytes) -> bool:
        try:
            to.write(block)
            to.flush()
        except BrokenPipeError:
            return False
        return True

    def ends(self, process: subprocess.Popen[bytes], what: str, left: bytes, said: bytes) -> None:
        if process.returncode != 0 or left or said:
            self.wrong.append(f"{what}: {process.returncode}, {len(left)} bytes more: {said.decode()}")

    def renew(self, host: str) -> None:
        generator = random.Random(f"{host} new")
        while not self.over.is_set():
            block = generator.randbytes(generator.randrange(1, 3 * BLOCK_BYTES))
            process = self.popen(host)
            back, said = process.communicate(block, timeout=WAIT_S)
            self.ends(process, f"a new connection to {host}", b"" if back == block else back, said)
            self.connections[host] += 1

    def goes_on(self) -> None:
        """From now on each has said more, and heard it."""
        blocks, connections = dict(self.blocks), dict(self.connections)

        def all_did() -> bool:
            more = all(self.blocks[host] > blocks[host] + 1 for host in blocks)
            return more and all(self.connections[host] > connections[host] + 1 for host in connections)

        assert until(lambda: all_did() or bool(self.wrong), WAIT_S), (self.blocks, self.connections)
        assert self.wrong == []

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(2 * WAIT_S)
        assert self.wrong == []


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = []
    for version in range(2):
        folder = tmp_path_factory.mktemp(f"version{version}")
        for number in range(FILES):
            (folder / f"{number}.txt").write_bytes(contents(version, number))
        (folder / "big").write_bytes(bytes([version]) * BIG)
        found.append(build(folder, tmp_path_factory.mktemp("image") / f"v{version}.img"))
    return found


def kill_server(running: Running) -> None:
    _, server = processes(running.process.pid)
    os.kill(server, signal.SIGKILL)
    assert until(lambda: len(pids := processes(running.process.pid)) == 2 and pids[1] != server)


def download(running: Running, target: Path) -> subprocess.Popen[str]:
    words = ("-sS", "--limit-rate", "4M", "-m", "100", "-o", str(target), f"http://{running.hosts[0]}/big")
    process = running.client.popen("curl", *words)
    assert until(lambda: target.exists() and target.stat().st_size > 0)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["packet", "afxdp"])
@pytest.mark.parametrize("service", [echo, sshd], ids=["echo", "ssh"])
def test_through_all_of_it(
    service: Callable[[Namespace, Path], contextlib.AbstractContextManager[Beside]],
    backend: str,
    images: list[Path],
    tmp_path: Path,
) -> None:
    """No byte is lost or wrong, none is refused or reset: while another image is swapped in under load, the server is killed, it drains,
    is killed as it drains, and stops with an answer unfinished; and afterwards."""
    with serving(images[0], backend, "--drain-timeout", "60") as running, service(running.server, tmp_path) as beside:
        assert running.process.stdout is not None
        events = threading.Thread(target=running.process.stdout.read)
        events.start()
        assert until(lambda: running.client.run(*beside.connect(SERVER4), check=False).returncode == 0, 20)
        talk = Talk(running.client, beside, (SERVER4, SERVER6))
        try:
            talk.goes_on()
            load = Load(running, 2)
            for number in range(1, 9):
                swap_to(images[number % 2])
            talk.goes_on()
            assert load.end()["wrong"] == []
            for _ in range(3):
                kill_server(running)
                talk.goes_on()
            slow = download(running, tmp_path / "big")
            running.server.run(sys.executable, "-m", "ssrun.cli", "drain")
            talk.goes_on()
            kill_server(running)
            ask(images[1])
            talk.goes_on()
            running.process.terminate()
            talk.goes_on()
            assert slow.wait(100) == 0
            assert (tmp_path / "big").read_bytes() == bytes(BIG)
            assert running.process.wait(WAIT_S) == 0
            talk.goes_on()
        finally:
            talk.end()
        events.join()
