"""`--pcapng` over real ports, with tshark as the judge and tcpdump as the second witness."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from tests import pcapng
from tests.host import build
from tests.net import BACKENDS, DEVICES, Namespace, Running, needs, run, serving, tcpdump

pytestmark = needs("curl", "tshark", "tcpdump")

FILE_BYTES = 3_000_000
# Of a segment all that can't change between two places of a link. Its checksum may be unfinished in tcpdump's view.
IDENTITY = ("ip.src", "ipv6.src", "tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.seq_raw", "tcp.ack_raw", "tcp.len")
STRICT = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")


@pytest.fixture(scope="module")
def body() -> bytes:
    return random.Random(1).randbytes(FILE_BYTES)


@pytest.fixture(scope="module")
def file_image(body: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "file").write_bytes(body)
    return build(folder, tmp_path_factory.mktemp("image") / "file.img")


def tshark(path: Path, display: str, *options: str) -> list[str]:
    return run("tshark", "-n", "-r", path, *STRICT, "-Y", display, *options).stdout.splitlines()


def segments(path: Path) -> Counter[str]:
    """How often each was seen."""
    return Counter(tshark(path, "tcp", "-T", "fields", *(word for name in IDENTITY for word in ("-e", name))))


def tx_dropped(space: Namespace, device: str) -> int:
    """Frames that a device took and did not hand on, as on a machine that has other things to do: the queue behind it
    was full."""
    (link,) = json.loads(space.run("ip", "-j", "-s", "link", "show", device).stdout)
    return int(link["stats64"]["tx"]["dropped"])


def fetch(running: Running, body: bytes, folder: Path) -> None:
    """Once over each family."""
    for host in running.hosts:
        running.client.run("curl", "-gfsS", "-o", folder / "got", f"http://{host}/file")
        assert (folder / "got").read_bytes() == body


def assert_nothing_wrong(path: Path, never_came: int = 0) -> None:
    """never_came: frames for the server that were lost on the way, and that tshark may miss."""
    done = run("tshark", "-n", "-r", path)
    assert done.returncode == 0
    assert "cut short" not in done.stderr
    bad = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || _ws.expert.severity >= 0x00800000"
    assert tshark(path, bad) == []
    missed = "tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment"
    assert tshark(path, f"({missed}) && tcp.srcport == 80") == []
    assert len(tshark(path, f"({missed}) && tcp.dstport == 80")) <= never_came


def assert_reassembles(path: Path, body: bytes, folder: Path) -> None:
    """HTTP's objects as tshark makes them of the frames."""
    run("tshark", "-q", "-n", "-r", path, "--export-objects", f"http,{folder}")
    found = [each.read_bytes() for each in folder.iterdir()]
    assert len(found) == 2
    assert all(each == body for each in found)


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("tap", ()),
        ("tap", ("--workers", "2")),
        ("tap", ("--superframe", "1")),
        ("packet", ()),
        ("packet", ("--superframe", "1")),
        ("afxdp", ()),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value).strip("-") or "plain",
)
def test_what_tcpdump_sees(
    file_image: Path, body: bytes, tmp_path: Path, backend: str, options: tuple[str, ...]
) -> None:
    """The same segments in both directions, none malformed, and the file in them."""
    path, witness = tmp_path / "x.pcapng", tmp_path / "tcpdump.pcap"
    device = DEVICES[backend]
    with (
        serving(file_image, backend, "--pcapng", str(path), *options) as running,
        tcpdump(running.client, device, witness, "tcp", "--immediate-mode", "-s", "128"),
    ):
        fetch(running, body, tmp_path)
        # tcpdump sees what these don't hand on to the server, and not what is lost on its way to the client.
        never_came = tx_dropped(running.client, device)
        never_left = 0 if backend == "tap" else tx_dropped(running.server, "srv0")
        running.stop()
    counters = running.stopped["counters"]
    assert "capture_dropped" not in counters
    assert counters["capture_frames"] == counters["port_rx_frames"] + counters["port_tx_frames"]
    ours, theirs = segments(path), segments(witness)
    assert (ours - theirs).total() == never_left
    assert (theirs - ours).total() == never_came
    assert_nothing_wrong(path, never_came)
    (tmp_path / "objects").mkdir()
    assert_reassembles(path, body, tmp_path / "objects")
    # Direction, as tshark reads it: what comes from the server's port is outbound.
    directions = Counter(
        tshark(path, "tcp", "-T", "fields", "-e", "frame.packet_flags_direction", "-e", "tcp.srcport")
    )
    assert {row.split("\t")[1] == "80" for row in directions if row.startswith("0x00000002")} == {True}
    assert {row.split("\t")[1] == "80" for row in directions if row.startswith("0x00000001")} == {False}
    interfaces = pcapng.read(path).interfaces
    assert len(interfaces) == running.event["workers"]
    assert sum(interface.written for interface in interfaces) == counters["capture_frames"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ring_that_is_too_small(file_image: Path, body: bytes, tmp_path: Path, backend: str) -> None:
    """The download goes on; what is lacking is counted, and tshark still reads the rest."""
    path = tmp_path / "x.pcapng"
    small = ("--pcapng-buffer", "5K", "--pcapng-snaplen", "200")
    with serving(file_image, backend, "--pcapng", str(path), *small) as running:
        fetch(running, body, tmp_path)
        running.stop()
    counters = running.stopped["counters"]
    frames = counters["port_rx_frames"] + counters["port_tx_frames"]
    assert counters["capture_dropped"] > 0
    assert counters["capture_frames"] + counters["capture_dropped"] == frames
    assert len(tshark(path, "frame")) == counters["capture_frames"]
    assert tshark(path, "_ws.malformed") == []
    assert pcapng.read(path).interfaces[0].dropped == counters["capture_dropped"]


def test_a_killed_server_s_capture_is_there(file_image: Path, body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    with serving(file_image, "packet", "--pcapng", str(path)) as running:
        fetch(running, body, tmp_path)
        running.client.run("sleep", "1")
        running.process.kill()
        running.process.wait()
        assert_nothing_wrong(path)
        (tmp_path / "objects").mkdir()
        assert_reassembles(path, body, tmp_path / "objects")
