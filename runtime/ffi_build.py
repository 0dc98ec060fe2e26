"""Builds ssrun._sandstorm, the C core as one cffi extension (API mode), used by both halves.

The declarations come from the headers themselves: each is read, and what cffi's parser does not know (includes,
include guards, inline functions, static assertions) is left out. So there is no second description of anything.

Environment:
    SANDSTORM_SANITIZE=1   ASan and UBSan, -O1, assertions on. A stale build is not noticed: force a rebuild.
    SANDSTORM_DEBUG=1      assertions on.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "runtime" / "csrc"

# Read in this order; a header comes after those it needs.
HEADERS = [
    "image/image_format.h",
    "image/image.h",
    "image/frame_build.h",
    "libnmio/nmio.h",
    "stack.h",
    "image/date.h",
    "web/http_parse.h",
    "libtcpip/siphash.h",
]

INLINE_FUNCTION = re.compile(r"^static inline [^;{]*\{.*?^\}\n", re.MULTILINE | re.DOTALL)
STATIC_ASSERT = re.compile(r"^_Static_assert\(.*?\);\n", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
DIRECTIVE = re.compile(r"^#\s*(?!define\s+[A-Z][A-Z0-9_]+\s+[0-9-]).*\n", re.MULTILINE)
NOT_STANDARD = re.compile(r"__attribute__\(\(.*?\)\)")


def declarations(header: Path) -> str:
    """A header's text as cffi's parser takes it."""
    text = COMMENT.sub("", header.read_text())
    for pattern in (INLINE_FUNCTION, STATIC_ASSERT, DIRECTIVE, NOT_STANDARD):
        text = pattern.sub("", text)
    return text


def pkg_config(package: str, option: str) -> list[str] | None:
    """The words that pkg-config prints for an option, or None without the package."""
    try:
        done = subprocess.run(["pkg-config", option, package], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.split()


def sources() -> list[str]:
    """All C files, relative to the project: setuptools wants them so."""
    return sorted(str(path.relative_to(ROOT)) for path in CSRC.rglob("*.c") if not path.name.endswith(".bpf.c"))


def flags() -> tuple[list[str], list[str]]:
    """Compiler's and linker's flags."""
    common = ["-std=gnu11", "-fvisibility=hidden", "-fno-omit-frame-pointer", "-g", "-Wall", "-Wextra"]
    if os.environ.get("SANDSTORM_SANITIZE"):
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        return [*common, "-O1", "-UNDEBUG", *sanitize], sanitize
    debug = ["-UNDEBUG"] if os.environ.get("SANDSTORM_DEBUG") else ["-DNDEBUG"]
    return [*common, "-O3", "-flto", *debug], ["-O3", "-flto"]


def make() -> FFI:
    """The builder that setuptools asks for."""
    builder = FFI()
    for name in HEADERS:
        builder.cdef(declarations(CSRC / name))
    compile_flags, link_flags = flags()
    builder.set_source(
        "ssrun._sandstorm",
        "".join(f'#include "{name}"\n' for name in HEADERS),
        sources=sources(),
        include_dirs=[str(CSRC.relative_to(ROOT))],
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
    )
    return builder


ffi = make()
