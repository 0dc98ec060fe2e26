"""What is asked of the figures, and whether what was read reaches it."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.bench import memory, peers
from tests.bench.cells import Row, find, has, seek, size

Results = dict[str, Any]

FULL = 0.95  # busy, of a core that is the limit
TAP = "ssrun, TAP"
SUPERFRAME_PORTS = ("ssrun, AF_PACKET", TAP)
NOT_THERE = "no figures in this run"
WRK_SECTION = "with-wrk-beside-the-peers-best"
LIGHT_SECTION = "cpu-at-light-load-figures-4-and-5"
LATENCY_ASKED = "p50 and p99 below the best peer's"
PAPERS_BYTES = 22_000
# Beside the peers on the same link; a TAP has none of the other ends of veth, so with wrk it stands beside the best of all
# links.
OVER_LO = "over lo"
WRK_LEAST = {1_000: 1.5, 22_000: 1.35, 100_000: 1.25, 1_000_000: 1.25, 10_000_000: 1.25}
WRK_CONNECTIONS = (64, 256)
CLOSE_LEAST = 1.5
LOW_LEAST = {1: 1.3, 2: 1.35, 4: 1.3, 8: 1.3, 16: 1.3}  # by connections; the paper's figure 3
CPU_MOST, LIGHT_CPU_MOST, PACKET_CPU_LEAST = 0.5, 0.6, 1.5
LIGHT_ASKED = f"at most {LIGHT_CPU_MOST:g} times the best peer"
IDLE_MOST = 0.01
WORKERS_LEAST, MEMCPY_LEAST = 1.9, 1.1
SMALL_CYCLES = 350
IN_MEMORY_MOST = (
    ("a segment of 1 MB, kept connections", memory.LARGE, 2.5),
    ("a segment of 22 KB, kept connections", memory.HOT, 4.5),
    ("a segment of 22 KB, a new connection for each request", memory.HOT_CLOSE, 9.0),
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
    row = in_memory_row(results, memory.SMALL, "zero-copy")
    cycles = row["request_cycles"]
    asked = f"under {SMALL_CYCLES}"
    yield Bar("cycles a request of 1 KB", "in memory", asked, f"{cycles:.0f}", cycles < SMALL_CYCLES, where)
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


@dataclass(frozen=True)
class Best:
    """What the best of the peers reads, and which that is."""

    value: float
    who: str


def is_peer(row: Row) -> bool:
    """A server of others, in any of its ways."""
    return bool(re.match(rf"({'|'.join(peers.NAMES)})\b", row["system"]))


def best(
    rows: list[Row], value: Callable[[Row], float], *, least: bool = False, over_lo: bool = False, **point: Any
) -> Best | None:
    """Of the peers' rows at a point; a zero is a reading that failed."""
    found = [
        Best(value(row), row["system"])
        for row in rows
        if is_peer(row) and has(row, **point) and (over_lo or OVER_LO not in row["system"])
    ]
    found = [each for each in found if each.value > 0]
    if not found:
        return None
    return min(found, key=lambda each: each.value if least else -each.value)


def requests_s(row: Row) -> float:
    return float(row["requests_s"])


def rate(ours: Row | None, theirs: Best | None) -> tuple[float, str]:
    """Times the best peer's requests, and as a bar has it; NaN: there are no figures of it."""
    if ours is None or theirs is None:
        return math.nan, ""
    ratio = requests_s(ours) / theirs.value
    return ratio, f"{ratio:.2f} ({ours['requests_s']:,.0f}; {theirs.who}: {theirs.value:,.0f})"


def bar(what: str, port: str, asked: str, where: str, verdict: tuple[str, bool] | None) -> Bar:
    """With what was read and whether that reaches; None: there is no figure of it, as in results of an older bench."""
    return Bar(what, port, asked, *(verdict or (NOT_THERE, None)), where)


def by_wrk(results: Results) -> Iterator[Bar]:
    """Superframes beside the peers' best, at each size."""
    close_least = dict.fromkeys((1_000, PAPERS_BYTES), CLOSE_LEAST)
    for close, count, leasts in (
        *((False, count, WRK_LEAST) for count in WRK_CONNECTIONS),
        (True, WRK_CONNECTIONS[0], close_least),
    ):
        for size_bytes, least in leasts.items():
            for port in SUPERFRAME_PORTS:
                point = {"size_bytes": size_bytes, "close": close, "connections": count}
                yield wrk_bar(results["by_wrk"], port, least, point)


def former_connections(row: Row) -> int:
    """Of a row of an older bench, which does not say it."""
    return WRK_CONNECTIONS[0] if row["size_bytes"] < 1_000_000 else 8


def wrk_bar(rows: list[Row], port: str, least: float, point: Row) -> Bar:
    """One port at one point."""
    rows = [{"connections": former_connections(row)} | row for row in rows]
    ours, theirs = seek(rows, system=port, **point), best(rows, requests_s, over_lo=port == TAP, **point)
    ratio, read = rate(ours, theirs)
    full = False
    if point["close"] and ours is not None:
        full = ours["load_busy"] >= FULL
        read += f"; wrk's core {100 * ours['load_busy']:.0f} % busy"
    what = f"{'connections' if point['close'] else 'requests'} a second, {size(point['size_bytes'])}"
    if point["connections"] != WRK_CONNECTIONS[0]:
        what += f", {point['connections']} connections"
    asked = f"at least {least:g} times the best peer" + (", or wrk's core full" if point["close"] else "")
    return bar(what, port, asked, WRK_SECTION, None if math.isnan(ratio) else (read, ratio >= least or full))


def connections(row: Row) -> str:
    return f"{row['connections']} connection{'s' if row['connections'] > 1 else ''}"


def few_connections(results: Results) -> Iterator[Bar]:
    """22 KB over so few connections that a server falls asleep between two requests."""
    rows = results["throughput"]
    for load, count, port in itertools.product(("loadgen", "wrk"), LOW_LEAST, SUPERFRAME_PORTS):
        point = {"connections": count, "load": load}
        where = "throughput-by-concurrency-the-papers-figure-3" if load == "loadgen" else "the-same-with-wrk"
        ours, least = seek(rows, system=port, **point), LOW_LEAST[count]
        ratio, read = rate(ours, best(rows, requests_s, **point))
        what = f"requests a second, 22 KB, {connections(point)}, {load}"
        verdict = None if math.isnan(ratio) else (read, ratio >= least)
        yield bar(what, port, f"at least {least:g} times the best peer", where, verdict)
        what = f"response time of 22 KB, {connections(point)}, {load}"
        yield bar(what, port, LATENCY_ASKED, where, response_times(rows, ours, point))


def percentile(name: str) -> Callable[[Row], float]:
    """Of a row's response times, in us."""
    return lambda row: float(row["latency_us"][name])


def response_times(rows: list[Row], ours: Row | None, point: Row) -> tuple[str, bool] | None:
    """p50 and p99 beside the least of any peer's."""
    read, below = [], True
    for name in ("p50", "p99"):
        mine = [row for row in rows if row.get("latency_us", {}).get(name)]  # nothing is answered in no time
        theirs = best(mine, percentile(name), least=True, **point)
        if ours is None or ours not in mine or theirs is None:
            return None
        value = percentile(name)(ours)
        below &= value < theirs.value
        read.append(f"{name} {value:.0f} us ({theirs.who}: {theirs.value:.0f})")
    return ", ".join(read), below


def cpu(results: Results) -> Iterator[Bar]:
    """CPU of the server's side: half of a peer's with superframes, and more requests frame by frame."""
    where = "where-the-time-goes"
    asked = f"at most {CPU_MOST:g} times the best peer"
    rows = results["shares"]
    if "skipped" in rows[0]:
        yield Bar("CPU of a request", "", asked, rows[0]["skipped"], None, where)
    else:
        for size_bytes in (1_000, PAPERS_BYTES):
            theirs = best(rows, lambda row: float(row["server_us"]), least=True, size_bytes=size_bytes)
            for port in SUPERFRAME_PORTS:
                ours = seek(rows, system=port, size_bytes=size_bytes)
                verdict = cost(ours, theirs, "server_us", CPU_MOST)
                yield bar(f"CPU of a request, {size(size_bytes)}", port, asked, where, verdict)
    yield packet_by_packet(results["packet_by_packet"])


def cost(ours: Row | None, theirs: Best | None, key: str, most: float) -> tuple[str, bool] | None:
    """Microseconds of a request beside the least of a peer's; none, where nothing was read of one."""
    if ours is None or theirs is None or not ours[key]:
        return None
    value, base = float(ours[key]), theirs.value
    return f"{value / base:.2f} ({value:.1f} us; {theirs.who}: {theirs.value:.1f} us)", value <= most * base


def packet_by_packet(rows: list[Row]) -> Bar:
    """AF_XDP beside peers without TSO."""
    what, port = "22 KB requests a CPU second, packet by packet", "ssrun, AF_XDP"
    asked, where = f"at least {PACKET_CPU_LEAST:g} times the best peer", "packet-by-packet"
    if "skipped" in rows[0]:
        return Bar(what, port, asked, rows[0]["skipped"], None, where)
    ours, theirs = seek(rows, system=port), best(rows, lambda row: float(row["requests_cpu_s"]))
    if ours is None or theirs is None:
        return bar(what, port, asked, where, None)
    ratio = ours["requests_cpu_s"] / theirs.value
    read = f"{ratio:.2f} ({ours['requests_cpu_s']:,}; {theirs.who}: {theirs.value:,.0f})"
    return bar(what, port, asked, where, (read, ratio >= PACKET_CPU_LEAST))


def light_load(results: Results) -> Iterator[Bar]:
    """CPU of a request at shares of nginx's limit."""
    rows = results.get("light_load", [])
    points = dict.fromkeys((row["size_bytes"], row["share"]) for row in rows)
    for size_bytes, share in points:
        yield from light_point([row for row in rows if has(row, size_bytes=size_bytes, share=share)])
    if not points:
        yield bar("CPU of a request at shares of nginx's limit", "", LIGHT_ASKED, LIGHT_SECTION, None)


def light_point(rows: list[Row]) -> Iterator[Bar]:
    """A load's, by the loop that takes what is left; where others had the core too, by what the kernel counted for the servers.
    Who can't bear the load is no rival."""
    judged = all(row["taken_us"] is not None for row in rows)
    key = "taken_us" if judged else "counted_us"
    theirs = best(rows, lambda row: float(row[key]), least=True, borne=True)
    what = f"CPU of a request, {size(rows[0]['size_bytes'])}, {100 * rows[0]['share']:.0f} % of nginx's limit"
    for port in SUPERFRAME_PORTS:
        ours = seek(rows, system=port)
        verdict = cost(ours, theirs, key, LIGHT_CPU_MOST)
        if verdict and not judged:
            verdict = f"{verdict[0]}; by the scheduler, the core was not quiet", verdict[1]
        if ours is not None and not ours["borne"]:
            verdict = f"{ours['requests_s']:,.0f} of {ours['rate_s']:,} requests a second only", False
        yield bar(what, port, LIGHT_ASKED, LIGHT_SECTION, verdict)


def latency(results: Results) -> Iterator[Bar]:
    """Each port's response times beside the peers'."""
    rows = results["low_load"]
    for point in [
        {"connections": row["connections"], "rate_s": row["rate_s"]} for row in rows if row["system"] == "nginx"
    ]:
        load = f"{point['rate_s']:,} a second" if point["rate_s"] else "one after the other"
        what = f"response time of 22 KB, {connections(point)}, {load}"
        for row in rows:
            if not is_peer(row) and has(row, **point):
                verdict = response_times(rows, row, point)
                yield bar(what, row["system"], LATENCY_ASKED, "response-times-at-low-load", verdict)


def idle(results: Results) -> Iterator[Bar]:
    """What is spent on nobody."""
    for row in results["idle"]:
        if not is_peer(row):
            read = f"{100 * row['share']:.2f} %"
            yield Bar(
                "CPU with no traffic", row["system"], "under 1 % of a core", read, row["share"] < IDLE_MOST, "idle"
            )


KINDS: tuple[Callable[[Results], Iterator[Bar]], ...] = (
    *(in_memory, by_wrk, few_connections, cpu),
    *(light_load, latency, idle),
)


def bars(results: Results) -> list[Bar]:
    """All of them."""
    return [bar for kind in KINDS for bar in kind(results)]
