"""The stack over the netmap port, on a device in memory that bears no mistake: every byte, in every way of sending."""

from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bench.memory import FLAGS, build_image, paths
from tests.core import CSRC, core_sources

HERE = Path(__file__).resolve().parent
BENCH = HERE.parent / "bench"

SANITIZE = ["-O1", "-UNDEBUG", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
FILES = 20
SLOTS = 800  # of the image, at most
RING = 256


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("netmap") / "serve"
    ports = ("region.c", "netmap.c", "netmap_external.c", "netmap_filter.c")
    core = [*core_sources(), *(CSRC / "libnmio" / name for name in ports)]
    own = [
        HERE / "serve.c",
        HERE / "device.c",
        *(BENCH / name for name in ("arguments.c", "clients.c", "image_file.c")),
    ]
    includes = [f"-I{CSRC}", f"-I{BENCH}", f"-I{HERE}"]
    subprocess.run(["gcc", *FLAGS, *SANITIZE, *includes, *map(str, own + core), "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_image(tmp_path_factory.mktemp("image"), FILES)


def run(program: Path, image: Path, requests: int = 150, **options: Any) -> dict[str, Any]:
    words = [f"{name}={value}" for name, value in options.items()]
    command = [program, *words, image, f"{requests}:{paths(0, FILES)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def served(result: dict[str, Any], requests: int = 150) -> dict[str, Any]:
    """Everything was right."""
    assert result["violation"] == ""
    assert result["violations"] == result["mismatches"] == result["wrong"] == result["dropped"] == 0
    assert result["counters"]["arena_stalls"] == 0
    assert result["requests"] == requests
    return result


@pytest.mark.parametrize("delay", [0, 25])
@pytest.mark.parametrize(
    ("options", "resident"),
    [
        ({"extra": SLOTS + RING}, True),
        ({"external": 1, "buffers": 100}, True),  # too few of the module's own
        ({"extra": RING + 1}, False),
        ({"extra": RING + 100, "connections": 7}, False),
        ({"extra_max": RING + 20}, False),  # asks for more than there is
        ({"buffers": 2 + 5 * RING + 20, "host": 1}, False),  # takes all there are
        ({"copy": 1, "offsets": 0}, False),
        ({"extra": SLOTS + 32, "slots": 32}, True),  # always full
    ],
    ids=[
        "resident",
        "external",
        "cache",
        "large-cache",
        "partial-grant",
        "all-of-a-small-pool",
        "copy",
        "small-ring",
    ],
)
@pytest.mark.parametrize("host", [0, 1], ids=["alone", "host-rings"])
def test_bytes_are_exact(
    program: Path, image: Path, options: dict[str, int], resident: bool, delay: int, host: int
) -> None:
    result = served(run(program, image, **{"delay": delay, "host": host} | options))
    assert result["resident"] is resident
    assert (result["counters"]["arena_misses"] > 0) is (not resident and not options.get("copy"))
    if host:
        assert 0 < result["to_kernel"] <= result["to_kernel_fed"]
        assert 0 < result["from_kernel"] <= result["from_kernel_fed"]


@pytest.mark.parametrize("options", [{}, {"copy": 1, "offsets": 0}], ids=["resident", "copy"])
def test_all_rings_are_heard(program: Path, image: Path, options: dict[str, int]) -> None:
    served(run(program, image, rings=4, delay=2, host=1, **options))


def test_one_pair_of_rings(program: Path, image: Path) -> None:
    served(run(program, image, rings=4, ring=2, delay=2, own=1))
    served(run(program, image, rings=4, ring=2, delay=2, own=1, external=1))


def test_an_address_of_its_own_beside_the_kernels(program: Path, image: Path) -> None:
    result = served(run(program, image, host=1, own=1))
    assert result["to_kernel"] > 0


def test_it_closes_while_frames_never_leave(program: Path, image: Path) -> None:
    """Their buffers stay where they are, and nothing is lost or there twice."""
    result = run(program, image, 600, delay=2**32 - 1, **{"break": "nothing"})
    assert result["violation"] == ""


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"extra_max": 0}, errno.ENOBUFS),
        ({"extra_max": RING}, errno.ENOBUFS),
        ({"buffers": 2 * RING}, errno.ENOMEM),
        ({"offsets": 0}, errno.EOPNOTSUPP),
        ({"external": 2}, errno.EOPNOTSUPP),
        ({"buffer_bytes": 4096}, errno.EMSGSIZE),
        ({"buffer_bytes": 1024, "copy": 1}, errno.EMSGSIZE),
        ({"ring": 7}, errno.EINVAL),
    ],
    ids=[
        "no-buffers",
        "too-few",
        "not-for-the-rings",
        "no-offsets",
        "no-external-memory",
        "other-size",
        "too-small",
        "no-such-ring",
    ],
)
def test_what_cant_be(program: Path, image: Path, options: dict[str, int], error: int) -> None:
    result = run(program, image, **options)
    assert result["error"] == error
    assert result["violation"] == ""


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("change", "changed in flight"),
        ("slot", "which is the kernel's"),
        ("sealed", "that is the kernel's"),
        ("head", "head"),
        ("index", "which there isn't"),
        ("foreign", "is in two slots at once"),
        ("twice", "is in two slots at once"),
        ("flag", "no flag says so"),
        ("long", "which its buffer has not"),
        ("offset", "an offset"),
        ("receive", "which is the kernel's"),
        ("lost", "at the end buffer"),
    ],
)
def test_the_device_notices(program: Path, image: Path, rule: str, says: str) -> None:
    """Were the port to do it, the tests above would fail: here the test itself does."""
    result = run(program, image, 600, delay=20, **{"break": rule})
    assert result["violations"] > 0
    assert says in result["violation"]
