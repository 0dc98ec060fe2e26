"""The stack when its interface changes: addresses that come and go, another MAC, another MTU."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_NA, IPv6
from scapy.layers.l2 import ARP, Ether
from ssimage._sandstorm import ffi, lib

from tests.host import CLIENT_IP, CLIENT_MAC, SERVER_IP, SERVER_IP6, SERVER_MAC, Client, Host, Image, build, checked
from tests.unit.test_resume import Records

NEW_MAC = "02:00:00:00:00:42"
NEW_IP = "192.0.2.77"
GET = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = bytes(range(256)) * 400
EMPTY = (0, b"")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("site")
    (folder / "large").write_bytes(LARGE)
    return Image.read(build(folder, tmp_path_factory.mktemp("image") / "x.img"))


def packed(text: str) -> tuple[int, bytes]:
    return lib.IP_FAMILY_V4, bytes(int(part) for part in text.split("."))


def change(host: Host, *addresses: tuple[int, bytes], mac: str = SERVER_MAC, **fields: Any) -> bool:
    """addresses: by place; those of the configuration unless given."""
    link = ffi.new("struct stack_link *", {"mtu_bytes": host.stack_config.tcpip.mtu_bytes} | fields)
    ffi.memmove(link.mac, bytes.fromhex(mac.replace(":", "")), 6)
    link.address_count = len(addresses) or 2
    for place in range(link.address_count):
        if addresses:
            link.addresses[place].family = addresses[place][0]
            ffi.memmove(link.addresses[place].bytes, addresses[place][1], len(addresses[place][1]))
        else:
            link.addresses[place] = host.stack_config.eth.addresses[place]
    return bool(lib.stack_link_change(host.stack, link))


def configured(host: Host, place: int) -> tuple[int, bytes]:
    address = host.stack_config.eth.addresses[place]
    return address.family, bytes(address.bytes)


def finish(client: Client, mac: str = SERVER_MAC) -> list[Ether]:
    """To the end of the download; what was sent."""
    sent: list[Ether] = []
    for _ in range(1000):
        if client.received.endswith(LARGE):
            return sent
        ack = client.packet("A")
        ack.dst = mac
        sent += client.note(client.host.send(ack))
        sent += client.note(client.host.advance(20))
    raise AssertionError("the download does not end")


def syn_to(address: str, port: int = 5000) -> Ether:
    return (
        Ether(src=CLIENT_MAC, dst=SERVER_MAC) / IP(src=CLIENT_IP, dst=address) / TCP(sport=port, dport=80, flags="S")
    )


def test_an_address_that_comes_is_served_and_one_that_goes_is_not(image: Image) -> None:
    host = Host(image, own_address=False)
    assert host.send(syn_to(NEW_IP)) == []
    assert change(host, configured(host, 0), configured(host, 1), packed(NEW_IP))
    (syn_ack,) = host.send(syn_to(NEW_IP))
    assert checked(syn_ack)[IP].src == NEW_IP
    assert change(host, EMPTY, configured(host, 1), packed(NEW_IP))
    assert host.send(syn_to(SERVER_IP)) == []
    assert host.send(syn_to(NEW_IP))[0][TCP].flags == "SA"
    assert host.counters()["ip_drop_not_ours"] == 2


def test_connections_of_an_address_that_goes_end_and_the_others_go_on(image: Image) -> None:
    host = Host(image, own_address=False)
    gone, stays = Client(host, port=40001), Client(host, port=40002, v6=True)
    for client in (gone, stays):
        client.connect()
        client.request(GET)
    assert change(host, packed(NEW_IP), configured(host, 1))
    assert lib.stack_connections(host.stack) == 1
    assert host.send(gone.packet("A")) == []
    assert {packet.getlayer(1).name for packet in host.advance(250)} == {"IPv6"}  # no more of the one that is gone
    finish(stays)
    # Nobody's late segment gets into a connection that was there before in the same place.
    late = gone.packet("A")
    late[IP].dst = NEW_IP
    del late[TCP].chksum
    assert all("R" in answer[TCP].flags for answer in host.send(late))
    assert host.counters()["tcp_opened"] == 2


def test_a_source_that_is_ours_is_told_from_one_that_was(image: Image) -> None:
    host = Host(image, own_address=False)
    forged = Ether(src=CLIENT_MAC, dst=SERVER_MAC) / IP(src=NEW_IP, dst=SERVER_IP) / TCP(sport=9, dport=80, flags="S")
    assert len(host.send(forged)) == 1
    assert change(host, configured(host, 0), configured(host, 1), packed(NEW_IP))
    assert host.send(forged) == []
    assert change(host, configured(host, 0), configured(host, 1), EMPTY)
    assert len(host.send(forged)) == 1


@pytest.mark.parametrize("own", [False, True])
def test_another_mac_in_the_middle_of_a_download(image: Image, own: bool) -> None:
    host = Host(image, own_address=own)
    client = Client(host)
    client.connect()
    client.request(GET)
    assert change(host, mac=NEW_MAC)
    assert host.send(client.packet("A")) == []  # to the old one
    assert {packet.src for packet in finish(client, NEW_MAC)} == {NEW_MAC}
    assert host.counters()["eth_drop_not_ours"] == 1


def test_a_smaller_mtu_in_the_middle_of_a_download(image: Image) -> None:
    host = Host(image, prompt=True)
    client = Client(host)
    client.connect()
    client.request(GET)
    assert change(host, mtu_bytes=1000)
    sent = finish(client)
    assert max(len(packet) for packet in sent) == 14 + 1000
    (syn_ack,) = host.send(syn_to(SERVER_IP))
    assert dict(syn_ack[TCP].options)["MSS"] == 960
    ether = Ether(src=CLIENT_MAC, dst=SERVER_MAC)
    assert host.send(ether / IP(src=CLIENT_IP, dst=SERVER_IP) / ICMP() / bytes(1200)) == []


def test_a_larger_mtu_is_for_new_connections(image: Image) -> None:
    host = Host(image, mtu=1000)
    assert change(host, mtu_bytes=1500)
    (syn_ack,) = host.send(syn_to(SERVER_IP))
    assert dict(syn_ack[TCP].options)["MSS"] == 1460
    client = Client(host)
    client.connect()
    assert max(len(packet) for packet in client.request(GET)) > 14 + 1000


def test_the_neighbours_are_told_again(image: Image) -> None:
    host = Host(image, config={"acd": lib.ETH_ACD_ANNOUNCE})
    for _ in range(20):
        host.advance(500)
    assert host.advance(500) == []
    assert change(host, mac=NEW_MAC, announce=True)
    sent = host.advance(0)
    for _ in range(20):
        sent += host.advance(500)
    assert {packet.src for packet in sent} == {NEW_MAC}
    assert [packet[ARP].hwsrc for packet in sent if ARP in packet] == [NEW_MAC] * 2
    assert [packet[ICMPv6ND_NA].tgt for packet in sent if ICMPv6ND_NA in packet] == [SERVER_IP6] * 3
    assert [packet[IPv6].dst for packet in sent if ICMPv6MLReport2 in packet] == ["ff02::16"] * 2


@pytest.mark.parametrize("claim", ["NONE", "FOLLOW"])
def test_only_who_announced_announces_again(image: Image, claim: str) -> None:
    host = Host(image, config={"acd": getattr(lib, f"ETH_ACD_{claim}")})
    assert change(host, announce=True)
    assert host.advance(3000) == []


def test_in_own_address_mode_addresses_are_the_operator_s(image: Image) -> None:
    host = Host(image)
    assert change(host, EMPTY, EMPTY)
    assert host.send(syn_to(SERVER_IP))[0][TCP].flags == "SA"


@pytest.mark.parametrize("fields", [{"mtu_bytes": 575}, {"mtu_bytes": 65536}])
def test_what_is_out_of_bounds_changes_nothing(image: Image, fields: dict[str, int]) -> None:
    host = Host(image, own_address=False)
    assert not change(host, EMPTY, EMPTY, mac=NEW_MAC, **fields)
    assert not change(host, EMPTY, mac=NEW_MAC)
    assert host.send(syn_to(SERVER_IP))[0].src == SERVER_MAC


def test_the_last_place_can_be_taken(image: Image) -> None:
    host = Host(image, own_address=False)
    many = [packed(f"192.0.2.{number}") for number in range(100, 100 + lib.ETH_ADDRESSES_MAX)]
    assert change(host, *many)
    assert host.send(syn_to("192.0.2.131"))[0][IP].src == "192.0.2.131"


BY_RECORDS = pytest.mark.parametrize("records", [False, True], ids=["by memory", "by records"])


def gone_on(
    client: Client, *addresses: tuple[int, bytes], own: bool = False, records: bool = False, **what: Any
) -> Client:
    """Another process goes on for one that has not taken the change up: it begins with it."""
    before = client.host
    client.host = Host(before.image, start_ns=before.now_ns, own_address=own, prompt=True)
    assert change(client.host, *addresses, **what)
    if records:
        assert Records(before).go_on(client.host)
    else:
        lib.stack_resume(client.host.stack, before.stack, 0)
    return client


@BY_RECORDS
@pytest.mark.parametrize("own", [False, True])
def test_another_mac_as_the_server_dies(image: Image, own: bool, records: bool) -> None:
    client = Client(Host(image, own_address=own, prompt=True))
    client.connect()
    client.request(GET)
    gone_on(client, own=own, records=records, mac=NEW_MAC)
    assert {packet.src for packet in finish(client, NEW_MAC)} == {NEW_MAC}


@BY_RECORDS
def test_a_smaller_mtu_as_the_server_dies(image: Image, records: bool) -> None:
    client = Client(Host(image, prompt=True))
    client.connect()
    client.request(GET)
    gone_on(client, records=records, mtu_bytes=1000)
    assert max(len(packet) for packet in finish(client)) == 14 + 1000


def test_another_address_as_the_server_dies(image: Image) -> None:
    """Its connections end without a word, and do not become the new one's."""
    host = Host(image, own_address=False, prompt=True)
    gone, stays = Client(host, port=40001), Client(host, port=40002, v6=True)
    for client in (gone, stays):
        client.connect()
        client.request(GET)
    gone_on(stays, packed(NEW_IP), configured(host, 1))
    assert lib.stack_connections(stays.host.stack) == 1
    late = gone.packet("A")
    late[IP].dst = NEW_IP
    del late[TCP].chksum
    assert all("R" in answer[TCP].flags for answer in stays.host.send(late))
    finish(stays)
    counters = stays.host.counters()
    assert counters["tcp_opened"] - counters["tcp_closed"] == 1
