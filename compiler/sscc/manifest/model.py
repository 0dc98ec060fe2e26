"""The manifest: what to serve and how. Its model is the one description of the language (`sscc schema` prints it)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from ..errors import Problem
from . import places
from .choice import Symlinks

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

# Fields that follow from the content or the connection; a manifest that set them could only be wrong.
OWN_FIELDS = frozenset(
    (
        *("accept-ranges", "connection", "content-encoding", "content-length", "content-range", "content-type"),
        *("date", "etag", "keep-alive"),
        *("last-modified", "location", "server", "te", "trailer", "transfer-encoding", "upgrade", "vary"),
    )
)
# What belongs into requests, if anywhere: a secret that is sent to every client.
NEVER_SENT = {
    "basic-auth": "is Netlify's way to ask for a password; here it would protect nothing and be sent to everybody",
    "authorization": "is what a client sends; here it would be sent to every client",
    "proxy-authorization": "is what a client sends; here it would be sent to every client",
    "cookie": "is what a client sends; here it would be sent to every client",
}
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2
FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?\Z")  # RFC 9110 section 5.5
HOST_LABEL = re.compile(
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z"
)  # RFC 1123 section 2.1, and the underscore in use
ORIGIN = re.compile(r"https?://[^/\s]+\Z")  # RFC 6454 section 6.2
DURATION = re.compile(r"(\d{1,9})\s*(s|m|h|d|w|y)?\Z")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;.+)?\Z")

IMPORTS = ("_headers", "_redirects")
VERSION_CONTROL = (".git", ".svn", ".hg", ".bzr", ".jj")  # what their folders are named
COPIES_MAX = 64
Encoding = Literal["br", "gzip", "zstd"]


def _mount(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"a path begins with a slash; write '/{path}'")
    return path.rstrip("/") + "/"


def _media_type(value: str) -> str:
    if not MEDIA_TYPE.match(value):
        raise ValueError(f"{value!r} is no media type; write one such as 'text/plain'")
    return value


def _field_name(name: str) -> str:
    if not TOKEN.match(name):
        raise ValueError(f"{name!r} is no header field name; letters, digits and - only")
    if name.lower() in OWN_FIELDS:
        raise ValueError(f"{name} is set by sscc itself; leave it out")
    if name.lower() in NEVER_SENT:
        raise ValueError(f"{name} {NEVER_SENT[name.lower()]}; take it out")
    return name


def _once(headers: dict[str, str | None]) -> dict[str, str | None]:
    """Names are the same in any case, RFC 9110 section 5.1."""
    seen: dict[str, str] = {}
    for name in headers:
        if seen.setdefault(name.lower(), name) != name:
            raise ValueError(f"the field {name} is there already, as {seen[name.lower()]}; keep one of them")
    return headers


def _field_value(value: str) -> str:
    if not FIELD_VALUE.match(value):
        raise ValueError("a field's value is printable ASCII; write it without line breaks")
    return value


def _extension(name: str) -> str:
    if not name.startswith("."):
        raise ValueError(f"an extension begins with a dot; write '.{name}'")
    return name


def host_name(name: str) -> str:
    """A host name as the image has it: "*" stands for any."""
    host = name.strip().lower().rstrip(".")
    if host == "*" or (host.startswith("[") and host.endswith("]")):
        return host
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            raise ValueError(f"{name!r} is no host name") from None
    labels = host.removeprefix("*.").split(".")
    if ":" in host:
        raise ValueError(
            f"{name!r}: no scheme, port or path belongs to a host; an IPv6 address is written in brackets"
        )
    if len(host) > 253 or not all(HOST_LABEL.match(label) for label in labels):
        raise ValueError(f"{name!r} is no host name; write 'example.org', '*.example.org', or '*' for any")
    return host


def _path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"a path begins with a slash; write '/{path}'")
    if "?" in path or "#" in path:
        raise ValueError(
            "a path has no query and no fragment; leave them out, as requests are looked up without them"
        )
    if "*" in path.removesuffix("/*"):
        raise ValueError("an asterisk is the whole last segment of a path; write such as '/app/*'")
    return path


def _target(target: str) -> str:
    if not target.startswith(("/", "http://", "https://")):
        raise ValueError(
            f"'{target}' is no target; write a path from '/' on, or an address from 'http://' or 'https://' on"
        )
    if not FIELD_VALUE.match(target.encode("ascii", "ignore").decode()) or " " in target:
        raise ValueError("a target has no spaces or line breaks; write them as %20")
    return target


def _cache(value: str) -> str:
    """Writes a time as Cache-Control has it, RFC 9111 section 5.2."""
    if value in ("no-store", "no-cache"):
        return value
    if value == "immutable":
        return "max-age=31536000, immutable"  # RFC 8246
    if (match := DURATION.match(value)) is not None:
        return f"max-age={int(match[1]) * SECONDS[match[2] or '']}"
    raise ValueError(
        f"{value!r} is no time; write one such as '10m', '1h' or '30d', or 'immutable', 'no-cache', 'no-store'"
    )


def _origin(origin: str) -> str:
    if origin != "*" and not ORIGIN.match(origin):
        raise ValueError(f"{origin!r} is no origin; write '*', or one such as 'https://app.example.org'")
    return origin


def _token(name: str) -> str:
    if not TOKEN.match(name):
        raise ValueError(f"{name!r} is no header field name; letters, digits and - only")
    return name


def _fixed_status(status: int) -> int:
    if not 200 <= status <= 599 or status in (205, 206, 304):
        raise ValueError(f"{status} is none that an answer has by itself; one of 200 to 599, but not 205, 206 or 304")
    return status


def _number(value: Any) -> Any:
    """A number as it was written; what is none, for a message."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _text(value: Any) -> Any:
    """Takes a number as text, for those who make a manifest in Python."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


RedirectStatus = Annotated[Literal[301, 302, 303, 307, 308], BeforeValidator(_number)]
ErrorStatus = Annotated[
    Literal[400, 404, 405, 406, 408, 412, 414, 416, 417, 421, 431, 501, 503, 505], BeforeValidator(_number)
]
MediaType = Annotated[str, AfterValidator(_media_type)]
FieldName = Annotated[str, AfterValidator(_field_name)]
FieldValue = Annotated[str, BeforeValidator(_text), AfterValidator(_field_value)]
Headers = Annotated[dict[FieldName, FieldValue | None], AfterValidator(_once)]
HostName = Annotated[str, AfterValidator(host_name)]
UrlPath = Annotated[str, AfterValidator(_path)]
Target = Annotated[str, AfterValidator(_target)]
Cache = Annotated[str, BeforeValidator(_text), AfterValidator(_cache)]
FieldNames = list[Annotated[str, AfterValidator(_token)]]


class Model(BaseModel):
    """Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Root(Model):
    """A folder whose files are served."""

    path: str = Field(description="The folder, relative to the manifest.")
    at: Annotated[str, AfterValidator(_mount)] = Field("/", description="The path that its files appear under.")
    include: list[str] = Field(["**"], description="Files to take, as globs relative to the folder.")
    exclude: list[str] = Field(
        [],
        description="What to leave out, as globs relative to the folder: files, or folders with all that is in them.",
    )
    include_hidden: bool = Field(
        False,
        description="Serve names that begin with a dot; without it only .well-known is served, of all such names.",
    )
    symlinks: Symlinks = Field(
        "follow-inside",
        description="Symbolic links that lead out of the folder, or nowhere, are errors, or left out (skip-outside); "
        "or all are left out (skip), or errors (refuse).",
    )


class Encodings(Model):
    """Content codings (RFC 9110 section 8.4)."""

    precompressed: bool = Field(
        True,
        description="Take file.br, file.zst and file.gz beside a file as its variants; they stay files of their own.",
    )
    make: list[Encoding] = Field([], description="Codings to make at build time for compressible types.")
    min_bytes: int = Field(512, ge=0, description="Smaller files are not compressed.")
    min_gain_percent: int = Field(5, ge=0, le=100, description="A variant that saves less is dropped.")


class Cors(Model):
    """What pages of other origins may do (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

    origin: Annotated[str, AfterValidator(_origin)] = Field("*", description="The origin that may read: one, or '*'.")
    headers: FieldNames = Field(["*"], description="Request fields that may be sent.")
    expose: FieldNames = Field([], description="Response fields that scripts may read.")
    credentials: bool = Field(False, description="With cookies; not with origin '*'.")
    max_age_s: int = Field(86400, ge=0, description="How long a browser may keep the answer to its OPTIONS.")


class Rule(Model):
    """What differs for some paths. Later rules win."""

    match: str = Field(description="Paths, as a glob: '/assets/**'.")
    headers: Headers = Field({}, description="Header fields to add; null takes one away.")
    cache: Cache | None = Field(
        None,
        description="Cache-Control: a time such as '10m', '1h' or '30d', or 'immutable', 'no-cache', 'no-store'.",
    )
    cors: Cors | None = Field(None, description="What pages of other origins may do.")
    mime: MediaType | None = Field(None, description="The media type.")
    copies: int | None = Field(None, ge=1, le=COPIES_MAX, description="Slots for each frame.")
    hot: bool = Field(False, description="Asked for often: its frames lie together in front of the others.")


class Block(Rule):
    """A block of a `_headers` file. Blocks that are for one path join their fields."""

    place: str = Field(description="Where it is: several globs may be one block's.")
    written: str = Field(description="The path, as the file has it.")
    fields: list[tuple[str, str]] = []
    taken_away: list[str] = Field([], description="Fields of blocks before it, and of the site.")


FORCE = "Where there are files already: true takes them away, false leaves them; else they are a mistake."


class Redirect(Model):
    """A path that has moved."""

    source: UrlPath = Field(alias="from", description="'/old', '/old/*' for all below it, '/blog/:year/:name'.")
    to: Target = Field(description="A path or an address; with :names and :splat (the asterisk's) of `from`.")
    status: RedirectStatus = Field(301, description="301, 302, 303, 307 or 308.")
    force: bool | None = Field(None, description=FORCE)


class Fixed(Model):
    """An answer without a file of its own."""

    status: Annotated[int, AfterValidator(_fixed_status)] = Field(200, description="The status.")
    headers: Headers = Field({}, description="Header fields to add.")
    body: str | None = Field(None, description="The text to send.")
    file: str | None = Field(None, description="A file to send, relative to the manifest.")
    type: MediaType | None = Field(None, description="The media type; else the file's, or text/plain.")
    force: bool | None = Field(None, description=FORCE)


ErrorPages = dict[ErrorStatus, str]


class Site(Model):
    """What is served, by the names that it is asked for by."""

    hosts: list[HostName] = Field([], description="'example.org', '*.example.org'; none, or '*': for all others.")
    root: str | None = Field(None, description="A folder to serve at /: short for one root.")
    roots: list[Root] = Field([], description="Several folders, and what is taken from each.")
    index: list[str] = Field(
        ["index.html"], description="Files that stand for their folder; a folder without its slash is redirected."
    )
    clean_urls: bool = Field(False, description="Serve /about.html as /about too.")
    listing: bool = Field(
        False, description="Make a page of names, sizes and times for each folder that has no index."
    )
    rules: list[Rule] = Field([], description="What differs for some paths.")
    mime: dict[Annotated[str, AfterValidator(_extension)], MediaType] = Field(
        {}, description="Media types by extension: {'.foo': 'application/x-foo'}."
    )
    encodings: Encodings = Field(Encodings(), description="Content codings.")
    error_pages: ErrorPages = Field({}, description="Files sent as the body of an error, relative to the manifest.")
    headers: Headers = Field({}, description="Header fields of every answer.")
    cache: Cache | None = Field(
        None,
        description="Cache-Control: a time such as '10m', '1h' or '30d', or 'immutable', 'no-cache', 'no-store'.",
    )
    cors: Cors | None = Field(None, description="What pages of other origins may do.")
    redirects: list[Redirect] = Field([], description="Paths that have moved.")
    rewrites: dict[UrlPath, UrlPath] = Field(
        {}, description="Paths that are answered as another one is: {'/app/*': '/app/index.html'}."
    )
    fallback: UrlPath | None = Field(
        None, description="What answers for all paths that nothing else does: '/index.html'."
    )
    responses: dict[UrlPath, Fixed] = Field(
        {}, description="Answers without a file: {'/generate_204': {status: 204}}."
    )
    imports: list[str] = Field(
        [], description="Files named _headers or _redirects, as Netlify and Cloudflare have them."
    )
    copies: int = Field(1, ge=1, le=COPIES_MAX, description="Slots for each frame.")
    server: bool = Field(True, description="Send a Server field.")

    _node: Node | None = PrivateAttr(None)
    _name: str = PrivateAttr("")

    def all_roots(self) -> list[Root]:
        """`root` and `roots` as one list."""
        short = [] if self.root is None else [Root(path=self.root)]
        return [*short, *self.roots]

    @property
    def serves(self) -> bool:
        """Is there anything in it to serve?"""
        return bool(self.all_roots() or self.redirects or self.responses)

    @property
    def names(self) -> list[str]:
        """The site's hosts as the image has them: the empty one stands for all that no other site has."""
        return ["" if host == "*" else host for host in self.hosts] or [""]

    def problem(self, message: str, *steps: int | str, help: str = "") -> Problem:  # noqa: A002, as Problem has it
        """A mistake in what is said at this place of the site."""
        if self._node is None:
            return Problem(message, self._name, help=help)
        return Problem(message, self._name, *places.place_of(places.node_at(self._node, steps)), help=help)

    def spelt(self, *steps: int | str) -> str | None:
        """A text as somebody wrote it, before it was made what the image has; None: unknown."""
        value = None if self._node is None else places.node_at(self._node, steps).value
        return value if isinstance(value, str) else None

    def found_at(self, name: str, node: Node | None) -> Self:
        """Gives a copy that knows the YAML it came from."""
        copy = self.model_copy()
        copy._name, copy._node = name, node
        return copy


# What a site has from the manifest unless it says otherwise.
INHERITED = (
    *("index", "clean_urls", "listing", "rules", "mime", "encodings", "error_pages", "headers", "cache", "cors"),
    *("copies", "server"),
)


class Manifest(Site):
    """One site, or several by host name; what is said beside `sites` holds for all of them."""

    version: Annotated[Literal[1], BeforeValidator(_number)] = Field(description="Of this language: 1.")
    sites: list[Site] = Field([], description="Sites by host name.")
    mtu: int = Field(1500, ge=640, le=9000, description="IP packet size to build for, 640 to 9000.")
    families: list[Literal["ipv4", "ipv6"]] = Field(
        ["ipv4", "ipv6"], min_length=1, description="With ipv6 among them segments are 20 bytes smaller."
    )
    merge_slashes: bool = Field(
        True, description="In a path that is asked for, slashes in a row are one: //a.txt is /a.txt."
    )

    def all_sites(self) -> list[Site]:
        """The manifest's own site, if it serves anything, and those of `sites`."""
        sites: list[Site] = [self] if self.serves else []
        for number, site in enumerate(self.sites):
            said = {name: getattr(self, name) for name in INHERITED if name not in site.model_fields_set}
            node = None if self._node is None else places.node_at(self._node, ("sites", number))
            sites.append(site.model_copy(update=said).found_at(self._name, node))
        return sites
