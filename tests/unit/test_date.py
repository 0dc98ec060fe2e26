"""HTTP dates against Python's own."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from ssimage._sandstorm import ffi, lib

NOW_S = 1_700_000_000


def parse(text: bytes) -> int | None:
    out = ffi.new("int64_t *")
    buffer = ffi.new("uint8_t[]", len(text) or 1)
    ffi.memmove(buffer, text, len(text))
    return int(out[0]) if lib.date_parse(buffer, len(text), NOW_S, out) else None


def test_format_and_parse_agree_with_the_library() -> None:
    source = random.Random(7)
    seconds = [
        0,
        951782399,
        951782400,
        4107542399,
        4107542400,
        *(source.randrange(1 << 33) for _ in range(5000)),
    ]
    for second in seconds:
        out = ffi.new("uint8_t[29]")
        lib.date_format(second, out)
        text = format_datetime(datetime.fromtimestamp(second, UTC), usegmt=True).encode()
        assert bytes(ffi.buffer(out)) == text
        assert parse(text) == second


@pytest.mark.parametrize(
    ("text", "second"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777),  # the three of RFC 9110 section 5.6.7
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        (b"Sun Nov  6 08:49:37 1994", 784111777),
        (b"Sunday, 06-Nov-30 08:49:37 GMT", 1920185377),
        (b"", None),
        (b"Sun, 06 Nov 1994 08:49:37 UTC", None),
        (b"Sun, 06 Nox 1994 08:49:37 GMT", None),
        (b"Sun, 00 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 24:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 08:49:37 GMT ", None),
        (b"1994-11-06T08:49:37Z", None),
    ],
)
def test_the_three_forms(text: bytes, second: int | None) -> None:
    assert parse(text) == second
