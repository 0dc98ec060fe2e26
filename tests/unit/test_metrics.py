"""`ssrun --metrics`: what is counted is what was asked, names are those of docs/metrics.md, and health says what is so.

python tests/unit/test_metrics.py --update writes the list of counters in docs/metrics.md anew.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # so that it runs as a program
from prometheus_client.parser import text_string_to_metric_families
from ssimage.loader import ImageFile
from ssrun.access_log import AccessLog
from ssrun.link import LINK_COUNTERS
from ssrun.losses import LINK_COLUMNS, SOCKET_LOSSES, Losses, read_link
from ssrun.metrics import Metrics, Numbers, Sites

from tests import warm
from tests.host import build
from tests.net import until
from tests.sockets import DEADLINE_S, Command, listening

PAGE = ROOT / "docs" / "metrics.md"
DASHBOARD = ROOT / "runtime" / "grafana" / "sandstorm.json"
NAMES = ROOT / "tests" / "golden" / "names.json"
LOCAL = ("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
MANIFEST = """
version: 1
sites:
  - {hosts: [b.example, a.example], root: files}
  - {hosts: [c.example], root: files}
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "files").mkdir()
    (folder / "files" / "index.html").write_text("<title>small</title>")
    (folder / "site.yaml").write_text(MANIFEST)
    return build(folder / "site.yaml", folder / "x.img")


@pytest.fixture
def running(image: Path) -> Iterator[Command]:
    with listening(image, *LOCAL) as command:
        yield command


class OverUnix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def at(command: Command) -> http.client.HTTPConnection:
    place = command.event["metrics"][0]
    if place.startswith("unix:"):
        return OverUnix(place.removeprefix("unix:"))
    return http.client.HTTPConnection(re.split("[/]+", place)[1], timeout=DEADLINE_S)


def get(command: Command, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = at(command)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def scrape(command: Command) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    status, text = get(command, "/metrics")
    assert status == 200
    return {
        (sample.name.removeprefix("sandstorm_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ask(command: Command, *requests: str) -> int:
    """Their answers' bytes."""
    count = 0
    for request in requests:
        with command.connect() as connection:
            connection.sendall(f"{request}\r\nConnection: close\r\n\r\n".encode())
            count += len(b"".join(iter(lambda c=connection: c.recv(65536), b"")))
    return count


def test_what_is_counted_is_what_was_asked(running: Command) -> None:
    sent = ask(running, *["GET / HTTP/1.1\r\nHost: b.example"] * 3, "GET / HTTP/1.1\r\nHost: a.example")
    ask(running, "GET /no HTTP/1.1\r\nHost: c.example", "GET / HTTP/1.1\r\nHost: d.example", "nonsense")
    assert until(lambda: scrape(running)["connections", ()] == 0)  # the last one ends as it may
    found = scrape(running)

    def answers(site: str, code: str) -> float:
        return found["http_responses_total", (("code", code), ("site", site))]

    assert answers("a.example", "2xx") == 4  # its name is the first of its hosts
    assert answers("c.example", "4xx") == 1
    assert answers("(none)", "4xx") == 2
    assert sum(value for (name, _), value in found.items() if name == "http_responses_total") == 7
    assert found["http_response_acked_bytes_total", (("site", "a.example"),)] == sent
    assert found["http_requests_total", ()] == 7
    assert found["http_response_seconds_count", ()] == 7
    assert found["tcp_opened_total", ()] == 7
    assert found["ready", ()] == 1
    image = running.event["image"]
    assert found["image_info", (("build_id", image["build_id"]), ("path", image["path"]))] == 1


def test_open_metrics_for_who_wants_it(running: Command) -> None:
    status, text = get(running, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert text.endswith("# EOF\n")


def test_other_paths_and_methods(running: Command) -> None:
    assert get(running, "/")[0] == 404
    assert get(running, "/metrics?x")[0] == 200
    assert get(running, "/metrics", "HEAD") == (200, "")
    assert get(running, "/metrics", "POST")[0] == 501


def test_ready_and_not_any_more(running: Command) -> None:
    assert get(running, "/healthz") == (200, "ok\n")
    assert get(running, "/readyz") == (200, "ok\n")
    done = warm.run("ssrun.cli", "drain", running.event.get("name") or name_of(running))
    assert done.returncode == 0, done.stderr
    assert get(running, "/readyz") == (503, "draining\n")
    assert get(running, "/healthz") == (200, "ok\n")
    assert scrape(running)["draining", ()] == 1


def name_of(command: Command) -> str:
    listed = [json.loads(line) for line in warm.run("ssrun.cli", "list", "--json").stdout.splitlines()]
    (name,) = [each["name"] for each in listed if each["pid"] == command.process.pid]
    return str(name)


class Stands:
    """A server whose workers' rounds are these, one after the other."""

    def __init__(self, *rounds: list[int]) -> None:
        self.all = list(rounds)

    @property
    def server(self) -> Stands:
        return self

    def rounds(self) -> list[int]:
        return self.all.pop(0) if len(self.all) > 1 else self.all[0]


@pytest.mark.parametrize(
    ("rounds", "alive"),
    [
        (([1, 1], [2, 2]), True),
        (([1, 1], [2, 1], [2, 2]), True),
        (([1, 1], [2, 1]), False),
        (([1],), False),
    ],
)
def test_a_worker_that_stands_is_told(rounds: tuple[list[int], ...], alive: bool) -> None:
    metrics = Metrics(lambda: "serving", dict)
    assert not metrics.is_alive()
    metrics.watched = Stands(*rounds)  # type: ignore[assignment]
    assert metrics.is_alive() == alive


def test_at_a_unix_socket(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    options = ("--listen", "127.0.0.1:0", "--metrics", f"unix:{path}")
    with listening(image, *options) as command:
        assert get(command, "/readyz")[0] == 200
        assert path.stat().st_mode & 0o777 == 0o660
        done = warm.run("ssrun.cli", image, *options)
        assert (done.returncode, "somebody listens there" in done.stderr) == (1, True)
        command.process.kill()
        command.process.wait()
    assert path.exists()
    with listening(image, *options) as command:
        assert get(command, "/readyz")[0] == 200
    assert not path.exists()


def test_where_it_can_not_be(image: Path, running: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    port = running.event["metrics"][0].rpartition(":")[2].partition("/")[0]
    for where, text in (
        (f"127.0.0.1:{port}", "Address already in use"),
        ("203.0.113.9:9100", "Cannot assign requested address"),
        (f"unix:{tmp_path}/no/such", "No such file"),
        (f"unix:{tmp_path}/file", "it is there and no socket"),
    ):
        done = warm.run("ssrun.cli", image, "--listen", "127.0.0.1:0", "--metrics", where)
        assert done.returncode == 1
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "precious"
    for where in ("9100", "unix:", "example.org:9100"):
        assert warm.run("ssrun.cli", image, "--listen", "127.0.0.1:0", "--metrics", where).returncode == 2


def test_scrapers_that_say_nothing_are_in_nobody_s_way(running: Command) -> None:
    """Neither in that of clients, nor of the end; and after a while not of other scrapers."""
    host, _, port = re.split("[/]+", running.event["metrics"][0])[1].partition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(40)]
    assert ask(running, "GET / HTTP/1.1\r\nHost: a.example") > 0

    def is_answered() -> bool:
        try:
            return get(running, "/readyz")[0] == 200
        except OSError:
            return False

    assert until(is_answered, DEADLINE_S)
    assert running.end() == 0
    for each in silent:
        each.close()


def test_the_end_amid_scrapes(image: Path) -> None:
    """The memory that is counted in goes while others read it."""
    with listening(image, *LOCAL) as command:
        stop = threading.Event()

        def scrape_on() -> None:
            while not stop.is_set():
                try:
                    get(command, "/metrics")
                except (OSError, http.client.HTTPException):
                    return

        threads = [threading.Thread(target=scrape_on) for _ in range(4)]
        for thread in threads:
            thread.start()
        ask(command, *["GET / HTTP/1.1\r\nHost: a.example"] * 20)
        assert command.end() == 0
        stop.set()
        for thread in threads:
            thread.join()


def test_with_a_log_its_counters_are_there_too(image: Path, tmp_path: Path) -> None:
    with listening(image, *LOCAL, "--access-log", str(tmp_path / "log")) as command:
        ask(command, "GET / HTTP/1.1\r\nHost: a.example")
        assert until(lambda: scrape(command)["log_lines_total", ()] == 1)


def test_without_metrics_or_a_log_nothing_is_followed(image: Path) -> None:
    with listening(image, "--listen", "127.0.0.1:0") as command:
        ask(command, "GET / HTTP/1.1\r\nHost: a.example")
        assert command.end(signal.SIGTERM) == 0
    assert "log_records" not in command.stopped["counters"]


def test_the_interface_s_numbers() -> None:
    text = Path("/proc/net/dev").read_text()
    assert set(read_link(text, "lo")) == set(LINK_COLUMNS)
    assert read_link(text, "none") == {}
    line = "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
    assert read_link(line, "eth0")["tx_dropped"] == 12


OTHER = """
version: 1
sites:
  - {hosts: [aaa.example], root: files}
  - {hosts: [c.example], root: files}
  - {hosts: [b.example, a.example], root: files}
"""


def test_sites_keep_their_counts_when_another_image_is_served(image: Path, tmp_path: Path) -> None:
    """Though they have other numbers there; and those that are new are told apart."""
    source = tmp_path / "site"
    (source / "files").mkdir(parents=True)
    (source / "files" / "index.html").write_text("<title>other</title>")
    (source / "site.yaml").write_text(OTHER)
    other = build(source / "site.yaml", tmp_path / "other.img")
    asked = [f"GET / HTTP/1.1\r\nHost: {host}.example" for host in ("a", "b", "c", "aaa")]
    with listening(image, *LOCAL) as command:
        ask(command, *asked)
        done = warm.run("ssrun.cli", "reload", "--name", name_of(command), other)
        assert done.returncode == 0, done.stderr
        assert until(lambda: ("image_info", (("build_id", build_id(other)), ("path", str(other)))) in scrape(command))
        ask(command, *asked)
        found = scrape(command)
    answers = {
        site: found["http_responses_total", (("code", "2xx"), ("site", site))]
        for site in ("a.example", "c.example", "aaa.example")
    }
    assert answers == {"a.example": 4, "c.example": 2, "aaa.example": 1}
    assert found["http_responses_total", (("code", "4xx"), ("site", "(none)"))] == 1


def build_id(image: Path) -> str:
    with ImageFile(image) as opened:
        return opened.build_id.hex()


class Everything:
    """A server that counts all that any does."""

    workers: tuple[()] = ()
    memory_bytes = 0

    class losses(Losses):  # noqa: N801
        def __init__(self) -> None:
            """Of no ports."""

        def link(self) -> dict[str, int]:
            return dict.fromkeys(LINK_COLUMNS, 0)

    @property
    def server(self) -> Everything:
        return self

    def numbers(self, _: Sites) -> Numbers:
        known = json.loads(NAMES.read_text())
        kinds = ("counters of ssrun", "counters of ssrun --listen", "counters of workers", "counters of ports")
        counters = {name: 0 for kind in kinds for name in known[kind] if not name.startswith("capture")}
        return Numbers(counters=counters, losses=dict.fromkeys(SOCKET_LOSSES, 0))


def families() -> dict[str, list[str]]:
    """All that there may be, with the names of their samples."""
    log = AccessLog.counters(type("", (), {"totals": AccessLog.TOTALS, "readers": []})())  # type: ignore[arg-type]
    metrics = Metrics(lambda: "serving", lambda: log | dict.fromkeys(LINK_COUNTERS, 0))
    everything = Everything()
    everything.losses = Everything.losses()  # type: ignore[misc, assignment]
    metrics.watched = everything  # type: ignore[assignment]
    metrics.image = {"path": str(NAMES), "build_id": ""}
    found = {}
    for family in metrics.collect():
        ending = {"counter": ["_total"], "info": ["_info"], "histogram": ["_bucket", "_count", "_sum"]}
        found[family.name] = [family.name + end for end in ending.get(family.type, [""])]
    return found


def is_plain_counter(name: str) -> bool:
    known = json.loads(NAMES.read_text())
    plain = {each for kind, names in known.items() if kind.startswith("counters of") for each in names}
    return name.removeprefix("sandstorm_").removesuffix("_total") in plain


LIST = re.compile(r"(?<=<!-- counters -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL)


def listed() -> str:
    """The counters that are `ssrun counters`' own, in docs/metrics.md."""
    names = [name for names in families().values() for name in names if is_plain_counter(name)]
    return "\n".join(f"- `{name}`" for name in sorted(names))


def test_the_page_names_all_that_there_is_and_nothing_else() -> None:
    page = PAGE.read_text()
    there = {name for names in families().values() for name in names}
    named = set(re.findall(r"`(sandstorm_\w+)", page))
    histograms = {name for name in there if re.search("_(bucket|count|sum)$", name) and "seconds" in name}
    bases = {re.sub("_(bucket|count|sum)$", "", name) for name in histograms}
    assert named == (there - histograms) | bases
    found = LIST.search(page)
    assert found is not None
    assert found[0] == listed(), "python tests/unit/test_metrics.py --update writes it anew"


def test_the_dashboard_asks_for_what_there_is() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    there = {name for names in families().values() for name in names}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [each["query"]["query"] for each in dashboard["templating"]["list"] if isinstance(each["query"], dict)]
    assert len(queries) > 20
    for query in queries:
        names = re.findall(r"sandstorm_\w+", query)
        assert names, query
        assert set(names) <= there, query
    labels = {"instance", "site", "code", "le", "layer", "reason", "why"}
    for query in queries:
        by = re.findall(r"by \(([^)]*)\)", query)
        assert {label.strip() for each in by for label in each.split(",")} <= labels
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    PAGE.write_text(LIST.sub(lambda _: listed(), PAGE.read_text()))
