"""docs/benchmarks/README.md, from results.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]

HEAD = """# Benchmarks

Made by `make bench` ({date}): all systems in one run, in turn, {repeats} times; each point is {seconds} s, and of its
repeats the middle one. Absolute figures move by tens of percent between runs on a virtual machine; ratios hold better.
`results.json` has all that was read.

- Machine: {cores} cores of {processor}, Linux {Linux}.
- {nginx}: one worker pinned to core 0, reno, sendfile {sendfile} (the better of on and off), tcp_nopush, open_file_cache, no
  access log.
- ssrun: one worker pinned to core 0. *AF_PACKET*: superframes of up to 44 segments. *AF_XDP*: copy mode, as veth has no other,
  frame by frame; *memcpy* copies each frame first (`--tx memcpy`), as the paper's second system does.
- Load: `tests/bench/loadgen` on core 1, frame by frame over AF_PACKET, so that no client's kernel is the limit; it compares
  one body in 64. wrk is the whole-system figure: its kernel's TCP costs more than the servers do.
- On veth a sender's core does the receiver's softirq too, for all systems alike. A server's cost is the time its core was
  busy, softirq with it.
- {errors}

"""

NOTES = """
## What to make of it

- A veth is no NIC: each frame costs the kernel a copy or an skb on both sides, which is most of what is measured here.
  Superframes pay that once for 44 segments; AF_XDP in copy mode pays it for each, and loses where answers are long. On a
  NIC with AF_XDP's or netmap's zero-copy mode nothing of that remains; none was at hand.
- AF_XDP with 1,024 connections loses frames in the queues between the two ends, and then waits for timeouts: neither side is
  busy. ssrun's counters say so (`tcp_retransmit_timeout`).
- At a load that both bear easily ssrun's core can be the busier one for 22 KB (figure 4): a request and the ACK of its answer
  wake the process one after the other, where the kernel's TCP takes the ACK in the softirq. Under load they come in batches.
- *In memory* is the stack alone: what of a core it takes, whatever the port. Beside it stand a lower bound, written by hand
  in the same program (headers, checksum, descriptor, nothing else), and the same with a copy of each frame.

## What was tried

| | |
|---|---|
| headers made once for a run of frames, copied in whole vectors | kept: 42 % fewer instructions for a 22 KB answer |
| request heads read eight bytes at a time | kept: 17 % fewer for a 100 B answer |
| the next frames' headers fetched ahead | kept: a third fewer cycles with cold files, nothing with hot ones |
| superframes bounded by what a flow sends in a millisecond (Linux's tcp_tso_autosize) | not kept: no effect here |

Budgets: `python tests/bench/instructions.py` counts instructions with callgrind, `tests/unit/test_instructions.py` holds them.
"""


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(list(head))]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)]) + "\n"


def names(rows: Iterable[Row], key: str) -> list[Any]:
    """A column's values, in the order in which they come."""
    return list(dict.fromkeys(row[key] for row in rows))


def pivot(rows: list[Row], key: str, label: Callable[[Any], str], cell: Callable[[Row, Row], str]) -> str:
    """A line for each value of key, a column for each system; cell is told the first system's row too."""
    systems = names(rows, "system")
    lines = []
    for value in names(rows, key):
        mine = {row["system"]: row for row in rows if row[key] == value}
        lines.append([label(value), *(cell(mine[system], mine[systems[0]]) for system in systems)])
    return table([key.replace("_", " "), *systems], lines)


def size(size_bytes: int) -> str:
    """1000 as "1 KB"."""
    for unit, scale in (("MB", 1_000_000), ("KB", 1_000)):
        if size_bytes >= scale:
            return f"{size_bytes // scale} {unit}"
    return f"{size_bytes} B"


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


def errors(results: dict[str, Any]) -> str:
    """What went wrong while it was measured."""
    found = []
    for figure in ("throughput", "sizes", "equal_load"):
        for row in results[figure]:
            if row["errors"]:
                point = ", ".join(
                    str(row[key]) for key in ("connections", "size_bytes", "load", "close") if key in row
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


def opening(rows: list[Row]) -> str:
    """What a connection costs, where its first request is not the first to touch a slot."""
    mine = [row for row in rows if (row["variant"], row["files"], row["size_bytes"]) == ("zero-copy", 1, 1_000)]
    mine = [row for row in mine if not row["close"]]
    most = max(mine, key=lambda row: row["connections"])
    return f"Opening one of {most['connections']:,} connections adds {most['connection_cycles']:,.0f} cycles.\n\n"


def text(results: dict[str, Any]) -> str:
    """The page."""
    values = {key: results[key] for key in ("date", "repeats", "seconds", "sendfile")}
    parts = [HEAD.format(**values, **results["machine"], errors=errors(results))]
    if results["again"]:
        parts.append(f"Measured again by themselves: {', '.join(results['again'])}.\n\n")
    by_load = results["throughput"]
    for load, title in (
        ("loadgen", "Throughput by concurrency (the paper's figure 3)"),
        ("wrk", "The same with wrk"),
    ):
        rows = [row for row in by_load if row["load"] == load]
        image = "throughput" if load == "loadgen" else "throughput-wrk"
        parts.append(f"## {title}\n\n![]({image}.svg)\n\nRequests a second of 22 KB, the ratio to nginx")
        parts.append(", and the side that was the limit.\n\n" if load == "loadgen" else ".\n\n")
        parts.append(pivot(rows, "connections", str, rate) + "\n")
    parts.append(
        "## Cost and response time by concurrency (figures 5 and 6)\n\n![](cost.svg)\n![](response-time.svg)\n\n"
    )
    for close, title in ((False, "keep-alive"), (True, "Connection: close")):
        rows = [row for row in results["sizes"] if row["close"] == close]
        parts.append(f"## From 100 B to 10 MB, {title}\n\n![](sizes-{'close' if close else 'keep-alive'}.svg)\n\n")
        parts.append(pivot(rows, "size_bytes", size, rate) + "\n")
    parts.append(
        "## The same load for all (figure 4), and latency\n\n![](load.svg)\n\nOpen loop over 256 connections at "
    )
    parts.append(
        "60 % of what the slowest can; a request's time counts from when it was due. Busy share of the server's core, "
    )
    parts.append("its time for a request; response times p50 / p99 / p99.9 in us.\n\n")
    parts.append(pivot(results["equal_load"], "size_bytes", size, equal) + "\n")
    parts.append("## Two workers, and wrk on the same two cores\n\n")
    cells = [[r["system"], r["workers"], f"{r['requests_s']:,}"] for r in results["workers"]]
    parts.append(table(["system", "workers", "requests a second of 22 KB"], cells) + "\n")
    parts.append("## Memory of 10,000 connections\n\n")
    grown = [[r["system"], f"{r['server_kb']:,}", f"{r['kernel_kb']:,}"] for r in results["memory"]]
    parts.append(
        table(["system", "server, KB", "kernel, KB"], grown) + "\nWhat both grow by; ssrun has its connections' "
    )
    parts.append("memory from the start.\n\n## One connection of a busy server (figure 1)\n\n![](traces.svg)\n\n")
    parts.append("## In memory\n\n" + in_memory(results["in_memory"]) + opening(results["in_memory"]))
    ratios = sorted(row["two"] / row["one"] for row in results["in_memory_workers"])
    parts.append(
        f"Two workers on two cores served {statistics.median(ratios):.2f} times the requests of one (22 KB; "
    )
    parts.append(f"{ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rounds, in turn).\n")
    return "".join(parts) + NOTES
