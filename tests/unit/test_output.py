"""Where outputs are written to: nothing is replaced but a regular file."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from host import Image, build


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("hello")
    return folder


def refused(source: Path, target: Path) -> str:
    """Builds to where it can't be built; what sscc says."""
    command = [sys.executable, "-m", "sscc.cli", "build", "-q", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_link_is_followed_and_stays(site: Path, tmp_path: Path) -> None:
    release, current = tmp_path / "release-7.img", tmp_path / "current.img"
    release.write_bytes(b"the image before")
    current.symlink_to(release.name)
    build(site, current)
    assert os.readlink(current) == release.name
    assert Image.read(release).error == 0


def test_a_link_to_nothing_is_followed(site: Path, tmp_path: Path) -> None:
    current = tmp_path / "current.img"
    current.symlink_to("new.img")
    build(site, current)
    assert current.is_symlink()
    assert Image.read(tmp_path / "new.img").error == 0


def test_a_pipe_gets_the_image(site: Path, tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    build(site, pipe)
    reader.join(60)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert got == [build(site, tmp_path / "plain.img").read_bytes()]


@pytest.mark.parametrize("kind", ["device", "socket", "folder"])
def test_all_else_is_refused_and_stays(site: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "device":
        if os.geteuid() != 0:
            pytest.skip("only root can make a device")
        os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # like /dev/null
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(target))
    else:
        target.mkdir()
    before = target.stat()
    assert f"is a {kind}" in refused(site, target)
    assert target.stat() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site", "target"], "nothing is left beside it"
