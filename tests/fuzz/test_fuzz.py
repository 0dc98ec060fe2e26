"""The kept corpora and a short run of each fuzz target; `make fuzz FUZZ_SECONDS=600` runs long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.fuzz import TARGETS, build, lacking, run

SECONDS = 7


@pytest.fixture(scope="module")
def built() -> None:
    if missing := lacking():
        pytest.skip(f"needs {missing}")
    build()


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(built: None, target: str, tmp_path: Path) -> None:
    assert run(target, SECONDS, tmp_path / "found") == 0
