"""What strangers and crowds do to a server: floods, malformed packets, ten thousand connections at once, a hundred
thousand one after the other. Memory stays what it was, and the next client is served at once."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from ssimage._sandstorm import lib
from ssrun.ports.base import BUFFERS, RING

from tests.host import build
from tests.net import BACKENDS, DEVICES, WAYS, Running, needs, serving

pytestmark = [needs("curl"), pytest.mark.timeout(600)]

AFXDP_RX_RING = int(lib.AFXDP_RX_RING)
SYNS = 200_000
POOLS_KB = 2 * (BUFFERS + RING)  # all buffers and spare slots of 2 KiB: how many a burst takes depends on the machine
OTHERS = 64  # frames that may come beside those of a flood
MALFORMED = 100_000
CROWD = 10_000
SEQUENCE = 100_000
BODY = b"<title>small</title>"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    (folder / "index.html").write_bytes(BODY)
    return build(folder, tmp_path_factory.mktemp("image") / "small.img")


def memory_kb(running: Running, which: str) -> int:
    """Of ssrun and its workers. which: "vsz", what they have mapped, or "pss", what of that is resident, shared pages once."""
    pid = str(running.process.pid)
    out = running.server.run("ps", "-o", f"{which}=", "-p", pid, "--ppid", pid)
    return sum(int(word) for word in out.stdout.split())


def served_at_once(running: Running) -> None:
    for host in running.hosts:
        out = running.client.run("curl", "-sS", "--connect-timeout", "2", "-m", "4", f"http://{host}/")
        assert out.stdout.encode() == BODY


FLOOD = Path(__file__).with_name("flood.py")
CROWD_PROGRAM = Path(__file__).with_name("crowd.py")


def flood(running: Running, device: str, kind: str, count: int) -> None:
    """Frames to the server from its client's side, as fast as Python sends them."""
    target = running.hosts[0]
    done = running.client.run(sys.executable, FLOOD, device, target, kind, str(count), timeout_s=300)
    assert int(done.stdout) == count


@pytest.mark.parametrize("backend", BACKENDS)
def test_floods_take_no_memory(image: Path, backend: str) -> None:
    """Nothing is mapped that was not from the start, and of the pools no more becomes resident than a burst needs."""
    device = DEVICES[backend]
    with serving(image, backend) as running:
        served_at_once(running)
        flood(running, device, "syn", 1000)  # what is touched first is resident from then on
        mapped, resident = memory_kb(running, "vsz"), memory_kb(running, "pss")
        flood(running, device, "syn", SYNS)
        served_at_once(running)
        flood(running, device, "malformed", MALFORMED)
        served_at_once(running)
        assert memory_kb(running, "vsz") == mapped
        assert memory_kb(running, "pss") - resident < POOLS_KB
        running.stop()
    counters = running.stopped["counters"]
    assert counters["tcp_rx_syn"] > SYNS / 2  # the rest may have been lost on the way: nobody retransmits here
    drops = {name: count for name, count in counters.items() if "_drop_" in name}
    assert len(drops) >= 3, drops


@pytest.mark.parametrize(("backend", "frames"), [("tap", RING), ("afxdp", AFXDP_RX_RING - OTHERS)])
def test_what_comes_while_nobody_reads_is_held(image: Path, backend: str, frames: int) -> None:
    """A ring of frames may leave before what answers them is read."""
    with serving(image, backend) as running:
        served_at_once(running)
        running.tell(signal.SIGSTOP)
        flood(running, DEVICES[backend], "syn", frames)
        running.tell(signal.SIGCONT)
        served_at_once(running)
        running.stop()
    assert running.stopped["counters"]["tcp_rx_syn"] >= frames


@pytest.mark.parametrize("backend", WAYS)
def test_ten_thousand_connections_at_once(image: Path, backend: str) -> None:
    with serving(image, backend) as running:
        done = running.client.run(sys.executable, CROWD_PROGRAM, running.hosts[0], "crowd", str(CROWD), timeout_s=300)
        assert done.stdout.strip() == f"{CROWD} served twice"
        running.stop()
    counters = running.stopped["counters"]
    assert counters["tcp_opened"] >= CROWD
    assert counters["http_status_2xx"] == 2 * CROWD
    assert counters.get("tcp_drop_pool_full") is None


@pytest.mark.parametrize("backend", WAYS)
def test_a_hundred_thousand_connections_one_after_the_other(image: Path, backend: str) -> None:
    """Ports come round again several times."""
    with serving(image, backend) as running:
        running.client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=10000 29999")
        done = running.client.run(
            sys.executable, CROWD_PROGRAM, running.hosts[0], "sequence", str(SEQUENCE), timeout_s=500
        )
        assert done.stdout.strip() == f"{SEQUENCE} served"
        running.stop()
    assert running.stopped["counters"]["http_status_2xx"] == SEQUENCE
