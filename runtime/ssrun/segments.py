"""TCP segments as text, of the heads of frames that strangers have sent: nothing in them is believed, and nothing is
shown as it came but numbers."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .addresses import Endpoint

ETH_BYTES, VLAN_BYTES = 14, 4
TYPE_IPV4, TYPE_IPV6, TYPE_VLAN = 0x0800, 0x86DD, 0x8100
TCP, TCP_BYTES = 6, 20
# IPv6's extension headers (RFC 8200), as far as TCP may be behind them.
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
EXTENSIONS_MAX = 8
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
FLAGS = {"SYN": SYN, "FIN": FIN, "RST": RST, "PSH": PSH, "ACK": ACK, "URG": URG, "ECE": ECE, "CWR": CWR}
OPTION_END, OPTION_NOP, OPTION_MSS, OPTION_WS, OPTION_SACK_PERMITTED, OPTION_SACK, OPTION_TS = 0, 1, 2, 3, 4, 5, 8
SCALE_MAX = 14  # RFC 7323 section 2.3
WRAP = 1 << 32


@dataclass
class Options:
    """Of a segment, as they were read; what is no option ends them."""

    mss: int | None = None
    scale: int | None = None
    sack_permitted: bool = False
    sack: list[tuple[int, int]] = field(default_factory=list)
    timestamps: tuple[int, int] | None = None
    others: list[int] = field(default_factory=list)  # their kinds
    is_damaged: bool = False


@dataclass
class Segment:
    """A segment, or several in one frame."""

    source: tuple[str, int]
    target: tuple[str, int]
    flags: int
    seq: int
    ack: int
    window: int
    len_bytes: int  # of its payload
    options: Options


def read_frame(frame: bytes, len_bytes: int) -> Segment | None:
    """Of an Ethernet frame; None: there is no TCP header to be seen. frame: its head. len_bytes: of all of it."""
    kind, at = int.from_bytes(frame[12:14]), ETH_BYTES
    if kind == TYPE_VLAN:
        kind, at = int.from_bytes(frame[16:18]), ETH_BYTES + VLAN_BYTES
    return read_packet(frame[at:], len_bytes - at) if kind in (TYPE_IPV4, TYPE_IPV6) else None


def read_packet(packet: bytes, len_bytes: int) -> Segment | None:
    """The same of an IP packet."""
    if len(packet) < 1:
        return None
    try:
        read = {4: _read_ipv4, 6: _read_ipv6}[packet[0] >> 4]
        source, target, at, total_bytes = read(packet)
        # A packet as large as only a superframe can be has no length.
        return _read_tcp(packet[at:], source, target, (total_bytes or len_bytes) - at)
    except (struct.error, KeyError, IndexError, _NoTcpError):
        return None


class _NoTcpError(Exception):
    """There is none to be seen."""


def _read_ipv4(packet: bytes) -> tuple[str, str, int, int]:
    """Source, destination, where the TCP header is, and the packet's length."""
    total_bytes, _, fragment, _, protocol = struct.unpack_from("!HHHBB", packet, 2)
    if protocol != TCP or fragment & 0x1FFF:
        raise _NoTcpError
    source, target = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
    return source, target, (packet[0] & 15) * 4, total_bytes


def _read_ipv6(packet: bytes) -> tuple[str, str, int, int]:
    payload_bytes, kind = struct.unpack_from("!HB", packet, 4)
    if len(packet) < 40:
        raise _NoTcpError
    source, target = (str(ipaddress.IPv6Address(packet[at : at + 16])) for at in (8, 24))
    at = 40
    for _ in range(EXTENSIONS_MAX):
        if kind not in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS):
            break
        if kind == FRAGMENT and int.from_bytes(packet[at + 2 : at + 4]) & 0xFFF8:
            raise _NoTcpError
        kind, at = packet[at], at + 8 + (packet[at + 1] * 8 if kind != FRAGMENT else 0)
    if kind != TCP:
        raise _NoTcpError
    return source, target, at, payload_bytes + 40 if payload_bytes else 0


def _read_tcp(head: bytes, source: str, target: str, len_bytes: int) -> Segment:
    from_port, to_port, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", head)
    head_bytes = (offset >> 4) * 4
    options = _read_options(head[TCP_BYTES:head_bytes])
    options.is_damaged = options.is_damaged or head_bytes < TCP_BYTES or head_bytes > min(len(head), len_bytes)
    payload_bytes = max(0, len_bytes - max(head_bytes, TCP_BYTES))
    return Segment((source, from_port), (target, to_port), flags, seq, ack, window, payload_bytes, options)


def _read_options(data: bytes) -> Options:
    options, at = Options(), 0
    while at < len(data) and data[at] != OPTION_END:
        if data[at] == OPTION_NOP:
            at += 1
            continue
        size = data[at + 1] if at + 1 < len(data) else 0
        if size < 2 or at + size > len(data):
            options.is_damaged = True
            break
        _read_option(options, data[at], data[at + 2 : at + size])
        at += size
    return options


def _read_option(options: Options, kind: int, value: bytes) -> None:
    if kind == OPTION_MSS and len(value) == 2:
        options.mss = int.from_bytes(value)
    elif kind == OPTION_WS and len(value) == 1:
        options.scale = min(value[0], SCALE_MAX)
    elif kind == OPTION_SACK_PERMITTED and not value:
        options.sack_permitted = True
    elif kind == OPTION_SACK and len(value) % 8 == 0:
        options.sack = [struct.unpack_from("!II", value, at) for at in range(0, len(value), 8)]
    elif kind == OPTION_TS and len(value) == 8:
        options.timestamps = struct.unpack("!II", value)
    else:
        options.others.append(kind)


@dataclass
class _Way:
    """One direction of a connection, as far as it has been seen."""

    base: int | None = None  # the sequence number that is shown as 0
    syn: Options | None = None


class Teller:
    """Tells of one client's segments, one after the other: numbers begin with each connection."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self.first_ns: int | None = None
        self.connections: dict[tuple[Any, ...], tuple[_Way, _Way]] = {}  # what the client sends, and what it gets

    def document(self, segment: Segment, time_ns: int, received: bool, gso_bytes: int) -> dict[str, Any]:
        """What there is to be said of it. received: from the client. gso_bytes: as struct trace_record has it."""
        self.first_ns = time_ns if self.first_ns is None else self.first_ns
        client, server = (segment.source, segment.target) if received else (segment.target, segment.source)
        is_new = (client, server) not in self.connections
        ways = self.connections.setdefault((client, server), (_Way(), _Way()))
        mine, other = ways if received else ways[::-1]
        if segment.flags & SYN:
            mine.base, mine.syn = segment.seq, segment.options
        has_ack = bool(segment.flags & ACK)
        seq = _relative(mine, segment.seq)
        ack = _relative(other, segment.ack) if has_ack else None
        scaled = _scaled(segment, mine, other)
        return {
            "event": "segment",
            "time_s": (time_ns - self.first_ns) / 1e9,
            "direction": "received" if received else "sent",
            "client": str(Endpoint(*client)),
            "server": str(Endpoint(*server)),
            "is_new": is_new,
            "flags": [name for name, bit in FLAGS.items() if segment.flags & bit],
            "seq": seq,
            "ack": ack,
            "len_bytes": segment.len_bytes,
            "segment_bytes": gso_bytes if 0 < gso_bytes < segment.len_bytes else None,
            "window": scaled if scaled is not None else segment.window,
            "window_is_scaled": scaled is not None,
            "options": _options(segment.options, other),
        }


def _relative(way: _Way, number: int) -> int:
    """Of what was not seen to begin the first number is 1; what lies before the first is less than 0."""
    if way.base is None:
        way.base = (number - 1) % WRAP
    shown = (number - way.base) % WRAP
    return shown - WRAP if shown >= WRAP // 2 else shown


def _scaled(segment: Segment, mine: _Way, other: _Way) -> int | None:
    """The window in bytes; None: it was not seen what was agreed."""
    if segment.flags & SYN:
        return segment.window  # RFC 7323 section 2.2
    if mine.syn is None or other.syn is None:
        return None
    if mine.syn.scale is None or other.syn.scale is None:
        return segment.window
    return segment.window << mine.syn.scale


def _options(options: Options, other: _Way) -> dict[str, Any]:
    return {
        **({"mss": options.mss} if options.mss is not None else {}),
        **({"window_scale": options.scale} if options.scale is not None else {}),
        **({"sack_permitted": True} if options.sack_permitted else {}),
        **({"sack": [[_relative(other, edge) for edge in block] for block in options.sack]} if options.sack else {}),
        **({"timestamps": list(options.timestamps)} if options.timestamps is not None else {}),
        **({"others": options.others} if options.others else {}),
        **({"damaged": True} if options.is_damaged else {}),
    }


def lines(told: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    port = told["client"].rpartition(":")[2]
    if told["is_new"]:
        yield f"{told['client']} and {told['server']}:"
    arrow = "->" if told["direction"] == "received" else "<-"
    words = [f"{told['time_s']:11.6f}  {port:>5} {arrow} {' '.join(told['flags']) or 'no flags':<7}"]
    words.append(f"seq {told['seq']}")
    words += [f"ack {told['ack']}"] if told["ack"] is not None else []
    of = f" (as segments of {told['segment_bytes']})" if told["segment_bytes"] else ""
    words.append(f"len {told['len_bytes']}{of}")
    words.append(f"win {told['window']}{'' if told['window_is_scaled'] else ' unscaled'}")
    yield "  ".join([*words, *_option_words(told["options"])])


def _option_words(options: dict[str, Any]) -> Iterator[str]:
    if "mss" in options:
        yield f"MSS {options['mss']}"
    if "window_scale" in options:
        yield f"WS {options['window_scale']}"
    if "sack_permitted" in options:
        yield "SACK permitted"
    if "sack" in options:
        yield "SACK " + " ".join(f"{left}-{right}" for left, right in options["sack"])
    if "timestamps" in options:
        yield "TS {} {}".format(*options["timestamps"])
    for kind in options.get("others", []):
        yield f"option {kind}"
    if "damaged" in options:
        yield "damaged header"
