"""Sites that nobody here made, built as they come, served over TAP, and every byte of them fetched and compared.

What they consist of is brought by the clients of its registries: apt-get, npm and pip.

    python tests/e2e/real_sites.py [--folder DIR] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs as a program

from tests.e2e.pages import sha256
from tests.net import run, serving

PIECES = 4  # clients at once
VERSION_CONTROL = {".git", ".svn", ".hg", ".bzr", ".jj"}

# Fetches what it is told on stdin, on one connection, and tells what is not as it should be.
CLIENT = """
import hashlib, http.client, json, sys
host, wanted = json.load(sys.stdin)
link = http.client.HTTPConnection(host, timeout=30)
for path, digest in wanted:
    link.request("GET", path)
    answer = link.getresponse()
    body = answer.read()
    if answer.status != 200 or hashlib.sha256(body).hexdigest() != digest:
        print(answer.status, path)
"""


def served(folder: Path) -> dict[str, Path]:
    """What is to be served of a folder where links out of it are left out: by the tree alone, not by sscc."""
    top = folder.resolve()
    found: dict[str, Path] = {}

    def look(at: Path, known: bool) -> None:
        for path in at.iterdir():
            is_known = known or path.name == ".well-known"
            if path.name in VERSION_CONTROL or (path.name.startswith(".") and not is_known):
                continue
            real = path.resolve()
            if path.is_symlink() and not (real.exists() and real.is_relative_to(top)):
                continue
            if path.is_dir():
                if not path.is_symlink() or real not in path.parents:
                    look(path, is_known)
            else:
                found[path.relative_to(folder).as_posix()] = path

    look(folder, False)
    return found


def wrong(image: Path, files: dict[str, Path]) -> list[str]:
    """Which files an image's server does not send as they are."""
    wanted = [(f"/{quote(os.fsencode(name))}", sha256(path)) for name, path in sorted(files.items())]
    with serving(image, "tap") as running:
        clients = []
        for number in range(PIECES):
            client = running.client.popen(
                sys.executable, "-c", CLIENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert client.stdin is not None
            json.dump((running.hosts[0], wanted[number::PIECES]), client.stdin)
            client.stdin.close()
            client.stdin = None
            clients.append(client)
        told = [client.communicate(timeout=600) for client in clients]
    assert all(client.returncode == 0 for client in clients), told
    return [line for output, _ in told for line in output.splitlines()]


@dataclass
class Outcome:
    """What came of a site."""

    files: int
    size_bytes: int
    image_bytes: int
    build_s: float
    said: str


def check(folder: Path, image: Path, *words: str) -> Outcome:
    """Builds, serves and compares a folder."""
    began_s = time.monotonic()
    command = [sys.executable, "-m", "sscc.cli", "build", "-q", "--no-cache", str(folder), "-o", str(image), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    build_s = time.monotonic() - began_s
    assert done.returncode == 0, done.stderr
    files = served(folder)
    assert files
    assert wrong(image, files) == []
    size_bytes = sum(path.stat().st_size for path in files.values())
    return Outcome(len(files), size_bytes, image.stat().st_size, build_s, done.stderr)


def deb(name: str, below: str) -> Callable[[Path], Path]:
    """A folder of a Debian package that is unpacked."""

    def bring(work: Path) -> Path:
        run("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", name, cwd=work)
        (package,) = work.glob(f"{name}_*.deb")
        run("dpkg-deb", "-x", package, work)
        return work / below

    return bring


def npm(name: str) -> Callable[[Path], Path]:
    """A package as npm packs it."""

    def bring(work: Path) -> Path:
        run("npm", "pack", "--silent", name, cwd=work, timeout_s=300)
        (archive,) = work.glob("*.tgz")
        run("tar", "-xzf", archive, "-C", work)
        return work / "package"

    return bring


def tool(work: Path, name: str) -> Path:
    """A program from PyPI."""
    run(sys.executable, "-m", "venv", work / "venv", timeout_s=120)
    run(work / "venv/bin/pip", "install", "-q", "--disable-pip-version-check", name, timeout_s=300)
    return work / "venv" / "bin" / name


def mkdocs(work: Path) -> Path:
    """A new project, and some pages more."""
    program = tool(work, "mkdocs")
    run(program, "new", work / "project")
    for number in range(200):
        (work / "project" / "docs" / f"page{number}.md").write_text(
            f"# Page {number}\n\nÜber [die erste](page0.md).\n"
        )
    run(program, "build", "-q", cwd=work / "project", timeout_s=300)
    return work / "project" / "site"


LAYOUT = '<!doctype html><meta charset="utf-8"><title>{{ .Title }}</title>{{ .Content }}{{ range .Pages }}<a href="{{ .RelPermalink }}">{{ .Title }}</a>{{ end }}'


def hugo(work: Path) -> Path:
    """A new site with a layout of one line, and some pages."""
    program = tool(work, "hugo")
    site = work / "site"
    run(program, "new", "site", site)
    (site / "layouts" / "_default").mkdir(parents=True, exist_ok=True)
    for name in ("single.html", "list.html"):
        (site / "layouts" / "_default" / name).write_text(LAYOUT)
    (site / "content" / "posts").mkdir(parents=True)
    for number in range(200):
        (site / "content" / "posts" / f"{number}.md").write_text(
            f"---\ntitle: Post {number}\n---\nText of {number}.\n"
        )
    run(program, "--quiet", cwd=site, timeout_s=300)
    return site / "public"


def docusaurus(work: Path) -> Path:
    """The classic template."""
    run(
        "npx",
        "--yes",
        "create-docusaurus@latest",
        "site",
        "classic",
        "--javascript",
        "--skip-install",
        cwd=work,
        timeout_s=300,
    )
    run("npm", "install", "--no-audit", "--no-fund", "--silent", cwd=work / "site", timeout_s=600)
    run("npx", "docusaurus", "build", cwd=work / "site", timeout_s=600)
    return work / "site" / "build"


OUTSIDE = ("--symlinks", "skip-outside")  # Debian links to what other packages have
SITES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "debian-policy": (deb("debian-policy", "usr/share/doc/debian-policy"), OUTSIDE),
    "python3.11-doc": (deb("python3.11-doc", "usr/share/doc/python3.11/html"), OUTSIDE),
    "rust-doc": (deb("rust-doc", "usr/share/doc/rust-doc/html"), OUTSIDE),
    "openjdk-17-doc": (deb("openjdk-17-doc", "usr/share/doc"), OUTSIDE),
    "bootstrap": (npm("bootstrap"), ()),
    "monaco-editor": (npm("monaco-editor"), ()),
    "mkdocs": (mkdocs, ()),
    "hugo": (hugo, ()),
    "docusaurus": (docusaurus, ()),
}


def main() -> None:
    """Each site, and a row of docs/build.md for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(SITES), help=f"of {', '.join(SITES)}")
    parser.add_argument("--folder", type=Path, help="where sites are made, and stay")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.names:
            bring, words = SITES[name]
            work = (arguments.folder or Path(temporary)) / name
            work.mkdir(parents=True)
            made = check(bring(work), work / "site.img", *words)
            sizes = f"{made.files:,} | {made.size_bytes / 1e6:.1f} MB | {made.image_bytes / 1e6:.1f} MB"
            print(f"| {name} | {sizes} | {made.build_s:.1f} s |", made.said.strip().partition("\n")[0], flush=True)


if __name__ == "__main__":
    main()
