"""What is compared: nginx and ssrun over its ports, each in a namespace with a veth to the load's, on cores of their own."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from host import build
from net import Namespace, another_server, nginx_command, run, ssrun, veth_pair

NGINX_HTTP = """
    sendfile {sendfile};
    tcp_nopush on;
    open_file_cache max=1000;
    keepalive_requests 1000000000;
"""
SERVER_CORE, LOAD_CORE = 0, 1
PAPERS_BYTES = 22_000  # the paper's image
SIZES = (100, 1_000, 4_000, PAPERS_BYTES, 100_000, 1_000_000, 10_000_000)
MAX_CONNECTIONS = 16_384


@dataclass(frozen=True)
class System:
    """One of those that are compared."""

    name: str
    backend: str = ""  # of ssrun; else it is nginx
    options: tuple[str, ...] = ()


NGINX = System("nginx")
SUPERFRAMES = System("ssrun, AF_PACKET", "packet")  # up to 44 segments behind one header
ZERO_COPY = System("ssrun, AF_XDP", "afxdp")
MEMCPY = System("ssrun, AF_XDP, memcpy", "afxdp", ("--tx", "memcpy"))
SYSTEMS = (NGINX, SUPERFRAMES, ZERO_COPY, MEMCPY)


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

    server: Namespace
    client: Namespace
    pid: int

    def pids(self) -> list[int]:
        """Its processes: nginx has several."""
        return [int(word) for word in run("ip", "netns", "pids", self.server.name).stdout.split()]


@contextlib.contextmanager
def serve(system: System, site: Site, workers: int = 1) -> Iterator[Serving]:
    """A system on cores 0, 1, ..., a worker on each."""
    with contextlib.ExitStack() as stack:
        server, client = stack.enter_context(veth_pair())
        # Ports enough for short connections of the kernel's.
        client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1")
        cores = ",".join(str(SERVER_CORE + number) for number in range(workers))
        if system.backend:
            options = ["--iface", "srv0", "--backend", system.backend, "--max-connections", str(MAX_CONNECTIONS)]
            running = stack.enter_context(ssrun(site.image, server, client, *options, *system.options))
            run("taskset", "-acp", cores, str(running.process.pid))
        else:
            server.run("sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            masks = " ".join(f"{1 << (SERVER_CORE + number):b}" for number in range(workers))
            command = nginx_command(
                site.folder,
                Path(folder),
                workers=workers,
                main=f"worker_cpu_affinity {masks}; worker_rlimit_nofile 65536;",
                http=NGINX_HTTP.format(sendfile=site.sendfile),
            )
            running = stack.enter_context(another_server(server, client, "taskset", "-c", cores, *command))
        yield Serving(server, client, running.process.pid)


def machine() -> dict[str, str]:
    """Where the figures are from."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = {"nginx": ("nginx", "-v"), "wrk": ("wrk", "-v"), "gcc": ("gcc", "--version")}
    found = {}
    for name, command in versions.items():
        done = run(*command, check=False)
        found[name] = (done.stdout + done.stderr).strip().splitlines()[0]
    return {
        "cores": str(os.cpu_count()),
        "processor": cpu[1] if cpu else "unknown",
        "Linux": os.uname().release,
        "Python": sys.version.split()[0],
        **found,
    }
