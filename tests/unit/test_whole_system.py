"""The page of the whole system's instructions is what its results say."""

from __future__ import annotations

import json

from tests.vm import whole_system

NAMES = ("1 KB, kept", "1 KB, close", "22 KB, kept", "22 KB, close", "22 KB, one connection")


def cells(read: int, names: tuple[str, ...] = NAMES) -> dict[str, dict[str, int]]:
    parts = {"server": read - 60, "driver": 10, "network": 20, "calls": 25, "rest": 5}
    return {name: {"all": read, "idle": 5} | parts for name in names}


def results(zero_copy: int) -> dict[str, object]:
    card = {"loop": 1001, "kernel": "7.3", "nginx, TSO": cells(8000), "ssrun, AF_XDP zero-copy": cells(zero_copy)}
    return {"loop_instructions": 1000, "seconds": 4, "connections": 16, "cards": {"igb": card}}


def test_the_page_is_made_from_the_results() -> None:
    text = whole_system.text(json.loads(whole_system.RESULTS.read_text()))
    assert whole_system.PAGE.read_text() == text, "run: python -m tests.vm.whole_system"


def test_numbers_stand_beside_nginx() -> None:
    text = whole_system.text(results(2000))
    assert "| ssrun, AF_XDP zero-copy | 2,000 (4.0) |" in text
    assert "| 22 KB, close | ssrun, AF_XDP zero-copy | 1,940 | 10 | 20 | 25 | 5 |" in text
    assert "one of 1,000 instructions reads 1,001" in text


def test_what_was_asked_is_judged() -> None:
    text = whole_system.text(results(2000))
    assert "| igb, 22 KB, kept | ssrun, AF_XDP zero-copy | at most 1/4 | 1/4.00 | reached |" in text
    assert "| igb, 1 KB, kept | ssrun, AF_XDP zero-copy | at most 1/7 | 1/4.00 | **not reached** |" in text
    bars = text[text.index("| beside nginx") : text.index("| `--tx memcpy`")]
    assert "virtio-net" not in bars


def test_a_row_that_lacks_a_cell_leaves_it_empty() -> None:
    read = results(2000)
    card = read["cards"]["igb"]  # type: ignore[index]
    card["ssrun, AF_PACKET"] = cells(4000, ("1 KB, close",))
    text = whole_system.text(read)
    assert "| ssrun, AF_PACKET |  | 4,000 (2.0) |  |  |  |" in text


def test_what_copying_costs_is_told() -> None:
    read = results(2000)
    card = read["cards"]["igb"]  # type: ignore[index]
    card["ssrun, AF_XDP zero-copy, memcpy"] = cells(2200)
    assert "| igb, ssrun, AF_XDP zero-copy | +10% |  |" in whole_system.text(read)
