"""The figures of docs/benchmarks, drawn from its results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams |= {
    "svg.hashsalt": "sandstorm",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
}  # small, and the same again
import matplotlib.pyplot as plt

from tests.bench.cells import Row, names, size
from tests.bench.memory import COLD, HOT, Case
from tests.bench.shares import LOAD_RECEIVES, SERVER

SIZE_INCHES = (7, 4.2)
MARKERS = "osD^vx*P"


def save(figure: Any, path: Path, title: str) -> None:
    figure.axes[0].set_title(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def lines(
    path: Path,
    title: str,
    rows: list[Row],
    x: str,
    y: str | Callable[[Row], float],
    labels: tuple[str, str],
    log: str,
) -> None:
    """A line for each system; log names the axes that are logarithmic."""
    figure, axes = plt.subplots(figsize=SIZE_INCHES)
    for number, system in enumerate(names(rows, "system")):
        mine = [row for row in rows if row["system"] == system]
        values = [row[y] if isinstance(y, str) else y(row) for row in mine]
        axes.plot([row[x] for row in mine], values, marker=MARKERS[number], label=system)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if "x" in log:
        axes.set_xscale("log")
        values = sorted({row[x] for row in rows})
        axes.set_xticks(values, [f"{value:,}" for value in values], fontsize=8)
        axes.minorticks_off()
    if "y" in log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, path, title)


def bars(path: Path, title: str, rows: list[Row], group: str, y: Callable[[Row], float], label: str) -> None:
    """A group of bars for each value of a column, in it one for each system."""
    groups = names(rows, group)
    systems = names(rows, "system")
    figure, axes = plt.subplots(figsize=SIZE_INCHES)
    width = 0.8 / len(systems)
    for number, system in enumerate(systems):
        mine = [row for row in rows if row["system"] == system]
        places = [groups.index(row[group]) + number * width for row in mine]  # it need not have all groups
        axes.bar(places, [y(row) for row in mine], width, label=system)
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(groups))], [str(each) for each in groups])
    axes.set_xlabel(group.replace("_", " "))
    axes.set_ylabel(label)
    axes.legend(fontsize=8)
    save(figure, path, title)


def traces(path: Path, rows: list[Row]) -> None:
    """Time against sequence, a panel for each system."""
    systems = names(rows, "system")
    figure, panels = plt.subplots(1, len(systems), figsize=(4 * len(systems), 4), sharey=True)
    for axes, system in zip(panels, systems, strict=True):
        for kind, marker in (("sent", "."), ("acknowledged", "_")):
            mine = [row for row in rows if row["system"] == system and row["kind"] == kind]
            axes.plot(
                [row["ms"] for row in mine], [row["bytes"] / 1e6 for row in mine], marker, markersize=3, label=kind
            )
        axes.set_xlabel(f"ms\n{system}")
    panels[0].set_ylabel("MB")
    panels[0].legend(fontsize=8)
    save(figure, path, "One connection of a busy server")


def stacked(path: Path, title: str, rows: list[Row]) -> None:
    """What a request costs and whose work it is, a bar for each system and size."""
    figure, axes = plt.subplots(figsize=SIZE_INCHES)
    places = [f"{row['system'].replace(', ', chr(10))}\n{size(row['size_bytes'])}" for row in rows]
    below = [0.0] * len(rows)
    for name in (*SERVER, LOAD_RECEIVES):
        heights = [row["request_us"][name] for row in rows]
        axes.bar(places, heights, bottom=below, label=name, hatch="//" if name == LOAD_RECEIVES else "")
        below = [base + height for base, height in zip(below, heights, strict=True)]
    axes.tick_params(axis="x", labelsize=7)
    axes.set_ylabel("us a request")
    axes.legend(fontsize=8)
    save(figure, path, title)


def light_load(path: Path, rows: list[Row]) -> None:
    """What a request takes at shares of nginx's limit, a panel for each size: as the loop tells, and dashed, as the kernel counts."""
    sizes = names(rows, "size_bytes")
    figure, panels = plt.subplots(1, len(sizes), figsize=(4 * len(sizes), 4), squeeze=False)
    for axes, size_bytes in zip(panels[0], sizes, strict=True):
        for number, system in enumerate(names(rows, "system")):
            for key, style, label in (("taken_us", "-", system), ("counted_us", "--", "")):
                mine = [row for row in rows if (row["system"], row["size_bytes"]) == (system, size_bytes)]
                mine = [row for row in mine if row["borne"] and row[key] is not None]
                shares, values = [100 * row["share"] for row in mine], [row[key] for row in mine]
                how = {"color": f"C{number}", "marker": MARKERS[number], "linestyle": style}
                axes.plot(shares, values, label=label or "_", **how)
        axes.set_xlabel(f"% of nginx's limit\n{size(size_bytes)}")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
    panels[0][0].set_ylabel("us of the core a request")
    panels[0][0].legend(fontsize=8)
    save(figure, path, "As the loop tells; dashed, as the kernel counts")


def in_memory(path: Path, rows: list[Row]) -> None:
    """Cycles a segment of 22 KB, hot and cold."""
    hot = [row | {"cache": "hot"} for row in rows if is_case(row, HOT)]
    cold = [row | {"cache": "cold"} for row in rows if is_case(row, COLD)]
    mine = [row | {"system": row["variant"]} for row in hot + cold]
    bars(path, "In memory, 22 KB", mine, "cache", lambda row: row["segment_cycles"], "cycles a segment")


def is_case(row: Row, case: Case) -> bool:
    return asdict(case).items() <= row.items()


def draw(results: dict[str, Any], folder: Path) -> None:
    """All of them."""
    by_load = results["throughput"]
    generated = [row for row in by_load if row["load"] == "loadgen"]
    kernels = [row for row in by_load if row["load"] == "wrk"]
    axes = ("connections", "requests/s")
    lines(folder / "throughput.svg", "22 KB, keep-alive", generated, "connections", "requests_s", axes, "x")
    lines(folder / "throughput-wrk.svg", "22 KB, keep-alive, wrk", kernels, "connections", "requests_s", axes, "x")
    rtt = ("connections", "median response time, ms")
    lines(folder / "response-time.svg", "22 KB, keep-alive", generated, "connections",
          lambda row: row["latency_us"]["p50"] / 1000, rtt, "xy")  # fmt: skip
    cost = ("connections", "server's core, us a request")
    lines(folder / "cost.svg", "22 KB, keep-alive", generated, "connections", "server_us", cost, "x")
    for close, name in ((False, "keep-alive"), (True, "close")):
        rows = [row for row in results["sizes"] if row["close"] == close]
        lines(folder / f"sizes-{name}.svg", f"64 connections, {name}", rows, "size_bytes", "requests_s",
              ("bytes", "requests/s"), "xy")  # fmt: skip
    bars(folder / "load.svg", "The same load for all", results["equal_load"], "size_bytes",
         lambda row: 100 * row["server_busy"], "server's core, % busy")  # fmt: skip
    if results.get("light_load"):
        light_load(folder / "light-load.svg", results["light_load"])
    if "skipped" not in results["shares"][0]:
        for_sizes = sorted(results["shares"], key=lambda row: row["size_bytes"])
        stacked(folder / "shares.svg", "Where a request's time goes", for_sizes)
    in_memory(folder / "in-memory.svg", results["in_memory"])
    traces(folder / "traces.svg", results["trace"])
