"""Random requests to random small sites through the core in memory, compared with what the RFC says (reference.py)."""

from __future__ import annotations

import hashlib
import re
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.host import WALL_S, Client, Host, Image
from tests.model import ModelImage, Page
from tests.reference import Answer, File, Request, answer

MODIFIED_S = WALL_S - 1000
NAMES = {"gzip": 1, "br": 2, "zstd": 3}
SEGMENT = 512  # so that small bodies have borders

sizes = st.one_of(st.integers(0, 40), st.sampled_from([SEGMENT - 300, SEGMENT, 2 * SEGMENT + 7, 5000]))


@st.composite
def sites(draw: Any) -> dict[str, tuple[int, dict[str, int]]]:
    """Sizes of files and of their variants."""
    paths = draw(st.lists(st.sampled_from(["/", "/a", "/b", "/c d"]), min_size=1, max_size=3, unique=True))
    return {
        path: (draw(sizes), draw(st.dictionaries(st.sampled_from(sorted(NAMES)), sizes, max_size=2)))
        for path in paths
    }


def body_of(path: str, coding: str, size: int) -> bytes:
    block = hashlib.sha256(f"{path} {coding}".encode()).digest()
    return (block * (size // 32 + 1))[:size]


def made(plan: dict[str, tuple[int, dict[str, int]]]) -> tuple[ModelImage, dict[str, File]]:
    """The same site for the core and for the reference. Variants in the order of preference: the smallest first."""
    pages, files = {}, {}
    for path, (size, variants) in plan.items():
        bodies = {coding: body_of(path, coding, each) for coding, each in {"identity": size, **variants}.items()}
        order = sorted(bodies, key=lambda coding: len(bodies[coding]))
        encodings = {NAMES.get(coding, 0): bodies[coding] for coding in order}
        page = Page(bodies["identity"], last_modified_s=MODIFIED_S, encodings=encodings)
        pages[path] = page
        etags = {coding: page.etag(body).decode() for coding, body in bodies.items()}
        files[path] = File({coding: bodies[coding] for coding in order}, etags, MODIFIED_S)
    return ModelImage(pages, segment_bytes=SEGMENT), files


numbers = st.one_of(
    st.integers(0, 50), st.sampled_from([SEGMENT - 1, SEGMENT, SEGMENT + 1, 4999, 5000, 2**64, 10**30])
)
spec = st.one_of(
    st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    numbers.map(lambda first: f"{first}-"),
    numbers.map(lambda last: f"-{last}"),
    st.sampled_from(["", "x", "5-4", "-", "1-2-3"]),
)
good = st.integers(0, 18).flatmap(lambda count: st.lists(spec.filter(lambda one: one not in ("", "x", "5-4", "-", "1-2-3")), min_size=1, max_size=max(1, count)))  # fmt: skip
ranges = st.one_of(
    good.map(lambda specs: "bytes=" + ",".join(specs)),
    st.lists(st.tuples(numbers, st.integers(0, 3)), min_size=1, max_size=18).map(
        lambda pairs: "bytes=" + ", ".join(f"{first}-{first + more}" for first, more in pairs)
    ),
    # About as many as there may be.
    st.tuples(st.integers(198, 202), st.sampled_from([1, 3])).map(
        lambda one: "bytes=" + ",".join(f"{place * one[1]}-{place * one[1]}" for place in range(one[0]))
    ),
    st.lists(spec, max_size=4).map(lambda specs: "Bytes=" + " , ".join(specs)),
    st.sampled_from(["bytes", "lines=1-2", "bytes=0-0", "bytes=-1", "=1-2"]),
)
dates = st.sampled_from([-1, 0, 1]).map(lambda by: formatdate(MODIFIED_S + by, usegmt=True))
no_dates = st.sampled_from(["yesterday", "0"])
weights = st.sampled_from(["", ";q=0", ";q=0.5", "; q=1.000", ";q=0.001"])
codings = st.sampled_from(["gzip", "br", "zstd", "identity", "*", "deflate"])
accepts = st.lists(st.tuples(codings, weights), max_size=4, unique_by=lambda pair: pair[0]).map(
    lambda pairs: ", ".join(name + weight for name, weight in pairs)
)


@st.composite
def requests(draw: Any, files: dict[str, File]) -> Request:
    """One, more often than not for something that is there."""
    path = draw(st.sampled_from([*sorted(files), "/none"]))
    all_tags = sorted({tag for file in files.values() for tag in file.etags.values()})
    one_tag = st.sampled_from([*all_tags, '"x"'])
    tag = st.one_of(one_tag, one_tag.map("W/{}".format))
    tags = st.one_of(st.lists(tag, min_size=1, max_size=3).map(", ".join), st.just("*"))
    kinds = {
        "Range": ranges,
        "If-Range": st.one_of(tag, dates, no_dates),
        "If-Match": tags,
        "If-None-Match": tags,
        "If-Modified-Since": st.one_of(dates, no_dates),
        "If-Unmodified-Since": st.one_of(dates, no_dates),
        "Accept-Encoding": accepts,
        "Connection": st.sampled_from(["close", "keep-alive", "x, Close"]),
    }
    chance = {"Range": 2, "If-Range": 5, "Accept-Encoding": 3, "Connection": 10}
    fields = {name: draw(values) for name, values in kinds.items() if draw(st.integers(1, chance.get(name, 6))) == 1}
    method = draw(st.sampled_from(["GET"] * 6 + ["HEAD", "OPTIONS", "POST"]))
    return Request(method, path, fields, draw(st.sampled_from([1, 1, 1, 0])))


def as_bytes(request: Request) -> bytes:
    target = request.path.replace(" ", "%20")
    lines = [f"{request.method} {target} HTTP/1.{request.minor_version}", "Host: a"]
    lines += [f"{name}: {value}" for name, value in request.fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def check(data: bytes, expected: Answer, request: Request) -> bytes:
    """Takes one answer off the front."""
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines[1:]}
    assert int(lines[0].split()[1]) == expected.status
    for name, value in expected.fields.items():
        assert fields.get(name) == value, name
    assert (fields["Connection"] == "close") == expected.close
    silent = request.method == "HEAD" or expected.status in (204, 304)
    length = 0 if silent else int(fields["Content-Length"])
    body, rest = rest[:length], rest[length:]
    assert len(body) == length
    if expected.parts is not None:
        boundary = fields["Content-Type"].removeprefix("multipart/byteranges; boundary=")
        *parts, end = body.split(b"\r\n--" + boundary.encode())[1:]
        assert end == b"--\r\n"
        found = []
        for part in parts:
            part_head, _, content = part.partition(b"\r\n\r\n")
            place = re.search(rb"Content-Range: +bytes (\d+)-(\d+)/\d+\Z", part_head)
            assert place is not None
            found.append((int(place[1]), int(place[2]), content))
        assert found == expected.parts
    elif expected.body is not None:
        assert body == expected.body
    return rest


@pytest.mark.long
@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(plan=sites(), data=st.data())
def test_answers_are_the_rfc_s(plan: dict[str, tuple[int, dict[str, int]]], data: Any) -> None:
    model, files = made(plan)
    asked = data.draw(st.lists(requests(files), min_size=1, max_size=6))
    for request in asked:
        note(f"{request}")
    stream = b"".join(as_bytes(request) for request in asked)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    gather_max = data.draw(st.sampled_from([1, 44]))
    window = data.draw(st.sampled_from([600, 4000, 65000]))
    client = Client(Host(Image(model.sections), gather_max=gather_max), window=window, options=[("MSS", 1460)])
    client.connect()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for at in range(start, end, 1400):
            piece = stream[at : min(end, at + 1400)]
            packet = client.packet("PA", piece)
            client.seq += len(piece)
            client.note(client.host.send(packet), check=gather_max == 1)
    got = client.drain(check=gather_max == 1)
    for request in asked:
        expected = answer(files, request)
        got = check(got, expected, request)
        if expected.close:
            break
    assert got == b""
    assert client.fin == any(answer(files, request).close for request in asked)
