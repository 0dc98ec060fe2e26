"""The access log and the counters say what a client's requests really were, to the request."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.host import build
from tests.net import needs_root, run, serving

pytestmark = [needs_root, pytest.mark.long]
REQUESTS = 100_000
CUT = 50
CLIENT = Path(__file__).with_name("log_client.py")
FORMAT = "$status $bytes_sent $request_completion $request_uri"
MANIFEST = """
version: 1
sites:
  - hosts: [a]
    root: files
    redirects:
      - {from: "/old/*", to: "/new/:splat", status: 308}
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "files").mkdir()
    (folder / "files" / "index.html").write_text("<title>small</title>")
    (folder / "files" / "page.html").write_text("".join(f"<p>{number}</p>\n" for number in range(2000)))
    (folder / "files" / "large.bin").write_bytes(os.urandom(30_000_000))
    (folder / "site.yaml").write_text(MANIFEST)
    return build(folder / "site.yaml", folder / "x.img")


@pytest.mark.parametrize("way", ["tap", "packet", "sockets"])
def test_log_and_counters_are_what_the_client_saw(image: Path, tmp_path: Path, way: str) -> None:
    log = tmp_path / "access.log"
    with serving(image, way, "--access-log", str(log), "--access-log-format", FORMAT) as running:
        client = (sys.executable, CLIENT, running.hosts[0], "80", str(REQUESTS), str(CUT))
        seen = json.loads(running.client.run(*client, timeout_s=300).stdout)
        assert running.stop() == 0
    lines = [line.split() for line in log.read_text().splitlines()]
    numbers = [int(uri.partition("?")[2]) for *_, uri in lines]
    assert sorted(numbers) == list(range(REQUESTS + CUT))
    whole = [line for line in lines if "/large.bin" not in line[3]]
    statuses = Counter(status for status, *_ in whole)
    sizes = Counter({status: sum(int(line[1]) for line in whole if line[0] == status) for status in statuses})
    assert statuses == seen["statuses"]
    assert sizes == seen["bytes"]
    assert all(line[2] == "OK" for line in whole)
    counters = running.stopped["counters"]
    assert counters["http_requests"] == counters["log_records"] == counters["log_lines"] == REQUESTS + CUT
    assert counters.get("log_dropped", 0) == counters.get("log_lines_lost", 0) == 0
    for hundreds in "2345":
        expected = sum(count for status, count in statuses.items() if status[0] == hundreds)
        expected += CUT if hundreds == "2" else 0
        assert counters.get(f"http_status_{hundreds}xx", 0) == expected
    assert run("wc", "-l", log).stdout.split()[0] == str(REQUESTS + CUT)
