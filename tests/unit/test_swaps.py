"""What is told of images that workers are handed, and in which order: what took an image's place is known before it is gone."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ssimage._sandstorm import ffi, lib

from tests.host import Image
from tests.unit.test_ports_memory import Loop
from tests.unit.test_swap import VERSIONS, make, model

SERVED, REFUSED, GONE = lib.SWAPS_SERVED, lib.SWAPS_REFUSED, lib.SWAPS_GONE


@pytest.fixture(scope="module")
def images() -> list[Image]:
    return [make(version) for version in range(VERSIONS)]


class Swaps:
    """Those of one worker, whose rounds are ours."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.workers = ffi.new("struct worker *[]", [loop.worker])
        described = {"workers": self.workers, "count": 1, "app": ffi.addressof(lib.web_app)}
        self.described = ffi.new("struct swaps_workers *", described)
        self.swaps = lib.swaps_create(self.described, ffi.NULL)
        assert self.swaps != ffi.NULL

    def begin(self, number: int, image: Image) -> int:
        return int(lib.swaps_begin(self.swaps, number, image.image, ffi.NULL))

    def news(self) -> list[tuple[int, int, int]]:
        news, all_of_them = ffi.new("struct swaps_news *"), []
        while lib.swaps_news(self.swaps, news):
            all_of_them.append((news.kind, news.number, news.result))
        return all_of_them

    def next_look_ms(self) -> int:
        return int(lib.swaps_look_ms(self.swaps))

    def round(self) -> None:
        assert lib.worker_round(self.loop.worker) >= 0

    def close(self) -> None:
        lib.swaps_destroy(self.swaps)


@pytest.fixture
def swaps(tmp_path: Path) -> Iterator[Swaps]:
    with closing(Loop(model(0), tmp_path, delay=0, gather_max=1)) as loop, closing(Swaps(loop)) as made:
        yield made


def test_that_one_is_gone_is_told_after_what_took_its_place(swaps: Swaps, images: list[Image]) -> None:
    """Though it is, in the same round."""
    assert (swaps.news(), swaps.next_look_ms()) == ([], -1)
    for number in range(1, 30):
        assert swaps.begin(number, images[number % VERSIONS]) == 0
        assert swaps.news() == []
        assert 0 < swaps.next_look_ms() < 10
        swaps.round()  # taken up
        swaps.round()  # and nobody needs the one before it
        assert swaps.news() == [(SERVED, number, 0), (GONE, number - 1, 0)]
        assert swaps.next_look_ms() == -1


def test_no_two_at_once(swaps: Swaps, images: list[Image]) -> None:
    assert swaps.begin(1, images[1]) == 0
    assert not lib.swaps_takes(swaps.swaps)
    assert swaps.begin(2, images[2]) == -errno.EBUSY
    swaps.round()
    assert swaps.begin(2, images[2]) == -errno.EBUSY  # nobody has been told yet
    assert swaps.news()[0] == (SERVED, 1, 0)
    assert lib.swaps_takes(swaps.swaps)
    assert swaps.begin(2, images[2]) == 0


def test_one_that_does_not_fit_leaves_what_was_served(swaps: Swaps, images: list[Image]) -> None:
    """A round in which it is refused ends nothing, and another can be handed over."""
    other = make(1, mtu=1600)
    assert swaps.begin(1, other) == 0
    swaps.round()
    assert swaps.news() == [(REFUSED, 1, -errno.EINVAL)]
    swaps.round()
    assert (swaps.news(), swaps.next_look_ms()) == ([], -1)
    assert swaps.begin(2, images[1]) == 0
    swaps.round()
    swaps.round()
    assert swaps.news() == [(SERVED, 2, 0), (GONE, 0, 0)]
