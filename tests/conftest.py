"""What holds for every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.net import needs, needs_root

HERE = Path(__file__).resolve().parent
# Of every test in a folder; what is slow or long among the others bears its marker itself.
MARKERS = {"e2e": (pytest.mark.e2e, needs_root, needs("ip"))}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in MARKERS.get(item.path.relative_to(HERE).parts[0], ()):
            item.add_marker(marker)


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
