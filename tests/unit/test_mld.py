"""Multicast listener discovery: what snooping switches are told, made and judged by scapy."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLQuery2,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrHopByHop,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from ssimage._sandstorm import lib

from tests.host import CLIENT_IP6, CLIENT_MAC, SERVER_IP6, SERVER_MAC, Host, Image
from tests.model import ModelImage, Page

GROUP, MS = "ff02::1:ff00:1", 1_000_000
JOIN, STILL = 4, 2  # record types: change to exclude mode, mode is exclude
ROUTER = "fe80::99"


@pytest.fixture(scope="module")
def image() -> Image:
    return Image(ModelImage({"/a": Page(b"hello")}).sections)


def report(kind: int) -> Packet:
    record = ICMPv6MLDMultAddrRec(rtype=kind, dst=GROUP)
    head = IPv6(src="::", dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop(
        options=[RouterAlert(value=0), PadN(optdata=b"")]
    )
    return Ether(src=SERVER_MAC, dst="33:33:00:00:00:16") / head / ICMPv6MLReport2(records=[record])


def query(
    *, source: str = ROUTER, to: str = "ff02::1", group: str = "::", code: int = 0, hlim: int = 1, alert: bool = True
) -> Packet:
    head = Ether(src=CLIENT_MAC, dst="33:33:00:00:00:01") / IPv6(src=source, dst=to, hlim=hlim)
    if alert:
        head /= IPv6ExtHdrHopByHop(options=[RouterAlert(value=0), PadN(optdata=b"")])
    return head / ICMPv6MLQuery2(mladdr=group, mrd=code, sources_number=0)


def reports(packets: list[Packet]) -> list[bytes]:
    return [bytes(packet) for packet in packets if ICMPv6MLReport2 in packet]


def pass_time(host: Host, milliseconds: int) -> list[tuple[int, bytes]]:
    """Awake only when the stack wants to be: the reports, and how many us after now."""
    begin, end = host.now_ns, host.now_ns + milliseconds * MS
    sent = []
    for _ in range(1000):
        deadline_ns = min(end, lib.stack_deadline_ns(host.stack))
        host.now_ns = max(host.now_ns, deadline_ns)
        sent += [((host.now_ns - begin) // 1000, each) for each in reports(host.advance(0))]
        if host.now_ns >= end:
            return sent
    raise AssertionError("it spins")


@pytest.mark.parametrize("how", [lib.ETH_ACD_CHECK, lib.ETH_ACD_ANNOUNCE])
def test_two_reports_at_the_start(image: Image, how: int) -> None:
    """RFC 3810 section 6.1; the first before we ask for the address, RFC 4862 section 5.4.2."""
    host = Host(image, config={"acd": how})
    assert bytes(host.first[0]) == bytes(report(JOIN))
    ((when, frame),) = pass_time(host, 20_000)
    assert 0 < when <= 1_000_001
    assert frame == bytes(report(JOIN))
    assert host.counters()["mld_tx_reports"] == 2


@pytest.mark.parametrize("how", [lib.ETH_ACD_NONE, lib.ETH_ACD_FOLLOW])
def test_the_first_worker_tells_for_all(image: Image, how: int) -> None:
    host = Host(image, config={"acd": how})
    assert reports(host.first) == pass_time(host, 20_000) == []


def test_in_shared_mode_the_kernel_does(image: Image) -> None:
    host = Host(image, own_address=False, config={"acd": lib.ETH_ACD_CHECK})
    assert reports(host.first) == []
    assert host.send(query()) == []
    assert pass_time(host, 20_000) == []
    assert "mld_rx_queries" not in host.counters()


@pytest.mark.parametrize(("to", "group"), [("ff02::1", "::"), (GROUP, GROUP)])
@pytest.mark.parametrize("code", [0, 1, 1000, 0x7FFF, 0x8000, 0x8001, 0x9000])
def test_a_query_is_answered_within_its_time(image: Image, to: str, group: str, code: int) -> None:
    """Section 5.1.3: the code is a floating-point number above 32,767."""
    host = Host(image)
    longest_ms = code if code < 0x8000 else ((code & 0xFFF) | 0x1000) << ((code >> 12 & 7) + 3)
    sent = [(0, frame) for frame in reports(host.send(query(to=to, group=group, code=code)))]
    sent += pass_time(host, longest_ms + 1)
    ((when, frame),) = sent
    assert frame == bytes(report(STILL))
    assert when <= longest_ms * 1000
    assert host.counters()["mld_rx_queries"] == 1


def test_many_queries_get_few_reports(image: Image) -> None:
    """However many ask: ten a second."""
    host = Host(image)
    sent = 0
    for _ in range(1000):
        sent += len(reports(host.send(query())))
        sent += len(pass_time(host, 1))
    assert 9 <= sent <= 11


@pytest.mark.parametrize(
    "wrong", [{"source": CLIENT_IP6}, {"source": "::"}, {"hlim": 2}, {"hlim": 255}, {"alert": False}]
)
def test_what_is_no_query_from_this_link_is_dropped(image: Image, wrong: dict[str, Any]) -> None:
    host = Host(image)
    assert host.send(query(**wrong)) == []
    assert pass_time(host, 1000) == []
    reason = "ip_drop_source" if wrong.get("source") == "::" else "mld_drop_malformed"
    assert host.counters()[reason] == 1


def test_a_query_of_version_1_is_dropped(image: Image) -> None:
    """It ends with the group."""
    host = Host(image)
    whole = query()
    del whole[ICMPv6MLQuery2].cksum
    data = bytearray(bytes(whole)[:-4])
    data[18:20] = (len(data) - 54).to_bytes(2, "big")
    assert host.send(bytes(data), checksum_ok=True) == []
    assert host.counters()["mld_drop_malformed"] == 1


def test_an_address_that_is_anothers_is_left_out(image: Image) -> None:
    host = Host(image, config={"acd": lib.ETH_ACD_CHECK})
    contest = Ether(src=CLIENT_MAC, dst="33:33:ff:00:00:01") / IPv6(src="::", dst=GROUP, hlim=255)
    host.send(contest / ICMPv6ND_NS(tgt=SERVER_IP6))
    assert pass_time(host, 20_000) == []
    assert host.counters()["mld_tx_reports"] == 1
