"""What both commands take on their command lines."""

from __future__ import annotations

import click
import pytest
from ssimage.parameters import Size

SIZES = (
    *(
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("512M", 512_000_000),
        ("10GB", 10_000_000_000),
        ("2 g", 2_000_000_000),
    ),
    *(("512MiB", 512 << 20), ("1.5K", 1500), (".5k", 500), ("1Ki", 1024), ("2TB", 2 * 10**12), ("1EiB", 1 << 60)),
)


@pytest.mark.parametrize(("text", "size_bytes"), SIZES)
def test_a_size_is_read_alike_by_all_commands(text: str, size_bytes: int) -> None:
    assert Size().convert(text, None, None) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "much", "-1", "1X", "1iB", "1..5K", "M", "0x10", "1MM", "nan", "inf", "1e9", "\u0661"]
)
def test_what_is_no_size_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size; write one such as 10GB, 512M or 512MiB"):
        Size().convert(text, None, None)


@pytest.mark.parametrize("text", ["8EiB", "9" * 400])
def test_no_machine_has_more_than_any_machine(text: str) -> None:
    with pytest.raises(click.BadParameter, match="more than any machine has"):
        Size().convert(text, None, None)
