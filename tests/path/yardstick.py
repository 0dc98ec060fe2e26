"""Goodput under loss beside Linux CUBIC, in the same emulated path: yardstick.py [--seconds N] [--repeats N].

Each cell is a loss and a round-trip time; in each, both servers are asked in turn by the same client for as long, by so
many connections at once that the link's rate is not the limit where loss should be. Writes docs/loss.md.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(HERE)]

from host import build
from net import SERVER4, Namespace, ssrun
from path import Link, emulated

LOSSES = (0.001, 0.01, 0.03, 0.1)
RTTS_MS = (1, 10, 100)
RATE_MBIT = 100.0
FILE_BYTES = 400 << 20
FLOWS_MAX = 16


@dataclass(frozen=True)
class Cell:
    """One path."""

    loss: float
    rtt_ms: float
    flows: int

    @classmethod
    def of(cls, loss: float, rtt_ms: float) -> Cell:
        """With enough flows to average, too few to fill the link (by the square-root law)."""
        each_mbit = 1448 * 8 / (rtt_ms * 1000) * (1.5 / loss) ** 0.5
        return cls(loss, rtt_ms, max(1, min(FLOWS_MAX, round(RATE_MBIT / 2 / each_mbit))))

    @property
    def link(self) -> Link:
        return Link(delay_ms=self.rtt_ms / 2, rate_mbit=RATE_MBIT, queue_bytes=500_000, loss=self.loss)


def fetch(client: Namespace, flows: int, seconds: float) -> float:
    """Goodput of so many connections together, Mbit/s."""
    command = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-m",
        str(seconds),
        "-w",
        "%{size_download}",
        f"http://{SERVER4}/file",
    ]
    jobs = [client.popen(*command, stdout=subprocess.PIPE) for _ in range(flows)]
    received = sum(int(job.communicate()[0]) for job in jobs)
    return received * 8 / seconds / 1e6


@contextlib.contextmanager
def linux(server: Namespace, file: Path, congestion: str = "cubic") -> Iterator[None]:
    """Linux's TCP on the server's side."""
    process = server.popen(sys.executable, HERE / "server.py", congestion, file, stdout=subprocess.PIPE)
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
            ours = fetch(client, cell.flows, seconds)
        with linux(server, files.file):
            theirs = fetch(client, cell.flows, seconds)
    return ours, theirs


def main() -> None:
    """Measures all cells."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs=3, type=float, metavar=("LOSS", "RTT_MS", "FLOWS"), help="one cell, printed only"
    )
    arguments = parser.parse_args()
    cells = [Cell.of(loss, rtt) for loss in LOSSES for rtt in RTTS_MS]
    if arguments.only:
        cells = [Cell(arguments.only[0], arguments.only[1], int(arguments.only[2]))]
    with tempfile.TemporaryDirectory() as folder:
        files = Files.make(Path(folder))
        for cell in cells:
            pairs = [measure(cell, files, arguments.seconds) for _ in range(arguments.repeats)]
            ours, theirs = (statistics.mean(side) for side in zip(*pairs, strict=True))
            print(cell, f"{ours:.2f} {theirs:.2f} {ours / theirs:.2f}", pairs, flush=True)


if __name__ == "__main__":
    main()
