"""docs/benchmarks/README.md, from results.json and notes.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.bars import LOW_LEAST, bars
from tests.bench.cells import Row, find, names, pivot, size, table
from tests.bench.peers import MISSING
from tests.bench.shares import COPIES, IDLE, KERNEL, LOAD_RECEIVES, OTHER, RECEIVES, SERVER, USER

Results = dict[str, Any]

NOTES = Path(__file__).resolve().parent / "notes.md"  # what the figures mean; edited by hand

HEAD = """# Benchmarks

Made by `make bench` ({date}{took}): all systems in one run, in turn, {repeats} times; each point is {seconds} s, and of its
repeats the best, as what else a machine has to do only slows; response times are each the least of the repeats. Absolute
figures move by tens of percent between runs on a virtual machine; ratios hold better. `results.json` has all that was read.

- Machine: {cores} cores of {processor}, Linux {Linux}.
{peers}
- ssrun: one worker pinned to core 0. *AF_PACKET*: superframes of up to 44 segments over veth. *TAP*: the same over a TAP
  device. *AF_XDP*: copy mode, as veth has no other, frame by frame; *memcpy* copies each frame first (`--tx memcpy`), as the
  paper's second system does.
- Load: `tests/bench/loadgen` on core 1, frame by frame over AF_PACKET, so that no client's kernel is the limit; it compares
  one body in 64. wrk is the whole-system figure: its kernel's TCP costs more than the servers do.
- On veth and TAP a sender's core does the receiver's softirq too, for all systems alike. Where a limit is named, a core's
  time is all that it was busy, softirq with it; [where the time goes](#where-the-time-goes) tells whose work that was.
- CPU: ticks are samples, and meet a process that wakes with the clock, or miss it. A core's busy time is the clock's less the
  idle task's own, while it is measured; with wrk over its whole run. Read from: {idle}. A server's is its threads' (`schedstat`).
  [CPU at light load](#cpu-at-light-load-figures-4-and-5) is judged by a loop that takes what is left.
- {errors}

"""

# Each as it is best, by its name.
PEERS_SETTINGS = {
    "nginx": "one worker pinned to core 0, reno, sendfile {sendfile} (the better of on and off at 22 KB; beside wrk both are "
    "measured at each size), tcp_nopush, open_file_cache, no access log.",
    "h2o": "one thread pinned to core 0, reno, file.dir, no log (file.file for each file, and no ETag, took as much CPU).",
    "lighttpd": "one process pinned to core 0, reno, epoll, sendfile, stat cache, no log (writev, no stat cache and no ETag "
    "took more CPU).",
}

ON_SERVERS_CORE = (USER, KERNEL, COPIES, LOAD_RECEIVES, OTHER, IDLE)


def rate(row: Row, base: Row) -> str:
    """Requests a second, the ratio to nginx, and who was the limit."""
    ratio = row["requests_s"] / max(1, base["requests_s"])
    limit = f", {row['limit']}" if "limit" in row else ""
    digits = 0 if row["requests_s"] >= 100 else 1
    return f"{row['requests_s']:,.{digits}f} ({ratio:.2f}{limit})"


def equal(row: Row, base: Row) -> str:
    latency = row["latency_us"]
    times = " / ".join(f"{latency[name]:,.0f}" for name in ("p50", "p99", "p99_9"))
    return f"{100 * row['server_busy']:.0f} %, {row['server_us']:.1f} us; {times}"


def peers(results: Results) -> str:
    """Their versions and settings; or that one is missing."""
    lines = []
    for name, settings in PEERS_SETTINGS.items():
        version = results["machine"].get(name)
        if version is None:
            lines.append(f"- {name}: no figures in these results, which are of an older bench.")
        elif version == MISSING:
            lines.append(
                f"- {name} is missing on that machine (`.ci/setup` unpacks it): the best peer is the best of the others."
            )
        else:
            lines.append(f"- {version}: {settings.format(sendfile=results['sendfile'])}")
    return "\n".join(lines)


def errors(results: dict[str, Any]) -> str:
    """What went wrong while it was measured."""
    found = []
    figures = ("throughput", "sizes", "equal_load", "light_load", "by_wrk", "shares", "packet_by_packet", "low_load")
    for figure in figures:
        for row in results.get(figure, []):
            if row.get("errors"):
                point = ", ".join(
                    str(row[key]) for key in ("connections", "size_bytes", "share", "load", "close") if key in row
                )
                found.append(f"{row['system']} ({point}): {row['errors']}")
    return f"Errors: {'; '.join(found)}." if found else "No errors in any run."


def in_memory(rows: list[Row]) -> str:
    """Cycles a segment, and of a request for one frame."""
    text = ""
    for size_bytes, key, what in ((22_000, "segment_cycles", "a segment"), (1_000, "request_cycles", "a request")):
        mine = [row for row in rows if row["size_bytes"] == size_bytes and not row["close"] and not row["random"]]
        variants = names(mine, "variant")
        lines = []
        for files in names(mine, "files"):
            for connections in names(mine, "connections"):
                found = {r["variant"]: r for r in mine if (r["files"], r["connections"]) == (files, connections)}
                cells = [f"{found[variant][key]:,.0f}" for variant in variants]
                lines.append([f"{files:,}", f"{connections:,}", *cells])
        text += f"Cycles {what} of {size(size_bytes)} files.\n\n"
        text += table(["files", "connections", *variants], lines) + "\n"
    return text


def judged(rows: list[Row]) -> str:
    """The cases that more is asked of, by request."""
    mine = [row for row in rows if row["close"] or row["random"] or row["size_bytes"] == 1_000_000]
    keys = ("size_bytes", "files", "connections", "close", "random")
    lines = []
    for case in dict.fromkeys(tuple(row[key] for key in keys) for row in mine):
        found = [
            find(mine, variant=variant, **dict(zip(keys, case, strict=True))) for variant in names(mine, "variant")
        ]
        kind = "a connection for each request" if case[3] else "at random" if case[4] else "kept"
        cells = [f"{row['request_cycles']:,.0f}" for row in found]
        lines.append([size(case[0]), kind, f"{case[1]:,}", f"{case[2]:,}", *cells])
    text = "Cycles a request, all in: handshake, ACKs and the end of a connection.\n\n"
    return text + table(["size", "connections are", "files", "connections", *names(mine, "variant")], lines) + "\n"


def opening(rows: list[Row]) -> str:
    """What a connection costs, where its first request is not the first to touch a slot."""
    mine = [row for row in rows if (row["variant"], row["files"], row["size_bytes"]) == ("zero-copy", 1, 1_000)]
    mine = [row for row in mine if not row["close"]]
    most = max(mine, key=lambda row: row["connections"])
    return f"Opening one of {most['connections']:,} connections adds {most['connection_cycles']:,.0f} cycles.\n\n"


def asked(results: Results) -> str:
    """Each bar, what was read, and where there is more of it."""
    found = bars(results)
    lines = [[bar.what, bar.port, bar.asked, bar.read, f"[{bar.verdict}](#{bar.where})"] for bar in found]
    count = sum(bar.reached is True for bar in found)
    text = "## What is asked, and what was read\n\n"
    text += f"{count} of {len(found)} are reached; why the others are not: [below](#what-is-not-reached). *The best peer* is the "
    text += (
        "best of nginx, h2o and lighttpd at that very point; where there are several columns, each has its own.\n\n"
    )
    return text + table(["what", "on", "asked", "read", ""], lines) + "\n"


def times(row: Row, _: Row) -> str:
    """p50 and p99."""
    latency = row.get("latency_us", {})
    return f"{latency['p50']:.0f} / {latency['p99']:.0f}" if latency.get("p50") and latency.get("p99") else "-"


def few_connections(rows: list[Row]) -> str:
    """Response times where a server, and here the load too, falls asleep between two requests."""
    text = "Response times of those, p50 / p99 in us. The load falls asleep too where it waits; one that polls is "
    text += "[below](#response-times-at-low-load).\n\n"
    return text + pivot([row for row in rows if row["connections"] in LOW_LEAST], "connections", str, times) + "\n"


def throughput(results: Results) -> str:
    """By concurrency, by either load."""
    text = ""
    for load, title, image, more in (
        (
            "loadgen",
            "Throughput by concurrency (the paper's figure 3)",
            "throughput",
            ", and the side that was the limit",
        ),
        ("wrk", "The same with wrk", "throughput-wrk", ""),
    ):
        rows = [row for row in results["throughput"] if row["load"] == load]
        text += f"## {title}\n\n![]({image}.svg)\n\nRequests a second of 22 KB, the ratio to nginx{more}.\n\n"
        text += pivot(rows, "connections", str, rate) + "\n" + few_connections(rows)
    return (
        text
        + "## Cost and response time by concurrency (figures 5 and 6)\n\n![](cost.svg)\n![](response-time.svg)\n\n"
    )


def sizes(results: Results) -> str:
    """By size, on kept connections and on new ones."""
    text = ""
    for close, title, image in ((False, "keep-alive", "keep-alive"), (True, "Connection: close", "close")):
        rows = [row for row in results["sizes"] if row["close"] == close]
        text += f"## From 100 B to 10 MB, {title}\n\n![](sizes-{image}.svg)\n\n"
        text += pivot(rows, "size_bytes", size, rate) + "\n"
    return text


def by_wrk(results: Results) -> str:
    """Rates, and how busy the two cores were."""

    def cell(row: Row, _: Row) -> str:
        return f"{row['requests_s']:,.0f} ({100 * row['server_busy']:.0f} / {100 * row['load_busy']:.0f} %)"

    text = "## With wrk, beside the peers' best\n\nRequests a second; how busy the server's core and wrk's were. What is asked is asked "
    text += "of the peers' best way: AF_PACKET stands beside the best one over veth, TAP beside the best of all.\n\n"
    for close, title in ((False, "Kept connections"), (True, "A connection for each request")):
        mine = [row for row in results["by_wrk"] if row["close"] == close]
        for count in dict.fromkeys(row.get("connections") for row in mine):
            rows = [row for row in mine if row.get("connections") == count]
            over = f", {count} at once" if count else ""
            text += f"{title}{over}:\n\n" + pivot(rows, "size_bytes", size, cell) + "\n"
    return text


def spent(rows: list[Row]) -> str:
    """Shares of the server's core, and what a request costs."""
    if "skipped" in rows[0]:
        return f"Not measured: {rows[0]['skipped']}.\n\n"
    lines = [
        [
            row["system"],
            size(row["size_bytes"]),
            *(f"{100 * row['server_core'][name]:.0f} %" for name in ON_SERVERS_CORE),
            f"{100 * row['load_core'][RECEIVES]:.0f} %",
        ]
        for row in rows
    ]
    text = table(["server's core", "size", *ON_SERVERS_CORE, "server, receiving, on the load's core"], lines) + "\n"
    lines = [
        [
            row["system"],
            size(row["size_bytes"]),
            *(f"{row['request_us'][name]:.2f}" for name in (*SERVER, LOAD_RECEIVES)),
            f"{row['server_us']:.2f}",
            f"{row['requests_cpu_s']:,}",
            f"{row['requests_s']:,.0f}",
        ]
        for row in rows
    ]
    head = [
        "us a request",
        "size",
        *SERVER,
        LOAD_RECEIVES,
        "server's side",
        "requests a CPU second",
        "requests a second",
    ]
    return text + table(head, lines) + "\n"


def shares(results: Results) -> str:
    """Whose work it is."""
    text = "## Where the time goes\n\n"
    if "skipped" not in results["shares"][0]:
        text += "![](shares.svg)\n\n"
    text += "perf samples both cores while loadgen asks over 64 connections. What is below the kernel's receive path is the "
    text += "other side's work, on whichever core it runs; the server's side is its process, in user and in kernel mode, and "
    text += "the softirq that receives for it.\n\n"
    text += (
        spent(results["shares"])
        + "## Packet by packet\n\nAs on the paper's NIC: peers without TSO and GSO, and ssrun frame by "
    )
    return text + "frame, 22 KB.\n\n" + spent(results["packet_by_packet"])


def equal_load(results: Results) -> str:
    """The paper's figure 4."""
    text = "## The same load for all (figure 4), and latency\n\n![](load.svg)\n\nOpen loop over 256 connections at 60 % of what the "
    text += (
        "slowest can; a request's time counts from when it was due. Busy share of the server's core, its time for a "
    )
    text += "request; response times p50 / p99 / p99.9 in us.\n\n"
    return text + pivot(results["equal_load"], "size_bytes", size, equal) + "\n"


LIGHT_COLUMNS = {
    "core busy": "core_us",
    "server's threads": "threads_us",
    "softirqs while idle": "idle_softirq_us",
    "ksoftirqd": "ksoftirqd_us",
    "**taken from the loop**": "taken_us",
}


def light_load(results: Results) -> str:
    """The paper's figures 4 and 5, by several counters."""
    text = "## CPU at light load (figures 4 and 5)\n\n"
    rows = results.get("light_load")
    if not rows:
        return text + "Not in these results: `python tests/bench/bench.py --only light_load` measures it.\n\n"
    text += "![](light-load.svg)\n\n"
    text += "Open loop over 256 connections, at shares of the most that nginx answers over as many. Microseconds of the server's "
    text += "core a request, read in five ways. *Core busy*: all that the core was not idle, and *server's threads*, what the "
    text += "scheduler gave them, with the softirqs that came meanwhile. *Softirqs while idle*: what was busy and is no thread's, "
    text += "interrupts among it; *ksoftirqd* is a thread. What is asked is asked of the last: a second reading of the same load, "
    text += "with a loop of the lowest priority (SCHED_IDLE, `tests/bench/spare.c`) on that core. It is given what nobody else wants; "
    text += "what it gets less than on the core of a server that nobody asks, a request took, whoever it was counted for. The "
    text += "core never sleeps then, so waking it is not in it. Where others had the core too (-), the sum of the three before it "
    text += "decides; dashed in the figure.\n\n"
    lines = [
        [
            size(row["size_bytes"]),
            f"{100 * row['share']:.0f} %, {row['rate_s']:,}",
            row["system"] + ("" if row["borne"] else f" (bears {row['requests_s']:,.0f})"),
            *("-" if row[key] is None else f"{row[key]:.2f}" for key in LIGHT_COLUMNS.values()),
        ]
        for row in sorted(rows, key=lambda row: (row["size_bytes"], row["share"]))
    ]
    return text + table(["size", "load, requests a second", "system", *LIGHT_COLUMNS], lines) + "\n"


def low_load(results: Results) -> str:
    """Response times where there is no queue."""

    text = "## Response times at low load\n\nOf 22 KB, p50 / p99 in us, each the least of the repeats. The load polls, and so does a server with `--busy-poll`, as the paper's did: it takes its core whole.\n\n"
    for rate_s in names(results["low_load"], "rate_s"):
        rows = [row for row in results["low_load"] if row["rate_s"] == rate_s]
        text += (f"{rate_s:,} requests a second:" if rate_s else "One request after the other:") + "\n\n"
        text += pivot(rows, "connections", str, times) + "\n"
    return text


def idle(results: Results) -> str:
    """What is spent on nobody."""
    lines = [[row["system"], f"{100 * row['share']:.3f} %"] for row in results["idle"]]
    return (
        "## Idle\n\nOf a core, with no traffic, as the scheduler counts.\n\n" + table(["system", "CPU"], lines) + "\n"
    )


def workers(results: Results) -> str:
    """Figures 5 and 6 as far as two cores go."""
    text = "## Ports and workers, and wrk on the same two cores (figures 5 and 6)\n\nRequests a second of 22 KB, and how busy the two cores "
    text += "were. There is a veth or a TAP for each port, with a server and a wrk of its own. The servers and wrk share the cores, so "
    text += (
        "more workers have no more of them: what two workers add by themselves stands [in memory](#in-memory).\n\n"
    )
    cells = [
        [
            *(row[key] for key in ("system", "ports", "workers", "connections")),
            f"{row['requests_s']:,}",
            " / ".join(f"{100 * core:.0f} %" for core in row["busy"]),
        ]
        for row in results["workers"]
    ]
    return text + table(["system", "ports", "workers", "connections", "requests/s", "busy"], cells) + "\n"


def crowd(results: Results) -> str:
    """Memory, and the trace."""
    grown = [[row["system"], f"{row['server_kb']:,}", f"{row['kernel_kb']:,}"] for row in results["memory"]]
    text = "## Memory of 10,000 connections\n\n" + table(["system", "server, KB", "kernel, KB"], grown)
    text += "\nWhat both grow by; ssrun has its connections' memory from the start.\n\n"
    return text + "## One connection of a busy server (figure 1)\n\n![](traces.svg)\n\n"


def in_memory_section(results: Results) -> str:
    """The stack alone."""
    rows = results["in_memory"]
    ratios = sorted(row["two"] / row["one"] for row in results["in_memory_workers"])
    text = "## In memory\n\n![](in-memory.svg)\n\nCycles of the time stamp counter, which are read around the stack's calls alone: the "
    text += "clients' work is not in them. Best of the rounds. The lower bound keeps a connection in cache lines of its own, "
    text += "patches headers, updates checksums and appends descriptors; it fetches nothing ahead. Clients acknowledge every "
    text += "second segment (RFC 9293), each with a frame; *ACKs joined*, and *superframes*: all that came at once, as behind "
    text += "a NIC or a kernel that joins segments.\n\n"
    text += in_memory(rows) + judged(rows) + opening(rows)
    text += f"Two workers on two cores served {statistics.median(ratios):.2f} times the requests of one (22 KB; "
    return text + f"{ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rounds, in turn).\n\n"


SECTIONS: tuple[Callable[[Results], str], ...] = (
    *(asked, throughput, sizes, by_wrk, shares, equal_load, light_load),
    *(low_load, idle, workers, crowd, in_memory_section),
)


def text(results: Results) -> str:
    """The page."""
    values = {key: results[key] for key in ("date", "repeats", "seconds")}
    values["took"] = f", in {results['minutes']} minutes" if "minutes" in results else ""
    values["idle"] = results["machine"].get("idle time", "/proc/stat's ticks, in these results of an older bench")
    head = HEAD.format(**values, **results["machine"], peers=peers(results), errors=errors(results))
    if results["again"]:
        head += f"Measured again by themselves: {', '.join(results['again'])}.\n\n"
    return head + "".join(section(results) for section in SECTIONS) + NOTES.read_text()
