"""`sscc inspect`: what an image holds."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from ssrun._sandstorm import lib

from .reader import ENCODING_NAMES, Reader, ReadRoute


def summary(reader: Reader) -> dict[str, Any]:
    """The whole image in numbers."""
    header = reader.header
    return {
        "image": str(reader.file.path),
        "build_id": reader.file.build_id.hex(),
        "format_version": header.version,
        "tool": f"{reader.file.provenance.get('tool')} {reader.file.provenance.get('version')}",
        "mtu_bytes": header.mtu_bytes,
        "families": [name for bit, name in ((1, "ipv4"), (2, "ipv6")) if header.families & bit],
        "segment_bytes": header.segment_bytes,
        "slot_bytes": header.slot_bytes,
        "files": len(reader.file.provenance.get("sources", [])),
        "routes": header.route_count,
        "variants": header.variant_count,
        "responses": header.response_count,
        "frames": header.frame_count,
        "slots": header.slot_count,
    }


def _head(reader: Reader, index: int) -> str | None:
    return None if index == lib.SSI_NONE else reader.head(reader.response(index)).decode("latin-1")


def variant(reader: Reader, each: Any) -> dict[str, Any]:
    """A variant as the runtime will answer it."""
    response = reader.response(each.get_response)
    first = next(reader.frames(response))
    return {
        "encoding": ENCODING_NAMES[int(each.encoding)],
        "status": response.status,
        "bytes": each.content_bytes,
        "frames": response.frame_count,
        "copies": first.copies,
        "etag": reader.string(each.etag_offset, each.etag_bytes).decode("latin-1"),
        "head": reader.head(response).decode("latin-1"),
        "partial_head": _head(reader, each.partial_response),
        "part_head": _head(reader, each.part_response),
    }


def route(reader: Reader, each: ReadRoute) -> dict[str, Any]:
    """A route and its variants."""
    return {"path": each.text, "variants": [variant(reader, one) for one in each.variants]}


def show_summary(reader: Reader, console: Console, routes: list[ReadRoute], limit: int) -> None:
    """For people: the numbers, then the routes."""
    for key, value in summary(reader).items():
        console.print(f"{key:15} {', '.join(value) if isinstance(value, list) else value}", highlight=False)
    table = Table("route", "status", "encodings", "bytes", "frames", "copies", box=None, header_style="bold")
    for each in routes[:limit]:
        variants = [variant(reader, one) for one in each.variants]
        table.add_row(
            each.text,
            str(variants[0]["status"]),
            ", ".join(str(one["encoding"]) for one in variants),
            decimal(int(max(one["bytes"] for one in variants))),
            str(sum(int(one["frames"]) for one in variants)),
            str(variants[0]["copies"]),
        )
    console.print(table)
    if len(routes) > limit:
        console.print(f"... and {len(routes) - limit} more; --json lists all")


def show_route(reader: Reader, console: Console, each: ReadRoute) -> None:
    """For people: a route's answers with their heads."""
    for one in route(reader, each)["variants"]:
        console.print(
            f"{each.text}  {one['encoding']}: {one['bytes']} bytes in {one['frames']} frames, "
            f"{one['copies']} copies each",
            style="bold",
            highlight=False,
        )
        for name in ("head", "partial_head", "part_head"):
            if one[name] is not None:
                console.print(one[name].replace("\r\n", "\n"), markup=False, highlight=False)
