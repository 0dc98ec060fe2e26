"""The tables of docs/image-format.md, from the header itself: `python -m sscc.image.format_doc docs/image-format.md`.

Struct members, offsets and sizes come from cffi, comments and constants from the header's text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ssimage._sandstorm import ffi, lib

HEADER = Path(__file__).resolve().parents[3] / "runtime" / "csrc" / "image" / "image_format.h"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BEGIN, END = "<!-- generated from image_format.h -->\n", "<!-- end -->\n"


def _comment(text: str) -> str:
    return " ".join(text.replace("\n", " ").replace("*", " ").split()).replace("|", "\\|")


def _struct(name: str, body: str) -> str:
    struct_type = ffi.typeof(f"struct {name}")
    comments = {}
    for names, comment in re.findall(r"^\s+\w+ ([\w, ]+);(?:\s*/\*(.*?)\*/)?", body, re.MULTILINE | re.DOTALL):
        for member_name in names.split(","):
            comments[member_name.strip()] = _comment(comment)
    lines = [
        f"### struct {name}, {ffi.sizeof(struct_type)} bytes\n",
        "| offset | type | member | |",
        "|---|---|---|---|",
    ]
    assert struct_type.fields is not None
    for member, item in struct_type.fields:
        lines.append(f"| {item.offset} | {item.type.cname} | `{member}` | {comments[member]} |")
    return "\n".join(lines) + "\n"


def tables() -> str:
    """The generated part: constants, then structs."""
    text = HEADER.read_text()
    lines = ["### Constants\n", "| name | value | |", "|---|---|---|"]
    for name, comment in re.findall(r"^#define (SSI_\w+) [^/\n]+(?:/\*(.*?)\*/)?", text, re.MULTILINE):
        lines.append(f"| `{name}` | {getattr(lib, name)} | {_comment(comment)} |")
    parts = ["\n".join(lines) + "\n"]
    parts += [_struct(name, body) for name, body in re.findall(r"^struct (ssi_\w+) \{(.*?)^\};", text, re.M | re.S)]
    return "\n".join(parts)


def updated(document: str) -> str:
    """A document with its generated part made anew, and so its text's numbers: the version, and of fields."""
    head, _, rest = document.partition(BEGIN)
    for pattern, number in (
        (r"(?<=format version )\w+", str(lib.SSI_VERSION)),
        (r"(?<=the one version of their own, )\w+", str(lib.SSI_VERSION)),
        (r"\w+(?= fields are patched)", NUMBERS[lib.SSI_PATCH_KINDS].capitalize()),
    ):
        head, count = re.subn(pattern, number, head)
        if count != 1:
            raise ValueError(f"{pattern}: {count} times in the text")
    _, _, tail = rest.partition(END)
    return head + BEGIN + tables() + END + tail


def main() -> None:
    """Rewrites the file named on the command line."""
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text()))


if __name__ == "__main__":
    main()
