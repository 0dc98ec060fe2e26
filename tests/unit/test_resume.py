"""A stack takes over what another has served, whose process has ended without a word: from its memory, which may hold anything."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import TCP
from ssimage._sandstorm import ffi, lib

from tests.host import WALL_S, Client, Host, Image
from tests.model import ModelImage, Page

BIG = random.Random(1).randbytes(30 * 1428 + 5)
SMALL = b"small"
HTTP = b" HTTP/1.1\r\nHost: a\r\n"


def request(path: str, *fields: str, method: str = "GET") -> bytes:
    return f"{method} {path}".encode() + HTTP + "".join(f"{line}\r\n" for line in fields).encode() + b"\r\n"


def pages() -> Image:
    """Of all kinds."""
    found = {
        "/big": Page(BIG, last_modified_s=WALL_S - 40),
        "/small": Page(SMALL),
        "/moved": Page(b"moved", location=b"/to"),
    }
    return Image(ModelImage(found).sections)


@pytest.fixture(scope="module")
def image() -> Image:
    return pages()


class Memory:
    """A copy of all of a stack, as it is now."""

    def __init__(self, host: Host) -> None:
        size = lib.stack_memory_bytes(host.stack_config, host.image.image, host.region)
        self.keep = ffi.new("uint8_t[]", size + 64)
        self.count = size // 8
        self.words = ffi.cast("uint64_t *", (int(ffi.cast("uintptr_t", self.keep)) + 63) & ~63)
        ffi.memmove(self.words, host.stack, size)


@pytest.fixture(autouse=True, params=["of a process that died", "as records"])
def by_records(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """How what goes on is left: as the memory of a stack, or by one build of ours to another."""
    monkeypatch.setattr(Records, "are_used", request.param == "as records")
    return Records.are_used


class Records:
    """What a stack leaves to another build."""

    are_used = False

    def __init__(self, host: Host, len_bytes: int | None = None) -> None:
        size = lib.stack_records_bytes(host.stack) if len_bytes is None else len_bytes
        self.memory = ffi.new("uint64_t[]", size // 8)
        self.used_bytes = lib.stack_records_write(host.stack, ffi.cast("uint8_t *", self.memory), size)
        assert self.used_bytes <= size

    def go_on(self, host: Host) -> bool:
        """Another stack takes them."""
        return bool(lib.stack_resume_records(host.stack, ffi.cast("uint8_t *", self.memory), self.used_bytes))


def go_on(host: Host, memory: Memory | None = None, **how: Any) -> Host:
    """Another host in the place of one that is gone, of which this memory is left."""
    new = Host(host.image, start_ns=host.now_ns, **how)
    if Records.are_used and memory is None:
        assert Records(host).go_on(new)
        return new
    left = ffi.cast("struct stack *", memory.words) if memory is not None else host.stack
    lib.stack_resume(new.stack, left, len(host.swapped))
    return new


def finish(client: Client, wanted: bytes, frames: list[Any] | None = None) -> None:
    """Takes what comes until all has; time passes when nothing does."""
    for _ in range(400):
        client.note(frames or [], check=False)
        if wanted in client.received:
            return
        frames = client.host.send(client.packet("A")) or client.host.advance(250)
    pytest.fail(f"{len(client.received)} bytes have come")


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("lost", [False, True], ids=["all arrives", "what was under way is lost"])
def test_a_download_goes_on_from_wherever_it_was(image: Image, lost: bool, gather_max: int) -> None:
    for at in range(12):
        client = Client(Host(image, gather_max=gather_max), v6=at % 2 == 1)
        client.connect()
        frames = client.host.send(client.packet("PA", request("/big")))
        client.seq += len(request("/big"))
        for _ in range(at):
            client.note(frames, check=False)
            frames = client.host.send(client.packet("A"))
        client.host = go_on(client.host, gather_max=gather_max)
        finish(client, BIG, [] if lost else frames)
        assert client.host.counters()["tcp_resumed"] == 1
        client.request(request("/small"), check=False)
        finish(client, SMALL)


def test_again_and_again(image: Image) -> None:
    client = Client(Host(image))
    client.connect()
    frames = client.host.send(client.packet("PA", request("/big")))
    client.seq += len(request("/big"))
    times = 0
    while BIG not in client.received and times < 100:
        client.note(frames, check=False)
        client.host = go_on(client.host)
        times += 1
        frames = client.host.send(client.packet("A")) or client.host.advance(250)
    assert BIG in client.received
    assert client.host.counters()["tcp_resumed"] == (1 if Records.are_used else times)  # counters begin anew


@pytest.mark.parametrize("split", [1, 20, len(request("/small")) - 1])
def test_a_request_of_which_a_part_has_come(image: Image, split: int) -> None:
    whole = request("/small")
    client = Client(Host(image))
    client.connect()
    client.request(whole[:split])
    client.host = go_on(client.host)
    client.request(whole[split:], check=False)
    finish(client, SMALL)


def test_answers_that_wait_behind_each_other(image: Image) -> None:
    """More than a connection's slices, ranges, and one that repeats what was asked for."""
    ranges = ",".join(f"{i}-{i + 9}" for i in range(0, 2000, 40))
    client = Client(Host(image), window=2000, options=(("MSS", 1460), ("SAckOK", b"")))
    client.connect()
    parts = [
        request("/small"),
        request("/moved?q=1"),
        request("/big", f"Range: bytes={ranges}"),
        request("/small", "X: y"),
    ]
    everything = Client(Host(image))
    everything.connect()
    for part in parts:
        everything.request(part, check=False)
    whole = everything.drain(check=False)
    frames = client.host.send(client.packet("PA", b"".join(parts)))
    client.seq += len(b"".join(parts))
    for _ in range(400):
        client.note(frames, check=False)
        if len(client.received) >= len(whole):
            break
        client.host = go_on(client.host)
        frames = client.host.send(client.packet("A")) or client.host.advance(250)
    assert client.received == whole


def test_many_connections_each_where_it_was(image: Image) -> None:
    host = Host(image)
    clients = [Client(host, port=30000 + i, v6=i % 3 == 0, isn=1000 * i) for i in range(40)]
    for client in clients:
        client.connect()
    host = go_on(host)
    assert host.counters()["tcp_resumed"] == lib.stack_connections(host.stack) == 40
    for number, client in enumerate(clients):
        client.host = host
        client.request(request("/small" if number % 2 else "/big"), check=False)
        finish(client, SMALL if number % 2 else BIG)


def test_who_is_silent_ends_when_he_would_have(image: Image) -> None:
    client = Client(Host(image))
    client.connect()
    client.request(request("/small"))
    client.host.send(client.packet("A"))
    client.host.advance(6000)
    client.host = go_on(client.host)
    for _ in range(60):
        client.note(client.host.advance(100), check=False)
    assert client.fin
    assert client.host.counters()["tcp_timeout_idle"] == 1


def test_a_connection_that_has_ended_stays_so(image: Image) -> None:
    client = Client(Host(image))
    client.connect()
    client.request(request("/small", "Connection: close"))
    client.host.send(client.packet("FA"))
    client.host = go_on(client.host)
    assert lib.stack_connections(client.host.stack) == 0
    (answer,) = client.host.send(client.packet("PA", request("/small")))
    assert (answer[TCP].flags, client.payload(answer)) == ("A", b"")  # of TIME-WAIT
    assert client.host.counters().get("tcp_opened", 0) == (0 if Records.are_used else 1)


def test_answers_of_an_image_that_is_not_ours_are_reset(image: Image) -> None:
    """Who is between two requests goes on."""
    host = Host(image)
    busy, idle = Client(host, port=1), Client(host, port=2)
    busy.connect()
    busy.request(request("/big"))
    idle.connect()
    new = Host(image, start_ns=host.now_ns)
    lib.stack_resume(new.stack, host.stack, 1)
    assert (new.counters()["tcp_resumed"], new.counters()["tcp_drop_resume"]) == (1, 1)
    idle.host = new
    idle.request(request("/small"), check=False)
    finish(idle, SMALL)
    assert [packet[TCP].flags for packet in new.send(busy.packet("A"))] in ([], ["R"])


def test_what_the_application_was_just_taking_is_reset(image: Image) -> None:
    """It may be answered, and not yet taken: it must not be answered twice."""
    left = []

    @ffi.callback("uint32_t(struct tcpip *, struct tcb *, uint8_t *, uint32_t)")
    def receive(tcpip: Any, tcb: Any, data: Any, len_bytes: int) -> int:
        taken = int(lib.web_app.receive(tcpip, tcb, data, len_bytes))
        left.append(Memory(client.host))
        return taken

    app = ffi.new("struct tcpip_app *", lib.web_app)
    app.receive = receive
    client = Client(Host(image, config={"app": app}))
    client.connect()
    client.request(request("/small"))
    new = go_on(client.host, left[0])
    assert (new.counters().get("tcp_resumed", 0), new.counters()["tcp_drop_resume"]) == (0, 1)
    assert lib.stack_connections(new.stack) == 0


def with_rubbish(host: Host, dice: random.Random) -> Host:
    """Goes on from what is left, of which some words are others."""
    memory: Memory | None = None if Records.are_used else Memory(host)
    records = Records(host)
    words = memory.words if memory is not None else records.memory
    count = memory.count if memory is not None else records.used_bytes // 8
    for _ in range(dice.choice([1, 30, 3000])):
        at = dice.randrange(min(count, 40_000) if dice.random() < 0.9 else count)
        words[at] = dice.choice([0, 1, 0xFFFFFFFFFFFFFFFF, dice.getrandbits(64), words[at] ^ 1 << dice.randrange(64)])
    if memory is not None:
        return go_on(host, memory)
    new = Host(host.image, start_ns=host.now_ns)
    records.go_on(new)
    return new


@pytest.mark.parametrize("seed", range(40))
def test_rubbish_does_no_harm(image: Image, seed: int) -> None:
    """Whatever lies there: those that can't go on are reset or forgotten, and who comes anew is served."""
    dice = random.Random(seed)
    host = Host(image)
    clients = [Client(host, port=30000 + i) for i in range(8)]
    for client in clients:
        client.connect()
        client.request(request(dice.choice(["/big", "/small", "/moved?a"])), check=False)
        if dice.random() < 0.5:
            host.send(client.packet("PA", request("/big")[: dice.randrange(1, 20)]))
    new = with_rubbish(host, dice)
    for client in clients:
        client.host = new
        for _ in range(4):
            new.send(client.packet("A"))
            new.send(client.packet("PA", request("/small")))
    for _ in range(20):
        new.advance(500)
    fresh = Client(new, port=50000)
    fresh.connect()
    fresh.request(request("/small"), check=False)
    finish(fresh, SMALL)
