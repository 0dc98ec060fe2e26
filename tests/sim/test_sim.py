"""A fixed set of the simulation's seeds; `make sim SEEDS=10000` runs more."""

from __future__ import annotations

import pytest
from world import run_seed

SEEDS = 160
GROUP = 20


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_seeds(first: int) -> None:
    failures = [result for seed in range(first, first + GROUP) if (result := run_seed(seed))]
    assert not failures, "\n".join(failures)
