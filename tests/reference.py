"""What a server of static files has to answer, slow and obvious, from RFC 9110 and RFC 9112 alone.

It takes a request as it was meant (method, path, fields), not as bytes, and shares no code with the core or the compiler.
Where the RFC leaves a choice, the choice is named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

RANGES_MAX = 200  # our choice, RFC 9110 section 14.2: more are too many


@dataclass(frozen=True)
class File:
    """What is at a path: its bodies by content coding, their entity tags, and when it was changed."""

    bodies: dict[str, bytes]  # "identity" among them
    etags: dict[str, str]
    modified_s: int


@dataclass
class Request:
    """One request."""

    method: str
    path: str
    fields: dict[str, str] = field(default_factory=dict)
    minor_version: int = 1


@dataclass
class Answer:
    """What must come: the status, fields that matter (None: must not be there), and the body of a GET."""

    status: int
    fields: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None  # None: whatever the site's error page is
    parts: list[tuple[int, int, bytes]] | None = None  # of multipart/byteranges
    close: bool = False


def quality(field_value: str | None, coding: str) -> float:
    """RFC 9110 section 12.5.3: 0 means not acceptable. Identity is acceptable unless refused; our choice is that it
    comes behind whatever was asked for by name."""
    weights = {}
    for element in (field_value or "").split(","):
        name, _, parameter = element.partition(";")
        if name.strip():
            text = parameter.strip()
            weights[name.strip().lower()] = float(text[2:]) if text else 1.0
    if coding in weights:
        return weights[coding]
    if "*" in weights:
        return weights["*"]
    return 0.0005 if coding == "identity" else 0.0


def chosen(file: File, accept: str | None) -> str | None:
    """The coding of the answer: the greatest quality, then the smallest body as our choice; None: 406."""
    able = [coding for coding in file.bodies if quality(accept, coding) > 0]
    if not able:
        return None
    best = max(quality(accept, coding) for coding in able)
    return min(
        (coding for coding in able if quality(accept, coding) == best), key=lambda each: len(file.bodies[each])
    )


def listed(field_value: str, etag: str, *, weak: bool) -> bool:
    """RFC 9110 sections 8.8.3.2 and 13.1.1 f. Ours are all strong."""
    if field_value.strip() == "*":
        return True
    for element in field_value.split(","):
        tag = element.strip()
        if weak:
            tag = tag.removeprefix("W/")
        if tag == etag:
            return True
    return False


def date(text: str | None) -> int | None:
    """Seconds since 1970, or None: no date, and the field is ignored."""
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (TypeError, ValueError):
        return None


def condition(request: Request, etag: str, modified_s: int) -> int | None:
    """RFC 9110 section 13.2.2, steps 1 to 4: the status that ends the matter."""
    fields = request.fields
    if "If-Match" in fields:
        if not listed(fields["If-Match"], etag, weak=False):
            return 412
    elif (since := date(fields.get("If-Unmodified-Since"))) is not None and modified_s > since:
        return 412
    if "If-None-Match" in fields:
        return 304 if listed(fields["If-None-Match"], etag, weak=True) else None
    if (since := date(fields.get("If-Modified-Since"))) is not None and modified_s <= since:
        return 304
    return None


Pair = tuple[int | None, int | None]  # first and last byte; without the first it is a suffix


def parse_range(spec: str) -> Pair | None:
    """RFC 9110 section 14.1.1: an int-range or a suffix-range; None: malformed."""
    first, dash, last = spec.partition("-")
    if not dash or not (first or last):
        return None
    if any(digit not in "0123456789" for digit in first + last):
        return None
    if first and last and int(last) < int(first):
        return None
    return int(first) if first else None, int(last) if last else None


def parse_ranges(text: str) -> list[Pair] | None:
    """RFC 9110 section 14.1.1; None: malformed or of another unit. Empty elements of the list count for nothing."""
    unit, equals, rest = text.partition("=")
    if unit.lower() != "bytes" or not equals:
        return None
    found = []
    for spec in filter(None, (element.strip(" \t") for element in rest.split(","))):
        pair = parse_range(spec)
        if pair is None:
            return None
        found.append(pair)
    return found or None


def satisfiable(pairs: list[Pair], size: int) -> list[tuple[int, int]]:
    """RFC 9110 section 14.1.2."""
    found = []
    for first, last in pairs:
        if first is None:
            assert last is not None
            if last > 0:
                found.append((max(0, size - last), size - 1))
        elif first < size:
            found.append((first, size - 1 if last is None else min(last, size - 1)))
    return found


def coalesced(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """RFC 9110 section 15.3.7.2: what overlaps or adjoins is one, which our choice is to have where the first of it stood."""
    found: list[tuple[int, int]] = []
    for one in ranges:
        touching = [each for each in found if each[0] <= one[1] + 1 and one[0] <= each[1] + 1]
        whole = (min(each[0] for each in [one, *touching]), max(each[1] for each in [one, *touching]))
        if touching:
            found = [whole if each == touching[0] else each for each in found if each not in touching[1:]]
        else:
            found.append(whole)
    return found


def ranged(  # noqa: PLR0911, one for each step of the RFC
    request: Request, body: bytes, etag: str, modified_s: int
) -> Answer | None:
    """RFC 9110 section 14.2; None: the whole."""
    size = len(body)
    pairs = parse_ranges(request.fields.get("Range", ""))
    if request.method != "GET" or pairs is None:
        return None
    validator = request.fields.get("If-Range")
    if validator is not None and validator != etag and date(validator) != modified_s:
        return None
    if size == 0:
        return None  # our choice, as nginx: there is nothing to take a part of
    ranges = satisfiable(pairs, size)
    if not ranges:
        return Answer(416, {"Content-Range": f"bytes */{size}"})
    # Our choice: too many, or more bytes than the whole, is the whole.
    if len(ranges) > RANGES_MAX or sum(last - first + 1 for first, last in ranges) > size:
        return None
    ranges = coalesced(ranges)
    if len(ranges) == 1:
        first, last = ranges[0]
        fields = {"Content-Range": f"bytes {first}-{last}/{size}", "Content-Length": str(last - first + 1)}
        return Answer(206, {**fields}, body[first : last + 1])
    parts = [(first, last, body[first : last + 1]) for first, last in ranges]
    return Answer(206, {"Content-Range": None}, parts=parts)


def closes(request: Request) -> bool:
    """RFC 9112 section 9.3."""
    options = [option.strip().lower() for option in request.fields.get("Connection", "").split(",")]
    return "close" in options or (request.minor_version == 0 and "keep-alive" not in options)


def _answer(site: dict[str, File], request: Request) -> Answer:  # noqa: PLR0911, one for each answer
    if request.method == "OPTIONS":
        return Answer(204, {"Allow": "GET, HEAD, OPTIONS", "Content-Length": None}, b"")
    if request.method not in ("GET", "HEAD"):
        return Answer(405, {"Allow": "GET, HEAD, OPTIONS"})
    file = site.get(request.path)
    if file is None:
        return Answer(404)
    coding = chosen(file, request.fields.get("Accept-Encoding"))
    if coding is None:
        return Answer(406)
    body, etag = file.bodies[coding], file.etags[coding]
    shared: dict[str, str | None] = {"ETag": etag, "Vary": "Accept-Encoding" if len(file.bodies) > 1 else None}
    status = condition(request, etag, file.modified_s)
    if status == 412:
        return Answer(412)
    if status == 304:
        return Answer(304, {**shared, "Content-Length": None}, b"")
    shared["Content-Encoding"] = None if coding == "identity" else coding
    part = ranged(request, body, etag, file.modified_s)
    if part is not None:
        if part.status == 206:
            part.fields.update(shared)
        return part
    return Answer(200, {**shared, "Content-Length": str(len(body)), "Content-Range": None}, body)


def answer(site: dict[str, File], request: Request) -> Answer:
    """What must come back."""
    made = _answer(site, request)
    made.close = closes(request)
    if request.method == "HEAD":
        made.body = b""
    return made
