"""The manifest: what to serve and how. Its model is the one description of the language (`sscc schema` prints it)."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from .errors import Problem, SsccError

# Fields that follow from the content or the connection; a manifest that set them could only be wrong.
OWN_FIELDS = frozenset(
    (
        *("accept-ranges", "connection", "content-encoding", "content-length", "content-range", "content-type"),
        *("date", "etag", "keep-alive"),
        *("last-modified", "location", "server", "te", "trailer", "transfer-encoding", "upgrade", "vary"),
    )
)
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2
FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?\Z")  # RFC 9110 section 5.5
MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;.+)?\Z")

Encoding = Literal["br", "gzip", "zstd"]
ErrorStatus = Literal[400, 404, 405, 406, 408, 412, 414, 416, 417, 421, 431, 501, 503, 505]


def _mount(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"must begin with a slash: write '/{path}'")
    return path.rstrip("/") + "/"


def _media_type(value: str) -> str:
    if not MEDIA_TYPE.match(value):
        raise ValueError(f"{value!r} is no media type; write one such as 'text/plain'")
    return value


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not TOKEN.match(name):
            raise ValueError(f"{name!r} is no header field name (letters, digits and - only)")
        if name.lower() in OWN_FIELDS:
            raise ValueError(f"{name} is set by sscc itself; leave it out")
        if not FIELD_VALUE.match(value):
            raise ValueError(f"the value of {name} must be printable ASCII, without line breaks")
    return headers


def _extensions(types: dict[str, str]) -> dict[str, str]:
    for extension in types:
        if not extension.startswith("."):
            raise ValueError(f"an extension begins with a dot: write '.{extension}'")
    return types


MediaType = Annotated[str, AfterValidator(_media_type)]


class Model(BaseModel):
    """Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Root(Model):
    """A folder whose files are served."""

    path: str = Field(description="The folder, relative to the manifest.")
    at: Annotated[str, AfterValidator(_mount)] = Field("/", description="The path that its files appear under.")
    include: list[str] = Field(["**"], description="Files to take, as globs relative to the folder.")
    exclude: list[str] = Field(["**/.git/**", "**/.svn/**", "**/.hg/**"], description="Files to leave out, as globs.")


class Encodings(Model):
    """Content codings (RFC 9110 section 8.4)."""

    precompressed: bool = Field(True, description="Use file.br, file.zst and file.gz beside a file as its variants.")
    make: list[Encoding] = Field([], description="Codings to make at build time for compressible types.")
    min_bytes: int = Field(512, ge=0, description="Smaller files are not compressed.")
    min_gain_percent: int = Field(5, ge=0, le=100, description="A variant that saves less is dropped.")


class Rule(Model):
    """What differs for some paths. Later rules win."""

    match: str = Field(description="Paths, as a glob: '/assets/**'.")
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field({}, description="Header fields to add.")
    mime: MediaType | None = Field(None, description="The media type.")
    copies: int | None = Field(None, ge=1, le=64, description="Slots for each frame.")


class Manifest(Model):
    """A site."""

    version: Literal[1] = Field(description="Of this language; 1.")
    root: str | None = Field(None, description="Short for one root at /.")
    roots: list[Root] = Field([], description="Folders to serve.")
    index: list[str] = Field(["index.html"], description="Files that stand for their folder.")
    rules: list[Rule] = Field([], description="What differs for some paths.")
    mime: Annotated[dict[str, MediaType], AfterValidator(_extensions)] = Field(
        {}, description="Media types by extension: {'.foo': 'application/x-foo'}."
    )
    encodings: Encodings = Field(Encodings(), description="Content codings.")
    error_pages: dict[ErrorStatus, str] = Field(
        {}, description="Files sent as the body of an error, relative to the manifest."
    )
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(
        {}, description="Header fields of every file."
    )
    mtu: int = Field(1500, ge=640, le=9000, description="IP packet size to build for.")
    families: list[Literal["ipv4", "ipv6"]] = Field(["ipv4", "ipv6"], min_length=1)
    copies: int = Field(1, ge=1, le=64, description="Slots for each frame.")
    server: bool = Field(True, description="Send a Server field.")

    def all_roots(self) -> list[Root]:
        """`root` and `roots` as one list."""
        short = [] if self.root is None else [Root(path=self.root)]
        return [*short, *self.roots]


def of_folder() -> Manifest:
    """The manifest of a folder that has none."""
    return Manifest(version=1, root=".")


def _node_at(node: Node, place: tuple[int | str, ...]) -> Node:
    """The node that a validation error speaks of: the key's for an unknown key, else the deepest there is."""
    for position, step in enumerate(place):
        child: Node | None = None
        if isinstance(node, MappingNode):
            for key, value in node.value:
                if str(key.value) == str(step):
                    child = key if position == len(place) - 1 and not value.value else value
        elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            child = node.value[step]
        if child is None:
            return node
        node = child
    return node


def _key_node(node: Node, place: tuple[int | str, ...]) -> Node:
    parent = _node_at(node, place[:-1])
    if isinstance(parent, MappingNode):
        for key, _ in parent.value:
            if str(key.value) == str(place[-1]):
                return cast(Node, key)
    return parent


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    """Keys of the model that a place is in."""
    models: dict[str, type[Model]] = {"roots": Root, "rules": Rule, "encodings": Encodings}
    model: type[Model] = Manifest
    for step in place:
        model = models.get(str(step), model)
    return list(model.model_fields)


def _message(error: Any) -> str:
    place = tuple(error["loc"])
    key = ".".join(str(step) for step in place)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), _known_keys(place[:-1]), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(_known_keys(place[:-1]))}"
        return f"unknown key {place[-1]!r}; {hint}"
    if error["type"] == "missing":
        value = " (write 'version: 1')" if key == "version" else ""
        return f"{key} is missing{value}"
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        near = difflib.get_close_matches(error["input"], re.findall(r"'([^']*)'", text), 1)
        text += f"; did you mean {near[0]!r}?" if near else ""
    return f"{key}: {text[0].lower()}{text[1:]}"


def _located(error: Any, node: Node, name: str) -> Problem:
    place = tuple(error["loc"])
    unknown = error["type"] == "extra_forbidden"
    mark = (_key_node(node, place) if unknown else _node_at(node, place)).start_mark
    return Problem(_message(error), name, mark.line + 1, mark.column + 1)


def load(path: Path) -> Manifest:
    """Reads a manifest. Raises SsccError with every mistake that it has."""
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SsccError(Problem(f"not UTF-8 text (byte {error.start}); save it as UTF-8", name)) from None
    except OSError as error:
        raise SsccError(Problem(f"can't be read: {error.strerror}", name)) from None
    try:
        node = YAML(typ="safe", pure=True).compose(text)
        data = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = (error.problem or str(error)).splitlines()[0]
        raise SsccError(Problem(message, name, line, column)) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise SsccError(Problem(f"not YAML: {str(error).splitlines()[0]}", name)) from None
    if not isinstance(data, dict):
        raise SsccError(Problem("a manifest is a mapping; begin with 'version: 1' and 'root: ./public'", name, 1, 1))
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise SsccError(*(_located(each, node, name) for each in error.errors())) from None
    if not manifest.all_roots():
        raise SsccError(Problem("nothing to serve: write 'root: ./public' or a list of 'roots'", name, 1, 1))
    return manifest
