"""Network namespaces, veth pairs and ssrun in them, for tests with real clients. All is removed again."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

START_S = 20
SOCKETS = Path("/run/ssrun")  # of all ssrun that root runs
SERVER4, CLIENT4 = "10.213.0.1", "10.213.0.2"
SERVER6, CLIENT6 = "fd57:1::1", "fd57:1::2"
NUMBERS = itertools.count()
SERVERS = Path(__file__).resolve().parents[1] / ".cache" / "servers" / "usr" / "bin"
# Where a client meets ssrun: the TAP device itself, or the client's end of the link.
DEVICES = {"tap": "sand0", "packet": "cli0", "afxdp": "cli0"}
BACKENDS = tuple(DEVICES)
WAYS = (*BACKENDS, "sockets")  # of serving: the last is the kernel's TCP, --listen

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000  # sched.h
MS_REC, MS_PRIVATE = 0x4000, 0x40000  # sys/mount.h

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skips, and says so, where a tool is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def unpacked(name: str, *version: str) -> str | None:
    """Where a server is that is installed or unpacked by .ci/setup, if it runs: one that lacks a library does not."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:{SERVERS}:{SERVERS.parent / 'sbin'}")
    if found is None or subprocess.run([found, *version], capture_output=True, check=False).returncode != 0:
        return None
    return found


def run(
    *command: str | Path, timeout_s: float = 60, check: bool = True, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=cwd)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def until(condition: Callable[[], bool], timeout_s: float = 10) -> bool:
    """Waits for something; whether it came in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def leave_the_network() -> None:
    """From now on this process and those that it starts have a network with a loopback and nothing else, so that no test can send
    anything to the machine's. What it mounts, as `ip netns add` does, is its own too; and so is where ssrun has its control
    sockets, or `ssrun list` would show what other tests run."""
    SOCKETS.mkdir(mode=0o700, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    sysfs, nothing = ctypes.c_char_p(b"sysfs"), ctypes.c_char_p(b"none")
    tmpfs, mode = ctypes.c_char_p(b"tmpfs"), ctypes.c_char_p(b"mode=0700")
    steps = (
        lambda: libc.unshare(CLONE_NEWNS),
        lambda: libc.mount(nothing, ctypes.c_char_p(b"/"), None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None),
        lambda: libc.mount(tmpfs, ctypes.c_char_p(os.fsencode(SOCKETS)), tmpfs, ctypes.c_ulong(0), mode),
        lambda: libc.unshare(CLONE_NEWNET),
        # It shows the interfaces of whoever mounted it.
        lambda: libc.mount(sysfs, ctypes.c_char_p(b"/sys"), sysfs, ctypes.c_ulong(0), None),
    )
    for step in steps:
        if step() != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    run("ip", "link", "set", "lo", "up")


def processes(pid: int) -> list[int]:
    """A process, and all below it: ssrun's server is one of its own, and nginx has several."""
    found = [pid]
    for each in found:
        for file in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                found += map(int, file.read_text().split())
    return found


def shared_memory(pid: int) -> set[tuple[int, int]]:
    """What a process has of memory that it shares with those that it has forked, or that has forked it: where, and how many bytes."""
    found = set()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, *_ = line.split()
        if rights == "rw-s" and line.endswith("/dev/zero (deleted)"):
            start, end = (int(word, 16) for word in span.split("-"))
            found.add((start, end - start))
    return found


def pin(pid: int, core: int) -> None:
    """Has all threads of a process, and of all below it, run on one core."""
    for each in processes(pid):
        run("taskset", "-acp", str(core), str(each))


def heed_signals() -> None:
    """To be called in a process that is to be ended by signals: whatever started the tests may ignore them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Namespace:
    """A network namespace of the test's own."""

    def __init__(self, name: str) -> None:
        self.name = name
        run("ip", "netns", "add", name)
        # Addresses can be used at once, also those that the kernel makes.
        self.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
        self.ip("link", "set", "lo", "up")

    def run(self, *command: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
        """A command inside, to its end."""
        return run("ip", "netns", "exec", self.name, *command, **how)

    def popen(self, *command: str | Path, **how: Any) -> subprocess.Popen[str]:
        """A command inside, going on."""
        words = ["ip", "netns", "exec", self.name, *map(str, command)]
        return subprocess.Popen(words, text=True, **how)

    def ip(self, *command: str, check: bool = True) -> str:
        """`ip -n`."""
        return run("ip", "-d", "-n", self.name, *command, check=check).stdout

    def mac(self, device: str) -> str:
        """A link's own address."""
        return str(json.loads(self.ip("-j", "link", "show", device))[0]["address"])

    def settle(self) -> None:
        """Waits until each link has its own IPv6 address: that comes up to a second after the link is up, and a browser gives up
        what it is loading when an address comes (net::ERR_NETWORK_CHANGED)."""

        def settled() -> bool:
            return all(map(self.has_link_local, json.loads(self.ip("-j", "addr", "show", "up"))))

        assert until(settled, START_S), self.ip("addr")

    @staticmethod
    def has_link_local(link: dict[str, Any]) -> bool:
        """Of a link as `ip -j addr` shows it; a loopback needs none."""
        scopes = {address["scope"] for address in link["addr_info"] if address["family"] == "inet6"}
        return link["link_type"] == "loopback" or "link" in scopes

    def remove(self) -> None:
        run("ip", "netns", "del", self.name, check=False)


@contextlib.contextmanager
def namespace(kind: str) -> Iterator[Namespace]:
    """A namespace for the length of a with."""
    space = Namespace(f"sandstorm-{kind}-{os.getpid()}-{next(NUMBERS)}")
    try:
        yield space
    finally:
        space.remove()


@contextlib.contextmanager
def veth_pair() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces, a server's with veth `srv0` and a client's with `cli0`."""
    with namespace("server") as server, namespace("client") as client:
        server.ip("link", "add", "srv0", "type", "veth", "peer", "name", "cli0", "netns", client.name)
        for space, device, v4, v6 in ((server, "srv0", SERVER4, SERVER6), (client, "cli0", CLIENT4, CLIENT6)):
            space.ip("addr", "add", f"{v4}/24", "dev", device)
            space.ip("addr", "add", f"{v6}/64", "dev", device, "nodad")
            space.ip("link", "set", device, "up")
        yield server, client


@dataclass
class Running:
    """ssrun, ready to answer."""

    process: subprocess.Popen[str]
    event: dict[str, Any]
    server: Namespace  # where it runs
    client: Namespace  # where clients run
    hosts: list[str]  # as they stand in URLs, IPv4 first
    stopped: dict[str, Any] = field(default_factory=dict)

    def tell(self, number: int) -> None:
        """Tells all its processes: it stands still with SIGSTOP, until SIGCONT."""
        for pid in processes(self.process.pid):
            os.kill(pid, number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it and takes in its last event; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=START_S)
        for line in output.splitlines():
            self.stopped = json.loads(line)
        return self.process.returncode


def ssrun_command(image: Path, *options: str, module: str = "ssrun.cli") -> list[str]:
    """The command as it is installed beside this Python. module: ssrun.kv serves a store in the same way."""
    return [sys.executable, "-m", module, str(image), "--json", *options]


@contextlib.contextmanager
def ssrun(image: Path, space: Namespace, client: Namespace, *options: str, **which: str) -> Iterator[Running]:
    """ssrun in a namespace, for the length of a with."""
    command = ssrun_command(image, *options, **which)
    process = space.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _, error = process.communicate(timeout=START_S)
        raise AssertionError(f"ssrun did not start: {error}")
    event = json.loads(line)
    hosts = [url.partition("://")[2].rstrip("/") for url in event["urls"]]
    running = Running(process, event, space, client, hosts)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.stop()


@contextlib.contextmanager
def serving(image: Path, backend: str, *options: str, port: int = 80, **which: str) -> Iterator[Running]:
    """An image over one of the ports, or sockets: the network, ssrun and a client's namespace. port: of sockets."""
    if backend == "sockets":
        listen = ("--listen", f"{SERVER4}:{port}", "--listen", f"[{SERVER6}]:{port}")
        with veth_pair() as (server, client), ssrun(image, server, client, *listen, *options, **which) as running:
            yield running
    elif backend == "tap":
        with (
            namespace("tap") as space,
            ssrun(image, space, space, "--iface", "tap:sand0", *options, **which) as running,
        ):
            yield running
    else:
        with (
            veth_pair() as (server, client),
            ssrun(image, server, client, "--iface", "srv0", "--backend", backend, *options, **which) as running,
        ):
            yield running


MARK_TYPE = 0x88B5  # IEEE Std 802: for local experiments
SEND_FRAME = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
    link.bind((sys.argv[1], 0))
    link.send(bytes.fromhex(sys.argv[2]))
"""


@contextlib.contextmanager
def tcpdump(space: Namespace, device: str, path: Path, filter_: str, *options: str) -> Iterator[None]:
    """All that passes a device. The last frame is one of ours, and tcpdump is ended once it has written that.

    If the device is gone by then, tcpdump writes what it has read and ends by itself; that is everything with
    --immediate-mode, which needs a short snapshot (-s) too, as each frame then takes that much of the buffer."""
    wanted = f"({filter_}) or ether proto {MARK_TYPE:#x}"
    command = ["tcpdump", "-i", device, "-w", path, "-U", "-B", "65536", "-Z", "root", *options]
    process = space.popen(*command, wanted, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()  # it listens
    try:
        yield
        mark = os.urandom(16)
        frame = bytes(12) + MARK_TYPE.to_bytes(2, "big") + mark
        if space.run(sys.executable, "-c", SEND_FRAME, device, frame.hex(), check=False).returncode == 0:
            assert until(lambda: mark in path.read_bytes(), START_S), "tcpdump is behind"
            process.terminate()
        _, said = process.communicate(timeout=START_S)
        assert re.search(r"^0 packets dropped by kernel", said, re.MULTILINE), said
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def another_server(
    server: Namespace, client: Namespace, *command: str | Path, port: int = 80, **how: Any
) -> Iterator[Running]:
    """A server that nobody here wrote, from when it listens on its port."""
    process = server.popen(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)
    try:
        deadline = time.monotonic() + START_S
        while (
            re.search(rf":{port:04X} [0-9A-F]+:0000 0A", server.run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout)
            is None
        ):
            assert process.poll() is None, f"{command[0]} has ended"
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.1)
        yield Running(process, {}, server, client, [SERVER4])
    finally:
        process.terminate()
        process.wait()


NGINX = """
user root; daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes {workers}; {main}
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {http}
    server {{ listen 80 reuseport; root {root}; }}
}}
"""


def nginx_command(root: Path, folder: Path, *, workers: int = 1, main: str = "", http: str = "") -> list[str]:
    """nginx that serves a folder, with directives beside the usual ones; `folder` takes what it writes."""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, root=root, workers=workers, main=main, http=http))
    return ["nginx", "-c", str(config)]
