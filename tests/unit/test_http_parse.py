"""The request parser, through cffi; each expectation cites the rule it comes from."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest
from ssimage._sandstorm import ffi, lib

REQUEST_BYTES_MAX = 16384


def parse(data: bytes, *, merge_slashes: bool = False) -> tuple[int, Any]:
    """http_parse's result, the request and the buffer that its texts lie in, which is to live as long; it ends where the data
    does, so that ASan sees an overrun."""
    request = ffi.new("struct http_request *")
    buffer = ffi.new("uint8_t[]", len(data))
    ffi.memmove(buffer, data, len(data))
    status = lib.http_parse(buffer, len(data), REQUEST_BYTES_MAX, merge_slashes, request)
    return status, (request, buffer)


def path_of(target: bytes, *, merge_slashes: bool = False) -> bytes | int:
    head = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    status, (request, _buffer) = parse(head, merge_slashes=merge_slashes)
    return bytes(ffi.buffer(request.path.data, request.path.len_bytes)) if status > 0 else status


def text(field: Any) -> bytes | None:
    return bytes(ffi.buffer(field.data, field.len_bytes)) if field.data != ffi.NULL else None


@pytest.mark.parametrize("at", range(18))
def test_every_byte_everywhere_in_a_field(at: int) -> None:
    """Eight bytes are looked at together: each value in each place is judged alike. RFC 9110 section 5.5."""
    for byte in range(256):
        value = bytearray(b"0123456789abcdefgh")
        value[at] = byte
        data = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + bytes(value) + b"\r\n\r\n"
        status, _ = parse(data)
        allowed = byte == 9 or (byte >= 32 and byte != 127)
        assert status == (len(data) if allowed else -400), (byte, status)


@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        ("token", b"!#$%&'*+-.^_`|~" + bytes(range(48, 58)) + bytes(range(65, 91)) + bytes(range(97, 123))),
        ("host", b"-._~%!$&'()*+,;=" + bytes(range(48, 58)) + bytes(range(65, 91)) + bytes(range(97, 123))),
    ],
)
def test_every_byte_of_a_name(of: str, wanted: bytes) -> None:
    """tchar, RFC 9110 section 5.6.2, and reg-name, RFC 3986 section 3.2.2."""
    for byte in range(33, 256):
        # A percent sign begins an escape, so two hexadecimal digits follow.
        name, host = (b"X%c" % byte, b"a") if of == "token" else (b"X", b"a%cbb" % byte)
        status, _ = parse(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n" + name + b": y\r\n\r\n")
        apart = byte == ord(":")  # ends a name; in a host a port follows, which is none here
        assert (status > 0) == (byte in wanted or (apart and of == "token")), (byte, status)


def test_a_request_as_curl_sends_it() -> None:
    data = b"GET /a.html HTTP/1.1\r\nHost: example\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"
    status, (request, _buffer) = parse(data + b"GET /next")
    assert status == len(data)
    assert request.method == lib.HTTP_GET
    assert request.minor_version == 1
    assert not request.close
    assert bytes(ffi.buffer(request.path.data, request.path.len_bytes)) == b"/a.html"
    assert text(request.host) == b"example"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"/a?b=c", b"/a"),
        (b"/a%20b", b"/a b"),
        (b"/%41%4a%4A", b"/AJJ"),
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/a/b/..", b"/a/"),
        (b"/a/b/.", b"/a/b/"),
        (b"/a/%2e%2E/b", b"/b"),
        (b"/...", b"/..."),
        (b"/a//b", b"/a//b"),
        (b"/..", -400),
        (b"/a/../../b", -400),
        (b"/%", -400),
        (b"/%4", -400),
        (b"/%zz", -400),
        (b"/%00", -400),
        (b"/a#b", -400),
        (b"/%41#b", -400),
        (b"/a?b#c", -400),
        (b"/%41?b#c", -400),
        (b"http://example#a", -400),
        (b"http://example?a#b", -400),
        (b"http://example/a?b#c", -400),
        (b"http://example/x/y?z", b"/x/y"),
        (b"HTTP://example", b"/"),
        (b"http:///x", -400),
        (b"https://example/x", -421),
        (b"HTTPS://example", -421),
        (b"https:///x", -400),
        (b"https://a b", -400),
        (b"ftp://example/x", -400),
        (b"x", -400),
        (b"*", -400),
        (b"/" + b"a" * 7999, b"/" + b"a" * 7999),
        (b"/" + b"a" * 8000, -414),
        ("/ü".encode(), "/ü".encode()),
    ],
)
def test_targets(target: bytes, path: bytes | int) -> None:
    assert path_of(target) == path


@pytest.mark.parametrize(
    ("target", "merged", "apart"),
    [
        (b"//", b"/", b"//"),
        (b"//a.txt", b"/a.txt", b"//a.txt"),
        (b"/a//b///c", b"/a/b/c", b"/a//b///c"),
        (b"/a/%2fb", b"/a/b", b"/a//b"),
        (b"/a%2F%2Fb", b"/a/b", b"/a//b"),
        (b"/a//", b"/a/", b"/a//"),
        (b"/a?b//c", b"/a", b"/a"),
        (b"/a//../b", b"/b", b"/a/b"),  # nginx too merges them first
        (b"/a/.//b", b"/a/b", b"/a//b"),
        (b"//..", -400, b"/"),
        (b"http://x//y", b"/y", b"//y"),
        (b"/" + b"a" * 7997 + b"//b", b"/" + b"a" * 7997 + b"/b", -414),
    ],
)
def test_slashes_in_a_row(target: bytes, merged: bytes | int, apart: bytes | int) -> None:
    """To RFC 3986 empty segments are segments; nginx, h2o and Caddy take runs of slashes for one."""
    assert path_of(target, merge_slashes=True) == merged
    assert path_of(target) == apart


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: a\n\n",  # bare LF
        b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",  # bare CR
        b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",  # RFC 9112 section 5.1
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",  # obs-fold, section 5.2
        b"GET / HTTP/1.1\r\n\r\n",  # no Host, section 3.2
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /\r\n\r\n",  # HTTP/0.9
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",  # a TLS hello
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
    ],
)
def test_refused_with_400(data: bytes) -> None:
    assert parse(data)[0] == -400


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Transfer-Encoding: chunked", 0),
        (b"Transfer-Encoding: , CHUNKED ,", 0),
        (b"Transfer-Encoding: gzip, chunked", -501),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", -501),
        (b"Transfer-Encoding: x", -400),
        (b"Transfer-Encoding:", -400),
        (b"Transfer-Encoding: chunked, gzip", -400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", -400),
        (b"Transfer-Encoding: chunked;q=1", -400),
    ],
)
def test_transfer_codings(fields: bytes, status: int) -> None:
    """RFC 9112 sections 6.1 and 6.3."""
    taken, _ = parse(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n")
    assert min(taken, 0) == status


@pytest.mark.parametrize("length", [b"5", b"005", b"0" * 40 + b"5", b"0" * 40, b"9" * 18])
def test_leading_zeros_of_a_length(length: bytes) -> None:
    """RFC 9110 section 8.6: 1*DIGIT."""
    status, (request, _) = parse(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + length + b"\r\n\r\n")
    assert status > 0
    assert request.content_length == int(length)


HOSTS = [
    b"a",
    b"a%41",
    b"%e4",
    b"a:80",
    b"a:",
    b"[::]",
    b"[::1]:80",
    b"[1::]",
    b"[2001:db8::1]",
    b"[2001:DB8::1]",
    b"[1:2:3:4:5:6:7:8]",
    b"[1:2:3:4:5:6:7::]",
    b"[::2:3:4:5:6:7:8]",
    b"[::ffff:192.0.2.1]",
    b"[1:2:3:4:5:6:192.0.2.1]",
    b"[v1.a]",
    b"[VF.a:b~!$&'()*+,;=]",
]
NO_HOSTS = [
    *(b"a%", b"a%4", b"a%zz", b"a%4g", b"%%41"),
    *(b"[", b"[]", b"[:]", b"[1]", b"[:::]", b"[1:]", b"[:1]", b"[::1", b"[::1]a", b"[::1]:a"),
    *(b"[4712::abcd::]", b"[1:2:3:4:5:6:7]", b"[1:2:3:4:5:6:7:8:9]", b"[1:2:3:4:5:6:7:8::]", b"[12345::]", b"[g::]"),
    *(
        b"[::1.2.3]",
        b"[::1.2.3.4.5]",
        b"[::256.1.1.1]",
        b"[::01.1.1.1]",
        b"[::1.1.1.1:1]",
        b"[1.1.1.1]",
        b"[1:2:3:4:5:6:7:1.1.1.1]",
    ),
    *(b"[::1%25eth0]", b"[v.a]", b"[v1a]", b"[v1.]", b"[vg.a]", b"[v1.%41]", b"[v1.a", b"[x1.a]"),
]


@pytest.mark.parametrize(("host", "fits"), [*((host, True) for host in HOSTS), *((host, False) for host in NO_HOSTS)])
def test_hosts(host: bytes, fits: bool) -> None:
    """RFC 3986 section 3.2.2: a name, whose percent signs are escapes', or in brackets an IPv6 address or a later one."""
    field, _ = parse(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    target, _ = parse(b"GET http://" + host + b"/ HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (field > 0, target > 0) == (fits, fits), (field, target)


@pytest.mark.parametrize("seed", range(4))
def test_ipv6_addresses_as_the_library_has_them(seed: int) -> None:
    """Short texts of what addresses are made of, at random: judged as Python's ipaddress does."""
    source = random.Random(seed)
    pieces = ["1", "abcd", "0", ":", ":", "::", "192.0.2.1", "12345", ".", "1:"]
    for _ in range(3000):
        address = "".join(source.choices(pieces, k=source.randrange(1, 14)))
        try:
            fits = bool(ipaddress.IPv6Address(address))
        except ValueError:
            fits = False
        status, _ = parse(b"GET / HTTP/1.1\r\nHost: [" + address.encode() + b"]\r\n\r\n")
        assert (status > 0) == fits, address


def test_versions() -> None:
    assert parse(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")[0] == -505
    status, (request, _) = parse(b"GET / HTTP/1.0\r\n\r\n")
    assert status > 0
    assert request.close
    _, (request, _) = parse(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
    assert not request.close
    _, (request, _) = parse(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, Close\r\n\r\n")
    assert request.close


def test_every_prefix_is_partial() -> None:
    data = b'\r\nGET /%41 HTTP/1.1\r\nHost: a\r\nIf-None-Match: "x"\r\nAccept-Encoding: gzip;q=0.5\r\n\r\n'
    for length in range(len(data)):
        assert parse(data[:length])[0] == 0
    assert parse(data)[0] == len(data)


def parse_in_pieces(data: bytes, sizes: list[int]) -> int:
    """What comes of a head of which each piece is looked at when it is there, as web.c does it."""
    buffer = ffi.new("uint8_t[]", data)
    seen = status = 0
    for size in sizes:
        here = min(seen + size, len(data))
        if seen == 0 or lib.http_worth_parsing(buffer, here, REQUEST_BYTES_MAX, seen):
            status, _ = parse(data[:here])
        if status != 0:
            break
        seen = here
    return status


@pytest.mark.parametrize("seed", range(3))
def test_a_head_in_pieces_comes_to_the_same(seed: int) -> None:
    """Wherever it is cut: no head is whole that was not, none is refused otherwise."""
    source = random.Random(seed)
    base = b"GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 3\r\nX:\r\n\r\n"
    marks = b"\r\n\r\n:\t \0\r"
    wholes = 0
    for _ in range(20000):
        data = bytearray(base)
        for _ in range(source.choice([0, 0, 1, 1, 2, 3])):
            at = source.randrange(len(data))
            data[at : at + source.randrange(3)] = source.choices(marks, k=source.randrange(3))
        whole, _ = parse(bytes(data))
        sizes = source.choices([1, 1, 2, 3, 20], k=len(data))
        found = parse_in_pieces(bytes(data), sizes)
        wholes += whole > 0
        ended = b"\r\n\r\n" in data.lstrip(b"\r\n")
        # What only fields say to each other is looked at when the head is whole.
        assert found == whole or (found == 0 and whole < 0 and not ended), (bytes(data), whole, found)
    assert wholes > 5000


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GE", b"T /\r\n"),
        (b"GET / HTTP/2.0\r", b"\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno", b" colon\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a", b"\0"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r", b"X"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n", b" folded\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\r", b"\n"),
    ],
)
def test_what_is_worth_parsing(start: bytes, more: bytes) -> None:
    """At once, not only when the head is whole: garbage, and what ends it. Nothing else is."""
    data = start + more
    assert parse(start)[0] == 0
    assert parse(data)[0] != 0
    assert lib.http_worth_parsing(ffi.new("uint8_t[]", data), len(data), REQUEST_BYTES_MAX, len(start))
    for fewer in range(len(start) + 1, len(data)):
        assert not lib.http_worth_parsing(ffi.new("uint8_t[]", data), fewer, REQUEST_BYTES_MAX, len(start))


def test_a_head_that_never_ends() -> None:
    assert parse(b"GET /" + b"a" * (REQUEST_BYTES_MAX - 5))[0] == -414
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    assert parse(start + b"a" * (REQUEST_BYTES_MAX - len(start)))[0] == -431


def test_mutated_requests_never_read_out_of_bounds() -> None:
    """Under ASan (make sanitize) an overrun ends the process; without it, the result is still in range."""
    random_source = random.Random(1)
    base = b"GET http://h/a/../%41?q HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    for _ in range(20000):
        data = bytearray(base)
        for _ in range(random_source.randrange(1, 5)):
            data[random_source.randrange(len(data))] = random_source.randrange(256)
        status, _keep = parse(bytes(data[: random_source.randrange(len(data) + 1)]))
        assert status in (0, -400, -414, -431, -501, -505) or 0 < status <= len(data)


def lines(field: bytes | None) -> tuple[Any, list[Any]]:
    """struct http_list of lines parted by newlines, and what it stands on."""
    texts = [] if field is None else field.split(b"\n")
    keep = [ffi.new("uint8_t[]", text or b"\0") for text in texts]
    made = ffi.new("struct http_list *", {"count": len(texts)})
    for place, (text, data) in enumerate(zip(texts, keep, strict=True)):
        made.lines[place].data, made.lines[place].len_bytes = data, len(text)
    return made, keep


@pytest.mark.parametrize(
    ("field", "weights"),
    [
        (None, [1, 0, 0, 0]),
        (b"", [1, 0, 0, 0]),
        (b"gzip", [1, 1001, 0, 0]),
        (b"gzip, deflate, br, zstd", [1, 1001, 1001, 1001]),
        (b"gzip;q=0.5, br;q=1.0", [1, 501, 1001, 0]),
        (b"gzip ; q=0.001", [1, 2, 0, 0]),  # more than what was not named
        (b"identity;q=0, *", [0, 1001, 1001, 1001]),
        (b"*;q=0", [0, 0, 0, 0]),
        (b"*;q=0, gzip", [0, 1001, 0, 0]),
        (b"GZIP;Q=0.25", [1, 251, 0, 0]),
        (b"gzip;q=2", [1, 0, 0, 0]),
        (b"x-gzip", [1, 1001, 0, 0]),
        (b"gzip;q=0.5\n\nbr", [1, 501, 1001, 0]),
        (b"*;q=0\ngzip", [0, 1001, 0, 0]),
    ],
)
def test_accept_encoding(field: bytes | None, weights: list[int]) -> None:
    """Weights of identity, gzip, br and zstd in thousandths and one more, RFC 9110 section 12.5.3."""
    out = ffi.new("uint16_t[4]")
    made, _keep = lines(field)
    lib.http_accept_encoding(made, out)
    assert list(out) == weights


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (b'"a"', True),
        (b'W/"a"', True),  # weak comparison, RFC 9110 section 8.8.3.2
        (b'"b", "a"', True),
        (b"*", True),
        (b'"b"', False),
        (b'"a', False),
        (b'"x, "a""', False),
        (b"a", False),
        (b'"b"\n"a"', True),  # lines of one name are one list, RFC 9110 section 5.3
        (b'"a"\n\n"b"', True),
        (b'"b"\n"c"', False),
    ],
)
def test_if_none_match(field: bytes, found: bool) -> None:
    made, _keep = lines(field)
    assert lib.http_etag_listed(made, ffi.new("uint8_t[]", b'"a"'), 3, False) == found
    strong = found and not field.startswith(b"W/")  # RFC 9110 section 13.1.1
    assert lib.http_etag_listed(made, ffi.new("uint8_t[]", b'"a"'), 3, True) == strong


def test_absolute_form_names_the_host() -> None:
    """RFC 9112 section 3.2.2: it goes before Host."""
    _, (request, _buffer) = parse(b"GET http://b:8080/x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert text(request.host) == b"b"


@pytest.mark.parametrize(
    ("field", "size", "ranges"),
    [
        (b"bytes=0-0", 1, [(0, 0)]),
        (b"bytes=0-0,-1", 10, [(0, 0), (9, 9)]),
        (b"bytes=0-4,5-9", 10, [(0, 9)]),  # what overlaps or adjoins is one, RFC 9110 section 15.3.7.2
        (b"bytes=5-9,0-4", 10, [(0, 9)]),
        (b"bytes=0-4,3-6", 100, [(0, 6)]),
        (b"bytes=0-4,6-9", 100, [(0, 4), (6, 9)]),
        (b"bytes=8-9,0-1,20-29,2-7,3-3", 100, [(0, 9), (20, 29)]),  # where the first of them stood
        (b"bytes=20-29,8-9,0-1,40-41,9-22", 100, [(8, 29), (0, 1), (40, 41)]),
        (b"bytes=0-0,0-0,0-0", 100, [(0, 0)]),
        (b"bytes=0-5,5-9", 10, -1),  # more was asked for than there is
        (b"bytes=10-", 10, []),
        (b"bytes=-0", 10, []),
        (b"bytes=0-", 0, -1),
        (b"bytes=18446744073709551615-", 10, []),
        (b"bytes=18446744073709551616-18446744073709551617", 10, []),
        (b"bytes=0-,x", 10, -1),
        (b"", 10, -1),
    ],
)
def test_ranges(field: bytes, size: int, ranges: list[tuple[int, int]] | int) -> None:
    data = ffi.new("uint8_t[]", len(field))
    ffi.memmove(data, field, len(field))
    value = ffi.new("struct http_text *", {"data": data, "len_bytes": len(field)})
    out = ffi.new("struct http_range[]", lib.HTTP_RANGES_MAX)
    count = lib.http_ranges(value[0], size, out)
    assert (count if count < 0 else [(one.first, one.last) for one in out[0:count]]) == ranges


@pytest.mark.parametrize("count", [17, 20, 127, 200, 201])
def test_two_hundred_ranges(count: int) -> None:
    """zsync asks for 20, zchunk for 127."""
    wanted = [(i * 100, i * 100 + 9) for i in range(count)]
    for asked in (wanted, wanted[::-1]):
        field = b"bytes=" + b",".join(b"%d-%d" % each for each in asked)
        value = ffi.new("struct http_text *", {"data": (data := ffi.from_buffer(field)), "len_bytes": len(data)})
        out = ffi.new("struct http_range[]", lib.HTTP_RANGES_MAX)
        found = lib.http_ranges(value[0], 100_000, out)
        assert found == (count if count <= 200 else -1)
        assert [(one.first, one.last) for one in out[0 : max(found, 0)]] == asked[: max(found, 0)]


def test_ranges_at_random_are_the_bytes_that_were_asked_for() -> None:
    """Parts are apart, none adjoins another, and together they are the bytes of all that was asked for."""
    source = random.Random(3)
    for _ in range(2000):
        asked = [sorted(source.choices(range(200), k=2)) for _ in range(source.randrange(1, 40))]
        field = b"bytes=" + b",".join(b"%d-%d" % tuple(each) for each in asked)
        value = ffi.new("struct http_text *", {"data": (data := ffi.from_buffer(field)), "len_bytes": len(data)})
        out = ffi.new("struct http_range[]", lib.HTTP_RANGES_MAX)
        found = out[0 : lib.http_ranges(value[0], 2**20, out)]
        bytes_of = [byte for one in found for byte in range(one.first, one.last + 1)]
        assert len(bytes_of) == len(set(bytes_of))
        assert set(bytes_of) == {byte for first, last in asked for byte in range(first, last + 1)}
        assert not {one.last + 1 for one in found} & {one.first for one in found}


def test_a_list_has_four_lines_at_most() -> None:
    for count, status in ((4, 0), (5, -431)):
        for name in (b"Accept-Encoding", b"If-None-Match", b"If-Match"):
            head = b"GET / HTTP/1.1\r\nHost: a\r\n" + (name + b": x\r\n") * count + b"\r\n"
            assert min(parse(head)[0], 0) == status
