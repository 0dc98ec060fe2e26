"""Where two cores' time goes while a server serves: samples of perf, each given to the side whose work it is.

On a virtual link a sender's core does the receiver's softirq too. So work is not told by its core: what is below the
kernel's receive path belongs to the other side, on either core.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.figures import WARMUP_S, Bench, connections_for
from tests.bench.systems import (
    LOAD_CORE,
    PAPERS_BYTES,
    PEERS,
    PEERS_SINGLE,
    PORTS,
    SERVER_CORE,
    SINGLE,
    ZERO_COPY,
    Serving,
    System,
)

Row = dict[str, Any]

SAMPLES_S = 1999  # of each core; not in step with a timer's ticks
SIZES = (1_000, PAPERS_BYTES)
SETTLE_S = 0.2  # of perf, until it samples
# Whoever has one of these above it in a call chain receives.
RECEIVING = re.compile(r"^(__)?netif_receive_skb|^process_backlog$|^net_rx_action$|^__napi_poll$|^veth_poll$")
PACKET_SOCKET = re.compile(r"^t?packet_rcv")
COPYING = re.compile(r"copy|mem(cpy|move)|rep_movs|csum_partial")  # memcpy is also __pi_memcpy
KERNEL_FIRST = 1 << 63

USER, KERNEL, COPIES, RECEIVES = "server, user", "server, kernel", "server, kernel's copies", "server, receiving"
LOAD, LOAD_RECEIVES, OTHER, IDLE = "load", "load, receiving", "other", "idle"
SERVER = (USER, KERNEL, COPIES, RECEIVES)  # what a request costs the server's side
CATEGORIES = (*SERVER, LOAD_RECEIVES, LOAD, OTHER, IDLE)


@dataclass(frozen=True)
class Sample:
    """A core's call chain at a moment, the innermost first."""

    pid: int
    core: int
    chain: tuple[tuple[int, str], ...]


def samples(lines: Iterable[str]) -> Iterator[Sample]:
    """Of `perf script -F pid,cpu,ip,sym`: a line for each sample, below it one for each function, and an empty one."""
    head: re.Match[str] | None = None
    chain: list[tuple[int, str]] = []
    for line in [*lines, ""]:
        words = line.split()
        if not words:
            if head is not None:
                yield Sample(int(head[1]), int(head[2]), tuple(chain))
            head, chain = None, []
        elif head is None:
            head = re.match(r"\s*(\d+)\s+\[(\d+)\]", line)
        else:
            chain.append((int(words[0], 16), words[1] if len(words) > 1 else ""))


@dataclass(frozen=True)
class Sides:
    """Who is who. sockets: the server receives by the kernel's TCP, and sends from within its softirq too."""

    server_pids: frozenset[int]
    sockets: bool
    server_core: int = SERVER_CORE

    def category(self, sample: Sample) -> str:
        """Whose work a sample is, and what."""
        names = [name for _, name in sample.chain]
        if any(RECEIVING.match(name) for name in names):
            return self.receiver(sample.core, names)
        if sample.pid in self.server_pids:
            return self.own(sample.chain)
        if sample.pid == 0:
            return IDLE
        return OTHER if sample.core == self.server_core else LOAD

    def receiver(self, core: int, names: list[str]) -> str:
        """The other one than the core's; what comes to a packet socket is never for a server that has none."""
        to_load = core == self.server_core or (self.sockets and any(PACKET_SOCKET.match(name) for name in names))
        return LOAD_RECEIVES if to_load else RECEIVES

    def own(self, chain: tuple[tuple[int, str], ...]) -> str:
        """What the server itself does."""
        at, name = chain[0] if chain else (0, "")
        if at < KERNEL_FIRST:
            return USER
        return COPIES if COPYING.search(name) else KERNEL


def cores_spent(found: Iterable[Sample], sides: Sides) -> dict[int, dict[str, float]]:
    """For each core the share of each category."""
    counts: dict[int, Counter[str]] = {SERVER_CORE: Counter(), LOAD_CORE: Counter()}
    for sample in found:
        if sample.core in counts:
            counts[sample.core][sides.category(sample)] += 1
    return {
        core: {name: round(count[name] / max(1, count.total()), 4) for name in CATEGORIES}
        for core, count in counts.items()
    }


@contextlib.contextmanager
def recorded(seconds: float) -> Iterator[Path]:
    """perf's file of the next seconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "perf.data"
        which = ["-a", "-C", f"{SERVER_CORE},{LOAD_CORE}", "-e", "cpu-clock", "-F", str(SAMPLES_S), "-g"]
        command = ["perf", "record", "-q", *which, "-o", str(file), "--", "sleep", str(seconds)]
        subprocess.run(command, check=True, capture_output=True, timeout=seconds + 30)
        yield file


def script(file: Path) -> list[str]:
    """What perf recorded, as text."""
    command = ["perf", "script", "--no-inline", "-F", "pid,cpu,ip,sym", "-i", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()


def why_not() -> str:
    """Why there can be no samples here, or nothing."""
    if shutil.which("perf") is None:
        return "perf is missing (Debian: linux-perf)"
    command = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-o", "/dev/null", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"perf can't record: {done.stderr.strip().splitlines()[-1]}"


def reading(bench: Bench, serving: Serving, size_bytes: int) -> Row:
    """A load, and meanwhile perf: what a request takes of the server's side, in us."""
    options = {"connections": connections_for(size_bytes), "seconds": bench.seconds + 4 * SETTLE_S}
    with ThreadPoolExecutor(1) as pool:
        before, start = serving.cpu_s(), time.monotonic()
        load = pool.submit(bench.load, serving, size_bytes, **options)
        time.sleep(WARMUP_S + SETTLE_S)
        with recorded(bench.seconds) as file:
            row = load.result()
            ran = (serving.cpu_s() - before) / (time.monotonic() - start)
            sides = Sides(frozenset(serving.pids()), sockets=not serving.system.backend)
            cores = cores_spent(samples(script(file)), sides)
    request_us = {
        name: round(1e6 * (cores[SERVER_CORE][name] + cores[LOAD_CORE][name]) / max(0.1, row["requests_s"]), 3)
        for name in (*SERVER, LOAD_RECEIVES)
    }
    server_us = sum(request_us[name] for name in SERVER)
    return {
        "size_bytes": size_bytes,
        **row,
        "process_share": round(ran, 3),  # of a core, as the scheduler counts
        "server_core": cores[SERVER_CORE],
        "load_core": cores[LOAD_CORE],
        "request_us": request_us,
        "server_us": round(server_us, 3),
        "requests_cpu_s": round(1e6 / server_us) if server_us else 0,
    }


def compare(bench: Bench, systems: tuple[System, ...], sizes: tuple[int, ...]) -> list[Row]:
    """These systems at these sizes; of repeats those in which a request costs least."""
    reason = why_not()
    if reason:
        return [{"skipped": reason}]
    return bench.each(systems, lambda serving: [reading(bench, serving, size) for size in sizes], least="server_us")


def shares(bench: Bench) -> list[Row]:
    """Superframes of both sides, and AF_XDP beside them."""
    return compare(bench, (*PEERS, *PORTS), SIZES)


def packet_by_packet(bench: Bench) -> list[Row]:
    """As on the paper's NIC: no side hands the other more than a frame."""
    return compare(bench, (*PEERS_SINGLE, ZERO_COPY, SINGLE), (PAPERS_BYTES,))
