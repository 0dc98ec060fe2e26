"""Profiles: what a run writes, and what a build makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ssimage._sandstorm import lib
from ssimage.loader import ImageFile
from ssrun import profile
from ssrun.errors import SsrunError

from tests.commands import sscc_here as sscc
from tests.host import Client, Host, Image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two sites with a file of the same name."""
    for site in "ab":
        (tmp_path / site / "d").mkdir(parents=True)
        for name in ("cold", "hot"):
            (tmp_path / site / f"{name}.txt").write_text(f"{site} {name} " * 500)
        (tmp_path / site / "d" / "index.html").write_text(f"{site} index")
    manifest = tmp_path / "site.yaml"
    manifest.write_text("version: 1\nroot: a\nencodings: {make: [gzip]}\nsites: [{hosts: [b], root: b}]\n")
    return manifest


def image_of(source: Path, name: str, *options: str | Path) -> Path:
    image = source.parent / name
    sscc("build", source, "-o", image, "--no-cache", *options)
    return image


class OneStack:
    """What a profile is of, with one worker."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def response_uses(self, response: int) -> int:
        return int(lib.stack_response_uses(self.view, response))

    def frame_high_water(self, frame: int) -> int:
        return int(lib.stack_frame_high_water(self.view, frame))


def run(image: Path, requests: list[tuple[str, str, str]], in_flight: int = 1) -> dict[str, Any]:
    """A profile after requests (host, path, further fields), so many of them in flight at once."""
    host = Host(Image.read(image), prompt=False, ring=256)
    port = 40000
    for at in range(0, len(requests), in_flight):
        for name, path, fields in requests[at : at + in_flight]:
            port += 1
            client = Client(host, port=port)
            client.connect()
            client.request(f"GET {path} HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n".encode())
        host.complete()
    with ImageFile(image) as file:
        return profile.document(file, OneStack(host.view))


def listed(image: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    routes = json.loads(sscc("inspect", image, "--json").stdout)["routes_list"]
    return {(each["host"], each["path"], one["encoding"]): one for each in routes for one in each["variants"]}


def test_what_was_asked_for_has_copies_and_lies_in_front(source: Path) -> None:
    image = image_of(source, "x.img")
    made = run(image, [("b", "/hot.txt", "")] * 12 + [("a", "/d/", "")], in_flight=4)
    assert [(each["host"], each["path"], each["requests"], each["copies"]) for each in made["routes"]] == [
        ("b", "/hot.txt", 12, 4),
        ("", "/d/", 1, 1),
        ("", "/d/index.html", 1, 1),
    ]
    path = source.parent / "out.json"
    profile.write(path, made)
    other = image_of(source, "y.img", "--profile", path)
    copies = {key: one["copies"] for key, one in listed(other).items()}
    assert copies.pop(("b", "/hot.txt", "identity")) == 4
    assert set(copies.values()) == {1}
    before, after = (Image.read(each).data["slots"] for each in (image, other))
    assert before.index(b"a cold a cold") < before.index(b"b hot b hot")
    assert after.index(b"b hot b hot") < after.index(b"a cold a cold")
    sscc("verify", other, "--manifest", source)
    assert sscc("diff", image, other).output == ""


def test_ranges_and_codings_are_counted(source: Path) -> None:
    image = image_of(source, "x.img")
    made = run(image, [("a", "/hot.txt", "Range: bytes=0-9\r\n"), ("a", "/hot.txt", "Accept-Encoding: gzip\r\n")])
    counted = {(each["path"], each["encoding"]): each["requests"] for each in made["routes"]}
    assert counted == {("/hot.txt", "identity"): 1, ("/hot.txt", "gzip"): 1}


def test_what_is_no_longer_there_is_passed_over(source: Path) -> None:
    image = image_of(source, "x.img")
    made = run(image, [("b", "/hot.txt", ""), ("a", "/cold.txt", ""), ("a", "/d/", "")])
    path = source.parent / "out.json"
    profile.write(path, made)
    (source.parent / "a" / "cold.txt").unlink()
    source.write_text("version: 1\nroot: a\n")
    image_of(source, "y.img", "--profile", path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "can't be read: No such file"),
        ("", "is no profile"),
        ("[]", "is no profile"),
        ('{"version": 1, "build_id": "", "routes": [{"path": "/"}]}', "is no profile"),
        ('{"version": 2, "build_id": "", "routes": []}', "is of another version"),
    ],
)
def test_what_is_no_profile(source: Path, text: str | None, expected: str) -> None:
    path = source.parent / "p.json"
    if text is not None:
        path.write_text(text)
    done = sscc("build", source, "-o", source.parent / "x.img", "--no-cache", "--profile", path, status=1)
    assert f"p.json: error: {expected}" in done.output
    assert not (source.parent / "x.img").exists()


def test_a_profile_that_can_t_be_written(tmp_path: Path) -> None:
    with pytest.raises(SsrunError, match="can't be written"):
        profile.write(tmp_path / "none" / "p.json", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(SsrunError, match="can't be written"):
        profile.write(tmp_path / "folder", {})
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_profile_of_another_site_is_told(source: Path) -> None:
    """It would have been used for nothing, without a word."""
    made = run(image_of(source, "x.img"), [("a", "/hot.txt", "")])
    (source.parent / "p.json").write_text(json.dumps(made))
    (source.parent / "other").mkdir()
    (source.parent / "other" / "page.html").write_text("page")
    words = ["build", source.parent / "other", "-o", source.parent / "y.img", "--profile", source.parent / "p.json"]
    said = sscc(*words, status=1).stderr
    assert "p.json: error: is of another site: of its 1 paths none is in this one" in said
    assert "ssrun --profile" in said
    (source.parent / "p.json").write_text(json.dumps(made | {"routes": []}))
    sscc(*words)
