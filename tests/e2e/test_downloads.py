"""Download managers that resume and fetch in parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pages import sha256
from tests.host import build
from tests.net import Running, needs, serving

pytestmark = needs("curl", "wget")

BIG_BYTES = 50_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    (made / "big.bin").write_bytes(os.urandom(BIG_BYTES))
    return made


@pytest.fixture(scope="module")
def image(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


@pytest.fixture(scope="module", params=["tap", "packet", "sockets"])
def running(request: pytest.FixtureRequest, image: Path) -> Iterator[Running]:
    with serving(image, request.param) as server:
        yield server


def test_curl_takes_ranges(running: Running, folder: Path, tmp_path: Path) -> None:
    data = (folder / "big.bin").read_bytes()
    for host in running.hosts:
        for text, wanted in (
            ("0-0", data[:1]),
            ("1427-1429", data[1427:1430]),
            ("1000000-30000000", data[1_000_000:30_000_001]),
            ("-12345", data[-12345:]),
            ("49999999-", data[-1:]),
        ):
            got = tmp_path / "got"
            running.client.run("curl", "-gfsS", "-r", text, "-o", got, f"http://{host}/big.bin")
            assert got.read_bytes() == wanted, text


@pytest.mark.parametrize("have", [1, 1428, 12_345_678, BIG_BYTES - 1])
def test_curl_and_wget_resume(running: Running, folder: Path, tmp_path: Path, have: int) -> None:
    data = (folder / "big.bin").read_bytes()
    url = f"http://{running.hosts[0]}/big.bin"
    for tool in (("curl", "-fsS", "-C", "-", "-O"), ("wget", "-q", "--no-proxy", "-c")):
        partial = tmp_path / tool[0] / "big.bin"
        partial.parent.mkdir()
        partial.write_bytes(data[:have])
        # The tools write where they are.
        running.client.run("sh", "-c", f"cd {partial.parent} && {' '.join(tool)} {url}", timeout_s=120)
        assert sha256(partial) == sha256(folder / "big.bin"), tool


@needs("aria2c")
def test_aria2c_fetches_in_sixteen_parts(running: Running, folder: Path, tmp_path: Path) -> None:
    options = ["-q", "-x16", "-s16", "-k1M", "--no-conf=true", "--file-allocation=none", "-d", str(tmp_path)]
    running.client.run("aria2c", *options, f"http://{running.hosts[0]}/big.bin", timeout_s=120)
    assert sha256(tmp_path / "big.bin") == sha256(folder / "big.bin")
