"""TCP in memory: every frame that the core sends is judged by scapy, every byte against the model image."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import checksum
from ssimage._sandstorm import ffi, lib

from tests.host import WALL_TEXT, Client, Host, Image, checked
from tests.model import ModelImage, Page

BIG = bytes(range(251)) * 400  # 100 kB, of a period that is no power of two
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET /%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
PLAIN: tuple[Any, ...] = (("MSS", 1460),)


@pytest.fixture(scope="module")
def model() -> ModelImage:
    pages = {"/a": Page(b"hello"), "/big": Page(BIG), "/empty": Page(b"")}
    return ModelImage(pages)


@pytest.fixture(scope="module")
def image(model: ModelImage) -> Image:
    return Image(model.sections)


def response_of(model: ModelImage, path: str, **how: Any) -> bytes:
    """The GET response's bytes as the first second would date it."""
    return model.expected(model.gets[f"/{path}"], WALL_TEXT, **how)


def mss_options(mss: int, *, timestamps: bool = True) -> list[Any]:
    more = [("SAckOK", b""), ("Timestamp", (1000, 0)), ("WScale", 7)] if timestamps else []
    return [("MSS", mss), *more]


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("mss", [88, 300, 536, 1220, 1439, 1460, 9000])
def test_a_file_of_many_segments(
    image: Image, model: ModelImage, v6: bool, gather_max: int, timestamps: bool, mss: int
) -> None:
    host = Host(image, gather_max=gather_max)
    client = Client(host, v6=v6, options=mss_options(mss, timestamps=timestamps))
    client.connect()
    largest = min(mss, 1440 if v6 else 1460) - (12 if timestamps else 0)
    whole = gather_max == 1
    for packet in client.note(host.send(client.packet("PA", GET % b"big")), check=whole):
        assert gather_max > 1 or len(client.payload(packet)) <= min(largest, 1428)
    client.seq += len(GET % b"big")
    assert client.drain(check=whole) == response_of(model, "big")
    assert host.counters().get("tcp_retransmit_segments") is None


def test_ready_frames_leave_in_place_and_only_what_must_is_cut(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    client.connect()
    client.request(GET % b"big")
    client.drain()
    counters = host.counters()
    assert counters["tcp_tx_segments"] == -(-len(client.received) // 1428)
    assert "tcp_tx_resegmented" not in counters
    assert "arena_copies_made" not in counters


def test_syn_ack_answers_each_option(image: Image) -> None:
    host = Host(image)
    full = Client(host).connect()
    assert dict(full[TCP].options).keys() == {"MSS", "NOP", "Timestamp", "SAckOK", "WScale"}
    plain = Client(host, port=40001, options=PLAIN).connect()
    assert plain[TCP].options == [("MSS", 1460)]
    no_options = Client(host, port=40002, options=[]).connect()
    assert no_options[TCP].options == [("MSS", 1460)]
    scaled = Client(host, port=40003, options=[("MSS", 1460), ("WScale", 3)]).connect()
    assert dict(scaled[TCP].options).keys() == {"MSS", "NOP", "WScale"}


@pytest.mark.long
def test_a_flood_of_syns_takes_no_memory(image: Image) -> None:
    host = Host(image, max_connections=4)
    for port in range(1000, 3000):
        Client(host, port=port).connect(ack=False)
    assert "tcp_opened" not in host.counters()
    Client(host, port=5000).connect()
    assert host.counters()["tcp_opened"] == 1


@pytest.mark.parametrize("options", [mss_options(1460), PLAIN, [("MSS", 1460), ("WScale", 14)]])
def test_the_request_may_come_without_the_ack_before_it(image: Image, options: list[Any]) -> None:
    host = Host(image)
    client = Client(host, options=options)
    client.connect(ack=False)
    client.request(GET % b"a")
    assert client.received.endswith(b"hello")


def test_a_forged_ack_is_reset(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    client.connect(ack=False)
    (reset,) = host.send(client.packet("A", ack=client.ack ^ 1 << 24))
    assert checked(reset)[TCP].flags == "R"
    assert host.counters()["tcp_drop_cookie"] == 1


@pytest.mark.parametrize("options", [mss_options(1460), PLAIN])
def test_a_segment_that_overtakes_the_first_is_dropped_without_a_reset(image: Image, options: list[Any]) -> None:
    host = Host(image)
    client = Client(host, options=options)
    client.connect(ack=False)
    assert host.send(client.packet("A", seq=client.seq + 29)) == []
    assert host.send(client.packet("PA", b"more", seq=client.seq + 1000)) == []
    assert host.counters()["tcp_drop_cookie_early"] == 2
    client.request(GET % b"a")
    assert client.received.endswith(b"hello")


def test_a_cookie_expires_and_survives_one_rotation_of_the_secret(image: Image) -> None:
    host = Host(image)
    first, second = Client(host), Client(host, port=40001)
    for client in (first, second):
        client.connect(ack=False)
    lib.stack_rotate_secret(host.stack, b"another secret..")
    assert host.send(first.packet("A")) == []
    lib.stack_rotate_secret(host.stack, b"a third secret..")
    assert host.send(second.packet("A"))[0][TCP].flags == "R"
    late = Client(host, port=40002)
    late.connect(ack=False)
    host.advance(129_000)
    assert host.send(late.packet("A"))[0][TCP].flags == "R"


def test_window_scale_is_kept_by_the_cookie(image: Image) -> None:
    """A window of 2 << 7 lets through one segment of 256 bytes, not 2."""
    for options in (mss_options(1460), [("MSS", 1460), ("WScale", 7)]):
        host = Host(image)
        client = Client(host, options=options, window=2)
        client.connect()
        (packet,) = client.request(GET % b"big")
        assert len(client.payload(packet)) == 256


def test_initial_window_of_ten_and_slow_start(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    client.connect()
    assert len(client.request(GET % b"big")) == 10
    assert len(client.note(host.send(client.packet("A")))) == 18  # eight more, RFC 9406 section 4.2


def test_never_beyond_the_peers_window(image: Image, model: ModelImage) -> None:
    host = Host(image)
    client = Client(host, options=PLAIN, window=5000)
    client.connect()
    packets = client.request(GET % b"big")
    while packets:
        assert sum(len(client.payload(packet)) for packet in packets) <= 5000
        packets = client.note(host.send(client.packet("A")))
    assert client.received == response_of(model, "big")


def test_zero_window_is_probed_until_it_opens(image: Image, model: ModelImage) -> None:
    host = Host(image)
    client = Client(host, options=PLAIN, window=0)
    client.connect()
    (ack,) = client.request(GET % b"a")
    assert client.payload(ack) == b""
    probes = []
    for _ in range(80):
        sent = host.advance(50)
        probes += sent
        if sent:
            host.send(client.packet("A"))
    assert len(probes) == 2  # after one and three seconds: the time between them doubles
    assert all(probe[TCP].seq == (client.ack - 1) % 2**32 for probe in probes)
    client.window = 1000
    client.note(host.send(client.packet("A")))
    assert client.received == response_of(model, "a")


def test_a_lost_segment_is_sent_again_with_the_same_bytes_a_second_later(image: Image, model: ModelImage) -> None:
    host = Host(image)
    client = Client(host, options=PLAIN)
    client.connect()
    (lost,) = host.send(client.packet("PA", GET % b"a"))
    (again,) = [packet for _ in range(30) for packet in host.advance(50)]
    assert client.payload(again) == client.payload(lost) == response_of(model, "a")
    assert again[TCP].seq == lost[TCP].seq
    counters = host.counters()
    assert counters["tcp_retransmit_timeout"] == counters["tcp_retransmit_segments"] == 1


def test_retransmissions_back_off_and_end(image: Image) -> None:
    host = Host(image, config={"send_ms": 10_000_000})
    client = Client(host, options=PLAIN)
    client.connect()
    host.send(client.packet("PA", GET % b"a"))
    times, packets = [], []
    for tenth in range(6000):
        sent = host.advance(100)
        times += [tenth / 10] * len(sent)
        packets += sent
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert gaps[:5] == pytest.approx([2, 4, 8, 16, 32], abs=0.11)
    assert max(gaps) == pytest.approx(60, abs=0.11)
    assert packets[-1][TCP].flags == "RA"
    assert host.counters()["tcp_closed"] == 1


def test_three_duplicate_acks_bring_the_lost_segment(image: Image, model: ModelImage) -> None:
    """Of a peer without SACK: RFC 5681 section 3.2."""
    host = Host(image)
    client = Client(host, options=PLAIN)
    client.connect()
    packets = host.send(client.packet("PA", GET % b"big"))
    client.seq += len(GET % b"big")
    lost = packets.pop(0)
    for _ in packets[:2]:
        (new,) = host.send(client.packet("A"))  # limited transmit, RFC 3042
        assert new[TCP].seq > packets[-1][TCP].seq
        packets.append(new)
    (again, *_) = host.send(client.packet("A"))
    assert client.payload(again) == client.payload(lost)
    client.note([again, *packets])
    assert client.drain() == response_of(model, "big")
    assert host.counters()["tcp_retransmit_fast"] == 1


def test_close_rides_on_the_last_segment(image: Image, model: ModelImage) -> None:
    host = Host(image)
    client = Client(host)
    client.connect()
    (packet,) = client.request(CLOSE % b"a")
    assert packet[TCP].flags == "FPA"
    assert client.received == response_of(model, "a", close=True)
    (ack,) = client.request(b"", "FA")
    assert ack[TCP].flags == "A"
    assert ack[TCP].ack == client.seq
    assert host.counters()["tcp_time_wait"] == host.counters()["tcp_closed"] == 1
    # TIME-WAIT: the client's FIN comes again, and is acknowledged again.
    (again,) = host.send(client.packet("FA", seq=client.seq - 1))
    assert checked(again)[TCP].flags == "A"
    assert again[TCP].ack == client.seq


def test_the_port_may_be_used_again_in_time_wait(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    client.connect()
    client.request(CLOSE % b"a")
    client.request(b"", "FA")
    again = Client(host, isn=client.seq + 100_000)
    again.connect()
    again.request(GET % b"a")
    assert again.received.endswith(b"hello")


def test_client_closes_first_and_while_data_is_due(image: Image, model: ModelImage) -> None:
    host = Host(image)
    client = Client(host)
    client.connect()
    client.request(GET % b"big", "FPA")
    assert client.drain() == response_of(model, "big")
    assert client.fin
    client.note(host.send(client.packet("A")))
    assert host.counters()["tcp_closed"] == 1
    assert "tcp_time_wait" not in host.counters()


def test_reset_must_be_exact(image: Image) -> None:
    """RFC 5961 section 3.2: in the window but not the next byte gets a challenge ACK."""
    host = Host(image)
    client = Client(host)
    client.connect()
    (challenge,) = host.send(client.packet("R", seq=client.seq + 10))
    assert challenge[TCP].flags == "A"
    assert host.send(client.packet("R", seq=client.seq + 100_000)) == []
    assert "tcp_closed" not in host.counters()
    assert host.send(client.packet("R")) == []
    assert host.counters()["tcp_closed"] == 1


def test_a_syn_in_a_connection_is_challenged(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    client.connect()
    (challenge,) = host.send(client.packet("S", seq=client.seq + 5))
    assert challenge[TCP].flags == "A"
    assert challenge[TCP].seq == client.ack % 2**32


def test_old_timestamps_are_refused(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    client.connect()
    client.ts_value -= 1
    client.request(GET % b"a")
    assert client.received == b""
    assert host.counters()["tcp_drop_paws"] == 1


@pytest.mark.parametrize("isn", [2**32 - 1, 2**32 - 20, 2**31 - 1])
def test_sequence_numbers_wrap(image: Image, model: ModelImage, isn: int) -> None:
    host = Host(image)
    client = Client(host, isn=isn)
    client.connect()
    client.request(GET % b"a")
    client.request(GET % b"big")
    assert client.drain() == response_of(model, "a") + response_of(model, "big")


def test_bad_checksums_are_dropped(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    frame = bytearray(bytes(client.packet("S", options=client.options)))
    for at, reason in ((24, "ip_drop_checksum"), (40, "tcp_drop_checksum")):
        bad = bytearray(frame)
        bad[at] ^= 0x10
        assert host.send(bytes(bad)) == []
        assert host.counters()[reason] == 1
    frame[40] ^= 0x10
    assert len(host.send(bytes(frame), checksum_ok=True)) == 1


@pytest.mark.parametrize("v6", [False, True])
def test_a_checksum_is_whole_or_as_a_local_sender_leaves_it(image: Image, v6: bool) -> None:
    """Where the port can't say which: the pseudo-header's sum, not inverted, is all that is good beside a right one."""
    client = Client(Host(image), v6=v6)
    whole = Ether(bytes(client.packet("S", options=client.options)))
    segment = bytes(whole[TCP])
    addresses = bytes(whole)[22:54] if v6 else bytes(whole)[26:34]
    partial = whole.copy()
    partial[TCP].chksum = 0xFFFF - checksum(addresses + struct.pack("!LL", len(segment), 6))
    wrong = whole.copy()
    wrong[TCP].chksum = partial[TCP].chksum ^ 1
    inverted = whole.copy()
    inverted[TCP].chksum = 0xFFFF - partial[TCP].chksum
    for packet, answers in ((whole, (1, 1)), (partial, (1, 0)), (wrong, (0, 0)), (inverted, (0, 0))):
        for may_be_partial, expected in zip((True, False), answers, strict=True):
            host = Host(image)
            assert len(host.send(bytes(packet), may_be_partial=may_be_partial)) == expected
            assert host.counters().get("tcp_drop_checksum", 0) == 1 - expected


def test_idle_connections_are_closed(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    client.connect()
    client.request(GET % b"a")
    client.note(host.send(client.packet("A")))
    assert host.advance(9_900) == []
    client.note(host.advance(200))
    assert client.fin
    assert host.counters()["tcp_timeout_idle"] == 1


def test_a_silent_peer_after_the_handshake_is_closed(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    client.connect()
    client.note(host.advance(5_100))
    assert client.fin
    assert client.received == b""


@pytest.mark.long
def test_memory_is_given_back(image: Image, model: ModelImage) -> None:
    host = Host(image, max_connections=4)
    for port in range(1000, 1100):
        client = Client(host, port=port)
        client.connect()
        client.request(CLOSE % b"big")
        client.drain()
        client.request(b"", "FA")
        assert client.received == response_of(model, "big", close=True)
    counters = host.counters()
    assert counters["tcp_opened"] == counters["tcp_closed"] == 100
    assert host.region.free_count == host.region.buffer_count


def test_a_full_pool_drops_and_the_peer_may_come_again(image: Image) -> None:
    host = Host(image, max_connections=1)
    first, second = Client(host), Client(host, port=40001)
    first.connect()
    first.request(GET % b"big")
    second.connect()
    assert host.counters()["tcp_drop_pool_full"] == 1
    host.send(first.packet("R"))
    second.request(GET % b"a")
    assert second.received.endswith(b"hello")


def test_an_ack_waits_for_a_buffer(image: Image) -> None:
    host = Host(image, buffers=1, prompt=False)
    client = Client(host)
    client.seq += 1
    (syn_ack,) = host.send(client.packet("S", options=client.options, seq=client.seq - 1))
    host.complete()
    client.ack = syn_ack[TCP].seq + 1
    client.ts_echo = dict(syn_ack[TCP].options)["Timestamp"][0]
    assert len(client.request(b"GET /a")) == 1
    assert client.request(b" HTTP/1.1\r\n") == [], "the one buffer is in flight"
    host.complete()
    (ack,) = host.advance(0)
    assert ack[TCP].flags == "A"
    assert ack[TCP].ack == client.seq


@pytest.mark.long
def test_frames_in_flight_are_never_patched(model: ModelImage, image: Image) -> None:
    """A slow port: nothing is completed while many connections ask for the same file.

    Host.complete asserts that every frame still is what it was when it was enqueued.
    """
    host = Host(image, ring=32, prompt=False)
    clients = [Client(host, port=50000 + i) for i in range(12)]
    for client in clients:
        client.connect()
        host.complete()
    sent: list[Any] = []
    for client in clients:
        sent += host.send(client.packet("PA", GET % b"big"))
        client.seq += len(GET % b"big")
    assert len(sent) == 32
    host.wall_s += 5
    for _ in range(2000):
        if not host.flying:
            break
        host.complete(3)
        for client in clients:
            client.note([packet for packet in sent if packet[TCP].dport == client.port])
        sent = host.advance(1)
        for client in clients:
            sent += host.send(client.packet("A"))
    assert all(client.received == response_of(model, "big") for client in clients)
    counters = host.counters()
    assert counters["arena_copies_made"] > 0
    assert "arena_stalls" not in counters


def test_frame_by_frame_ids_and_dont_fragment(image: Image) -> None:
    host = Host(image)
    client = Client(host)
    assert client.connect()[IP].flags == "DF"
    (packet,) = client.request(GET % b"a")
    assert packet[IP].flags == "DF"
    assert packet[IP].ttl == 64


def test_the_judge_of_checksums_can_refuse(image: Image) -> None:
    """A byte of the payload, of the TCP or of the IP header is wrong: scapy comes to another packet."""
    client = Client(Host(image))
    client.connect()
    good = bytes(client.host.send(client.packet("PA", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"))[0])
    checked(Ether(good))
    for at in (len(good) - 1, 14 + 20 + 4, 14 + 8):
        with pytest.raises(AssertionError):
            checked(Ether(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]))


def test_time_without_use_of_the_window_is_no_time_of_growth(image: Image) -> None:
    """RFC 9438 sections 4.2 and 5.8: small answers, and the time between them, let CUBIC's window grow by nothing."""
    host = Host(image, config={"keep_alive_ms": 100_000})
    client = Client(host, window=65535)
    client.connect()
    info = ffi.new("struct stack_connection *")

    def window() -> int:
        assert lib.stack_connection_at(host.stack, 0, info)
        return int(info.cwnd)

    def fetch(name: bytes) -> None:
        packets = client.request(GET % name, check=False)
        while packets:
            client.note(host.advance(50), check=False)
            packets = client.note(host.send(client.packet("A")), check=False)

    first, *rest = client.request(GET % b"big", check=False)  # the first of ten is lost
    edges = [("NOP", None), ("NOP", None), ("SAck", (rest[0][TCP].seq, rest[-1][TCP].seq + 1000))]
    client.note(host.advance(50), check=False)
    stamp = [("NOP", None), ("NOP", None), ("Timestamp", (client.ts_value, client.ts_echo))]
    client.note(host.send(client.packet("A", ack=first[TCP].seq, options=stamp + edges)), check=False)
    client.drain(check=False)
    assert host.counters()["tcp_retransmit_fast"] == 1
    before = window()
    for _ in range(40):
        fetch(b"a")
        client.note(host.advance(100), check=False)
    fetch(b"big")
    assert window() < 2 * before, (window(), before)


@pytest.mark.parametrize("v6", [False, True])
def test_explicit_congestion_notification(image: Image, v6: bool) -> None:
    """RFC 3168: new data can be marked, what is sent again and bare ACKs can't; a mark on a request is told until CWR."""

    def ecn(packet: Any) -> int:
        return int(packet[IPv6].tc & 3 if v6 else packet[IP].tos & 3)

    host = Host(image)
    client = Client(host, v6=v6)
    (syn_ack,) = host.send(client.packet("SEC", options=client.options))
    assert "E" in syn_ack[TCP].flags
    assert ecn(syn_ack) == 0
    client.seq += 1
    client.ack = syn_ack[TCP].seq + 1
    client.ts_echo = dict(syn_ack[TCP].options)["Timestamp"][0]
    marked = client.packet("PA", (GET % b"big")[:10])
    if v6:
        marked[IPv6].tc = 3
    else:
        marked[IP].tos = 3
    client.seq += 10
    (ack,) = client.note(host.send(marked))
    assert ack[TCP].flags == "AE"
    assert ecn(ack) == 0
    data = client.request((GET % b"big")[10:])
    assert {str(packet[TCP].flags) for packet in data} == {"AE"}
    assert {ecn(packet) for packet in data} == {2}
    again = client.note(host.advance(300))
    assert again
    assert all(ecn(packet) == 0 for packet in again if packet[TCP].seq < data[-1][TCP].seq + 1)
    more = client.note(host.send(client.packet("CA")))
    assert {str(packet[TCP].flags) for packet in more} == {"A"}
    assert {ecn(packet) for packet in more} == {2}
