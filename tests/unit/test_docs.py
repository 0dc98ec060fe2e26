"""The documentation's generated parts are up to date, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sscc.image.format_doc import HEADER, updated
from sscc.manifest import manifest_doc
from sscc.manifest.model import Manifest
from sscc.responses.patches import FIELDS
from ssimage.loader import SECTIONS

from docs.pictures.draw import FOLDER, Picture, drawn

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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


def test_pictures_are_drawn_from_their_texts() -> None:
    for path, svg in drawn().items():
        assert path.read_text() == svg, "run: python docs/pictures/draw.py"


def test_the_functions_in_the_picture_are_there() -> None:
    picture = Picture.read((FOLDER / "ack-to-frame.txt").read_text())
    assert len(picture.steps) > 9
    for folder, function, _ in picture.steps:
        layer = "".join(path.read_text() for path in (ROOT / "runtime" / "csrc" / folder).glob("*.[ch]"))
        assert re.search(rf"\b\*?{function}\)?\(", layer), f"{folder}: {function}"


def test_the_readme_s_numbers_are_the_benchmarks() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    page = (ROOT / "docs" / "benchmarks" / "README.md").read_text()
    said = re.search(
        r"\*\*([\d.]+) times the requests per second\*\*.*?\*\*([\d.]+) times the processor time\*\*", readme
    )
    assert said is not None
    for name, number in zip(("requests a second, 22 KB", "CPU of a request, 22 KB"), said.groups(), strict=True):
        row = re.search(rf"^\| {name} \| ssrun, AF_PACKET \| [^|]* \| ([\d.]+)", page, re.MULTILINE)
        assert row is not None
        assert row[1] == number


def test_the_manifest_s_tables_are_the_model_s() -> None:
    text = (ROOT / "docs" / "manifest.md").read_text()
    assert manifest_doc.updated(text) == text, "run: python -m sscc.manifest.manifest_doc docs/manifest.md"
    tables = set(re.findall(r"<!-- table of (\w+) -->", text))
    # Encodings' keys are among the site's, and a Block is one of a _headers file.
    described = {name for name in Manifest.model_json_schema()["$defs"] if name != "Encodings"} | {"Manifest"}
    assert tables == described


def test_the_glossary_defines_each_word_once() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    words = [word.casefold() for word in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)][1:]
    assert words == sorted(set(words), key=lambda word: word.replace("-", ""))
    for named in re.findall(r"\*([\w -]+)\*", text):
        assert named.casefold() in words, named


# What things were called, beside what they are called now.
FORMER = {
    r"ready frames?": "prebuilt frame",
    r"half[- ]requests?": "incomplete request",
    r"moulds?": "response template",
    r"fields that move": "patched header fields",
    r"cut anew|cut segments|segments_cut": "re-segmented",
    r"ack_run|acks_joined": "ack_coalesce, acks_coalesced",
    r"look(?:ing)?[_ ]ahead": "prefetch",
    r"unclaimed": "tentative",
}


def test_the_pages_speak_the_glossary_s_words() -> None:
    """CHANGELOG.md says what names were, and script names are tests' own."""
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        text = re.sub(r"`[\w/]+\.script`|`(?:\w+\.py)?(?:::)?test_\w+`", "", page.read_text())
        for former, now in FORMER.items():
            found = re.search(rf"\b(?:{former})\b", text, re.IGNORECASE)
            assert found is None, f"{page.name}: {found[0]}: now {now}"


def test_every_page_is_in_the_list() -> None:
    """docs/README.md's, and that of decisions."""
    for folder, others in (("docs", ["decisions"]), ("docs/decisions", [])):
        text = (ROOT / folder / "README.md").read_text()
        linked = {(ROOT / folder / target).resolve() for target in re.findall(r"\]\(([^)#]+)", text)}
        for page in (ROOT / folder).rglob("*.md"):
            if page.parent.name not in others and page != ROOT / folder / "README.md":
                assert page in linked, page


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target, part in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            other = page.parent / target if target else page
            assert other.exists(), f"{page.name}: {target}"
            assert not part or part in anchors(other), f"{page.name}: {target}#{part}"


def test_what_is_said_to_be_shown_is_there() -> None:
    """Each script and test that a page names."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for page in PAGES:
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
