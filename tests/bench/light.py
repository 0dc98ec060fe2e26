"""The paper's figures 4 and 5, at shares of what nginx can: what a request takes of the server's core where that core has
time to sleep, each reading by several counters."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.bench import cpu
from tests.bench.figures import Bench, Row, row_of
from tests.bench.systems import (
    NGINX,
    PAPERS_BYTES,
    PEERS,
    SERVER_CORE,
    SUPERFRAMES,
    TAP,
    Serving,
    serve,
)

SIZES = (100, PAPERS_BYTES, 100_000)
SHARES = (0.1, 0.3, 0.6, 0.9)
CONNECTIONS = 256
IDLE_S = 0.3  # of the loop without a load
QUIET = 0.1  # so much of an idle core others may have, or the loop tells of them
BORNE = 0.97  # of the rate, or it is another load


@dataclass(frozen=True)
class Point:
    """A load."""

    size_bytes: int
    share: float
    rate_s: int


def limits(bench: Bench) -> dict[int, float]:
    """The most requests a second that nginx answers on as many connections."""
    most = dict.fromkeys(SIZES, 0.0)
    for _ in range(bench.repeats):
        with serve(NGINX, bench.site) as serving:
            for size in SIZES:
                most[size] = max(most[size], bench.load(serving, size, connections=CONNECTIONS)["requests_s"])
    return most


def us(spent_ns: float | None, requests: float) -> float | None:
    """Of a request."""
    return None if spent_ns is None else round(spent_ns / 1e3 / max(1, requests), 3)


def counted(bench: Bench, serving: Serving, point: Point) -> Row:
    """As the kernel counts; the core sleeps when nobody wants it."""
    found = bench.loadgen(serving, point.size_bytes, connections=CONNECTIONS, rate=point.rate_s, sample=serving.cpu_s)
    core, threads_s = found.spent[SERVER_CORE], found.samples[1] - found.samples[0]
    requests = found.requests_s * found.seconds
    return row_of(found, point.size_bytes) | {
        "core_us": us(core.busy_ns, requests),
        "threads_us": us(1e9 * threads_s, requests),
        "counted_us": us(1e9 * threads_s + (core.idle_softirq_ns or 0) + (core.ksoftirqd_ns or 0), requests),
        "idle_softirq_us": us(core.idle_softirq_ns, requests),
        "ksoftirqd_us": us(core.ksoftirqd_ns, requests),
    }


def idle_share(loop: cpu.Spare) -> float:
    """What the loop is not given of a core with a server that nobody asks anything."""
    before, start_ns = loop.left_ns(), time.monotonic_ns()
    time.sleep(IDLE_S)
    return 1 - (loop.left_ns() - before) / (time.monotonic_ns() - start_ns)


def taken_us(bench: Bench, serving: Serving, point: Point, loop: cpu.Spare, idle: float) -> float | None:
    """What a request takes from the loop, which has the core to itself when nobody asks; None: it has not."""
    if idle > QUIET:
        return None
    found = bench.loadgen(serving, point.size_bytes, connections=CONNECTIONS, rate=point.rate_s, sample=loop.left_ns)
    elapsed_ns = found.spent[SERVER_CORE].elapsed_ns
    taken_ns = elapsed_ns - (found.samples[1] - found.samples[0]) - idle * elapsed_ns
    return us(max(0.0, taken_ns), found.requests_s * elapsed_ns / 1e9)


def light_load(bench: Bench) -> list[Row]:
    """All points twice: as the kernel counts, then with the loop on the server's core."""
    loads = [Point(size, share, round(share * limit)) for size, limit in limits(bench).items() for share in SHARES]

    def points(serving: Serving) -> list[Row]:
        rows = [counted(bench, serving, point) for point in loads]
        with cpu.spare(SERVER_CORE) as loop:
            idle = idle_share(loop)
            taken = [taken_us(bench, serving, point, loop, idle) for point in loads]
        return [
            {"size_bytes": point.size_bytes, "share": point.share, "rate_s": point.rate_s}
            | row
            | {"taken_us": each, "borne": row["requests_s"] >= BORNE * point.rate_s}
            for point, row, each in zip(loads, rows, taken, strict=True)
        ]

    return bench.each((*PEERS, SUPERFRAMES, TAP), points, least="taken_us")
