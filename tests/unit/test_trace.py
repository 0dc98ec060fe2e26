"""A port whose frames are looked at: what is kept of a client's, beside what went in and out, and what it says as text."""

from __future__ import annotations

import errno
import ipaddress
import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from ssimage._sandstorm import ffi, lib
from ssrun import segments, trace_view
from ssrun.errors import SsrunError
from ssrun.events import Events
from ssrun.traces import DAMAGED, NOBODY, Traces, client_filter
from ssrun.tracing import Tracing

from tests.host import CLIENT_IP, CLIENT_IP6, CLIENT_MAC, SERVER_IP, SERVER_MAC, Client
from tests.model import ModelImage, Page
from tests.net import shared_memory
from tests.unit.test_ports_memory import Loop

BIG = bytes(range(251)) * 400
REQUEST = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
MOST = 10_000
ETHER = Ether(src=CLIENT_MAC, dst=SERVER_MAC)


@pytest.fixture(scope="module")
def model() -> ModelImage:
    return ModelImage({"/big": Page(BIG)})


class Traced:
    """A worker over a memory port that can be looked at, and all that was fed to it and taken from it."""

    def __init__(self, model: ModelImage, folder: Path, gather_max: int = 1, delay: int = 0) -> None:
        self.stack = ExitStack()
        self.loop = Loop(model, folder, delay=delay, gather_max=gather_max, wrap=self.wrap)
        self.frames: list[tuple[bool, bytes]] = []  # received?

    def wrap(self, port: Any) -> Any:
        self.traces = Traces([port], self.stack)
        return port

    def look(self, session: int, address: str, port: int = 0) -> None:
        self.traces.skip()
        self.traces.set_here(client_filter(session, ipaddress.ip_address(address).packed, port))

    def read(self, session: int = 1) -> list[tuple[bool, int, bytes]]:
        frames, dropped = self.traces.read(session, MOST)
        assert dropped == 0
        assert [each[0] for each in frames] == sorted(each[0] for each in frames)
        return [(received, len_bytes, bytes.fromhex(head)) for _, _, received, len_bytes, _, head in frames]

    def send(self, *packets: Packet | bytes) -> list[Packet]:
        taken = self.loop.send(*packets)
        self.frames += [(True, bytes(packet)) for packet in packets]
        self.frames += [(False, bytes(packet)) for packet in taken]
        return taken

    def download(self, **how: Any) -> Client:
        """All of /big over one connection."""
        client = Client(self, **how)  # type: ignore[arg-type]
        client.connect()
        frames = self.send(client.packet("PA", REQUEST))
        client.seq += len(REQUEST)
        idle = 0
        while idle < 8:
            client.note(frames, check=False)
            idle = 0 if frames else idle + 1
            frames = self.send(client.packet("A"))
        assert BIG in client.received
        return client

    def close(self) -> None:
        lib.worker_destroy(self.loop.worker)
        self.stack.close()
        lib.nmio_port_close(lib.memory_as_port(self.loop.memory))
        lib.nmio_tx_destroy(self.loop.tx)
        lib.nmio_region_destroy(self.loop.region)


@pytest.fixture
def run(model: ModelImage, tmp_path: Path) -> Iterator[Traced]:
    made = Traced(model, tmp_path)
    yield made
    made.close()


def heads(frames: list[tuple[bool, bytes]]) -> list[tuple[bool, int, bytes]]:
    return [(received, len(data), data[: lib.TRACE_HEAD_BYTES]) for received, data in frames]


@pytest.mark.parametrize("delay", [0, 3], ids=["prompt", "slow"])
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_every_frame_of_a_client_once(model: ModelImage, tmp_path: Path, delay: int, v6: bool) -> None:
    run = Traced(model, tmp_path, delay=delay)
    run.look(1, CLIENT_IP6 if v6 else CLIENT_IP)
    run.download(v6=v6)
    kept = run.read()
    wanted = heads(run.frames)
    assert sorted(kept) == sorted(wanted)
    assert [each for each in kept if each[0]] == [each for each in wanted if each[0]]
    assert [each for each in kept if not each[0]] == [each for each in wanted if not each[0]]
    before = len(run.frames)
    run.download(v6=not v6, port=40001)  # somebody else
    assert len(run.frames) > before
    assert run.read() == []
    run.close()


def test_one_port_of_a_client(run: Traced) -> None:
    run.look(1, CLIENT_IP, port=40001)
    run.download(port=40000)
    assert run.read() == []
    run.frames.clear()
    run.download(port=40001)
    assert sorted(run.read()) == sorted(heads(run.frames))


def test_who_does_not_look_has_the_port_as_it_is(run: Traced) -> None:
    own = run.loop.port.ops
    run.download(port=40000)
    assert run.loop.port.ops == own
    run.look(1, CLIENT_IP)
    assert run.loop.port.ops != own
    run.download(port=40001)
    run.traces.set_here(NOBODY)
    assert run.loop.port.ops == own
    count = len(run.read())
    assert count > 0
    run.download(port=40002)
    assert run.read() == []


def test_what_was_kept_for_another_is_nobody_s(run: Traced) -> None:
    run.look(1, CLIENT_IP)
    run.download(port=40000)
    run.traces.set_here(client_filter(2, ipaddress.ip_address(CLIENT_IP).packed, 0))  # before it was read
    run.frames.clear()
    run.download(port=40001)
    assert sorted(run.read(2)) == sorted(heads(run.frames))


def test_what_there_is_no_room_for_is_counted(run: Traced) -> None:
    run.look(1, CLIENT_IP)
    port = 40000
    while len(run.frames) < lib.TRACE_RECORDS + 100:
        run.download(port=port)
        port += 1
    sent = len(run.frames)
    frames, dropped = run.traces.read(1, MOST)
    assert (len(frames), dropped) == (lib.TRACE_RECORDS, 0)
    run.send(run_packet())
    frames, dropped = run.traces.read(1, MOST)
    assert dropped == sent - lib.TRACE_RECORDS
    assert len(frames) == len(run.frames) - sent


def run_packet() -> Packet:
    return (
        Ether(src=CLIENT_MAC, dst=SERVER_MAC) / IP(src=CLIENT_IP, dst=SERVER_IP) / TCP(sport=1, dport=80, flags="A")
    )


def test_superframes_say_of_what_they_are(model: ModelImage, tmp_path: Path) -> None:
    run = Traced(model, tmp_path, gather_max=44)
    run.look(1, CLIENT_IP)
    run.download()
    frames, _ = run.traces.read(1, MOST)
    seen = [
        segments.read_frame(bytes.fromhex(head), len_bytes)
        for _, _, received, len_bytes, _, head in frames
        if not received
    ]
    total = sum(each.len_bytes for each in seen if each is not None)
    answers = sum(
        len(bytes(Ether(data)[TCP].payload)) for received, data in run.frames if not received and len(data) > 100
    )
    assert total == answers > len(BIG)
    assert {gso for _, _, received, _, gso, _ in frames if not received} > {0}
    run.close()


def test_it_sees_what_the_filter_can_and_no_more(run: Traced) -> None:
    """Short frames, other protocols, fragments, tags: what may be TCP of that port is kept."""
    run.look(1, CLIENT_IP, port=40000)
    whole = bytes(ETHER / IP(src=CLIENT_IP, dst=SERVER_IP) / TCP(sport=40000, dport=80, flags="A"))
    for size in range(14, 38):
        run.send(whole[:size])
    kept = [len_bytes for received, len_bytes, _ in run.read() if received]
    assert kept == [34, 35, 36, 37]  # an IP header, and no ports that could be another's
    run.send(ETHER / IP(src=CLIENT_IP, dst=SERVER_IP) / ICMP())
    run.send(ETHER / IP(src=SERVER_IP, dst=SERVER_IP) / TCP(sport=40000))
    run.send(ETHER / IP(src=CLIENT_IP, dst=SERVER_IP) / TCP(sport=40001))
    assert [each for each in run.read() if each[0]] == []
    run.send(ETHER / IP(src=CLIENT_IP, dst=SERVER_IP, frag=5, proto=6) / Raw(b"x" * 30))
    run.send(ETHER / Dot1Q(vlan=0) / IP(src=CLIENT_IP, dst=SERVER_IP) / TCP(sport=40000, flags="A"))
    assert len([each for each in run.read() if each[0]]) == 2
    run.look(2, CLIENT_IP6, port=40000)
    v6 = IPv6(src=CLIENT_IP6, dst="2001:db8::9")
    for size in range(14, 54):
        run.send(bytes(ETHER / v6 / TCP(sport=40000))[:size])
    assert run.read(2) == []
    run.send(ETHER / v6 / IPv6ExtHdrDestOpt() / TCP(sport=40000))
    assert len(run.read(2)) == 1


def test_what_a_port_leaves_in_the_queue_is_kept_once() -> None:
    """One that takes a frame at a time, as a socket whose buffer is full."""
    frames = [
        bytes(run_packet().copy())[:14] + bytes(IP(src=SERVER_IP, dst=CLIENT_IP) / TCP(dport=number))
        for number in range(4)
    ]
    memory = [ffi.new("uint8_t[]", frame) for frame in frames]
    descs = ffi.new("struct nmio_tx_desc[]", 4)
    tx = ffi.new("struct nmio_tx *", {"desc": descs, "capacity": 4})

    @ffi.callback("int(struct nmio_port *)")
    def output(_: Any) -> int:
        tx.count -= 1
        ffi.memmove(descs, descs + 1, tx.count * ffi.sizeof("struct nmio_tx_desc"))
        return 0

    def append(number: int) -> None:
        descs[tx.count].head = memory[number]
        descs[tx.count].head_bytes = len(frames[number])
        tx.count += 1

    ops = ffi.new("struct nmio_port_ops *", {"output": output})
    port = ffi.new("struct nmio_port *", {"ops": ops, "tx": tx})
    with ExitStack() as stack:
        traces = Traces([port], stack)
        traces.set_here(client_filter(1, ipaddress.ip_address(CLIENT_IP).packed, 0))
        append(0)
        append(1)
        port.ops.output(port)
        append(2)
        append(3)
        while tx.count:
            port.ops.output(port)
        assert [bytes.fromhex(head) for *_, head in traces.read(1, MOST)[0]] == frames
    assert port.ops == ops


@pytest.mark.parametrize("rubbish", [b"\0", b"\xff", b"\x41", None])
@pytest.mark.parametrize("from_byte", [0, 8, 128])
def test_nothing_is_believed_of_its_memory(
    model: ModelImage, tmp_path: Path, rubbish: bytes | None, from_byte: int
) -> None:
    known = shared_memory(os.getpid())
    run = Traced(model, tmp_path)
    (ring,) = (
        start
        for start, size in shared_memory(os.getpid()) - known
        if size >= lib.TRACE_RECORDS * ffi.sizeof("struct trace_record")
        and size < 2 * lib.TRACE_RECORDS * ffi.sizeof("struct trace_record")
    )
    run.look(1, CLIENT_IP)
    run.download()
    size = lib.TRACE_RECORDS * 64
    data = random.Random(1).randbytes(size) if rubbish is None else rubbish * size
    ffi.memmove(ffi.cast("uint8_t *", ring + from_byte), data, size - from_byte)
    frames, said = [], ""
    try:
        frames, _ = run.traces.read(1, MOST)
    except SsrunError as error:
        said = str(error)
    assert said in ("", DAMAGED)
    assert not said or rubbish != b"\0"
    assert len(frames) <= lib.TRACE_RECORDS
    for _, _, _, len_bytes, _, head in frames:
        segments.read_frame(bytes.fromhex(head), len_bytes)
    run.close()


class Opened:
    interface, backend = "eth0", "test"


def described(packet: Packet, **extra: Any) -> dict[str, Any]:
    data = bytes(packet)
    segment = segments.read_frame(data, len(data))
    assert segment is not None
    received = packet[TCP].dport == 80
    return segments.Teller().document(segment, 0, received, 0) | extra


OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 9)), ("NOP", None), ("WScale", 7), (253, b"xy")]


@pytest.mark.parametrize(
    "ip",
    [
        IP(src=CLIENT_IP, dst=SERVER_IP),
        IP(src=CLIENT_IP, dst=SERVER_IP, options=[b"\x01\x01\x01\x00"]),
        IPv6(src=CLIENT_IP6, dst="2001:db8::9"),
        IPv6(src=CLIENT_IP6, dst="2001:db8::9") / IPv6ExtHdrDestOpt(),
        IPv6(src=CLIENT_IP6, dst="2001:db8::9") / IPv6ExtHdrFragment(offset=0, m=0),
        Dot1Q(vlan=0) / IP(src=CLIENT_IP, dst=SERVER_IP),
    ],
)
def test_a_segment_is_read_whatever_it_is_in(ip: Packet) -> None:
    packet = ETHER / ip / TCP(sport=40000, dport=80, flags="SEC", seq=5, window=1000, options=OPTIONS)
    told = described(packet)
    assert told["flags"] == ["SYN", "ECE", "CWR"]
    assert (told["seq"], told["ack"], told["len_bytes"], told["window"]) == (0, None, 0, 1000)
    assert told["options"] == {
        "mss": 1460,
        "window_scale": 7,
        "sack_permitted": True,
        "timestamps": [7, 9],
        "others": [253],
    }
    assert told["client"] == (f"{CLIENT_IP}:40000" if ip.haslayer(IP) else f"[{CLIENT_IP6}]:40000")
    padded = bytes(packet) + b"\0" * 20  # as Ethernet has it
    segment = segments.read_frame(padded, len(padded))
    assert segment is not None
    assert segment.len_bytes == 0


@pytest.mark.parametrize(
    "packet",
    [
        ETHER / IP(src=CLIENT_IP, frag=3, proto=6) / Raw(b"x" * 40),
        ETHER / IP(src=CLIENT_IP) / ICMP(),
        ETHER / IPv6(src=CLIENT_IP6) / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(b"x" * 40),
        Ether(src=CLIENT_MAC, dst=SERVER_MAC, type=0x1234) / Raw(b"x" * 60),
    ],
)
def test_what_is_no_segment_is_none(packet: Packet) -> None:
    assert segments.read_frame(bytes(packet), len(packet)) is None


def conversation() -> list[tuple[bool, Packet]]:
    isn, theirs = 2**32 - 3, 0xFFFF0000

    def mine(flags: str, seq: int, ack: int, data: bytes = b"", **more: Any) -> tuple[bool, Packet]:
        tcp = TCP(
            sport=40000, dport=80, flags=flags, seq=(isn + seq) % 2**32, ack=(theirs + ack) % 2**32, window=10, **more
        )
        return True, ETHER / IP(src=CLIENT_IP, dst=SERVER_IP) / tcp / Raw(data)

    def other(flags: str, seq: int, ack: int, data: bytes = b"", **more: Any) -> tuple[bool, Packet]:
        tcp = TCP(
            sport=80, dport=40000, flags=flags, seq=(theirs + seq) % 2**32, ack=(isn + ack) % 2**32, window=20, **more
        )
        return False, ETHER / IP(src=SERVER_IP, dst=CLIENT_IP) / tcp / Raw(data)

    sack = [("SAck", ((theirs + 70000) % 2**32, (theirs + 70001) % 2**32))]
    return [
        mine("S", 0, -theirs, options=[("WScale", 7)]),
        other("SA", 0, 1, options=[("WScale", 2)]),
        mine("PA", 1, 1, b"hello"),
        other("A", 1, 6, b"x" * 1000),
        mine("A", 6, 1001, options=sack),
        mine("A", 0, 1001, b"k"),  # a keep-alive probe
        other("FA", 1001, 6),
        mine("R", 6, 0),
    ]


def told_of(packets: list[tuple[bool, Packet]]) -> list[str]:
    teller = segments.Teller()
    said = []
    for number, (received, packet) in enumerate(packets):
        segment = segments.read_frame(bytes(packet), len(packet))
        assert segment is not None
        said += segments.lines(teller.document(segment, 5_000_000_000 + number * 1_500_000, received, 0))
    return said


def test_a_connection_is_told_from_its_beginning() -> None:
    assert told_of(conversation()) == [
        f"{CLIENT_IP}:40000 and {SERVER_IP}:80:",
        "   0.000000  40000 -> SYN      seq 0  len 0  win 10  WS 7",
        "   0.001500  40000 <- SYN ACK  seq 0  ack 1  len 0  win 20  WS 2",
        "   0.003000  40000 -> PSH ACK  seq 1  ack 1  len 5  win 1280",
        "   0.004500  40000 <- ACK      seq 1  ack 6  len 1000  win 80",
        "   0.006000  40000 -> ACK      seq 6  ack 1001  len 0  win 1280  SACK 70000-70001",
        "   0.007500  40000 -> ACK      seq 0  ack 1001  len 1  win 1280",
        "   0.009000  40000 <- FIN ACK  seq 1001  ack 6  len 0  win 80",
        "   0.010500  40000 -> RST      seq 6  len 0  win 1280",
    ]


def test_one_whose_beginning_was_not_seen_begins_at_1() -> None:
    said = told_of(conversation()[3:6])
    assert said[1] == "   0.000000  40000 <- ACK      seq 1  ack 1  len 1000  win 20 unscaled"
    assert said[2] == "   0.001500  40000 -> ACK      seq 1  ack 1001  len 0  win 10 unscaled  SACK 70000-70001"
    assert said[3].startswith("   0.003000  40000 -> ACK      seq -5 ")


@given(
    st.binary(max_size=200),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from([0x0800, 0x86DD, 0x8100]),
    st.booleans(),
)
def test_whatever_comes_is_a_line_or_nothing(
    data: bytes, len_bytes: int, received: bool, kind: int, is_tcp: bool
) -> None:
    """And no control character."""
    frame = bytearray(b"\0" * 12 + kind.to_bytes(2) + data)
    if is_tcp and len(frame) > 60:
        at = 18 if kind == 0x8100 else 14
        frame[at] = 0x45 if kind != 0x86DD else 0x60
        frame[at + (6 if kind == 0x86DD else 9)] = 6
    segment = segments.read_frame(bytes(frame), len_bytes)
    if segment is None:
        return
    teller = segments.Teller()
    for _ in range(2):
        for line in segments.lines(teller.document(segment, 0, received, len_bytes % 2000)):
            assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("192.0.2.7", ("192.0.2.7", 0)),
        ("192.0.2.7:50412", ("192.0.2.7", 50412)),
        ("2001:db8::7", ("2001:db8::7", 0)),
        ("[2001:db8::7]", ("2001:db8::7", 0)),
        ("[2001:db8::7]:1", ("2001:db8::7", 1)),
    ],
)
def test_a_client_is_an_address_perhaps_with_a_port(text: str, client: tuple[str, int]) -> None:
    found = trace_view.parse_client(text)
    assert (str(found.address), found.port) == client
    assert str(found) in (text, text.strip("[]"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "192.0.2.7:",
        "192.0.2.7:0",
        "192.0.2.7:65536",
        "192.0.2.7:x",
        "[::1",
        "[::1]x",
        "[::1]:",
        ":80",
        "1.2.3",
        "::1:",
        "192.0.2.0/24",
    ],
)
def test_what_is_no_client_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        trace_view.parse_client(text)


def run_filter(program: bytes, kind: int, packet: bytes) -> int:
    """As the kernel does (linux/filter.h)."""
    code = list(struct.iter_unpack("=HBBI", program))
    at, value = 0, 0
    while True:
        instruction, if_true, if_false, k = code[at]
        at += 1
        if instruction == trace_view.LOAD_HALF:
            assert k == trace_view.PROTOCOL_OFFSET
            value = kind
        elif instruction == trace_view.LOAD_WORD:
            if k + 4 > len(packet):
                return 0
            value = int.from_bytes(packet[k : k + 4])
        elif instruction == trace_view.IF_EQUAL:
            at += if_true if value == k else if_false
        else:
            return k


def test_the_kernel_hands_on_what_is_the_client_s() -> None:
    v4, v6 = ipaddress.ip_address(CLIENT_IP), ipaddress.ip_address(CLIENT_IP6)
    other = ipaddress.ip_address(int(v6) ^ 1)

    def packet(source: Any, target: Any) -> tuple[int, bytes]:
        if source.version == 4:
            return 0x0800, bytes(IP(src=str(source), dst=str(target)) / TCP())
        return 0x86DD, bytes(IPv6(src=str(source), dst=str(target)) / TCP())

    here = ipaddress.ip_address(SERVER_IP)
    for program, mine, theirs in (
        (trace_view.client_filter(v4), v4, here),
        (trace_view.client_filter(v6), v6, other),
    ):
        assert run_filter(program, *packet(mine, theirs)) == trace_view.READ_BYTES
        assert run_filter(program, *packet(theirs, mine)) == trace_view.READ_BYTES
        assert run_filter(program, *packet(theirs, theirs)) == 0
        assert run_filter(program, 0x0806, packet(mine, theirs)[1]) == 0
        assert run_filter(program, packet(mine, mine)[0], b"\x45") == 0


class OneServer:
    """What Tracing needs of a server, which has one memory port."""

    def __init__(self, run: Traced) -> None:
        self.traces, self.opened, self.traced = run.traces, Opened, NOBODY

    def trace(self, client: dict[str, Any], begun: Callable[[], None]) -> None:
        self.traced = client
        self.traces.set_here(client)
        begun()


@pytest.fixture
def tracing(run: Traced, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Tracing, OneServer]]:
    events = Events()
    made, server = Tracing(events), OneServer(run)
    monkeypatch.setattr("ssrun.tracing.Server", OneServer)
    made.begins(server)  # type: ignore[arg-type]
    yield made, server
    events.close()


def ask(do: Callable[..., None], **asked: Any) -> dict[str, Any]:
    answers: list[dict[str, Any]] = []
    do(asked, answers.append)
    return answers[0]


def test_one_client_at_a_time_is_traced(run: Traced, tracing: tuple[Tracing, OneServer]) -> None:
    made, server = tracing
    first = ask(made.begin, client=CLIENT_IP)["trace"]
    with pytest.raises(SsrunError, match="one can be traced at a time"):
        ask(made.begin, client=CLIENT_IP)
    run.send(run_packet())
    answer = ask(made.read, trace=first)
    assert len(answer["frames"]) == len(run.frames)
    ask(made.end, trace=first + 1)  # another's
    assert server.traced is not NOBODY
    ask(made.end, trace=first)
    assert server.traced is NOBODY
    with pytest.raises(SsrunError, match="the trace is over"):
        ask(made.read, trace=first)
    assert ask(made.begin, client=CLIENT_IP6, port=5)["trace"] != first
    made.ended()
    with pytest.raises(SsrunError, match="nothing is served yet"):
        ask(made.begin, client=CLIENT_IP)


@pytest.mark.parametrize(
    "asked",
    [{}, {"client": 5}, {"client": "x"}, {"client": CLIENT_IP, "port": "x"}, {"client": CLIENT_IP, "port": -1}],
)
def test_what_is_no_client_is_refused(tracing: tuple[Tracing, OneServer], asked: dict[str, Any]) -> None:
    made, server = tracing
    with pytest.raises(SsrunError, match="must be"):
        ask(made.begin, **asked)
    assert server.traced is NOBODY


def test_who_reads_no_more_traces_no_more(
    run: Traced, tracing: tuple[Tracing, OneServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, server = tracing
    monkeypatch.setattr("ssrun.tracing.LEASE_S", 0.0)
    ask(made.begin, client=CLIENT_IP)
    made._events.wait(0)
    assert server.traced is NOBODY


def test_damage_ends_a_trace(
    run: Traced, tracing: tuple[Tracing, OneServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, server = tracing
    begun = ask(made.begin, client=CLIENT_IP)
    monkeypatch.setattr(
        "ssrun.traces.lib", type("Lib", (), {"trace_next": lambda *_: -errno.EBADMSG, "trace_set": lambda *_: None})
    )
    with pytest.raises(SsrunError, match="damaged"):
        ask(made.read, trace=begun["trace"])
    monkeypatch.undo()
    assert server.traced is NOBODY
