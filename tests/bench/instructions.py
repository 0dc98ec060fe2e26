"""Instructions that the stack takes, by callgrind: a figure that no other load on the machine moves.

python tests/bench/instructions.py [--update]

--update writes tests/golden/instructions.json, the budget of tests/unit/test_instructions.py.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from memory import ROOT, build_image, build_program

GOLDEN = ROOT / "tests" / "golden" / "instructions.json"
COUNTED = "stack_round"  # of memory.c: from received frames to the TX queue
SHIPPED = ("-O3", "-flto=auto", "-DNDEBUG")  # as runtime/ffi_build.py has it


@dataclass(frozen=True)
class Case:
    """Requests for one file; instructions are of a request, by what the same with more of them takes more."""

    size_bytes: int
    connections: int
    requests: int
    options: tuple[str, ...] = ()


CASES = {
    "100 B, a request": Case(100, 10, 2_000),
    "22 KB, a request": Case(22_000, 10, 1_000),
    "22 KB, a request, its ACKs joined by a NIC": Case(22_000, 10, 1_000, ("join=1",)),
    "22 KB in superframes, a request": Case(22_000, 10, 1_000, ("gather=44",)),
    "100 B, a connection and a request": Case(100, 2_000, 2_000),
}


def compiler() -> str:
    """Another one makes other code."""
    done = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True)
    return f"gcc {done.stdout.strip()}"


def collected(program: Path, image: Path, case: Case, requests: int) -> int:
    """The instructions of so many requests."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--toggle-collect={COUNTED}"]
    command += [str(program), f"connections={case.connections}", *case.options, str(image), f"{requests}:/0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def count(program: Path, images: dict[int, Path], case: Case) -> int:
    """Instructions of one request. Where each connection makes one, all is counted, else only what comes after those."""
    if case.requests <= case.connections:
        return collected(program, images[case.size_bytes], case, case.requests) // case.requests
    once, twice = (collected(program, images[case.size_bytes], case, times * case.requests) for times in (1, 2))
    return (twice - once) // case.requests


def measure() -> dict[str, int]:
    """Of all cases."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build_program(folder / "memory", *SHIPPED)
        images = {size: build_image(folder, 1, size) for size in {case.size_bytes for case in CASES.values()}}
        return {label: count(program, images, case) for label, case in CASES.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true")
    update = parser.parse_args().update
    budget = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    found = measure()
    for label, instructions in found.items():
        print(f"{label:40} {instructions:8} (budget {budget.get(label, 'none')})")
    if update:
        GOLDEN.write_text(json.dumps({"compiler": compiler(), **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
