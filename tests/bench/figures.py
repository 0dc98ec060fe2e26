"""The measurements behind docs/benchmarks: each function gives the rows of one figure, as JSON has them.

Systems take turns within a repeat, so that what changes on the machine meanwhile meets all of them.
"""

from __future__ import annotations

import contextlib
import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.bars import FULL
from tests.bench.loadgen.loadgen import Result, loadgen, wrk
from tests.bench.systems import (
    LOAD_CORE,
    NGINX,
    PAPERS_BYTES,
    PEERS,
    PORTS,
    SERVER_CORE,
    SIZES,
    SUPERFRAMES,
    SYSTEMS,
    TAP,
    ZERO_COPY,
    Serving,
    Site,
    System,
    present,
    run,
    serve,
)

Row = dict[str, Any]

LOW_CONCURRENCY = (1, 2, 4, 8, 16)  # where a server falls asleep between requests
CONCURRENCY = (*LOW_CONCURRENCY, 64, 256, 1024)
WRK_CONCURRENCY = (*LOW_CONCURRENCY, 64, 256)
WARMUP_S = 0.2
MANY = 1_000  # answers in a point; of fewer long ones the bytes tell the rate, as the last ones are cut off
CROWD = 10_000
WORKER_CONNECTIONS = (16, 256)
LONG = 1_000_000  # files that eight connections at once are enough for
TRACE_BYTES, TRACE_CONNECTIONS, TRACE_MS = 1_000_000, 32, 60


def are_many(requests: int, size_bytes: int) -> bool:
    """Whether answers tell the rate; of short ones the heads would be most of the bytes."""
    return requests >= MANY or size_bytes < LONG


def row_of(found: Result, size_bytes: int) -> Row:
    """What is kept of a reading."""
    rate = found.requests_s if are_many(found.requests, size_bytes) else found.bytes / size_bytes / found.seconds
    server, load = found.cores[SERVER_CORE], found.cores[LOAD_CORE]
    return {
        "requests_s": round(rate, 1),
        "gbit_s": round(found.bytes * 8 / found.seconds / 1e9, 3),
        "server_busy": round(server, 3),
        "load_busy": round(load, 3),
        "limit": "server" if server > FULL else "load" if load > FULL else "neither",
        "server_us": round(1e6 * server / max(rate, 0.1), 2),  # of its core, softirq with it
        "latency_us": found.latency_us,
        "errors": found.errors,
    }


class Bench:
    """How long each point takes, how often, and on what site."""

    def __init__(self, site: Site, seconds: float, repeats: int) -> None:
        self.site = site
        self.seconds = seconds
        self.repeats = repeats

    def loadgen(self, serving: Serving, size_bytes: int, **options: Any) -> Result:
        """A reading of loadgen's."""
        return loadgen(
            serving.client,
            self.site.target(size_bytes),
            core=LOAD_CORE,
            **{"seconds": self.seconds, "warmup": WARMUP_S, "backend": "packet", "interface": serving.interface}
            | options,
        )

    def load(self, serving: Serving, size_bytes: int, **options: Any) -> Row:
        """loadgen's reading: a row."""
        return row_of(self.loadgen(serving, size_bytes, **options), size_bytes)

    def wrk(self, serving: Serving, size_bytes: int, connections: int, *, close: bool = False) -> Row:
        """The kernel's TCP as client."""
        path = self.site.path(size_bytes)
        found = wrk(serving.client, path, connections, self.seconds, core=LOAD_CORE, close=close)
        rate = found.requests_s if are_many(found.requests, size_bytes) else found.bytes_s / size_bytes
        return {
            "requests_s": round(rate, 1),
            "server_busy": round(found.cores[SERVER_CORE], 3),
            "load_busy": round(found.cores[LOAD_CORE], 3),
            "latency_us": found.latency_us,
            "errors": {"wrk": found.errors} if found.errors else {},
        }

    def readings(self, systems: tuple[System, ...], points: Callable[[Serving], list[Row]]) -> list[list[Row]]:
        """All points of each system in turn: for each point one row of each repeat."""
        found: dict[tuple[str, int], list[Row]] = {}
        for _ in range(self.repeats):
            for system in present(systems):
                with serve(system, self.site) as serving:
                    for number, row in enumerate(points(serving)):
                        found.setdefault((system.name, number), []).append({"system": system.name, **row})
        return list(found.values())

    def each(self, systems: tuple[System, ...], points: Callable[[Serving], list[Row]], least: str = "") -> list[Row]:
        """Of the readings' repeats the best: most requests a second, or the least in a column. What disturbs only slows."""
        best = [best_of(rows, least) for rows in self.readings(systems, points)]
        for row in best:
            show(row)
        return best


def best_of(rows: list[Row], least: str) -> Row:
    """One of them, with the least of all rows' response times at each percentile. One that did not bear its load comes last, and
    nothing costs nothing: a zero is a reading that failed."""

    def order(row: Row) -> tuple[bool, float]:
        value = (row[least] or math.inf) if least else -row["requests_s"]
        return not row.get("borne", True), value

    best = min(rows, key=order)
    if "latency_us" not in best:
        return best
    read = {name: [row["latency_us"].get(name) or math.inf for row in rows] for name in best["latency_us"]}
    least_us = {name: min(values) for name, values in read.items()}
    return best | {"latency_us": {name: 0.0 if value == math.inf else value for name, value in least_us.items()}}


def show(row: Row) -> None:
    """What is read, as it comes."""
    values = {key: value for key, value in row.items() if key not in ("latency_us", "errors")}
    values |= {name: value for name, value in row.get("latency_us", {}).items() if name in ("p50", "p99")}
    print("  ", *(f"{key}={value}" for key, value in values.items()), flush=True)


def connections_for(size_bytes: int) -> int:
    """So many that a server is never without work."""
    return 64 if size_bytes < LONG else 8


def best_sendfile(bench: Bench) -> Site:
    """On or off, whichever serves the paper's file faster here."""
    rates = dict.fromkeys(("on", "off"), 0.0)
    for _ in range(bench.repeats):
        for sendfile in rates:
            site = replace(bench.site, sendfile=sendfile)
            with serve(NGINX, site) as serving:
                rate = Bench(site, bench.seconds, 1).load(serving, PAPERS_BYTES, connections=64)["requests_s"]
            rates[sendfile] = max(rates[sendfile], rate)
    return replace(bench.site, sendfile=max(rates, key=lambda name: rates[name]))


def throughput(bench: Bench) -> list[Row]:
    """The paper's figure 3: requests a second of 22 KB by concurrency; wrk's beside loadgen's."""

    def points(serving: Serving) -> list[Row]:
        rows = []
        for connections in CONCURRENCY:
            rows.append(
                {"connections": connections, "load": "loadgen"}
                | bench.load(serving, PAPERS_BYTES, connections=connections)
            )
            if connections in WRK_CONCURRENCY:
                rows.append(
                    {"connections": connections, "load": "wrk"} | bench.wrk(serving, PAPERS_BYTES, connections)
                )
        return rows

    return bench.each(SYSTEMS, points)


def sizes(bench: Bench) -> list[Row]:
    """From 100 B to 10 MB, on connections kept and on new ones."""

    def points(serving: Serving) -> list[Row]:
        return [
            {"size_bytes": size, "close": close}
            | bench.load(serving, size, connections=connections_for(size), close=close)
            for close in (False, True)
            for size in SIZES
        ]

    return bench.each((*PEERS, *PORTS), points)


def equal_load(bench: Bench, found: list[Row]) -> list[Row]:
    """The paper's figure 4, and latency: the same number of requests a second for all, 60 % of what the slowest can.
    Open loop: a request's time counts from when it was due."""
    rates = {
        size: 0.6 * min(row["requests_s"] for row in found if row["size_bytes"] == size and not row["close"])
        for size in (100, PAPERS_BYTES)
    }

    def points(serving: Serving) -> list[Row]:
        return [
            {"size_bytes": size, "rate_s": round(rate)}
            | bench.load(serving, size, connections=256, rate=round(rate), seconds=2 * bench.seconds)
            for size, rate in rates.items()
        ]

    return bench.each(SYSTEMS, points, least="server_us")


def workers(bench: Bench) -> list[Row]:
    """One worker on one port, two on one, and one on each of two, with wrk on the same two cores: what a client sees who
    shares them. Two servers are two ports; for each there is a wrk. AF_PACKET has one worker a port, so it is a TAP."""
    rows = []
    for system in (NGINX, TAP):
        for ports, count in ((1, 1), (1, 2), (2, 1)):
            for connections in WORKER_CONNECTIONS:
                row = {"system": system.name, "ports": ports, "workers": ports * count, "connections": connections}
                rows.append(row | shared_cores(bench, system, ports, count, connections))
                show(rows[-1])
    return rows


def shared_cores(bench: Bench, system: System, ports: int, workers: int, connections: int) -> Row:
    """wrk on all ports of a system at once; requests a second of all."""
    with contextlib.ExitStack() as stack:
        served = [stack.enter_context(serve(system, bench.site, workers, core)) for core in range(ports)]
        pool = stack.enter_context(ThreadPoolExecutor(ports))
        path = bench.site.path(PAPERS_BYTES)
        each = [
            pool.submit(wrk, one.client, path, connections // ports, bench.seconds, threads=max(1, 2 // ports))
            for one in served
        ]
        found = [one.result() for one in each]
    return {
        "requests_s": round(sum(one.requests_s for one in found)),
        "busy": [round(core, 3) for core in found[0].cores],
    }


def kernel_kb() -> int:
    """What the kernel holds for itself."""
    text = Path("/proc/meminfo").read_text()
    return sum(int(value) for value in re.findall(r"^(?:Slab|KernelStack|PageTables): +(\d+)", text, re.MULTILINE))


def process_kb(serving: Serving) -> int:
    """What a server's processes have in memory, shared pages by their share."""
    total = 0
    for pid in serving.pids():
        found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        total += int(found[1]) if found else 0
    return total


def memory(bench: Bench) -> list[Row]:
    """What 10,000 connections take, in the server and in the kernel; loadgen has no sockets there."""
    rows = []
    for system in (NGINX, SUPERFRAMES):
        with serve(system, bench.site) as serving:
            bench.load(serving, 100, connections=16)
            before = process_kb(serving), kernel_kb()
            peak = [0, 0]
            with ThreadPoolExecutor(1) as pool:
                load = pool.submit(bench.load, serving, 100, connections=CROWD, rate=CROWD // 2, seconds=4, warmup=2)
                while not load.done():
                    now = process_kb(serving), kernel_kb()
                    peak = [max(peak[part], now[part] - before[part]) for part in (0, 1)]
                    time.sleep(0.2)
            errors = load.result()["errors"]
        rows.append(
            {
                "system": system.name,
                "connections": CROWD,
                "server_kb": peak[0],
                "kernel_kb": peak[1],
                "errors": errors,
            }
        )
        show(rows[-1])
    return rows


def trace(bench: Bench) -> list[Row]:
    """The paper's figure 1: when a busy server sends what, of one of many connections; milliseconds and bytes."""
    rows = []
    for system in (NGINX, SUPERFRAMES, ZERO_COPY):
        with serve(system, bench.site) as serving, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.pcap"
            capture = serving.client.popen(
                "tcpdump", "-qUni", serving.interface, "-s", "96", "-c", "40000", "-w", file, "tcp"
            )
            time.sleep(0.5)
            bench.load(serving, TRACE_BYTES, connections=TRACE_CONNECTIONS, seconds=1)
            capture.terminate()
            capture.wait()
            fields = ["-e", "frame.time_relative", "-e", "tcp.stream", "-e", "tcp.srcport", "-e", "tcp.seq"]
            text = run("tshark", "-r", file, "-T", "fields", *fields, "-e", "tcp.ack", "-e", "tcp.len").stdout
        packets = [line.split("\t") for line in text.splitlines() if line.count("\t") == 5]
        stream = statistics.mode(packet[1] for packet in packets)
        mine = [packet for packet in packets if packet[1] == stream]
        for at, _, port, seq, ack, length in mine:
            ms = 1000 * (float(at) - float(mine[0][0]))
            if ms > TRACE_MS:
                break
            at_bytes, kind = (int(seq) + int(length), "sent") if port == "80" else (int(ack or 0), "acknowledged")
            rows.append({"system": system.name, "kind": kind, "ms": round(ms, 3), "bytes": at_bytes})
    return rows
