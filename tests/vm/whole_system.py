"""The page of the instructions of the whole system: docs/benchmarks/whole-system.md from whole-system.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
RESULTS, PAGE = FOLDER / "whole-system.json", FOLDER / "whole-system.md"
PEER = "nginx, TSO"
ZERO_COPY, NETMAP = "ssrun, AF_XDP zero-copy", "ssrun, netmap"
# Of nginx's instructions with TSO on the same card, what was asked for at most.
ASKED = {
    "virtio-net": (ZERO_COPY, {"22 KB, kept": 1 / 2}),
    "igb": (
        ZERO_COPY,
        {"22 KB, kept": 1 / 4, "1 KB, kept": 1 / 7, "1 KB, close": 1 / 6, "22 KB, one connection": 1 / 3},
    ),
    "e1000": (NETMAP, {"22 KB, kept": 1 / 6, "1 KB, kept": 1 / 7, "1 KB, close": 1 / 7}),
}
# The columns of the split, by their names in the results.
PARTS = {
    "server": "server",
    "driver": "driver and XDP program",
    "network": "kernel's network",
    "calls": "system calls and files",
    "rest": "the rest of the kernel",
}

INTRODUCTION = """# Instructions of the whole system

Made by `make bench-vm`. Emulation says nothing of time, but what is executed for a request can be counted, of all that a machine does:
the server, the kernel's network, the driver. A guest in QEMU with one processor serves; {connections} connections of wrk are
the load, outside of it, for {seconds} seconds a cell or longer. It is the faster side by far: where 16 wait, the guest hardly sleeps.

- The guest runs on `-icount shift=0`, so its time goes by its instructions, and what depends on time (interrupts held back
  by a card, timers) comes as on a processor of 10^9 instructions a second. A plugin of QEMU's counts instructions by their place
  (`tests/vm/count.c`); the idle task's are left out.
- An instruction that repeats itself (`rep movsb`) is one, however much it copies: copies and cleared pages cost more than it seems here, of
  which nginx has the most.
- The method is checked on a loop: one of {loop:,} instructions reads {loop_read:,}.
- nginx: one worker, `sendfile`, `tcp_nopush`, `open_file_cache`, files in memory; *TSO*: the card cuts segments (in truth QEMU hands them on
  as they are); *frame by frame*: the kernel does. ssrun: one worker.
- Behind each number: how many times fewer than nginx with TSO on the same card.
- *Kept*, *close*: a connection for all requests, or for each; 16 at once where nothing else is said. An answer that was under way at the end
  counts by what had come of it.
- The load and QEMU's own loop go before all else on the machine outside, so that a busy one does not let the guest wait for them: a guest
  that falls asleep between requests takes more instructions for each.
- The e1000 is driven by netmap's own driver, in a kernel that it is built for: `NETMAP_KO`, `E1000_KO`, `KERNEL` and `MODULES` name them
  ([netmap](../netmap.md#tests)). Where they are not named the rows stay as they were.
"""

# Of readings by `python -m tests.vm.bench --print --functions 60`, which names functions.
REASONS = """## What is not reached, and what was tried

- **22 KB frame by frame beside a superframe.** 16 frames of 22 KB are 16 descriptors, and the client's kernel answers them with six or seven
  ACKs; nginx's superframe is one descriptor, which is answered by one ACK or two. On igb a frame that is sent takes about 190
  instructions of ours and 145 of the driver's and the kernel's, an ACK 270 and 350. On virtio-net a frame takes 1,100 in the
  rings alone, a table of its own for each (`virtqueue_add_outbuf`, `kmalloc`, its mapping for DMA): so 100 KB and 1 MB
  take more there than nginx's superframes do. On an e1000 netmap's driver takes some 150 a frame, and 75 for its cache's sake (`dma_sync`).
- **One connection.** The request, what was asked for by telling the driver, what has been sent and the ACKs are four interrupts and more than
  one sleep a request, at 2,000 to 5,000 instructions each, as nobody else's frames come with them.
- **On a busy machine** the client acknowledges more often and the guest sleeps more: igb, 22 KB was read as 13,850 and 14,770 on one
  day, 1 KB as 4,460 and 4,680.

What was tried, beside what is kept:

- *Kept*: a driver that is on its way is not told again, which took a quarter of what one connection takes over virtio-net, and a seventh of
  1 KB; the BPF programs ask for the usual frame first, in 30 steps instead of 45. Where many frames lie the driver is told each time: the
  longer they are in flight the more are copied for others, and 1 MB took half as many of ours again.
- epoll instead of poll, which wakes the driver twice for each sleep: within what readings differ by for one connection on igb, nothing on
  virtio-net; not worth three more system calls that the server may make.
- `SO_PREFER_BUSY_POLL`: telling the driver has it work at once instead of by an interrupt. On igb within what readings differ by in each cell.
- Holding a wake-up back for an ACK that nothing waits for was thought about only: an XDP program can't, a frame in the ring wakes whoever sleeps.
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
        shown = (number(cells[cell], base[cell]) if cell in cells else "" for cell in base)
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def split(card: dict[str, Any]) -> str:
    """Whose the instructions are."""
    rows = systems(card)
    lines = ["| request | system | " + " | ".join(PARTS.values()) + " |", "|---" * (len(PARTS) + 2) + "|"]
    for cell in rows[PEER]:
        for name, cells in rows.items():
            if cell in cells:
                shown = " | ".join(f"{cells[cell][part]:,}" for part in PARTS)
                lines.append(f"| {cell} | {name} | {shown} |")
    return "\n".join(lines)


def asked(results: dict[str, Any]) -> str:
    lines = ["| beside nginx with TSO | | asked | read | |", "|---|---|---|---|---|"]
    for card, (system, bars) in ASKED.items():
        rows = systems(results["cards"].get(card, {}))
        for cell, share in bars.items() if system in rows else ():
            read = rows[system][cell]["all"] / rows[PEER][cell]["all"]
            verdict = "reached" if read <= share else "**not reached**"
            lines.append(f"| {card}, {cell} | {system} | at most 1/{1 / share:.0f} | 1/{1 / read:.2f} | {verdict} |")
    return "\n".join(lines)


def copying(results: dict[str, Any]) -> str:
    """What it costs that each frame is copied first, where the copy itself is a few instructions."""
    lines = ["| `--tx memcpy` beside zero-copy | 22 KB | 1 MB |", "|---|---|---|"]
    for card, rows in ((name, systems(card)) for name, card in results["cards"].items()):
        for system in (ZERO_COPY, NETMAP):
            copied = rows.get(f"{system}, memcpy", {})
            shown = [
                f"{copied[cell]['all'] / rows[system][cell]['all'] - 1:+.0%}" if cell in copied else ""
                for cell in ("22 KB, kept", "1 MB, kept")
            ]
            if copied:
                lines.append(f"| {card}, {system} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def text(results: dict[str, Any]) -> str:
    first = next(iter(results["cards"].values()))
    parts = [
        INTRODUCTION.format(
            connections=results["connections"],
            seconds=results["seconds"],
            loop=results["loop_instructions"],
            loop_read=first["loop"],
        ),
        asked(results) + "\n",
        copying(results) + "\n",
        REASONS,
    ]
    for name, card in results["cards"].items():
        parts += [f"## {name}\n", f"Linux {card['kernel']}.\n", f"![instructions](whole-system-{name}.svg)\n"]
        parts += [table(card) + "\n", split(card) + "\n"]
    return "\n".join(parts)


def write(results: dict[str, Any]) -> None:
    """All of it."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(text(results))


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
