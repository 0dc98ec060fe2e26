"""The version is said in one place, pyproject.toml, and everything that tells it has it from there."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from sscc.inspect.reader import open_image

from tests.commands import sscc

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("module", ["sscc.cli", "ssrun.cli", "ssrun.kv"])
def test_a_command_says_the_version(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"python -m {module}, version {VERSION}\n"


def test_an_image_says_what_made_it(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("hello")
    sscc("build", "--no-cache", tmp_path / "site", "-o", tmp_path / "x.img")
    with open_image(tmp_path / "x.img") as file:
        assert (file.provenance["tool"], file.provenance["version"]) == ("sscc", VERSION)


def test_the_version_is_in_no_other_file() -> None:
    suffixes = (".py", ".c", ".h", ".toml", ".cfg", ".sh")
    files = [ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / "setup.cfg"]
    files += [
        path for folder in ("compiler", "runtime") for path in (ROOT / folder).rglob("*") if path.suffix in suffixes
    ]
    assert [path.name for path in files if f'"{VERSION}"' in path.read_text()] == ["pyproject.toml"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = next(line for line in changes.splitlines() if line.startswith("## "))
    assert VERSION in newest, "CHANGELOG.md begins with this version's changes"
