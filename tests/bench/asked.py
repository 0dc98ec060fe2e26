"""Measurements that bars.py judges, beside those of figures.py."""

from __future__ import annotations

import time
from typing import Any

from tests.bench.figures import Bench, Row, connections_for, show
from tests.bench.systems import NGINX, NGINX_WAYS, PAPERS_BYTES, POLLING, PORTS, SUPERFRAMES, TAP, Serving, serve

KEPT_SIZES = (1_000, PAPERS_BYTES, 100_000, 1_000_000, 10_000_000)
CLOSE_SIZES = (1_000, PAPERS_BYTES)
LOW_RATE_S = 1_000
LOW_CONNECTIONS = (1, 2)
LOW_SECONDS = 1.5  # at least: of a thousand a second p99 is of few
IDLE_S = 3


def by_wrk(bench: Bench) -> list[Row]:
    """Superframes beside nginx's best, with the kernel's TCP as client."""

    def points(serving: Serving) -> list[Row]:
        return [
            {"size_bytes": size, "close": close} | bench.wrk(serving, size, connections_for(size), close=close)
            for close, sizes in ((False, KEPT_SIZES), (True, CLOSE_SIZES))
            for size in sizes
        ]

    return bench.each((*NGINX_WAYS, SUPERFRAMES, TAP), points)


def least(rows: list[Row]) -> Row:
    """The first row, with the least of all rows' latencies at each percentile."""
    latency = {name: min(row["latency_us"][name] for row in rows) for name in rows[0]["latency_us"]}
    return rows[0] | {"latency_us": latency}


def low_load(bench: Bench) -> list[Row]:
    """Response times where nobody waits in a queue: one request after the other, and a low fixed rate. The load polls, so
    that none of its own waking is in them."""
    seconds = max(bench.seconds, LOW_SECONDS)

    def points(serving: Serving) -> list[Row]:
        return [
            {"connections": connections, "rate_s": rate or 0}
            | bench.load(serving, PAPERS_BYTES, connections=connections, rate=rate, busy_poll=True, seconds=seconds)
            for rate in (None, LOW_RATE_S)
            for connections in LOW_CONNECTIONS
        ]

    rows = [least(rows) for rows in bench.readings((NGINX, *PORTS, *POLLING), points)]
    for row in rows:
        show(row | {name: row["latency_us"][name] for name in ("p50", "p99")})
    return rows


def idle(bench: Bench) -> list[Row]:
    """What a server takes of a core that nobody asks anything."""
    rows: list[dict[str, Any]] = []
    for system in (NGINX, *PORTS):
        with serve(system, bench.site) as serving:
            bench.load(serving, PAPERS_BYTES, connections=16)  # it has served before
            time.sleep(1)
            before, start = serving.cpu_s(), time.monotonic()
            time.sleep(IDLE_S)
            share = (serving.cpu_s() - before) / (time.monotonic() - start)
        rows.append({"system": system.name, "share": round(share, 5)})
        show(rows[-1])
    return rows
