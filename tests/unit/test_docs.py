"""The documentation's generated parts are up to date, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sscc.image.format_doc import HEADER, updated
from sscc.responses.patches import FIELDS
from ssimage.loader import SECTIONS

ROOT = Path(__file__).resolve().parents[2]


def test_image_format_is_up_to_date() -> None:
    if not HEADER.exists():
        raise AssertionError("run from a checkout")
    text = (ROOT / "docs" / "image-format.md").read_text()
    assert updated(text) == text, "run: python -m sscc.image.format_doc docs/image-format.md"
    assert "| `frame_count` |" in text


def test_the_sections_are_those_that_are_read() -> None:
    """In their order, which the build-id covers them in."""
    text = (ROOT / "docs" / "image-format.md").read_text()
    assert tuple(re.findall(r"^\| `\.sandstorm\.(\w+)` \|", text, re.MULTILINE)) == SECTIONS
    assert tuple(re.findall(r"^ \*   \.sandstorm\.(\w+) ", HEADER.read_text(), re.MULTILINE)) == SECTIONS


@pytest.mark.parametrize(
    ("old", "new"),
    [("format version 7", "format version 3"), ("of their own, 7", "of their own, 6"), ("Six fields", "Two fields")],
)
def test_numbers_in_the_text_are_the_header_s(old: str, new: str) -> None:
    """They are written anew with the tables."""
    text = (ROOT / "docs" / "image-format.md").read_text()
    stale = text.replace(old, new, 1)
    assert stale != text
    assert updated(stale) == text
    with pytest.raises(ValueError, match="0 times"):
        updated(text.replace(old, "", 1))


def test_the_patched_fields_are_named() -> None:
    text = (ROOT / "docs" / "image-format.md").read_text()
    paragraph = text[text.index(" fields are patched") :].partition("\n\n")[0]
    assert set(re.findall(r"`([A-Z][\w-]+)`", paragraph)) == set(FIELDS.values())


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_what_is_said_to_be_shown_is_there() -> None:
    """Each script and test that a page names."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"`([\w/]+\.script|tests/[\w/]+\.\w+|test_\w+)`", page.read_text()):
            if name.startswith("test_"):
                assert f"def {name}(" in tests, f"{page.name}: {name}"
            elif name != "x.script":
                assert (ROOT / "tests" / "scripts" / name).exists() or (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_tests_that_http_md_names_are_there() -> None:
    text = (ROOT / "docs" / "http.md").read_text()
    rows = [line for line in re.findall(r"^\| .*\|$", text, re.MULTILINE) if not line.endswith("| shown by |")]
    assert len(rows) > 20
    for line in rows:
        shown = line.split("|")[-2]
        names = re.findall(r"`((?:[\w/]+\.py)?)(?:::(\w+))?`", shown)
        assert any(function for _, function in names), line
        module = ""
        for file, function in names:
            module = file or module
            source = (ROOT / "tests" / (module if "/" in module else f"unit/{module}")).read_text()
            assert not function or f"def {function}(" in source, (module, function)
