"""Ways to send, over real ports: an arena that is a cache, a copy of each frame, and a profile of the run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.host import build
from tests.net import needs, serving

pytestmark = needs("curl")

FILES = 30
FILE_BYTES = 200_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    for number in range(FILES):
        (made / str(number)).write_bytes(random.Random(number).randbytes(FILE_BYTES))
    return made


@pytest.fixture(scope="module")
def files_image(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(folder, tmp_path_factory.mktemp("image") / "files.img")


@pytest.mark.parametrize("backend", ["tap", "packet", "afxdp"])
@pytest.mark.parametrize(
    "options",
    [("--arena", "4.3M", "--superframe", "1"), ("--arena", "4.3M"), ("--tx", "memcpy"), ("--resident",)],
    ids=["cache", "cache-superframes", "memcpy", "resident"],
)
def test_every_byte_however_it_is_sent(
    folder: Path, files_image: Path, backend: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    profile = tmp_path / "profile.json"
    with serving(files_image, backend, "--profile", str(profile), *options) as running:
        urls = f"http://{running.hosts[0]}/[0-{FILES - 1}]"
        running.client.run("curl", "-sS", "--parallel", "-o", f"{tmp_path}/#1", urls)
        running.stop()
    for number in range(FILES):
        assert (tmp_path / str(number)).read_bytes() == (folder / str(number)).read_bytes()
    counters = running.stopped["counters"]
    assert "arena_stalls" not in counters
    frames = FILES * (FILE_BYTES // 1428)
    whole = "--arena" in options and (backend == "afxdp" or "--superframe" in options)
    assert (counters.get("arena_misses", 0) >= frames) == whole
    assert ("arena_misses" in counters) == ("--arena" in options)
    requests = {each["path"]: each["requests"] for each in json.loads(profile.read_text())["routes"]}
    assert requests == {f"/{number}": 1 for number in range(FILES)}
