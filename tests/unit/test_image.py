"""Validation and lookup of images in C: what a hostile image may say."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path

import pytest
from ssimage._sandstorm import ffi, lib

from tests.host import Client, Host, Image
from tests.model import ModelImage, Page

PAGES = {f"/{i}": Page(bytes([i % 256]) * (i * 37)) for i in range(60)}


@pytest.fixture(scope="module")
def sections() -> dict[str, bytes]:
    return ModelImage(PAGES, copies=2).sections


def find(image: Image, path: bytes, site: int = 0) -> bytes | None:
    route = lib.image_route_find(image.image, site, ffi.from_buffer(path), len(path))
    if route == ffi.NULL:
        return None
    return bytes(ffi.buffer(image.image.strings + route.path_offset, route.path_bytes))


def test_every_route_is_found_and_nothing_else(sections: dict[str, bytes]) -> None:
    image = Image(sections)
    for path in PAGES:
        assert find(image, path.encode()) == path.encode()
    for path in ("", "/", "/60", "/1 ", "//1", "/1\0"):
        assert find(image, path.encode()) is None


@pytest.mark.parametrize("count", [1, 2, 3, 100, 20_000])
def test_perfect_hash(count: int) -> None:
    table_len, buckets = 1, 1
    while table_len * 3 < count * 4:
        table_len *= 2
    while buckets * 4 < count:
        buckets *= 2
    paths = [b"/file-%d.html" % i for i in range(count)]
    hashes = [lib.image_route_hash(ffi.from_buffer(path), len(path), 0, 0, 1) for path in paths]
    displacements = ffi.new("uint32_t[]", buckets)
    work = ffi.new("uint32_t[]", 5 * count + 2 * buckets + 8 + table_len)
    assert lib.image_route_perfect(ffi.new("uint64_t[]", hashes), count, displacements, buckets, table_len, work) == 0
    entries = {lib.image_route_entry(h, displacements[(h >> 32) % buckets], table_len) for h in hashes}
    assert len(entries) == count


def test_equal_hashes_and_full_tables_are_told() -> None:
    work = ffi.new("uint32_t[]", 100)
    displacements = ffi.new("uint32_t[]", 1)
    assert lib.image_route_perfect(ffi.new("uint64_t[]", [1, 2, 3]), 3, displacements, 1, 2, work) == -1


def error_text(image: Image) -> str:
    text = ffi.new("char[200]")
    lib.image_error_text(image.error, text, 200)
    return ffi.string(text).decode()


HEADER = [
    "version",
    "header_bytes",
    "slot_bytes",
    "segment_bytes",
    "mtu_bytes",
    "families",
    "slot_count",
    "frame_count",
]
HEADER += ["response_count", "variant_count", "route_count", "route_table_len", "bucket_count", "error_count"]
HEADER += ["host_count", "site_count", "multipart_type_response", "multipart_end_response"]
HEADER += ["patch_count", "string_bytes"]


@pytest.mark.parametrize(("flags", "known"), [(0, True), (1, True), (2, False), (0x8001, False)])
def test_flags_of_an_image(sections: dict[str, bytes], flags: int, known: bool) -> None:
    data = bytearray(sections["header"])
    struct.pack_into("<H", data, 4 * HEADER.index("families") + 2, flags)
    assert (Image(sections | {"header": bytes(data)}).error == 0) == known


@pytest.mark.parametrize("field", HEADER)
@pytest.mark.parametrize("value", [0, 1, 3, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_header_that_lies_is_refused(sections: dict[str, bytes], field: str, value: int) -> None:
    data = bytearray(sections["header"])
    struct.pack_into("<I", data, 4 * HEADER.index(field), value)
    image = Image(sections | {"header": bytes(data)})
    same = bytes(data) == sections["header"] or (field == "families" and value in (1, 2, 3))
    # A head that says something of a variant, as the first 304 and 206 do, is for variants only.
    same = same or (field.startswith("multipart") and value in (0, 3))
    assert (image.error == 0) == same
    assert (error_text(image) == "no error") == same


@pytest.mark.parametrize(
    "name", ["routes", "hosts", "sites", "variants", "responses", "patches", "errors", "frames", "buckets", "header"]
)
def test_an_image_that_passes_can_be_served(sections: dict[str, bytes], name: str) -> None:
    """Tables are changed at random. What image_open lets through must serve without reading out of bounds: that is
    for ASan to see in `make sanitize`, and here the process lives."""
    source = random.Random(name)
    served = 0
    for _ in range(300):
        data = bytearray(sections[name])
        at = source.randrange(len(data))
        data[at] = source.choice([0, 1, 0x7F, 0xFF, data[at] ^ (1 << source.randrange(8))])
        image = Image(sections | {name: bytes(data)})
        if image.error != 0:
            continue
        served += 1
        host = Host(image, gather_max=source.choice([1, 44]))
        for port, path in enumerate(source.sample(list(PAGES), 2), 40000):
            client = Client(host, port=port)
            client.connect()
            client.note(
                host.send(client.packet("PA", b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())), check=False
            )
    assert served > 0 or name in ("buckets", "header")


VARIANT_BYTES, RESPONSE_BYTES, PATCH_BYTES = 48, 24, 4
NONE = 0xFFFFFFFF


def changed(sections: dict[str, bytes], name: str, at: int, form: str, value: int) -> Image:
    data = bytearray(sections[name])
    struct.pack_into(form, data, at, value)
    return Image(sections | {name: bytes(data)})


@pytest.mark.parametrize(("offset", "fits"), [(0, True), (20, False), (1 << 20, False), (NONE, False)])
def test_a_query_goes_into_the_head_of_a_redirect(sections: dict[str, bytes], offset: int, fits: bool) -> None:
    """Not beyond it, and not into the head of a file."""
    data = bytearray(sections["variants"])
    struct.pack_into("<IIII", data, 8, NONE, NONE, offset, 0)  # the first, without ranges
    assert (Image(sections | {"variants": bytes(data)}).error == 0) == fits


@pytest.mark.parametrize(
    ("query", "path", "fits"),
    [(70, 70, True), (0, 70, True), (71, 70, True), (69, 70, False), (0, 1 << 20, False), (0, NONE, False)],
)
def test_a_path_goes_into_the_head_of_a_redirect(query: int, path: int, fits: bool) -> None:
    """Not beyond it, and in front of the query."""
    sections = ModelImage({"/": Page(b"moved", location=b"https://new.example/")}).sections
    data = bytearray(sections["variants"])
    struct.pack_into("<II", data, 16, query, path)
    assert (Image(sections | {"variants": bytes(data)}).error == 0) == fits


def test_no_path_goes_into_the_head_of_a_file(sections: dict[str, bytes]) -> None:
    data = bytearray(sections["variants"])
    struct.pack_into("<IIII", data, 8, NONE, NONE, 0, 20)  # the first, without ranges
    assert Image(sections | {"variants": bytes(data)}).error != 0


@pytest.mark.parametrize(
    ("member", "form", "value"),
    [
        (8, "<I", 1 << 30),  # partial_response
        (8, "<I", NONE),  # without the head of a 206 there can be no parts
        (12, "<I", 1 << 30),  # part_response
        (16, "<I", 0),  # swap_offset: an empty span
        (16, "<I", 1 << 20),
        (16, "<I", NONE),
        (20, "<I", 1 << 20),  # swap_bytes
        (20, "<I", NONE),
        (40, "<Q", 1 << 40),  # content_bytes: a slice beyond the body
    ],
)
def test_variants_that_lie_about_ranges_are_refused(
    sections: dict[str, bytes], member: int, form: str, value: int
) -> None:
    for number in (0, 59):
        assert changed(sections, "variants", number * VARIANT_BYTES + member, form, value).error != 0


# Of the head of a 206: Date, Connection, Content-Length, ETag, Last-Modified, Content-Range.
@pytest.mark.parametrize(
    ("number", "member", "form", "value", "why"),
    [
        (0, 0, "<H", 60000, "overlap, or are not in order"),
        (0, 3, "<B", 6, "unknown kind"),
        (0, 3, "<B", 255, "unknown kind"),
        (0, 3, "<B", 4, "too short or too long"),  # an ETag
        (0, 3, "<B", 5, "two patches of one kind"),  # Last-Modified once more
        (0, 2, "<B", 28, "too short or too long"),
        (0, 2, "<B", 30, "too short or too long"),
        (1, 0, "<H", 0, "overlap, or are not in order"),
        (1, 0, "<H", 52, "overlap, or are not in order"),  # on Date's last byte
        (1, 2, "<B", 11, "too short or too long"),
        (2, 2, "<B", 0, "too short or too long"),
        (2, 2, "<B", 21, "too short or too long"),
        (3, 2, "<B", 33, "too short or too long"),
        (5, 2, "<B", 69, "too short or too long"),
        (5, 0, "<H", 1000, "not inside its head"),  # behind it, but in the frame
        (5, 0, "<H", 0xFFFF, "not inside its head"),
    ],
)
def test_patches_must_fit(
    sections: dict[str, bytes], number: int, member: int, form: str, value: int, why: str
) -> None:
    (index,) = struct.unpack_from("<I", sections["variants"], 8)
    (first,) = struct.unpack_from("<I", sections["responses"], index * RESPONSE_BYTES + 16)
    image = changed(sections, "patches", (first + number) * PATCH_BYTES + member, form, value)
    assert why in error_text(image)


def test_a_patch_ends_where_its_head_does() -> None:
    """Not a byte later; and one narrower than its text is no danger: that is cut off."""
    sections = ModelImage({"/": Page(b"x")}).sections
    (index,) = struct.unpack_from("<I", sections["variants"], 8)
    (head_bytes,) = struct.unpack_from("<I", sections["responses"], index * RESPONSE_BYTES + 12)
    (first,) = struct.unpack_from("<I", sections["responses"], index * RESPONSE_BYTES + 16)
    at = (first + 5) * PATCH_BYTES
    assert changed(sections, "patches", at + 2, "<B", 3).error == 0
    assert changed(sections, "patches", at, "<H", head_bytes - 41).error == 0
    assert "not inside its head" in error_text(changed(sections, "patches", at, "<H", head_bytes - 40))


def test_a_response_has_patches_that_there_are(sections: dict[str, bytes]) -> None:
    """All of them in the table, no more than there are kinds, and its first frame says that there are some."""
    count = len(sections["patches"]) // PATCH_BYTES
    (index,) = struct.unpack_from("<I", sections["variants"], 8)
    at = index * RESPONSE_BYTES
    for member, form, value in ((16, "<I", count - 5), (16, "<I", NONE), (22, "<H", 7), (22, "<H", 0xFFFF)):
        assert "outside of their table" in error_text(changed(sections, "responses", at + member, form, value))
    assert changed(sections, "responses", at + 22, "<H", 0).error == 0
    (frame,) = struct.unpack_from("<I", sections["responses"], at + 8)
    assert "says that there are none" in error_text(changed(sections, "frames", frame * 12 + 10, "<H", 0))


def test_a_range_in_an_answer_of_no_variant() -> None:
    """An image may have one; it says nothing that is right, and reads nothing that is not there."""
    sections = ModelImage({}).sections
    rows = struct.iter_unpack("<QIIIHH", sections["responses"])
    first = next(first for *_, first, status, _ in rows if status == 404)
    image = changed(sections, "patches", first * PATCH_BYTES + 3, "<B", 3)  # Date's bytes, for Content-Range
    assert (image.error, image.header.variant_count) == (0, 0)
    host = Host(image)
    client = Client(host)
    client.connect()
    client.note(host.send(client.packet("PA", b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n")), check=False)
    assert b"/0\r\nConnection: keep-alive" in client.received


@pytest.mark.parametrize(
    ("member", "form", "value"),
    [
        (28, "<H", 33),  # etag_bytes
        (28, "<H", 0),
        (32, "<q", -1),  # last_modified_s
        (32, "<q", 253402300800),  # the year 10000
        (0, "<I", 1),  # get_response: the 304
        (0, "<I", 2),  # the 206
        (12, "<I", 1),  # part_response
    ],
)
def test_what_heads_say_of_variants_must_be_there(
    sections: dict[str, bytes], member: int, form: str, value: int
) -> None:
    """An ETag and a time that fit where they move, and no head that has such in another place."""
    assert changed(sections, "variants", member, form, value).error != 0


def test_error_pages_and_options_say_nothing_of_a_variant(sections: dict[str, bytes]) -> None:
    assert changed(sections, "errors", 4, "<I", 1).error != 0
    routes = sections["routes"]
    used = next(at for at in range(0, len(routes), 32) if struct.unpack_from("<I", routes, at + 20)[0])
    assert changed(sections, "routes", used + 24, "<I", 1).error != 0
    assert changed(sections, "routes", used + 24, "<I", 0).error == 0


def test_truncated_tables_are_refused(sections: dict[str, bytes]) -> None:
    for name, data in sections.items():
        if data:
            assert Image(sections | {name: data[:-1]}).error != 0, name
            assert Image(sections | {name: b""}).error != 0, name


# What is wrong with an image, by what an operator reads: section, row, member, its form, value. A row of a table whose
# rows are bytes is given in bytes.
ROWS = {
    "header": 1,
    "hosts": 12,
    "sites": 12,
    "routes": 32,
    "variants": 48,
    "responses": 24,
    "errors": 8,
    "frames": 12,
}
H, Q = "<H", "<Q"
WRONG = {
    "slot_bytes is 3000, no power of two": ("header", 0, 8, "<I", 3000),
    "segment_bytes is 5, too few": ("header", 0, 12, "<I", 5),
    "mtu_bytes is 5, less than a segment": ("header", 0, 16, "<I", 5),
    "families is 4,": ("header", 0, 20, H, 4),
    "flags is 2,": ("header", 0, 22, H, 2),
    "route_table_len is 3, no power": ("header", 0, 44, "<I", 3),
    "bucket_count is 3, no power": ("header", 0, 48, "<I", 3),
    "its format is another version, 6": ("header", 0, 0, "<I", 6),
    "the header is 84 bytes long": ("header", 0, 4, "<I", 84),
    "the strings are not": ("header", 0, 76, "<I", 5),
    "the table of hosts is not": ("header", 0, 56, "<I", 5),
    "the table of sites is not": ("header", 0, 60, "<I", 5),
    "the table of buckets is not": ("header", 0, 48, "<I", 4096),
    "the table of routes is not": ("header", 0, 44, "<I", 4096),
    "the table of variants is not": ("header", 0, 36, "<I", 5),
    "the table of responses is not": ("header", 0, 32, "<I", 5),
    "the table of patches is not": ("header", 0, 72, "<I", 5),
    "the table of error answers is not": ("header", 0, 52, "<I", 5),
    "the table of frames is not": ("header", 0, 28, "<I", 5),
    "the slots are not as many": ("header", 0, 24, "<I", 5),
    "multipart_type_response is 16777215 or more:": ("header", 0, 64, "<I", 1 << 30),
    "multipart_end_response is 5000:": ("header", 0, 68, "<I", 5000),
    "4 routes are in use": ("header", 0, 40, "<I", 5),
    "frame 3 has no slot": ("frames", 3, 4, H, 0),
    "frame 3: its slots are outside": ("frames", 3, 0, "<I", 5000),
    "frame 3 is empty": ("frames", 3, 6, H, 0),
    "response 3: its status": ("responses", 3, 20, H, 199),
    "response 3 has no head": ("responses", 3, 12, "<I", 0),
    "response 3: its frames are outside": ("responses", 3, 8, "<I", 5000),
    "response 3 is not as long": ("responses", 3, 0, Q, 400),
    "variant 1: what GET": ("variants", 1, 0, "<I", 5000),
    "variant 1: its 304": ("variants", 1, 4, "<I", 5000),
    "variant 1: its 206": ("variants", 1, 8, "<I", 5000),
    "variant 1: its part header": ("variants", 1, 12, "<I", 5000),
    "variant 1: its encoding": ("variants", 1, 30, H, 4),
    "variant 1: its ETag": ("variants", 1, 24, "<I", 1 << 20),
    "variant 1: its content": ("variants", 1, 40, Q, 1),
    "variant 1 has a part header, but no 206": ("variants", 1, 8, "<I", NONE),
    "variant 1: what several ranges swap": ("variants", 1, 16, "<I", 0),
    "variant 0 has a part header, but the image": ("header", 0, 64, "<I", NONE),
    "variant 2: a redirect's places": ("variants", 2, 16, "<I", 5000),
    "error answer 4:": ("errors", 4, 4, "<I", 5000),
    "host 0: its name is outside": ("hosts", 0, 0, "<I", 1 << 20),
    "host 1: its name is longer": ("hosts", 1, 4, "<I", 256),
    "host 0: there is no such site": ("hosts", 0, 8, "<I", 2),
    "host 1: its name is not behind": ("hosts", 1, 4, "<I", 0),
    "site 1: its error answers": ("sites", 1, 4, "<I", 5000),
    "site 1: its longest prefix": ("sites", 1, 8, "<I", 256),
    "its variants are outside": ("routes", None, 20, "<I", 5000),
    "its path is outside": ("routes", None, 8, "<I", 1 << 20),
    "its path is longer than any request": ("routes", None, 12, "<I", 16385),
    "what OPTIONS is answered with": ("routes", None, 24, "<I", 5000),
    "there is no such site": ("routes", None, 28, H, 2),
    "a flag is not known": ("routes", None, 30, H, 4),
    "is a prefix, and longer than its site's longest": ("routes", None, 30, H, 1),
    "is not where its hash says": ("routes", None, 0, Q, 1),
}
# What is shown elsewhere in this file, or can't be made of so small an image.
SHOWN_ELSEWHERE = {
    *("RESPONSE_PATCHES", "PATCH_FRAME", "PATCH_KIND", "PATCH_BYTES", "PATCH_ORDER", "PATCH_TWICE", "PATCH_HEAD"),
    *("ALIGNMENT", "VARIANT_COUNT", "SITE_COUNT"),
}


@pytest.fixture(scope="module")
def plenty() -> dict[str, bytes]:
    """An image that has one of everything, and more strings than a path may have bytes."""
    pages = {"/a": Page(b"a"), "/b": Page(b"bb"), "/r": Page(b"moved", location=b"/a")}
    sections = ModelImage(pages, sites={"b.example": {"/b": Page(b"b")}}).sections
    strings = sections["strings"] + bytes(17000)
    header = sections["header"][:76] + struct.pack("<I", len(strings)) + sections["header"][80:]
    return sections | {"strings": strings, "header": header}


def row_of(sections: dict[str, bytes], section: str, row: int | None) -> int:
    """Where it begins; without a number, of the first route that is in use and no longer than prefixes may be."""
    if row is not None:
        return row * ROWS[section]
    rows = range(0, len(sections[section]), ROWS[section])
    return next(at for at in rows if 0 < struct.unpack_from("<I", sections[section], at + 12)[0] < 10)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_with_its_row(plenty: dict[str, bytes], text: str) -> None:
    section, row, member, form, value = WRONG[text]
    assert error_text(Image(plenty)) == "no error"
    told = error_text(changed(plenty, section, row_of(plenty, section, row) + member, form, value))
    assert text in told
    assert "#" not in told


def test_every_rule_has_been_seen_to_be_broken() -> None:
    """Of those in image_check.c."""
    source = (Path(__file__).resolve().parents[2] / "runtime" / "csrc" / "image" / "image_check.c").read_text()
    rules = dict(re.findall(r'^    X\((\w+), "(.*?)"\)', source, re.MULTILINE))
    assert len(rules) > 60
    for name, rule in rules.items():
        found = [text for text in WRONG if re.sub(r"\d+( or more)?", "#", text, count=1) in rule or text in rule]
        assert (name in SHOWN_ELSEWHERE) != bool(found), name
