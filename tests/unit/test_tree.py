"""What is taken from a root: nothing hidden, nothing of the build's own, and links only where they lead inside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.commands import in_lines, sscc, sscc_here


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    write(folder / "index.html", "hello")
    write(folder / "sub" / "page.html", "page")
    return folder


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def root(tmp_path: Path, *lines: str) -> Path:
    """A manifest that serves the site, with this said of its root."""
    path = tmp_path / "site.yaml"
    path.write_text("\n".join(["version: 1", "roots:", "  - path: site", *(f"    {line}" for line in lines), ""]))
    return path


def paths(image: Path) -> list[str]:
    """Those of files, without aliases."""
    document: Any = json.loads(sscc("inspect", image, "--json").stdout)
    return [each["path"] for each in document["routes_list"] if not each["path"].endswith("/")]


def built(source: Path, target: Path, *words: str) -> tuple[list[str], str]:
    """Builds; the paths that it serves, and what was said."""
    done = sscc("build", "--no-cache", source, "-o", target, *words)
    return paths(target), in_lines(done.stderr)


HIDDEN = (
    ".env",
    ".htpasswd",
    "sub/.DS_Store",
    ".cache/a",
    ".git/config",
    "sub/.svn/entries",
    ".hg/x",
    "deep/.git/HEAD",
)
KNOWN = (".well-known/security.txt", ".well-known/acme/.token", "sub/.well-known/x")


@pytest.fixture
def hidden(site: Path) -> Path:
    for name in (*HIDDEN, *KNOWN):
        write(site / name)
    return site


@pytest.mark.parametrize("lines", [None, (), ('exclude: ["sub/*.bak"]',), ('include: ["**"]', 'exclude: ["no/**"]')])
def test_nothing_hidden_is_served(hidden: Path, tmp_path: Path, lines: tuple[str, ...] | None) -> None:
    """Whatever is excluded beside it; what is well known is. One warning tells of the others, but not of version
    control."""
    source = hidden if lines is None else root(tmp_path, *lines)
    served, said = built(source, tmp_path / "x.img")
    assert served == sorted(f"/{name}" for name in ("index.html", "sub/page.html", *KNOWN))
    assert said.count("\n") == 1
    assert "warning: 4 hidden files are left out: .cache/, .env, .htpasswd, sub/.DS_Store; " in said
    assert "include_hidden: true" in said


def test_hidden_files_are_served_where_that_is_said(hidden: Path, tmp_path: Path) -> None:
    manifest = root(tmp_path, "include_hidden: true", 'exclude: ["**/.hg/**"]')
    served, said = built(manifest, tmp_path / "x.img")
    names = ("index.html", "sub/page.html", *KNOWN, *HIDDEN)
    assert served == sorted(f"/{name}" for name in names if not name.startswith(".hg"))
    assert said.count("a folder of version control is served") == 3


def test_what_is_excluded_or_not_included_is_not_told(hidden: Path, tmp_path: Path) -> None:
    excluded = built(
        root(tmp_path, 'exclude: ["**/.env", "**/.htpasswd", ".cache", "**/.DS_Store"]'), tmp_path / "x.img"
    )
    assert excluded[1] == ""
    included = built(root(tmp_path, 'include: ["*.html", "sub/*.html"]'), tmp_path / "x.img")
    assert included == (["/index.html", "/sub/page.html"], "")


def test_hidden_files_are_an_error_to_the_strict(hidden: Path, tmp_path: Path) -> None:
    sscc("check", "--strict", hidden, status=1)
    sscc("check", "--strict", hidden, "--exclude", "**/.[!w]*", "--exclude", "**/.cache", status=0)


def test_an_image_does_not_take_itself_in(site: Path) -> None:
    """Nor its compressed form, nor what a build that was killed left behind; and it says so."""
    sizes = set()
    for _ in range(3):
        for name in ("site.img", "site.img.lz4"):
            done = warm.run("sscc.cli", "build", "--no-cache", ".", "-o", name, cwd=site)
            assert done.returncode == 0, done.stderr
        write(site / f".sandstorm-{'0' * 16}-{'1' * 16}")
        sizes.add((site / "site.img").stat().st_size)
    assert len(sizes) == 1
    assert "note: is not served: it is the manifest, or the image that is written" in in_lines(done.stderr)
    assert paths(site / "site.img") == ["/index.html", "/sub/page.html"]
    assert "good" in sscc("verify", site / "site.img", "--manifest", site).stdout


def test_an_image_is_known_by_another_name(site: Path, tmp_path: Path) -> None:
    """Through a link to it or to its folder, or as a hard link."""
    (tmp_path / "current.img").symlink_to("site/releases/7.img")
    write(site / "releases" / "7.img", "the image before")
    os.link(site / "releases" / "7.img", site / "copy.img")
    (site / "link.img").symlink_to("releases/7.img")
    served, said = built(site, tmp_path / "current.img")
    assert served == ["/index.html", "/sub/page.html"]
    assert said.count("note: ") == 3
    write(site / "other" / "7.img", "another file of the same name")
    served, _ = built(site, tmp_path / "current.img")
    assert "/other/7.img" in served


def test_a_manifest_is_not_served(site: Path) -> None:
    write(site / "site.yaml", "version: 1\nroot: .\n")
    served, said = built(site / "site.yaml", site / "x.img")
    assert served == ["/index.html", "/sub/page.html"]
    assert "site.yaml: note: is not served" in said
    assert built(site / "site.yaml", site / "x.img", "--strict", "-q")[1] == "", "a note is no warning"
    served, _ = built(site, site / "x.img")
    assert "/site.yaml" in served, "it is a file as any other where the folder is built"


LINKS = {
    "gone": ("nothing", "leads to nothing"),
    "out": ("/etc/hostname", "leaves the root"),
    "self": ("self", "leads to itself"),
    "sub/up": ("..", "leads back to a folder above it"),
}


@pytest.fixture
def links(site: Path) -> Path:
    """Links that can't be followed, and two that can."""
    for name, (target, _) in LINKS.items():
        (site / name).symlink_to(target)
    (site / "again").symlink_to("sub/page.html")
    (site / "folder").symlink_to("other")
    write(site / "other" / "page.html")
    return site


INSIDE = ["/again", "/folder/page.html", "/index.html", "/other/page.html", "/sub/page.html"]


def test_links_that_lead_nowhere_inside_are_told_in_one_message(links: Path) -> None:
    told = in_lines(sscc("check", links, status=1).stderr)
    assert told.startswith(f"{links}: 4 symbolic links can't be followed: ")
    assert told.count("\n") == 1
    for name, (target, why) in LINKS.items():
        assert f"{name} -> {target} ({why})" in told
    assert "--symlinks skip-outside" in told
    assert "exclude" in told


def test_globs_come_first(links: Path, tmp_path: Path) -> None:
    """What is excluded, or not included, ends no build: links, and files that are none."""
    os.mkfifo(links / "pipe")
    words = [word for name in (*LINKS, "pipe") for word in ("--exclude", name)]
    assert built(links, tmp_path / "x.img", *words) == (INSIDE, "")
    included = 'include: ["*.html", "sub/*.html", "other/*", "folder/*"]'
    served, _ = built(root(tmp_path, included), tmp_path / "x.img")
    assert served == [path for path in INSIDE if path != "/again"]
    assert "good" in sscc("verify", tmp_path / "x.img", "--manifest", tmp_path / "site.yaml").stdout
    built(links, tmp_path / "x.img", *words)
    assert "good" in sscc("verify", tmp_path / "x.img", "--manifest", links, *words).stdout


def test_links_that_lead_nowhere_inside_can_be_left_out(links: Path, tmp_path: Path) -> None:
    served, said = built(links, tmp_path / "x.img", "--symlinks", "skip-outside")
    assert served == INSIDE
    assert "warning: 4 symbolic links are left out: " in said
    served, said = built(root(tmp_path, "symlinks: skip-outside"), tmp_path / "x.img")
    assert served == INSIDE


def test_all_links_can_be_left_out_or_refused(links: Path, tmp_path: Path) -> None:
    served, said = built(root(tmp_path, "symlinks: skip"), tmp_path / "x.img")
    assert (served, said) == (["/index.html", "/other/page.html", "/sub/page.html"], "")
    told = in_lines(sscc("check", root(tmp_path, "symlinks: refuse"), status=1).stderr)
    assert "6 symbolic links can't be followed" in told
    assert "folder -> other (it is a link)" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_folder_that_can_not_be_read_may_be_excluded(site: Path) -> None:
    (site / "secret").mkdir(0)
    assert "secret: can't be read: Permission denied" in in_lines(sscc("check", site, status=1).stderr)
    sscc("check", site, "--exclude", "secret")


def test_a_folder_is_excluded_before_it_is_read(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it can't be: root can read everything."""
    write(site / "secret" / "x")
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).rstrip("/").endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert "secret: can't be read: Permission denied" in in_lines(sscc_here("check", site, status=1).stderr)
    for pattern in ("secret", "secret/**", "secret/", "**/secret", "s*/**"):
        sscc_here("check", site, "--exclude", pattern)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('exclude: ["*.map"]', "write '**/*.map'"),
        ('exclude: ["/sub/a.map"]', "write 'sub/a.map'"),
        ('exclude: ["a.map"]', "write '**/a.map'"),
        ('exclude: ["**/*.bak"]', ""),
        ('include: ["/sub/**", "*.html"]', "like the glob '/sub/**'; write 'sub/**'"),
        ('include: ["**/*.html", "*.css"]', "site.yaml:4:28: warning: nothing in "),
    ],
)
def test_a_glob_like_nothing_is_told_with_what_would_be(site: Path, tmp_path: Path, line: str, said: str) -> None:
    write(site / "sub" / "a.map")
    assert said in (told := in_lines(sscc("check", root(tmp_path, line)).stderr))
    assert bool(told) == bool(said)


def test_verify_names_what_has_changed_and_nothing_else(site: Path, tmp_path: Path) -> None:
    """Not what shares a boundary of several ranges with it."""
    built(site, tmp_path / "x.img")
    write(site / "sub" / "page.html", "other")
    told = in_lines(sscc("verify", tmp_path / "x.img", "--manifest", site, status=1).stderr)
    assert "/sub/page.html: differs" in told
    assert told.count("\n") == 1
