"""`sscc diff`: each kind of difference, and what is none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.commands import sscc_text as sscc

TIME = (1_000_000_000, 1_000_000_000)


class Site:
    """A folder and its image, changed step by step."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "site"
        (self.root / "sub").mkdir(parents=True)
        for name in ("index.html", "sub/index.html", "a.txt", "b.txt", "style.css"):
            self.write(name, f"{name}\n" * 300)
        self.manifest = ""
        self.images = 0

    def write(self, name: str, text: str, time: tuple[int, int] = TIME) -> None:
        (self.root / name).write_text(text)
        os.utime(self.root / name, time)

    def image(self) -> Path:
        source = self.top / "site.yaml"
        source.write_text("version: 1\nroot: site\n" + self.manifest)
        self.images += 1
        target = self.top / f"{self.images}.img"
        sscc("build", source, "-o", target, "-q")
        return target


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def old(site: Site) -> Path:
    return site.image()


def diff(old: Path, new: Path) -> Any:
    document = json.loads(sscc("diff", "--json", old, new, status=1))
    for part, key in (("changed", "path"), ("errors", "status")):
        document[part] = {each[key]: each["changes"] for each in document[part]}
    return document


def test_no_difference(site: Site, old: Path) -> None:
    """Not in how frames are cut either: clients see the same."""
    assert sscc("diff", old, old) == ""
    document = json.loads(sscc("diff", "--json", old, old))
    assert set(document) == {"added", "removed", "changed", "errors", "hosts_added", "hosts_removed"}
    assert not any(document.values())
    site.manifest = "mtu: 9000\ncopies: 3\n"
    new = site.image()
    assert new.read_bytes() != old.read_bytes()
    assert sscc("diff", old, new) == ""


def test_routes_that_come_and_go(site: Site, old: Path) -> None:
    site.write("new file", "new")
    (site.root / "a.txt").unlink()
    document = diff(old, site.image())
    assert document.pop("added") == ["/new file"]
    assert document.pop("removed") == ["/a.txt"]
    assert not any(document.values())
    text = sscc("diff", old, site.top / "2.img", status=1)
    assert text.splitlines()[:2] == ["- /a.txt", "+ /new file"]


def test_another_content(site: Site, old: Path) -> None:
    """Every other file's boundary of several ranges changes with it, which is not told."""
    site.write("a.txt", "A.txt\n" * 300)
    document = diff(old, site.image())
    assert list(document["changed"]) == ["/a.txt"]
    body, etag = document["changed"]["/a.txt"]
    assert (body["what"], body["answers"], body["old"]["bytes"], body["new"]["bytes"]) == (
        "body",
        ["GET"],
        1800,
        1800,
    )
    assert body["old"]["sha256"] != body["new"]["sha256"]
    assert (etag["what"], etag["name"], etag["answers"]) == ("header", "ETag", ["GET", "HEAD", "304", "206"])
    assert etag["old"].strip('"') == body["old"]["sha256"][:32]


def test_another_time(site: Site, old: Path) -> None:
    site.write("a.txt", "a.txt\n" * 300, (1_100_000_000, 1_100_000_000))
    (change,) = diff(old, site.image())["changed"]["/a.txt"]
    assert change["name"] == "Last-Modified"
    assert change["new"] == "Tue, 09 Nov 2004 11:33:20 GMT"


def test_header_fields(site: Site, old: Path) -> None:
    site.manifest = "rules: [{match: /b.txt, headers: {Cache-Control: max-age=60}, mime: text/x-b}]\n"
    new = site.image()
    changes = {change["name"]: change for change in diff(old, new)["changed"]["/b.txt"]}
    assert set(changes) == {"Cache-Control", "Content-Type"}
    assert (changes["Cache-Control"]["old"], changes["Cache-Control"]["new"]) == (None, "max-age=60")
    assert changes["Cache-Control"]["answers"] == ["GET", "HEAD", "304", "206"]
    assert changes["Content-Type"]["answers"] == ["GET", "HEAD", "206", "part"]
    text = sscc("diff", new, old, status=1)
    assert "    identity: Cache-Control: max-age=60, now absent (GET, HEAD, 304, 206)\n" in text


def test_variants(site: Site, old: Path) -> None:
    site.manifest = "encodings: {make: [gzip]}\n"
    changes = diff(old, site.image())["changed"]["/style.css"]
    assert (changes[0]["what"], changes[0]["old"], changes[0]["new"]) == (
        "variants",
        ["identity"],
        ["gzip", "identity"],
    )
    assert [change["name"] for change in changes[1:]] == ["Vary"]


def test_a_status(site: Site, old: Path) -> None:
    """A folder's redirect becomes a file: also answers that there were not before."""
    (site.root / "sub" / "index.html").unlink()
    (site.root / "sub").rmdir()
    site.write("sub", "file")
    document = diff(old, site.image())
    assert document["removed"] == ["/sub/", "/sub/index.html"]
    changes = document["changed"]["/sub"]
    (status,) = (change for change in changes if change["what"] == "status")
    assert (status["old"], status["new"]) == ("HTTP/1.1 301 Moved Permanently", "HTTP/1.1 200 OK")
    (answer,) = (change for change in changes if change["what"] == "answer")
    assert (answer["answers"], answer["old"], answer["new"]) == (["304", "206", "part"], False, True)


def test_error_pages(site: Site, old: Path) -> None:
    (site.top / "lost.html").write_text("lost")
    site.manifest = "error_pages: {404: lost.html}\n"
    new = site.image()
    document = diff(old, new)
    assert list(document["errors"]) == ["404"]
    assert [change["what"] for change in document["errors"]["404"]] == ["body", "header"]
    assert "~ error 404\n" in sscc("diff", old, new, status=1)


def test_trouble(old: Path, tmp_path: Path) -> None:
    assert "can't be read" in sscc("diff", old, tmp_path / "none.img", status=2)
    (tmp_path / "bad.img").write_bytes(old.read_bytes()[:-100])
    assert "sscc: " in sscc("diff", tmp_path / "bad.img", old, status=2)
    sscc("diff", old, status=2)


def test_sites_are_paired_by_their_hosts(site: Site) -> None:
    """A host that comes or goes is told; the routes of its site are the same ones."""
    site.manifest = "hosts: [b.example]\ncors: {}\n"
    old = site.image()
    site.manifest = "hosts: [a.example, b.example]\ncors: {max_age_s: 5}\n"
    document = diff(old, site.image())
    assert (document["hosts_added"], document["hosts_removed"]) == (["a.example"], [])
    assert document["added"] == document["removed"] == []
    (change,) = document["changed"]["b.example/a.txt"]
    assert (change["name"], change["answers"]) == ("Access-Control-Max-Age", ["OPTIONS"])


def test_a_redirect_that_hands_the_path_on(tmp_path: Path) -> None:
    """What stands in the image is the same but for the place of the path, which tools show as a manifest has it."""
    images = []
    for number, to in enumerate(["https://new.example/a/:splat//b", "https://new.example/a//:splat/b"]):
        manifest = tmp_path / f"{number}.yaml"
        manifest.write_text(f"version: 1\nredirects: [{{from: '/old/*', to: '{to}'}}]\n")
        images.append(tmp_path / f"{number}.img")
        sscc("build", manifest, "-o", images[-1])
        assert f"Location: {to}" in sscc("inspect", images[-1], "/old/*")
    assert "differs" in sscc("verify", images[0], "--manifest", tmp_path / "1.yaml", status=1)
    changes = json.dumps(diff(*images))
    assert "https://new.example/a/:splat//b" in changes
    assert "https://new.example/a//:splat/b" in changes
