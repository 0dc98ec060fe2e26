"""Which side is the limit: loadgen and wrk on the same servers, at the same points, in turn.

    python tests/bench/loadgen/limits.py [--seconds S] [--repeats N]

The server is on core 0, the load on core 1. For each side stands what a request costs it, and how much of the time it
ran: the side that costs more is the limit, also where other work was on its core and it ran less than all the time. On
veth a sender's core does the receiver's softirq too, so each side's cost has some of the other's kernel in it; and a
side that is not the limit works in smaller batches, so it could do more than its cost says.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # so that it runs as a program
from tests.bench.loadgen.loadgen import loadgen, wrk
from tests.bench.systems import (
    LOAD_CORE,
    NGINX,
    PAPERS_BYTES,
    SUPERFRAMES,
    ZERO_COPY,
    Serving,
    Site,
    make_site,
    serve,
)
from tests.net import Namespace

FILES = (100, PAPERS_BYTES)
CONNECTIONS = (64, 1000)
SERVERS = (NGINX, SUPERFRAMES, ZERO_COPY)


@dataclass(frozen=True)
class Reading:
    """A load's run."""

    requests: int
    seconds: float
    server_cpu_s: float
    client_cpu_s: float

    @property
    def server_us(self) -> float:
        """Of a request."""
        return 1e6 * self.server_cpu_s / self.requests

    @property
    def client_us(self) -> float:
        return 1e6 * self.client_cpu_s / self.requests

    @property
    def limit(self) -> str:
        return "server" if self.server_us > self.client_us else "load"


def by_wrk(client: Namespace, path: str, connections: int, seconds: float) -> int:
    """Requests that wrk made."""
    result = wrk(client, path, connections, seconds, core=LOAD_CORE)
    if result.errors:
        raise RuntimeError(result.errors)
    return result.requests


def by_loadgen(client: Namespace, target: str, connections: int, seconds: float, backend: str) -> int:
    """Requests that loadgen made."""
    result = loadgen(
        client, target, core=LOAD_CORE, connections=connections, seconds=seconds, warmup=0, backend=backend
    )
    if result.errors:
        raise RuntimeError(str(result.errors))
    return result.requests


def reading_of(serving: Serving, load: Callable[[], int]) -> Reading:
    """The client's time is that of the command that has ended in between."""

    def client_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    server_before = serving.cpu_s()
    client_before, start = client_s(), time.monotonic()
    requests = load()
    seconds, client_cpu_s = time.monotonic() - start, client_s() - client_before
    return Reading(requests, seconds, serving.cpu_s() - server_before, client_cpu_s)


Point = tuple[str, int, int, str]


def measure(site: Site, seconds: float, repeats: int) -> dict[Point, list[Reading]]:
    readings: dict[Point, list[Reading]] = {}
    for _, system in itertools.product(range(repeats), SERVERS):
        with serve(system, site) as serving:
            for size, connections in itertools.product(FILES, CONNECTIONS):
                how = (connections, seconds)
                loads: dict[str, Callable[[], int]] = {
                    "loadgen, AF_PACKET": partial(by_loadgen, serving.client, site.target(size), *how, "packet"),
                    "loadgen, AF_XDP": partial(by_loadgen, serving.client, site.target(size), *how, "afxdp"),
                    "wrk": partial(by_wrk, serving.client, site.path(size), *how),
                }
                for name, load in loads.items():
                    reading = reading_of(serving, load)
                    readings.setdefault((system.name, size, connections, name), []).append(reading)
                    print(system.name, size, connections, name, reading, file=sys.stderr)
    return readings


def row(point: Point, readings: list[Reading]) -> str:
    """The medians."""

    def median(value: Callable[[Reading], float]) -> float:
        return statistics.median(value(reading) for reading in readings)

    limits = sorted({reading.limit for reading in readings})
    words = [
        *map(str, point),
        f"{median(lambda r: r.requests / r.seconds):,.0f}",
        f"{median(lambda r: r.server_us):.2f} ({median(lambda r: 100 * r.server_cpu_s / r.seconds):.0f} %)",
        f"{median(lambda r: r.client_us):.2f} ({median(lambda r: 100 * r.client_cpu_s / r.seconds):.0f} %)",
        " or ".join(limits),
    ]
    return f"| {' | '.join(words)} |"


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each reading")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("limits: needs root, for network namespaces")
    with tempfile.TemporaryDirectory() as folder:
        site = replace(make_site(Path(folder), FILES), sendfile="off")
        readings = measure(site, arguments.seconds, arguments.repeats)
    print("| server | file, B | connections | load | requests/s | server, us (ran) | load, us (ran) | limit |")
    print("|---|---|---|---|---|---|---|---|")
    for point, each in readings.items():
        print(row(point, each))


if __name__ == "__main__":
    main()
