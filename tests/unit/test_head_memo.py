"""Requests that have come before are answered from what was noted of them: the same bytes, or nothing is noted. The witness is a
stack to which each request is new."""

from __future__ import annotations

import random

import pytest
from ssimage._sandstorm import ffi, lib
from ssrun.server import counter_names

from tests.host import Client, Host, Image, build

MANIFEST = """
version: 1
root: public
redirects:
  - {from: /old, to: /a.txt, status: 301}
  - {from: "/tree/*", to: "https://b.example/:splat"}
"""
HOST = "Host: a\r\n"
CHROMIUM = (
    "Host: a\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)"
    " AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,"
    "application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-US,en;q=0.9\r\n"
)
DATE = "Sat, 01 Jan 2000 00:00:00 GMT"


def get(path: str, fields: str = HOST, method: str = "GET") -> str:
    return f"{method} {path} HTTP/1.1\r\n{fields}\r\n"


# Requests, and whether what was answered is known when they come for the third time.
REQUESTS = {
    "a file": (get("/a.txt"), True),
    "a browser": (get("/a.txt", CHROMIUM), True),
    "encoded": (get("/t.txt", CHROMIUM), True),
    "HEAD": (get("/a.txt", method="HEAD"), True),
    "OPTIONS": (get("/a.txt", method="OPTIONS"), True),
    "404": (get("/none"), True),
    "405": (get("/a.txt", method="DELETE"), True),
    "406": (get("/t.txt", HOST + "Accept-Encoding: identity;q=0, x;q=0\r\n"), True),
    "close": (get("/a.txt", HOST + "Connection: close\r\n"), True),
    "HTTP/1.0": (f"GET /a.txt HTTP/1.0\r\n{HOST}\r\n", True),
    "a redirect": (get("/old"), True),
    "If-None-Match": (get("/a.txt", HOST + "If-None-Match: *\r\n"), True),
    "both conditions": (get("/a.txt", HOST + f"If-None-Match: *\r\nIf-Modified-Since: {DATE}\r\n"), True),
    "a Range of nothing known": (get("/a.txt", HOST + "Range: lines=1-2\r\n"), True),
    "a long head": (get("/a.txt", HOST + f"X: {'x' * 900}\r\n"), True),
    "a longer head": (get("/a.txt", HOST + f"X: {'x' * 1000}\r\n"), False),
    "If-Modified-Since": (get("/a.txt", HOST + f"If-Modified-Since: {DATE}\r\n"), False),
    "If-Unmodified-Since": (get("/a.txt", HOST + f"If-Unmodified-Since: {DATE}\r\n"), False),
    "a range": (get("/a.txt", HOST + "Range: bytes=1-2\r\n"), False),
    "ranges": (get("/a.txt", HOST + "Range: bytes=1-2,4-5\r\n"), False),
    "If-Range with a date": (get("/a.txt", HOST + f"Range: bytes=1-2\r\nIf-Range: {DATE}\r\n"), False),
    "a redirect with a query": (get("/old?x=1"), False),
    "a redirect of a tree": (get("/tree/x/y"), False),
    "an escaped path": (get("/%61.txt"), False),
    "a body": (get("/a.txt", HOST + "Content-Length: 3\r\n") + "abc", False),
    "a body to come": (get("/a.txt", HOST + "Content-Length: 3\r\nExpect: 100-continue\r\n"), False),
    "chunks": (get("/a.txt", HOST + "Transfer-Encoding: chunked\r\n"), False),
    "two": (get("/a.txt") + get("/t.txt"), True),  # the second of them
    "no host": ("GET /a.txt HTTP/1.1\r\n\r\n", False),
    "no request": ("GET\r\n\r\n" + "x" * 20, False),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("memo")
    (folder / "public").mkdir()
    (folder / "public" / "a.txt").write_text("the file a")
    (folder / "public" / "t.txt").write_text("text " * 1000)
    for number in range(100):
        (folder / "public" / f"{number}.txt").write_text(str(number))
    (folder / "site.yaml").write_text(MANIFEST)
    return Image.read(build(folder / "site.yaml", folder / "site.img"))


class Asked:
    """One stack, and connections that ask for one thing each."""

    def __init__(self, image: Image) -> None:
        self.host = Host(image)
        self.port = 1024

    def ask(self, request: str) -> tuple[bytes, bool]:
        """What came, and whether the connection is closed."""
        self.port += 1
        client = Client(self.host, port=self.port)
        client.connect()
        client.request(request.encode())
        answer, closed = client.drain(), client.fin
        self.host.send(client.packet("RA"))
        return answer, closed

    def count(self, name: str) -> int:
        return int(lib.stack_counter(self.host.view, counter_names(self.host.view).index(name)))


@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_answer_each_time(image: Image, name: str) -> None:
    request, lasts = REQUESTS[name]
    asked = Asked(image)
    first = asked.ask(request)
    assert [asked.ask(request) for _ in range(4)] == [first] * 4
    assert asked.count("http_heads_known") == (3 if lasts else 0)
    requests = 2 if name == "two" else 1
    assert asked.count("http_requests") == 5 * requests
    assert sum(asked.count(f"http_status_{digit}xx") for digit in (2, 3, 4, 5)) == 5 * requests


def dates(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if line.startswith(b"Date:")]


def test_the_date_is_todays(image: Image) -> None:
    asked = Asked(image)
    before = [asked.ask(get("/a.txt"))[0] for _ in range(3)][-1]
    asked.host.advance(90_000)
    after = asked.ask(get("/a.txt"))[0]
    assert asked.count("http_heads_known") == 2
    assert dates(before) != dates(after)
    assert before.replace(*dates(before), *dates(after)) == after


def test_on_one_connection_and_in_pieces(image: Image) -> None:
    asked = Asked(image)
    whole = asked.ask(get("/a.txt"))[0]
    client = Client(asked.host, port=500)
    client.connect()
    request = get("/a.txt").encode()
    for _ in range(4):
        client.request(request)
    client.request(request[:9])
    client.request(request[9:])
    client.request(request + request)
    client.request(request)
    assert client.drain() == whole * 8


def test_any_order_of_many(image: Image) -> None:
    """More than there are places for, some often: each answer is that of its own request."""
    chance = random.Random(1)
    asked = Asked(image)
    alone = Asked(image)
    kinds = [
        request for name, (request, _) in REQUESTS.items() if name not in ("two", "no request", "a body to come")
    ]
    kinds += [get(f"/{number}.txt", fields) for number in range(100) for fields in (HOST, CHROMIUM)]
    expected: dict[str, tuple[bytes, bool]] = {}
    for _ in range(1000):
        request = kinds[min(int(chance.expovariate(1 / 30)), len(kinds) - 1)]
        if request not in expected:
            expected[request] = alone.ask(request)  # where it is new
        assert asked.ask(request) == expected[request]
    assert asked.count("http_heads_known") > 500


class Memo:
    """The table alone."""

    def __init__(self) -> None:
        self.places = ffi.new("struct head_place[]", lib.HEAD_MEMO_PLACES)
        self.memo = ffi.new("struct head_memo *", {"places": self.places})
        self.hash = ffi.new("uint64_t *")

    def look(self, head: bytes, response: int = 0) -> int | None:
        """The answer that is known, else it is this one; None: there was no looking."""
        place = lib.head_memo_place(self.memo, head, len(head), self.hash)
        if place == ffi.NULL:
            return None
        if lib.head_memo_has(self.memo, place, self.hash[0], head, len(head)):
            return int(place.answer.response)
        lib.head_memo_keep(
            place, self.hash[0], head, len(head), ffi.new("struct head_answer *", {"response": response})
        )
        return -1

    def place_of(self, head: bytes) -> int:
        self.memo.looked = self.memo.pause = 0
        lib.head_memo_place(self.memo, head, len(head), self.hash)
        return int(self.hash[0]) >> 32 & (lib.HEAD_MEMO_PLACES - 1)


def test_where_little_is_found_looking_pauses() -> None:
    memo = Memo()
    seldom = [b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(lib.HEAD_MEMO_TRIALS)]
    assert {memo.look(head) for head in seldom} == {-1}
    assert {memo.look(seldom[0]) for _ in range(lib.HEAD_MEMO_PAUSE + 1)} == {None}
    assert [memo.look(seldom[0], 7) for _ in range(4)] == [-1, -1, 7, 7]


def test_where_enough_is_found_there_is_no_pause() -> None:
    memo = Memo()
    often = [b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(100)]
    for _ in range(2):
        for number, head in enumerate(often):
            assert memo.look(head, number) == -1
    for _ in range(3 * lib.HEAD_MEMO_TRIALS // len(often)):
        assert all(memo.look(head) in (number, -1) for number, head in enumerate(often))
    assert sum(memo.look(head) == number for number, head in enumerate(often)) > 90  # a few share a place


def test_those_that_come_once_push_nobody_out() -> None:
    memo = Memo()
    head = b"GET /often HTTP/1.1\r\n\r\n"
    place = memo.place_of(head)
    numbers = (b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(100_000))
    rivals = [rival for rival in numbers if memo.place_of(rival) == place]
    memo = Memo()
    memo.look(head, 1), memo.look(head, 1)
    assert len(rivals) > 50
    for rival in rivals:
        assert memo.look(rival, 2) == -1
        assert memo.look(head) == 1
    assert [memo.look(rivals[0], 2) for _ in range(3)] == [-1, -1, 2]
    assert memo.look(head) == -1


@pytest.mark.parametrize("length", range(lib.HEAD_MEMO_BYTES_MIN, 140))
def test_each_byte_counts(length: int) -> None:
    """For the answer, which is compared; and for the place, so that heads that differ in one byte don't share one."""
    memo = Memo()
    head = bytearray(b"a" * length)
    memo.look(bytes(head), 1), memo.look(bytes(head), 1)
    assert memo.look(bytes(head)) == 1
    places = set()
    for at in range(length):
        other = head.copy()
        other[at] ^= 1
        assert memo.look(bytes(other)) == -1
        places.add(memo.place_of(bytes(other)))
    assert len(places) > 0.8 * length


def test_heads_of_other_lengths_are_left_alone() -> None:
    memo = Memo()
    for length in (0, 1, lib.HEAD_MEMO_BYTES_MIN - 1, lib.HEAD_MEMO_BYTES_MAX + 1):
        assert memo.look(b"x" * length) is None
    assert memo.look(b"x" * lib.HEAD_MEMO_BYTES_MAX) == -1


def test_uses_are_counted(image: Image) -> None:
    """What a profile is made of."""
    asked = Asked(image)
    for _ in range(7):
        asked.ask(get("/a.txt"))
    uses = [lib.stack_response_uses(asked.host.view, index) for index in range(image.header.response_count)]
    assert sorted(uses)[-2:] == [0, 7]
