"""Goodput under loss beside Linux CUBIC, in the same emulated path: `make yardstick`.

Each cell is a loss and a round-trip time; in each, both servers are asked in turn by the same client for as long, by so
many connections at once that the link's rate is not the limit where loss should be. Writes docs/loss.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs as a program

from tests.host import build
from tests.net import SERVER4, Namespace, ssrun
from tests.path.path import Link, emulated

LOSSES = (0.001, 0.01, 0.03, 0.1)
RTTS_MS = (1, 10, 100)
RATE_MBIT = 100.0
QUEUE_BYTES = 500_000
FILE_BYTES = 400 << 20
FLOWS_MAX = 16
TIMEOUTS_RULE = 0.1  # from this loss on


@dataclass(frozen=True)
class Cell:
    """One path."""

    loss: float
    rtt_ms: float
    flows: int

    @classmethod
    def of(cls, loss: float, rtt_ms: float) -> Cell:
        """With enough flows to average, too few to fill the link: by the square-root law, which knows no timeouts; where
        those rule, a single flow's goodput is mostly luck."""
        each_mbit = 1448 * 8 / (rtt_ms * 1000) * (1.5 / loss) ** 0.5
        least = FLOWS_MAX // 2 if loss >= TIMEOUTS_RULE else 1
        return cls(loss, rtt_ms, max(least, min(FLOWS_MAX, round(RATE_MBIT / 2 / each_mbit))))

    @property
    def link(self) -> Link:
        return Link(delay_ms=self.rtt_ms / 2, rate_mbit=RATE_MBIT, queue_bytes=QUEUE_BYTES, loss=self.loss)


def fetch(client: Namespace, ports: list[int], seconds: float) -> list[float]:
    """Goodput of connections at once, to these ports, in Mbit/s."""
    command = ["curl", "-s", "-o", "/dev/null", "-m", str(seconds), "-w", "%{size_download}"]
    jobs = [client.popen(*command, f"http://{SERVER4}:{port}/file", stdout=subprocess.PIPE) for port in ports]
    return [int(job.communicate()[0]) * 8 / seconds / 1e6 for job in jobs]


@contextlib.contextmanager
def linux(server: Namespace, file: Path, port: int = 80, congestion: str = "cubic") -> Iterator[None]:
    """Linux's TCP on the server's side."""
    command = [sys.executable, str(HERE / "server.py"), congestion, str(port), str(file)]
    process = server.popen(*command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()


@dataclass
class Files:
    """What both serve."""

    file: Path
    image: Path

    @classmethod
    def make(cls, folder: Path, size_bytes: int = FILE_BYTES) -> Files:
        site = folder / "site"
        site.mkdir()
        with (site / "file").open("wb") as file:
            file.truncate(size_bytes)
        return cls(site / "file", build(site, folder / "site.img"))


def measure(cell: Cell, files: Files, seconds: float) -> tuple[float, float]:
    """Ours and Linux's goodput, one after the other over the same path."""
    with emulated(cell.link) as (server, client):
        with ssrun(files.image, server, client, "--iface", "srv0"):
            ours = sum(fetch(client, [80] * cell.flows, seconds))
        with linux(server, files.file):
            theirs = sum(fetch(client, [80] * cell.flows, seconds))
    return ours, theirs


PAGE = """# Goodput under loss, beside Linux

Made by `make yardstick`. The same client fetches the same file from `ssrun` (CUBIC, over AF_PACKET) and from Linux's own
CUBIC behind a plain sendfile server, in turn, over the same emulated link: two TAP devices, {rate:.0f} Mbit/s, a queue of
{queue} KB, the round-trip time and the loss of the row (each way, every frame alike). {seconds:.0f} s each, mean of
{repeats} repeats; so many flows at once that a single one's luck averages out while the link is not full.

- Machine: {machine}.
- Mbit/s of payload, all flows together.

| loss | RTT, ms | flows | ssrun | Linux | ratio |
|---|---|---|---|---|---|
{rows}

Above 1 this stack is the faster one.
"""


def main() -> None:
    """Measures all cells."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs=3, type=float, metavar=("LOSS", "RTT_MS", "FLOWS"), help="one cell, no page")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "loss.md")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("yardstick: needs root, for network namespaces")
    cells = [Cell.of(loss, rtt) for loss in LOSSES for rtt in RTTS_MS]
    if arguments.only:
        cells = [Cell(arguments.only[0], arguments.only[1], int(arguments.only[2]))]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = Files.make(Path(folder))
        for cell in cells:
            pairs = [measure(cell, files, arguments.seconds) for _ in range(arguments.repeats)]
            ours, theirs = (statistics.mean(side) for side in zip(*pairs, strict=True))
            row = f"| {cell.loss:.1%} | {cell.rtt_ms:g} | {cell.flows} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |"
            print(row, flush=True)
            rows.append(row)
    if not arguments.only:
        text = PAGE.format(
            rate=RATE_MBIT,
            queue=QUEUE_BYTES // 1000,
            seconds=arguments.seconds,
            repeats=arguments.repeats,
            machine=f"{os.cpu_count()} cores, Linux {platform.release()}",
            rows="\n".join(rows),
        )
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
