"""What holds for every test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net import leave_the_network, needs, needs_root
from tests.turns import Turns

HERE = Path(__file__).resolve().parent
# Of every test in a folder; what is slow, long or to be alone among the others bears its marker itself.
MARKERS = {"e2e": (pytest.mark.e2e, needs_root, needs("ip"))}
TURNS = pytest.StashKey[Turns]()
# The sanitizer's run leaves here what it skipped, for the list at the end of `make test`.
SKIPS_LEFT, SKIPS_TAKEN = "SANDSTORM_LEAVE_SKIPS", "SANDSTORM_TAKE_SKIPS"


def pytest_configure(config: pytest.Config) -> None:
    """In each process of the tests. Without root no frame can be sent, and no test opens a socket to elsewhere."""
    if os.geteuid() == 0 and shutil.which("ip") is not None:
        with contextlib.suppress(OSError):  # where even root may not: test_isolation.py says so
            leave_the_network()
    config.stash[TURNS] = Turns()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[TURNS].end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in MARKERS.get(item.path.relative_to(HERE).parts[0], ()):
            item.add_marker(marker)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with item.config.stash[TURNS].turn(item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Every skip is told at the end, once."""
    skips = [(report.nodeid, report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    if left := os.environ.get(SKIPS_LEFT):
        Path(left).write_text(json.dumps(skips))
    taken = Path(os.environ.get(SKIPS_TAKEN, os.devnull))
    others = json.loads((taken.read_text() if taken.exists() else "") or "[]")
    told = {name for name, _ in skips}
    for name, why in others:
        if name not in told:
            terminalreporter.write_line(f"SKIPPED with sanitizers only: {name}: {why[2]}")


@pytest.fixture(scope="session", autouse=True)
def _build_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Builds use a cache of this run's, not the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _no_questions_to_the_network() -> None:
    """scapy asks the machine's own network for the MAC of a frame that has none. A test names it."""
    if "scapy.config" not in sys.modules:
        return

    def refuse(*_: object) -> str:
        raise AssertionError("a frame without a destination MAC: write Ether(dst=...)")

    sys.modules["scapy.config"].conf.neighbor.resolve = refuse
