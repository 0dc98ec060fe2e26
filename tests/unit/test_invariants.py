"""What the core takes for granted of itself: checked in builds for tests, and in those that serve there is nothing of it."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "runtime" / "csrc"
# And what is said when it is broken.
BROKEN = {
    "slice_count": "tcpip_can_write(tcb)",
    "in_flight": "region->in_flight[chunk] != ",
    "space": "tx->space > 0",
    "adjacent": "is_whole(tcb)",
    "counted": "is_whole(tcb)",
    "balanced": "table->free_count < table->count_max",
}


def build(folder: Path, *flags: str) -> Path:
    """The program that breaks them."""
    core = [path for name in ("wire", "frames", "libeth", "libtcpip") for path in sorted((CSRC / name).glob("*.c"))]
    program = folder / "invariants"
    sources = [Path(__file__).with_name("invariants.c"), *core]
    subprocess.run(["gcc", "-std=gnu11", "-O1", *flags, f"-I{CSRC}", *sources, "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("checked"), "-UNDEBUG")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shipped"), "-DNDEBUG")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_invariant_ends_a_checked_build_and_is_named(checked: Path, name: str) -> None:
    done = subprocess.run([checked, name], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert BROKEN[name] in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["adjacent", "counted"])
def test_a_build_that_serves_does_not_look(shipped: Path, name: str) -> None:
    """Of those that do no harm where nothing looks."""
    done = subprocess.run([shipped, name], capture_output=True, text=True, check=True)
    assert done.stdout == "nothing was noticed\n"


def test_it_is_said_in_one_way() -> None:
    """No file has assertions of its own."""
    own = [path.name for path in CSRC.rglob("*.[ch]") if re.search(r"<assert\.h>|\bassert\(", path.read_text())]
    assert own == ["invariant.h"]
