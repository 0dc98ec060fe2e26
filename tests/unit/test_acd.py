"""Own addresses: asked for before they are used (RFC 5227, RFC 4862), announced, watched and defended."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet
from ssimage._sandstorm import ffi, lib
from ssrun.server import Conflict, ConflictNotes

from tests.host import CLIENT_IP, CLIENT_IP6, CLIENT_MAC, SERVER_IP, SERVER_IP6, SERVER_MAC, Client, Host, Image
from tests.model import ModelImage, Page

BROADCAST, NOBODY = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
GROUP6, GROUP_MAC = "ff02::1:ff00:1", "33:33:ff:00:00:01"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
THIRD_MAC = "02:00:00:00:00:03"
V4, V6 = 0, 1  # places in the configuration
MS = 1_000_000

# As scapy makes them.
ARP_PROBE = Ether(src=SERVER_MAC, dst=BROADCAST) / ARP(hwsrc=SERVER_MAC, psrc="0.0.0.0", hwdst=NOBODY, pdst=SERVER_IP)
ARP_ANNOUNCEMENT = ARP_PROBE.copy()
ARP_ANNOUNCEMENT[ARP].psrc = SERVER_IP
ND_PROBE = Ether(src=SERVER_MAC, dst=GROUP_MAC) / IPv6(src="::", dst=GROUP6, hlim=255) / ICMPv6ND_NS(tgt=SERVER_IP6)
ND_ANNOUNCEMENT = (
    Ether(src=SERVER_MAC, dst=ALL_NODES_MAC)
    / IPv6(src=SERVER_IP6, dst=ALL_NODES, hlim=255)
    / ICMPv6ND_NA(tgt=SERVER_IP6, R=0, S=0, O=1)
    / ICMPv6NDOptDstLLAddr(lladdr=SERVER_MAC)
)
NAMES = {
    bytes(ARP_PROBE): "arp probe",
    bytes(ARP_ANNOUNCEMENT): "arp announcement",
    bytes(ND_PROBE): "nd probe",
    bytes(ND_ANNOUNCEMENT): "nd announcement",
}


@pytest.fixture(scope="module")
def image() -> Image:
    return Image(ModelImage({"/a": Page(b"hello")}).sections)


def claiming(image: Image, how: int = lib.ETH_ACD_CHECK, **more: Any) -> Host:
    config = {"acd": how} | more.pop("config", {})
    return Host(image, config=config, **more)


def names(packets: list[Packet]) -> list[str]:
    """Without those of tests/unit/test_mld.py."""
    return [NAMES.get(bytes(packet), packet.summary()) for packet in packets if ICMPv6MLReport2 not in packet]


def run(host: Host, milliseconds: int) -> list[tuple[int, str]]:
    """Lets the time pass, awake only when the stack wants to be: what it sent, and how many us after now."""
    begin, end = host.now_ns, host.now_ns + milliseconds * MS
    sent = []
    for _ in range(100):
        deadline_ns = lib.stack_deadline_ns(host.stack)
        assert deadline_ns > host.now_ns, "awake for nothing"
        if deadline_ns > end:
            host.now_ns = end
            assert host.advance(0) == [], "its deadline was later"
            return sent
        host.now_ns = deadline_ns
        sent += [((host.now_ns - begin) // 1000, name) for name in names(host.advance(0))]
    raise AssertionError("it spins")


def state(host: Host, place: int) -> int:
    return int(lib.stack_address_state(host.stack, place))


def conflicts(host: Host, place: int) -> tuple[int, str]:
    mac = ffi.new("uint8_t[6]")
    count = lib.stack_address_conflicts(host.stack, place, mac)
    return count, bytes(mac).hex(":")


def owned(image: Image, how: int = lib.ETH_ACD_CHECK) -> Host:
    """A host whose claims are through."""
    host = claiming(image, how)
    run(host, 10_000)
    assert state(host, V4) == state(host, V6) == lib.ETH_ADDRESS_OURS
    return host


def arp(operation: int = 1, *, source: str, target: str, mac: str = CLIENT_MAC) -> Packet:
    return Ether(src=mac, dst=BROADCAST) / ARP(op=operation, hwsrc=mac, psrc=source, hwdst=NOBODY, pdst=target)


def solicitation(source: str, *, mac: str = CLIENT_MAC, hlim: int = 255) -> Packet:
    frame = Ether(src=mac, dst=GROUP_MAC) / IPv6(src=source, dst=GROUP6, hlim=hlim) / ICMPv6ND_NS(tgt=SERVER_IP6)
    return frame if source == "::" else frame / ICMPv6NDOptSrcLLAddr(lladdr=mac)


def advertisement(
    *, to: str = ALL_NODES, mac: str = CLIENT_MAC, hlim: int = 255, target: str = SERVER_IP6, solicited: int = 0
) -> Packet:
    frame = Ether(src=mac, dst=ALL_NODES_MAC if to == ALL_NODES else SERVER_MAC) / IPv6(src=target, dst=to, hlim=hlim)
    return frame / ICMPv6ND_NA(tgt=target, R=0, S=solicited, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)


CONTESTS = {
    "a reply to our probe": (V4, arp(2, source=SERVER_IP, target="0.0.0.0")),
    "a reply to another": (V4, arp(2, source=SERVER_IP, target=CLIENT_IP)),
    "a question": (V4, arp(source=SERVER_IP, target=CLIENT_IP)),
    "an announcement": (V4, arp(source=SERVER_IP, target=SERVER_IP)),
    "a probe": (V4, arp(source="0.0.0.0", target=SERVER_IP)),
    "an advertisement": (V6, advertisement()),
    "an advertisement to us": (V6, advertisement(to=SERVER_IP6, solicited=1)),
    "a solicitation from nobody": (V6, solicitation("::")),
}
HARMLESS = {
    "a question for ours": ("arp_drop_tentative", arp(source=CLIENT_IP, target=SERVER_IP)),
    "a reply of another": ("arp_drop_not_ours", arp(2, source=CLIENT_IP, target="192.0.2.9")),
    "a probe for another": ("arp_drop_not_ours", arp(source="0.0.0.0", target="192.0.2.9")),
    "our own probe": ("arp_drop_looped", ARP_PROBE),
    "our own announcement": ("arp_drop_looped", ARP_ANNOUNCEMENT),
    "a solicitation for ours": ("nd_drop_tentative", solicitation(CLIENT_IP6)),
    "an advertisement of another": ("nd_drop_not_ours", advertisement(target=CLIENT_IP6)),
    "an advertisement from afar": ("nd_drop_malformed", advertisement(hlim=254)),
    "a solicitation from afar": ("nd_drop_malformed", solicitation("::", hlim=64)),
    "a solicited advertisement to all": ("nd_drop_malformed", advertisement(solicited=1)),
    "our own solicitation": ("nd_drop_looped", ND_PROBE),
    "our own advertisement": ("nd_drop_looped", ND_ANNOUNCEMENT),
}


def test_the_link_is_asked_then_told(image: Image) -> None:
    """Every frame is byte for byte what scapy makes, and nothing else is sent."""
    host = claiming(image)
    assert names(host.first) == []
    sent = run(host, 20_000)
    assert [name for _, name in sent if name.startswith("arp")] == ["arp probe"] * 3 + ["arp announcement"] * 2
    assert [name for _, name in sent if name.startswith("nd")] == ["nd probe"] + ["nd announcement"] * 3
    assert len(sent) == 9
    assert host.counters() == {
        "arp_tx_probes": 3,
        "arp_tx_announcements": 2,
        "nd_tx_probes": 1,
        "nd_tx_announcements": 3,
        "mld_tx_reports": 2,
    }
    assert lib.stack_deadline_ns(host.stack) == 2**64 - 1


class OtherAddress(Host):
    """Its IPv6 address says something in its last three bytes."""

    @staticmethod
    def _config(*arguments: Any) -> Any:
        config = Host._config(*arguments)
        ffi.memmove(config.eth.addresses[V6].bytes, ipaddress.ip_address("2001:db8::12ab:cdef").packed, 16)
        return config


def test_a_solicitation_goes_to_the_address_s_own_group(image: Image) -> None:
    host = OtherAddress(image, config={"acd": lib.ETH_ACD_CHECK})
    (probe,) = (packet for _ in range(100) for packet in host.advance(1) if ICMPv6ND_NS in packet)
    assert probe.dst == "33:33:ff:ab:cd:ef"
    assert probe[IPv6].dst == "ff02::1:ffab:cdef"
    assert probe[ICMPv6ND_NS].tgt == "2001:db8::12ab:cdef"
    again = probe.copy()
    del again[ICMPv6ND_NS].cksum
    assert bytes(again) == bytes(probe)


@pytest.mark.parametrize("seed", range(20))
def test_times(image: Image, seed: int) -> None:
    host = claiming(image, config={"secret": bytes([seed]) * 16})
    sent = run(host, 20_000)
    p1, p2, p3, a1, a2 = (at for at, name in sent if name.startswith("arp"))
    assert 0 <= p1 <= 100_000
    assert 200_000 <= p2 - p1 <= 300_000
    assert 200_000 <= p3 - p2 <= 300_000
    assert a1 - p3 == 300_000
    assert a1 <= 1_000_000
    assert a2 - a1 == 2_000_000
    probe, *announcements = (at for at, name in sent if name.startswith("nd"))
    assert 0 <= probe <= 100_000
    assert [at - probe for at in announcements] == [1_000_000, 2_000_000, 3_000_000]


def test_delays_come_from_the_secret(image: Image) -> None:
    def times(secret: bytes) -> list[int]:
        return [at for at, _ in run(claiming(image, config={"secret": secret}), 1000)]

    assert times(b"a" * 16) == times(b"a" * 16)
    firsts = {tuple(times(bytes([seed]) * 16)[:2]) for seed in range(20)}
    assert len(firsts) == 20


def test_an_address_is_ours_with_its_first_announcement(image: Image) -> None:
    host = claiming(image)
    for place, name in ((V4, "arp"), (V6, "nd")):
        while f"{name} announcement" not in names(host.advance(1)):
            assert state(host, place) == lib.ETH_ADDRESS_TENTATIVE
        assert state(host, place) == lib.ETH_ADDRESS_OURS
    assert conflicts(host, V4) == conflicts(host, V6) == (0, NOBODY)
    client = Client(host)
    client.connect()
    client.request(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.received.endswith(b"hello")


@pytest.mark.parametrize("lost", [False, True], ids=["tentative", "lost"])
def test_nothing_is_answered_for_an_address_that_is_not_ours(image: Image, lost: bool) -> None:
    to_us, ip4, ip6 = Ether(src=CLIENT_MAC, dst=SERVER_MAC), IP(src=CLIENT_IP, dst=SERVER_IP), None
    ip6 = IPv6(src=CLIENT_IP6, dst=SERVER_IP6)
    questions = {
        "arp": arp(source=CLIENT_IP, target=SERVER_IP),
        "echo": to_us / ip4 / ICMP(),
        "syn": to_us / ip4 / TCP(sport=9, dport=80, flags="S"),
        "another port": to_us / ip4 / TCP(sport=9, dport=81, flags="S"),
        "solicitation": solicitation(CLIENT_IP6),
        "echo6": to_us / ip6 / ICMPv6EchoRequest(),
        "echo6 to the group": Ether(src=CLIENT_MAC, dst=GROUP_MAC)
        / IPv6(src=CLIENT_IP6, dst=GROUP6)
        / ICMPv6EchoRequest(),
        "syn6": to_us / ip6 / TCP(sport=9, dport=80, flags="S"),
    }
    host = claiming(image)
    if lost:
        host.send(CONTESTS["an announcement"][1], CONTESTS["an advertisement"][1])
        assert state(host, V4) == state(host, V6) == lib.ETH_ADDRESS_CONFLICT
    for name, question in questions.items():
        assert host.send(question) == [], name
    drops = {name: count for name, count in host.counters().items() if "tentative" in name}
    assert drops == {"arp_drop_tentative": 1, "ip_drop_tentative": 6, "nd_drop_tentative": 1}
    host = owned(image)
    for name, question in questions.items():
        assert len(host.send(question)) == 1, name


@pytest.mark.parametrize("after_ms", [0, 150, 650])
@pytest.mark.parametrize("kind", CONTESTS)
def test_who_has_it_first_keeps_it(image: Image, kind: str, after_ms: int) -> None:
    place, frame = CONTESTS[kind]
    host = claiming(image)
    run(host, after_ms)
    assert host.send(frame) == []
    assert state(host, place) == lib.ETH_ADDRESS_CONFLICT
    assert conflicts(host, place) == (1, CLIENT_MAC)
    assert host.counters()["arp_conflicts" if place == V4 else "nd_conflicts"] == 1
    # Not another word about it; the other address is claimed as if nothing had been.
    host.send(frame)
    later = [name for _, name in run(host, 20_000)]
    assert not [name for name in later if name.startswith("arp" if place == V4 else "nd")]
    assert state(host, place) == lib.ETH_ADDRESS_CONFLICT
    assert state(host, 1 - place) == lib.ETH_ADDRESS_OURS


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_no_conflict(image: Image, kind: str) -> None:
    reason, frame = HARMLESS[kind]
    host = claiming(image)
    assert host.send(frame) == []
    assert host.counters() == {"eth_rx_frames": 1, reason: 1, "mld_tx_reports": 1}
    run(host, 2_000)
    assert state(host, V4) == state(host, V6) == lib.ETH_ADDRESS_OURS
    assert conflicts(host, V4)[0] == conflicts(host, V6)[0] == 0


@pytest.mark.parametrize("how", [lib.ETH_ACD_CHECK, lib.ETH_ACD_ANNOUNCE, lib.ETH_ACD_NONE])
@pytest.mark.parametrize("kind", ["a reply to another", "a question", "an announcement"])
def test_an_address_of_ours_is_defended_once_in_ten_seconds(image: Image, how: int, kind: str) -> None:
    host = owned(image, how)
    before = host.counters().get("arp_tx_announcements", 0)
    _, frame = CONTESTS[kind]
    assert names(host.send(frame)) == ["arp announcement"]
    run(host, 5_000)
    assert host.send(frame) == []
    run(host, 4_999)
    assert host.send(frame) == []
    run(host, 1)
    frame = frame.copy()
    frame[ARP].hwsrc = THIRD_MAC
    assert names(host.send(frame)) == ["arp announcement"]
    assert state(host, V4) == lib.ETH_ADDRESS_OURS
    assert conflicts(host, V4) == (4, THIRD_MAC)
    counters = host.counters()
    assert (counters["arp_conflicts"], counters["arp_tx_defences"]) == (4, 2)
    assert counters["arp_tx_announcements"] == before + 2


def test_a_defence_without_room_is_made_up_for(image: Image) -> None:
    host = owned(image)
    _, frame = CONTESTS["a question"]
    host.tx.space = 0
    host.send(frame)
    assert "arp_tx_defences" not in host.counters()
    host.tx.space = host.ring
    assert names(host.send(frame)) == ["arp announcement"]


def test_others_that_ask_are_told_whose_it_is(image: Image) -> None:
    """A probe or a DAD solicitation for an address of ours is no conflict: the answer keeps the other from it."""
    host = owned(image)
    (reply,) = host.send(CONTESTS["a probe"][1])
    assert (reply[ARP].op, reply[ARP].psrc, reply[ARP].hwsrc, reply.dst) == (2, SERVER_IP, SERVER_MAC, CLIENT_MAC)
    (answer,) = host.send(CONTESTS["a solicitation from nobody"][1])
    assert bytes(answer) == bytes(ND_ANNOUNCEMENT)
    assert conflicts(host, V4)[0] == conflicts(host, V6)[0] == 0


def test_an_advertisement_of_an_address_of_ours_is_counted(image: Image) -> None:
    host = owned(image)
    for kind in ("an advertisement", "an advertisement to us"):
        assert host.send(CONTESTS[kind][1]) == []
    assert state(host, V6) == lib.ETH_ADDRESS_OURS
    assert conflicts(host, V6) == (2, CLIENT_MAC)
    assert host.counters()["nd_conflicts"] == 2
    assert len(host.send(solicitation(CLIENT_IP6))) == 1


@pytest.mark.parametrize("lack", ["ring", "buffers"])
def test_without_room_it_is_tried_again(image: Image, lack: str) -> None:
    host = claiming(image)
    free = host.region.free_count

    def take_room(taken: bool) -> None:
        host.tx.space = 0 if taken and lack == "ring" else host.ring
        host.region.free_count = 0 if taken and lack == "buffers" else free

    for _ in range(2000):
        take_room(True)
        lib.stack_clock(host.stack, host.now_ns + MS, host.wall_s)
        host.now_ns += MS
        lib.stack_output(host.stack)
        assert host.tx.count == 0
        assert host.now_ns < lib.stack_deadline_ns(host.stack) <= host.now_ns + 100 * MS
    assert state(host, V4) == state(host, V6) == lib.ETH_ADDRESS_TENTATIVE
    assert lib.stack_deadline_ns(host.stack) <= host.now_ns + MS
    take_room(False)
    sent = run(host, 20_000)
    assert len(sent) == 9
    assert [at for at, name in sent if "probe" in name][:2] == [1000, 1000]
    assert "tx_drop_no_space" not in host.counters()


def test_deadlines_miss_nothing(image: Image) -> None:
    """Awake at the deadlines only, it does what it does awake all the time."""
    lazy, busy = claiming(image), claiming(image)
    slept = run(lazy, 5_000)
    watched = []
    for millisecond in range(1, 5_001):
        watched += [(millisecond * 1000, name) for name in names(busy.advance(1))]
    assert [name for _, name in slept] == [name for _, name in watched]
    # A round late at most each time: the next wait starts from there.
    assert all(0 <= late - at < 5000 for (at, _), (late, _) in zip(slept, watched, strict=True))


def test_announced_only(image: Image) -> None:
    host = claiming(image, lib.ETH_ACD_ANNOUNCE)
    assert names(host.first) == ["arp announcement", "nd announcement"]
    assert state(host, V4) == state(host, V6) == lib.ETH_ADDRESS_OURS
    assert run(host, 20_000) == [
        (1_000_000, "nd announcement"),
        (2_000_000, "arp announcement"),
        (2_000_000, "nd announcement"),
    ]


def test_a_stack_that_watches(image: Image) -> None:
    """Says nothing before it is told that another has claimed, but sees who else has an address."""
    host = claiming(image, lib.ETH_ACD_FOLLOW)
    assert run(host, 10_000) == []
    assert host.send(arp(source=CLIENT_IP, target=SERVER_IP)) == []
    assert host.send(CONTESTS["an advertisement"][1]) == []
    assert (state(host, V4), state(host, V6)) == (lib.ETH_ADDRESS_TENTATIVE, lib.ETH_ADDRESS_CONFLICT)
    lib.stack_addresses_confirmed(host.stack)
    assert (state(host, V4), state(host, V6)) == (lib.ETH_ADDRESS_OURS, lib.ETH_ADDRESS_CONFLICT)
    assert len(host.send(arp(source=CLIENT_IP, target=SERVER_IP))) == 1
    assert run(host, 10_000) == []


@pytest.mark.parametrize("own", [False, True])
def test_nothing_is_claimed_unless_asked_for(image: Image, own: bool) -> None:
    """Not without the option, and never in shared mode, where ARP is the kernel's."""
    host = claiming(image, lib.ETH_ACD_NONE if own else lib.ETH_ACD_CHECK, own_address=own)
    assert names(host.first) == []
    assert run(host, 10_000) == []
    assert state(host, V4) == state(host, V6) == lib.ETH_ADDRESS_OURS
    if not own:
        assert host.send(*(frame for _, frame in CONTESTS.values())) == []
        assert conflicts(host, V4)[0] == conflicts(host, V6)[0] == 0


def test_a_note_for_each_address_once_a_minute() -> None:
    notes = ConflictNotes()
    one, two = (ipaddress.ip_interface(text) for text in ("192.0.2.1/24", "2001:db8::1/64"))

    def told(now_s: float, **frames: int) -> list[str]:
        found = [Conflict(a, CLIENT_MAC, frames[n]) for n, a in (("one", one), ("two", two)) if n in frames]
        return [str(conflict.address.ip) for conflict in notes.due(found, now_s)]

    assert told(5) == []
    assert told(10, one=1) == ["192.0.2.1"]
    assert told(11, one=9) == []
    assert told(12, one=9, two=1) == ["2001:db8::1"]
    assert told(69.9, one=9, two=1) == []
    assert told(70, one=9, two=1) == ["192.0.2.1"]
    assert told(500, one=9, two=1) == []
