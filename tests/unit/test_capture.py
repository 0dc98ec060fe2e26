"""`--pcapng`: what the file says, beside what went in and out of the port that it was put around."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet
from scapy.utils import checksum, rdpcap, wrpcap
from ssimage._sandstorm import ffi, lib
from ssrun.ports import kernel
from ssrun.ports.capture import Capture
from ssrun.settings import CaptureOptions

from tests import pcapng
from tests.host import CLIENT_IP, CLIENT_MAC, SERVER_IP, Client, build, checked
from tests.model import ModelImage, Page
from tests.net import until
from tests.pcapng import INBOUND, OUTBOUND
from tests.unit.test_ports_memory import Loop
from tests.unit.test_ssrun import ssrun

BIG = bytes(range(251)) * 400
REQUEST = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def model() -> ModelImage:
    return ModelImage({"/big": Page(BIG)})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("hello")
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


class Captured:
    """A worker over a captured memory port, and all that was fed to it and taken from it."""

    def __init__(self, model: ModelImage, folder: Path, gather_max: int = 1, delay: int = 0, **options: Any) -> None:
        self.path = folder / "x.pcapng"
        self.capture = Capture(CaptureOptions(self.path, **options))
        self.loop = Loop(model, folder, delay=delay, gather_max=gather_max, wrap=self.wrap)
        self.fed: list[bytes] = []
        self.taken: list[bytes] = []

    def wrap(self, port: Any) -> Any:
        return self.capture.wrap([port], "mem0", "memory")[0]

    def send(self, *packets: Packet | bytes) -> list[Packet]:
        taken = self.loop.send(*packets)
        self.fed += map(bytes, packets)
        self.taken += map(bytes, taken)
        return taken

    def download(self, *, v6: bool = False, drain: Callable[[], object] = lambda: None) -> Client:
        """All of /big over one connection. drain: called after each round."""
        client = Client(self, v6=v6)  # type: ignore[arg-type]
        client.connect()
        frames = self.send(client.packet("PA", REQUEST))
        client.seq += len(REQUEST)
        idle = 0
        while idle < 8:
            client.note(frames, check=False)
            drain()
            idle = 0 if frames else idle + 1
            frames = self.send(client.packet("A"))
        assert BIG in client.received
        return client

    def close(self) -> pcapng.File:
        lib.worker_destroy(self.loop.worker)
        self.capture.close()
        lib.nmio_port_close(lib.memory_as_port(self.loop.memory))
        lib.nmio_tx_destroy(self.loop.tx)
        lib.nmio_region_destroy(self.loop.region)
        return pcapng.read(self.path)


@pytest.mark.parametrize("delay", [0, 3], ids=["prompt", "slow"])
def test_every_frame_once_in_both_directions(model: ModelImage, tmp_path: Path, delay: int) -> None:
    began_ns = time.time_ns()
    run = Captured(model, tmp_path, delay=delay)
    run.capture.start(pytest.fail)
    run.download()
    run.capture.finish()
    counters = run.capture.counters()
    file = run.close()
    assert file.received() == run.fed
    assert file.sent() == run.taken
    assert counters == {"capture_frames": len(run.fed) + len(run.taken), "capture_dropped": 0}
    (interface,) = file.interfaces
    assert (interface.name, interface.description) == ("mem0", "memory, worker 1 of 1")
    assert (interface.snap_bytes, interface.dropped) == (0, 0)
    assert interface.received == interface.written == len(file.frames)
    times = [frame.time_ns for frame in file.frames]
    assert times == sorted(times)
    assert began_ns <= times[0] <= times[-1] <= time.time_ns()
    assert all(frame.len_bytes == len(frame.data) for frame in file.frames)


def test_what_a_port_leaves_in_the_queue_is_written_once(tmp_path: Path) -> None:
    """One that takes a frame at a time, as a socket whose buffer is full."""
    frames = [ffi.new("uint8_t[]", [number] * 60) for number in range(4)]
    descs = ffi.new("struct nmio_tx_desc[]", 4)
    tx = ffi.new("struct nmio_tx *", {"desc": descs, "capacity": 4})

    @ffi.callback("int(struct nmio_port *)")
    def output(port: Any) -> int:
        tx.count -= 1
        ffi.memmove(descs, descs + 1, tx.count * ffi.sizeof("struct nmio_tx_desc"))
        return 0

    def append(frame: Any) -> None:
        descs[tx.count].head = frame
        descs[tx.count].head_bytes = 60
        tx.count += 1

    ops = ffi.new("struct nmio_port_ops *", {"output": output})
    port = ffi.new("struct nmio_port *", {"ops": ops, "tx": tx})
    capture = Capture(CaptureOptions(tmp_path / "x.pcapng"))
    (captured,) = capture.wrap([port], "one", "test")
    append(frames[0])
    append(frames[1])
    captured.ops.output(captured)
    append(frames[2])
    append(frames[3])
    while tx.count:
        captured.ops.output(captured)
    capture.close()
    assert pcapng.read(tmp_path / "x.pcapng").sent() == [bytes(ffi.buffer(frame)) for frame in frames]


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_a_superframe_is_one_large_frame_with_its_checksum(model: ModelImage, tmp_path: Path, v6: bool) -> None:
    run = Captured(model, tmp_path, gather_max=44)
    client = run.download(v6=v6)
    file = run.close()
    large = [Ether(data) for data in file.sent() if len(data) > 1514]
    assert large
    for packet in large:
        checked(packet)
    again = b"".join(client.payload(Ether(data)) for data in file.sent())
    assert again == client.received


def test_the_port_s_counters_show_through(model: ModelImage, tmp_path: Path) -> None:
    run = Captured(model, tmp_path)
    run.download()
    inner = lib.memory_as_port(run.loop.memory)
    for name in ("rx_frames", "rx_bytes", "tx_frames", "tx_bytes", "tx_dropped"):
        assert getattr(run.loop.port.counters, name) == getattr(inner.counters, name)
    assert inner.counters.tx_frames > len(BIG) // 1500
    run.close()


def test_a_snap_length_cuts_frames(model: ModelImage, tmp_path: Path) -> None:
    run = Captured(model, tmp_path, gather_max=44, snap_bytes=101)
    run.download()
    file = run.close()
    assert file.interfaces[0].snap_bytes == 101
    assert max(frame.len_bytes for frame in file.frames) > 20_000
    assert all(len(frame.data) == min(frame.len_bytes, 101) for frame in file.frames)
    assert file.received() == [data[:101] for data in run.fed]


@pytest.mark.parametrize("ring_bytes", [4096, 4099])
def test_what_the_ring_has_no_room_for_is_counted(model: ModelImage, tmp_path: Path, ring_bytes: int) -> None:
    """The worker goes on; what is written is whole, wherever the ring's end cuts it."""
    run = Captured(model, tmp_path, ring_bytes=ring_bytes)
    run.download(drain=lambda: lib.capture_drain(run.capture._capture))
    dropped = run.capture.counters()["capture_dropped"]
    file = run.close()
    assert dropped > 0
    assert len(file.frames) + dropped == len(run.fed) + len(run.taken)
    (interface,) = file.interfaces
    assert (interface.dropped, interface.received) == (dropped, len(run.fed) + len(run.taken))
    told = sum(frame.dropped for frame in file.frames)
    assert 0 < told <= dropped  # those behind the last frame are in the statistics only
    sent, received = iter(run.taken), iter(run.fed)
    for frame in file.frames:  # in their order, with gaps
        assert frame.data in (sent if frame.direction == OUTBOUND else received)


def test_received_checksums_that_are_vouched_for_are_finished(model: ModelImage, tmp_path: Path) -> None:
    run = Captured(model, tmp_path)
    syn = bytes(Client(run).packet("S"))  # type: ignore[arg-type]
    wrong = syn[:-4] + bytes([syn[-4] ^ 0x55]) + syn[-3:]
    for flags in (lib.NMIO_RX_CHECKSUM_OK, 0):
        assert lib.memory_feed(run.loop.memory, wrong, len(wrong), flags)
    run.send()
    finished, as_it_came = run.close().received()
    assert checked(Ether(finished))[TCP].chksum != Ether(wrong)[TCP].chksum
    assert as_it_came == wrong


def test_a_received_checksum_that_may_be_unfinished_is_finished_only_if_it_is(
    model: ModelImage, tmp_path: Path
) -> None:
    run = Captured(model, tmp_path)
    whole = bytes(Client(run).packet("S"))  # type: ignore[arg-type]
    damaged, unfinished = Ether(whole), Ether(whole)
    damaged[TCP].seq ^= 1
    unfinished[TCP].chksum = 0xFFFF - checksum(whole[26:34] + struct.pack("!LL", len(unfinished[TCP]), 6))
    fed = [bytes(damaged), whole, bytes(unfinished)]
    for frame in fed:
        assert lib.memory_feed(run.loop.memory, frame, len(frame), lib.NMIO_RX_CHECKSUM_MAY_BE_PARTIAL)
    run.send()
    assert run.close().received() == [bytes(damaged), whole, whole]


def test_frames_of_several_ports_are_in_order(model: ModelImage, tmp_path: Path) -> None:
    """One file, an interface for each, and the earliest frame first."""
    capture = Capture(CaptureOptions(tmp_path / "x.pcapng"))
    loops = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        wrap = lambda port, name=name: capture.wrap([port], name, "memory")[0]  # noqa: E731
        loops.append(Loop(model, tmp_path / name, delay=0, gather_max=1, wrap=wrap))
    ask = Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=CLIENT_IP, hwsrc=CLIENT_MAC, pdst=SERVER_IP)
    for number in range(20):
        assert len(loops[number % 2].send(ask)) == 1
    for loop in loops:
        lib.worker_destroy(loop.worker)
    capture.close()
    file = pcapng.read(tmp_path / "x.pcapng")
    assert [interface.name for interface in file.interfaces] == ["a", "b"]
    assert [(frame.interface, frame.direction) for frame in file.frames] == [
        (number % 2, direction) for number in range(20) for direction in (INBOUND, OUTBOUND)
    ]
    for loop in loops:
        lib.nmio_port_close(lib.memory_as_port(loop.memory))
        lib.nmio_tx_destroy(loop.tx)
        lib.nmio_region_destroy(loop.region)


def test_the_file_can_be_read_while_it_grows(model: ModelImage, tmp_path: Path) -> None:
    """All that was captured is there soon, though nobody has closed it."""
    run = Captured(model, tmp_path)
    run.capture.start(pytest.fail)
    run.download()
    assert until(lambda: len(pcapng.read(run.path, growing=True).frames) == len(run.fed) + len(run.taken))
    run.close()


def replay(image: Path, folder: Path, *options: str | Path, status: int = 0) -> Any:
    """An ARP request, a SYN and an echo request through the replay port."""
    ether = Ether(src=CLIENT_MAC, dst=kernel.stable_mac("pcap").hex(":"))
    ip = ether / IP(src=CLIENT_IP, dst=SERVER_IP)
    ask = ether / ARP(psrc=CLIENT_IP, hwsrc=CLIENT_MAC, pdst=SERVER_IP)
    wrpcap(str(folder / "in.pcap"), [ask, ip / TCP(sport=9, dport=80, flags="S"), ip / ICMP()])
    iface = f"pcap:{folder}/in.pcap:{folder}/out.pcap"
    return ssrun(image, "--iface", iface, "--address", SERVER_IP, *options, status=status)


def test_a_replay_is_captured(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"as with tcpdump, what was there is gone" * 1000)
    done = replay(image, tmp_path, "--json", "--pcapng", path)
    first, last = (json.loads(line) for line in done.stdout.splitlines())
    assert first["pcapng"] == str(path)
    file = pcapng.read(path)
    assert file.received() == [bytes(packet) for packet in rdpcap(str(tmp_path / "in.pcap"))]
    assert file.sent() == [bytes(packet) for packet in rdpcap(str(tmp_path / "out.pcap"))]
    assert last["counters"]["capture_frames"] == len(file.frames) == 6
    assert last["counters"]["port_tx_frames"] == 3


def test_a_file_that_cant_be_made_is_told(image: Path, tmp_path: Path) -> None:
    done = replay(image, tmp_path, "--pcapng", tmp_path / "none" / "x.pcapng", status=1)
    assert done.stderr.startswith(f"ssrun: --pcapng {tmp_path}/none/x.pcapng: No such file or directory; ")
    assert done.stderr.count("\n") == 1
    assert "4096 bytes at least" in replay(image, tmp_path, "--pcapng-buffer", "1K", status=2).stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_capture_alone(image: Path, tmp_path: Path) -> None:
    done = replay(image, tmp_path, "--json", "--pcapng", "/dev/full")
    events = {event["event"]: event for event in map(json.loads, done.stdout.splitlines())}
    assert events["capture-failed"] == {
        "event": "capture-failed",
        "path": "/dev/full",
        "reason": os.strerror(28),
    }
    assert events["stopped"]["counters"]["port_tx_frames"] == 3
    done = replay(image, tmp_path, "--pcapng", "/dev/full")
    assert "note: /dev/full: No space left on device; the capture ends here" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_only_at_the_end_is_told(image: Path, tmp_path: Path) -> None:
    """No frame came, so nothing is written before the file is finished: that is too late for serving, not for saying so."""
    wrpcap(str(tmp_path / "in.pcap"), [])
    iface = f"pcap:{tmp_path}/in.pcap:{tmp_path}/out.pcap"
    options = ["--iface", iface, "--address", SERVER_IP, "--pcapng", "/dev/full"]
    events = [json.loads(line)["event"] for line in ssrun(image, "--json", *options).stdout.splitlines()]
    assert events == ["serving", "capture-failed", "stopped"]
    stderr = ssrun(image, *options).stderr
    assert stderr.count("note: /dev/full: No space left on device; the capture ends here") == 1


def test_frames_that_are_lacking_are_told_to_people(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    ether = Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=CLIENT_IP, pdst=SERVER_IP)
    wrpcap(str(tmp_path / "in.pcap"), [ether] * 5000)
    iface = f"pcap:{tmp_path}/in.pcap:{tmp_path}/out.pcap"
    options = ["--iface", iface, "--address", SERVER_IP, "--pcapng", path, "--pcapng-buffer", "5K"]
    done = ssrun(image, *options)
    lacking = sum(interface.dropped for interface in pcapng.read(path).interfaces)
    assert lacking > 0
    assert f"note: {path} lacks {lacking} frames" in done.stderr


def test_the_ring_is_bounded_from_below() -> None:
    capture, port = ffi.new("struct capture **"), ffi.new("struct nmio_port **")
    assert lib.capture_open(capture, b"/dev/null", lib.CAPTURE_SNAP_BYTES_MAX + 1, b"ssrun") < 0
    assert lib.capture_open(capture, b"/dev/null", 100, b"ssrun") == 0
    assert lib.capture_add(capture[0], ffi.NULL, 4095, b"", b"", port) < 0
    assert lib.capture_close(capture[0]) == 0
