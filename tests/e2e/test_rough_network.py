"""Real clients behind a network that loses, narrows and misleads: every byte arrives, and no rule is broken on the way.

By default each client and each handicap is tried once; SANDSTORM_LONG=1 tries each with each, over every port.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.pages import CHECK_PAGE, chromium, compare, files_below, sha256
from tests.host import build
from tests.net import (
    DEVICES,
    SERVER4,
    SERVER6,
    Namespace,
    Running,
    namespace,
    needs,
    run,
    serving,
    ssrun,
    tcpdump,
)

LONG = bool(os.environ.get("SANDSTORM_LONG"))
pytestmark = [
    needs("nft", "curl", "wget", "aria2c", "chromium", "tcpdump", "tshark"),
    pytest.mark.timeout(3600 if LONG else 900),
]

LOSS_PERCENT = 5
# With a 4 KB buffer behind AF_XDP's frames a client's window holds one segment, as half of its largest window is more than what
# is left: each loss then waits for a tail loss probe, 0.2 s, and Chromium has six connections.
CHROMIUM_S = 1500


def lose(client: Namespace, device: str) -> None:
    """From now on the device loses packets, each way."""
    drop = f"numgen random mod 100 < {LOSS_PERCENT} drop"
    for hook in ("ingress", "egress"):
        client.run("nft", f"add table netdev {hook}; add chain netdev {hook} lossy {{ type filter hook {hook} device {device} priority 0; }}; add rule netdev {hook} lossy {drop}")  # fmt: skip


def sysctl(name: str, value: str) -> Callable[[Namespace, str], None]:
    return lambda client, _: client.run("sysctl", "-qw", f"net.ipv4.{name}={value}") and None


def narrow_route(client: Namespace, device: str) -> None:
    """The client tells a smaller MSS, as its route is narrow."""
    for family, mtu in (("-4", "576"), ("-6", "1280")):
        routes = json.loads(client.run("ip", "-j", family, "route", "show", "dev", device, "scope", "link" if family == "-4" else "global").stdout)  # fmt: skip
        for route in routes:
            if not route["dst"].startswith(("fe80", "ff00", "multicast")):
                same = ["proto", route["protocol"], *(["metric", str(route["metric"])] if "metric" in route else [])]
                client.ip(family, "route", "change", route["dst"], "dev", device, *same, "mtu", mtu)


HANDICAPS: dict[str, Callable[[Namespace, str], None] | None] = {
    "all options": None,
    "no SACK": sysctl("tcp_sack", "0"),
    "no timestamps": sysctl("tcp_timestamps", "0"),
    "no window scaling": sysctl("tcp_window_scaling", "0"),
    "4 KB buffer": sysctl("tcp_rmem", "4096 4096 4096"),
    "narrow route": narrow_route,
}


def urls(running: Running, site: Path, family: int) -> list[tuple[str, str]]:
    host = running.hosts[family]
    return [(f"http://{host}/{quote(name)}", name) for name in files_below(site)]


def with_curl(running: Running, site: Path, got: Path, family: int) -> None:
    config = got.with_suffix(".curl")
    config.write_text(
        "".join(f'url = "{url}"\noutput = "{got}/{name}"\n' for url, name in urls(running, site, family))
    )
    options = ["--globoff", "--fail-early", "-fsS", "--create-dirs", "--parallel", "--parallel-max", "32"]
    running.client.run("curl", *options, "-K", config, timeout_s=600)
    compare(site, got)


def with_wget(running: Running, site: Path, got: Path, family: int) -> None:
    """Eight of them, as one fetches file after file."""
    everything = urls(running, site, family)
    jobs = []
    for number in range(8):
        listing = got.with_suffix(f".wget{number}")
        listing.write_text("".join(f"{url}\n" for url, _ in everything[number::8]))
        options = ["-q", "--no-proxy", "-x", "-nH", "--tries=1", "--timeout=60", "-P", str(got), "-i", str(listing)]
        jobs.append(running.client.popen("wget", *options))
    assert [job.wait(600) for job in jobs] == [0] * 8
    compare(site, got)


def with_aria2c(running: Running, site: Path, got: Path, family: int) -> None:
    listing = got.with_suffix(".aria2c")
    listing.write_text("".join(f"{url}\n out={name}\n" for url, name in urls(running, site, family)))
    options = [
        "--quiet",
        "--no-conf",
        "--no-proxy=*",
        "-j16",
        "--max-tries=1",
        "--allow-overwrite=true",
        "-d",
        str(got),
    ]
    running.client.run("aria2c", *options, "-i", listing, timeout_s=600)
    compare(site, got)


def with_chromium(running: Running, site: Path, got: Path, family: int) -> None:
    got.mkdir()
    dom = chromium(running, f"http://{running.hosts[family]}/{CHECK_PAGE}", got, timeout_s=CHROMIUM_S)
    assert f"{len(files_below(site)) - 1} files, wrong: none" in dom


CLIENTS = {"curl": with_curl, "wget": with_wget, "aria2c": with_aria2c, "chromium": with_chromium}
if LONG:
    CASES = list(itertools.product(CLIENTS, HANDICAPS, DEVICES))
else:
    CASES = [
        ("curl", "all options", "afxdp"),
        ("curl", "no SACK", "tap"),
        ("wget", "no timestamps", "packet"),
        ("aria2c", "no window scaling", "tap"),
        ("curl", "4 KB buffer", "packet"),
        ("curl", "narrow route", "tap"),
        ("chromium", "all options", "packet"),
    ]


@pytest.mark.parametrize(("client", "handicap", "backend"), CASES)
def test_the_whole_site_with_loss(
    site: Path,
    site_image: Path,
    tmp_path: Path,
    client: str,
    handicap: str,
    backend: str,
) -> None:
    with serving(site_image, backend) as running:
        hamper = HANDICAPS[handicap]
        if hamper is not None:
            hamper(running.client, DEVICES[backend])
        lose(running.client, DEVICES[backend])
        for family in (0, 1) if LONG else (len(client + handicap) % 2,):
            CLIENTS[client](running, site, tmp_path / f"got{family}", family)
        running.stop()
    counters = running.stopped["counters"]
    assert counters["tcp_retransmit_segments"] > 0
    assert counters.get("tcp_timeout_retransmit") is None


def window_overruns(capture: Path) -> tuple[int, list[str]]:
    """Data segments of the server in a capture, and those that go beyond what the client had said until then."""
    fields = ("tcp.stream", "tcp.srcport", "tcp.seq", "tcp.len", "tcp.ack", "tcp.window_size", "tcp.flags.syn")
    options = [word for field in fields for word in ("-e", field)]
    rows = run(
        "tshark", "-n", "-r", capture, "-Y", "tcp", "-T", "fields", *options, timeout_s=300
    ).stdout.splitlines()
    edge: dict[str, int] = {}
    segments, wrong = 0, []
    for row in rows:
        stream, port, seq, length, ack, window, syn = row.split("\t")
        if port == "80":
            segments += int(length) > 0
            if int(length) > 0 and int(seq) + int(length) > edge.get(stream, 0):
                wrong.append(row)
        elif syn not in {"1", "True"}:
            edge[stream] = max(edge.get(stream, 0), int(ack) + int(window))
    return segments, wrong


@pytest.mark.parametrize("handicap", ["4 KB buffer", "no SACK", "narrow route"])
def test_nothing_goes_beyond_the_window_and_no_checksum_is_bad(
    site: Path,
    site_image: Path,
    tmp_path: Path,
    handicap: str,
) -> None:
    capture = tmp_path / "capture.pcap"
    hamper = HANDICAPS[handicap]
    assert hamper is not None
    names = sorted(files_below(site))[:150]
    # On the server's side: what it sent, and what reached it.
    with (
        serving(site_image, "packet", "--superframe", "1") as running,
        tcpdump(running.server, "srv0", capture, "port 80", "-s", "120"),
    ):
        hamper(running.client, "cli0")
        lose(running.client, "cli0")
        config = tmp_path / "curl.conf"
        config.write_text("".join(f'url = "http://{running.hosts[0]}/{quote(name)}"\noutput = "{tmp_path}/{i}"\n' for i, name in enumerate(names)))  # fmt: skip
        running.client.run("curl", "-gfsS", "--parallel", "-K", config, timeout_s=300)
    segments, wrong = window_overruns(capture)
    assert segments > len(names)
    assert wrong == []
    bad = "(tcp.checksum.status == 0 && tcp.srcport == 80) || ip.checksum.status == 0"
    checks = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    assert run("tshark", "-n", "-r", capture, *checks, "-Y", bad, timeout_s=300).stdout == ""


@contextlib.contextmanager
def behind_a_router(mtu: int) -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """Server, router and client; the router's link to the client is narrow, and the client's end does not know."""
    with namespace("server") as server, namespace("router") as router, namespace("client") as client:
        server.ip("link", "add", "srv0", "type", "veth", "peer", "name", "r0", "netns", router.name)
        client.ip("link", "add", "cli0", "type", "veth", "peer", "name", "r1", "netns", router.name)
        places = [
            (server, "srv0", SERVER4, SERVER6),
            (router, "r0", "10.213.0.254", "fd57:1::fe"),
            (router, "r1", "10.214.0.254", "fd57:2::fe"),
            (client, "cli0", "10.214.0.2", "fd57:2::2"),
        ]
        for space, device, v4, v6 in places:
            space.ip("addr", "add", f"{v4}/24", "dev", device)
            space.ip("addr", "add", f"{v6}/64", "dev", device, "nodad")
            space.ip("link", "set", device, "up")
        router.ip("link", "set", "r1", "mtu", str(mtu))
        if mtu < 1280:
            router.ip("addr", "flush", "dev", "r1", "scope", "link")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for space, v4, v6 in ((server, "10.213.0.254", "fd57:1::fe"), (client, "10.214.0.254", "fd57:2::fe")):
            space.ip("route", "add", "default", "via", v4)
            space.ip("-6", "route", "add", "default", "via", v6)
        yield server, router, client


@pytest.mark.parametrize("backend", ["packet", "afxdp"])
@pytest.mark.parametrize(("mtu", "family"), [(576, 0), (1280, 0), (1280, 1)])
@pytest.mark.parametrize("silent", [False, True], ids=["icmp", "black hole"])
def test_a_narrow_link_in_the_path(tmp_path: Path, backend: str, mtu: int, family: int, silent: bool) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(300_000))
    image = build(folder, tmp_path / "site.img")
    with (
        behind_a_router(mtu) as (server, router, client),
        ssrun(image, server, client, "--iface", "srv0", "--backend", backend) as running,
    ):
        if silent:
            rules = ["icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"]
            chain = "add table inet quiet; add chain inet quiet out { type filter hook output priority 0; }"
            router.run("nft", "; ".join([chain, *(f"add rule inet quiet out {rule}" for rule in rules)]))
        url = f"http://{running.hosts[family]}/file"
        for number in range(2):
            client.run("curl", "-gfsS", "-o", tmp_path / f"got{number}", url, timeout_s=120)
            assert sha256(tmp_path / f"got{number}") == sha256(folder / "file")
        running.stop()
    counters = running.stopped["counters"]
    if silent:
        assert counters["pmtu_black_holes"] >= 1
    else:
        assert counters["pmtu_learned"] == 1  # and the second connection knew
