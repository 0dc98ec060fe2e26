"""How long `sscc build` takes beside what merely reads and copies the same files. Prints ratios.

For large files that is `sha256sum` and `cp`, for many small ones `tar`, each with its output on the disk at the end, as
an image is. All take turns, so what else the machine does slows all of them; of each its quickest turn counts.

    python tests/bench/build_speed.py [--repeats 3] [--folder DIR] [--small 50000] [--large 1000000000]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SSCC = [sys.executable, "-m", "sscc.cli", "build", "-q"]
SMALL_BYTES = (1024, 4096)
FOLDER_FILES = 100
LARGE_FILES = 4
SETTLED_S = 1_700_000_000  # when they were written; what was written just now, no cache remembers
# Where this is set, each build would compile sscc's own modules first.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass
class Readings:
    """Of a command, in seconds: the time that passed, and that of processors."""

    passed: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)


def small_tree(top: Path, count: int) -> None:
    """Files of text, none like another."""
    chance = random.Random(1)
    for number in range(count):
        folder = top / f"folder{number // FOLDER_FILES:03}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"file{number % FOLDER_FILES:02}.html"
        path.write_text(chance.randbytes(chance.randint(*SMALL_BYTES) // 2).hex())
        os.utime(path, (SETTLED_S, SETTLED_S))


def large_tree(top: Path, size_bytes: int) -> None:
    """Files that can't be compressed."""
    top.mkdir()
    for number in range(LARGE_FILES):
        path = top / f"{number}.bin"
        with path.open("wb") as file:
            for _ in range(size_bytes // LARGE_FILES >> 20):
                file.write(os.urandom(1 << 20))
        os.utime(path, (SETTLED_S, SETTLED_S))


def run(shell: str, top: Path, readings: Readings) -> None:
    """Once, in top."""
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(["sh", "-ec", shell], cwd=top, env=ENVIRONMENT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    readings.passed.append(time.monotonic() - began_s)
    readings.busy.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def measure(commands: dict[str, str], top: Path, repeats: int) -> dict[str, Readings]:
    """Each command in turn; the first is what the others are compared with."""
    readings = {name: Readings() for name in commands}
    for _ in range(repeats):
        for name, shell in commands.items():
            run(shell, top, readings[name])
    return readings


def show(title: str, readings: dict[str, Readings]) -> None:
    print(title)
    base = next(iter(readings.values()))
    for name, each in readings.items():
        passed, busy = min(each.passed), min(each.busy)
        ratio, busy_ratio = passed / min(base.passed), busy / min(base.busy)
        print(f"  {name:24} {passed:7.2f} s {ratio:6.2f} times, of processors {busy:7.2f} s {busy_ratio:6.2f} times")


def compare(title: str, make: Callable[[Path], None], base: dict[str, str], top: Path, repeats: int) -> None:
    """A tree that make makes, read by base's command and built with and without what an earlier build has left."""
    make(top / "tree")
    build = f"rm -f x.img; {' '.join(SSCC)} tree -o x.img --cache cache"
    commands = {**base, "the first build": f"rm -rf cache; {build}", "the next build": build}
    show(title, measure(commands, top, repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else where temporary files go")
    parser.add_argument("--small", type=int, default=50_000, help="small files; 0: leave them out")
    parser.add_argument("--large", type=int, default=1_000_000_000, help="bytes of large files; 0: leave them out")
    options = parser.parse_args()
    tar = {"tar and sync": "rm -f x.tar; tar -cf x.tar tree; sync x.tar", "tar": "rm -f x.tar; tar -cf x.tar tree"}
    copy = {"sha256sum and cp": "rm -rf copy; sha256sum tree/* > sums; cp -r tree copy; sync copy/*"}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in ("small", "large"):
            (Path(folder) / name).mkdir()
        if options.small:
            title = f"{options.small:,} files of {SMALL_BYTES[0]:,} to {SMALL_BYTES[1]:,} bytes"
            compare(title, lambda top: small_tree(top, options.small), tar, Path(folder) / "small", options.repeats)
        if options.large:
            title = f"{options.large:,} bytes in {LARGE_FILES} files"
            compare(title, lambda top: large_tree(top, options.large), copy, Path(folder) / "large", options.repeats)


if __name__ == "__main__":
    main()
