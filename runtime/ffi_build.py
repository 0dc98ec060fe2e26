"""Builds ssimage._sandstorm, the C core as one cffi extension (API mode), used by both halves.

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
import sys
import sysconfig
import tempfile
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "runtime" / "csrc"

# Read in this order; a header comes after those it needs.
HEADERS = [
    "image/image_format.h",
    "image/image.h",
    "image/frame_build.h",
    "image/file_build.h",
    "image/route_build.h",
    "libnmio/nmio.h",
    "libnmio/region.h",
    "libnmio/memory.h",
    "libnmio/tap.h",
    "libnmio/packet.h",
    "libnmio/filter.h",
    "libnmio/afxdp.h",
    "libnmio/pcap.h",
    "libnmio/fault.h",
    "libnmio/capture.h",
    "libnmio/trace.h",
    "libnmio/netmap.h",
    "wire/ip_family.h",
    "libeth/eth_config.h",
    "libtcpip/tcpip_config.h",
    "libtcpip/app.h",
    "libtcpip/swap.h",
    "libtcpip/records.h",
    "stack.h",
    "wake.h",
    "loop.h",
    "server/swaps.h",
    "server/orders.h",
    "server/server.h",
    "sockets/sockets_config.h",
    "sockets/sockets.h",
    "image/date.h",
    "web/http_parse.h",
    "web/head_memo.h",
    "web/web.h",
    "web/site_places.h",
    "web/followed.h",
    "web/access_line.h",
    "kv/kv_store.h",
    "kv/kv.h",
    "wire/siphash.h",
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
    common = [
        "-std=gnu11",
        "-ffp-contract=off",
        "-fvisibility=hidden",
        "-fno-omit-frame-pointer",
        "-g",
        "-Wall",
        "-Wextra",
    ]
    if os.environ.get("SANDSTORM_SANITIZE"):
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        return [*common, "-O1", "-UNDEBUG", *sanitize], sanitize
    debug = ["-UNDEBUG"] if os.environ.get("SANDSTORM_DEBUG") else ["-DNDEBUG"]
    return [*common, "-O3", "-flto", *debug], ["-O3", "-flto"]


def filter_object() -> bytes | None:
    """The BPF programs, compiled; None without clang. Such that don't compile are an error."""
    source = CSRC / "libnmio" / "filter.bpf.c"
    include = f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "filter.bpf.o"
        command = ["clang", "-O2", "-g", "-target", "bpf", include, "-Wall", "-Werror", "-c", str(source)]
        try:
            done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True, check=False)
        except OSError:
            return None
        if done.returncode != 0:
            raise SystemExit(f"sandstorm: {source.name} does not compile:\n{done.stderr}")
        return target.read_bytes()


def afxdp() -> tuple[str, list[str], list[str]]:
    """What BPF and AF_XDP need: programs as C text, macros, libraries. Empty where something for it is missing."""
    missing = [name for name in ("libxdp", "libbpf") if pkg_config(name, "--libs") is None]
    program = filter_object() if not missing else None
    if program is None:
        lacking = ", ".join(missing) or "clang"
        sys.stderr.write(f"sandstorm: built without AF_XDP ({lacking}); install libxdp-dev, libbpf-dev and clang\n")
        return "", [], []
    words = ",".join(str(byte) for byte in program)
    text = f"const unsigned char filter_object[] __attribute__((aligned(8))) = {{{words}}};\n"
    return (
        text + "const unsigned int filter_object_bytes = sizeof(filter_object);\n",
        ["-DSANDSTORM_AFXDP"],
        [
            "xdp",
            "bpf",
        ],
    )


def make() -> FFI:
    """The builder that setuptools asks for."""
    builder = FFI()
    for name in HEADERS:
        builder.cdef(declarations(CSRC / name))
    compile_flags, link_flags = flags()
    program, macros, libraries = afxdp()
    builder.set_source(
        "ssimage._sandstorm",
        "".join(f'#include "{name}"\n' for name in HEADERS) + program,
        sources=sources(),
        depends=[str(path.relative_to(ROOT)) for path in sorted(CSRC.rglob("*.h"))],
        include_dirs=[str(CSRC.relative_to(ROOT))],
        extra_compile_args=[*compile_flags, *macros],
        extra_link_args=link_flags,
        libraries=libraries,
    )
    return builder


ffi = make()
