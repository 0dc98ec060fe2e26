"""What the benchmarks make of their readings: whose work a sample is, what is reached, and a page that has it all."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.bench import asked, figures, light, measure, memory, page, peers, shares
from tests.bench.bars import IN_MEMORY_MOST, LOW_LEAST, NOT_THERE, SUPERFRAME_PORTS, bars
from tests.bench.cells import find
from tests.bench.systems import PAPERS_BYTES, PEER_WAYS, PEERS, PEERS_SINGLE, PORTS, SINGLE, ZERO_COPY, Site

KERNEL_IP, USER_IP = "ffffffff81000000", "55d0c0001000"
SERVER_PID, LOAD_PID = 77, 88


def sample(pid: int, core: int, *names: str, at: str = KERNEL_IP) -> list[str]:
    """As perf script prints it."""
    return [f"{pid:7} [{core:03}] ", *(f"\t{at} {name}" for name in names), ""]


@pytest.mark.parametrize(
    ("sockets", "lines", "category"),
    [
        (True, sample(SERVER_PID, 0, "ngx_http_handler", at=USER_IP), shares.USER),
        (True, sample(SERVER_PID, 0, "[unknown]", at=USER_IP), shares.USER),
        (True, sample(SERVER_PID, 0, "tcp_write_xmit", "tcp_sendmsg", "do_syscall_64"), shares.KERNEL),
        (True, sample(SERVER_PID, 0, "_copy_from_iter", "tcp_sendmsg", "do_syscall_64"), shares.COPIES),
        (False, sample(SERVER_PID, 0, "__pi_memcpy", "__xsk_generic_xmit", "do_syscall_64"), shares.COPIES),
        # The load's frame comes in on the server's core, within the server's system call.
        (True, sample(SERVER_PID, 0, "tpacket_rcv", "process_backlog", "veth_xmit"), shares.LOAD_RECEIVES),
        (False, sample(SERVER_PID, 0, "tpacket_rcv", "netif_receive_skb", "tun_get_user"), shares.LOAD_RECEIVES),
        # The server's comes in on the load's.
        (True, sample(LOAD_PID, 1, "tcp_v4_rcv", "__netif_receive_skb_one_core", "process_backlog"), shares.RECEIVES),
        (False, sample(LOAD_PID, 1, "tpacket_rcv", "process_backlog"), shares.RECEIVES),
        # An answer that the kernel's TCP sent when an ACK came, on its way to the load there.
        (True, sample(LOAD_PID, 1, "tpacket_rcv", "process_backlog"), shares.LOAD_RECEIVES),
        (True, sample(LOAD_PID, 1, "packet_snd"), shares.LOAD),
        (True, sample(99, 0, "worker_thread"), shares.OTHER),
        (True, sample(0, 0, "pv_native_safe_halt"), shares.IDLE),
        # Softirq that came while nobody ran.
        (True, sample(0, 1, "tcp_v4_rcv", "net_rx_action", "irq_exit"), shares.RECEIVES),
    ],
)
def test_whose_work_a_sample_is(sockets: bool, lines: list[str], category: str) -> None:
    (found,) = shares.samples(lines)
    assert shares.Sides(frozenset({SERVER_PID}), sockets).category(found) == category


def test_shares_of_each_core() -> None:
    server = sample(SERVER_PID, 0, "main", at=USER_IP)
    idle, load, elsewhere = sample(0, 0, "halt"), sample(LOAD_PID, 1, "packet_snd"), sample(LOAD_PID, 5, "main")
    lines = list(itertools.chain(server, server, server, idle, load, elsewhere))
    spent = shares.cores_spent(shares.samples(lines[:-1]), shares.Sides(frozenset({SERVER_PID}), sockets=True))
    assert {name: share for name, share in spent[0].items() if share} == {shares.USER: 0.75, shares.IDLE: 0.25}
    assert {name: share for name, share in spent[1].items() if share} == {shares.LOAD: 1.0}


def load_row(**values: Any) -> dict[str, Any]:
    """A reading as a load gives it."""
    latency = {"p50": 20.0, "p99": 40.0, "p99_9": 60.0}
    busy = {"server_busy": 1.0, "load_busy": 0.5, "limit": "server", "server_us": 10.0}
    return {"requests_s": 100_000.0, "latency_us": latency, "errors": {}, **busy, **values}


def share_row(system: str, size_bytes: int) -> dict[str, Any]:
    """A reading of perf's."""
    core = {name: 1 / len(shares.CATEGORIES) for name in shares.CATEGORIES}
    costs = {"request_us": dict.fromkeys((*shares.SERVER, shares.LOAD_RECEIVES), 2.0), "requests_cpu_s": 125_000}
    return load_row(system=system, size_bytes=size_bytes, server_core=core, load_core=core, **costs)


def light_row(system: str, size_bytes: int, share: float) -> dict[str, Any]:
    """A point at light load."""
    costs = {
        "core_us": 11.0,
        "threads_us": 8.0,
        "idle_softirq_us": 3.0,
        "ksoftirqd_us": 0.0,
        "counted_us": 11.0,
        "taken_us": 10.0,
    }
    point = {"system": system, "size_bytes": size_bytes, "share": share, "rate_s": 100_000, "borne": True}
    return load_row(**point, **costs)


def in_memory_row(case: memory.Case, variant: str) -> dict[str, Any]:
    """Both sides alike."""
    costs = {"segment_cycles": 100.0, "request_cycles": 1_600.0, "request_segments": 16.0, "connection_cycles": 900.0}
    return {**asdict(case), "variant": variant, **costs, "request_ns": 640.0, "tsc_mhz": 2_500.0}


# Complexity: a table with all that the bench reads, an entry a reading; the loops are its cases and decide nothing.
@pytest.fixture
def results() -> dict[str, Any]:
    """All figures, with nothing better than anything else."""
    systems = [system.name for system in (*PEERS, *PORTS)]
    by_wrk = [*(way.name for way in PEER_WAYS), *SUPERFRAME_PORTS]
    sizes = (100, PAPERS_BYTES)
    return {
        "machine": {"cores": "2", "processor": "P", "Linux": "6", "wrk": "wrk", "gcc": "gcc"}
        | {name: f"{name} 1.0" for name in peers.NAMES},
        **{"date": "2026-01-01", "seconds": 1, "repeats": 1, "sendfile": "on", "again": []},
        "throughput": [
            load_row(system=s, connections=count, load=load)
            for s in systems
            for load, counts in (("loadgen", figures.CONCURRENCY), ("wrk", figures.WRK_CONCURRENCY))
            for count in counts
        ],
        "sizes": [
            load_row(system=s, size_bytes=size, close=c) for s in systems for size in sizes for c in (False, True)
        ],
        "equal_load": [load_row(system=s, size_bytes=size) for s in systems for size in sizes],
        "light_load": [light_row(s, size, share) for s in systems for size in light.SIZES for share in light.SHARES],
        "by_wrk": [
            load_row(system=s, size_bytes=size, close=close, connections=count)
            for s in by_wrk
            for close, each, counts in (
                (False, asked.KEPT_SIZES, asked.KEPT_CONNECTIONS),
                (True, asked.CLOSE_SIZES, asked.CLOSE_CONNECTIONS),
            )
            for size in each
            for count in counts
        ],
        "shares": [share_row(s, size) for s in systems for size in shares.SIZES],
        "packet_by_packet": [share_row(s.name, PAPERS_BYTES) for s in (*PEERS_SINGLE, ZERO_COPY, SINGLE)],
        "low_load": [
            load_row(system=s, connections=count, rate_s=rate_s)
            for s in systems
            for rate_s, counts in asked.LOW_LOADS.items()
            for count in counts
        ],
        "idle": [{"system": s, "share": 0.02} for s in systems],
        "workers": [
            {"system": s, "ports": 1, "workers": 1, "connections": 64, "requests_s": 9, "busy": [1, 1]}
            for s in systems
        ],
        "memory": [{"system": s, "connections": 10_000, "server_kb": 1, "kernel_kb": 1} for s in systems],
        "in_memory": [
            in_memory_row(case, variant)
            for case in dict.fromkeys([*memory.MATRIX, *memory.ASKED])
            for variant in memory.VARIANTS
        ],
        "in_memory_workers": [{"one": 100, "two": 150}],
    }


def verdict(results: dict[str, Any], what: str, port: str) -> bool | None:
    """Of one bar."""
    (found,) = (bar for bar in bars(results) if (bar.what, bar.port) == (what, port))
    return found.reached


def test_who_is_level_with_the_peers_and_the_bound_reaches_what_asks_for_no_more(results: dict[str, Any]) -> None:
    level = {f"cycles {what}" for what, *_ in IN_MEMORY_MOST} | {"connections a second, a 1 KB request on each"}
    assert {bar.what for bar in bars(results) if bar.reached} == level
    assert not any(bar.reached is None for bar in bars(results))


PACKET, TAP, XDP = "ssrun, AF_PACKET", "ssrun, TAP", "ssrun, AF_XDP"


@pytest.mark.parametrize(
    ("what", "port", "figure", "row", "change"),
    [
        ("requests a second, 1 KB", PACKET, "by_wrk", {"system": PACKET, "size_bytes": 1_000}, {"requests_s": 150_000}),
        ("connections a second, 22 KB", PACKET, "by_wrk", {"system": PACKET, "close": True, "size_bytes": 22_000},
         {"load_busy": 0.99}),
        ("requests a second, 22 KB, 256 connections", PACKET, "by_wrk",
         {"system": PACKET, "size_bytes": 22_000, "connections": 256}, {"requests_s": 136_000}),
        ("requests a second, 1 MB, 256 connections", TAP, "by_wrk",
         {"system": TAP, "size_bytes": 1_000_000, "connections": 256}, {"requests_s": 126_000}),
        ("requests a second, 22 KB, 2 connections, wrk", TAP, "throughput",
         {"system": TAP, "connections": 2, "load": "wrk"}, {"requests_s": 136_000}),
        ("requests a second, 22 KB, 16 connections, loadgen", PACKET, "throughput",
         {"system": PACKET, "connections": 16, "load": "loadgen"}, {"requests_s": 131_000}),
        ("response time of 22 KB, 8 connections, wrk", PACKET, "throughput",
         {"system": PACKET, "connections": 8, "load": "wrk"}, {"latency_us": {"p50": 19.0, "p99": 39.0}}),
        ("CPU of a request, 100 KB, 30 % of nginx's limit", TAP, "light_load",
         {"system": TAP, "size_bytes": 100_000, "share": 0.3}, {"taken_us": 5.9}),
        ("cycles a request of 1 KB", "in memory", "in_memory", asdict(memory.SMALL) | {"variant": "zero-copy"},
         {"request_cycles": 349.0}),
        ("CPU of a request, 22 KB", PACKET, "shares", {"system": PACKET, "size_bytes": 22_000}, {"server_us": 5.0}),
        ("22 KB requests a CPU second, packet by packet", XDP, "packet_by_packet", {"system": XDP},
         {"requests_cpu_s": 190_000}),
        ("response time of 22 KB, 1 connection, 1,000 a second", XDP, "low_load",
         {"system": XDP, "connections": 1, "rate_s": 1_000}, {"latency_us": {"p50": 19.0, "p99": 39.0, "p99_9": 90.0}}),
        ("CPU with no traffic", XDP, "idle", {"system": XDP}, {"share": 0.009}),
        ("requests of two workers", "in memory", "in_memory_workers", {}, {"two": 190}),
        ("memcpy's cycles, cold", "in memory", "in_memory", asdict(memory.COLD) | {"variant": "memcpy"},
         {"request_cycles": 3_000.0}),
        ("1 KB answers a second on kept connections", "in memory", "in_memory",
         asdict(memory.SMALL) | {"variant": "zero-copy"}, {"request_ns": 330.0}),
    ],
)  # fmt: skip
def test_what_it_takes(
    results: dict[str, Any], what: str, port: str, figure: str, row: dict[str, Any], change: dict[str, Any]
) -> None:
    assert verdict(results, what, port) is False
    find(results[figure], **row).update(change)
    assert verdict(results, what, port) is True


def test_what_is_asked(results: dict[str, Any]) -> None:
    """And judged by, as each bar has one number."""
    asked_of = {bar.what: bar.asked for bar in bars(results)}
    best_peer = {
        "at least 1.5 times": ["requests a second, 1 KB", "requests a second, 1 KB, 256 connections",
                               "22 KB requests a CPU second, packet by packet"],
        "at least 1.35 times": ["requests a second, 22 KB", "requests a second, 22 KB, 256 connections",
                                "requests a second, 22 KB, 2 connections, wrk"],
        "at least 1.3 times": [f"requests a second, 22 KB, {count} connections, loadgen" for count in (4, 8, 16)],
        "at least 1.25 times": [f"requests a second, {size}{more}" for size in ("100 KB", "1 MB", "10 MB")
                                for more in ("", ", 256 connections")],
        "at most 0.6 times": [f"CPU of a request, {size}, {share} % of nginx's limit"
                              for size in ("100 B", "22 KB", "100 KB") for share in (10, 30, 60, 90)],
    }  # fmt: skip
    for text, names in best_peer.items():
        assert {name: asked_of[name] for name in names} == dict.fromkeys(names, f"{text} the best peer")
    assert [most for _, _, most in IN_MEMORY_MOST] == [2.5, 4.5, 9.0, 1.5]
    assert asked_of["cycles a request of 1 KB"] == "under 350"


def test_all_is_held_against_the_best_of_the_peers_at_that_point(results: dict[str, Any]) -> None:
    """A TAP has another rival: lo is no way to a veth's other end."""
    what, point = "requests a second, 1 MB", {"size_bytes": 1_000_000, "close": False, "connections": 64}
    for port in (PACKET, TAP):
        find(results["by_wrk"], system=port, **point)["requests_s"] *= 1.5
    find(results["by_wrk"], system="h2o over lo", **point)["requests_s"] *= 2
    assert verdict(results, what, TAP) is False
    assert verdict(results, what, PACKET) is True
    find(results["by_wrk"], system="nginx, sendfile off", **point)["requests_s"] *= 2
    assert verdict(results, what, PACKET) is False


@pytest.mark.parametrize(
    ("what", "figure", "port", "point", "better", "worse"),
    [
        ("requests a second, 22 KB, 4 connections, loadgen", "throughput", PACKET, {"connections": 4, "load": "loadgen"},
         {"requests_s": 140_000}, {"requests_s": 120_000}),
        ("response time of 22 KB, 2 connections, wrk", "throughput", TAP, {"connections": 2, "load": "wrk"},
         {"latency_us": {"p50": 18.0, "p99": 38.0}}, {"latency_us": {"p50": 30.0, "p99": 37.0}}),
        ("CPU of a request, 1 KB", "shares", TAP, {"size_bytes": 1_000}, {"server_us": 4.0}, {"server_us": 7.0}),
        ("CPU of a request, 22 KB, 60 % of nginx's limit", "light_load", TAP, {"size_bytes": 22_000, "share": 0.6},
         {"taken_us": 5.0}, {"taken_us": 8.0}),
        ("response time of 22 KB, 1 connection, one after the other", "low_load", XDP, {"connections": 1, "rate_s": 0},
         {"latency_us": {"p50": 18.0, "p99": 38.0}}, {"latency_us": {"p50": 17.0, "p99": 50.0}}),
    ],
)  # fmt: skip
def test_one_better_peer_is_enough(
    results: dict[str, Any], what: str, figure: str, port: str, point: dict[str, Any], better: Any, worse: Any
) -> None:
    find(results[figure], system=port, **point).update(better)
    assert verdict(results, what, port) is True
    find(results[figure], system="lighttpd", **point).update(worse)
    assert verdict(results, what, port) is False


def test_who_cannot_bear_a_load_is_no_rival_and_does_not_reach_it(results: dict[str, Any]) -> None:
    what, point = "CPU of a request, 22 KB, 90 % of nginx's limit", {"size_bytes": 22_000, "share": 0.9}
    find(results["light_load"], system=TAP, **point)["taken_us"] = 5.0
    find(results["light_load"], system="h2o", **point).update(taken_us=1.0, borne=False)
    assert verdict(results, what, TAP) is True
    find(results["light_load"], system=TAP, **point)["borne"] = False
    assert verdict(results, what, TAP) is False


def test_where_others_had_the_core_too_the_scheduler_tells(results: dict[str, Any]) -> None:
    what, point = "CPU of a request, 22 KB, 10 % of nginx's limit", {"size_bytes": 22_000, "share": 0.1}
    find(results["light_load"], system=TAP, **point).update(taken_us=1.0, counted_us=6.6)
    find(results["light_load"], system="h2o", **point)["taken_us"] = None
    assert verdict(results, what, TAP) is True
    find(results["light_load"], system="lighttpd", **point)["counted_us"] = 10.9
    assert verdict(results, what, TAP) is False
    assert "by the scheduler, the core was not quiet" in page.text(results)


def test_a_reading_that_failed_reaches_nothing(results: dict[str, Any]) -> None:
    find(results["shares"], system=TAP, size_bytes=1_000)["server_us"] = 0.0
    assert verdict(results, "CPU of a request, 1 KB", TAP) is None
    find(results["shares"], system=PACKET, size_bytes=1_000)["server_us"] = 5.0
    find(results["shares"], system="h2o", size_bytes=1_000)["server_us"] = 0.0
    assert verdict(results, "CPU of a request, 1 KB", PACKET) is True
    find(results["low_load"], system=TAP, connections=8, rate_s=0)["latency_us"] = {"p50": 0.0, "p99": 0.0}
    assert verdict(results, "response time of 22 KB, 8 connections, one after the other", TAP) is None
    find(results["throughput"], system="h2o", connections=8, load="wrk")["latency_us"] = {"p50": 0.0, "p99": 0.0}
    find(results["throughput"], system=TAP, connections=8, load="wrk")["latency_us"] = {"p50": 19.0, "p99": 39.0}
    assert verdict(results, "response time of 22 KB, 8 connections, wrk", TAP) is True


@pytest.mark.parametrize("count", LOW_LEAST)
def test_two_connections_are_asked_more_of(results: dict[str, Any], count: int) -> None:
    find(results["throughput"], system=TAP, connections=count, load="wrk")["requests_s"] = 132_000
    name = f"{count} connection{'s' if count > 1 else ''}"
    assert verdict(results, f"requests a second, 22 KB, {name}, wrk", TAP) is (count != 2)


def of_an_older_bench(results: dict[str, Any]) -> None:
    """Takes away what was not measured then."""
    results.pop("light_load")
    for name in ("h2o", "lighttpd"):
        results["machine"].pop(name)
    for figure in ("throughput", "sizes", "equal_load", "by_wrk", "shares", "packet_by_packet", "low_load", "idle"):
        results[figure] = [row for row in results[figure] if not row["system"].startswith(("h2o", "lighttpd"))]
    results["by_wrk"] = [row for row in results["by_wrk"] if row["connections"] == 64]
    results["throughput"] = [row for row in results["throughput"] if row["connections"] in (1, 4, 16, 64)]
    for row in results["by_wrk"]:
        row.pop("connections")
        row.pop("latency_us")
    for row in results["throughput"]:
        if row["load"] == "wrk":
            row.pop("latency_us")


def test_results_of_an_older_bench_are_drawn_and_what_they_lack_is_named(results: dict[str, Any]) -> None:
    of_an_older_bench(results)
    text = page.text(results)
    lacking = {bar.what for bar in bars(results) if bar.reached is None}
    assert {
        "requests a second, 22 KB, 2 connections, loadgen",
        "response time of 22 KB, 4 connections, wrk",
    } <= lacking
    assert "requests a second, 1 KB, 256 connections" in lacking
    assert "CPU of a request at shares of nginx's limit" in lacking
    assert "requests a second, 22 KB" not in lacking
    assert "requests a second, 1 MB" in lacking  # those were over eight connections
    assert f"| {NOT_THERE} | [not measured]" in text
    assert "- h2o: no figures in these results" in text
    assert "Not in these results" in text
    assert "ticks, in these results of an older bench" in text


def test_a_missing_peer_is_named(results: dict[str, Any]) -> None:
    results["machine"]["lighttpd"] = peers.MISSING
    assert "- lighttpd is missing on that machine" in page.text(results)


def test_a_load_that_is_not_borne_is_named(results: dict[str, Any]) -> None:
    find(results["light_load"], system="h2o", share=0.9, size_bytes=100).update(borne=False, requests_s=77_000)
    text = page.text(results)
    assert "| h2o (bears 77,000) |" in text
    find(results["light_load"], system="h2o", share=0.1, size_bytes=100)["idle_softirq_us"] = None
    assert "| h2o | 11.00 | 8.00 | - | 0.00 | 10.00 |" in page.text(results)


def test_the_best_repeat_has_the_least_response_times_of_all() -> None:
    rows = [
        load_row(requests_s=1.0, latency_us={"p50": 5.0, "p99": 50.0}),
        load_row(requests_s=2.0, latency_us={"p50": 6.0, "p99": 40.0}),
    ]
    found = figures.best_of(rows, "")
    assert found["requests_s"] == 2.0
    assert found["latency_us"] == {"p50": 5.0, "p99": 40.0}
    silent = load_row(requests_s=0.0, latency_us={"p50": 0.0, "p99": 0.0})
    assert figures.best_of([*rows, silent], "")["latency_us"] == {"p50": 5.0, "p99": 40.0}
    assert figures.best_of([silent], "")["latency_us"] == {"p50": 0.0, "p99": 0.0}
    fallen = [rows[0], rows[1] | {"borne": False}]
    assert figures.best_of(fallen, "")["requests_s"] == 1.0
    assert figures.best_of(rows, "requests_s")["requests_s"] == 1.0
    for failed in (None, 0.0):
        taken = [rows[0] | {"taken_us": failed}, rows[1] | {"taken_us": 3.0}]
        assert figures.best_of(taken, "taken_us")["taken_us"] == 3.0


def test_what_is_measured_again_keeps_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each figure is in the file once it has been read; the whole run says what it was made with, and how long it took."""
    monkeypatch.setattr(
        measure, "FIGURES", {"first": lambda *_: [1], "second": lambda _, results: results["first"] * 2}
    )
    monkeypatch.setattr(measure, "make_site", lambda _: Site(tmp_path, tmp_path))
    monkeypatch.setattr(figures, "best_sendfile", lambda bench: bench.site)
    file, results = tmp_path / "results.json", {}
    measure.measure(results, ["first", "second"], 1, 1, file)
    whole = json.loads(file.read_text())
    assert whole == results
    assert (whole["second"], whole["again"], whole["minutes"]) == ([1, 1], [], 0)
    assert {"idle time", *peers.NAMES} <= whole["machine"].keys()
    whole["machine"].pop("h2o")
    monkeypatch.setitem(measure.FIGURES, "second", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure.measure(whole | {"first": [7]}, ["second"], 1, 1, file)
    assert json.loads(file.read_text()) == results
    monkeypatch.setitem(measure.FIGURES, "second", lambda *_: [2])
    measure.measure(whole, ["second"], 1, 1, file)
    again = json.loads(file.read_text())
    assert (again["first"], again["second"], again["again"]) == ([1], [2], ["second"])
    assert "h2o" in again["machine"]


def test_bytes_tell_the_rate_of_few_long_answers_only() -> None:
    assert figures.are_many(5, 100)
    assert figures.are_many(5_000, 10_000_000)
    assert not figures.are_many(20, 10_000_000)


def test_handshake_and_end_count_for_the_segments_with_data(results: dict[str, Any]) -> None:
    """17 segments a request, of which 16 have data."""
    row = find(results["in_memory"], **asdict(memory.HOT_CLOSE), variant="zero-copy")
    row |= {"request_segments": 17.0, "segment_cycles": 950.0, "request_cycles": 16_150.0}
    what = "cycles a segment of 22 KB, a new connection for each request"
    assert verdict(results, what, "in memory") is False


def test_without_perf_the_page_says_so(results: dict[str, Any]) -> None:
    results["shares"] = results["packet_by_packet"] = [{"skipped": "perf is missing"}]
    assert {bar.what for bar in bars(results) if bar.reached is None} == {
        "CPU of a request",
        "22 KB requests a CPU second, packet by packet",
    }
    assert "Not measured: perf is missing." in page.text(results)


def test_response_times_of_few_connections_are_a_table(results: dict[str, Any]) -> None:
    find(results["throughput"], system=TAP, connections=8, load="wrk")["latency_us"] = {"p50": 7.4, "p99": 9.6}
    assert page.text(results).count("| 8 | 20 / 40 | 20 / 40 | 20 / 40 | 20 / 40 | 7 / 10 | 20 / 40 |") == 1
    of_an_older_bench(results)
    assert "| 4 | - | - | - | - |" in page.text(results)


def test_the_page_has_what_it_links_to(results: dict[str, Any]) -> None:
    text = page.text(results)
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= anchors
    assert len(re.findall(r"^\| .*\[(?:reached|\*\*not reached\*\*)\]", text, re.MULTILINE)) == len(bars(results))
