"""ssrun as a host of its own beside a kernel that has, or wants, the same address."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net import (
    CLIENT4,
    CLIENT6,
    SERVER4,
    Namespace,
    Running,
    namespace,
    needs,
    serving,
    ssrun,
    ssrun_command,
    until,
    veth_pair,
)

pytestmark = needs("curl")

OWN4, OWN6 = "10.213.0.77", "fd57:1::77"
OWN = ("--address", f"{OWN4}/24", "--address", f"{OWN6}/64")
OTHER_MAC = "02:00:00:00:00:99"
BACKEND = pytest.mark.parametrize("backend", ["packet", "afxdp"])


def hold(space: Namespace, address: str) -> str:
    """Gives the kernel's side an address; its MAC."""
    flags = ("nodad",) if ":" in address else ()
    space.ip("addr", "add", f"{address}/{64 if flags else 24}", "dev", "cli0", *flags)
    return json.loads(space.ip("-j", "link", "show", "cli0"))[0]["address"]


@BACKEND
@pytest.mark.parametrize("address", [OWN4, OWN6])
def test_an_address_in_use_is_refused(image: Path, backend: str, address: str) -> None:
    with veth_pair() as (server, client):
        mac = hold(client, address)
        done = server.run(*ssrun_command(image, "--iface", "srv0", "--backend", backend, *OWN), check=False)
    assert done.returncode == 1
    assert done.stderr == f"ssrun: {address} is used by {mac} on srv0; choose another --address\n"
    assert '"serving"' not in done.stdout


@BACKEND
def test_a_free_address_is_claimed_and_the_neighbours_know(image: Path, backend: str) -> None:
    with veth_pair() as (server, client):
        for address in (OWN4, OWN6):  # as if another host had had them until now
            client.ip("neigh", "replace", address, "lladdr", OTHER_MAC, "dev", "cli0", "nud", "stale")
        begin = time.monotonic()
        with ssrun(image, server, client, "--iface", "srv0", "--backend", backend, *OWN) as running:
            took_s = time.monotonic() - begin
            mac = json.loads(server.ip("-j", "link", "show", "srv0"))[0]["address"]
            entries = {entry["dst"]: entry for entry in json.loads(client.ip("-j", "neigh", "show", "dev", "cli0"))}
            assert entries[OWN4]["lladdr"] == entries[OWN6]["lladdr"] == mac
            for host in running.hosts:
                assert "small" in client.run("curl", "-sS", f"http://{host}/").stdout
            running.stop()
    assert took_s > 0.7  # RFC 5227 section 2.1.1: three probes at the least distances
    counters = running.stopped["counters"]
    assert counters["arp_tx_probes"] == 3
    assert counters["nd_tx_probes"] == 1
    assert counters["arp_tx_announcements"] >= 1
    assert counters["nd_tx_announcements"] >= 1


@BACKEND
def test_the_kernel_s_own_detection_sees_ours(image: Path, backend: str) -> None:
    with serving(image, backend, *OWN) as running:
        client = running.client
        client.run("sysctl", "-qw", "net.ipv6.conf.cli0.accept_dad=1")
        client.ip("addr", "add", f"{OWN6}/64", "dev", "cli0")
        assert until(lambda: "dadfailed" in client.ip("addr", "show", "dev", "cli0"))
        running.stop()
    assert "nd_conflicts" not in running.stopped["counters"]


def events_of(running: Running) -> list[dict[str, object]]:
    running.process.send_signal(signal.SIGTERM)
    output, _ = running.process.communicate(timeout=20)
    return [json.loads(line) for line in output.splitlines()]


@BACKEND
def test_one_who_takes_our_address_later_is_noted(image: Path, backend: str) -> None:
    with serving(image, backend, *OWN) as running:
        macs = {hold(running.client, address) for address in (OWN4, OWN6)}
        running.client.run("sysctl", "-qw", "net.ipv4.conf.cli0.arp_notify=1", "net.ipv6.conf.cli0.ndisc_notify=1")
        for _ in range(2):  # the kernel announces its addresses as the link comes up
            running.client.ip("link", "set", "cli0", "down")
            running.client.ip("addr", "replace", f"{OWN6}/64", "dev", "cli0", "nodad")
            running.client.ip("link", "set", "cli0", "up")
            running.client.ip("addr", "replace", f"{OWN6}/64", "dev", "cli0", "nodad")
            time.sleep(2.5)
        assert running.process.poll() is None
        events = events_of(running)
    assert running.process.returncode == 0
    notes = [event for event in events if event["event"] == "address-conflict"]
    assert sorted(str(note["address"]) for note in notes) == [OWN4, OWN6]
    assert {note["mac"] for note in notes} == macs
    counters = events[-1]["counters"]
    assert isinstance(counters, dict)
    assert counters["arp_conflicts"] >= 2
    assert counters["arp_tx_defences"] == 1
    assert counters["nd_conflicts"] >= 2


@needs("tcpdump")
@BACKEND
def test_a_signal_ends_the_claim(image: Path, backend: str) -> None:
    with veth_pair() as (server, client):
        ask = ("tcpdump", "--immediate-mode", "-nni", "cli0", "-c", "1", "arp and arp[14:4] == 0")
        options = ("--iface", "srv0", "--backend", backend, *OWN, "--json")
        watch = client.popen(*ask, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert watch.stderr is not None
        while "listening" not in watch.stderr.readline():
            pass
        process = server.popen(*ssrun_command(image, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        watch.communicate(timeout=20)  # the first probe has been sent
        process.terminate()
        output, error = process.communicate(timeout=10)
    assert (process.returncode, error) == (0, "")
    assert [json.loads(line)["event"] for line in output.splitlines()] == ["stopped"]  # it never served


def test_the_check_can_be_left_out(image: Path) -> None:
    with veth_pair() as (server, client):
        hold(client, OWN4)
        options = ("--iface", "srv0", "--no-address-check", *OWN)
        with ssrun(image, server, client, *options) as running:
            running.stop()
    counters = running.stopped["counters"]
    assert "arp_tx_probes" not in counters
    assert counters["arp_tx_announcements"] == 1


def test_on_a_tap_the_kernel_is_told_and_not_asked(image: Path) -> None:
    with serving(image, "tap") as running:
        running.stop()
    counters = running.stopped["counters"]
    assert "arp_tx_probes" not in counters
    assert "nd_tx_probes" not in counters
    assert (counters["arp_tx_announcements"], counters["nd_tx_announcements"]) == (1, 1)


def test_on_a_tap_the_kernel_s_own_address_is_refused(image: Path) -> None:
    """The kernel answers for every address of this host on any interface: nothing would ever come to us."""
    with namespace("own") as space:
        space.ip("addr", "add", "10.9.8.7/24", "dev", "lo")
        for options in (("--address", "10.9.8.7/24"), ("--address", "10.1.1.1/24", "--host-address", "10.1.1.1/24")):
            done = space.run(*ssrun_command(image, "--iface", "tap:sand0", *options), check=False)
            assert done.returncode == 1
            assert done.stderr.endswith("is this host's own; choose another --address\n")


@contextlib.contextmanager
def two_queues() -> Iterator[tuple[Namespace, Namespace]]:
    """A veth pair of two queues; what the client sends arrives on the server's second."""
    queues = ("numtxqueues", "2", "numrxqueues", "2")
    with namespace("server") as server, namespace("client") as client:
        server.ip(
            "link", "add", "srv0", *queues, "type", "veth", "peer", "name", "cli0", *queues, "netns", client.name
        )
        for space, device, address in ((server, "srv0", SERVER4), (client, "cli0", CLIENT4)):
            space.ip("addr", "add", f"{address}/24", "dev", device)
            space.ip("link", "set", device, "up")
        for queue, processors in ((0, 0), (1, (1 << (os.cpu_count() or 1)) - 1)):
            client.run("sh", "-c", f"echo {processors:x} > /sys/class/net/cli0/queues/tx-{queue}/xps_cpus")
        yield server, client


@pytest.mark.parametrize("address", [OWN4, OWN6, None])
def test_every_queue_is_watched(image: Path, address: str | None) -> None:
    """A NIC puts answers where it likes: the second worker sees them, and answers nothing before the first is done."""
    options = ("--iface", "srv0", "--backend", "afxdp", "--workers", "2", *OWN)
    with two_queues() as (server, client):
        if address is not None:
            mac = hold(client, address)
            done = server.run(*ssrun_command(image, *options), check=False)
            assert done.stderr == f"ssrun: {address} is used by {mac} on srv0; choose another --address\n"
            return
        client.ip("addr", "add", f"{CLIENT6}/64", "dev", "cli0", "nodad")
        with ssrun(image, server, client, *options) as running:
            assert running.event["workers"] == 2
            for host in running.hosts:
                assert "small" in client.run("curl", "-sS", "-m", "10", f"http://{host}/").stdout
            running.stop()
    assert running.stopped["counters"]["arp_tx_announcements"] <= 2


BRIDGE = (
    *("type", "bridge", "mcast_snooping", "1", "mcast_querier", "1", "mcast_mld_version", "2"),
    *("mcast_startup_query_interval", "100", "mcast_query_interval", "200", "mcast_query_response_interval", "50"),
)


@needs("bridge")
@pytest.mark.parametrize("backend", ["packet", "afxdp"])
def test_a_snooping_switch_knows_our_group(image: Path, backend: str) -> None:
    """Linux's bridge, which asks every two seconds: from our report on it gives the group's frames to our port."""
    with veth_pair() as (server, client):
        client.ip("link", "add", "br0", *BRIDGE)
        client.ip("link", "set", "cli0", "master", "br0")
        client.ip("link", "set", "br0", "up")
        own = ("--iface", "srv0", "--backend", backend, "--address", "fd57:1::4d:4c44/64")
        with ssrun(image, server, client, *own) as running:

            def known() -> bool:
                rows = json.loads(client.run("bridge", "-j", "mdb", "show").stdout)[0]["mdb"]
                return {"port": "cli0", "grp": "ff02::1:ff4d:4c44"} in [
                    {name: row[name] for name in ("port", "grp")} for row in rows
                ]

            assert until(known, 5)
            time.sleep(4.5)
            assert running.stop() == 0
    counters = running.stopped["counters"]
    assert counters["mld_rx_queries"] >= 1
    assert counters["mld_tx_reports"] >= 2 + 1
