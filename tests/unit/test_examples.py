"""Three programs, each made from some folders of the core alone: what the layers are, somebody else can take one by one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from scapy.utils import rdpcap, wrpcap

ROOT = Path(__file__).resolve().parents[2]
CSRC, EXAMPLES = ROOT / "runtime" / "csrc", ROOT / "runtime" / "examples"
FLAGS = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
LINES_MAX = 80
OUR_MAC, THEIR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"

# Folders whose files are all there is, and of libnmio the ports that are used.
PROGRAMS = {
    "replay": ({"libnmio"}, ("pcap", "region")),
    "neighbour": ({"wire", "libnmio", "libeth"}, ("pcap", "region")),
    "echo": ({"wire", "libnmio", "libeth", "image", "frames", "libtcpip"}, ("memory", "region")),
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Built where nothing is but the folders that each is made of; of image the header files, as an image file is not read."""
    built = {}
    for name, (folders, ports) in PROGRAMS.items():
        tree = tmp_path_factory.mktemp(name)
        for folder in folders:
            shutil.copytree(CSRC / folder, tree / folder, ignore=shutil.ignore_patterns("*.bpf.c"))
        sources = [path for folder in folders - {"libnmio", "image"} for path in sorted((tree / folder).glob("*.c"))]
        sources += [tree / "libnmio" / f"{port}.c" for port in ports]
        built[name] = tree / name
        command = ["gcc", *FLAGS, f"-I{tree}", EXAMPLES / f"{name}.c", *sources, "-o", built[name]]
        subprocess.run(command, check=True)
    return built


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_short_enough_to_read(name: str) -> None:
    assert len((EXAMPLES / f"{name}.c").read_text().splitlines()) < LINES_MAX


def test_no_program_is_left_out() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.c")} == set(PROGRAMS)


def through(program: Path, folder: Path, frames: list[Any]) -> tuple[str, list[Any]]:
    """What a program prints, and what it sends for frames that come."""
    wrpcap(str(folder / "in.pcap"), frames, linktype=1)
    done = subprocess.run([program, "in.pcap", "out.pcap"], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout, list(rdpcap(str(folder / "out.pcap")))


def test_a_capture_is_sent_again(programs: dict[str, Path], tmp_path: Path) -> None:
    frames = [Ether(src=THEIR_MAC, dst=OUR_MAC) / Raw(bytes([n]) * (46 + n)) for n in range(200)]
    said, sent = through(programs["replay"], tmp_path, frames)
    assert said == "200 of 200 frames\n"
    assert [bytes(frame) for frame in sent] == [bytes(frame) for frame in frames]


def test_what_comes_before_a_damaged_record_is_sent(programs: dict[str, Path], tmp_path: Path) -> None:
    frames = [Ether(src=THEIR_MAC, dst=OUR_MAC) / Raw(bytes([n]) * 46) for n in range(3)]
    wrpcap(str(tmp_path / "in.pcap"), frames, linktype=1)
    whole = (tmp_path / "in.pcap").read_bytes()
    (tmp_path / "in.pcap").write_bytes(whole[:-1])
    command = [programs["replay"], "in.pcap", "out.pcap"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "2 of 2 frames\n")


def test_who_has_our_addresses_is_told(programs: dict[str, Path], tmp_path: Path) -> None:
    ask = Ether(src=THEIR_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=THEIR_MAC, psrc="192.0.2.2", pdst="192.0.2.1")
    other = Ether(src=THEIR_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=THEIR_MAC, psrc="192.0.2.2", pdst="192.0.2.3")
    group = Ether(src=THEIR_MAC, dst="33:33:ff:00:00:01") / IPv6(src="2001:db8::2", dst="ff02::1:ff00:1", hlim=255)
    solicit = group / ICMPv6ND_NS(tgt="2001:db8::1")
    damaged = group / ICMPv6ND_NS(tgt="2001:db8::1", cksum=1)
    said, sent = through(programs["neighbour"], tmp_path, [ask, other, solicit, damaged])
    assert said == "1 by ARP, 1 by neighbour discovery\n"
    reply, advertisement = sent
    assert (reply[ARP].op, reply[ARP].psrc, reply[ARP].hwsrc, reply.dst) == (2, "192.0.2.1", OUR_MAC, THEIR_MAC)
    assert advertisement[ICMPv6ND_NA].tgt == "2001:db8::1"
    assert advertisement[ICMPv6NDOptDstLLAddr].lladdr == OUR_MAC


def test_a_connection_is_answered(programs: dict[str, Path]) -> None:
    segment = Ether(src=THEIR_MAC, dst=OUR_MAC) / IP(src="192.0.2.2", dst="192.0.2.1")
    with subprocess.Popen(programs["echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def give(packet: Any) -> None:
            frame = bytes(packet)
            process.stdin.write(len(frame).to_bytes(2, "little") + frame)  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]

        def take() -> Any:
            length = int.from_bytes(process.stdout.read(2), "little")  # type: ignore[union-attr]
            return Ether(process.stdout.read(length))  # type: ignore[union-attr]

        give(segment / TCP(sport=40000, dport=7, flags="S", seq=1000, window=64240))
        answer = take()
        assert answer[TCP].flags == "SA"
        assert answer[TCP].ack == 1001
        numbers = {"sport": 40000, "dport": 7, "seq": 1001, "ack": answer[TCP].seq + 1, "window": 64240}
        give(segment / TCP(flags="PA", **numbers) / Raw(b"who is there?"))
        answer = take()
        assert bytes(answer[TCP].payload) == b"hello\n"
        assert answer[TCP].flags == "FPA"
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0
