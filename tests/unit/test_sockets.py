"""The web over the kernel's sockets: the same bytes as the stack gives, and the same patience."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ssimage._sandstorm import ffi, lib

from tests.e2e.exchanges import CASES, get, of, text
from tests.host import Client, Host, Image, build
from tests.sockets import Worker

MODIFIED_S = 784111777
BIG = bytes(range(251)) * 4000  # about a megabyte
HUGE_BYTES = 24 << 20  # more than a kernel takes for a connection
REQUEST_MS, KEEP_ALIVE_MS, SEND_MS = 5_000, 10_000, 10_000  # both have these
MANIFEST = """
version: 1
sites:
  - hosts: [a]
    root: files
    redirects:
      - {from: /moved, to: /a.txt, status: 301}
      - {from: "/old/*", to: "/new/:splat", status: 308}
  - hosts: [b]
    root: files
    error_pages: {404: files/a.txt}
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What tests/e2e/exchanges.py asks for, and more."""
    folder = tmp_path_factory.mktemp("site")
    files = {
        "a.txt": b"0123456789" * 5,
        "other.txt": b"9876543210" * 5,
        "copied.txt": b"0123456789" * 5,
        "empty.txt": b"",
        "sub/index.html": b"<title>sub</title>",
        "c/t.txt": b"text\n" * 400,
        "big.bin": BIG,
    }
    for name, data in files.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (MODIFIED_S, MODIFIED_S))
    (folder / "site.yaml").write_text(MANIFEST)
    return Image.read(build(folder / "site.yaml", folder / "x.img"))


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("huge")
    (folder / "files").mkdir()
    (folder / "files" / "huge.bin").write_bytes(os.urandom(1 << 20) * (HUGE_BYTES >> 20))
    return Image.read(build(folder / "files", folder / "x.img"))


@pytest.fixture
def worker(image: Image) -> Iterator[Worker]:
    with contextlib.closing(Worker(image)) as made:
        yield made


def by_stack(image: Image, request: bytes, piece_bytes: int = 1400) -> bytes:
    """All that comes on a connection of the stack's, until it has waited for the client longer than for any."""
    host = Host(image)
    client = Client(host, window=65535)
    client.connect()
    for at in range(0, len(request), piece_bytes):
        client.request(request[at : at + piece_bytes], check=False)
    client.drain(check=False)
    for milliseconds in (REQUEST_MS + 10, KEEP_ALIVE_MS + 10):
        client.note(host.advance(milliseconds), check=False)
        client.drain(check=False)
    assert client.fin
    return client.received


def by_sockets(image: Image, request: bytes, piece_bytes: int = 1400) -> bytes:
    with contextlib.closing(Worker(image)) as worker:
        client = worker.connect()
        received = b""

        def take() -> None:
            nonlocal received
            worker.settle()
            with contextlib.suppress(BlockingIOError):
                while piece := client.recv(1 << 20):
                    received += piece
                    worker.round()

        for at in range(0, len(request), piece_bytes):
            client.sendall(request[at : at + piece_bytes])
            take()
        for milliseconds in (REQUEST_MS + 10, KEEP_ALIVE_MS + 10):
            worker.round(milliseconds)
            take()
        return received + worker.read(client)


MORE = {
    "moved": get(target="/moved"),
    "moved with a query": get(target="/moved?a=1&b=%20"),
    "moved with its path": get(target="/old/x%2Fy/z?q"),
    "moved, a head": of("HEAD", "/old/x/y"),
    "moved too far": get(target="/old/" + "x" * 5000),
    "another site": get(target="/none", host="Host: b"),
    "no such site": get(host="Host: c"),
    "large": get(target="/big.bin"),
    "large, a range": get("Range: bytes=1000-500000", target="/big.bin"),
    "large, many ranges": get(
        "Range: bytes=" + ",".join(f"{at * 5000}-{at * 5000 + at}" for at in range(100)), target="/big.bin"
    ),
    "pipelined": get(close=False) * 30 + get("Range: bytes=1-2,4-5", close=False) * 10 + get(target="/c/t.txt"),
    "large ones pipelined": get(target="/big.bin", close=False) * 3 + of("HEAD", "/big.bin"),
    "nothing": "",
    "half a request": get()[:-2],
    "half a body": of("POST", "/a.txt", "Content-Length: 10", body="123"),
    "a long head": get(*(f"X-{number}: {'x' * 200}" for number in range(60))),
    "a head that is too long": get(*(f"X-{number}: {'x' * 200}" for number in range(100))),
    "no request": "hello\r\n\r\n",
    "empty lines": "\r\n\r\n" + get(),
    "version 1.0": text("GET /a.txt HTTP/1.0", close=False),
    "version 1.0, kept": text("GET /a.txt HTTP/1.0", "Connection: keep-alive", close=False),
    "to be continued": of("POST", "/a.txt", "Content-Length: 5", "Expect: 100-continue", body="12345"),
    "a body in chunks": of("POST", "/a.txt", "Transfer-Encoding: chunked", body="5\r\n12345\r\n0\r\n\r\n"),
}
REQUESTS = {name: case.request for name, case in CASES.items()} | MORE


@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_bytes_as_from_the_stack(image: Image, name: str) -> None:
    request = REQUESTS[name].encode("latin-1")
    assert by_sockets(image, request) == by_stack(image, request)


@pytest.mark.parametrize("name", ["get", "pipelined", "large, many ranges", "moved with its path", "half a body"])
@pytest.mark.parametrize("piece_bytes", [1, 7, 100])
def test_the_same_bytes_however_it_comes(image: Image, name: str, piece_bytes: int) -> None:
    request = REQUESTS[name].encode("latin-1")
    assert by_sockets(image, request, piece_bytes) == by_stack(image, request)


def test_all_at_once(image: Image) -> None:
    """More pipelined requests than there is room for wait in the kernel, and none is lost."""
    request = (get(close=False) * 2000 + get()).encode()
    with contextlib.closing(Worker(image)) as worker:
        client = worker.connect()
        client.setblocking(False)
        left, received = request, b""
        while not received.endswith(b"0123456789" * 5) or received.count(b"HTTP/1.1 200") < 2001:
            if left:
                with contextlib.suppress(BlockingIOError):
                    left = left[client.send(left) :]
            worker.round()
            with contextlib.suppress(BlockingIOError):
                received += client.recv(1 << 20)
        assert worker.read(client) == b""
        assert worker.counters()["http_requests"] == 2001


def test_one_read_and_one_write_for_a_request(worker: Worker) -> None:
    client = worker.connect()
    for number in range(1, 11):
        client.sendall(get(close=False).encode())
        worker.until(lambda number=number: worker.counters().get("http_requests") == number)  # type: ignore[misc]
    counters = worker.counters()
    assert counters["sockets_sends"] == counters["sockets_receives"] == 10
    assert "sockets_waits_to_send" not in counters


def test_a_large_answer_whole_to_a_slow_reader(huge: Image) -> None:
    """Who takes a little within each time limit is waited for, though all of that comes out of the kernel's buffers."""
    with contextlib.closing(Worker(huge)) as worker:
        client = worker.connect(SO_RCVBUF=1 << 16)
        client.sendall(get(target="/huge.bin").encode())
        worker.until(lambda: worker.counters().get("sockets_waits_to_send"))
        taken = 0
        for _ in range(10):
            worker.round(SEND_MS - 100)
            taken += len(worker.read(client, 1 << 18))
        assert lib.sockets_connections(worker.worker) == 1
        rest = worker.read(client)
        head_bytes = taken + len(rest) - HUGE_BYTES
        assert 0 < head_bytes < 1000
        assert "tcp_timeout_send" not in worker.counters()


def test_who_takes_nothing_is_reset(huge: Image) -> None:
    with contextlib.closing(Worker(huge)) as worker:
        client = worker.connect(SO_RCVBUF=1 << 16)
        client.sendall(get(target="/huge.bin").encode())
        worker.until(lambda: worker.counters().get("sockets_waits_to_send"))
        for _ in range(3):
            worker.settle()
            worker.round(SEND_MS + 10)
        assert worker.counters()["tcp_timeout_send"] == 1
        assert lib.sockets_connections(worker.worker) == 0
        with pytest.raises(ConnectionResetError):
            worker.read(client)


def test_an_idle_connection_is_closed(worker: Worker) -> None:
    client = worker.connect()
    client.sendall(get(close=False).encode())
    assert worker.read(client, 15) == b"HTTP/1.1 200 OK"
    worker.round(KEEP_ALIVE_MS - 100)
    worker.settle()
    assert lib.sockets_connections(worker.worker) == 1
    worker.round(200)
    assert worker.read(client).endswith(b"0123456789" * 5)
    assert worker.counters()["tcp_timeout_idle"] == 1
    client.close()
    worker.until(lambda: lib.sockets_connections(worker.worker) == 0)


def test_a_request_has_its_time_as_a_whole(worker: Worker) -> None:
    """However steadily it comes."""
    client = worker.connect()
    for byte in get().encode()[:9]:
        client.sendall(bytes([byte]))
        worker.settle()
        worker.round(REQUEST_MS / 10)
    assert worker.is_open(client)
    worker.round(REQUEST_MS / 10 + 10)
    answer = worker.read(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nConnection:       close\r\n" in answer
    assert worker.counters()["tcp_timeout_request"] == 1


def test_who_says_nothing_is_closed_without_a_word(worker: Worker) -> None:
    client = worker.connect()
    worker.settle()
    worker.round(REQUEST_MS + 10)
    assert worker.read(client) == b""


def test_a_client_that_is_done_sending_gets_its_answers(worker: Worker) -> None:
    client = worker.connect()
    client.sendall((get(close=False) * 3).encode())
    client.shutdown(socket.SHUT_WR)
    assert worker.read(client).count(b"0123456789" * 5) == 3
    worker.until(lambda: lib.sockets_connections(worker.worker) == 0)


def test_half_a_request_and_the_end(worker: Worker) -> None:
    client = worker.connect()
    client.sendall(get()[:20].encode())
    worker.settle()
    client.shutdown(socket.SHUT_WR)
    assert worker.read(client) == b""
    worker.until(lambda: lib.sockets_connections(worker.worker) == 0)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("when", ["at once", "in a request", "between requests", "in an answer", "before an answer"])
def test_a_client_that_resets(huge: Image, when: str) -> None:
    with contextlib.closing(Worker(huge)) as worker:
        client = worker.connect(SO_RCVBUF=1 << 16)
        if when == "at once":
            reset(client)
        worker.until(lambda: worker.counters().get("sockets_accepted"))
        if when == "in a request":
            client.sendall(get()[:20].encode())
            worker.settle()
        elif when == "between requests":
            client.sendall(of("HEAD", "/huge.bin", close=False).encode())
            worker.read(client, 15)
        elif when == "in an answer":
            client.sendall(get(target="/huge.bin").encode())
            worker.until(lambda: worker.counters().get("sockets_waits_to_send"))
        elif when == "before an answer":
            client.sendall(get(target="/huge.bin").encode())
        if when != "at once":
            reset(client)
        worker.until(lambda: lib.sockets_connections(worker.worker) == 0)
        assert worker.counters()["tcp_closed"] == 1
        assert worker.ask(of("HEAD", "/huge.bin").encode()).startswith(b"HTTP/1.1 200 OK")


def test_a_refused_request_is_read_to_its_end(worker: Worker) -> None:
    """The answer is not lost in a reset because the client still sends."""
    client = worker.connect()
    body = b"x" * 1_000_000
    request = of("POST", "/a.txt", f"Content-Length: {len(body)}", close=False).encode() + body
    received, left = b"", request
    while left:
        with contextlib.suppress(BlockingIOError):
            left = left[client.send(left) :]
        worker.round()
        with contextlib.suppress(BlockingIOError):
            received += client.recv(1 << 16)
    received += worker.read(client)
    assert received.startswith(b"HTTP/1.1 405 ")
    client.close()
    worker.until(lambda: lib.sockets_connections(worker.worker) == 0)
    assert "tcp_drop_linger" not in worker.counters()


def test_not_for_ever(worker: Worker) -> None:
    client = worker.connect()
    client.sendall(of("POST", "/a.txt", "Content-Length: 1000000000", close=False).encode())

    def send() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(b"x" * (1 << 16))

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        worker.until(send)
    assert worker.counters()["tcp_drop_linger"] == 1


def test_who_is_answered_last_has_its_time_to_close(worker: Worker) -> None:
    client = worker.connect()
    client.sendall(of("POST", "/a.txt", "Content-Length: 100", close=False).encode())
    worker.until(lambda: worker.counters().get("http_status_4xx"))
    worker.round(59_000)
    assert lib.sockets_connections(worker.worker) == 1
    # The client's kernel may acknowledge our FIN late: that is progress.
    worker.until(lambda: worker.round(60_100) or lib.sockets_connections(worker.worker) == 0)
    assert worker.counters()["tcp_timeout_fin_wait"] == 1


@pytest.mark.parametrize(
    ("request_", "waits"),
    [
        (get(), False),
        (text("GET /a.txt HTTP/1.0", close=False), False),
        (get("Content-Length: 4"), True),
        (of("POST", "/a.txt", "Content-Length: 4"), True),
        (of("POST", "/a.txt", "Transfer-Encoding: chunked"), True),
        (get() + get()[:20], True),
        ("no request\r\n\r\n", True),
    ],
)
def test_who_has_said_close_is_not_waited_for(worker: Worker, request_: str, waits: bool) -> None:
    """But who may still send is: a reset could take the answer away from it. So too when the same has been asked before."""
    for number in range(1, 5):
        client = worker.connect()
        client.sendall(request_.encode())
        worker.until(lambda number=number: worker.counters().get("sockets_sends") == number)  # type: ignore[misc]
        worker.settle()
        assert lib.sockets_connections(worker.worker) == number * waits
        assert worker.read(client).startswith(b"HTTP/1.1 ")
    if request_ == get():
        assert worker.counters()["http_heads_known"] > 0


def test_the_longest_idle_one_makes_room(image: Image) -> None:
    with contextlib.closing(Worker(image, max_connections=2, max_incomplete_requests=2)) as worker:
        clients = []
        for _ in range(3):
            clients.append(worker.connect())
            clients[-1].sendall(get(close=False).encode())
            assert worker.read(clients[-1], 15) == b"HTTP/1.1 200 OK"
            worker.round(10)
        assert worker.read(clients[0]).endswith(b"0123456789" * 5)  # whole
        assert worker.counters()["tcp_evicted_idle"] == 1
        assert "tcp_tx_rst" not in worker.counters()
        assert lib.sockets_connections(worker.worker) == 2


def test_where_none_is_idle_new_ones_wait(huge: Image) -> None:
    with contextlib.closing(Worker(huge, max_connections=2, max_incomplete_requests=2)) as worker:
        busy = [worker.connect(SO_RCVBUF=1 << 16) for _ in range(2)]
        for client in busy:
            client.sendall(get(target="/huge.bin").encode())
        worker.until(lambda: worker.counters().get("sockets_waits_to_send", 0) >= 2)
        third = worker.connect()
        third.sendall(of("HEAD", "/huge.bin").encode())
        worker.until(lambda: worker.counters().get("sockets_paused_full"))
        for _ in range(50):  # nothing is looked at over and over
            worker.round()
        assert worker.counters()["sockets_paused_full"] == 1
        worker.round(150)
        worker.settle()
        assert worker.counters()["sockets_paused_full"] == 2  # it has been tried again
        reset(busy.pop())
        assert worker.read(third).startswith(b"HTTP/1.1 200 OK")


def test_draining(image: Image) -> None:
    with contextlib.closing(Worker(image)) as worker:
        idle = worker.connect()
        idle.sendall(get(close=False).encode())
        assert worker.read(idle, 15) == b"HTTP/1.1 200 OK"
        busy = worker.connect(SO_RCVBUF=1 << 16)
        busy.sendall(get(target="/big.bin").encode())
        worker.read(busy, 15)
        lib.sockets_drain(worker.worker)
        assert worker.read(idle).endswith(b"0123456789" * 5)
        assert worker.read(busy).endswith(BIG)
        late = worker.connect()
        late.sendall(get().encode())
        assert worker.is_open(late)  # it waits for whoever listens next
        for client in (idle, busy):
            client.close()
        worker.until(lambda: lib.sockets_connections(worker.worker) == 0)


@pytest.mark.parametrize("known", [False, True])
def test_who_is_told_close_by_us_may_still_send(worker: Worker, known: bool) -> None:
    """It has not said so itself, as it could not know that we drain: nothing may take the answer away."""
    for _ in range(4 * known):
        worker.ask(get(close=False).encode(), 15)
    client = worker.connect()
    worker.settle()
    before = lib.sockets_connections(worker.worker)
    client.sendall(get(close=False).encode()[:20])
    worker.settle()
    lib.sockets_drain(worker.worker)
    worker.settle()
    client.sendall(get(close=False).encode()[20:])
    worker.until(lambda: worker.counters().get("http_requests") == 1 + 4 * known)
    worker.settle()
    assert lib.sockets_connections(worker.worker) == before  # all wait for their clients to close
    assert b"\r\nConnection:       close\r\n" in worker.read(client)


def test_stopping(image: Image) -> None:
    with contextlib.closing(Worker(image)) as worker:
        lib.sockets_stop(worker.worker)
        assert lib.sockets_run(worker.worker) == 0


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"listener_count": 0}, "the number of listening sockets is not from 1 to 64"),
        ({"listener_count": 65}, "the number of listening sockets is not from 1 to 64"),
        ({"app": ffi.NULL}, "there is no application"),
        ({"max_connections": 0}, "the number of connections is not from 1 to 16,777,216"),
        ({"send_ms": 0}, "a time limit is 0"),
    ],
)
def test_what_is_out_of_bounds_is_told(image: Image, values: dict[str, Any], error: str) -> None:
    with contextlib.closing(Worker(image)) as worker:
        for name, value in values.items():
            setattr(worker.config if hasattr(worker.config, name) else worker.config.tcpip, name, value)
        text_ = lib.sockets_config_error(worker.config, image.image)
        assert ffi.string(text_).decode() == error
        assert lib.sockets_create(worker.config, image.image) == ffi.NULL


def test_a_descriptor_that_does_not_listen_is_told(image: Image, tmp_path: Path) -> None:
    with contextlib.closing(Worker(image)) as worker, (tmp_path / "x").open("w") as file:
        worker.config.listeners[0] = file.fileno()  # epoll takes no file
        assert lib.sockets_create(worker.config, image.image) == ffi.NULL
        assert ffi.errno > 0
