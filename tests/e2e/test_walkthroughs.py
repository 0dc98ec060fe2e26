"""The tutorial, the how-to pages and the README's first screen do what they say, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.walkthrough import File, follow, is_like, steps
from tests.net import Namespace, namespace, needs

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]
# The machine that a page is followed on has an eth0, with another machine behind it.
HERE, ELSEWHERE = "192.0.2.1/24", "192.0.2.2/24"

pytestmark = needs("bash", "curl")


def connect(here: Namespace, elsewhere: Namespace) -> None:
    here.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", elsewhere.name)
    for space, address in ((here, HERE), (elsewhere, ELSEWHERE)):
        space.ip("addr", "add", address, "dev", "eth0")
        space.ip("link", "set", "eth0", "up")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    with namespace("here") as here, namespace("elsewhere") as elsewhere:
        connect(here, elsewhere)
        assert follow(page, tmp_path, here, elsewhere) > 2


@pytest.mark.parametrize(
    ("expected", "shown", "like"),
    [
        ("a ... c\n", "a b c\n", True),
        ("a ... c\n", "a b\nc\n", False),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\nd\n", "a\nd\n", True),
        ("a\n...\n", "b\n", False),
        ("a  \n", "a\n", True),
        ("", "", True),
        ("", "a\n", False),
        ("a\n", "", False),
        ("1.5\n", "1x5\n", False),
    ],
)
def test_what_a_page_shows_is_compared(expected: str, shown: str, like: bool) -> None:
    assert is_like(expected, shown) == like


def test_a_page_that_is_wrong_is_told(tmp_path: Path) -> None:
    """So that the pages are shown to be right by the test above."""
    page = tmp_path / "page.md"
    with namespace("here") as here, namespace("elsewhere") as elsewhere:
        for text, message in (
            ("```console\n$ echo a\nb\n```\n", "the page says"),
            ("```console\n$ false\n```\n", "status 1"),
            ("<!-- goes on -->\n```console\n$ true\n```\n", "has ended"),
            ("```console\n^C\n```\n", "nothing goes on"),
        ):
            page.write_text(text)
            with pytest.raises(AssertionError, match=message):
                follow(page, tmp_path, here, elsewhere)


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    for page in PAGES:
        assert any(not isinstance(step, File) for step in steps(page)), page
