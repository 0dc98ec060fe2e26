"""The work of a request keeps to its budget. `python tests/bench/instructions.py --update` sets another one, on purpose."""

from __future__ import annotations

import json

import pytest

from tests.bench.instructions import GOLDEN, compiler, measure
from tests.net import needs

TOLERANCE = 1.02
LOG_SHARE = 1.05  # of the work of a request for 22 KB, with an access log


@pytest.mark.long
@needs("valgrind")
def test_the_work_keeps_to_its_budget() -> None:
    budget = json.loads(GOLDEN.read_text())
    if budget.pop("compiler") != compiler():
        pytest.skip(f"the budget is of another compiler than {compiler()}")
    found = measure()
    assert found.keys() == budget.keys()
    over = {label: (found[label], most) for label, most in budget.items() if found[label] > most * TOLERANCE}
    assert not over, "instructions, and their budget"


def test_an_access_log_costs_little_of_a_request() -> None:
    """The budget says so, which the other test holds; and a request without a log costs nothing for there being one."""
    budget = json.loads(GOLDEN.read_text())
    assert budget["22 KB, a request, with an access log"] <= budget["22 KB, a request"] * LOG_SHARE
