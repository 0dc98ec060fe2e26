"""Commands whose standard streams are closed, full, or can't write every name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "gr\u00fc\u00dfe.html"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / NAME).write_text("hello")
    return tmp_path


def shell(folder: Path, command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`$SSCC` is the command."""
    words = {"SSCC": f"{sys.executable} -m sscc.cli", **env}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=os.environ | words, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams(folder: Path, closed: str) -> None:
    """The image gets nothing of what was to be said."""
    done = shell(folder, f"$SSCC build --no-cache public -o x.img {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert shell(folder, "$SSCC verify x.img").returncode == 0


@pytest.mark.parametrize("words", ["inspect x.img", "inspect --tree x.img"])
def test_ascii(folder: Path, words: str) -> None:
    assert shell(folder, "$SSCC build --no-cache public -o x.img").returncode == 0
    done = shell(folder, f"$SSCC {words}", PYTHONIOENCODING="ascii")
    assert "Traceback" not in done.stderr
    assert "gr\\xfc\\xdfe" in done.stdout + done.stderr


@pytest.mark.parametrize("words", ["schema", "inspect x.img", "check public", "--help"])
def test_full(folder: Path, words: str) -> None:
    """One line, not a traceback."""
    assert shell(folder, "$SSCC build --no-cache public -o x.img").returncode == 0
    done = shell(folder, f"$SSCC {words} > /dev/full")
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("words", ["schema", "inspect --json x.img"])
def test_a_reader_that_goes(folder: Path, words: str) -> None:
    assert shell(folder, "$SSCC build --no-cache public -o x.img").returncode == 0
    done = shell(folder, f"$SSCC {words} | head -c 1; exit ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
