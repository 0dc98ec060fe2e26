"""The rule of the house: in runtime/csrc includes go down only, and no two files need each other.

server > {loop > stack, sockets} > {web, kv} > libtcpip > {libeth, frames} > {libnmio, image} > wire
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "runtime" / "csrc"
INCLUDE = re.compile(r'^\s*#\s*include "([^"]+)"', re.MULTILINE)

# What a folder may include beside itself. The files of no folder are the stack, which puts the layers together, and its loop.
BELOW = {
    "wire": (),
    "libnmio": ("wire",),
    "image": ("wire",),
    "frames": ("libnmio", "image", "wire"),
    "libeth": ("libnmio", "wire"),
    "libtcpip": ("libeth", "frames", "libnmio", "image", "wire"),
    "web": ("libtcpip", "frames", "image", "wire"),
    "kv": ("libtcpip", "frames", "image", "wire"),
    "stack": ("web", "kv", "libtcpip", "libeth", "frames", "libnmio", "image", "wire"),
    "loop": ("stack", "libnmio", "image", "wire"),
    "server": ("loop", "stack", "sockets", "libtcpip", "frames", "libnmio", "image", "wire"),
    "sockets": (
        "libtcpip",
        "frames",
        "image",
        "wire",
    ),  # beside the stack and its loop; it gets its application as they do
}
ALLOWED: set[tuple[str, str]] = set()  # of today's violations; it only shrinks


def layer(path: str) -> str:
    """The folder, or for a file of none whether it is the loop's or the stack's."""
    folder, _, name = path.rpartition("/")
    return folder or ("loop" if name.startswith("loop") else "stack")


def includes() -> list[tuple[str, str]]:
    """Who includes whom, by paths from runtime/csrc on."""
    found = []
    for file in sorted(CSRC.rglob("*.[ch]")):
        for name in INCLUDE.findall(file.read_text()):
            beside = (file.parent / name).resolve()
            target = beside if beside.exists() else CSRC / name
            assert target.exists(), f"{file}: there is no {name}"
            found.append((str(file.relative_to(CSRC)), str(target.relative_to(CSRC))))
    return found


def circles(edges: set[tuple[str, str]]) -> list[set[str]]:
    """Sets of more than one that can all be reached from each other."""
    nodes = {node for edge in edges for node in edge}
    reach = {node: {to for origin, to in edges if origin == node} for node in nodes}
    for middle in nodes:
        for node in nodes:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    return [
        circle
        for node in sorted(nodes)
        if len(circle := {other for other in nodes if other in reach[node] and node in reach[other]}) > 1
        and node == min(circle)
    ]


def test_includes_go_down_only() -> None:
    up = {(by, of) for by, of in includes() if layer(of) not in (layer(by), *BELOW[layer(by)])}
    assert up - ALLOWED == set()
    assert ALLOWED - up == set(), "mended: take it off the list"


def test_an_application_knows_one_header_of_tcp() -> None:
    for folder in ("web", "kv"):
        used = {of for by, of in includes() if layer(by) == folder and layer(of) == "libtcpip"}
        assert used <= {"libtcpip/tcpip.h"}, folder


def test_no_file_is_in_a_circle() -> None:
    units = {(by.rpartition(".")[0], of.rpartition(".")[0]) for by, of in includes()}
    assert circles({(by, of) for by, of in units if by != of}) == []


@pytest.mark.parametrize(
    ("edges", "expected"),
    [({("a", "b"), ("b", "c")}, []), ({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")}, [{"a", "b", "c"}])],
)
def test_a_circle_is_found(edges: set[tuple[str, str]], expected: list[set[str]]) -> None:
    assert circles(edges) == expected
