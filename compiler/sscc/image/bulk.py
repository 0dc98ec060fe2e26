"""Small files, many at a time: C makes their answers and cuts them, by response templates.

A head is made in Python for the first file of a template alone. What comes of the others is byte for byte what
`ResponseTemplate.variant` and `Framer.add` would give.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ssimage._sandstorm import ffi, lib

from ..responses import patches
from ..responses.templates import FileVariant, SizedTemplate
from ..sources.source import ETAG_DIGITS
from .framer import BUILD, SHORT_BYTES, Framer, whole

FILES_MAX = 1024  # that are cut at once, at most
WAITING_BYTES = 4 << 20  # of their bodies, about
BODY_BYTES_MAX = SHORT_BYTES // 2  # of a file: the rest of a stream that is cut at once is for its head
ETAG_BYTES = int(lib.SSI_ETAG_BYTES)
RESPONSE_BYTES, VARIANT_BYTES = (int(ffi.sizeof(f"struct ssi_{name}")) for name in ("response", "variant"))

# struct file_build_head, _template and _file, written whole as those of the framer are.
HEAD = struct.Struct(f"{BUILD.format}8I")
TEMPLATE = struct.Struct(f"={HEAD.size}s6I")
FILE = struct.Struct(f"=qQI{ETAG_DIGITS}s4x")


def _members(name: str) -> list[str]:
    return [member for member, _ in ffi.typeof(f"struct {name}").fields]


assert _members("file_build_head") == [
    *("build", "status", "first_patch", "text_offset", "text_bytes", "etag_offset", "last_modified_offset"),
    *("content_length_offset", "content_length_bytes"),
]
assert _members("file_build_template") == [
    *("full", "not_modified_response", "partial_response", "part_response", "swap_offset", "swap_bytes", "encoding")
]
assert _members("file_build_file") == ["last_modified_s", "content_bytes", "template", "etag"]
assert int(lib.FILE_BUILD_ETAG_BYTES) == ETAG_DIGITS
for _struct, _name in ((HEAD, "head"), (TEMPLATE, "template"), (FILE, "file")):
    assert _struct.size == ffi.sizeof(f"struct file_build_{_name}")


class Files:
    """Files that wait to be cut, in their order.

    Attributes:
        waiting: They.
        is_full: There are so many that they must be cut before another is added.
        responses, variants, strings: What `cut` has written: rows, and ETags with their quotes.
    """

    def __init__(self, framer: Framer) -> None:
        """Begins with no file and no template."""
        self.framer = framer
        self.waiting: list[FileVariant] = []
        self.is_full = False
        self._numbers: dict[int, int] = {}  # of templates, by the id of their SizedTemplate
        self._learned: list[SizedTemplate] = []  # so that no other gets such an id
        self._templates = bytearray()
        self._texts = bytearray()
        self._rows = bytearray()  # struct file_build_file of each that waits
        self._bodies = bytearray()  # theirs
        self._output = framer.file_output()
        self._output.responses = self._responses = ffi.new("struct ssi_response[]", FILES_MAX)
        self._output.variants = self._variants = ffi.new("struct ssi_variant[]", FILES_MAX)
        self._output.strings = self._strings = ffi.new("uint8_t[]", ETAG_BYTES * FILES_MAX)
        self.responses = self.variants = self.strings = memoryview(b"")

    def learn(self, sized: SizedTemplate, first_patch: int, responses: Iterable[int]) -> None:
        """Files with these heads can be added from now on. first_patch, responses: indices of what they share."""
        self._numbers[id(sized)] = len(self._learned)
        self._learned.append(sized)
        status, text, rows, *places = sized.full
        at = len(self._texts)
        self._texts += text
        build = (*self.framer.sizes, sized.copies, self.framer.ipv6, patches.count(rows), rows)
        head = HEAD.pack(*build, status, first_patch, at, len(text), *places)
        self._templates += TEMPLATE.pack(head, *responses, sized.swap_offset, sized.swap_bytes, sized.encoding)

    def add(self, variant: FileVariant, sized: SizedTemplate) -> None:
        """Lets a file wait to be cut. SsccError if it has changed."""
        _, content, time_s = variant
        self._bodies += whole(content)
        etag = content.sha256[:ETAG_DIGITS].encode()
        self._rows += FILE.pack(time_s, content.size_bytes, self._numbers[id(sized)], etag)
        self.waiting.append(variant)
        self.is_full = len(self.waiting) >= FILES_MAX or len(self._bodies) >= WAITING_BYTES

    def cut(self, first_response: int, first_string: int) -> int:
        """Cuts as many as there is room for, from the first that waits; how many. 0: that one can't be cut here.

        first_response, first_string: the numbers of what is written first.
        """
        output = self._output
        output.first_response, output.first_string = first_response, first_string
        with (
            ffi.from_buffer("struct file_build_template[]", self._templates) as templates,
            ffi.from_buffer("uint8_t[]", self._texts) as texts,
            ffi.from_buffer("struct file_build_file[]", self._rows) as rows,
            ffi.from_buffer("uint8_t[]", self._bodies) as bodies,
        ):
            count = self.framer.add_files(templates, texts, rows, bodies, output)
        self._drop(count, output.bodies_bytes)
        self.responses = memoryview(ffi.buffer(self._responses))[: count * RESPONSE_BYTES]
        self.variants = memoryview(ffi.buffer(self._variants))[: count * VARIANT_BYTES]
        self.strings = memoryview(ffi.buffer(self._strings))[: count * ETAG_BYTES]
        return count

    def _drop(self, count: int, body_bytes: int) -> None:
        """The first so many wait no more."""
        del self.waiting[:count], self._rows[: count * FILE.size], self._bodies[:body_bytes]

    def pop(self) -> FileVariant:
        """The first that waits, which waits no more."""
        first = self.waiting[0]
        self._drop(1, first.content_bytes)
        return first
