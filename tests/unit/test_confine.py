"""What a process can still do, step by step, as it gives up its rights the way the server does."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "runtime" / "csrc"
PROGRAM = Path(__file__).with_name("confine.c")
# What serving takes.
SERVES = {"reads-time", "has-memory", "sets-timer-slack"}
FILES = {"reads-a-file", "writes-a-file", "opens-a-device"}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, set[str]]]:
    """Of each step: what it returned, and what still works behind it."""
    program = tmp_path_factory.mktemp("confine") / "confine"
    sources = [str(PROGRAM), str(CSRC / "server" / "confine.c")]
    subprocess.run(["gcc", "-std=gnu11", "-I", str(CSRC), *sources, "-o", str(program)], check=True)
    program.parent.chmod(0o755)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=True, timeout=60)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {words[0]: (int(words[1]), set(words[2:])) for words in lines}


def works(steps: dict[str, tuple[int, set[str]]], step: str) -> set[str]:
    error, working = steps[step]
    if error < 0 and -error in (38, 95):  # ENOSYS, EOPNOTSUPP
        pytest.skip(f"this kernel has none of that: {os.strerror(-error)}")
    assert error == 0
    return working


def test_before_all_of_it_works(steps: dict[str, tuple[int, set[str]]]) -> None:
    """Or what fails later would say nothing."""
    expected = SERVES | FILES | {"makes-a-socket", "connects", "forks", "signals-its-parent", "makes-code"}
    if os.geteuid() == 0:
        expected |= {"is-root-again", "makes-a-raw-socket"}
    assert expected <= works(steps, "before")


def test_without_capabilities_it_is_an_ordinary_user(steps: dict[str, tuple[int, set[str]]]) -> None:
    working = works(steps, "identity")
    assert {"is-root-again", "makes-a-raw-socket", "traces"} & working == set()
    if os.geteuid() == 0:
        assert "signals-its-parent" not in working
    assert SERVES | {"reads-a-file", "forks"} <= working


def test_no_file_can_be_opened_and_nothing_connected_to(steps: dict[str, tuple[int, set[str]]]) -> None:
    working = works(steps, "files")
    assert FILES & working == set()
    assert SERVES | {"forks", "makes-a-socket"} <= working


def test_at_last_nothing_works_but_what_serving_takes(steps: dict[str, tuple[int, set[str]]]) -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip(f"no table of system calls for {platform.machine()}")
    assert works(steps, "calls") == SERVES
