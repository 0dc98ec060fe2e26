"""The page of the instructions of the whole system: docs/benchmarks/whole-system.md from whole-system.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
RESULTS, PAGE = FOLDER / "whole-system.json", FOLDER / "whole-system.md"
PEER = "nginx, TSO"
# Of nginx's instructions with TSO on the same card, what was asked for at most: AF_XDP in zero-copy mode.
ASKED = {
    "virtio-net": {"22 KB, kept": 1 / 2},
    "igb": {"22 KB, kept": 1 / 4, "1 KB, kept": 1 / 7, "1 KB, close": 1 / 6, "22 KB, one connection": 1 / 3},
}
ZERO_COPY = "ssrun, AF_XDP zero-copy"
NAMES = {"server": "server", "driver": "driver and XDP program", "kernel": "kernel"}

INTRODUCTION = """# Instructions of the whole system

Made by `make bench-vm`. Emulation says nothing of time, but what is executed for a request can be counted, of all that a machine does:
the server, the kernel's network, the driver. A guest in QEMU with one processor serves; {connections} connections of wrk are
the load, outside of it, for {seconds} seconds a cell. It is the faster side by far: where 16 wait, the guest hardly sleeps.

- The guest runs Linux {kernel} on `-icount shift=0`, so its time goes by its instructions, and what depends on time (interrupts held back
  by a card, timers) comes as on a processor of 10^9 instructions a second. A plugin of QEMU's counts instructions by their place
  (`tests/vm/count.c`); the idle task's are left out.
- An instruction that repeats itself (`rep movsb`) is one, however much it copies: copies and cleared pages cost more than it seems here, of
  which nginx has the most.
- The method is checked on a loop: one of {loop:,} instructions reads {loop_read:,}.
- nginx: one worker, `sendfile`, `tcp_nopush`, `open_file_cache`, files in memory; *TSO*: the card cuts segments (in truth QEMU hands them on
  as they are); *frame by frame*: the kernel does. ssrun: one worker.
- Behind each number: how many times fewer than nginx with TSO on the same card.
"""


def number(cell: dict[str, int], base: dict[str, int]) -> str:
    return f"{cell['all']:,} ({base['all'] / cell['all']:.1f})"


def systems(card: dict[str, Any]) -> dict[str, dict[str, dict[str, int]]]:
    return {name: cells for name, cells in card.items() if isinstance(cells, dict)}


def table(card: dict[str, Any]) -> str:
    rows = systems(card)
    base = rows[PEER]
    lines = ["| instructions of a request | " + " | ".join(base) + " |", "|---" * (len(base) + 1) + "|"]
    for name, cells in rows.items():
        lines.append(f"| {name} | " + " | ".join(number(cells[cell], base[cell]) for cell in base) + " |")
    return "\n".join(lines)


def split(card: dict[str, Any], cell: str) -> str:
    lines = [f"| {cell} | " + " | ".join(NAMES.values()) + " |", "|---" * (len(NAMES) + 1) + "|"]
    for name, cells in systems(card).items():
        lines.append(f"| {name} | " + " | ".join(f"{cells[cell][part]:,}" for part in NAMES) + " |")
    return "\n".join(lines)


def asked(results: dict[str, Any]) -> str:
    lines = ["| AF_XDP zero-copy beside nginx with TSO | asked | read | |", "|---|---|---|---|"]
    for card, bars in ASKED.items():
        rows = systems(results["cards"].get(card, {}))
        for cell, share in bars.items() if ZERO_COPY in rows else ():
            read = rows[ZERO_COPY][cell]["all"] / rows[PEER][cell]["all"]
            verdict = "reached" if read <= share else "**not reached**"
            lines.append(f"| {card}, {cell} | at most 1/{1 / share:.0f} | 1/{1 / read:.1f} | {verdict} |")
    return "\n".join(lines)


def text(results: dict[str, Any]) -> str:
    first = next(iter(results["cards"].values()))
    parts = [
        INTRODUCTION.format(
            connections=results["connections"],
            seconds=results["seconds"],
            kernel=first["kernel"],
            loop=results["loop_instructions"],
            loop_read=first["loop"],
        ),
        asked(results) + "\n",
    ]
    for name, card in results["cards"].items():
        parts += [f"## {name}\n", f"![instructions](whole-system-{name}.svg)\n", table(card) + "\n"]
        parts += [split(card, cell) + "\n" for cell in systems(card)[PEER]]
    return "\n".join(parts)


def write(results: dict[str, Any]) -> None:
    """All of it."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(text(results))


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
