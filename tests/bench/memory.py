"""The stack in memory: cycles a segment and requests a second, by variant, cache and number of workers.

python tests/bench/memory.py [--seconds S]

No kernel and no NIC take part: memory.c has the whole way from received frames to the TX ring, and clients that cost
nothing that is counted. All variants are run in turn, several times; what is printed is the best of each, and ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "runtime" / "csrc"
HERE = Path(__file__).resolve().parent
FLAGS = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-fno-omit-frame-pointer"]
FILE_BYTES = 22_000  # the paper's image
ROUNDS = 3
REQUESTS = 60_000


def build_program(target: Path, *options: str) -> Path:
    """Compiles memory.c with the core."""
    core = [path for part in ("image", "libeth", "libtcpip", "web") for path in sorted((CSRC / part).glob("*.c"))]
    core += [CSRC / "stack.c", CSRC / "libnmio" / "region.c"]
    own = [HERE / name for name in ("memory.c", "bounds.c", "arguments.c", "clients.c", "image_file.c")]
    includes = [f"-I{CSRC}", f"-I{HERE}"]
    command = ["gcc", *FLAGS, *options, *includes, *map(str, own + core), "-lpthread", "-o", str(target)]
    subprocess.run(command, check=True)
    return target


def build_image(folder: Path, count: int, size_bytes: int = FILE_BYTES) -> Path:
    """An image of so many files, /0, /1, ..., with contents that can't be shared."""
    site = folder / f"site-{count}-{size_bytes}"
    site.mkdir()
    for number in range(count):
        (site / str(number)).write_bytes(random.Random(number).randbytes(size_bytes))
        os.utime(site / str(number), (1_000_000_000, 1_000_000_000))
    image = folder / f"{site.name}.img"
    command = [sys.executable, "-m", "sscc.cli", "build", "-q", str(site), "-o", str(image)]
    subprocess.run(command, check=True)
    shutil.rmtree(site)
    return image


def run(program: Path, image: Path, *phases: str, **options: int) -> list[dict[str, Any]]:
    """A dictionary for each phase; phases are "REQUESTS:PATH,PATH"."""
    words = [f"{name}={value}" for name, value in options.items()]
    done = subprocess.run([program, *words, image, *phases], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr or f"{program} ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def paths(first: int, count: int) -> str:
    """Files of build_image."""
    return ",".join(f"/{number}" for number in range(first, first + count))


CASES: dict[str, tuple[str, dict[str, int]]] = {
    "zero-copy, one file": ("one", {}),
    "memcpy, one file": ("one", {"memcpy": 1}),
    "superframes, one file": ("one", {"gather": 44}),
    "zero-copy, 2,000 files": ("all", {}),
    "memcpy, 2,000 files": ("all", {"memcpy": 1}),
    "superframes, 2,000 files": ("all", {"gather": 44}),
    "cache of a tenth, 2,000 files": ("all", {"arena": 3_400}),
    "two workers, zero-copy, 2,000 files": ("all", {"workers": 2}),
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--connections", type=int, default=100)
    arguments = parser.parse_args()
    best: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        program = build_program(Path(folder) / "memory", "-O3", "-flto=auto", "-DNDEBUG")
        image = build_image(Path(folder), 2_000)
        for _ in range(arguments.rounds):
            for name, (which, options) in CASES.items():
                phase = f"{REQUESTS}:{paths(0, 1 if which == 'one' else 2_000)}"
                (_, result) = run(program, image, phase, phase, connections=arguments.connections, **options)
                assert result["mismatches"] == result["violations"] == 0
                if name not in best or result["cycles"] < best[name]["cycles"]:
                    best[name] = result
    print(f"{'':38} {'cycles/segment':>15} {'requests/s':>12}")
    for name, result in best.items():
        print(
            f"{name:38} {result['cycles'] / result['segments']:15.0f} {result['requests'] / result['seconds']:12.0f}"
        )


if __name__ == "__main__":
    main()
