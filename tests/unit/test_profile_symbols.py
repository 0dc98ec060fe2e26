"""What profilers and debuggers need is in the extension as it was built."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from ssimage import _sandstorm

from tests.net import needs

EXTENSION = Path(_sandstorm.__file__)
# Each calls others, so that it has a frame of its own, and is called from too many places or too large to be inlined.
FUNCTIONS = ("worker_run", "stack_output", "tcpip_input")


def test_symbols_and_lines_are_there() -> None:
    with EXTENSION.open("rb") as file:
        elf = ELFFile(file)
        names = {symbol.name for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
        assert elf.get_section_by_name(".debug_line") is not None
    assert names >= set(FUNCTIONS)


@needs("objdump")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_set_up_a_frame_pointer(function: str) -> None:
    command = ["objdump", "-d", "--no-show-raw-insn", f"--disassemble={function}", str(EXTENSION)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "x86-64" not in text:
        pytest.skip("instructions of another machine")
    assert re.search(r"mov +%rsp,%rbp", text)
