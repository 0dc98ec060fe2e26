"""`ssrun trace`: one client's segments as they come and go, up to a bound."""

from __future__ import annotations

import ipaddress
import json
import os
import select
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ssimage import console

from . import control
from .addresses import ANY4, ANY6, Address4or6
from .errors import SsrunError
from .interrupts import Ending, ended_by_signals
from .segments import Segment, Teller, lines, read_frame, read_packet

POLL_S = 0.05
LAST_READS = 8  # for what has come before the end
READ_BYTES = 160  # of a packet's head
READ_MAX = 1000  # packets at once
SAID_BYTES = 64  # of a packet: its time
BUFFER_BYTES = 16 << 20  # packets wait there whole
# The kernel's numbers: linux/if_ether.h, linux/if_packet.h, linux/filter.h, asm-generic/socket.h
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, 0x0800, 0x86DD
PACKET_OUTGOING, ARPHRD_LOOPBACK = 4, 772
SOL_PACKET, PACKET_STATISTICS, STATISTICS_BYTES = 263, 6, 8
SO_ATTACH_FILTER, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 26, 33, 35
LOAD_WORD, LOAD_HALF, IF_EQUAL, RETURN = 0x20, 0x28, 0x15, 0x06
PROTOCOL_OFFSET = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL
ANY_HOST = (ANY4, ANY6)


@dataclass(frozen=True)
class Client:
    """Whose segments."""

    address: Address4or6
    port: int  # 0: any

    def __str__(self) -> str:
        """As it was asked for."""
        host = f"[{self.address}]" if self.port and self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}" if self.port else host


def parse_client(text: str) -> Client:
    """ADDR, ADDR:PORT or [ADDR]:PORT. Raises ValueError."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(text)
        port = port.removeprefix(":") if port else ""
        if text.endswith(":"):
            raise ValueError(text)
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            raise ValueError(text)
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(text)
    return Client(ipaddress.ip_address(host), int(port or 0))


@dataclass
class Seen:
    """A segment, when and where."""

    segment: Segment | None  # None: no TCP header is to be seen
    time_ns: int
    received: bool  # from the client
    gso_bytes: int = 0


class Source(Protocol):
    """Where segments come from."""

    where: str

    @property
    def missed(self) -> int:
        """How many came too fast."""

    def read(self, timeout_s: float) -> list[Seen]:
        """What has come; waits for it. Raises SsrunError."""

    def close(self) -> None:
        """Nobody looks any more."""


class OfServer:
    """What its ports see, asked for over the control socket."""

    def __init__(self, path: Path, begun: dict[str, Any]) -> None:
        """begun: what it has answered."""
        self.path = path
        self.trace = begun["trace"]
        self.where = f"{begun['interface']} ({begun['backend']})"
        self.missed = 0
        self.has_more = False  # than there was room for in an answer

    def read(self, timeout_s: float) -> list[Seen]:
        if not self.has_more:
            time.sleep(min(POLL_S, timeout_s))
        answer = control.ask(self.path, {"command": "trace-read", "trace": self.trace})
        self.missed += answer["dropped"]
        self.has_more = answer["has_more"]
        seen = []
        for time_ns, _, received, len_bytes, gso_bytes, head in sorted(answer["frames"]):
            seen.append(Seen(read_frame(bytes.fromhex(head), len_bytes), time_ns, received, gso_bytes))
        return seen

    def close(self) -> None:
        with suppress(SsrunError):  # it has ended
            control.ask(self.path, {"command": "trace-end", "trace": self.trace})


def client_filter(address: Address4or6) -> bytes:
    """A program for the kernel (classic BPF), of packets from their IP header on: those from and to an address."""
    words = struct.unpack(f"!{len(address.packed) // 4}I", address.packed)
    first = 12 if address.version == 4 else 8  # where the source is; the destination is behind it
    program = [(LOAD_HALF, 0, 0, PROTOCOL_OFFSET)]
    each = 2 * len(words)
    kind = ETH_P_IP if address.version == 4 else ETH_P_IPV6
    program.append((IF_EQUAL, 0, 2 * each + 2, kind))  # else refuse
    for at in (first, first + len(address.packed)):
        for number, word in enumerate(words):
            program.append((LOAD_WORD, 0, 0, at + 4 * number))
            # Else past what is left of this address: on to the next, or to where it is refused.
            program.append((IF_EQUAL, 0, 2 * (len(words) - number - 1) + 1, word))
        program.append((RETURN, 0, 0, READ_BYTES))
    program.append((RETURN, 0, 0, 0))
    return b"".join(struct.pack("=HBBI", *each) for each in program)


class OfKernel:
    """What the kernel's TCP sends and gets (--listen), as tcpdump would see it."""

    def __init__(self, client: Client, sockets: list[list[Any]], pid: int) -> None:
        """sockets: addresses and ports that are listened on, by that process. Raises SsrunError."""
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"):
                raise SsrunError(
                    f"it runs in another network namespace; go there: nsenter --net --target {pid} ssrun trace ..."
                )
        self.client = client
        self.sockets = [(host, port) for host, port in sockets]
        self.where = "the kernel's TCP"
        self.interface = ""  # where the first one was seen: a bridge would show each twice
        try:
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        except PermissionError:
            raise SsrunError(
                "with --listen segments are the kernel's: only root, or who has CAP_NET_RAW, may see them; try sudo"
            ) from None
        try:
            self._prepare()
        except OSError as error:
            self.sock.close()
            raise SsrunError(f"the kernel shows no segments: {error.strerror}") from None

    def _prepare(self) -> None:
        """The kernel leaves out what is another's; so do we, as some may have come before."""
        program = client_filter(self.client.address)
        import ctypes  # noqa: PLC0415, which is needed for nothing else

        buffer = ctypes.create_string_buffer(program)
        described = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        with suppress(PermissionError):  # it takes CAP_NET_ADMIN
            self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)

    @property
    def missed(self) -> int:
        """As the kernel counts it; reading sets it to zero."""
        _, drops = struct.unpack("=II", self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, STATISTICS_BYTES))
        return int(drops)

    def read(self, timeout_s: float) -> list[Seen]:
        """One call for each packet, so several at once."""
        select.select([self.sock], [], [], min(POLL_S, timeout_s))
        seen: list[Seen] = []
        try:
            for _ in range(READ_MAX):
                packet, said, _, address = self.sock.recvmsg(READ_BYTES, SAID_BYTES, socket.MSG_DONTWAIT)
                seen += self._seen(packet, said, address)
        except BlockingIOError:
            pass
        except OSError as error:
            raise SsrunError(f"the kernel shows no more segments: {error.strerror}") from None
        return seen

    def _seen(self, packet: bytes, said: list[tuple[int, int, bytes]], address: tuple[Any, ...]) -> list[Seen]:
        """Of a packet; empty: it is none that is wanted."""
        interface, _, direction, hardware, _ = address
        if hardware == ARPHRD_LOOPBACK and direction == PACKET_OUTGOING:  # it comes in, too
            return []
        segment = read_packet(packet, len(packet))
        if segment is None or not self._is_served(segment):
            return []
        self.interface = self.interface or interface
        if interface != self.interface:
            return []
        return [Seen(segment, _time_ns(said), self._is_clients(segment.source))]

    def _is_clients(self, place: tuple[str, int]) -> bool:
        return place[0] == str(self.client.address) and not self._listens(place)

    def _listens(self, place: tuple[str, int]) -> bool:
        return any(place[1] == port and host in (place[0], *ANY_HOST) for host, port in self.sockets)

    def _is_served(self, segment: Segment) -> bool:
        ends = (segment.source, segment.target)
        for client, server in (ends, ends[::-1]):
            if client[0] == str(self.client.address) and self._listens(server):
                return self.client.port in (0, client[1])
        return False

    def close(self) -> None:
        self.sock.close()


def _time_ns(said: list[tuple[int, int, bytes]]) -> int:
    for _, kind, data in said:
        if kind == SO_TIMESTAMPNS and len(data) == 16:
            seconds, nanoseconds = struct.unpack("=qq", data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()


class View:
    """What is printed."""

    def __init__(self, client: Client, as_json: bool) -> None:
        """as_json: an object a line."""
        self.client = client
        self.as_json = as_json
        self.teller = Teller()
        self.shown = 0
        self.hidden = 0  # that have no TCP header to be seen

    def begin(self, where: str) -> None:
        """Somebody who waits is told for what."""
        if self.as_json:
            console.write(json.dumps({"event": "begin", "client": str(self.client), "where": where}) + "\n")
        else:
            text = f"segments of {self.client} on {where}; -> comes from it, <- goes to it; Ctrl-C ends this"
            console.say(f"ssrun: {text}", err=True)

    def show(self, seen: Seen) -> bool:
        """False: nobody takes it."""
        if seen.segment is None:
            self.hidden += 1
            return True
        told = self.teller.document(seen.segment, seen.time_ns, seen.received, seen.gso_bytes)
        self.shown += 1
        if self.as_json:
            return console.write(json.dumps(told) + "\n")
        return all(console.say(line) for line in lines(told))

    def end(self, missed: int) -> None:
        """What there was, and what was not shown."""
        if self.as_json:
            console.write(json.dumps({"event": "end", "segments": self.shown, "missed": missed}) + "\n")
            return
        what = "1 segment" if self.shown == 1 else f"{self.shown} segments"
        what += f"; {missed} more came faster than they could be read" if missed else ""
        what += f"; {self.hidden} fragments" if self.hidden else ""
        console.say(f"ssrun: {what}", err=True)


def _source(client: Client, path: Path, begun: dict[str, Any]) -> Source:
    if "sockets" in begun:
        return OfKernel(client, begun["sockets"], begun["pid"])
    return OfServer(path, begun)


def _follow(source: Source, view: View, count: int, seconds: float, ending: Ending) -> None:
    """Up to the bound, until we are told to end, or until nobody takes it. Raises SsrunError."""
    end_s = time.monotonic() + seconds
    ending.looks = True  # what has been read is shown
    while (left_s := end_s - time.monotonic()) > 0 and not ending.is_asked:
        for seen in source.read(left_s):
            if not view.show(seen) or view.shown >= count:
                return


def _end(source: Source, view: View, count: int) -> None:
    """Shows what has come until now, and no more comes."""
    with suppress(SsrunError):
        for _ in range(LAST_READS):
            if view.shown == count or not (last := source.read(0)):
                break
            for seen in last[: count - view.shown]:
                view.show(seen)
    missed = source.missed
    source.close()
    view.end(missed)


def run(name: str | None, client: Client, count: int, seconds: float, as_json: bool) -> None:
    """Shows them. Raises SsrunError."""
    source: Source | None = None
    view = View(client, as_json)
    try:
        with ended_by_signals() as ending:
            path = control.find(name)
            begun = control.ask(path, {"command": "trace", "client": str(client.address), "port": client.port})
            source = _source(client, path, begun)
            view.begin(source.where)
            _follow(source, view, count, seconds, ending)
    finally:
        if source is not None:
            _end(source, view, count)
