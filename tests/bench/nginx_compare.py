"""Requests per second beside nginx, in one run: `make bench`. Writes docs/benchmarks.md.

Both servers run on core 0 in the same namespace, the same wrk on core 1 in another; repeats are interleaved. nginx has
reno instead of this kernel's default, the better of sendfile on and off, one worker, and no access log.

    python tests/bench/nginx_compare.py [--seconds 10] [--repeats 3] [--output docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from host import build
from net import SERVER4, Namespace, another_server, namespace, nginx_command, run, ssrun, veth_pair

SIZES = {"100 B": 100, "1 KB": 1024, "22 KB": 22 * 1024, "100 KB": 100 * 1024, "1 MB": 1024 * 1024}
SYSTEMS = ("nginx", "TAP", "AF_PACKET", "AF_XDP")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
NGINX_MAIN = "worker_cpu_affinity 01;"
NGINX_HTTP = """
    sendfile {sendfile};
    tcp_nopush on;
    open_file_cache max=1000;
    keepalive_requests 1000000000;
"""


@dataclass
class Reading:
    """One run of wrk."""

    requests_s: float
    errors: str
    cores: tuple[float, float]  # busy, of the server's and the client's


def cpu_times() -> list[tuple[int, int]]:
    """Busy and idle ticks of each core."""
    found = []
    for line in Path("/proc/stat").read_text().splitlines():
        if re.match(r"cpu\d", line):
            ticks = [int(word) for word in line.split()[1:9]]
            idle = ticks[3] + ticks[4]
            found.append((sum(ticks) - idle, idle))
    return found


def wrk(client: Namespace, url: str, close: bool, seconds: int) -> Reading:
    """64 connections from core 1."""
    header = ["-H", "Connection: close"] if close else []
    before = cpu_times()
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{seconds}s", *header, url]
    text = client.run(*command, timeout_s=seconds + 30).stdout
    after = cpu_times()
    busy = [(a[0] - b[0]) / max(1, a[0] - b[0] + a[1] - b[1]) for a, b in zip(after, before, strict=True)]
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    errors = re.search(r"(Socket errors|Non-2xx).*", text)
    if rate is None:
        raise RuntimeError(text)
    return Reading(float(rate[1]), errors[0] if errors else "", (busy[0], busy[1]))


@contextlib.contextmanager
def nginx(files: Path, sendfile: str) -> Iterator[tuple[Namespace, str]]:
    """nginx over veth."""
    with veth_pair() as (server, client), tempfile.TemporaryDirectory() as folder:
        server.run("sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
        http = NGINX_HTTP.format(sendfile=sendfile)
        command = nginx_command(files, Path(folder), main=NGINX_MAIN, http=http)
        with another_server(server, client, "taskset", "-c", "0", *command):
            yield client, f"http://{SERVER4}"


@contextlib.contextmanager
def sandstorm(image: Path, system: str) -> Iterator[tuple[Namespace, str]]:
    """ssrun over one of its ports."""
    with contextlib.ExitStack() as stack:
        if system == "TAP":
            server = client = stack.enter_context(namespace("tap"))
            options = ["--iface", "tap:sand0"]
        else:
            server, client = stack.enter_context(veth_pair())
            options = ["--iface", "srv0", "--backend", "packet" if system == "AF_PACKET" else "afxdp"]
        running = stack.enter_context(ssrun(image, server, client, *options))
        run("taskset", "-acp", "0", str(running.process.pid))
        yield client, f"http://{running.hosts[0]}"


def prepare(client: Namespace) -> None:
    """Ports enough for short connections, for both servers alike."""
    client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1")


Opener = Callable[[], contextlib.AbstractContextManager[tuple[Namespace, str]]]


def measure(openers: dict[str, Opener], seconds: int, repeats: int) -> dict[tuple[str, str, bool], list[Reading]]:
    """Readings by system, size and close; systems take turns."""
    readings: dict[tuple[str, str, bool], list[Reading]] = {}
    for repeat in range(repeats):
        for system, opener in openers.items():
            with opener() as (client, url):
                prepare(client)
                for size, size_bytes in SIZES.items():
                    for close in (False, True):
                        reading = wrk(client, f"{url}/{size_bytes}.bin", close, seconds)
                        readings.setdefault((system, size, close), []).append(reading)
                        how = "close" if close else "keep-alive"
                        print(f"{repeat} {system:16} {size:6} {how:10} {reading.requests_s:10.0f} {reading.errors}")
    return readings


def best_sendfile(files: Path) -> str:
    """on or off, whichever serves 22 KB faster here."""
    rates = {}
    for sendfile in ("on", "off"):
        with nginx(files, sendfile) as (client, url):
            rates[sendfile] = wrk(client, f"{url}/{SIZES['22 KB']}.bin", False, 2).requests_s
    return max(rates, key=lambda name: rates[name])


def cell(readings: list[Reading], base: list[Reading]) -> str:
    """Median, and its ratio to nginx's."""
    median = statistics.median(reading.requests_s for reading in readings)
    ratio = median / statistics.median(reading.requests_s for reading in base)
    return f"{median:,.0f} ({ratio:.2f})"


def cores(readings: list[Reading]) -> str:
    """Busy share of both cores."""
    pairs = [reading.cores for reading in readings]
    return " / ".join(f"{100 * statistics.median(pair[i] for pair in pairs):.0f}" for i in (0, 1))


def version(*command: str) -> str:
    """A program's version line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def page(readings: dict[tuple[str, str, bool], list[Reading]], sendfile: str, seconds: int, repeats: int) -> str:
    """docs/benchmarks.md."""
    text = (ROOT / "tests" / "bench" / "benchmarks.template.md").read_text()
    tables = []
    for close, title in ((False, "Keep-alive"), (True, "`Connection: close`")):
        lines = [f"### {title}\n", f"| file | {' | '.join(SYSTEMS)} |", f"|---|{'---|' * len(SYSTEMS)}"]
        for size in SIZES:
            base = readings["nginx", size, close]
            row = [cell(readings[system, size, close], base) for system in SYSTEMS]
            lines.append(f"| {size} | {' | '.join(row)} |")
        lines += ["", f"Busy, server's core / client's core, %, at 22 KB: " + ", ".join(  # noqa: F541
            f"{system} {cores(readings[system, '22 KB', close])}" for system in SYSTEMS
        ) + ".", ""]  # fmt: skip
        tables.append("\n".join(lines))
    errors = [f"{key}: {reading.errors}" for key, each in readings.items() for reading in each if reading.errors]
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    machine = f"{os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}, Linux {platform.release()}"
    values = {
        "machine": machine,
        "nginx": version("nginx", "-v").removeprefix("nginx version: "),
        "sendfile": sendfile,
        "seconds": str(seconds),
        "repeats": str(repeats),
        "tables": "\n".join(tables),
        "errors": "\n".join(errors) or "none in any run",
    }
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], text)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10, help="of each run of wrk")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for network namespaces")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        files = Path(folder) / "files"
        files.mkdir()
        for size in SIZES.values():
            (files / f"{size}.bin").write_bytes(os.urandom(size))
        image = build(files, Path(folder) / "bench.img")
        sendfile = best_sendfile(files)
        openers: dict[str, Opener] = {"nginx": lambda: nginx(files, sendfile)}
        for system in SYSTEMS[1:]:
            openers[system] = lambda system=system: sandstorm(image, system)  # type: ignore[misc]
        readings = measure(openers, arguments.seconds, arguments.repeats)
        arguments.output.write_text(page(readings, sendfile, arguments.seconds, arguments.repeats))
    if any(reading.errors for each in readings.values() for reading in each):
        sys.exit("bench: wrk met errors; the page lists them")


if __name__ == "__main__":
    main()
