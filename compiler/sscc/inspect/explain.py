"""`sscc explain`: what one request costs on the wire and in memory, and so how many there can be at most.

The formulas are in docs/build.md. All is for a connection that is open, with timestamps, to a peer that takes
segments whole; nothing is lost, and nobody closes. Nothing is measured here: a link's rate is an upper bound.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from ssimage._sandstorm import ffi, lib
from ssimage.loader import ENCODING_NAMES

from ..terminal import shown
from .reader import Reader, ReadRoute
from .responses import answers

ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES = 14, 20, 40
TCP_BYTES = 32  # with timestamps, RFC 7323
FRAME_BYTES_MIN = 60  # IEEE 802.3 section 4.2.3.3, without the frame check sequence
BESIDE_BYTES = 7 + 1 + 4 + 12  # preamble, start delimiter, frame check sequence, gap: IEEE 802.3 clauses 3 and 4
LINKS_GBIT_S = (10, 25, 100)
SEGMENTS_AN_ACK = 2  # RFC 9293 section 3.8.6.3
RING_ENTRY_BYTES = 16  # struct xdp_desc
ANSWERS = ("GET", "HEAD", "304")  # a 206 depends on what is asked for


@dataclass(frozen=True)
class Cost:
    """What one answer costs over one address family, in bytes; requests_s by the link's Gbit/s."""

    family: str
    frame_bytes: int  # from Ethernet's header to the payload's end: what the NIC reads by DMA
    wire_bytes: int  # with padding and what is beside the frames
    client_wire_bytes: int  # of the request and its ACKs, the other way
    header_write_bytes: int
    patch_write_bytes: int
    descriptor_write_bytes: int
    table_read_bytes: int
    payload_read_bytes: int  # by the processor
    requests_s: dict[str, int]


def wire_bytes(frame_bytes: int) -> int:
    """What a frame takes of the wire."""
    return max(frame_bytes, FRAME_BYTES_MIN) + BESIDE_BYTES


def header_bytes(family: str) -> int:
    """Ethernet's, IP's and TCP's headers."""
    return ETHERNET_BYTES + (IPV4_BYTES if family == "ipv4" else IPV6_BYTES) + TCP_BYTES


def _table_bytes(reader: Reader, route: ReadRoute, response: Any) -> int:
    """What is looked up: bucket, route and path, its variants, the response, and each frame."""
    size = {name: int(ffi.sizeof(f"struct ssi_{name}")) for name in ("route", "variant", "response", "frame")}
    read_bytes = int(ffi.sizeof("uint32_t")) + size["route"] + len(route.path) + len(route.variants) * size["variant"]
    return read_bytes + size["response"] + reader.frame_count(response) * size["frame"]


def _cut_bytes(reader: Reader, response: Any) -> int:
    """What of a response's last frame is copied, as the frame in the image is longer: a HEAD's, if GET has a body."""
    before = reader.frame_count(response) - 1
    last_bytes = int(response.stream_bytes - before * reader.header.segment_bytes)
    return 0 if reader.image.frames[response.first_frame + before].payload_bytes == last_bytes else last_bytes


def cost(reader: Reader, route: ReadRoute, response: Any, family: str) -> Cost:
    """Predicts what one response costs."""
    head = header_bytes(family)
    segments = reader.frame_count(response)
    full = reader.header.segment_bytes
    last = response.stream_bytes - (segments - 1) * full
    on_wire = (segments - 1) * wire_bytes(head + full) + wire_bytes(head + last)
    acks = -(-segments // SEGMENTS_AN_ACK)
    return Cost(
        family,
        frame_bytes=segments * head + response.stream_bytes,
        wire_bytes=on_wire,
        client_wire_bytes=wire_bytes(head + len(route.request)) + acks * wire_bytes(head),
        header_write_bytes=segments * head,
        patch_write_bytes=sum(patch.size_bytes for patch in reader.patches(response)),
        descriptor_write_bytes=segments * (int(ffi.sizeof("struct nmio_tx_desc")) + RING_ENTRY_BYTES),
        table_read_bytes=_table_bytes(reader, route, response),
        payload_read_bytes=_cut_bytes(reader, response),
        requests_s={str(link): link * 10**9 // (8 * on_wire) for link in LINKS_GBIT_S},
    )


def document(reader: Reader, route: ReadRoute) -> dict[str, Any]:
    """Everything about a route."""
    bits = (("ipv4", lib.SSI_FAMILY_IPV4), ("ipv6", lib.SSI_FAMILY_IPV6))
    families = [name for name, bit in bits if reader.header.families & bit]
    variants = []
    for variant in route.variants:
        found = [
            {
                "answer": name,
                "status": each.response.status,
                "head_bytes": each.response.head_bytes,
                "stream_bytes": each.response.stream_bytes,
                "segments": reader.frame_count(each.response),
                "costs": [asdict(cost(reader, route, each.response, family)) for family in families],
            }
            for name, each in answers(reader, variant)
            if name in ANSWERS
        ]
        encoding = ENCODING_NAMES[int(variant.encoding)]
        variants.append({"encoding": encoding, "content_bytes": variant.content_bytes, "answers": found})
    return {"path": route.text, "segment_bytes": reader.header.segment_bytes, "variants": variants}


def _writes(costs: dict[str, Any]) -> int:
    return int(costs["header_write_bytes"] + costs["patch_write_bytes"] + costs["descriptor_write_bytes"])


def _size(size_bytes: int) -> str:
    return decimal(size_bytes).replace(" bytes", " B")


def _count(count: int) -> str:
    """Three digits: 533k, 1.33M."""
    value, units = float(count), ["", "k", "M", "G"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g}{units[0]}"


def show(reader: Reader, console: Console, route: ReadRoute) -> None:
    """Shows people a table for each variant."""
    for variant in document(reader, route)["variants"]:
        title = f"{route.text}  {variant['encoding']}, {_size(variant['content_bytes'])}"
        console.print(shown(title, "bold"), soft_wrap=True)
        table = Table(box=None, header_style="bold")
        table.add_column("answer")
        for name in ("IP", "frames", "DMA", "wire", "written", "read", *(f"{link}G" for link in LINKS_GBIT_S)):
            table.add_column(name, justify="right")
        for answer in variant["answers"]:
            for costs in answer["costs"]:
                sizes = [costs["frame_bytes"], costs["wire_bytes"], _writes(costs), costs["table_read_bytes"]]
                table.add_row(
                    answer["answer"],
                    costs["family"].removeprefix("ip"),
                    f"{answer['segments']:,}",
                    *(_size(size) for size in sizes),
                    *(_count(count) for count in costs["requests_s"].values()),
                )
        console.print(table)
    console.print(
        "DMA: read by the NIC. wire: with preamble, check sequence and gap. written, read: by the processor, "
        "which touches no payload but a HEAD's. 10G, 25G, 100G: requests per second that such a link carries at most."
    )
