"""Wrong manifests and what is said of them: NAME.yaml and NAME.txt in tests/golden/manifests.

    python tests/unit/test_wrong_manifests.py --update

writes what is said now; read each line before it is committed.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs as a program
from tests.commands import sscc_here

FOLDER = Path(__file__).parents[1] / "golden" / "manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
LEAST = 50


def said(name: str) -> str:
    """By `sscc check` where the manifest lies. A wrong one must not be good."""
    with contextlib.chdir(FOLDER):
        return sscc_here("check", f"{name}.yaml", status=1).stderr


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said(name: str) -> None:
    assert said(name) == (FOLDER / f"{name}.txt").read_text()


def test_there_are_many_and_none_is_left_over() -> None:
    assert len(NAMES) >= LEAST
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_editors_are_told_the_same(name: str) -> None:
    """--json has each problem with its place, and nothing goes to stderr."""
    with contextlib.chdir(FOLDER):
        done = sscc_here("check", f"{name}.yaml", "--json", status=1)
    assert done.stderr == ""
    problems = json.loads(done.stdout)["problems"]
    for problem in problems:
        where = ":".join(str(problem[key]) for key in ("file", "line", "column") if problem[key] is not None)
        assert f"{where}: {problem['severity']}: {problem['message']}\n" in (FOLDER / f"{name}.txt").read_text()


def test_no_words_of_a_library() -> None:
    """What is said is of manifests, not of how they are read."""
    everything = "".join(path.read_text() for path in FOLDER.glob("*.txt"))
    for word in ("input should", "dictionary", "instance of", "validation", "NoneType", "unable to", "token"):
        assert word not in everything, word


if __name__ == "__main__":
    assert sys.argv[1:] == ["--update"], __doc__
    for each in NAMES:
        (FOLDER / f"{each}.txt").write_text(said(each))
