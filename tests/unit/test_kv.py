"""The key-value application in memory: frames in and out, beside a dict that answers line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP
from ssimage._sandstorm import ffi, lib
from ssrun import store as stores
from ssrun.errors import SsrunError

from tests.host import Client, Host

LINE_MAX = 8192
SEGMENT = 1428
OVERHEAD = len(b"VALUE size 0 1000\r\n\r\nEND\r\n")
WRITING = ("set", "add", "replace", "append", "prepend", "cas", "delete", "incr", "decr", "touch", "gat", "flush_all")


class Image:
    """A store in the form that Host takes."""

    def __init__(self, items: dict[bytes, bytes], mtu: int = 1500) -> None:
        self.store = stores.Store(items, mtu)
        self.error = 0
        self.image = self.store.image
        self.header = self.store.header
        size = self.header.slot_count * self.header.slot_bytes
        self.data = {"slots": bytes(ffi.buffer(self.image.slots, size))}
        self.config = {"app": ffi.addressof(lib.kv_app), "app_data": self.store.store}


def connected(items: dict[bytes, bytes], **how: Any) -> Client:
    mtu = how.pop("mtu", 1500)
    image = Image(items, mtu)
    config = image.config | how.pop("config", {})
    client_options = {name: how.pop(name) for name in ("v6", "options", "window") if name in how}
    client = Client(Host(image, config=config, **how), **client_options)  # type: ignore[arg-type]
    client.connect()
    return client


def say(client: Client, data: bytes) -> None:
    """Sends a segment; takes in what comes at once. A superframe's checksum is left to the port."""
    packets = client.host.send(client.packet("PA", data))
    client.seq += len(data)
    client.note(packets, check=client.host.stack_config.tcpip.gather_max == 1)


def ask(client: Client, data: bytes) -> bytes:
    """What comes back, acknowledged as it comes."""
    before = len(client.received)
    say(client, data)
    return client.drain(check=client.host.stack_config.tcpip.gather_max == 1)[before:]


def model_get(items: dict[bytes, bytes], keys: list[bytes]) -> bytes:
    """What answers a get."""
    if not keys:
        return b"ERROR\r\n"
    if any(len(key) > 250 for key in keys):
        return b"CLIENT_ERROR bad command line format\r\n"
    values = [b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(items[key]), items[key]) for key in keys if key in items]
    return b"".join(values) + b"END\r\n"


def model(items: dict[bytes, bytes], data: bytes) -> tuple[bytes, bool, int]:
    """What answers a client that sends data and no more: bytes, whether the server closes, requests that were read."""
    out, requests = b"", 0
    while b"\n" in data[:LINE_MAX]:
        line, data = data.split(b"\n", 1)
        words = [word for word in line.removesuffix(b"\r").split(b" ") if word]
        command, keys = (words[0], words[1:]) if words else (b"", [])
        requests += 1
        if command == b"get":
            out += model_get(items, keys)
        elif command == b"version":
            out += b"VERSION sandstorm\r\n"
        elif command == b"quit":
            return out, True, requests
        elif command.decode("latin-1") in WRITING:
            return out + b"SERVER_ERROR the store is read-only\r\n", True, requests
        else:
            out += b"ERROR\r\n"
    if len(data) >= LINE_MAX:
        return out + b"CLIENT_ERROR line too long\r\n", True, requests
    return out, False, requests


ITEMS = {b"a": b"hello", b"b": b"", b"big": bytes(range(256)) * 300, b"\xc3\xbc": b"\r\nEND\r\n"}
ITEMS |= {b"edge%d" % more: b"x" * (SEGMENT - OVERHEAD + more) for more in range(-8, 9)}


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_every_key_alone_and_all_at_once(v6: bool, gather_max: int, mtu: int) -> None:
    client = connected(ITEMS, v6=v6, gather_max=gather_max, mtu=mtu)
    for key in ITEMS:
        line = b"get %b\r\n" % key
        assert ask(client, line) == model(ITEMS, line)[0]
    line = b"get " + b" ".join(ITEMS) + b"\r\n"
    assert ask(client, line) == model(ITEMS, line)[0]
    assert client.host.counters()["kv_hits"] == 2 * len(ITEMS)


@pytest.mark.parametrize("mss", [88, 536, 1460])
def test_a_peer_of_any_segment_size(mss: int) -> None:
    client = connected(ITEMS, options=[("MSS", mss)])
    assert ask(client, b"get big a\r\n") == model(ITEMS, b"get big a\r\n")[0]


def test_a_get_of_one_key_leaves_as_it_was_made() -> None:
    """Nothing is cut or copied: the frames were ready."""
    client = connected(ITEMS)
    ask(client, b"get big\r\nget a\r\nget none\r\n")
    counters = client.host.counters()
    assert "tcp_tx_resegmented" not in counters
    assert "arena_misses" not in counters
    assert (counters["kv_hits"], counters["kv_misses"]) == (2, 1)


def test_more_keys_than_spans_take_their_turn() -> None:
    """A connection has four spans: the others wait, and the line is read once."""
    client = connected(ITEMS)
    line = b"get " + b"a none " * 200 + b"b\r\n"
    assert ask(client, line) == model(ITEMS, line)[0]
    counters = client.host.counters()
    assert (counters["kv_hits"], counters["kv_misses"], counters["kv_requests"]) == (201, 200, 1)


BAD: list[tuple[bytes, str | None, bool]] = [
    (b"\r\n", "kv_bad_commands", False),
    (b"nonsense\r\n", "kv_bad_commands", False),
    (b"GET a\r\n", "kv_bad_commands", False),
    (b"get\r\n", "kv_bad_commands", False),
    (b"get   \r\n", "kv_bad_commands", False),
    (b"\x80\x0b" + bytes(22) + b"\n", "kv_bad_commands", False),
    (b"get " + b"k" * 251 + b"\r\n", "kv_bad_keys", False),
    (b"get a " + b"k" * 251 + b" a\r\n", "kv_bad_keys", False),
    (b"get " + b"k" * 250 + b"\r\n", None, False),
    (b"x" * LINE_MAX, "kv_bad_lines", True),
    (b"get " + b"a " * 4096, "kv_bad_lines", True),
    *((f"{command} a 0 0 1\r\n".encode(), "kv_refused_writes", True) for command in WRITING),
]


@pytest.mark.parametrize(("data", "counter", "closed"), BAD)
def test_bad_input_is_counted_and_answered(data: bytes, counter: str | None, closed: bool) -> None:
    client = connected(ITEMS)
    assert ask(client, data) == model(ITEMS, data)[0]
    assert client.fin == closed
    counters = client.host.counters()
    bad = {name for name in counters if name.startswith(("kv_bad", "kv_refused"))}
    assert bad == ({counter} if counter else set())
    if not closed:
        assert ask(client, b"get a\r\n") == model(ITEMS, b"get a\r\n")[0]


def test_the_block_behind_a_set_is_not_read_as_requests() -> None:
    client = connected(ITEMS)
    assert ask(client, b"set x 0 0 7\r\nget a\r\n\r\n") == b"SERVER_ERROR the store is read-only\r\n"
    assert client.fin


def test_a_line_of_just_the_longest_is_answered() -> None:
    line = b"get " + b"a" + b" " * (LINE_MAX - 6) + b"\n"
    assert len(line) == LINE_MAX
    assert ask(connected(ITEMS), line) == model(ITEMS, line)[0]


def test_half_a_line_is_given_up_after_its_time() -> None:
    client = connected(ITEMS, config={"request_ms": 1000})
    client.request(b"get a")
    for _ in range(30):
        client.note(client.host.advance(50))
    assert client.fin
    assert client.received == b""
    assert client.host.counters()["tcp_timeout_request"] == 1


def test_draining_ends_an_answer_first() -> None:
    """The other connection is idle and closed at once."""
    client = connected(ITEMS)
    idle = Client(client.host, port=40001)
    idle.connect()
    line = b"get " + b"a " * 20 + b"\r\n"
    client.request(line)
    lib.stack_drain(client.host.stack)
    packets = client.host.advance(0)
    idle.note([packet for packet in packets if packet["TCP"].dport == 40001])
    client.note([packet for packet in packets if packet["TCP"].dport == client.port])
    assert idle.fin
    assert not client.fin
    assert client.drain() == model(ITEMS, line)[0]
    assert client.fin


def test_the_oldest_answer_under_way_makes_room() -> None:
    """Its rest can't be kept without a buffer, and must not be missed in silence: its connection is reset."""
    client = connected(ITEMS, config={"max_incomplete_requests": 1})
    other = Client(client.host, port=40001)
    other.connect()
    other.request(b"get " + b"a " * 30 + b"\r\n")  # takes the only buffer: its answers are not acknowledged
    line = b"get " + b"b " * 30 + b"\r\n"
    packets = client.request(line)
    assert [packet[TCP].dport for packet in packets if "R" in packet[TCP].flags] == [other.port]
    assert client.drain() == model(ITEMS, line)[0]
    assert client.host.counters()["tcp_evicted_pipelined"] == 1


keys = st.sampled_from([*ITEMS, b"none", b"A", b"bi", b"bigg", b"k" * 250, b"k" * 251])
blanks = st.sampled_from([b" ", b" ", b"  "])
ends = st.sampled_from([b"\r\n", b"\r\n", b"\n", b" \r\n"])
gets = st.builds(
    lambda words, blank, end: b"get" + blank + blank.join(words) + end,
    st.lists(keys, min_size=0, max_size=12),
    blanks,
    ends,
)
others = st.sampled_from([b"version\r\n", b"\r\n", b"stats\r\n", b"get", b"ge\nt a\r\n", b"x" * 500 + b"\n"])
final = st.sampled_from([b"quit\r\n", b"set a 0 0 2\r\nxy\r\n", b"delete a\n", b"y" * LINE_MAX, b"get a", b""])
junk = st.binary(max_size=40)
lines = st.lists(st.one_of(gets, gets, gets, others, junk), max_size=14)


@pytest.mark.long
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(lines, final, st.data())
def test_any_lines_in_any_segments(parts: list[bytes], last: bytes, data: st.DataObject) -> None:
    """Split anywhere, acknowledged at any time."""
    stream = b"".join(parts)[:7000] + last
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10), "cuts"))
    gather_max = data.draw(st.sampled_from([1, 44]), "gather_max")
    mss = data.draw(st.sampled_from([300, 1460]), "mss")
    client = connected(ITEMS, gather_max=gather_max, options=[("MSS", mss)])
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start == end or client.fin:
            continue
        say(client, stream[start:end])
        if data.draw(st.booleans(), "acknowledge"):
            client.drain(check=gather_max == 1)
    client.drain(check=gather_max == 1)
    expected, closed, requests = model(ITEMS, stream)
    assert client.received == expected
    assert client.fin == closed
    assert client.host.counters().get("kv_requests", 0) == requests


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.binary(min_size=1, max_size=250), st.binary(max_size=4000), max_size=40), st.data())
def test_the_store_finds_what_a_dict_finds(items: dict[bytes, bytes], data: st.DataObject) -> None:
    """Every key, and none beside; whatever bytes it has."""
    store = stores.Store(items)
    asked = [*items, *data.draw(st.lists(st.binary(min_size=1, max_size=250), max_size=40))]
    asked += [key[:-1] for key in items if len(key) > 1] + [key + b"x" for key in items]
    for key in asked:
        answer = lib.kv_store_find(store.store, key, len(key))
        assert (answer != ffi.NULL) == (key in items)
        if key in items:
            expected = b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(items[key]), items[key])
            assert answer.stream_bytes == len(expected)
            assert payload(store, answer.first_frame, len(expected)) == expected
    store.close()


def payload(store: stores.Store, frame: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        entry = store.image.frames[frame]
        slot = store.image.slots + entry.slot * store.header.slot_bytes
        found += bytes(ffi.buffer(slot + lib.SSI_PAYLOAD_OFFSET, entry.payload_bytes))
        frame += 1
    return found


def test_the_frames_are_real_ones() -> None:
    """As the compiler's own check of its frames has it."""
    store = stores.Store(ITEMS)
    header = store.header
    build = ffi.new("struct frame_build *", {"slot_bytes": header.slot_bytes, "segment_bytes": header.segment_bytes})
    for number in range(header.frame_count):
        frame = store.image.frames[number]
        assert frame.slot == number
        assert lib.frame_build_check(build, ffi.addressof(frame), store.image.slots + number * header.slot_bytes) == 0


def test_a_plan_out_of_bounds_is_refused() -> None:
    plan = ffi.new("struct kv_plan *")
    item = ffi.new("struct kv_item[1]")
    key = ffi.new("uint8_t[300]")
    item[0].key, item[0].value, item[0].key_bytes = key, key, 1
    assert lib.kv_plan_make(plan, item, 1, 1500)
    for mtu in (0, 1279, 9217):
        assert not lib.kv_plan_make(plan, item, 1, mtu)
    for size in (0, 251):
        item[0].key_bytes = size
        assert not lib.kv_plan_make(plan, item, 1, 1500)
    item[0].key_bytes, item[0].value_bytes = 1, lib.KV_VALUE_BYTES_MAX + 1
    assert not lib.kv_plan_make(plan, item, 1, 1500)


def test_a_key_that_is_there_twice_is_refused() -> None:
    plan = ffi.new("struct kv_plan *")
    items = ffi.new("struct kv_item[2]")
    key = ffi.new("uint8_t[]", b"same")
    for item in items:
        item.key, item.value, item.key_bytes = key, key, 4
    assert lib.kv_plan_make(plan, items, 2, 1500)
    memory, slots = ffi.new("uint64_t[]", plan.memory_bytes // 8 + 1), ffi.new("uint8_t[]", plan.slot_count * 2048)
    assert lib.kv_store_make(memory, slots, plan, items, 1, bytes(16)) != ffi.NULL
    ffi.memmove(memory, bytes(plan.memory_bytes), plan.memory_bytes)
    assert lib.kv_store_make(memory, slots, plan, items, 2, bytes(16)) == ffi.NULL


def test_stores_are_read_from_json_and_folders(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"a": "1", "ü": "ß"}))
    assert stores.read(tmp_path / "x.json") == {b"a": b"1", "ü".encode(): "ß".encode()}
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "f").write_bytes(b"\0\xff")
    assert stores.read(tmp_path / "folder") == {b"sub/f": b"\0\xff"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no JSON"),
        ('["a"]', "no JSON object of texts"),
        ('{"a": 1}', "no JSON object of texts"),
        ('{"a": "1", "a": "2"}', "'a' is there twice"),
        ('{"a b": "1"}', "is no key"),
        ('{"": "1"}', "is no key"),
        (json.dumps({"k" * 251: ""}), "is no key"),
        (r'{"\ud800": "1"}', "is no text"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(SsrunError, match=why):
        stores.read(path)
    with pytest.raises(SsrunError, match="can't be read"):
        stores.read(tmp_path / "none")
