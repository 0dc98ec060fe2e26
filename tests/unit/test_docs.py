"""The documentation's generated parts are up to date, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from sscc.format_doc import HEADER, updated

ROOT = Path(__file__).resolve().parents[2]


def test_image_format_is_up_to_date() -> None:
    if not HEADER.exists():
        raise AssertionError("run from a checkout")
    text = (ROOT / "docs" / "image-format.md").read_text()
    assert updated(text) == text, "run: python -m sscc.format_doc docs/image-format.md"
    assert "| `frame_count` |" in text


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
