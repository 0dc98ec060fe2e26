"""Puts tests/ on the path, so that its modules are found from every folder below."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [
    str(Path(__file__).parent / part) for part in (".", "sim", "scripts", "fuzz", "path", "bench/loadgen")
]


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
