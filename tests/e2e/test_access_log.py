"""The access log and the counters say what a client's requests really were, to the request."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.host import build
from tests.net import Running, needs, needs_root, processes, run, serving, until

pytestmark = [needs_root, needs("curl"), pytest.mark.long]
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


def scraped(path: Path) -> dict[str, float]:
    """Once all answers have ended."""
    assert until(lambda: once(path)["log_records_total"] == REQUESTS + CUT)
    return once(path)


def once(path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    text = run("curl", "-sS", "--unix-socket", path, "http://x/metrics").stdout
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if not line.startswith("#"):
            found[name.removeprefix("sandstorm_")] = float(value)
    return found


@pytest.mark.parametrize("way", ["tap", "packet", "sockets"])
def test_log_and_counters_are_what_the_client_saw(image: Path, tmp_path: Path, way: str) -> None:
    log = tmp_path / "access.log"
    options = ("--access-log", str(log), "--access-log-format", FORMAT, "--metrics", f"unix:{tmp_path}/metrics")
    with serving(image, way, *options) as running:
        client = (sys.executable, CLIENT, running.hosts[0], "80", str(REQUESTS), str(CUT))
        seen = json.loads(running.client.run(*client, timeout_s=300).stdout)
        metrics = scraped(tmp_path / "metrics")
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
    assert int(run("wc", "-l", log).stdout.split()[0]) == REQUESTS + CUT
    expected = {f"{code[0]}xx": 0 for code in statuses} | {"2xx": CUT}
    for code, count in statuses.items():
        expected[f"{code[0]}xx"] += count
    assert {code: counters[f"http_status_{code}"] for code in expected} == expected
    agree(metrics, expected, sum(seen["bytes"].values()), way)


def agree(metrics: dict[str, float], answers: dict[str, int], whole_bytes: int, way: str) -> None:
    """answers: by hundreds of their status."""
    assert {code: metrics[f'http_responses_total{{code="{code}",site="a"}}'] for code in answers} == answers
    assert metrics["http_requests_total"] == REQUESTS + CUT
    assert metrics["http_response_seconds_count"] == REQUESTS
    assert metrics['http_response_acked_bytes_total{site="a"}'] >= whole_bytes
    assert ('kernel_lost_total{why="packet_drops"}' in metrics) == (way == "packet")
    assert (metrics.get("link_rx_packets_total", 0) > 0) == (way != "sockets")


@pytest.mark.parametrize("way", ["tap", "packet"])
def test_metrics_go_on_when_the_server_is_another(image: Path, tmp_path: Path, way: str) -> None:
    """Nothing is counted twice, and nothing goes back."""
    with serving(image, way, "--metrics", f"unix:{tmp_path}/metrics") as running:
        shown: list[float] = []
        for number in range(1, 4):
            assert running.client.run("curl", "-sS", "-m", "9", "-H", "Host: a", f"http://{running.hosts[0]}/").stdout
            assert until(lambda number=number: once(tmp_path / "metrics")["log_records_total"] == number)
            shown += kill_server(running, tmp_path / "metrics")
        found = once(tmp_path / "metrics")
        assert running.stop() == 0
    assert shown == sorted(shown)
    assert found["http_requests_total"] == found["log_records_total"] == found["http_response_seconds_count"] == 3
    assert found['http_responses_total{code="2xx",site="a"}'] == 3


def kill_server(running: Running, path: Path) -> list[float]:
    """What is shown until there is another."""
    _, server = processes(running.process.pid)
    os.kill(server, signal.SIGKILL)
    shown: list[float] = []

    def is_another() -> bool:
        shown.append(once(path)["log_records_total"])
        return len(pids := processes(running.process.pid)) == 2 and pids[1] != server

    assert until(is_another)
    return shown
