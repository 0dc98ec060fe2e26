"""What one build leaves to the next, and what is said of it that can't be."""

from __future__ import annotations

import json
import os

import pytest
from ssrun import handover
from ssrun.errors import SsrunError


def left(text: bytes) -> str:
    """A file in memory with this in it: its descriptor."""
    fd = os.memfd_create("left")
    os.write(fd, text)
    return str(fd)


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5"])
def test_nothing_is_left(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(handover.VARIABLE, value)
    assert handover.received() is None
    assert handover.VARIABLE not in os.environ  # for none that we start


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"form": 2}',
        b'{"form": 1}',
        b'{"form": 1, "image": 3}',
        b'{"form": 1, "image": {}}',
    ],
)
def test_what_is_left_is_nothing_that_we_know(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(handover.VARIABLE, left(text))
    with pytest.raises(SsrunError, match=r"start ssrun again|can.t be read"):
        handover.received()
    monkeypatch.setenv(handover.CHECK, left(text))
    with pytest.raises(SsrunError, match=r"start ssrun again|can.t be read"):
        handover.asked()


def test_its_descriptor_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(handover.VARIABLE, "987654")
    with pytest.raises(SsrunError, match="can't be read"):
        handover.received()


def test_what_is_there_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for those that we start."""
    read, write = os.pipe()
    os.set_inheritable(read, True)
    document = {"form": handover.FORM, "image": {"path": "/a", "fd": read, "source": [1, 2]}, "records_fd": write}
    monkeypatch.setenv(handover.VARIABLE, left(json.dumps(document).encode()))
    received = handover.received()
    assert received is not None
    assert (received.image.path, received.descriptors()) == ("/a", [read, write])
    assert not os.get_inheritable(read)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (1, "", "could not go on: it is bad"),
        (-9, "", "could not go on: it is bad"),
        (0, "hello\n", "no ssrun that could go on"),
        (0, "{}", "no ssrun that could go on"),
        (0, '{"version": "1", "records": "many"}', "no ssrun that could go on"),
        (0, '{"version": "1.2", "records": 77}', "in 1.2, which keeps them in another way"),
    ],
)
def test_a_build_that_could_not_go_on(status: int, answer: str, why: str) -> None:
    with pytest.raises(SsrunError, match=why):
        handover._version(status, answer, "note: something\nit is bad\n")
