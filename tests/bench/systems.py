"""What is compared: servers of others and ssrun over its ports, each in a namespace with a veth to the load's, on cores of their own."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import cpu, peers
from tests.host import build
from tests.net import (
    CLIENT4,
    SERVER4,
    Namespace,
    Running,
    another_server,
    namespace,
    pin,
    processes,
    run,
    ssrun,
    veth_pair,
)

ROOT = Path(__file__).resolve().parents[2]
SERVER_CORE, LOAD_CORE = 0, 1
PAPERS_BYTES = 22_000  # the paper's image
SIZES = (100, 1_000, 4_000, PAPERS_BYTES, 100_000, 1_000_000, 10_000_000)
TAP_NAME = "sand0"


@dataclass(frozen=True)
class System:
    """One of those that are compared."""

    name: str
    backend: str = ""  # of ssrun; else it is a peer
    options: tuple[str, ...] = ()
    server: str = "nginx"  # which peer
    sendfile: str = ""  # of nginx; else the site's
    loopback: bool = False  # the client's connections are over lo, in the server's namespace
    segments: bool = True  # the server's veth takes what is longer than a frame (TSO, GSO)


NGINX = System("nginx")
H2O = System("h2o", server="h2o")
LIGHTTPD = System("lighttpd", server="lighttpd")
PEERS = (NGINX, H2O, LIGHTTPD)
# Each in all its ways: who is best at a size, is found by measuring.
PEER_WAYS = (
    System("nginx, sendfile on", sendfile="on"),
    System("nginx, sendfile off", sendfile="off"),
    *PEERS[1:],
    *(replace(peer, name=f"{peer.name} over lo", loopback=True) for peer in PEERS),
)
PEERS_SINGLE = tuple(replace(peer, name=f"{peer.name}, TSO off", segments=False) for peer in PEERS)
SUPERFRAMES = System("ssrun, AF_PACKET", "packet", ("--resident",))  # up to 44 segments behind one header
TAP = System("ssrun, TAP", "tap", ("--resident",))  # the same
SINGLE = System("ssrun, AF_PACKET, frame by frame", "packet", ("--resident", "--superframe", "1"))
ZERO_COPY = System("ssrun, AF_XDP", "afxdp")
MEMCPY = System("ssrun, AF_XDP, memcpy", "afxdp", ("--tx", "memcpy"))
PORTS = (SUPERFRAMES, TAP, ZERO_COPY)
POLLING = tuple(
    replace(port, name=f"{port.name}, --busy-poll", options=(*port.options, "--busy-poll")) for port in PORTS
)
SYSTEMS = (*PEERS, *PORTS, MEMCPY)


@dataclass(frozen=True)
class Site:
    """The same files for all: as a folder and as an image."""

    folder: Path
    image: Path
    sendfile: str = "on"  # for nginx

    def path(self, size_bytes: int) -> str:
        return f"/{size_bytes}"

    def target(self, size_bytes: int) -> str:
        """As loadgen takes it: the path, and what must come."""
        return f"{self.path(size_bytes)}={self.folder / str(size_bytes)}"


def make_site(folder: Path, sizes: tuple[int, ...] = SIZES) -> Site:
    """A file of each size, of bytes that nothing can shorten."""
    folder.chmod(0o755)
    files = folder / "files"
    files.mkdir()
    for size in sizes:
        (files / str(size)).write_bytes(os.urandom(size))
    return Site(files, build(files, folder / "bench.img"))


@dataclass(frozen=True)
class Serving:
    """A server that runs."""

    system: System
    server: Namespace
    client: Namespace
    interface: str  # the client's
    pid: int

    def pids(self) -> list[int]:
        """Its processes."""
        return processes(self.pid)

    def cpu_s(self) -> float:
        """How long they have run, with all their threads."""
        files = [file for pid in self.pids() for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9


@contextlib.contextmanager
def link(system: System) -> Iterator[tuple[Namespace, Namespace, str]]:
    """The server's namespace, the client's, and the interface there."""
    if system.backend == "tap" or system.loopback:
        with namespace("bench") as space:
            if system.loopback:
                space.ip("addr", "add", f"{SERVER4}/32", "dev", "lo")
            yield space, space, "lo" if system.loopback else TAP_NAME
        return
    with veth_pair() as (server, client):
        if not system.segments:
            server.run("ethtool", "-K", "srv0", "tso", "off", "gso", "off")
        yield server, client, "cli0"


def ssrun_options(system: System, workers: int) -> list[str]:
    """How ssrun is started."""
    options = ["--workers", str(workers), "--max-connections", str(peers.MAX_CONNECTIONS), *system.options]
    if system.backend == "tap":
        addresses = ["--address", f"{SERVER4}/24", "--host-address", f"{CLIENT4}/24"]
        return ["--iface", f"tap:{TAP_NAME}", *addresses, *options]
    return ["--iface", "srv0", "--backend", system.backend, *options]


@contextlib.contextmanager
def peer(system: System, site: Site, server: Namespace, client: Namespace, cores: list[int]) -> Iterator[Running]:
    """A server of others, on these cores."""
    server.run("sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
    with tempfile.TemporaryDirectory() as folder:
        words = peers.command(
            system.server, site.folder, Path(folder), cores, sendfile=system.sendfile or site.sendfile
        )
        with another_server(server, client, "taskset", "-c", ",".join(map(str, cores)), *words) as running:
            yield running


def present(systems: tuple[System, ...]) -> tuple[System, ...]:
    """Those that are here: the page names the others."""
    return tuple(system for system in systems if system.backend or peers.program(system.server))


@contextlib.contextmanager
def serve(system: System, site: Site, workers: int = 1, core: int = SERVER_CORE) -> Iterator[Serving]:
    """A system on this core and those after it, a worker on each."""
    cores = [core + number for number in range(workers)]
    with contextlib.ExitStack() as stack:
        server, client, interface = stack.enter_context(link(system))
        # Ports enough for short connections of the kernel's.
        client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1")
        if system.backend:
            running = stack.enter_context(ssrun(site.image, server, client, *ssrun_options(system, workers)))
            if workers == 1:  # several have found a core each by themselves
                pin(running.process.pid, core)
        else:
            running = stack.enter_context(peer(system, site, server, client, cores))
        yield Serving(system, server, client, interface, running.process.pid)


def machine() -> dict[str, str]:
    """Where the figures are from."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = {"wrk": ("wrk", "-v"), "gcc": ("gcc", "--version")}
    found = {name: peers.version(name) for name in peers.NAMES}
    for name, command in versions.items():
        done = run(*command, check=False)
        found[name] = (done.stdout + done.stderr).strip().splitlines()[0]
    return {
        "cores": str(os.cpu_count()),
        "processor": model[1] if model else "unknown",
        "Linux": os.uname().release,
        "Python": sys.version.split()[0],
        "idle time": cpu.idle_source(),
        **found,
    }
