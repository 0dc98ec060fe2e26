"""The matrix of loss, window and round trip against its snapshot: what a change to recovery does is seen in review."""

from __future__ import annotations

import difflib

import pytest

from tests.sim.matrix import GOLDEN, UPDATE, table


def test_the_matrix_is_as_the_snapshot_has_it() -> None:
    before, now = GOLDEN.read_text(), table()
    diff = difflib.unified_diff(before.splitlines(), now.splitlines(), "snapshot", "now", n=0, lineterm="")
    if before != now:
        pytest.fail("\n".join(["The matrix has changed. If that is meant: " + UPDATE, "", *diff]), pytrace=False)
