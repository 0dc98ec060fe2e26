"""Loss, window and round trip against goodput: one transfer at a time, in virtual time, the mean of some seeds.

    python tests/sim/matrix.py             prints the table
    python tests/sim/matrix.py --update    writes it to tests/golden/tcp_matrix.md, which test_matrix.py compares

The link has 100 Mbit/s and a queue of 256 KB; what is lost is lost on both ways. The client has timestamps and SACK
and acknowledges every second segment.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs as a program
from tests.sim.client import Profile
from tests.sim.network import Network
from tests.sim.world import ALGORITHMS, Plan, World

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tcp_matrix.md"
UPDATE = "python tests/sim/matrix.py --update"
LOSSES = (0.0, 0.001, 0.01, 0.03, 0.1)
WINDOWS = (16 << 10, 64 << 10, 1 << 20)
RTTS_MS = (1, 20, 100)
SEEDS = 4
PATH = "/1m"

Cell = tuple[str, float, int, int]  # algorithm, loss, window, RTT


@dataclass
class Outcome:
    """Of one transfer, or the sum of several."""

    bytes: int = 0
    took_ms: float = 0.0
    resent: int = 0
    timeouts: int = 0
    runs: int = 0

    def add(self, other: Outcome) -> None:
        self.bytes += other.bytes
        self.took_ms += other.took_ms
        self.resent += other.resent
        self.timeouts += other.timeouts
        self.runs += other.runs

    def texts(self) -> list[str]:
        """Rounded: CUBIC counts in doubles, whose last bit is the compiler's."""
        goodput = self.bytes * 8 / self.took_ms / 1000
        return [f"{goodput:.1f}" if goodput >= 1 else f"{goodput:.2f}", *map(self.mean, (self.resent, self.timeouts))]

    def mean(self, total: int) -> str:
        return f"{total / self.runs:.1f}" if total else "0"


class Timed(World):
    """Knows when the first data left and when the last arrived: the client's own losses of a second are left out."""

    first_ms = 0.0
    last_ms = 0.0

    def see(self, frames: list[bytes]) -> None:
        super().see(frames)
        if not self.first_ms and any(len(frame) > 200 for frame in frames):
            self.first_ms = self.now

    def step(self, now: float) -> None:
        super().step(now)
        if not self.last_ms and len(self.clients[0].received) == self.clients[0].expect_bytes[-1]:
            self.last_ms = self.now


def transfer(cell: Cell, seed: int) -> Outcome:
    """One object, from its first segment to its last byte."""
    algorithm, loss, window, rtt_ms = cell
    network = Network(delay_ms=rtt_ms / 2, loss=loss)
    plan = Plan(network, [Profile(buffer=window)], [[PATH]], congestion=ALGORITHMS[algorithm])
    world = Timed(plan, seed)
    world.run()
    counters = world.host.counters()
    resent, timeouts = (counters.get(f"tcp_retransmit_{name}", 0) for name in ("segments", "timeout"))
    return Outcome(len(world.clients[0].received), world.last_ms - world.first_ms, resent, timeouts, 1)


def measure(cell: Cell) -> Outcome:
    """The sum over the seeds; without loss they do not differ."""
    total = Outcome()
    for seed in range(SEEDS if cell[1] else 1):
        total.add(transfer(cell, seed))
    return total


def row(texts: list[str], widths: list[int]) -> str:
    return "| " + " | ".join(text.rjust(width) for text, width in zip(texts, widths, strict=True)) + " |\n"


def table() -> str:
    """The whole file: the same bytes on every machine."""
    places = list(itertools.product(LOSSES, WINDOWS, RTTS_MS))
    cells = [(algorithm, *place) for place in places for algorithm in ALGORITHMS]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        outcomes = dict(zip(cells, pool.map(measure, cells), strict=True))
    names = [f"{algorithm} {what}" for algorithm in ALGORITHMS for what in ("Mbit/s", "resent", "RTOs")]
    rows = [["loss", "window", "RTT", *names]]
    for loss, window, rtt_ms in places:
        texts = [text for name in ALGORITHMS for text in outcomes[name, loss, window, rtt_ms].texts()]
        rows.append([f"{loss * 100:g} %", f"{window >> 10} KB", f"{rtt_ms} ms", *texts])
    widths = [max(len(texts[column]) for texts in rows) for column in range(len(rows[0]))]
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|\n"
    lines = [row(texts, widths) for texts in rows]
    about = (
        f"1 MB from the core in simulation, over 100 Mbit/s with a queue of 256 KB; the mean of {SEEDS} seeds.\n"
        "Goodput, from the first segment to the last byte; segments sent again; timeouts. CUBIC and NewReno.\n"
        f"Made by `{UPDATE}`.\n\n"
    )
    return "# Loss, window and round trip\n\n" + about + lines[0] + rule + "".join(lines[1:])


def main() -> None:
    """Prints the table, or writes it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help=f"write {GOLDEN.name}")
    if parser.parse_args().update:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(table())
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
