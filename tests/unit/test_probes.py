"""The static probes of the extension are those that docs/profiling.md lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from ssimage import _sandstorm

ROOT = Path(__file__).resolve().parents[2]


def built() -> set[tuple[str, int]]:
    """Name and number of arguments of each, by the notes."""
    found = set()
    with Path(_sandstorm.__file__).open("rb") as file:
        section = ELFFile(file).get_section_by_name(".note.stapsdt")
        if section is None:
            pytest.skip("built without systemtap-sdt-dev")
        for note in section.iter_notes():
            desc = note["n_descdata"] if "n_descdata" in note else note["n_desc"]
            data = desc if isinstance(desc, bytes) else desc.encode("latin-1")
            provider, name, arguments = data[24:].split(b"\0")[:3]
            assert provider == b"sandstorm"
            assert data[16:24] == bytes(8), "no semaphore"
            found.add((name.decode(), len(arguments.split())))
    return found


def test_the_probes_are_those_that_are_documented() -> None:
    text = (ROOT / "docs" / "profiling.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    assert built() == {(name, len(arguments.split(","))) for name, arguments in rows}
