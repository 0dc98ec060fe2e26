"""What is asked of the figures, and whether what was read reaches it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.bench import memory
from tests.bench.cells import Row, find, size

Results = dict[str, Any]

FULL = 0.95  # busy, of a core that is the limit
SUPERFRAME_PORTS = ("ssrun, AF_PACKET", "ssrun, TAP")
VETH = ("nginx, sendfile on", "nginx, sendfile off")
# Beside nginx on the same link; a TAP has none of the other ends of veth, so it stands beside nginx's best of all links.
BESIDE = {"ssrun, AF_PACKET": VETH, "ssrun, TAP": (*VETH, "nginx over lo")}
WRK_LEAST = {1_000: 1.5, 22_000: 1.3, 100_000: 1.0, 1_000_000: 1.0, 10_000_000: 1.0}
CLOSE_LEAST = 1.5
CPU_MOST, PACKET_CPU_LEAST = 0.5, 2.0
IDLE_MOST = 0.01
WORKERS_LEAST, MEMCPY_LEAST = 1.9, 1.1
IN_MEMORY_MOST = (
    ("a segment of 1 MB, kept connections", memory.LARGE, 3.0),
    ("a segment of 22 KB, kept connections", memory.HOT, 5.0),
    ("a segment of 22 KB, a new connection for each request", memory.HOT_CLOSE, 10.0),
    ("a segment of 22 KB, 100,000 connections and 10,000 files at random", memory.COLD, 1.5),
)
IN_MEMORY_LEAST = (
    ("1 KB answers a second on kept connections", memory.SMALL, 3e6),
    ("connections a second, a 1 KB request on each", memory.SMALL_CLOSE, 1e6),
)


@dataclass(frozen=True)
class Bar:
    """One thing that is asked."""

    what: str
    port: str
    asked: str
    read: str
    reached: bool | None  # None: it couldn't be measured
    where: str  # the section that has more of it

    @property
    def verdict(self) -> str:
        return {True: "reached", False: "**not reached**", None: "not measured"}[self.reached]


def in_memory_row(results: Results, case: memory.Case, variant: str) -> Row:
    """A case's row of a variant."""
    keys = {name: getattr(case, name) for name in ("size_bytes", "files", "connections", "close", "random")}
    return find(results["in_memory"], variant=variant, **keys)


def data_segment_cycles(results: Results, case: memory.Case, variant: str) -> float:
    """All that a request takes, over the segments with data; handshake, ACKs and the end are in it."""
    segments = in_memory_row(results, case, "lower bound")["request_segments"]
    return float(in_memory_row(results, case, variant)["request_cycles"] / segments)


def in_memory(results: Results) -> Iterator[Bar]:
    """The stack beside the lower bound, and its rates."""
    where = "in-memory"
    for what, case, most in IN_MEMORY_MOST:
        bound = data_segment_cycles(results, case, "lower bound")
        ours = data_segment_cycles(results, case, "zero-copy")
        joined, superframes = (
            data_segment_cycles(results, case, variant) / bound
            for variant in ("zero-copy, ACKs joined", "superframes")
        )
        read = f"{ours / bound:.2f} ({ours:.0f} cycles, the bound {bound:.0f}; with ACKs joined {joined:.2f}, "
        read += f"in superframes {superframes:.2f})"
        yield Bar(
            f"cycles {what}", "in memory", f"at most {most:g} times the bound", read, ours / bound <= most, where
        )
    for what, case, least in IN_MEMORY_LEAST:
        row = in_memory_row(results, case, "zero-copy")
        rate = 1e9 / row["request_ns"]
        read = f"{rate / 1e6:.2f} million ({row['request_cycles']:,.0f} cycles of {row['tsc_mhz'] / 1000:.2f} GHz)"
        yield Bar(what, "in memory", f"more than {least / 1e6:g} million", read, rate > least, where)
    for name, case in (("hot", memory.HOT), ("cold", memory.COLD)):
        ratio = data_segment_cycles(results, case, "memcpy") / data_segment_cycles(results, case, "zero-copy")
        asked = f"at least {MEMCPY_LEAST:g} times zero-copy"
        yield Bar(f"memcpy's cycles, {name}", "in memory", asked, f"{ratio:.2f}", ratio >= MEMCPY_LEAST, where)
    ratio = statistics.median(row["two"] / row["one"] for row in results["in_memory_workers"])
    asked = f"at least {WORKERS_LEAST:g} times one"
    yield Bar("requests of two workers", "in memory", asked, f"{ratio:.2f}", ratio >= WORKERS_LEAST, where)


def best_of_nginx(rows: list[Row], ways: tuple[str, ...], **point: Any) -> float:
    """The most requests a second of its ways."""
    return max(float(find(rows, system=way, **point)["requests_s"]) for way in ways)


def by_wrk(results: Results) -> Iterator[Bar]:
    """Superframes beside nginx's best way, at each size."""
    rows, where = results["by_wrk"], "with-wrk-beside-nginxs-best"
    for close, leasts in ((False, WRK_LEAST), (True, dict.fromkeys((1_000, 22_000), CLOSE_LEAST))):
        for size_bytes, least in leasts.items():
            for port in SUPERFRAME_PORTS:
                point = {"size_bytes": size_bytes, "close": close}
                row = find(rows, system=port, **point)
                ratio = row["requests_s"] / best_of_nginx(rows, BESIDE[port], **point)
                full = close and row["load_busy"] >= FULL
                read = f"{ratio:.2f}" + (f"; wrk's core {100 * row['load_busy']:.0f} % busy" if close else "")
                what = f"{'connections' if close else 'requests'} a second, {size(size_bytes)}"
                asked = (f"at least {least:g} times nginx" if least > 1 else "not behind nginx") + (
                    ", or wrk's core full" if close else ""
                )
                yield Bar(what, port, asked, read, ratio >= least or full, where)


def cpu(results: Results) -> Iterator[Bar]:
    """CPU of the server's side: half of nginx's with superframes, and twice its requests frame by frame."""
    where = "where-the-time-goes"
    asked = f"at most {CPU_MOST:g} times nginx"
    rows = results["shares"]
    if "skipped" in rows[0]:
        yield Bar("CPU of a request", "", asked, rows[0]["skipped"], None, where)
    else:
        for size_bytes in (1_000, 22_000):
            base = find(rows, system="nginx", size_bytes=size_bytes)["server_us"]
            for port in SUPERFRAME_PORTS:
                ours = find(rows, system=port, size_bytes=size_bytes)["server_us"]
                read = f"{ours / base:.2f} ({ours:.1f} us, nginx {base:.1f} us)"
                yield Bar(f"CPU of a request, {size(size_bytes)}", port, asked, read, ours <= CPU_MOST * base, where)
    yield packet_by_packet(results["packet_by_packet"])


def packet_by_packet(rows: list[Row]) -> Bar:
    """AF_XDP beside nginx without TSO."""
    what, port, asked = "22 KB requests a CPU second, packet by packet", "ssrun, AF_XDP", "at least {:g} times nginx"
    asked, where = asked.format(PACKET_CPU_LEAST), "packet-by-packet"
    if "skipped" in rows[0]:
        return Bar(what, port, asked, rows[0]["skipped"], None, where)
    ours, base = (find(rows, system=system)["requests_cpu_s"] for system in (port, "nginx, TSO off"))
    ratio = ours / base
    return Bar(what, port, asked, f"{ratio:.2f} ({ours:,}, nginx {base:,})", ratio >= PACKET_CPU_LEAST, where)


def connections(row: Row) -> str:
    return f"{row['connections']} connection{'s' if row['connections'] > 1 else ''}"


def latency(results: Results) -> Iterator[Bar]:
    """Each port's response times beside nginx's."""
    rows = results["low_load"]
    for base in (row for row in rows if row["system"] == "nginx"):
        point = {"connections": base["connections"], "rate_s": base["rate_s"]}
        load = f"{base['rate_s']:,} a second" if base["rate_s"] else "one after the other"
        what = f"response time of 22 KB, {connections(base)}, {load}"
        for row in (row for row in rows if row["system"] != "nginx" and point.items() <= row.items()):
            pairs = [(row["latency_us"][name], base["latency_us"][name]) for name in ("p50", "p99")]
            read = ", ".join(
                f"{name} {ours:.0f} us (nginx {theirs:.0f})"
                for name, (ours, theirs) in zip(("p50", "p99"), pairs, strict=True)
            )
            below = all(ours < theirs for ours, theirs in pairs)
            yield Bar(what, row["system"], "p50 and p99 below nginx", read, below, "response-times-at-low-load")


def idle(results: Results) -> Iterator[Bar]:
    """What is spent on nobody."""
    for row in results["idle"]:
        if row["system"] != "nginx":
            read = f"{100 * row['share']:.2f} %"
            yield Bar(
                "CPU with no traffic", row["system"], "under 1 % of a core", read, row["share"] < IDLE_MOST, "idle"
            )


KINDS: tuple[Callable[[Results], Iterator[Bar]], ...] = (in_memory, by_wrk, cpu, latency, idle)


def bars(results: Results) -> list[Bar]:
    """All of them."""
    return [bar for kind in KINDS for bar in kind(results)]
