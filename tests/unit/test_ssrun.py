"""ssrun without a network: the replay port, and images that can't be served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from host import CLIENT_IP, CLIENT_MAC, SERVER_IP, build
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import rdpcap, wrpcap
from ssrun import network


def ssrun(*words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ssrun.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("hello")
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


def test_a_capture_is_replayed(image: Path, tmp_path: Path) -> None:
    ether = Ether(src=CLIENT_MAC, dst=network.stable_mac("pcap").hex(":"))
    ask = ether / ARP(psrc=CLIENT_IP, hwsrc=CLIENT_MAC, pdst=SERVER_IP)
    wrpcap(
        str(tmp_path / "in.pcap"),
        [
            ask,
            ether / IP(src=CLIENT_IP, dst=SERVER_IP) / TCP(sport=9, dport=80, flags="S"),
            ether / IP(src=CLIENT_IP, dst=SERVER_IP) / ICMP(),
        ],
    )
    done = ssrun(image, "--iface", f"pcap:{tmp_path}/in.pcap:{tmp_path}/out.pcap", "--address", SERVER_IP, "--json")
    first, last = (json.loads(line) for line in done.stdout.splitlines())
    assert first["backend"] == "pcap"
    assert last["counters"]["arp_tx_replies"] == 1
    arp, syn_ack, echo = rdpcap(str(tmp_path / "out.pcap"))
    assert arp[ARP].psrc == SERVER_IP
    assert syn_ack[TCP].flags == "SA"
    assert echo[ICMP].type == 0


def test_what_is_no_capture_is_told(image: Path, tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_text("no capture")
    done = ssrun(image, "--iface", f"pcap:{tmp_path}/in.pcap:{tmp_path}/out.pcap", "--address", SERVER_IP, status=1)
    assert "classic pcap" in done.stderr


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "changed", "folder"])
def test_images_that_cant_be_served(image: Path, tmp_path: Path, kind: str) -> None:
    data = image.read_bytes()
    bad = tmp_path / "bad.img"
    if kind == "folder":
        bad.mkdir()
    elif kind != "missing":
        contents = {"empty": b"", "text": b"hello\n" * 100, "truncated": data[:-500]}
        changed = data[:4300] + bytes([data[4300] ^ 1]) + data[4301:]
        bad.write_bytes(contents.get(kind, changed))
    done = ssrun(bad, "--iface", "tap:never0", status=1)
    assert done.stderr.startswith(f"ssrun: {bad}: ")
    assert done.stderr.count("\n") == 1
    assert not Path("/sys/class/net/never0").exists()


def test_without_root_it_says_so(image: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("runs as root")
    assert "root" in ssrun(image, "--iface", "tap:never0", status=1).stderr


def test_help_and_version() -> None:
    assert "--iface" in ssrun("--help").stdout
    assert ssrun("--version").stdout.startswith("python -m ssrun.cli, version ")
