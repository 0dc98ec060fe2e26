"""`ssrun --backend netmap`: what it says where that can't be. That it serves is shown in tests/vm, where netmap is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.memory import build_image

SSRUN = Path(sys.executable).parent / "ssrun"
DEVICE = Path("/dev/netmap")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_image(tmp_path_factory.mktemp("image"), 2)


@pytest.fixture
def veth() -> Iterator[str]:
    add = ["ip", "link", "add", "nmtest0", "type", "veth", "peer", "name", "nmtest1"]
    if subprocess.run(add, capture_output=True, check=False).returncode != 0:
        pytest.skip("no veth can be made; needs root")
    try:
        for command in ("link set nmtest0 up", "link set nmtest1 up", "addr add 198.51.100.1/24 dev nmtest0"):
            subprocess.run(["ip", *command.split()], check=True)
        yield "nmtest0"
    finally:
        subprocess.run(["ip", "link", "del", "nmtest0"], check=True)


def fails(image: Path, *options: str) -> str:
    done = subprocess.run([SSRUN, image, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ssrun: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def offloads(name: str) -> str:
    return subprocess.run(["ethtool", "-k", name], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(DEVICE.exists(), reason="there is a /dev/netmap")
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own-address"])
def test_without_the_module(image: Path, veth: str, own: bool) -> None:
    before = offloads(veth)
    address = ["--address", "198.51.100.10/24"] if own else []
    assert "modprobe netmap" in fails(image, "--iface", veth, "--backend", "netmap", *address)
    assert offloads(veth) == before  # undone


@pytest.mark.skipif(DEVICE.exists(), reason="there is a /dev/netmap")
def test_a_port_without_the_module(image: Path) -> None:
    assert "modprobe netmap" in fails(image, "--iface", "netmap:vale0:a", "--address", "198.51.100.10")


@pytest.mark.skipif(not DEVICE.exists(), reason="no /dev/netmap: the netmap module is not loaded")
def test_a_name_that_netmap_does_not_know(image: Path) -> None:
    assert "no port of that name" in fails(image, "--iface", "netmap:nothing", "--address", "198.51.100.10")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--iface", "netmap:vale0:a"], "needs --address"),
        (["--iface", "netmap:lo", "--address", "198.51.100.10"], "is an interface"),
        (["--iface", "netmap:", "--address", "198.51.100.10"], "no name"),
        (["--iface", "netmap:v:a", "--address", "198.51.100.10", "--workers", "2"], "leave --workers out"),
        (["--iface", "netmap:v:a", "--address", "198.51.100.10", "--backend", "packet"], "leave --backend out"),
    ],
)
def test_wrong_use(image: Path, options: list[str], says: str) -> None:
    assert says in fails(image, *options)


def test_several_workers_need_an_address_of_their_own(image: Path, veth: str) -> None:
    assert "leave --workers out" in fails(image, "--iface", veth, "--backend", "netmap", "--workers", "2")
