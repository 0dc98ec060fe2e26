"""A redirect that hands the request's query or path on is made at run time: what that may never do."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from scapy.layers.inet import TCP

from tests.commands import sscc_here as sscc
from tests.host import WALL_TEXT, Client, Host, Image

QUERY = b"?utm_source=mail&x=" + bytes(range(0x40, 0x7F)) * 7
POOL = 16  # buffers of a stack with few connections, stack.c


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("redirect")
    (folder / "site" / "sub").mkdir(parents=True)
    (folder / "site" / "sub" / "index.html").write_text("sub")
    sscc("build", folder / "site", "-o", folder / "x.img")
    return Image.read(folder / "x.img")


def get(target: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: a", *fields, b"", b""])


def location(data: bytes) -> bytes:
    assert data.startswith(b"HTTP/1.1 301 ")
    return data.partition(b"Location: ")[2].partition(b"\r\n")[0]


def connected(host: Host, port: int = 40000, **how: Any) -> Client:
    client = Client(host, port=port, **how)
    client.connect()
    return client


@pytest.mark.parametrize("gather_max", [1, 44])
@pytest.mark.parametrize("mss", [1460, 100])
def test_what_is_sent_again_is_the_same(image: Image, mss: int, gather_max: int) -> None:
    """Everything is lost, another second comes, others ask for the same: each byte is what it was."""
    options = [("MSS", mss), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("WScale", 7)]
    host = Host(image, gather_max=gather_max, prompt=False)
    client = connected(host, options=options)
    first = host.send(client.packet("PA", get(b"/sub" + QUERY)))
    client.seq += len(get(b"/sub" + QUERY))
    for port in range(41000, 41004):
        other = connected(host, port=port)
        other.note(host.send(other.packet("PA", get(b"/sub?other", b"Connection: close"))), check=gather_max == 1)
        assert location(other.received) == b"/sub/?other"
        other.drain()
    host.complete()
    again = host.advance(1000) + host.advance(1500)
    ours = [each for each in again if each[TCP].dport == client.port]
    assert ours
    sent = {each[TCP].seq: Client.payload(each) for each in first if Client.payload(each)}
    for each in ours:
        payload = Client.payload(each)
        before = sent.get(each[TCP].seq, payload)
        assert payload[: len(before)] == before[: len(payload)]
    client.note(first, check=gather_max == 1)
    host.complete()
    for _ in range(20):
        client.drain(check=gather_max == 1)
        host.complete()
        client.note(host.advance(1000), check=gather_max == 1)
    assert location(client.received) == b"/sub/" + QUERY
    assert WALL_TEXT in client.received
    assert client.received.endswith(b"</html>\n")
    host.complete()


def test_what_no_field_may_hold_is_escaped(image: Image) -> None:
    """Neither a byte beyond ASCII nor a control character gets into a head; blanks end the target."""
    for byte in range(256):
        host = Host(image)
        client = connected(host)
        client.request(get(b"/sub?a" + bytes([byte]) + b"b"))
        client.drain()
        if byte in range(0x21, 0x7F) and byte != ord("#"):
            assert location(client.received) == b"/sub/?a" + bytes([byte]) + b"b"
        elif byte >= 0x80:
            assert location(client.received) == b"/sub/?a%%%02Xb" % byte
        else:
            assert client.received.startswith(b"HTTP/1.1 400 "), byte


def test_pipelined_among_others(image: Image) -> None:
    asked = [b"/sub?%d" % number if number % 3 else b"/sub/" for number in range(20)]
    client = connected(Host(image))
    client.request(b"".join(get(target) for target in asked))
    data = client.drain()
    for target in asked:
        head, _, data = data.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        assert (b"\r\nLocation: /sub/%s\r\n" % target.removeprefix(b"/sub") in head + b"\r\n") == (target != b"/sub/")
        data = data[length:]
    assert data == b""


def test_without_a_buffer_the_query_is_left_out(image: Image) -> None:
    """And with the ACK, the end of a connection or its reset there is one again."""
    host = Host(image)
    clients = [connected(host, port=40000 + number) for number in range(POOL + 4)]
    for client in clients:
        client.request(get(b"/sub?x"))
    found = [location(client.received) for client in clients]
    assert found == [b"/sub/?x"] * POOL + [b"/sub/"] * 4
    assert host.counters()["http_queries_left_out"] == 4
    for number, client in enumerate(clients):
        if number % 2:
            client.drain()
        else:
            host.send(client.packet("R"))
    for number in range(POOL):
        client = connected(host, port=50000 + number)
        client.request(get(b"/sub?y"))
        assert location(client.received) == b"/sub/?y"


def test_connection_close(image: Image) -> None:
    client = connected(Host(image))
    client.request(get(b"/sub?x", b"Connection: close"))
    client.drain()
    assert location(client.received) == b"/sub/?x"
    assert b"Connection:       close\r\n" in client.received
    assert client.fin


MOVED = """
version: 1
{more}
sites:
  - hosts: [old.example]
    redirects: [{{from: "/*", to: "https://new.example/:splat", status: 308}}]
  - hosts: [deep.example]
    redirects:
      - {{from: "/a/b/*", to: "http://new.example:81/x/:splat/y?own=1#z"}}
      - {{from: "/here/*", to: "/:splat", status: 302}}
      - {{from: "/one/*", to: "https://new.example/"}}
"""


def moved(folder: Path, more: str = "") -> Image:
    (folder / "moved.yaml").write_text(MOVED.format(more=more))
    sscc("build", folder / "moved.yaml", "-o", folder / "moved.img")
    return Image.read(folder / "moved.img")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return moved(tmp_path_factory.mktemp("trees"))


@pytest.fixture(scope="module")
def rough_trees(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Slashes in a row are as many."""
    return moved(tmp_path_factory.mktemp("trees"), "merge_slashes: false")


class Asker:
    """One host, a connection for each request."""

    def __init__(self, image: Image) -> None:
        self.host = Host(image)
        self.port = 40000

    def ask(self, target: bytes, name: bytes = b"old.example", method: bytes = b"GET") -> bytes:
        self.port = self.port % 60000 + 1
        client = connected(self.host, port=self.port)
        client.request(method + b" " + target + b" HTTP/1.1\r\nHost: " + name + b"\r\n\r\n")
        data = client.drain()
        self.host.send(client.packet("R", seq=client.seq))
        return data

    def location(self, target: bytes, name: bytes = b"old.example") -> bytes | None:
        """None: it is no redirect. HEAD's head is GET's."""
        data, head = self.ask(target, name), self.ask(target, name, b"HEAD")
        assert data[9:12] == head[9:12]
        if not data.startswith(b"HTTP/1.1 3"):
            assert b"Location" not in data
            return None
        assert data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" == head
        found = [line[10:] for line in head.split(b"\r\n") if line.startswith(b"Location: ")]
        assert len(found) == 1, head
        return found[0]


def test_a_tree_moves_with_path_and_query(trees: Image) -> None:
    asker = Asker(trees)
    for target, expected in [
        (b"/", b""),
        (b"/a", b"a"),
        (b"/a/b/?q=1&r=a/../b", b"a/b/?q=1&r=a/../b"),
        (b"/a?", b"a"),
        (b"?q", b"?q"),
        (b"/a%20b%2fc%2Fd", b"a%20b%2fc%2Fd"),  # as it came: to who is there it may not be the same
        (b"/%41%7e%25%3f%23", b"%41%7e%25%3f%23"),
        (b"/a/../b/./c%2f", b"b/c/"),  # dots are resolved, and so escapes are made anew
        (b"/x/%2e%2e/%3F%20%e2%82%ac", b"%3F%20%E2%82%AC"),
        (b"//a///b", b"a/b"),
        (b'/"<>[]^`{|}\\\xe2\x82\xac', b"%22%3C%3E%5B%5D%5E%60%7B%7C%7D%5C%E2%82%AC"),
        (b"/:@!$&'()*+,;=-._~", b":@!$&'()*+,;=-._~"),
        (b"http://old.example/a?b", b"a?b"),
        (b"/:splat", b":splat"),
    ]:
        full = b"http://old.example" + target if target.startswith(b"?") else target
        assert asker.location(full) == b"https://new.example/" + expected, target
    deep = [
        (b"/a/b/c?d=2", b"http://new.example:81/x/c/y?own=1#z"),
        (b"/a/b/", b"http://new.example:81/x//y?own=1#z"),
        (b"/a/b", b"http://new.example:81/x//y?own=1#z"),
        (b"/here/x/y?z", b"/x/y?z"),
        (b"/here", b"/"),
        (b"/one/x/y?z", b"https://new.example/?z"),
        (b"/a/bc", None),
    ]
    for target, to in deep:
        assert asker.location(target, b"deep.example") == to, target
    assert asker.ask(b"/a", method=b"POST").startswith(b"HTTP/1.1 405 ")


def is_safe(found: bytes, start: bytes) -> bool:
    """Does it lead where it was to, and hold what a URI can hold (RFC 3986)? start: of a target without a query."""
    parts = urlsplit(found.decode("ascii"))
    path_is_plain = all(byte in b"%-._~!$&'()*+,;=:@/" or chr(byte).isalnum() for byte in parts.path.encode())
    host = urlsplit(start.decode()).netloc
    return parts.netloc == host and found.startswith(start) and path_is_plain


@pytest.mark.parametrize("merged", [True, False])
def test_no_path_leads_to_another_host(trees: Image, rough_trees: Image, merged: bool) -> None:
    """What browsers take for a host, a scheme or the end of a line."""
    asker = Asker(trees if merged else rough_trees)
    enemies = [b"/evil", b"//evil", b"\\evil", b"/\\evil", b"%2fevil", b"%2Fevil", b"%5cevil", b"%5Cevil/%2f"]
    enemies += [b"%0d%0aSet-Cookie:x", b"%0aLocation:x", b"%0D", b"@evil", b".evil", b":80@evil", b"%09/evil", b"%20"]
    enemies += [
        b"http://evil",
        b"https:evil",
        b"javascript:alert(1)",
        b"..//evil",
        b"%2e%2e/%2fevil",
        b"%2e%2e%2fevil",
    ]
    enemies += [
        b"x/..//evil",
        b"x/%2e%2e/%5cevil",
        b"%252fevil",
        b"%25%32%66evil",
        b"\xc0\xafevil",
        b"%c0%afevil",
        b"?//evil",
    ]
    for enemy in enemies:
        for prefix, name, start in [
            (b"/", b"old.example", b"https://new.example/"),
            (b"/here/", b"deep.example", b"/"),
        ]:
            found = asker.location(prefix + enemy, name)
            assert found is None or is_safe(found, start), (enemy, found)
            assert found is None or not found[len(start) :].startswith((b"/", b"\\")), (enemy, found)


@pytest.mark.long
@pytest.mark.parametrize("form", [b"/x%cy", b"/x%%%02xy", b"/x?a%cb", b"/%c", b"/%%%02x"])
def test_each_byte_in_a_moved_path(trees: Image, form: bytes) -> None:
    """None ends a field or a line, whether it comes as itself or as an escape."""
    asker = Asker(trees)
    for byte in range(256):
        target = form % byte
        found = asker.location(target)
        if found is None:
            assert byte <= 0x20 or byte in b"#%\x7f?", target
        else:
            assert is_safe(found, b"https://new.example/"), target
            handed_on = unquote_to_bytes(found.removeprefix(b"https://new.example"))
            assert handed_on.rstrip(b"?") in (unquote_to_bytes(target).rstrip(b"?"), b"/"), target


def reference(target: bytes) -> bytes:
    """A target's path as RFC 3986 section 5.2.4 has it, decoded before, slashes in a row one."""
    decoded = unquote_to_bytes(target.partition(b"?")[0])
    while b"//" in decoded:
        decoded = decoded.replace(b"//", b"/")
    segments: list[bytes] = []
    for segment in decoded.split(b"/")[1:]:
        if segment == b"..":
            segments.pop()
        elif segment != b".":
            segments.append(segment)
    directory = decoded.endswith((b"/", b"/.", b"/..")) and segments[-1:] != [b""]
    return b"/" + b"/".join(segments + [b""] * directory)


@pytest.mark.long
def test_what_is_handed_on_is_what_was_looked_up(trees: Image) -> None:
    """Decoded, the place has the path of the request, for paths of all kinds."""
    asker = Asker(trees)
    source = random.Random(0)
    parts = [
        b"/",
        b"/",
        b"a",
        b"b.c",
        b".",
        b"..",
        b"%2e",
        b"%2f",
        b"%41",
        b"%20",
        b"%5C",
        b"\\",
        b"\xe9",
        b"~",
        b"%25",
    ]
    redirects = 0
    for _ in range(1000):
        target = b"/" + b"".join(source.choices(parts, k=source.randrange(12)))
        found = asker.location(target)
        if found is None:
            continue  # it leaves the root
        redirects += 1
        assert is_safe(found, b"https://new.example/")
        assert unquote_to_bytes(found.removeprefix(b"https://new.example")) == reference(target), target
    assert redirects > 500


def test_a_moved_path_is_bounded(trees: Image) -> None:
    """All that there is room for is handed on; where there is none a redirect would lead elsewhere."""
    asker = Asker(trees)
    for target in (b"/" + b"a" * 3000, b"/?" + b"q" * 3000, b"/" + b"\xe9" * 1000, b"/%20" + b"a" * 2900):
        found = asker.location(target)
        assert found is not None
        assert unquote_to_bytes(found) == b"https://new.example" + unquote_to_bytes(target)
    for target in (
        b"/" + b"a" * 4096,
        b"/?" + b"q" * 4096,
        b"/" + b"\xe9" * 2000,
        b"/" + b"a" * 7999 + b"?" + b"q" * 7999,
    ):
        assert asker.ask(target).startswith(b"HTTP/1.1 414 "), target[:2]
    assert asker.host.counters()["http_redirects_refused"] == 4
    for length in range(3400, 4100, 9):
        data = asker.ask(b"/" + b"a" * length)
        assert data.startswith(b"HTTP/1.1 308 ") == (
            b"Location: https://new.example/" + b"a" * length + b"\r\n" in data
        )
        assert data.startswith((b"HTTP/1.1 308 ", b"HTTP/1.1 414 "))
    assert asker.ask(b"/a").startswith(b"HTTP/1.1 308 ")  # no buffer is lost


def test_without_a_buffer_a_moved_path_is_refused(trees: Image) -> None:
    """A redirect that forgets the path would be kept by browsers."""
    host = Host(trees)
    clients = [connected(host, port=40000 + number) for number in range(POOL + 1)]
    for client in clients:
        client.request(b"GET /x HTTP/1.1\r\nHost: old.example\r\n\r\n")
    assert [client.received[9:12] for client in clients] == [b"308"] * POOL + [b"503"]
    assert host.counters()["http_redirects_refused"] == 1
    clients[0].drain()
    clients[-1].received = b""
    clients[-1].request(b"GET /x HTTP/1.1\r\nHost: old.example\r\n\r\n")
    assert b"308" in clients[-1].received


def test_who_does_not_acknowledge_keeps_nobody_out(trees: Image) -> None:
    """All buffers are held by clients that are gone: one that comes later gets the oldest's, and no more than that."""
    host = Host(trees)
    asked = b"GET /x HTTP/1.1\r\nHost: old.example\r\n\r\n"
    gone = [connected(host, port=40000 + number) for number in range(POOL // 2)]
    for client in gone:
        host.send(client.packet("PA", asked * 2))
    late = connected(host, port=50000)
    late.request(asked)
    assert late.received.startswith(b"HTTP/1.1 503 ")
    late.drain()
    host.advance(2900)
    late.received = b""
    late.request(asked)
    assert late.received.startswith(b"HTTP/1.1 503 ")
    late.drain()
    host.advance(200)
    late.received = b""
    sent = host.send(late.packet("PA", asked))
    assert [each[TCP].dport for each in sent if "R" in each[TCP].flags] == [gone[0].port]
    assert b"308" in b"".join(Client.payload(each) for each in sent if each[TCP].dport == late.port)
    assert host.counters()["tcp_evicted_composed"] == 1
    host.send(gone[0].packet("R"))
    for client in gone[1:]:
        host.send(client.packet("R"))
    for number in range(POOL - 1):  # none is lost, and that of the late one is still its own
        client = connected(host, port=51000 + number)
        client.request(asked)
        assert client.received.startswith(b"HTTP/1.1 308 ")
    client = connected(host, port=52000)
    client.request(asked)
    assert client.received.startswith(b"HTTP/1.1 503 ")
