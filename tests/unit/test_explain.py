"""`sscc explain` against what the core really sends, and writes, for the same request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ssimage._sandstorm import ffi

from tests.commands import sscc_text as sscc
from tests.host import Client, Host, Image

PAYLOAD_OFFSET = 128
PATHS = ("/", "/large.bin", "/exact.bin", "/a b.css", "/folder")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("explain")
    (top / "site" / "folder").mkdir(parents=True)
    (top / "site" / "index.html").write_text("<p>home")
    (top / "site" / "folder" / "index.html").write_text("<p>folder")
    (top / "site" / "large.bin").write_bytes(bytes(range(256)) * 1000)
    (top / "site" / "a b.css").write_text("p { color: black }\n" * 900)
    (top / "site" / "exact.bin").write_bytes(bytes(1))
    (top / "site.yaml").write_text("version: 1\nroot: site\nencodings: {make: [gzip]}\n")
    sscc("build", top / "site.yaml", "-o", top / "site.img", "-q")
    return top / "site.img"


def explained(image: Path, path: str) -> Any:
    return json.loads(sscc("explain", image, path, "--json"))


def exchange(client: Client, request: bytes) -> list[int]:
    """Lengths of the frames with payload that answer a request."""
    packets = client.request(request)
    while True:
        before = client.ack
        packets += client.note(client.host.send(client.packet("A")))
        if client.ack == before:
            return [len(bytes(packet)) for packet in packets if Client.payload(packet)]


def message(method: str, path: str, encoding: str, etag: str) -> bytes:
    fields = "Host: sandstorm.example\r\n"
    fields += f"Accept-Encoding: {encoding}\r\n" if encoding != "identity" else ""
    fields += f"If-None-Match: {etag}\r\n" if method == "304" else ""
    method = "GET" if method == "304" else method
    return f"{method} {path.replace(' ', '%20')} HTTP/1.1\r\n{fields}\r\n".encode()


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_the_core_sends_what_is_predicted(image: Path, path: str, v6: bool) -> None:
    """Each answer of each variant: the number of frames and their bytes."""
    inspected = json.loads(sscc("inspect", image, path, "--json"))["routes_list"][0]["variants"]
    document = explained(image, path)
    assert [each["encoding"] for each in document["variants"]] == [each["encoding"] for each in inspected]
    client = Client(Host(Image.read(image)), v6=v6)
    client.connect()
    compared = 0
    for variant, known in zip(document["variants"], inspected, strict=True):
        for answer in variant["answers"]:
            request = message(answer["answer"], path, variant["encoding"], known["etag"])
            start = len(client.received)
            frames = exchange(client, request)
            status = int(client.received[start:].split()[1])
            cost = answer["costs"][int(v6)]
            assert cost["family"] == ("ipv6" if v6 else "ipv4")
            assert status == answer["status"]
            assert (len(frames), sum(frames)) == (answer["segments"], cost["frame_bytes"])
            assert sum(max(each, 60) + 24 for each in frames) == cost["wire_bytes"]
            assert len(client.received) - start == answer["stream_bytes"]
            compared += 1
    assert compared == {"/folder": 2, "/a b.css": 6}.get(path, 3)


def test_only_what_is_predicted_is_written(image: Path) -> None:
    """Of the slots' bytes: headers in front of each payload that was sent, and the patched fields."""
    read = Image.read(image)
    host = Host(read)
    client = Client(host)
    client.connect()
    slot_bytes = read.header.slot_bytes
    slots = ffi.buffer(host.memory + host.region.first_slot * slot_bytes, len(read.data["slots"]))
    before = bytes(slots)
    exchange(client, message("GET", "/large.bin", "identity", ""))
    (variant,) = explained(image, "/large.bin")["variants"]
    (get,) = (answer for answer in variant["answers"] if answer["answer"] == "GET")
    cost = get["costs"][0]
    after = bytes(slots)
    written: dict[int, list[int]] = {}
    for number in range(len(after) // slot_bytes):
        old, new = (data[number * slot_bytes : (number + 1) * slot_bytes] for data in (before, after))
        if old != new:
            written[number] = [at for at in range(slot_bytes) if old[at] != new[at]]
    header_bytes = cost["header_write_bytes"] // get["segments"]
    assert len(written) == get["segments"]
    for places in written.values():
        assert min(places) >= PAYLOAD_OFFSET - header_bytes
    behind = [at for places in written.values() for at in places if at >= PAYLOAD_OFFSET]
    assert behind  # Date
    assert len(behind) <= cost["patch_write_bytes"]
    assert max(max(places) for places in list(written.values())[1:]) < PAYLOAD_OFFSET


def test_rates_follow_from_the_wire(image: Path) -> None:
    for path in PATHS:
        for variant in explained(image, path)["variants"]:
            for answer in variant["answers"]:
                for cost in answer["costs"]:
                    for link, count in cost["requests_s"].items():
                        bits = cost["wire_bytes"] * 8
                        assert count * bits <= int(link) * 10**9 < (count + 1) * bits
                    assert cost["client_wire_bytes"] >= (answer["segments"] + 1) // 2 * 90
                    read = (
                        answer["head_bytes"] if answer["answer"] == "HEAD" else 0
                    )  # whose frame has some of the body too
                    assert cost["payload_read_bytes"] == read


def test_for_people(image: Path) -> None:
    text = sscc("explain", image, "/a b.css")
    assert "/a b.css  gzip" in text
    assert " ".join(text.splitlines()[1].split()) == "answer IP frames DMA wire written read 10G 25G 100G"
    assert max(len(line) for line in text.splitlines()[:-3]) <= 80
    for line in text.splitlines():
        assert "…" not in line
    assert "no route /none" in sscc("explain", image, "/none", status=1)
