"""Runs scripted exchanges: what a client sends when, and what the core must answer when. Read by people first.

A script is text, one event a line, `#` for comments:

    host mtu=1500 gather=1            optional, first: how the core is set up
    client ipv6 port=40000            optional: the client, from here on; another port is another connection
    0    < S 0 win 64240 <mss 1460,sackOK,TS,wscale 7>
    0    > S. 0 ack 1 <mss 1460,TS,sackOK,wscale 0>
    +10  < . 1 ack 1
    +0   < P. 1 ack 1 "GET /big"
    +0   > . 1:1429
    +200 > . 1:1429                   the same segment again, 200 ms later

Times are milliseconds, absolute or (with +) after the line before. `<` goes to the core, `>` is what it must say next,
within TOLERANCE_MS of that time. Sequence numbers count from each side's initial one. `N:M` are the bytes N to M - 1;
flags are S, P, F, R, `.` for ACK, E for ECE and W for CWR; a client's data is a string (a request line gets the rest of a request). Of what the core says, only what the line names is
judged; `<sack 5:9 20:30>` are the client's own numbers. `> *` takes any number of segments, `> none` says that there is none up to that time; what no line expects is an
error. With TS in its SYN the client sends timestamps, milliseconds of the script's time, and echoes the last one it saw;
`TS -50` sends one of 50 ms ago, `TS 0 -50` echoes one that is 50 ms older than the last, `noTS` leaves them out from here on.
Also:

    < icmp mtu 1000 seq 1             that our segment at 1 was too big
    counter tcp_tail_probes 1         the core's counter is now this
    cwnd 14600                        bytes, of the one connection; likewise ssthresh
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from ssimage._sandstorm import ffi, lib

from tests.host import CLIENT_IP, CLIENT_IP6, CLIENT_MAC, SERVER_IP, SERVER_IP6, SERVER_MAC, Host, Image, checked

TOLERANCE_MS = 6  # the timer wheel's tick is 4.096 ms
TS_BASE = 1_000_000
FLAGS = {"S": "S", ".": "A", "P": "P", "F": "F", "R": "R", "E": "E", "W": "C"}


class ScriptError(AssertionError):
    """What the core said is not what the script says."""


class Side:
    """One client connection of a script."""

    def __init__(self, words: list[str]) -> None:
        self.v6 = "ipv6" in words
        ports = [int(word[5:]) for word in words if word.startswith("port=")]
        self.port = ports[0] if ports else 40_000
        self.isn = 1_000_000 * self.port
        self.server_isn: int | None = None
        self.timestamps = False
        self.ts_echo = 0

    def ip(self) -> Packet:
        return IPv6(src=CLIENT_IP6, dst=SERVER_IP6) if self.v6 else IP(src=CLIENT_IP, dst=SERVER_IP)

    def server(self, number: int) -> int:
        return ((self.server_isn or 0) + number) % 2**32


class Runner:
    """A core, the script's clients, and what the core said that no line has taken yet."""

    def __init__(self, image: Image, text: str) -> None:
        self.image = image
        self.text = text
        self.host: Host | None = None
        self.settings: dict[str, int] = {}
        self.side = Side([])
        self.sides = {self.side.port: self.side}
        self.now = 0
        self.said: list[tuple[int, Packet]] = []

    def run(self) -> None:
        for number, line in enumerate(self.text.splitlines(), 1):
            words = line.split("#")[0].strip()
            if not words:
                continue
            try:
                self.line(words)
            except AssertionError as error:
                rest = "".join(f"\n    {at} ms: {self.show(packet)}" for at, packet in self.said)
                raise ScriptError(
                    f"line {number}: {words}\n  {error}\n  not taken yet:{rest or ' nothing'}"
                ) from error
        assert not self.said, f"said at the end: {[self.show(packet) for _, packet in self.said]}"

    def line(self, words: str) -> None:
        first, _, rest = words.partition(" ")
        if first == "host":
            self.settings = {key: int(value) for key, value in (word.split("=") for word in rest.split())}
        elif first == "client":
            side = Side(rest.split())
            known = self.sides.get(side.port)
            self.side = known if known is not None and known.server_isn is not None else side
            self.sides[side.port] = self.side
        elif first == "counter":
            name, value = rest.split()
            assert self.core.counters().get(name, 0) == int(value), f"it is {self.core.counters().get(name, 0)}"
        elif first in ("cwnd", "ssthresh"):
            info = ffi.new("struct stack_connection *")
            assert lib.stack_connection_at(self.core.stack, 0, info)
            found = getattr(info, first)
            assert found == int(rest), f"it is {found}"
        else:
            self.event(first, rest.strip())

    @property
    def core(self) -> Host:
        if self.host is None:
            settings = dict(self.settings)
            how = {"gather_max": settings.pop("gather", 1), "mtu": settings.pop("mtu", 1500)}
            how["max_connections"] = settings.pop("max_connections", 64)
            self.host = Host(self.image, **how, config=settings)
        return self.host

    def event(self, time: str, rest: str) -> None:
        direction, _, what = rest.partition(" ")
        at = self.now + int(time[1:]) if time.startswith("+") else int(time)
        if direction == "<":
            self.wait(at)
            if self.said:
                raise AssertionError("before this the core has said what no line took")
            self.take(self.core.send(self.icmp(what) if what.startswith("icmp") else self.segment(what)))
            return
        if what == "none":
            self.wait(at)
            assert not self.said, "the core should have said nothing"
            return
        if what == "*":
            self.wait(at)
            self.said.clear()
            return
        while not self.said and self.now < at + TOLERANCE_MS:
            self.wait(self.now + 1)
        assert self.said, "the core says nothing"
        when, packet = self.said.pop(0)
        self.judge(packet, what)
        assert abs(when - at) <= TOLERANCE_MS, f"it said so at {when} ms, not {at}"
        self.now = max(self.now, at)

    def wait(self, until: int) -> None:
        """Time passes, a millisecond at a time."""
        while self.now < until:
            self.now += 1
            self.take(self.core.advance(1))

    def take(self, packets: list[Packet]) -> None:
        for packet in packets:
            checked(packet)
            side = self.sides[packet[TCP].dport]
            for name, value in packet[TCP].options:
                if name == "Timestamp":
                    side.ts_echo = value[0]
            self.said.append((self.now, packet))

    def options(self, text: str, flags: str) -> list[Any]:
        made: list[Any] = []
        for option in filter(None, text.split(",")):
            name, *values = option.split()
            if name == "mss":
                made.append(("MSS", int(values[0])))
            elif name == "sackOK":
                made.append(("SAckOK", b""))
            elif name == "wscale":
                made.append(("WScale", int(values[0])))
            elif name == "sack":
                edges = [self.side.server(int(edge)) for value in values for edge in value.split(":")]
                made += [("NOP", None), ("NOP", None), ("SAck", tuple(edges))]
            elif name == "noTS":
                self.side.timestamps = False
            elif name == "TS":
                self.side.timestamps = self.side.timestamps or "S" in flags
                ago, echo_ago = (int(value) for value in (*values, "0", "0")[:2])
                made.append(("Timestamp", (TS_BASE + self.now + ago, (self.side.ts_echo + echo_ago) % 2**32)))
            else:
                raise AssertionError(f"no such option: {name}")
        if self.side.timestamps and not any(name == "Timestamp" for name, _ in made):
            made = [("Timestamp", (TS_BASE + self.now, self.side.ts_echo)), *made]
        return made

    def segment(self, text: str) -> Packet:
        """`FLAGS SEQ [ack N] [win N] [<options>] ["data"]`, as the client sends it."""
        options = re.search(r"<(.*)>", text)
        words = shlex.split(re.sub(r"<.*>", "", text))
        flags = "".join(FLAGS[flag] for flag in words.pop(0))
        seq = (self.side.isn + int(words.pop(0))) % 2**32
        fields = {"win": 64240, "ack": 0}
        data = b""
        while words:
            word = words.pop(0)
            if word in fields:
                fields[word] = int(words.pop(0))
            else:
                request = re.fullmatch(r"(GET|HEAD) /\w+", word)
                data = (
                    (f"{word} HTTP/1.1\r\nHost: a\r\n\r\n" if request else word).encode().replace(b"\\r\\n", b"\r\n")
                )
        ack = self.side.server(fields["ack"]) if "A" in flags else 0
        tcp = TCP(sport=self.side.port, dport=80, flags=flags, seq=seq, ack=ack, window=fields["win"])
        tcp.options = self.options(options[1] if options else "", flags)
        frame = Ether(src=CLIENT_MAC, dst=SERVER_MAC) / self.side.ip() / tcp
        return frame / Raw(data) if data else frame

    def icmp(self, text: str) -> Packet:
        """`icmp mtu N seq N`: a router had no room for our segment."""
        words = text.split()
        mtu, seq = int(words[2]), self.side.server(int(words[4]))
        quoted = TCP(sport=80, dport=self.side.port, seq=seq)
        ether = Ether(src=CLIENT_MAC, dst=SERVER_MAC)
        if self.side.v6:
            inner: Packet = IPv6(src=SERVER_IP6, dst=CLIENT_IP6) / quoted
            return ether / IPv6(src="2001:db8:9::1", dst=SERVER_IP6) / ICMPv6PacketTooBig(mtu=mtu) / inner
        inner = IP(src=SERVER_IP, dst=CLIENT_IP, flags="DF") / quoted
        return ether / IP(src="192.0.2.254", dst=SERVER_IP) / ICMP(type=3, code=4, nexthopmtu=mtu) / inner

    def judge(self, packet: Packet, text: str) -> None:
        """Is this what the line says?"""
        tcp = packet[TCP]
        options = re.search(r"<(.*)>", text)
        words = re.sub(r"<.*>", "", text).split()
        wanted = "".join(FLAGS[flag] for flag in words.pop(0))
        if "S" in wanted:
            self.side.server_isn = tcp.seq
        said = self.show(packet)
        assert tcp.dport == self.side.port, f"it said {said} to port {tcp.dport}"
        assert set(str(tcp.flags)) == set(wanted), f"it said {said}"
        place = words.pop(0)
        start, _, end = place.partition(":")
        assert tcp.seq == self.side.server(int(start)), f"it said {said}"
        size = self.size(packet)
        assert size == (int(end) - int(start) if end else 0), f"it said {said}"
        for name, value in zip(words[::2], words[1::2], strict=True):
            found = tcp.window if name == "win" else (tcp.ack - self.side.isn) % 2**32
            assert found == int(value), f"it said {said}"
        if options:
            names = {"MSS": "mss", "SAckOK": "sackOK", "WScale": "wscale", "Timestamp": "TS", "SAck": "sack"}
            found_options = {names[name]: value for name, value in tcp.options if name in names}
            listed = dict((*option.split(maxsplit=1), "")[:2] for option in options[1].split(","))
            assert found_options.keys() == listed.keys(), f"it said {said}"
            for name, value in listed.items():
                assert not value or self.shown(name, found_options[name]) == value, f"it said {said}"

    def shown(self, name: str, value: Any) -> str:
        """An option's value as a script has it."""
        if name != "sack":
            return str(value)
        edges = [(edge - self.side.isn) % 2**32 for edge in value]
        return " ".join(f"{start}:{end}" for start, end in zip(edges[::2], edges[1::2], strict=True))

    @staticmethod
    def size(packet: Packet) -> int:
        tcp = packet[TCP]
        if IP in packet:
            return int(packet[IP].len - packet[IP].ihl * 4 - tcp.dataofs * 4)
        return int(packet[IPv6].plen - tcp.dataofs * 4)

    def show(self, packet: Packet) -> str:
        tcp = packet[TCP]
        flags = str(tcp.flags).replace("A", "") + ("." if "A" in str(tcp.flags) else "")
        seq = (tcp.seq - (self.side.server_isn or 0)) % 2**32
        size = self.size(packet)
        place = f"{seq}:{seq + size}" if size else str(seq)
        return f"{flags} {place} ack {(tcp.ack - self.side.isn) % 2**32} win {tcp.window} {tcp.options}"


def scripts() -> list[Path]:
    return sorted(Path(__file__).parent.glob("*.script"))
