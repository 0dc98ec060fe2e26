"""The load generator against servers that know nothing of it: what it counts is what happened, and its frames are sound."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from tests.bench.loadgen.loadgen import ADDRESS4, Result, loadgen
from tests.host import build
from tests.net import (
    Namespace,
    Running,
    another_server,
    needs,
    nginx_command,
    run,
    ssrun,
    tcpdump,
    veth_pair,
)
from tests.path.path import Link, emulated

pytestmark = [pytest.mark.alone, needs("nginx", "gcc"), pytest.mark.timeout(120)]

SIZES = (0, 1, 100, 22_528, 300_000)
SHORT = {"seconds": 0.4, "warmup": 0.1, "connections": 20}
ALL = {**SHORT, "check_every": 1}
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
EXPERT_ERROR = str(0x800000)
FIELDS = (
    "ip.src",
    "tcp.flags",
    "tcp.options.sack_le",
    "ip.checksum.status",
    "tcp.checksum.status",
    "_ws.malformed",
    "_ws.expert.severity",
    "http.response.code",
)
KEEPING = "keepalive_requests 1000000;"  # of nginx, which ends a connection after 1,000: in half a second, on a fast machine
LOSSY = Link(delay_ms=2, rate_mbit=200, loss=0.03, duplicate=0.01, reorder=0.05)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    folder.chmod(0o755)
    for size in SIZES:
        (folder / str(size)).write_bytes(Random(size).randbytes(size))
    return folder


@pytest.fixture(scope="module")
def site(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(files, tmp_path_factory.mktemp("image") / "site.img")


def paths(files: Path, *sizes: int) -> list[str]:
    """Each with what its body must be."""
    return [f"/{size}={files / str(size)}" for size in sizes or SIZES]


@contextlib.contextmanager
def nginx(files: Path, server: Namespace, client: Namespace, folder: Path, http: str = "") -> Iterator[Running]:
    server.run("sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
    with another_server(server, client, *nginx_command(files, folder, http=http)) as running:
        yield running


@contextlib.contextmanager
def server_of(kind: str, files: Path, site: Path, folder: Path, link: Link | None = None) -> Iterator[Running]:
    """nginx, or ssrun over one of its ports, behind a veth pair or an emulated link."""
    with (
        veth_pair() if link is None else emulated(link) as (server, client),
        nginx(files, server, client, folder, KEEPING)
        if kind == "nginx"
        else ssrun(site, server, client, "--iface", "srv0", "--backend", kind) as running,
    ):
        yield running


def assert_right(result: Result) -> None:
    """Every answer was compared and right."""
    assert result.errors == {}
    assert result.requests > 50
    assert result.values["checked"] == result.requests
    measured = sum(count for _, count in result.values["histogram_us"])  # all but those that were out at the start
    assert result.requests - ALL["connections"] <= measured <= result.requests + result.values["unfinished"]


@pytest.mark.parametrize("kind", ["nginx", "packet", "afxdp"])
@pytest.mark.parametrize("backend", ["packet", "afxdp"])
def test_all_bodies_are_right(kind: str, backend: str, files: Path, site: Path, tmp_path: Path) -> None:
    with server_of(kind, files, site, tmp_path) as running:
        kept = loadgen(running.client, *paths(files), backend=backend, **ALL)
        closing = loadgen(running.client, *paths(files), backend=backend, close=True, addresses=2, **ALL)
    assert_right(kept)
    assert_right(closing)
    assert kept.values["opened"] == 0  # all before what is measured
    assert abs(closing.values["opened"] - closing.requests) <= 2 * ALL["connections"]
    for result in (kept, closing):
        assert result.values["damaged"] == result.values["unknown"] == 0


def test_measuring_begins_when_all_connections_are_open(files: Path, site: Path, tmp_path: Path) -> None:
    """A handshake takes longer than the warm-up here. Without a warm-up it is measured from the first SYN."""
    link = Link(delay_ms=ALL["warmup"] * 1000)
    with server_of("packet", files, site, tmp_path, link) as running:
        kept = loadgen(running.client, *paths(files, 100), **ALL)
        at_once = loadgen(running.client, *paths(files, 100), **{**ALL, "warmup": 0})
    assert kept.values["opened"] == 0
    assert kept.requests > 0
    assert at_once.values["opened"] == ALL["connections"]


@pytest.mark.parametrize("kind", ["nginx", "packet"])
def test_all_bodies_are_right_over_a_lossy_link(kind: str, files: Path, site: Path, tmp_path: Path) -> None:
    link = Link(**{**vars(LOSSY), "corrupt": 0.01})
    with server_of(kind, files, site, tmp_path, link) as running:
        options = {**ALL, "seconds": 1.0}
        kept = loadgen(running.client, *paths(files), **options)
        closing = loadgen(running.client, *paths(files), close=True, **options)
    for result in (kept, closing):
        assert_right(result)
        assert result.values["out_of_order"] > 0
        assert result.values["duplicates"] > 0
        assert result.values["damaged"] > 0
        assert result.values["retransmitted_requests"] > 0
    assert closing.values["retransmitted_syns"] > 0


def test_a_wrong_body_is_a_mismatch(files: Path, site: Path, tmp_path: Path) -> None:
    """One byte, the last one; a length; and with every second body compared, half of them."""
    body = bytearray((files / "22528").read_bytes())
    body[-1] ^= 1
    (tmp_path / "changed").write_bytes(body)
    (tmp_path / "longer").write_bytes((files / "100").read_bytes() + b"x")
    with server_of("packet", files, site, tmp_path) as running:
        changed = loadgen(running.client, f"/22528={tmp_path / 'changed'}", **ALL)
        longer = loadgen(running.client, f"/100={tmp_path / 'longer'}", **ALL)
        half = loadgen(running.client, f"/22528={tmp_path / 'changed'}", **SHORT, check_every=2)
        missing = loadgen(running.client, "/missing", **ALL)
    for result in (changed, longer):
        assert result.requests == 0
        assert result.errors == {"mismatch": result.values["checked"]}
        assert result.errors["mismatch"] > 50
    assert half.errors["mismatch"] == pytest.approx(half.requests, abs=2)
    assert missing.requests == 0
    assert missing.errors.keys() == {"status"}


def test_the_system_is_read_when_measuring_begins_and_ends(files: Path, site: Path, tmp_path: Path) -> None:
    """The warm-up is not in it, nor a run that ends before."""
    reads: list[int] = []
    with server_of("packet", files, site, tmp_path) as running:
        result = loadgen(running.client, *paths(files, 100), sample=lambda: reads.append(1) or len(reads), **SHORT)
        with pytest.raises(AssertionError, match="not an IPv4 address"):
            loadgen(running.client, "/", **{**SHORT, "server": "nowhere"})
    assert result.samples == (1, 2)
    assert len(result.cores) == len(result.spent) > 0


def test_a_server_that_closes_or_is_not_there(files: Path, tmp_path: Path) -> None:
    with veth_pair() as (server, client):
        absent = loadgen(client, "/100", **SHORT)
        with nginx(files, server, client, tmp_path, "keepalive_requests 5;"):
            closing = loadgen(client, *paths(files, 100), **ALL)
    assert absent.requests == 0
    assert absent.errors.keys() == {"refused"}
    assert_right(closing)
    assert closing.values["opened"] == pytest.approx(closing.requests / 5, rel=0.1, abs=20)


def drop_every_second(server: Namespace, flags: str) -> None:
    """Of the segments that come with these flags, the first one too; the others are counted."""
    match = f"add rule netdev t c tcp flags & {flags}"
    chain = "add chain netdev t c { type filter hook ingress device srv0 priority 0; }; flush chain netdev t c;"
    rules = f"{match} numgen inc mod 2 == 0 drop; {match} counter"
    server.run("nft", f"add table netdev t; {chain} {rules}")


def passed(server: Namespace) -> int:
    """How many of them were not dropped."""
    found = re.search(r"counter packets (\d+)", server.run("nft", "list", "table", "netdev", "t").stdout)
    assert found is not None
    return int(found[1])


@needs("nft")
def test_what_was_lost_is_sent_again(files: Path, tmp_path: Path) -> None:
    """Without that, half of the FINs and half of the SYNs would pass."""
    with veth_pair() as (server, client), nginx(files, server, client, tmp_path, KEEPING):
        drop_every_second(server, "(syn|ack) == syn")
        kept = loadgen(client, *paths(files, 100), **{**ALL, "seconds": 1.5, "warmup": 0})
        syns = passed(server)
        drop_every_second(server, "fin == fin")
        options = {**ALL, "seconds": 1.5, "warmup": 0}
        closing = loadgen(client, *paths(files, 100), close=True, rate=200, **options)
        fins = passed(server)
    assert_right(kept)
    assert_right(closing)
    assert kept.values["retransmitted_syns"] > 0
    assert syns > 12  # of 20
    assert closing.values["retransmitted_fins"] > 0
    assert fins > 0.7 * closing.values["opened"]
    assert closing.values["unknown"] == 0


def test_a_pause_is_in_the_latencies_of_all_that_it_delayed(files: Path, site: Path, tmp_path: Path) -> None:
    """A closed loop would see it once for each connection."""
    rate, pause_s, seconds = 1000, 0.5, 2.0
    with server_of("packet", files, site, tmp_path) as running:

        def pause() -> None:
            time.sleep(1)
            running.tell(signal.SIGSTOP)
            time.sleep(pause_s)
            running.tell(signal.SIGCONT)

        pausing = Thread(target=pause)
        pausing.start()
        result = loadgen(
            running.client,
            *paths(files, 100),
            **{**ALL, "connections": 10, "seconds": seconds},
            rate=rate,
            poisson=True,
        )
        pausing.join()
    assert_right(result)
    assert result.requests == pytest.approx(rate * seconds, rel=0.15)
    late = sum(count for us, count in result.values["histogram_us"] if us > pause_s / 2 * 1e6)
    assert late == pytest.approx(rate * pause_s / 2, rel=0.4)
    assert result.latency_us["max"] > 0.8 * pause_s * 1e6


def fields_of(capture: Path) -> list[dict[str, str]]:
    """What tshark reads in each TCP segment."""
    options = ["-n", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", "tcp", "-T", "fields"]
    options += [word for field in FIELDS for word in ("-e", field)]
    rows = run("tshark", "-r", capture, *options).stdout.splitlines()
    return [dict(zip(FIELDS, row.split("\t"), strict=True)) for row in rows]


@needs("tcpdump", "tshark")
def test_tshark_finds_nothing_wrong(files: Path, site: Path, tmp_path: Path) -> None:
    """In what is sent into a link that loses: handshakes, requests, SACK, FIN and RST."""
    capture, own = tmp_path / "wire.pcap", tmp_path / "own.pcap"
    with (
        server_of("packet", files, site, tmp_path, LOSSY) as running,
        tcpdump(running.client, "cli0", capture, "tcp"),
    ):
        loadgen(running.client, *paths(files), close=True, pcap=own, **ALL)
    for path in (capture, own):
        frames = fields_of(path)
        sent = [frame for frame in frames if frame["ip.src"] == ADDRESS4]
        flags = 0
        for frame in sent:
            assert (frame["ip.checksum.status"], frame["tcp.checksum.status"]) == ("1", "1"), frame
            assert frame["_ws.malformed"] == "", frame
            assert EXPERT_ERROR not in frame["_ws.expert.severity"], frame
            flags |= int(frame["tcp.flags"], 16)
        assert flags == FIN | SYN | RST | PSH | ACK
        assert any(frame["tcp.options.sack_le"] for frame in sent)
        assert any(frame["http.response.code"] == "200" for frame in frames)
