"""ssrun as an ordinary user with the capabilities that docs/operations.md names for each way of serving, and no other."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.net import Namespace, namespace, needs, ssrun, ssrun_command, veth_pair

pytestmark = needs("curl", "setpriv", "prlimit", "unshare")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
NOBODY = "65534"
# What is served here, and the Python that runs this, may be for root alone to read.
READ = "dac_read_search"
OWN = ("--address", "10.213.0.77/24", "--address", "fd57:1::77/64")
WAYS = {
    "`tap:NAME`": ("--iface", "tap:sand0"),
    "packet, `--address`": ("--iface", "srv0", "--backend", "packet", *OWN),
    "packet, shared": ("--iface", "srv0", "--backend", "packet"),
    "packet, shared, with tcx": ("--iface", "srv0", "--backend", "packet"),
    "AF_XDP, `--address`": ("--iface", "srv0", "--backend", "afxdp", *OWN),
    "AF_XDP, shared": ("--iface", "srv0", "--backend", "afxdp"),
}


def needed(way: str) -> list[str]:
    """From the table."""
    row = re.search(rf"^\| {re.escape(way)} \| (.*?) \|", DOCS.read_text(), re.MULTILINE)
    assert row is not None, way
    return [name.removeprefix("CAP_").lower() for name in re.findall(r"`(CAP_\w+)`", row[1])]


def test_the_table_is_about_these_ways() -> None:
    table = DOCS.read_text().partition("| way of serving | capabilities |")[2].partition("\n\n")[0]
    assert {line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]} == set(WAYS)


def limited(capabilities: list[str]) -> list[str]:
    """A command in front of another, which then runs as an ordinary user with these capabilities."""
    those = ",".join(["-all", *(f"+{name}" for name in [*capabilities, READ])])
    device = 'mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "$@"'
    open_device = [
        "unshare",
        "-m",
        "sh",
        "-c",
        device,
        "_",
    ]  # /dev/net/tun is for root alone where nobody has opened it
    user = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    sets = ["--bounding-set", those, "--inh-caps", those, "--ambient-caps", those]
    return [*open_device, "prlimit", "--memlock=65536:65536", "setpriv", *user, *sets]


@contextlib.contextmanager
def ordinary(space: Namespace, capabilities: list[str]) -> Iterator[None]:
    """What the namespace starts runs like that."""
    popen: Any = space.popen
    space.popen = lambda *command, **how: popen(*limited(capabilities), *command, **how)  # type: ignore[method-assign]
    try:
        yield
    finally:
        space.popen = popen  # type: ignore[method-assign]


@contextlib.contextmanager
def network(way: str) -> Iterator[tuple[Namespace, Namespace]]:
    """Of the server and of its client."""
    if "tap" in way:
        with namespace("tap") as space:
            yield space, space
    else:
        with veth_pair() as pair:
            yield pair


def checking(image: Path, *options: str) -> list[str]:
    """`ssrun check` of the same."""
    command = ssrun_command(image, *options)
    place = command.index(str(image))
    return [*command[:place], "check", *command[place:]]


@pytest.mark.parametrize("way", WAYS)
def test_these_capabilities_are_enough(image: Path, way: str) -> None:
    with (
        network(way) as (server, client),
        ordinary(server, needed(way)),
        ssrun(image, server, client, *WAYS[way]) as running,
    ):
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        assert re.search(r"^Uid:\s+65534\s+65534", status, re.MULTILINE)
        for host in running.hosts:
            assert "small" in client.run("curl", "-sS", "-m", "5", f"http://{host}/").stdout
        if "packet" in way:
            assert running.event["tcx"] is ("tcx" in way)
        assert running.stop() == 0
    with network(way) as (server, _):
        looked = server.run(*limited(needed(way)), *checking(image, *WAYS[way]))
    assert ("CAP_BPF" in looked.stdout) == (way == "packet, shared")
    assert '"error"' not in looked.stdout


@pytest.mark.parametrize(("way", "missing"), [(way, name) for way in WAYS for name in needed(way)])
def test_none_of_them_can_be_left_out(image: Path, way: str, missing: str) -> None:
    rest = [name for name in needed(way) if name != missing]
    with network(way) as (server, client):
        looked = server.run(*limited(rest), *checking(image, *WAYS[way]), check=False)
        assert looked.returncode == int(not ("with tcx" in way and missing in ("bpf", "perfmon")))
        assert f"CAP_{missing.upper()}" in looked.stdout
        if "with tcx" in way and missing in ("bpf", "perfmon"):
            with ordinary(server, rest), ssrun(image, server, client, *WAYS[way]) as running:
                assert running.event["tcx"] is False
            return
        done = server.run(*limited(rest), *ssrun_command(image, *WAYS[way]), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"CAP_{missing.upper()}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_above_1024_needs_no_bind_capability(image: Path) -> None:
    rest = [name for name in needed("packet, shared") if name != "net_bind_service"]
    options = (*WAYS["packet, shared"], "--port", "8080")
    with veth_pair() as (server, client), ordinary(server, rest), ssrun(image, server, client, *options) as running:
        assert "small" in client.run("curl", "-sS", "-m", "5", f"http://{running.hosts[0]}/").stdout
