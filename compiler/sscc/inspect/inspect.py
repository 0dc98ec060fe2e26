"""`sscc inspect`: what an image holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.tree import Tree
from ssimage._sandstorm import lib
from ssimage.loader import ENCODING_NAMES

from ..terminal import shown, shown_head
from .reader import Reader, ReadRoute
from .responses import Answer, answers, page_answers, parsed


def _shared(reader: Reader) -> tuple[int, int]:
    """Frames that stand for several, and the bytes of slots that they spare."""
    image, header = reader.image, reader.header
    used = [header.multipart_type_response, header.multipart_end_response]
    for variant in image.variants[0 : header.variant_count]:
        used += [variant.get_response, variant.not_modified_response]
        used += [variant.partial_response, variant.part_response]
    used += [route.options_response for route in image.routes[0 : header.route_table_len] if route.variant_count]
    for error in image.errors[0 : header.error_count]:
        used.append(error.get_response)
    frames = slots = 0
    for index in used:
        if index != lib.SSI_NONE:
            response = image.responses[index]
            count = reader.frame_count(response)
            frames += count
            slots += count * image.frames[response.first_frame].copies
    return frames - header.frame_count, (slots - header.slot_count) * header.slot_bytes


def summary(reader: Reader) -> dict[str, Any]:
    """The whole image in numbers."""
    header = reader.header
    shared_frames, shared_bytes = _shared(reader)
    return {
        "image": str(reader.file.path),
        "build_id": reader.file.build_id.hex(),
        "format_version": header.version,
        "tool": f"{reader.file.provenance.get('tool')} {reader.file.provenance.get('version')}",
        "mtu_bytes": header.mtu_bytes,
        "families": [name for bit, name in ((1, "ipv4"), (2, "ipv6")) if header.families & bit],
        "merge_slashes": bool(header.flags & lib.SSI_IMAGE_MERGE_SLASHES),
        "segment_bytes": header.segment_bytes,
        "slot_bytes": header.slot_bytes,
        "sites": [[host or "*" for host in names] for names in reader.hosts],
        "files": len(reader.file.provenance.get("sources", [])),
        "routes": header.route_count,
        "variants": header.variant_count,
        "responses": header.response_count,
        "frames": header.frame_count,
        "slots": header.slot_count,
        "slots_bytes": header.slot_count * header.slot_bytes,
        "shared_frames": shared_frames,
        "shared_bytes": shared_bytes,
    }


def answer(reader: Reader, name: str, answered: Answer) -> dict[str, Any]:
    """Describes one answer. Fields that differ from one sending to the next have values that are never sent."""
    response, text = answered.response, answered.head(reader)
    head = parsed(text)
    return {
        "answer": name,
        "status": response.status,
        "status_line": head.status_line,
        "headers": [list(item) for item in head.fields],
        "head": text.decode("latin-1"),
        "head_bytes": response.head_bytes,
        "body_bytes": response.stream_bytes - response.head_bytes,
        "frames": reader.frame_count(response),
        "copies": next(reader.frames(response)).copies,
        "patched": {field: {"offset": at, "bytes": size} for field, at, size in reader.patches(response)},
    }


def variant(reader: Reader, row: Any) -> dict[str, Any]:
    """A variant as the runtime will answer it."""
    described = {name: answer(reader, name, one) for name, one in answers(reader, row)}
    get = described["GET"]
    return {
        "encoding": ENCODING_NAMES[int(row.encoding)],
        "status": get["status"],
        "bytes": row.content_bytes,
        "frames": get["frames"],
        "copies": get["copies"],
        "etag": reader.string(row.etag_offset, row.etag_bytes).decode("latin-1"),
        "last_modified_s": row.last_modified_s if row.last_modified_s >= 0 else None,
        "head": get["head"],
        "partial_head": described["206"]["head"] if "206" in described else None,
        "part_head": described["part"]["head"] if "part" in described else None,
        "answers": list(described.values()),
    }


def route(reader: Reader, read_route: ReadRoute) -> dict[str, Any]:
    """A route and its variants, in the order of preference."""
    options = (
        None
        if read_route.options == lib.SSI_NONE
        else answer(reader, "OPTIONS", Answer(reader.response(read_route.options)))
    )
    return {
        "path": read_route.text,
        "host": read_route.host or "*",
        "prefix": read_route.prefix,
        "alias": read_route.alias,
        "options": options,
        "variants": [variant(reader, one) for one in read_route.variants],
    }


def errors(reader: Reader) -> list[dict[str, Any]]:
    """What is sent when no route decides."""
    return [
        {
            "host": reader.hosts[site][0] or "*",
            "status": row.status,
            "answers": [answer(reader, name, one) for name, one in page_answers(reader, row)],
        }
        for site in range(reader.header.site_count)
        for row in reader.errors(site)
    ]


def document(reader: Reader, routes: Iterable[ReadRoute]) -> dict[str, Any]:
    """Describes the image as --json prints it."""
    return summary(reader) | {
        "routes_list": [route(reader, read_route) for read_route in routes],
        "errors": errors(reader),
    }


def _plain(value: Any) -> str:
    """A list of lists, too."""
    if not isinstance(value, list):
        return str(value)
    return (", " if not value or isinstance(value[0], str) else "; ").join(map(_plain, value))


def show_summary(reader: Reader, console: Console, routes: list[ReadRoute], limit: int) -> None:
    """Shows people the numbers, then the routes."""
    for key, value in summary(reader).items():
        console.print(shown(f"{key:15} {_plain(value)}"), soft_wrap=True)
    table = Table("route", "status", "encodings", "bytes", "frames", "copies", box=None, header_style="bold")
    for read_route in routes[:limit]:
        variants = [variant(reader, one) for one in read_route.variants]
        table.add_row(
            shown(read_route.name),
            str(variants[0]["status"]),
            ", ".join(str(one["encoding"]) for one in variants),
            decimal(int(max(one["bytes"] for one in variants))),
            str(sum(int(one["frames"]) for one in variants)),
            str(variants[0]["copies"]),
        )
    console.print(table)
    if len(routes) > limit:
        console.print(f"... and {len(routes) - limit} more; --limit shows more, --json all")


def show_route(reader: Reader, console: Console, read_route: ReadRoute) -> None:
    """Shows people a route's answers with their heads."""
    for one in route(reader, read_route)["variants"]:
        title = f"{read_route.name}  {one['encoding']}: {one['bytes']:,} bytes"
        console.print(shown(title, "bold"), soft_wrap=True)
        table = Table("answer", "status", "head", "body", "frames", "copies", box=None, header_style="bold")
        for item in one["answers"]:
            status = str(item["status"]) if item["status_line"] else ""
            sizes = [decimal(item["head_bytes"]), decimal(item["body_bytes"])]
            table.add_row(item["answer"], status, *sizes, f"{item['frames']:,}", str(item["copies"]))
        console.print(table)
        for item in one["answers"]:
            if item["answer"] != "HEAD":  # as GET's
                console.print()
                console.print(shown(item["answer"], "dim"))
                console.print(shown_head(item["head"]), soft_wrap=True)
        console.print()
    if read_route.options != lib.SSI_NONE:
        text = reader.head(reader.response(read_route.options)).decode("latin-1")
        console.print(shown("OPTIONS", "dim"))
        console.print(shown_head(text), soft_wrap=True)


@dataclass
class _Folder:
    """A place in the tree of paths. What several routes share counts once."""

    below: dict[str, _Folder] = field(default_factory=dict)
    routes: int = 0
    label: str = ""  # of the route that is here
    sizes: dict[int, int] = field(default_factory=dict)  # bytes of bodies, by response

    def total(self) -> dict[int, int]:
        """Sizes here and below; routes too are summed up."""
        for folder in self.below.values():
            self.sizes |= folder.total()
            self.routes += folder.routes
        return self.sizes


def _label(reader: Reader, read_route: ReadRoute) -> str:
    first = reader.response(read_route.variants[0].get_response)
    sizes = [f"{ENCODING_NAMES[int(one.encoding)]} {decimal(one.content_bytes)}" for one in read_route.variants]
    text = ", ".join(sizes).removeprefix("identity ") if len(sizes) == 1 else ", ".join(sizes)
    return text if first.status == 200 else f"{first.status}"


def _folders(reader: Reader, routes: list[ReadRoute]) -> _Folder:
    top = _Folder()
    for read_route in routes:
        folder = top
        path = read_route.name if reader.header.site_count > 1 else read_route.text
        for step in path.removeprefix("/").split("/"):
            folder = folder.below.setdefault(step, _Folder())
        folder.routes += 1
        folder.label = _label(reader, read_route)
        for one in read_route.variants:
            folder.sizes[int(one.get_response)] = int(one.content_bytes)
    top.total()
    return top


def _grow(tree: Tree, folder: _Folder, limit: int) -> None:
    """The largest first."""
    items = sorted(folder.below.items(), key=lambda item: (-sum(item[1].sizes.values()), item[0]))
    for name, item in items[:limit]:
        label = shown(f"{name}/" if item.below else name or "(the folder itself)")
        if item.below:
            label.append(f"  {decimal(sum(item.sizes.values()))} in {item.routes:,} routes", "bold")
        if item.label:
            label.append(f"  {item.label}", "dim")
        _grow(tree.add(label), item, limit)
    if len(items) > limit:
        tree.add(shown(f"... and {len(items) - limit} more", "dim"))


def show_tree(reader: Reader, console: Console, routes: list[ReadRoute], limit: int) -> None:
    """Shows people paths as a tree with what their bodies take, at most limit to a folder."""
    top = _folders(reader, routes)
    label = shown(str(reader.file.path))
    label.append(f"  {decimal(sum(top.sizes.values()))} in {top.routes:,} routes", "bold")
    tree = Tree(label)
    _grow(tree, top, limit)
    console.print(tree, soft_wrap=True)
