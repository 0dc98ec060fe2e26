"""What became of each answer: an entry for each, and its line."""

from __future__ import annotations

import ipaddress
import json
import random
import re
from typing import Any

import pytest
from scapy.layers.inet import TCP
from ssimage._sandstorm import ffi, lib

from tests.access import COMBINED, Reader, following
from tests.host import CLIENT_IP, CLIENT_IP6, WALL_S, Client, Host, Image, build
from tests.sockets import Worker

BIG = bytes(range(251)) * 1000
TEXT = b"text\n" * 400
HTTP = b" HTTP/1.1\r\nHost: a\r\n"
MANIFEST = """
version: 1
encodings: {make: [br, zstd]}
sites:
  - hosts: [a]
    root: files
    redirects:
      - {from: "/old/*", to: "/new/:splat", status: 308}
  - hosts: [b]
    root: files
"""
START_US = 1_000_000_000_000 // 1000
WALL_US = WALL_S * 1_000_000 - START_US


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("site")
    (folder / "files").mkdir()
    (folder / "files" / "big.bin").write_bytes(BIG)
    (folder / "files" / "t.txt").write_bytes(TEXT)
    (folder / "site.yaml").write_text(MANIFEST)
    return Image.read(build(folder / "site.yaml", folder / "x.img"))


class Logged:
    """A stack whose answers are followed."""

    def __init__(self, image: Image, pattern: str = COMBINED, *, sample: int = 1, **how: Any) -> None:
        limits = {name: how.pop(name) for name in ("followed_max", "heads", "read") if name in how}
        self.config = following(**limits)
        self.host = Host(image, config=self.config, **how)
        self.state = lib.stack_app_state(self.host.stack)
        self.log = Reader(self.state, pattern, sample=sample, wall_us=WALL_US)

    def client(self, **how: Any) -> Client:
        client = Client(self.host, **how)
        client.connect()
        return client

    def ask(self, *requests: bytes, **how: Any) -> Client:
        """A connection that has its answers, all acknowledged."""
        client = self.client(**how)
        for request in requests:
            client.request(request)
        client.drain()
        return client

    def lines(self) -> list[str]:
        return self.log.lines()

    def followed(self) -> Any:
        """Where it counts."""
        followed = ffi.new("struct web_followed *")
        lib.web_followed_open(followed, self.state)
        return followed


def fields(pattern: str) -> str:
    """A line of JSON with these."""
    return "escape=json {" + ", ".join(f'"{name}": {name_or_text(name)}' for name in pattern.split()) + "}"


def name_or_text(name: str) -> str:
    numbers = ("bytes", "status", "time", "rtt", "retransmissions", "length", "port", "msec")
    is_number = any(word in name for word in numbers) and name not in ("time_local", "time_iso8601")
    return f"${name}" if is_number else f'"${name}"'


def test_a_line_says_who_asked_for_what_and_what_became_of_it(image: Image) -> None:
    logged = Logged(image)
    logged.ask(b"GET /t.txt" + HTTP + b"Referer: http://x/y\r\nUser-Agent: curl/7.88\r\n\r\n")
    assert logged.lines() == [
        f'{CLIENT_IP} - - [06/Nov/1994:08:49:37 +0000] "GET /t.txt HTTP/1.1" 200 {len(TEXT)} "http://x/y" "curl/7.88"'
    ]
    logged.ask(b"HEAD /nothing" + HTTP + b"\r\n", v6=True, port=5)
    assert logged.lines() == [f'{CLIENT_IP6} - - [06/Nov/1994:08:49:37 +0000] "HEAD /nothing HTTP/1.1" 404 0 "-" "-"']


def test_times_are_those_of_the_end_and_of_the_place(image: Image) -> None:
    logged = Logged(image, "$time_local|$time_iso8601|$msec|$request_time|$first_byte_time")
    logged.log.reader.utc_offset_s = -(3 * 3600 + 30 * 60)
    client = logged.client()
    client.request(b"GET /big.bin" + HTTP + b"\r\n")
    client.note(logged.host.advance(250.125))
    client.drain()
    assert logged.lines() == ["06/Nov/1994:05:19:37 -0330|1994-11-06T05:19:37-03:30|784111777.250|0.250125|0.000000"]


def test_an_answer_is_logged_when_its_last_byte_is_acknowledged_and_not_before(image: Image) -> None:
    logged = Logged(image, "$status $bytes_sent $request_completion")
    client = logged.client()
    client.request(b"GET /big.bin" + HTTP + b"\r\n")
    assert logged.lines() == []
    client.drain()
    assert logged.lines() == [f"200 {len(client.received)} OK"]


@pytest.mark.parametrize("flags", ["R", ""])
def test_of_an_answer_cut_short_there_is_how_far_it_came(image: Image, flags: str) -> None:
    """By the client's reset; and by its silence."""
    logged = Logged(image, "$status $bytes_sent $body_bytes_sent $request_completion")
    client = logged.client()
    client.request(b"GET /big.bin" + HTTP + b"\r\n")
    client.note(logged.host.send(client.packet("A")))
    arrived = len(client.received)
    head = client.received.index(b"\r\n\r\n") + 4
    assert 0 < arrived < len(BIG)
    logged.host.send(client.packet("A"))
    if flags == "R":
        logged.host.send(client.packet("R", ack=0))
    else:
        for _ in range(100):
            logged.host.advance(1000)
    assert logged.lines() == [f"200 {arrived} {arrived - head} -"]


def test_what_was_never_answered_is_not_logged_and_what_was_closed_instead_is(image: Image) -> None:
    logged = Logged(image, '$status "$request" $bytes_sent')
    client = logged.client()
    client.request(b"GET /t.txt HTTP/1.1\r\nHo")
    client.note(logged.host.advance(6000))  # the limit
    client.drain()
    ((status, request, _),) = [line.split('"') for line in logged.lines()]
    assert (status, request) == ("408 ", "GET /t.txt HTTP/1.1")
    logged.client(port=3)
    for _ in range(40):
        logged.host.advance(1000)
    assert all(" - " not in line for line in logged.lines())


def test_pipelined_requests_have_a_line_each_in_their_order(image: Image) -> None:
    logged = Logged(image, "$request_uri $status $bytes_sent")
    paths = [b"/t.txt", b"/nothing", b"/t.txt?x", b"/t.txt", b"/a", b"/b", b"/t.txt?y"]
    client = logged.client()
    client.request(b"".join(b"GET " + path + HTTP + b"\r\n" for path in paths))
    client.drain()
    found = [line.split() for line in logged.lines()]
    assert [each[0].encode() for each in found] == paths
    assert [each[1] for each in found] == ["200", "404", "200", "200", "404", "404", "200"]
    assert sum(int(each[2]) for each in found) == len(client.received)


def test_a_reset_ends_all_that_are_queued(image: Image) -> None:
    logged = Logged(image, "$request_uri $bytes_sent $request_completion")
    client = logged.client()
    client.request(b"".join(b"GET /big.bin?%d" % i + HTTP + b"\r\n" for i in range(3)))
    logged.host.send(client.packet("R", ack=0))
    assert logged.lines() == [f"/big.bin?{i} 0 -" for i in range(3)]


def test_retransmissions_and_the_round_trip_are_in_it(image: Image) -> None:
    logged = Logged(image, "$retransmissions $tcpinfo_rtt")
    client = logged.client()
    first = client.packet("PA", b"GET /big.bin" + HTTP + b"\r\n")
    client.seq += len(first[TCP].payload)
    logged.host.send(first)  # which are lost
    resent = []
    for _ in range(40):
        resent += logged.host.advance(100)
    assert resent
    client.note(resent)
    logged.host.advance(20)
    client.drain()
    ((count, rtt),) = [line.split() for line in logged.lines()]
    assert int(count) >= len(resent)
    assert int(count) == logged.host.counters()["tcp_retransmit_segments"]
    assert int(rtt) > 0
    logged.ask(b"GET /t.txt" + HTTP + b"\r\n", port=7)
    assert logged.lines()[0].startswith("0 ")


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_ranges_are_one_answer_however_many_slices_they_are(image: Image, count: int) -> None:
    logged = Logged(image, "$status $bytes_sent $body_bytes_sent $request_completion $variant")
    ranges = b",".join(b"%d-%d" % (2000 * i, 2000 * i + 1500) for i in range(count))
    client = logged.ask(b"GET /big.bin" + HTTP + b"Range: bytes=" + ranges + b"\r\n\r\n")
    assert client.received.startswith(b"HTTP/1.1 206")
    head = client.received.index(b"\r\n\r\n") + 4
    assert logged.lines() == [f"206 {len(client.received)} {len(client.received) - head} OK identity"]
    assert logged.host.counters()["log_records"] == 1


def test_a_connection_lost_in_many_ranges_leaves_one_line(image: Image) -> None:
    logged = Logged(image, "$status $bytes_sent $request_completion")
    ranges = b",".join(b"%d-%d" % (2000 * i, 2000 * i + 1500) for i in range(100))
    client = logged.client()
    client.request(b"GET /big.bin" + HTTP + b"Range: bytes=" + ranges + b"\r\n\r\n")
    client.note(logged.host.send(client.packet("A")))
    arrived = len(client.received)
    logged.host.send(client.packet("A"))
    logged.host.send(client.packet("R", ack=0))
    assert logged.lines() == [f"206 {arrived} -"]
    logged.ask(b"GET /t.txt" + HTTP + b"\r\n", port=7)
    assert len(logged.lines()) == 1


def test_a_redirect_that_is_made_on_the_spot(image: Image) -> None:
    logged = Logged(image, "$status $bytes_sent $body_bytes_sent")
    client = logged.ask(b"GET /old/a?b" + HTTP + b"\r\n")
    head = client.received.index(b"\r\n\r\n") + 4
    assert b"/new/a" in client.received
    assert logged.lines() == [f"308 {len(client.received)} {len(client.received) - head}"]


def test_variants(image: Image) -> None:
    logged = Logged(image, "$status $variant")
    client = logged.client()
    for coding in (b"identity", b"br", b"gzip;q=0.5, zstd"):
        client.request(b"GET /t.txt" + HTTP + b"Accept-Encoding: " + coding + b"\r\n\r\n")
    client.drain()
    etag = re.findall(rb"ETag: *(\S+)", client.received)[-1]
    client.request(b"GET /t.txt" + HTTP + b"Accept-Encoding: zstd\r\nIf-None-Match: " + etag + b"\r\n\r\n")
    client.request(b"GET /nothing" + HTTP + b"\r\n")
    client.drain()
    assert logged.lines() == ["200 identity", "200 br", "200 zstd", "304 zstd", "404 -"]


FORGED = b'" 200 0 "-" "-"\r\n\\\x00\x07\x1b[2J\x7f\xff\xc3\xa9'


def test_a_client_can_not_forge_a_line(image: Image) -> None:
    """What ends a field or a line, moves a cursor or is not ASCII is written as nginx does it, and as JSON wants it."""
    request = b"GET /t.txt" + HTTP + b"User-Agent: a" + FORGED.replace(b"\r\n", b"") + b"z\r\n\r\n"
    for pattern in (COMBINED, fields("http_user_agent request")):
        logged = Logged(image, pattern)
        logged.ask(request)
        logged.ask(b"GET /" + FORGED + b" HTTP/1.1\r\n\r\n", port=8)
        text = logged.log.text()
        assert text.count(b"\n") == 2
        assert all(0x20 <= byte < 0x7F or byte == 0x0A for byte in text)
        if pattern == COMBINED:
            assert rb'"a\x22 200 0 \x22-\x22 \x22-\x22\x5C\x00\x07\x1B[2J\x7F\xFF\xC3\xA9z"' in text
            assert all(line.count(b'"') == 6 for line in text.splitlines())
        else:
            agent = json.loads(text.splitlines()[0])["http_user_agent"]
            assert agent.encode("latin-1") == b"a" + FORGED.replace(b"\r\n", b"") + b"z"


def test_of_a_long_head_what_is_logged_is_picked_out(image: Image) -> None:
    logged = Logged(image, "$request_uri|$http_referer|$http_user_agent|$request_length")
    request = b"GET /t.txt" + HTTP + b"Cookie: " + b"c" * 4000 + b"\r\nreferer:\t r \r\nUSER-AGENT: u\r\n\r\n"
    logged.ask(request)
    assert logged.lines() == [f"/t.txt|r|u|{len(request)}"]
    logged.ask(b"GET /" + b"x" * 3000 + HTTP + b"User-Agent: u\r\n\r\n", port=8)
    (line,) = logged.lines()
    assert line.startswith("/xxx")
    assert len(line) < 600
    assert line.endswith("|-|u|3042")


def test_without_heads_nothing_of_them_is_kept(image: Image) -> None:
    logged = Logged(image, "$status $request_uri", heads=False)
    logged.ask(b"GET /t.txt" + HTTP + b"\r\n")
    assert logged.lines() == ["200 -"]


def test_one_of_so_many_and_all_that_went_wrong(image: Image) -> None:
    logged = Logged(image, "$status", sample=10)
    for number in range(20):
        logged.ask(b"GET /t.txt" + HTTP + b"\r\n", b"GET /nothing" + HTTP + b"\r\n", port=1000 + number)
    assert sorted(logged.lines()) == ["200"] * 2 + ["404"] * 20
    assert logged.log.reader.left_out == 18
    client = logged.client()
    client.request(b"GET /big.bin" + HTTP + b"\r\n")
    logged.host.send(client.packet("R", ack=0))
    assert logged.lines() == ["200"]


def test_when_nobody_reads_answers_are_counted_and_go_on(image: Image) -> None:
    """Each of them is in the log or counted as dropped; when it is read there is room again."""
    logged = Logged(image, "$request_uri", followed_max=5)
    for number in range(12):
        client = logged.ask(b"GET /t.txt?%d" % number + HTTP + b"\r\n", port=1000 + number)
        assert client.received.endswith(TEXT)
    counters = logged.host.counters()
    assert (counters["log_records"], counters["log_dropped"], counters["http_status_2xx"]) == (5, 7, 12)
    assert logged.lines() == [f"/t.txt?{number}" for number in range(5)]
    logged.host.advance(1)
    logged.ask(b"GET /t.txt?x" + HTTP + b"\r\n")
    assert logged.lines() == ["/t.txt?x"]


def test_an_answer_of_many_slices_for_which_there_was_no_entry(image: Image) -> None:
    """Its later slices must not be taken for those of another one."""
    logged = Logged(image, "$request_uri $request_completion", followed_max=1)
    other = logged.client(port=9)
    other.request(b"GET /big.bin?other" + HTTP + b"\r\n")
    ranges = b",".join(b"%d-%d" % (2000 * i, 2000 * i + 1500) for i in range(100))
    client = logged.ask(b"GET /big.bin" + HTTP + b"Range: bytes=" + ranges + b"\r\n\r\n")
    assert client.received.startswith(b"HTTP/1.1 206")
    other.drain()
    assert logged.lines() == ["/big.bin?other OK"]
    assert logged.host.counters()["log_dropped"] == 1


def test_entries_are_used_again(image: Image) -> None:
    """Thousands go through a pool of a few, and none is lost."""
    logged = Logged(image, "$request_uri $bytes_sent", followed_max=8)
    client = logged.client()
    found = []
    for number in range(500):
        client.request(b"GET /t.txt?%d" % number + HTTP + b"\r\n")
        client.drain()
        found += logged.lines()
        logged.host.advance(1)
    assert [line.split()[0] for line in found] == [f"/t.txt?{number}" for number in range(500)]
    assert len({line.split()[1] for line in found}) == 1


def test_answers_by_site_and_how_long_they_took(image: Image) -> None:
    logged = Logged(image, read=False)
    logged.ask(b"GET /t.txt HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /t.txt HTTP/1.1\r\nHost: b\r\n\r\n", port=1)
    logged.ask(b"GET /t.txt HTTP/1.1\r\nHost: b\r\n\r\n", port=2)  # known by now
    logged.ask(b"GET /t.txt HTTP/1.1\r\nHost: b\r\n\r\n", port=3)
    logged.ask(b"GET /x HTTP/1.1\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: unknown\r\n\r\n", port=4)
    logged.ask(b"nonsense\r\n\r\n", port=5)
    followed = logged.followed()
    places = (0, 1, lib.WEB_SITES_NONE)
    answers = [[lib.web_site_answers(followed, place, kind) for kind in range(6)] for place in places]
    assert answers[0] == [0, 0, 1, 0, 0, 0]
    assert answers[1] == [0, 0, 3, 0, 1, 0]
    assert answers[2] == [0, 0, 0, 0, 2, 0]
    sent = [lib.web_site_bytes(followed, place) for place in places]
    assert sum(sent) == logged.host.counters()["tcp_tx_payload_bytes"]
    assert sent[1] > 3 * len(TEXT)
    client = logged.client(port=6)
    client.request(b"GET /big.bin" + HTTP + b"\r\n")
    client.note(logged.host.advance(3))
    client.drain()
    counts = [[lib.web_latency_count(followed, kind, bucket) for bucket in range(28)] for kind in range(2)]
    assert [sum(each) for each in counts] == [8, 8]
    assert counts[0][0] == 8  # sent in the round that it was asked in
    assert counts[1][11] == 1  # 2.048 ms <= 3 ms < 4.096 ms
    assert lib.web_latency_sum_us(followed, 1) == 3000
    assert logged.lines() == []  # and the pool is not used up
    assert logged.host.counters()["log_records"] == 8


def test_what_the_end_of_a_worker_finds_open_is_cut_short(image: Image) -> None:
    logged = Logged(image, "$request_uri $request_completion")
    client = logged.client()
    client.request(b"GET /big.bin" + HTTP + b"\r\n")
    logged.ask(b"GET /t.txt" + HTTP + b"\r\n", port=3)
    lib.access_reader_end(logged.log.reader, START_US + 5)
    assert logged.lines() == ["/t.txt OK", "/big.bin -"]
    assert logged.lines() == []


def log_struct(logged: Logged) -> Any:
    """The struct itself: it lies in front of the first of its tables."""
    log = ffi.cast("uint8_t *", lib.web_access_log(logged.state))
    return ffi.buffer(log, ffi.cast("uint8_t *", logged.log.reader.entries) - log)


def scribble(logged: Logged, byte: int) -> None:
    """Over all that the reader and the counts are opened on, and the struct that has pointers to that."""
    reader, followed = logged.log.reader, logged.followed()
    memory = [
        ffi.buffer(ffi.cast("uint8_t *", start), size)
        for start, size in (
            (reader.entries, reader.entry_count * 1024),
            (reader.ended, 4 * (reader.ended_mask + 1)),
            (reader.returned, 4 * (reader.returned_mask + 1)),
            (followed.sites, lib.WEB_SITE_PLACES * 64),
        )
    ]
    for part in (*memory, log_struct(logged)):
        part[:] = bytes([byte]) * len(part)


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x02, 0x41, 0x7F, 0x80, 0xFF])
def test_a_writer_that_lies_makes_wrong_lines_and_no_more(image: Image, byte: int) -> None:
    """The process of the workers may have been taken over: the reader keeps to the memory that it has been opened with, and to what it
    has copied from there. It reads a few lines at most, and not for ever."""
    names = []
    while (name := lib.access_variable_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    logged = Logged(image, fields(" ".join(names)))
    followed = logged.followed()
    logged.ask(b"GET /t.txt" + HTTP + b"\r\n")
    scribble(logged, byte)
    for end in (False, True):
        if end:
            lib.access_reader_end(logged.log.reader, 5)
        found = logged.log.text().splitlines()
        assert len(found) <= 64
        for line in found:
            json.loads(line)
    assert lib.web_site_answers(followed, 0, 0) == int.from_bytes(bytes([byte]) * 8, "little")


def test_each_number_of_an_entry_may_be_anything(image: Image) -> None:
    """One entry at a time, of random bytes: a line of JSON comes of it, whatever it is."""
    names = []
    while (name := lib.access_variable_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    logged = Logged(image, fields(" ".join(names)))
    dice = random.Random(1)
    for number in range(2000):
        logged.log.reader.worker_ended_us = 0
        logged.log.reader.rest = 0
        entry = ffi.buffer(ffi.cast("uint8_t *", logged.log.reader.entries), 1024)
        entry[:] = dice.randbytes(1024) if number % 2 else bytes(dice.choice((0, 1, 0x20, 0xFF)) for _ in range(1024))
        lib.access_reader_end(logged.log.reader, dice.getrandbits(dice.randrange(1, 64)))
        for line in logged.log.text().splitlines():
            json.loads(line)


def test_a_ring_that_never_ends_is_told_and_left(image: Image) -> None:
    logged = Logged(image)
    before = bytes(log_struct(logged))
    for number in range(37):
        logged.ask(b"GET /t.txt" + HTTP + b"\r\n", port=1000 + number)
    memory = ffi.cast("uint32_t *", ffi.from_buffer(log_struct(logged)))
    (place,) = [at for at in range(len(before) // 4) if memory[at] == 37 and before[4 * at : 4 * at + 4] == bytes(4)]
    assert len(logged.lines()) == 37
    for lie in (0, 0xFFFF0000, 1 << 31, 77):
        memory[place] = (logged.log.reader.ended_read + 65 + lie) & 0xFFFFFFFF
        assert logged.lines() == []
    assert logged.log.reader.damaged == 4


OTHER_MANIFEST = """
version: 1
encodings: {make: [br, zstd]}
sites:
  - hosts: [0.new]
    root: other
  - hosts: [b]
    root: other
  - hosts: [a]
    root: other
    redirects:
      - {from: "/old/*", to: "/newer/:splat", status: 307}
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Of the same sites in another order, with others' numbers for everything, and fewer of them."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "other").mkdir()
    (folder / "other" / "t.txt").write_bytes(b"changed\n" * 400)
    (folder / "site.yaml").write_text(OTHER_MANIFEST)
    return Image.read(build(folder / "site.yaml", folder / "x.img"))


def test_what_is_logged_is_of_the_image_that_the_answer_is_of(image: Image, other: Image) -> None:
    """Also when the answer ends after that image is gone."""
    logged = Logged(image, "$host $request_uri $status $bytes_sent $variant $request_completion")
    many = b",".join(b"%d-%d" % (2000 * i, 2000 * i + 1500) for i in range(100))
    clients = {
        request: logged.client(port=100 + number)
        for number, request in enumerate(
            (
                b"GET /big.bin" + HTTP + b"\r\n",
                b"GET /big.bin" + HTTP + b"Range: bytes=" + many + b"\r\n\r\n",
                b"GET /old/x" + HTTP + b"\r\n",
                b"GET /t.txt" + HTTP + b"Accept-Encoding: br\r\n\r\n",
            )
        )
    }
    for request, client in clients.items():
        client.request(request)
    assert logged.lines() == []
    old = logged.host.swap(other)
    assert lib.generation_state(old) == lib.GENERATION_SERVED
    logged.ask(b"GET /t.txt HTTP/1.1\r\nHost: b\r\nAccept-Encoding: zstd\r\n\r\n", port=1)
    for client in clients.values():
        client.drain()
    sent = [len(client.received) for client in clients.values()]
    assert sent[0] > len(BIG)
    first, *lines = logged.lines()
    assert first.startswith("b /t.txt 200 ")
    assert first.endswith("zstd OK")
    assert sorted(lines) == sorted(
        [
            f"a /big.bin 200 {sent[0]} identity OK",
            f"a /big.bin 206 {sent[1]} identity OK",
            f"a /old/x 308 {sent[2]} identity OK",
            f"a /t.txt 200 {sent[3]} br OK",
        ]
    )
    logged.ask(b"GET /old/y" + HTTP + b"\r\n", b"GET /big.bin" + HTTP + b"\r\n", port=2)
    assert [line.split()[2] for line in logged.lines()] == ["307", "404"]


def test_an_answer_made_on_the_spot_ends_after_its_image_is_gone(image: Image, other: Image) -> None:
    """It is the connection's own by then; nothing of the image may be read any more."""
    logged = Logged(image, "$request_uri $status $bytes_sent $request_completion")
    mine = Image(image.data)
    old = logged.host.swap(mine)
    memory = logged.host.swapped[-1][1]
    client = logged.client()
    client.request(b"GET /old/x" + HTTP + b"\r\n")
    logged.host.swap(other)
    for _ in range(3):
        logged.host.advance(1)
    assert lib.generation_state(old) == lib.GENERATION_GONE
    parts = [(getattr(mine.sections, name), getattr(mine.sections, f"{name}_bytes")) for name in mine.data]
    for start, size in (*parts, (memory, len(memory))):
        ffi.memmove(ffi.cast("uint8_t *", start), b"\xff" * size, size)
    client.drain()
    assert logged.lines() == [f"/old/x 308 {len(client.received)} OK"]


def test_sites_keep_their_counts_when_another_image_comes(image: Image, other: Image) -> None:
    logged = Logged(image)
    followed = logged.followed()

    def counts() -> list[int]:
        places = (*range(4), lib.WEB_SITES_OTHER, lib.WEB_SITES_NONE)
        return [sum(lib.web_site_answers(followed, place, kind) for kind in range(6)) for place in places]

    def ask_all(port: int) -> None:
        for number, host in enumerate((b"a", b"b", b"b", b"0.new")):
            logged.ask(b"GET /t.txt HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", port=port + number)

    ask_all(100)
    assert counts() == [1, 2, 0, 0, 0, 1]
    logged.host.swap(other)
    ask_all(200)
    assert counts() == [2, 4, 1, 0, 0, 1]
    logged.host.swap(image)
    ask_all(300)
    assert counts() == [3, 6, 1, 0, 0, 2]


def test_places_of_sites_are_bounded() -> None:
    places = ffi.new("struct web_site_places *")
    names = [b"site %d" % number for number in range(lib.WEB_SITES_MAX + 5)]
    found = [lib.web_site_place(places, name, len(name)) for name in names]
    assert found == [*range(lib.WEB_SITES_MAX), *[lib.WEB_SITES_OTHER] * 5]
    assert lib.web_site_place(places, names[7], len(names[7])) == 7


@pytest.mark.parametrize(
    ("pattern", "error", "place"),
    [
        ("", "it is empty", 0),
        ("$status $nothing", "there is no such variable", 8),
        ("a $", "a dollar sign begins no name", 2),
        ("${status", "a dollar sign begins no name", 0),
        ("x" * 3000, "it is too long", 0),
        ("$status" * 64, "there are more than 64 parts", 448),
        ("escape=json ", "it is empty", 12),
    ],
)
def test_patterns_that_are_none(pattern: str, error: str, place: int) -> None:
    at = ffi.new("uint32_t *")
    found = lib.access_format_read(ffi.new("struct access_format *"), pattern.encode(), at)
    assert ffi.string(found).decode() == error
    assert at[0] == place


def test_every_variable_is_a_word_and_a_valid_value_in_json(image: Image) -> None:
    names = []
    while (name := lib.access_variable_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    assert names == sorted(names)
    logged = Logged(image, fields(" ".join(names)))
    logged.ask(b"GET /t.txt?a=b" + HTTP + b"\r\n")
    logged.ask(b"x\r\n\r\n", port=9)
    first, second = (json.loads(line) for line in logged.lines())
    assert first["args"] == "a=b"
    assert first["host"] == "a"
    assert second["status"] == 400
    plain = Logged(image, " ".join(f"${{{name}}}" for name in names))
    plain.ask(b"GET /t.txt?a=b" + HTTP + b"\r\n")
    assert len(plain.lines()[0].split()) >= len(names)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("2001:db8::1", "2001:db8::1"),
        ("::", "::"),
        ("::1", "::1"),
        ("1::", "1::"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("fe80::abcd:ef01:2:30", "fe80::abcd:ef01:2:30"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_addresses_as_rfc_5952_has_them(image: Image, address: str, text: str) -> None:
    logged = Logged(image, "$remote_addr")
    logged.ask(b"GET /t.txt" + HTTP + b"\r\n", v6=True)
    raw = ffi.buffer(ffi.cast("uint8_t *", logged.log.reader.entries), 1024)
    peer = bytes(raw).index(ipaddress.ip_address(CLIENT_IP6).packed)
    raw[peer : peer + 16] = ipaddress.ip_address(address).packed
    assert logged.lines() == [text]


def test_over_sockets_it_is_the_same_but_for_what_the_kernel_alone_knows(image: Image) -> None:
    config = following()
    worker = Worker(image, **config)
    try:
        log = Reader(
            lib.sockets_app_state(worker.worker), "$remote_addr $request_uri $status $bytes_sent $tcpinfo_rtt"
        )
        answer = worker.ask(b"GET /big.bin" + HTTP + b"Connection: close\r\n\r\n")
        worker.settle()
        assert log.lines() == [f"127.0.0.1 /big.bin 200 {len(answer)} -"]
    finally:
        worker.close()
