"""ACKs of a batch that another one of it stands for are left out, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet

from tests.host import WALL_TEXT, Client, Host, Image
from tests.model import ModelImage, Page

BIG = bytes(range(251)) * 400
GET = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
WITH: tuple[Any, ...] = (("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("WScale", 7))
WITHOUT: tuple[Any, ...] = (("MSS", 1460),)


@pytest.fixture(scope="module")
def model() -> ModelImage:
    return ModelImage({"/big": Page(BIG), "/small": Page(b"x" * 200)})


@pytest.fixture(scope="module")
def image(model: ModelImage) -> Image:
    return Image(model.sections)


def asking(host: Host, **how: Any) -> tuple[Client, list[int]]:
    """A client with the first ten segments of an answer, and what each second of them is acknowledged with."""
    client = Client(host, **how)
    client.connect()
    begin = client.ack
    ends = []
    for packet in client.request(GET):
        begin += len(client.payload(packet))
        ends.append(begin % 2**32)
    assert len(ends) == 10
    return client, ends[1::2]


def joined(host: Host) -> int:
    return host.counters().get("tcp_rx_acks_coalesced", 0)


def pad(packet: Packet) -> bytes:
    """As it comes from Ethernet: 60 bytes at least."""
    return bytes(packet).ljust(60, b"\0")


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("options", [WITH, WITHOUT], ids=["timestamps", "none"])
def test_the_last_of_a_run_stands_for_all(
    image: Image, model: ModelImage, v6: bool, options: tuple[Any, ...]
) -> None:
    host = Host(image)
    client, ends = asking(host, v6=v6, options=options)
    segments = host.counters()["tcp_rx_segments"]
    client.note(host.send(*(pad(client.packet("A", ack=end)) for end in ends)))
    assert joined(host) == 4
    assert host.counters()["tcp_rx_segments"] == segments + 5
    # What came is what the last one by itself brings.
    other = Host(image)
    alone, ends = asking(other, v6=v6, options=options)
    alone.note(other.send(pad(alone.packet("A", ack=ends[-1]))))
    assert client.received == alone.received
    assert len(client.received) > 28_000
    client.drain()
    assert client.received == model.expected(model.gets["/big"], WALL_TEXT)
    assert host.counters().get("tcp_retransmit_segments") is None


def test_runs_of_several_clients_may_be_mixed(image: Image) -> None:
    host = Host(image, prompt=True)
    clients = [asking(host, port=40000 + number) for number in range(3)]
    host.send(*(pad(client.packet("A", ack=ends[turn])) for turn in range(5) for client, ends in clients))
    assert joined(host) == 12


def test_a_request_stands_for_the_acks_before_it(image: Image) -> None:
    host = Host(image)
    client, ends = asking(host)
    request = client.packet("PA", GET.replace(b"big", b"small"), ack=ends[-1])
    host.send(*(pad(client.packet("A", ack=end)) for end in ends[:-1]), bytes(request))
    assert joined(host) == 4
    assert host.counters()["http_requests"] == 2


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("it says the same again", {"ack": 0}),
        ("it says less", {"ack": -1}),
        ("another place in the stream", {"seq": 1}),
        ("a FIN", {"flags": "FA"}),
        ("a reset", {"flags": "RA"}),
        ("options of another kind", {"options": [("NOP", None), ("NOP", None), ("SAck", (1, 2))]}),
        ("another port", {"sport": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_stand_for_an_ack(image: Image, what: str, fields: dict[str, Any]) -> None:
    host = Host(image)
    client, ends = asking(host)
    changed = dict(fields)
    flags = changed.pop("flags", "A")
    changed["ack"] = ends[1] if "ack" not in fields else (ends[0] + fields["ack"]) % 2**32
    if "seq" in changed:
        changed["seq"] = (client.seq + 1) % 2**32
    later = client.packet(flags, **{name: value for name, value in changed.items() if name != "sport"})
    later[TCP].sport += changed.get("sport", 0)
    host.send(pad(client.packet("A", ack=ends[0])), pad(later))
    assert joined(host) == 0, what


def test_another_address_is_another_client(image: Image) -> None:
    host = Host(image)
    client, ends = asking(host)
    later = client.packet("A", ack=ends[1])
    later[IP].src = "198.51.100.77"
    host.send(pad(client.packet("A", ack=ends[0])), pad(later))
    assert joined(host) == 0


def test_a_fragment_or_a_cut_frame_stands_for_nothing(image: Image) -> None:
    host = Host(image)
    client, ends = asking(host)
    first = pad(client.packet("A", ack=ends[0]))
    fragment = client.packet("A", ack=ends[1])
    fragment[IP].flags = "MF"
    host.send(first, pad(fragment))
    earlier = fragment.copy()
    earlier[TCP].ack = ends[0]
    host.send(pad(earlier), pad(fragment))
    host.send(first, pad(client.packet("A", ack=ends[1]))[:58])
    longer = client.packet("A", ack=ends[1])
    longer[IP].len = 1000
    host.send(first, pad(longer))
    assert joined(host) == 0


def test_a_long_batch_is_taken_in_parts(image: Image) -> None:
    host = Host(image)
    client, ends = asking(host)
    first = ends[0] - 200
    host.send(*(pad(client.packet("A", ack=(first + number) % 2**32)) for number in range(130)))
    assert joined(host) == 63 + 63 + 1


def damaged(packet: Packet, at: int) -> bytes:
    """at: a byte that changes."""
    data = bytearray(pad(packet))
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("at", [-1, -5])
def test_a_damaged_frame_stands_for_none(image: Image, v6: bool, at: int) -> None:
    """The last of a run: all are taken, and it is dropped. One in the midst of it makes no difference."""
    host = Host(image)
    client, ends = asking(host, v6=v6)
    acks = [client.packet("A", ack=end) for end in ends]
    place = len(bytes(acks[0])) + at
    client.note(host.send(*map(pad, acks[:-1]), damaged(acks[-1], place)))
    assert joined(host) == 0
    assert host.counters()["tcp_drop_checksum"] == 1
    assert len(client.received) > 14_000

    host = Host(image)
    client, ends = asking(host, v6=v6)
    acks = [client.packet("A", ack=end) for end in ends]
    client.note(host.send(*map(pad, acks[:2]), damaged(acks[2], place), *map(pad, acks[3:])))
    assert joined(host) == 4
    assert host.counters().get("tcp_drop_checksum") is None
    assert len(client.received) > 28_000


def test_a_damaged_header_stands_for_none(image: Image) -> None:
    """The checksum of IPv4's header itself, which TCP's does not cover."""
    host = Host(image)
    client, ends = asking(host)
    acks = [client.packet("A", ack=end) for end in ends]
    client.note(host.send(*map(pad, acks[:-1]), damaged(acks[-1], 24), checksum_ok=True))
    assert joined(host) == 0
    assert host.counters()["ip_drop_checksum"] == 1
    assert len(client.received) > 14_000


@pytest.mark.parametrize("field", ["dst", "src"])
def test_a_frame_to_or_from_a_group_stands_for_none(image: Image, field: str) -> None:
    host = Host(image)
    client, ends = asking(host)
    acks = [client.packet("A", ack=end) for end in ends]
    # Of the source's first two bytes only, which are not compared.
    setattr(acks[-1], field, "03" + getattr(acks[-1], field)[2:])
    client.note(host.send(*map(pad, acks)))
    assert joined(host) == 0
    assert len(client.received) > 14_000


def test_a_damaged_request_stands_for_none(image: Image) -> None:
    host = Host(image)
    client, ends = asking(host)
    request = client.packet("PA", GET.replace(b"big", b"small"), ack=ends[-1])
    client.note(host.send(*(pad(client.packet("A", ack=end)) for end in ends[:-1]), damaged(request, -1)))
    assert joined(host) == 3
    assert host.counters()["tcp_drop_checksum"] == 1
    assert len(client.received) > 14_000


def test_what_the_port_vouches_for_is_not_summed(image: Image) -> None:
    host = Host(image)
    client, ends = asking(host)
    acks = [client.packet("A", ack=end) for end in ends]
    client.note(host.send(*(damaged(ack, 50) for ack in acks), checksum_ok=True))
    assert joined(host) == 4
