"""What is fetched ahead in the C files is fetched ahead in what was compiled of them.

To gcc a function that does nothing else has no effect, so that it leaves out calls of it, without a word.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ssimage import _sandstorm

from tests.net import needs

CSRC = Path(__file__).resolve().parents[2] / "runtime" / "csrc"


def written() -> set[tuple[str, int]]:
    """File and line of each place."""
    return {
        (path.name, number)
        for path in CSRC.rglob("*.[ch]")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "__builtin_prefetch(" in line
    }


def compiled() -> set[tuple[str, int]]:
    """File and line of each instruction."""
    done = subprocess.run(["objdump", "-dl", _sandstorm.__file__], capture_output=True, text=True, check=True)
    found = set()
    place = ("", 0)
    for line in done.stdout.splitlines():
        if match := re.match(r"(\S+\.[ch]):(\d+)", line):
            place = Path(match[1]).name, int(match[2])
        elif re.search(r"\tprefetch", line):
            found.add(place)
    return found


@needs("objdump")
def test_nothing_that_is_fetched_ahead_was_left_out() -> None:
    assert written() - compiled() == set()
