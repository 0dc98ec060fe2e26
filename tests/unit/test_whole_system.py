"""The page of the whole system's instructions is what its results say."""

from __future__ import annotations

import json

from tests.vm import whole_system


def cells(read: int) -> dict[str, dict[str, int]]:
    names = ("1 KB, kept", "1 KB, close", "22 KB, kept", "22 KB, close", "22 KB, one connection")
    return {name: {"all": read, "server": read - 30, "driver": 10, "kernel": 20, "idle": 5} for name in names}


def results(zero_copy: int) -> dict[str, object]:
    card = {"loop": 1001, "kernel": "7.3", "nginx, TSO": cells(8000), "ssrun, AF_XDP zero-copy": cells(zero_copy)}
    return {"loop_instructions": 1000, "seconds": 4, "connections": 16, "cards": {"igb": card}}


def test_the_page_is_made_from_the_results() -> None:
    text = whole_system.text(json.loads(whole_system.RESULTS.read_text()))
    assert whole_system.PAGE.read_text() == text, "run: python -m tests.vm.whole_system"


def test_numbers_stand_beside_nginx() -> None:
    text = whole_system.text(results(2000))
    assert "| ssrun, AF_XDP zero-copy | 2,000 (4.0) |" in text
    assert "| ssrun, AF_XDP zero-copy | 1,970 | 10 | 20 |" in text
    assert "one of 1,000 instructions reads 1,001" in text


def test_what_was_asked_is_judged() -> None:
    text = whole_system.text(results(2000))
    assert "| igb, 22 KB, kept | at most 1/4 | 1/4.0 | reached |" in text
    assert "| igb, 1 KB, kept | at most 1/7 | 1/4.0 | **not reached** |" in text
    assert "virtio-net" not in text[text.index("| AF_XDP") :]
