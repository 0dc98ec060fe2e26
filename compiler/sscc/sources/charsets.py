"""What a text is written in, as far as its bytes say: a mark, a declaration, or that it is UTF-8. In doubt nothing.

A charset in Content-Type goes before what a file says of itself, so a wrong one breaks a page that was right.
"""

from __future__ import annotations

import codecs
import re

HEAD_BYTES = 1024  # where a page's declaration must be, HTML section 4.2.5.4
VALID, DECLARED, GZIP = 1, 2, 4  # of a file: it is UTF-8; it may say that it is something else; it is a gzip stream
GZIP_MAGIC = b"\x1f\x8b\x08"  # RFC 1952
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16le", codecs.BOM_UTF16_BE: "utf-16be"}
SHIFTS = (b"\x1b$", b"\x1b(")  # of ISO 2022: bytes of ASCII that mean something else
ESCAPE, LESS_THAN = 0x1B, ord("<")  # as numbers, which are found sooner than bytes
COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
LABEL = rb"([A-Za-z0-9][\w.:+-]{0,39})"
# Without IGNORECASE, with which a regular expression is tried at every byte.
META = re.compile(rb"<[mM][eE][tT][aA]\b[^>]*?\b[cC][hH][aA][rR][sS][eE][tT]\s*=\s*[\"']?\s*" + LABEL)
XML = re.compile(rb"<\?xml\b[^>]*?\bencoding\s*=\s*[\"']" + LABEL)
CSS = re.compile(rb'@charset "' + LABEL + b'";')
DECLARATIONS = {"text/html": (META, XML), "text/xml": (XML,), "text/css": (CSS,)}


class TextScan:
    """Reads a text from its beginning to its end.

    Attributes:
        traits: What it turned out to be, as soon as it ends.
    """

    def __init__(self) -> None:
        """Nothing has been read."""
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.traits = VALID
        self.end = b""  # the last byte that was read

    def read(self, chunk: bytes) -> None:
        """The next bytes."""
        if not self.end:
            self.traits |= head_traits(chunk)
        if self.traits & VALID:
            joined = self.end + chunk if self.end == b"\x1b" else chunk
            try:
                self.decoder.decode(chunk)
            except UnicodeDecodeError:
                self.traits &= ~VALID
            if ESCAPE in joined and any(shift in joined for shift in SHIFTS):
                self.traits &= ~VALID
        self.end = chunk[-1:]

    def finish(self) -> int:
        """The traits."""
        try:
            self.decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            self.traits &= ~VALID
        return self.traits


def head_traits(data: bytes) -> int:
    """Gives the traits that the beginning of a file shows."""
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return DECLARED
    if data[:3] == GZIP_MAGIC:
        return GZIP
    head = data[:HEAD_BYTES]
    if LESS_THAN not in head and data[:1] != b"@":
        return 0
    # Nearly all say that they are UTF-8, which is nothing to look at again.
    return DECLARED if any(declared(media_type, head) not in (None, "utf-8") for media_type in DECLARATIONS) else 0


def traits(data: bytes) -> int:
    """Gives the traits of a whole file; quick, as every small file is asked."""
    seen = head_traits(data)
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return seen
    return seen if ESCAPE in data and any(shift in data for shift in SHIFTS) else seen | VALID


def declared(media_type: str, head: bytes) -> str | None:
    """What a file of that media type says of itself at its beginning."""
    name = MARKS.get(head[:3]) or MARKS.get(head[:2])
    if name is not None:
        return name
    text = COMMENT.sub(b"", head) if media_type == "text/html" and b"<!--" in head else head
    for pattern in DECLARATIONS.get(media_type, ()):
        match = pattern.match(text) if pattern is not META else pattern.search(text)
        if match is not None:
            return match[1].decode().lower()
    return None


def charset(media_type: str, file_traits: int, head: bytes) -> str | None:
    """What to say of a text; None: nothing. head: the first bytes of what may say something of itself."""
    label = declared(media_type, head[:HEAD_BYTES]) if head else None
    is_valid = bool(file_traits & VALID)
    # A page can't be UTF-16 if its declaration could be read: browsers take it for UTF-8.
    if label is None or label == "utf-8" or (label.startswith("utf-16") and head[:2] not in MARKS):
        return "utf-8" if is_valid else None
    return label
