"""Another image from some round on: what has been begun ends as it was, what is asked for from then on is the newest's."""

from __future__ import annotations

import random
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP
from ssimage._sandstorm import lib

from tests.host import WALL_S, Client, Host, Image, new_generation
from tests.model import BOUNDARY, ModelImage, Page
from tests.sockets import Worker
from tests.unit.test_ports_memory import Loop, connect

HTTP = b" HTTP/1.1\r\nHost: a\r\n"
LARGE = 20 * 1428 + 77
VERSIONS = 4
GENERATIONS_MAX = 16


def body(version: int, size: int) -> bytes:
    return random.Random(version * 1_000_003 + size).randbytes(size - 1) + b"%d" % (version % 10)


def page_sizes(version: int) -> dict[str, int]:
    """Not the same frames for the same path: there are more in front of it with each version."""
    return {**{f"/{version}/{i}": 3000 for i in range(version)}, "/a": LARGE + 1000 * version, "/s": 100 + version}


def model(version: int, **how: Any) -> ModelImage:
    pages = {
        path: Page(body(version, size), last_modified_s=WALL_S - 40) for path, size in page_sizes(version).items()
    }
    pages["/r"] = Page(b"moved", location=b"/to%d" % version)
    return ModelImage(pages, **how)


def make(version: int, **how: Any) -> Image:
    return Image(model(version, **how).sections)


@pytest.fixture(scope="module")
def images() -> list[Image]:
    return [make(version) for version in range(VERSIONS)]


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    return f"{method} {path}".encode() + HTTP + "".join(f"{line}\r\n" for line in fields).encode() + b"\r\n"


def large(version: int) -> bytes:
    return body(version, LARGE + 1000 * version)


def small(version: int) -> bytes:
    return body(version, 100 + version)


def etag(data: bytes) -> str:
    return Page(data).etag(data).decode()


def split(data: bytes) -> tuple[int, bytes, bytes]:
    """Status, body of the first response, and what is behind it."""
    head, _, rest = data.partition(b"\r\n\r\n")
    found = re.search(rb"Content-Length: *(\d+)", head)
    assert found is not None, head
    length = int(found[1])
    return int(head.split()[1]), rest[:length], rest[length:]


def connected(host: Host, port: int = 40000, **how: Any) -> Client:
    client = Client(host, port=port, **how)
    client.connect()
    return client


def swap(host: Host, image: Image) -> Any:
    generation = host.swap(image)
    assert lib.generation_state(generation) == lib.GENERATION_SERVED
    return generation


def fetch(client: Client, request: bytes, *, check: bool = True) -> bytes:
    before = len(client.received)
    client.request(request, check=check)
    return client.drain(check=check)[before:]


WAYS = [{}, {"gather_max": 44}, {"arena_slots": 80}, {"config": {"tx_memcpy": True}}]


@pytest.mark.parametrize("how", WAYS)
def test_what_is_begun_ends_as_it_was_and_what_follows_is_new(images: list[Image], how: dict[str, Any]) -> None:
    host = Host(images[0], **how)
    check = "gather_max" not in how
    client, other = connected(host), connected(host, 40001)
    client.request(get("/a"), check=check)
    assert 0 < len(client.received) < LARGE
    swap(host, images[1])
    assert split(fetch(other, get("/a"), check=check)) == (200, large(1), b"")
    assert split(client.drain(check=check)) == (200, large(0), b"")
    assert split(fetch(client, get("/a"), check=check)) == (200, large(1), b"")
    assert host.counters().get("arena_stalls", 0) == 0


def test_back_again_and_on(images: list[Image]) -> None:
    """Rollback is the same, and an image may be served twice at once."""
    host = Host(images[0])
    client = connected(host)
    for version in (1, 0, 2, 2, 3, 0):
        swap(host, images[version])
        assert split(fetch(client, get("/a"))) == (200, large(version), b"")
        assert split(fetch(client, get("/s"))) == (200, small(version), b"")


def test_pipelined_each_is_of_one_version(images: list[Image]) -> None:
    """Those that have been begun of the old; those that waited for room, of the new."""
    host = Host(images[0])
    client = connected(host)
    client.request(get("/a") + get("/s") * 9)
    swap(host, images[1])
    data = client.drain()
    status, got, data = split(data)
    assert (status, got) == (200, large(0))
    versions = []
    for _ in range(9):
        status, got, data = split(data)
        assert got in (small(0), small(1))
        versions.append(int(got == small(1)))
    assert data == b""
    assert versions == sorted(versions)
    assert set(versions) == {0, 1}


@pytest.mark.parametrize("gather_max", [1, 44])
def test_many_ranges_go_on_from_the_image_they_were_begun_from(images: list[Image], gather_max: int) -> None:
    """With a hundred parts the answer is read on from its request again and again."""
    wanted = [(i * 250, i * 250 + 99) for i in range(100)]
    request = get("/a", "Range: bytes=" + ",".join(f"{first}-{last}" for first, last in wanted))

    def answer(version: int, swapped: int | None) -> bytes:
        host = Host(images[version], gather_max=gather_max)
        client = connected(host)
        client.request(request, check=gather_max == 1)
        if swapped is not None:
            swap(host, images[swapped])
            swap(host, images[(swapped + 1) % VERSIONS])
        data = client.drain(check=gather_max == 1)
        assert data.count(b"\r\n--" + BOUNDARY + b"\r\n") == 100
        after = fetch(client, get("/s"), check=gather_max == 1)
        assert split(after)[1] == small(version if swapped is None else (swapped + 1) % VERSIONS)
        return data

    plain = answer(0, None)
    assert answer(0, 1) == plain
    assert all(large(0)[first : last + 1] in plain for first, last in wanted)


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/a"), 200),
        (get("/a", "Range: bytes=100-20000"), 206),
        (get("/s", f"If-None-Match: {etag(body(0, 100))}"), 304),
        (get("/a", "Range: bytes=99999-"), 416),
        (get("/s", method="HEAD"), 200),
        (get("/nothing"), 404),
        (get("/r?query"), 301),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_what_is_sent_again_is_the_same(images: list[Image], request_: bytes, status: int, gather_max: int) -> None:
    """All is lost; then another image is served, by others' requests the slots are taken; and it is sent again."""
    host = Host(images[0], gather_max=gather_max, arena_slots=70)
    client = connected(host)
    first = host.send(client.packet("PA", request_))
    client.seq += len(request_)
    swap(host, images[1])
    check = gather_max == 1
    for port in range(41000, 41006):
        assert split(fetch(connected(host, port), get("/a"), check=check)) == (200, large(1), b"")
    again = [packet for _ in range(4) for packet in host.advance(1500) if packet[TCP].dport == client.port]
    payloads = {packet[TCP].seq: Client.payload(packet) for packet in first}
    assert again
    for packet in again:
        if packet[TCP].seq in payloads and len(Client.payload(packet)) == len(payloads[packet[TCP].seq]):
            assert Client.payload(packet) == payloads[packet[TCP].seq]
    client.note(again, check=check)
    data = client.drain(check=check)
    assert int(data.split()[1]) == status
    if status == 200 and request_.startswith(b"GET"):
        assert split(data) == (200, large(0), b"")
    if status == 206:
        assert split(data) == (206, large(0)[100:20001], b"")
    if status == 304:
        assert etag(body(0, 100)).encode() in data
    if status == 301:
        assert b"Location: /to0?query\r\n" in data


def test_half_a_request_is_answered_from_what_is_served_when_it_is_whole(images: list[Image]) -> None:
    host = Host(images[0])
    client = connected(host)
    request = get("/s")
    client.request(request[:20])
    swap(host, images[1])
    assert split(fetch(client, request[20:])) == (200, small(1), b"")


def test_heads_that_are_known_are_forgotten(images: list[Image]) -> None:
    host = Host(images[0])
    client = connected(host)
    for _ in range(3):
        assert split(fetch(client, get("/s"))) == (200, small(0), b"")
    assert host.counters()["http_heads_known"] == 1
    swap(host, images[1])
    assert split(fetch(client, get("/s"))) == (200, small(1), b"")
    assert host.counters()["http_heads_known"] == 1


@pytest.mark.parametrize("gather_max", [1, 44])
def test_the_old_one_goes_with_its_last_byte(images: list[Image], gather_max: int) -> None:
    host = Host(images[0], gather_max=gather_max)
    check = gather_max == 1
    client = connected(host)
    first = swap(host, images[1])
    host.advance(1)
    client.request(get("/a"), check=check)
    swap(host, images[2])
    for _ in range(3):
        host.advance(1)
        assert lib.generation_state(first) == lib.GENERATION_SERVED
    client.drain(check=check)
    host.advance(1)
    assert lib.generation_state(first) == lib.GENERATION_GONE
    assert lib.stack_deadline_ns(host.stack) > host.now_ns  # it sleeps then


@pytest.mark.parametrize(("count", "rounds_"), [(3, 1), (1100, 2)])
def test_one_that_nobody_needs_goes_at_once(images: list[Image], count: int, rounds_: int) -> None:
    """A round looks at 1,024 connections; at none of those that there could be, whose memory nobody has touched."""
    host = Host(images[0], max_connections=5000)
    clients = [connected(host, 40000 + i) for i in range(count)][:3]
    first = swap(host, images[1])
    host.advance(0)
    for client in clients:
        assert split(fetch(client, get("/s"))) == (200, small(1), b"")
    swap(host, images[2])
    rounds = 0
    while lib.generation_state(first) != lib.GENERATION_GONE:
        assert lib.stack_deadline_ns(host.stack) <= host.now_ns, "it goes on without being asked"
        host.advance(0)
        rounds += 1
    assert rounds == rounds_


def test_what_is_still_to_be_sent_from_the_mapping_keeps_it(images: list[Image]) -> None:
    """A superframe that the port has not taken yet, of a connection that has been reset since."""
    host = Host(images[0], gather_max=44)
    first = swap(host, images[1])
    host.advance(0)
    client = connected(host)
    host.sent = lambda: []  # type: ignore[method-assign]
    client.host.send(client.packet("PA", get("/a")))
    assert host.tx.count > 0
    client.seq += len(get("/a"))
    host.send(client.packet("R"))
    assert lib.stack_connections(host.stack) == 0
    swap(host, images[2])
    host.advance(0)
    assert lib.generation_state(first) == lib.GENERATION_SERVED
    del host.sent  # type: ignore[method-assign]
    host.advance(0)
    host.advance(0)
    assert lib.generation_state(first) == lib.GENERATION_GONE


def test_when_its_time_is_over_who_needs_it_is_reset(images: list[Image]) -> None:
    host = Host(images[0], prompt=False)
    first = swap(host, images[1])
    client, pipelined, other = (connected(host, 40000 + i) for i in range(3))
    host.complete()
    client.request(get("/a"))
    pipelined.request(get("/a") + get("/s"))
    host.complete()
    swap(host, images[2])
    other.request(get("/a"))
    host.complete()
    lib.generation_end(first)
    sent = host.advance(1)
    assert {packet[TCP].dport for packet in sent if "R" in packet[TCP].flags} == {client.port, pipelined.port}
    assert lib.generation_state(first) == lib.GENERATION_GONE
    assert host.counters()["tcp_timeout_swap"] == 2
    host.complete()
    host.prompt = True
    assert split(other.drain()) == (200, large(2), b"")


def test_no_more_than_so_many_at_once(images: list[Image]) -> None:
    """Each kept by a client; the next is refused, and what is served is served on."""
    host = Host(images[0])
    clients = [connected(host, 40000 + i) for i in range(GENERATIONS_MAX)]
    for version, client in enumerate(clients):
        client.request(get("/a"))
        if version + 1 < GENERATIONS_MAX:
            swap(host, images[(version + 1) % VERSIONS])
        host.advance(0)
    refused = host.swap(images[0])
    assert lib.generation_state(refused) == lib.GENERATION_REFUSED
    assert split(fetch(connected(host, 41000), get("/s")))[1] == small((GENERATIONS_MAX - 1) % VERSIONS)
    assert split(clients[7].drain())[1] == large(7 % VERSIONS)
    host.advance(0)
    swap(host, images[2])
    for version, client in enumerate(clients):
        if version != 7:
            assert split(client.drain())[1] == large(version % VERSIONS)
    assert split(fetch(clients[3], get("/s")))[1] == small(2)


@pytest.mark.parametrize("how", [{"segment_bytes": 1000}, {"mtu": 1600}, {"segment_bytes": 8000, "mtu": 9000}])
def test_one_that_does_not_fit_is_refused(images: list[Image], how: dict[str, Any]) -> None:
    other = make(1, **how)
    assert lib.generation_error(images[0].image, other.image)
    host = Host(images[0])
    assert lib.generation_state(host.swap(other)) == lib.GENERATION_REFUSED
    assert split(fetch(connected(host), get("/s"))) == (200, small(0), b"")
    assert not lib.generation_error(images[0].image, images[1].image)


@pytest.mark.parametrize("how", WAYS)
def test_a_thousand_swaps(images: list[Image], how: dict[str, Any]) -> None:
    host = Host(images[0], **how)
    check = "gather_max" not in how
    client = connected(host)
    before = None
    for number in range(1000):
        version = number % VERSIONS
        generation = swap(host, images[version])
        if number % 50 == 0:
            assert split(fetch(client, get("/a"), check=check)) == (200, large(version), b"")
        host.advance(0)
        if before is not None:
            assert lib.generation_state(before) == lib.GENERATION_GONE
        before = generation
        del host.swapped[:-2]  # its memory is somebody else's now
    assert host.counters().get("arena_stalls", 0) == 0


class Crowd:
    """Clients of one host, each of which gets what is sent to it whoever's turn it is."""

    def __init__(self, host: Host, *, check: bool) -> None:
        self.host = host
        self.check = check
        self.clients: dict[int, Client] = {}

    def note(self, packets: list[Any]) -> None:
        for packet in packets:
            self.clients[packet[TCP].dport].note([packet], check=self.check)

    def connect(self, port: int, window: int) -> Client:
        while self.host.flying:  # what waited for room goes first
            self.host.complete()
            self.note(self.host.advance(0))
        self.clients[port] = client = connected(self.host, port, window=window)
        return client

    def ask(self, client: Client, request: bytes) -> None:
        packet = client.packet("PA", request)
        client.seq += len(request)
        self.note(self.host.send(packet))

    def acknowledge(self, client: Client) -> None:
        self.note(self.host.send(client.packet("A")))

    def settle(self) -> None:
        """All that is to come comes."""
        self.host.prompt = True
        self.host.complete()
        while True:
            before = [client.ack for client in self.clients.values()]
            for _ in range(8):
                self.note(self.host.advance(700))
                for client in self.clients.values():
                    self.acknowledge(client)
            if before == [client.ack for client in self.clients.values()]:
                return


def check_answers(data: bytes, asked: list[tuple[str, int]], served: list[int]) -> None:
    """asked: what, and how many swaps there had been. served: the versions one after the other."""
    least = 0
    for path, since in asked:
        status, got, data = split(data)
        assert status == 200
        of = large if path == "/a" else small
        least = next(number for number in range(max(least, since), len(served)) if of(served[number]) == got)
    assert data == b""


@pytest.mark.parametrize("seed", range(16))
def test_whatever_comes_between(images: list[Image], seed: int) -> None:
    """Clients that ask and take as they like, over a port that may be slow, and swaps. Each answer is one version's, and the versions
    of a connection's answers come in the order in which they were served."""
    rng = random.Random(seed)
    gather_max = rng.choice((1, 44))
    arena_slots, prompt = rng.choice((0, 70, 200)), rng.random() < 0.5
    config = {"keep_alive_ms": 1_000_000, "request_ms": 1_000_000, "send_ms": 1_000_000}
    host = Host(images[0], gather_max=gather_max, arena_slots=arena_slots, prompt=prompt, config=config)
    crowd = Crowd(host, check=gather_max == 1)
    asked: dict[int, list[tuple[str, int]]] = {}  # of each client: what, and how many swaps there had been
    served = [0]
    for _ in range(500):
        what = rng.random()
        clients = list(crowd.clients.values())
        if what < 0.05 and len(clients) < 10:
            asked[crowd.connect(40000 + len(clients), rng.choice((64240, 5000, 1000))).port] = []
        elif what < 0.15:
            version = rng.randrange(VERSIONS)
            if lib.generation_state(host.swap(images[version])) == lib.GENERATION_SERVED:
                served.append(version)
        elif what < 0.3 and clients:
            client = rng.choice(clients)
            for _ in range(rng.choice((1, 1, 7))):
                path = rng.choice(("/a", "/s"))
                asked[client.port].append((path, len(served) - 1))
                crowd.ask(client, get(path))
        elif clients:
            crowd.acknowledge(rng.choice(clients))
        if rng.random() < 0.3:
            host.complete(rng.randint(0, len(host.flying)))
        crowd.note(host.advance(rng.choice((0, 0, 1, 30))))
    crowd.settle()
    for client in crowd.clients.values():
        check_answers(client.received, asked[client.port], served)
    assert len(served) > 10
    host.advance(0)
    states = [lib.generation_state(generation) for generation, _, _ in host.swapped]
    gone, last = lib.GENERATION_GONE, lib.GENERATION_SERVED
    assert sorted(set(states) - {lib.GENERATION_REFUSED}) == sorted({gone, last})
    assert states.count(last) == 1
    assert host.counters().get("arena_stalls", 0) == 0


@pytest.mark.parametrize(("delay", "gather_max"), [(0, 1), (3, 1), (3, 44)])
def test_a_worker_takes_one_up_in_its_next_round(tmp_path: Path, delay: int, gather_max: int) -> None:
    """Over a port that is slow and looks whether what is in flight is written to."""
    versions = [model(version) for version in range(2)]
    with closing(Loop(versions[0], tmp_path, delay=delay, gather_max=gather_max)) as loop:
        client = Client(loop, port=40000)  # type: ignore[arg-type]
        connect(loop, [client])
        received = []
        client.note(loop.send(client.packet("PA", get("/a"))), check=False)
        client.seq += len(get("/a"))
        image = Image(versions[1].sections)
        generation, _memory = new_generation(image, has_arena=True)
        assert lib.generation_state(generation) == lib.GENERATION_NEW
        assert lib.worker_swap(loop.worker, generation)
        assert not lib.worker_swap(loop.worker, generation)  # one at a time
        for _ in range(60):
            client.note(loop.send(client.packet("A")), check=False)
        assert lib.generation_state(generation) == lib.GENERATION_SERVED
        received.append(split(client.received))
        client.received = b""
        client.note(loop.send(client.packet("PA", get("/a"))), check=False)
        client.seq += len(get("/a"))
        for _ in range(60):
            client.note(loop.send(client.packet("A")), check=False)
        received.append(split(client.received))
    assert received == [(200, large(0), b""), (200, large(1), b"")]


def test_over_the_kernel_s_tcp(images: list[Image]) -> None:
    """A download that has hardly begun, with ten swaps in it; pipelined requests; and who needs it is reset in the end."""
    size = 8 << 20
    long_body = random.Random(1).randbytes(size)
    first = Image(ModelImage({"/a": Page(long_body), "/s": Page(small(0))}).sections)
    kept = []

    with closing(Worker(first)) as worker:

        def swapped(image: Image) -> Any:
            generation, memory = new_generation(image, has_arena=False)
            kept.append((generation, memory, image))
            assert lib.sockets_swap(worker.worker, generation)
            worker.round()
            assert lib.generation_state(generation) == lib.GENERATION_SERVED
            return generation

        again = swapped(first)
        slow, hopeless = worker.connect(SO_RCVBUF=8192), worker.connect(SO_RCVBUF=8192)
        for client in (slow, hopeless):
            client.sendall(get("/a"))
        begun = worker.read(slow, 1000)
        for number in range(10):
            swapped(images[number % VERSIONS])
            assert split(worker.ask(get("/s", "Connection: close")))[1] == small(number % VERSIONS)
        worker.settle()
        states = [lib.generation_state(generation) for generation, _, _ in kept]
        assert states == [lib.GENERATION_SERVED, *[lib.GENERATION_GONE] * 9, lib.GENERATION_SERVED]
        head = begun.partition(b"\r\n\r\n")[0]
        assert split(begun + worker.read(slow, len(head) + 4 + size - len(begun))) == (200, long_body, b"")
        slow.sendall(get("/s") * 20)
        data = worker.read(slow, 20 * len(worker.ask(get("/s", "Connection: close"))))
        for _ in range(20):
            status, got, data = split(data)
            assert (status, got) == (200, small(9 % VERSIONS))
        assert lib.generation_state(again) == lib.GENERATION_SERVED
        lib.generation_end(again)
        worker.settle()
        assert lib.generation_state(again) == lib.GENERATION_GONE
        assert worker.counters()["tcp_timeout_swap"] == 1
        with pytest.raises(ConnectionResetError):
            worker.read(hopeless)


def test_the_slots_of_the_old_one_are_the_new_one_s(images: list[Image]) -> None:
    """With fewer spares than frames: what has been copied in once stays."""
    host = Host(images[0], ring=16)
    client = connected(host)
    swap(host, images[1])
    assert split(fetch(client, get("/a")))[1] == large(1)
    misses = host.counters()["arena_misses"]
    assert misses > 16
    for _ in range(3):
        assert split(fetch(client, get("/a")))[1] == large(1)
    assert host.counters()["arena_misses"] == misses
