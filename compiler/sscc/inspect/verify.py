"""`sscc verify`: an image against itself, and against the files it was built from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ssimage._sandstorm import ffi, lib
from ssimage.loader import ENCODING_NAMES

from ..manifest.choice import Choice
from ..plan import Progress, own_images, plan
from ..responses.errors import ErrorPage
from ..responses.heads import Response
from ..responses.templates import Variant
from ..scratch import scratch
from ..sources.source import Content
from .reader import Reader, ReadRoute
from .responses import boundary

CHECKS = {
    1: "the IP header's checksum is wrong",
    2: "the TCP checksum is wrong",
    3: "the headers' length is not the payload's",
    4: "payload_sum is wrong",
}


def _builds(reader: Reader, response: Any) -> Any:
    header = reader.header
    return ffi.new(
        "struct frame_build *",
        {
            "slot_bytes": header.slot_bytes,
            "segment_bytes": header.segment_bytes,
            "ipv6": int(not header.families & lib.SSI_FAMILY_IPV4),
            "patch_count": response.patch_count,
            "patches": list(reader.patch_rows(response)),
        },
    )


def frames(reader: Reader) -> list[str]:
    """Checks each frame and its copies; what is wrong."""
    problems = []
    seen = set()
    for index in range(reader.header.response_count):
        response = reader.response(index)
        if response.first_frame in seen:
            continue
        seen.add(response.first_frame)
        build = _builds(reader, response)
        for number, frame in enumerate(reader.frames(response), response.first_frame):
            code = lib.frame_build_check(build, ffi.addressof(frame), reader.slot(frame.slot))
            if code:
                problems.append(f"frame {number}: {CHECKS[code]}")
            first = ffi.buffer(reader.slot(frame.slot), reader.header.slot_bytes)
            for copy in range(1, frame.copies):
                if ffi.buffer(reader.slot(frame.slot + copy), reader.header.slot_bytes)[:] != first[:]:
                    problems.append(f"frame {number}: copy {copy} differs")
    return problems


def image(reader: Reader) -> list[str]:
    """Checks an image against itself; what is wrong. Its structure has been checked when it was opened."""
    problems = []
    if reader.file.computed_build_id() != reader.file.build_id:
        problems.append("the contents don't match the build-id")
    return problems + frames(reader)


def _same(reader: Reader, built: Any, planned: Response) -> bool:
    if built.status != planned.status or reader.head(built) != planned.head:
        return False
    if isinstance(planned.body, Content):
        return reader.body_sha256(built) == planned.body.sha256
    return b"".join(reader.body(built)) == (planned.body or b"")


def _same_or_none(reader: Reader, index: int, planned: Response | None) -> bool:
    if index == lib.SSI_NONE or planned is None:
        return bool(index == lib.SSI_NONE) == (planned is None)
    return _same(reader, reader.response(index), planned)


def _all_same(reader: Reader, built: Any, planned: Variant) -> bool:
    """Every answer of a variant."""
    pairs = (
        (built.get_response, planned.get),
        (built.not_modified_response, planned.not_modified),
        (built.partial_response, planned.partial),
        (built.part_response, planned.part),
    )
    said = (
        reader.string(built.etag_offset, built.etag_bytes),
        built.last_modified_s,
        built.swap_offset,
        built.swap_bytes,
    )
    return said == (planned.etag, planned.last_modified_s, planned.swap_offset, planned.swap_bytes) and all(
        _same_or_none(reader, index, response) for index, response in pairs
    )


def _errors(reader: Reader, planned: list[ErrorPage]) -> list[str]:
    """What differs in the answers that no route decides."""
    problems = []
    built = {(site, row.status): row for site in range(reader.header.site_count) for row in reader.errors(site)}
    for page in planned:
        row = built.pop((page.site, page.status), None)
        if row is None:
            problems.append(f"no answer for status {page.status}")
        elif not _same(reader, reader.response(row.get_response), page.get):
            problems.append(f"status {page.status}: differs")
    return problems + [f"an answer for status {status}, which is no longer made" for _, status in built]


def source(reader: Reader, manifest: Path, progress: Progress, choice: Choice | None = None) -> list[str]:
    """Checks an image against what a build would put into it now; what differs. choice: what the build was told."""
    problems = []
    choice = replace(choice or Choice(), own_files=own_images(Path(reader.file.path)))
    with scratch() as folder:
        # It follows from all contents: of one that has changed, all answers would seem to have.
        planned = plan(manifest, folder, progress, choice=choice, boundary=boundary(reader).decode("latin-1"))
        if [sorted(names) for names in planned.hosts] != reader.hosts:
            problems.append("the sites have other hosts now")
        built = {route.key: route for route in reader.routes()}
        wanted = {(route.site, route.path, route.prefix): route for route in planned.routes}
        for path in sorted(built.keys() | wanted.keys()):
            text = ReadRoute(path[1], [], prefix=path[2]).text
            if path not in wanted:
                problems.append(f"{text}: in the image, but no longer in the source")
            elif path not in built:
                problems.append(f"{text}: in the source, but not in the image")
            elif len(built[path].variants) != len(wanted[path].variants):
                problems.append(f"{text}: has other variants now")
            else:
                options = built[path].options
                if not _same_or_none(reader, options, wanted[path].options):
                    problems.append(f"{text}: differs (OPTIONS)")
                for old, new in zip(built[path].variants, wanted[path].variants, strict=True):
                    if old.encoding != new.encoding or not _all_same(reader, old, new.complete()):
                        problems.append(f"{text}: differs ({ENCODING_NAMES[int(old.encoding)]})")
        problems += _errors(reader, planned.errors)
    return problems
