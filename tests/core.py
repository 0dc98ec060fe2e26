"""Where the C core lies, for the programs that tests build of it."""

from __future__ import annotations

from pathlib import Path

CSRC = Path(__file__).resolve().parents[1] / "runtime" / "csrc"
FOLDERS = ("wire", "image", "frames", "libeth", "libtcpip", "web")  # of the core, and its first application


def core_sources() -> list[Path]:
    """The C files of the core with the web, and the stack that puts them together."""
    folders = (path for part in FOLDERS for path in sorted((CSRC / part).glob("*.c")))
    return [*folders, *(CSRC / f"{name}.c" for name in ("stack", "stack_link", "stack_resume"))]
