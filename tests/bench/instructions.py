"""Instructions that the stack takes, by callgrind: a figure that no other load on the machine moves.

python tests/bench/instructions.py [--update]

--update writes tests/golden/instructions.json, the budget of tests/unit/test_instructions.py.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs as a program
from tests.bench.memory import ROOT, build_image, build_program

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
    "100 B, a request, with an access log": Case(100, 10, 2_000, ("follow=1",)),
    "22 KB, a request, with an access log": Case(22_000, 10, 1_000, ("follow=1",)),
}


@dataclass(frozen=True)
class Head:
    """A request's head that comes in small pieces."""

    head_bytes: int
    piece_bytes: int
    line_bytes: int


HEADS = {
    "a head of 15 KB in lines, byte by byte, a byte": Head(15_000, 1, 60),
    "a head of 15 KB in one line, byte by byte, a byte": Head(15_000, 1, 15_000),
    "a head of 15 KB in short lines, byte by byte, a byte": Head(15_000, 1, 6),
}


def compiler() -> str:
    """Another one makes other code."""
    done = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True)
    return f"gcc {done.stdout.strip()}"


def counted(function: str, program: Path, *words: str) -> int:
    """The instructions of a function and all that it calls."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--toggle-collect={function}"]
    command += [str(program), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def collected(program: Path, image: Path, case: Case, requests: int) -> int:
    """The instructions of so many requests."""
    return counted(COUNTED, program, f"connections={case.connections}", *case.options, str(image), f"{requests}:/0")


def of_heads(folder: Path, image: Path) -> dict[str, int]:
    """Instructions of a byte more, as a mean of the whole head."""
    program = build_program(folder / "heads", *SHIPPED, own=("heads.c", "arguments.c", "image_file.c"))
    made = {}
    for label, head in HEADS.items():
        words = (str(head.head_bytes), str(head.piece_bytes), str(head.line_bytes), str(image))
        made[label] = counted("take_piece", program, *words) // head.head_bytes
    return made


def of_scoreboard(folder: Path) -> dict[str, int]:
    """Instructions of an ACK with four SACK blocks, one of them new, while the scoreboard is full."""
    program = build_program(folder / "scoreboard", *SHIPPED, own=("scoreboard.c", "arguments.c"))
    acks = 200
    return {"an ACK with four SACK blocks, a full scoreboard": counted("take_ack", program, str(acks)) // acks}


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
        found = {label: count(program, images, case) for label, case in CASES.items()}
        return found | of_heads(folder, images[100]) | of_scoreboard(folder)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true")
    update = parser.parse_args().update
    budget = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    found = measure()
    for label, instructions in found.items():
        print(f"{label:52} {instructions:8} (budget {budget.get(label, 'none')})")
    if update:
        GOLDEN.write_text(json.dumps({"compiler": compiler(), **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
