"""`sscc inspect`: complete for programs, readable for people; and the summary of `sscc build`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.commands import sscc_text as sscc

SEGMENT_BYTES = 1428
SLOT_BYTES = 2048


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("inspect")
    (top / "site" / "docs" / "deep").mkdir(parents=True)
    (top / "site" / "docs" / "index.html").write_text("<p>docs")
    (top / "site" / "docs" / "deep" / "text.txt").write_text("text\n" * 1000)
    for name in ("one.bin", "two.bin"):
        (top / "site" / name).write_bytes(bytes(range(256)) * 100)
        os.utime(top / "site" / name, (1_000_000_000, 1_000_000_000))
    text = "version: 1\nroot: site\ncopies: 3\nencodings: {make: [gzip]}\nheaders: {X-A: a}\n"
    (top / "site.yaml").write_text(text)
    (top / "summary").write_text(sscc("build", top / "site.yaml", "-o", top / "site.img", "--json"))
    return top


@pytest.fixture(scope="module")
def document(top: Path) -> Any:
    return json.loads(sscc("inspect", top / "site.img", "--json"))


def test_json_has_every_answer(document: Any) -> None:
    routes = {route["path"]: route["variants"] for route in document["routes_list"]}
    text = {variant["encoding"]: variant for variant in routes["/docs/deep/text.txt"]}
    assert list(text) == ["gzip", "identity"]
    for encoding, variant in text.items():
        answers = {each["answer"]: each for each in variant["answers"]}
        assert {name: each["status"] for name, each in answers.items()} == {
            "GET": 200,
            "HEAD": 200,
            "304": 304,
            "206": 206,
            "part": 206,
        }
        get = answers["GET"]
        assert get["body_bytes"] == variant["bytes"]
        assert get["frames"] == -(-(get["head_bytes"] + get["body_bytes"]) // SEGMENT_BYTES)
        fields = dict(get["headers"])
        assert fields["Content-Length"] == str(variant["bytes"])
        assert fields["ETag"] == variant["etag"]
        assert fields["X-A"] == "a"
        assert fields.get("Content-Encoding") == (None if encoding == "identity" else encoding)
        assert answers["HEAD"]["headers"] == get["headers"]
        assert set(answers["GET"]["patched"]) == {"Date", "Connection"}
        assert set(answers["304"]["patched"]) == {"Date", "Connection", "ETag", "Last-Modified"}
        assert set(answers["206"]["patched"]) == {*answers["304"]["patched"], "Content-Length", "Content-Range"}
        for name in ("304", "206"):
            said = dict(answers[name]["headers"])
            assert (said["ETag"], said["Last-Modified"]) == (fields["ETag"], fields["Last-Modified"])
        for each in answers.values():
            assert each["copies"] == (3 if each["answer"] in ("GET", "HEAD") else 1)
            for name, place in each["patched"].items():
                value = each["head"][place["offset"] : place["offset"] + place["bytes"]]
                assert value.strip() == dict(each["headers"])[name]
    assert text["identity"]["last_modified_s"] > 0


def test_json_has_redirects_and_errors(document: Any) -> None:
    (redirect,) = next(route["variants"] for route in document["routes_list"] if route["path"] == "/docs")
    assert [each["answer"] for each in redirect["answers"]] == ["GET", "HEAD"]
    assert dict(redirect["answers"][0]["headers"])["Location"] == "/docs/"
    assert redirect["last_modified_s"] is None
    pages = {each["status"]: each["answers"] for each in document["errors"]}
    assert {204, 400, 404, 503} <= set(pages)
    assert pages[404][0]["status_line"] == "HTTP/1.1 404 Not Found"
    assert [each["body_bytes"] > 0 for each in pages[404]] == [True, False]


def test_what_is_shared_is_told(document: Any, top: Path) -> None:
    """The two files that are equal, by a build and by an image alike."""
    summary = json.loads((top / "summary").read_text())
    frames = -(-25600 // SEGMENT_BYTES)
    assert summary["shared_frames"] >= frames
    assert summary["shared_bytes"] >= frames * 3 * SLOT_BYTES
    for name in ("shared_frames", "shared_bytes", "files", "routes", "variants", "frames", "slots"):
        assert summary[name] == document[name], name


def test_a_tree(top: Path) -> None:
    """What is shared counts once."""
    lines = sscc("inspect", top / "site.img", "--tree").splitlines()
    assert lines[0].endswith("in 6 routes")
    assert [line.split()[-2:] for line in lines if "one.bin" in line or "two.bin" in line] == [["25.6", "kB"]] * 2
    assert sum("docs/" in line for line in lines) == 1
    (text,) = (line for line in lines if "text.txt" in line)
    assert "gzip" in text
    assert "identity 5.0 kB" in text
    short = sscc("inspect", top / "site.img", "--tree", "--limit", "1")
    assert "... and 2 more" in short
    assert "--tree" in sscc("inspect", top / "site.img", "/docs", "--tree", status=2)


def test_a_route_for_people(top: Path) -> None:
    text = sscc("inspect", top / "site.img", "/docs/deep/text.txt")
    for line in ("HTTP/1.1 200 OK", "HTTP/1.1 206 Partial Content", "HTTP/1.1 304 Not Modified", "X-A: a"):
        assert line in text.splitlines()
    assert "/docs/deep/text.txt  identity: 5,000 bytes" in text


def test_the_summary_for_people(top: Path) -> None:
    lines = sscc("build", top / "site.yaml", "-o", top / "again.img").splitlines()
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[1:]}
    assert rows["variants"].startswith("6 (")
    assert "from the cache" in rows["variants"]
    assert "a frame" in rows["copies"]
    assert rows["shared"].endswith("saved")
