"""Sites by their host names, prefix routes, and a route's own answer to OPTIONS: the core in memory."""

from __future__ import annotations

import struct

import pytest

from tests.host import Client, Host, Image
from tests.model import ModelImage, Page

NAMES = ["example.org www.example.org", "*.example.org", "*.b.example.org [2001:db8::1]", "192.0.2.1"]


def sites(*names: str) -> dict[str, dict[str, Page]]:
    return {each: {"/": Page(each.encode()), "/own": Page(b"own " + each.encode())} for each in names}


@pytest.fixture(scope="module")
def image() -> Image:
    """Four sites and one for the rest."""
    return Image(ModelImage({"/": Page(b"rest")}, sites=sites(*NAMES)).sections)


@pytest.fixture(scope="module")
def named() -> Image:
    """Four sites and none for the rest."""
    return Image(ModelImage({}, sites=sites(*NAMES)).sections)


def ask(image: Image, request: str) -> tuple[int, bytes]:
    client = Client(Host(image))
    client.connect()
    client.request(request.encode())
    head, _, body = client.drain().partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def body_for(image: Image, host: str) -> bytes:
    status, body = ask(image, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
    return body if status == 200 else b"%d" % status


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("example.org", NAMES[0]),
        ("EXAMPLE.org:8080", NAMES[0]),
        ("www.example.org.", NAMES[0]),
        ("example.org:", NAMES[0]),
        ("a.example.org", NAMES[1]),
        ("a.c.example.org", NAMES[1]),
        ("a.b.example.org", NAMES[2]),
        ("x.a.b.example.org", NAMES[2]),
        ("b.example.org", NAMES[1]),
        ("[2001:DB8::1]:80", NAMES[2]),
        ("192.0.2.1", NAMES[3]),
    ],
)
def test_the_longest_name_counts(image: Image, named: Image, host: str, name: str) -> None:
    assert body_for(image, host) == name.encode()
    assert body_for(named, host) == name.encode()


@pytest.mark.parametrize("host", ["other.org", "org", "xexample.org", ".example.net", "", "a" * 300, "*.example.com"])
def test_the_rest(image: Image, named: Image, host: str) -> None:
    """RFC 9110 section 15.5.20."""
    assert body_for(image, host) == b"rest"
    assert body_for(named, host) == b"421"


def test_no_host_at_all(image: Image, named: Image) -> None:
    assert ask(image, "GET / HTTP/1.0\r\n\r\n") == (200, b"rest")
    assert ask(named, "GET / HTTP/1.0\r\n\r\n")[0] == 421
    assert ask(named, "GET http://www.example.org/ HTTP/1.1\r\nHost: other\r\n\r\n") == (200, NAMES[0].encode())


def test_each_site_has_its_own_routes_and_errors(image: Image) -> None:
    assert ask(image, "GET /own HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n") == (200, b"own 192.0.2.1")
    assert ask(image, "GET /own HTTP/1.1\r\nHost: other\r\n\r\n") == (404, b"<p>404 0</p>\n")
    assert ask(image, "GET /none HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n") == (404, b"<p>404 4</p>\n")
    assert ask(image, "POST /own HTTP/1.1\r\nHost: a.example.org\r\n\r\n") == (405, b"<p>405 2</p>\n")


@pytest.mark.parametrize(
    "host", ["a b", "a@b", "a:b", "a:80:80", "[::1", "[]", "[::1]x", "[::g]", 'a"', "a/b", "a\x7f"]
)
def test_hosts_that_are_none(image: Image, host: str) -> None:
    """RFC 9112 section 3.2."""
    assert ask(image, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")[0] == 400


@pytest.mark.parametrize("target", ["http://:80/", "http://user@a/", "http://a:x/", "http:///"])
def test_authorities_that_are_none(image: Image, target: str) -> None:
    assert ask(image, f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 400


def test_the_longest_prefix_counts() -> None:
    pages = {"/*": "root", "/app/*": "app", "/app/deep/er/*": "deeper", "/app/own": "own", "/app/": "folder"}
    image = Image(ModelImage({path: Page(body.encode()) for path, body in pages.items()}).sections)
    for path, body in {
        "/": "root",
        "/x": "root",
        "/app": "root",
        "/apple": "root",
        "/app/": "folder",
        "/app/x": "app",
        "/app/own": "own",
        "/app/own/": "app",
        "/app/deep/er": "app",
        "/app/deep/er/": "deeper",
        "/app/deep/er/and/er": "deeper",
        "/" * 4000: "root",
        "/app/deep/er/" + "x/" * 3000: "deeper",
    }.items():
        assert ask(image, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n") == (200, body.encode()), path


def test_prefixes_are_of_their_site() -> None:
    image = Image(ModelImage({"/": Page(b"rest")}, sites={"a": {"/*": Page(b"any")}}).sections)
    assert ask(image, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n") == (200, b"any")
    assert ask(image, "GET /x HTTP/1.1\r\nHost: b\r\n\r\n")[0] == 404


def test_options_of_a_route() -> None:
    own = b"Access-Control-Allow-Origin: *\r\n"
    pages = {
        "/a": Page(b"a", options=own),
        "/b": Page(b"b"),
        "/p/*": Page(b"p", options=own),
        "/": Page(b"/", options=own),
    }
    host = Host(Image(ModelImage(pages).sections))
    for port, (target, allowed) in enumerate(
        {"/a": True, "/b": False, "/p/x": True, "/none": False, "/": True, "*": False}.items(), 40000
    ):
        client = Client(host, port=port)
        client.connect()
        client.request(f"OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert client.received.startswith(b"HTTP/1.1 204")
        assert (own in client.received) == allowed, target
        assert (b"Allow: " in client.received) != allowed


@pytest.mark.parametrize(
    ("section", "at", "form", "value"),
    [
        ("hosts", 0, "<I", 1 << 30),  # name_offset
        ("hosts", 4, "<I", 1 << 30),
        ("hosts", 8, "<I", 5),  # site
        ("hosts", 4, "<I", 20),  # not in order
        ("sites", 0, "<I", 1 << 30),  # first_error
        ("sites", 4, "<I", 1 << 30),
        ("sites", 8, "<I", 256),  # prefix_bytes_max
    ],
)
def test_tables_that_lie_are_refused(image: Image, section: str, at: int, form: str, value: int) -> None:
    data = bytearray(image.data[section])
    struct.pack_into(form, data, at, value)
    assert Image(image.data | {section: bytes(data)}).error != 0


@pytest.mark.parametrize(("at", "form", "value"), [(24, "<I", 1 << 30), (28, "<H", 5), (30, "<H", 4), (30, "<H", 1)])
def test_routes_that_lie_are_refused(image: Image, at: int, form: str, value: int) -> None:
    """options_response, site, and flags: an unknown one, and a prefix where the site says that it has none."""
    data = bytearray(image.data["routes"])
    used = next(i for i in range(0, len(data), 32) if struct.unpack_from("<I", data, i + 20)[0])
    struct.pack_into(form, data, used + at, value)
    assert Image(image.data | {"routes": bytes(data)}).error != 0
