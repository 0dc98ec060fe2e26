"""Measurements that bars.py judges, beside those of figures.py."""

from __future__ import annotations

import time
from typing import Any

from tests.bench.figures import LOW_CONCURRENCY, Bench, Row, show
from tests.bench.systems import (
    PAPERS_BYTES,
    PEER_WAYS,
    PEERS,
    POLLING,
    PORTS,
    SUPERFRAMES,
    TAP,
    Serving,
    present,
    serve,
)

KEPT_SIZES = (1_000, PAPERS_BYTES, 100_000, 1_000_000, 10_000_000)
KEPT_CONNECTIONS = (64, 256)
CLOSE_SIZES = (1_000, PAPERS_BYTES)
CLOSE_CONNECTIONS = (64,)
LOW_RATE_S = 1_000
LOW_SECONDS = 1.5  # at least: of a thousand a second p99 is of few
# One request after the other (0), or at a rate: over how many connections.
LOW_LOADS = {0: LOW_CONCURRENCY, LOW_RATE_S: (1, 2)}
IDLE_S = 3


def by_wrk(bench: Bench) -> list[Row]:
    """Superframes beside the peers' best, with the kernel's TCP as client."""

    def points(serving: Serving) -> list[Row]:
        return [
            {"size_bytes": size, "close": close, "connections": count} | bench.wrk(serving, size, count, close=close)
            for close, sizes, counts in (
                (False, KEPT_SIZES, KEPT_CONNECTIONS),
                (True, CLOSE_SIZES, CLOSE_CONNECTIONS),
            )
            for size in sizes
            for count in counts
        ]

    return bench.each((*PEER_WAYS, SUPERFRAMES, TAP), points)


def low_load(bench: Bench) -> list[Row]:
    """Response times where nobody waits in a queue: one request after the other, and a low fixed rate. The load polls, so
    that none of its own waking is in them."""

    def points(serving: Serving) -> list[Row]:
        rows = []
        for rate_s, counts in LOW_LOADS.items():
            seconds = max(bench.seconds, LOW_SECONDS) if rate_s else bench.seconds
            options = {"rate": rate_s or None, "busy_poll": True, "seconds": seconds}
            for count in counts:
                row = bench.load(serving, PAPERS_BYTES, connections=count, **options)
                rows.append({"connections": count, "rate_s": rate_s} | row)
        return rows

    return bench.each((*PEERS, *PORTS, *POLLING), points)


def idle(bench: Bench) -> list[Row]:
    """What a server takes of a core that nobody asks anything."""
    rows: list[dict[str, Any]] = []
    for system in present((*PEERS, *PORTS)):
        with serve(system, bench.site) as serving:
            bench.load(serving, PAPERS_BYTES, connections=16)  # it has served before
            time.sleep(1)
            before, start = serving.cpu_s(), time.monotonic()
            time.sleep(IDLE_S)
            share = (serving.cpu_s() - before) / (time.monotonic() - start)
        rows.append({"system": system.name, "share": round(share, 5)})
        show(rows[-1])
    return rows
