"""ssrun as an operator meets it: what it shares with the kernel, what it leaves behind, how it ends."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from tests.host import build
from tests.net import (
    BACKENDS,
    CLIENT4,
    DEVICES,
    SEND_FRAME,
    SERVER4,
    Namespace,
    Running,
    namespace,
    needs,
    serving,
    ssrun_command,
    until,
    veth_pair,
)

pytestmark = needs("curl", "ping")

OWN = ("--address", "10.213.0.77/24", "--address", "fd57:1::77/64")


def ping(client: Namespace, host: str) -> bool:
    return client.run("ping", "-c", "2", "-i", "0.2", "-W", "2", host, check=False).returncode == 0


@pytest.mark.parametrize("backend", ["packet", "afxdp"])
def test_shared_mode_leaves_the_rest_to_the_kernel(image: Path, backend: str) -> None:
    with serving(image, backend) as running:
        assert running.event["mode"] == "shared"
        assert ping(running.client, SERVER4)
        assert "small" in running.client.run("curl", "-sS", f"http://{SERVER4}/").stdout
        assert kernel_answers(running, "8022")


def tcp_segments_in(space: Namespace) -> int:
    """What the kernel's TCP has been given."""
    lines = [
        line.split() for line in space.run("cat", "/proc/net/snmp").stdout.splitlines() if line.startswith("Tcp:")
    ]
    return int(dict(zip(*lines, strict=True))["InSegs"])


def received_ect(space: Namespace) -> int:
    """Packets that routers could have marked, by the kernel's count."""
    lines = [
        line.split()
        for line in space.run("cat", "/proc/net/netstat").stdout.splitlines()
        if line.startswith("IpExt:")
    ]
    v6 = dict(line.split() for line in space.run("cat", "/proc/net/snmp6").stdout.splitlines())
    return int(dict(zip(*lines, strict=True))["InECT0Pkts"]) + int(v6["Ip6InECT0Pkts"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kernel_that_asks_for_ecn_gets_it(image: Path, backend: str) -> None:
    with serving(image, backend) as running:
        for ecn, expected in (("0", False), ("1", True)):
            running.client.run("sysctl", "-q", "-w", f"net.ipv4.tcp_ecn={ecn}")
            for host in running.hosts:
                before = received_ect(running.client)
                assert "small" in running.client.run("curl", "-sS", f"http://{host}/").stdout
                assert (received_ect(running.client) > before) == expected


def test_the_kernel_is_spared_what_a_packet_socket_has_had(image: Path) -> None:
    with serving(image, "packet") as running:
        if not running.event["tcx"]:
            pytest.skip("needs Linux 6.6, for tcx")
        before = tcp_segments_in(running.server)
        for host in running.hosts:
            for _ in range(5):
                assert "small" in running.client.run("curl", "-sS", f"http://{host}/").stdout
        assert tcp_segments_in(running.server) == before
        running.client.run("curl", "-sS", f"http://{SERVER4}:8022/", check=False)  # another port is the kernel's
        assert tcp_segments_in(running.server) > before


@pytest.mark.parametrize("backend", ["packet", "afxdp"])
def test_own_address_mode_answers_arp_nd_and_echo(image: Path, backend: str) -> None:
    with serving(image, backend, *OWN) as running:
        assert running.event["mode"] == "own-address"
        assert ping(running.client, "10.213.0.77")
        assert ping(running.client, "fd57:1::77")
        assert ping(running.client, SERVER4)
        assert "small" in running.client.run("curl", "-sS", "http://10.213.0.77/").stdout
        refused = running.client.run("curl", "-sS", "http://10.213.0.77:81/", check=False)
        assert refused.returncode == 7  # could not connect, at once: RST
        running.stop()
    counters = running.stopped["counters"]
    assert counters["arp_tx_replies"] >= 1
    assert counters["nd_tx_advertisements"] >= 1
    assert counters["icmp_tx_echo_reply"] >= 4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(image: Path, backend: str, number: signal.Signals) -> None:
    with serving(image, backend) as running:
        host = running.hosts[0]
        assert "small" in running.client.run("curl", "-sS", f"http://{host}/").stdout
        status = running.stop(number)
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        deadline = time.monotonic() + 5
        while True:
            links = running.server.ip("link")
            sockets = running.server.run("cat", "/proc/net/tcp").stdout
            listens = re.search(r":0050 [0-9A-F]{8}:0000 0A", sockets)
            clean = "sand0" not in links and "prog/xdp" not in links and listens is None
            if clean or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert clean, links
        assert backend == "tap" or kernel_answers(running, "80"), "a filter of ours is still there"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_checksum_is_dropped_whatever_the_port(image: Path, backend: str) -> None:
    """A frame that no local kernel's TCP made, with a checksum that is neither whole nor as that would leave it."""
    with serving(image, backend) as running:
        client, server, device = running.client, running.hosts[0], DEVICES[backend]
        assert "small" in client.run("curl", "-sS", f"http://{server}/").stdout
        source = client.run("ip", "-j", "route", "get", server).stdout
        neighbours = client.run("ip", "-j", "neigh", "show", server).stdout
        source, mac = json.loads(source)[0]["prefsrc"], json.loads(neighbours)[0]["lladdr"]
        for wrong in (0, 1):
            syn = (
                Ether(src=client.mac(device), dst=mac)
                / IP(src=source, dst=server)
                / TCP(dport=80, sport=5, flags="S")
            )
            syn = Ether(bytes(syn))
            syn[TCP].chksum ^= wrong
            client.run(sys.executable, "-c", SEND_FRAME, device, bytes(syn).hex())
        assert "small" in client.run("curl", "-sS", f"http://{server}/").stdout
        assert running.stop() == 0
    counters = running.stopped["counters"]
    assert counters["tcp_drop_checksum"] == 1
    assert counters["tcp_rx_syn"] == 3


def strange_syns(source: str, server: str, source6: str, server6: str) -> list[Packet]:
    """Of five connections, each in another dress; and one of a VLAN."""
    packet6 = IPv6(src=source6, dst=server6)
    wrapped = [
        Dot1Q(vlan=0, prio=5) / IP(src=source, dst=server),
        Dot1Q(vlan=0) / packet6,
        packet6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(),
        packet6 / IPv6ExtHdrRouting(segleft=0, addresses=[source6]),
        packet6 / IPv6ExtHdrFragment(),
    ]
    syns = [packet / TCP(dport=80, sport=1000 + number, flags="S") for number, packet in enumerate(wrapped)]
    return [*syns, Dot1Q(vlan=7) / IP(src=source, dst=server) / TCP(dport=80, sport=999, flags="S")]


@pytest.mark.parametrize("own", [(), OWN], ids=["shared", "own"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_priority_and_extension_headers_hide_nothing(image: Path, backend: str, own: tuple[str, ...]) -> None:
    """From the filters too: XDP's, the packet socket's, tcx's. A VLAN is not ours."""
    with serving(image, backend, *own) as running:
        client, device = running.client, DEVICES[backend]
        server, server6 = running.hosts[0], running.hosts[1].strip("[]")
        for host in running.hosts:
            assert "small" in client.run("curl", "-sS", f"http://{host}/").stdout
        routes = [json.loads(client.run("ip", "-j", "route", "get", to).stdout)[0] for to in (server, server6)]
        neighbour = client.run("ip", "-j", "neigh", "show", server).stdout
        link = Ether(src=client.mac(device), dst=json.loads(neighbour)[0]["lladdr"])
        for packet in strange_syns(routes[0]["prefsrc"], server, routes[1]["prefsrc"], server6):
            client.run(sys.executable, "-c", SEND_FRAME, device, bytes(link / packet).hex())
        assert "small" in client.run("curl", "-sS", f"http://{server}/").stdout
        assert running.stop() == 0
    assert running.stopped["counters"]["tcp_rx_syn"] == 3 + 5


@pytest.mark.parametrize("backend", ["packet", "afxdp"])
def test_fragments_are_put_together(image: Path, backend: str) -> None:
    """As the client's kernel makes them where the way is narrow; in shared mode they are the server's kernel's."""
    with serving(image, backend, *OWN) as running:
        running.client.ip("route", "replace", "10.213.0.77", "dev", "cli0", "mtu", "lock", "600")
        running.client.ip("-6", "route", "replace", "fd57:1::77", "dev", "cli0", "mtu", "1280")
        for host in ("10.213.0.77", "fd57:1::77"):
            running.client.run("ping", "-c", "2", "-i", "0.2", "-W", "2", "-s", "1400", host)
        assert running.stop() == 0
    assert running.stopped["counters"]["ip_rx_fragments"] == 2 * 3 + 2 * 2
    assert running.stopped["counters"]["ip_reassembled"] == 4
    with serving(image, backend) as running:
        running.client.ip("route", "replace", SERVER4, "dev", "cli0", "mtu", "lock", "600")
        running.client.run("ping", "-c", "2", "-i", "0.2", "-W", "2", "-s", "1400", SERVER4)
        assert running.stop() == 0
    assert "ip_reassembled" not in running.stopped["counters"]


WAYS = [("tap",), ("packet",), ("packet", "--resident"), ("packet", "--arena", "16M"), ("afxdp",)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    (folder / "large").write_bytes(bytes(range(256)) * 160_000)
    return build(folder, tmp_path_factory.mktemp("large-image") / "x.img")


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_an_image_that_is_written_to_ends_with_one_line(
    image: Path, large: Path, tmp_path: Path, way: tuple[str]
) -> None:
    """`cp` over it, in the middle of a download: the file is cut short and written anew."""
    path = Path(shutil.copy(large, tmp_path / "site.img"))
    with serving(path, *way) as running:
        get = [
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "--limit-rate",
            "20M",
            "-m",
            "10",
            f"http://{running.hosts[0]}/large",
        ]
        downloading = running.client.popen(*get, stderr=subprocess.DEVNULL)
        time.sleep(0.2)
        shutil.copyfile(image, path)
        _, error = running.process.communicate(timeout=10)
        downloading.kill()
        downloading.wait()
    assert running.process.returncode == 1
    assert len(error.splitlines()) == 1
    assert error.startswith(f"ssrun: {path}: ")
    assert "with mv" in error


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_image_that_is_replaced_is_served_on(image: Path, large: Path, tmp_path: Path, backend: str) -> None:
    path = Path(shutil.copy(image, tmp_path / "site.img"))
    with serving(path, backend) as running:
        shutil.copy(large, tmp_path / "new.img")
        (tmp_path / "new.img").rename(path)
        time.sleep(1.5)  # it is looked at once a second
        assert "small" in running.client.run("curl", "-sS", f"http://{running.hosts[0]}/").stdout
        assert running.stop() == 0


def kernel_answers(running: Running, port: str) -> bool:
    """Does a server of the kernel's on this port get what a client sends to it?"""
    other = running.server.popen("python3", "-m", "http.server", "--bind", SERVER4, port, stderr=subprocess.DEVNULL)
    try:
        get = ["curl", "-sS", "-o", "/dev/null", "--retry", "10", "--retry-connrefused", "--retry-delay", "1"]
        limits = ["--max-time", "10"]
        return running.client.run(*get, *limits, f"http://{SERVER4}:{port}/", check=False).returncode == 0
    finally:
        other.kill()
        other.wait()


def test_another_server_on_the_port_is_told(image: Path) -> None:
    with veth_pair() as (server, _):
        other = server.popen("python3", "-m", "http.server", "--bind", "0.0.0.0", "80")
        try:
            assert until(lambda: ":0050 " in server.run("cat", "/proc/net/tcp").stdout)
            done = server.run(*ssrun_command(image, "--iface", "srv0"), check=False)
        finally:
            other.kill()
            other.wait()
    assert done.returncode == 1
    assert done.stderr.startswith("ssrun: port 80 is taken by another server")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--iface", "nosuch0"], 1, "no interface nosuch0"),
        (["--iface", "lo"], 1, "lo"),
        (["--iface", "tap:a name"], 1, "no interface name"),
        (["--iface", "tap:x", "--backend", "afxdp"], 1, "tap backend only"),
        (["--iface", "srv0", "--backend", "tap"], 1, "tap:srv0"),
        (["--iface", "srv0", "--address", SERVER4], 1, "leave --address out"),
        (["--iface", "srv0", "--workers", "3", "--backend", "afxdp"], 1, "receive queues"),
        (["--iface", "srv0", "--address", "300.1.1.1"], 2, "no IPv4 or IPv6 address"),
        (["--iface", "srv0", "--backend", "pigeon"], 2, "pigeon"),
        (["--iface", "srv0", "--resident", "--arena", "10M"], 2, "leave one out"),
        ([], 2, "--iface"),
    ],
)
def test_wrong_usage_gets_one_clear_line(image: Path, options: list[str], status: int, text: str) -> None:
    with veth_pair() as (server, _):
        done = server.run(*ssrun_command(image, *options), check=False)
    assert done.returncode == status
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    if status == 1:
        assert done.stderr.count("\n") == 1


def test_an_interface_that_goes_away_ends_with_a_line(image: Path) -> None:
    with serving(image, "packet") as running:
        running.client.ip("link", "del", "cli0")
        _, error = running.process.communicate(timeout=20)
    assert running.process.returncode == 1
    assert error.startswith("ssrun: srv0: ")


def test_a_tap_takes_the_addresses_it_is_given(image: Path) -> None:
    options = ("--address", "10.77.0.2/24", "--host-address", "10.77.0.1/24")
    with serving(image, "tap", *options) as running:
        assert running.hosts == ["10.77.0.2"]
        assert ping(running.client, "10.77.0.2")
        assert "10.77.0.1/24" in running.client.ip("addr", "show", "sand0")


def test_default_addresses_clash_with_nothing(image: Path) -> None:
    with namespace("clash") as space:
        space.ip("link", "add", "d0", "type", "veth", "peer", "name", "d1")
        space.ip("addr", "add", "198.18.0.9/24", "dev", "d0")
        space.ip("link", "set", "d0", "up")
        process = space.popen(*ssrun_command(image, "--iface", "tap:sand0"), stdout=-1)
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        process.communicate(timeout=10)
    assert "http://198.18.1.2/" in line
    assert CLIENT4 not in line
