"""Reads a manifest from its file, and says in plain words what is wrong with it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError
from ssimage.lazy import lazy

from ..errors import Problem, SsccError, unreadable
from . import places
from .model import IMPORTS, ErrorPages, Fixed, Manifest, Redirect, Root, Rule, Site

if TYPE_CHECKING:
    from ruamel import yaml
    from ruamel.yaml.nodes import Node
else:  # A folder without a manifest needs none.
    yaml = lazy("ruamel.yaml")

MANIFEST_BYTES_MAX = 16 << 20
NODES_MAX = 1_000_000  # with all aliases written out
TEXT_TAGS = ("int", "float", "bool", "timestamp")  # which stay as they are written: 1.10 is no 1.1

# How the value of a key is written, for those who wrote another kind of value.
EXAMPLES = {
    "cors": "cors: {origin: '*'}",
    "encodings": "encodings: {make: [br, gzip]}",
    "error_pages": "error_pages: {404: 404.html}",
    "exclude": "exclude: ['**/*.bak']",
    "expose": "expose: [X-Total]",
    "families": "families: [ipv4, ipv6]",
    "headers": "headers: {X-Frame-Options: DENY}",
    "hosts": "hosts: [example.org]",
    "imports": "imports: [public/_headers]",
    "include": "include: ['**/*.html']",
    "index": "index: [index.html]",
    "make": "make: [br, gzip]",
    "mime": "mime: {.foo: application/x-foo}",
    "redirects": "redirects: [{from: /old, to: /new}]",
    "responses": "responses: {/robots.txt: {body: 'User-agent: *'}}",
    "rewrites": "rewrites: {'/app/*': /app/index.html}",
    "root": "root: public",
    "roots": "roots: [{path: public}]",
    "rules": "rules: [{match: '/assets/**', cache: 1h}]",
    "sites": "sites: [{hosts: [example.org], root: public}]",
}
# What other servers call it.
SYNONYMS = {
    "compress": "encodings",
    "directory": "root",
    "document_root": "root",
    "domains": "hosts",
    "error_page": "error_pages",
    "gzip": "encodings",
    "host": "hosts",
    "server_name": "hosts",
    "try_files": "fallback",
    "types": "mime",
}
# Of what the YAML library says, the commonest in other words.
YAML_PHRASES = (
    (
        r"mapping values are not allowed here",
        "a colon where none can be",
        "put a value that holds ': ' in quotes; begin the keys of one mapping in one column",
    ),
    (r"found character '\\t'", "a tab in front of a key", "indent with spaces"),
    (r'found duplicate key "(.*?)" with value', r"'\1' is here twice", "keep one"),
    (r"but found another document", "a second document begins here", "a manifest is one document: take '---' out"),
    (r"expected ',' or ('.'), but got", r"what began here has no \1 at its end", "close it"),
    (r"could not find expected ':'", "a key without a colon", "write 'key: value'"),
    (r"found unexpected end of stream", "a quoted text has no end", "close the quotes"),
    (
        r"found undefined alias",
        "an alias (*name) that no anchor (&name) has made",
        "put a text that begins with '*' in quotes",
    ),
)


def of_folder(folder: Path) -> Manifest:
    """The manifest of a folder that has none: what such folders hold for other servers is used."""
    pages: ErrorPages = {404: "404.html"} if (folder / "404.html").is_file() else {}
    imports = [name for name in IMPORTS if (folder / name).is_file()]
    return Manifest(version=1, root=".", error_pages=pages, imports=imports).found_at(str(folder), None)


def load(path: Path) -> Manifest:
    """Reads a manifest. Raises SsccError with every mistake that it has."""
    name = str(path)
    node, data = _parsed(_text(path), name)
    if not isinstance(data, dict):
        message = "is empty" if data is None else "a manifest is a mapping of keys to values"
        raise SsccError(Problem(message, name, 1, 1, help="begin with 'version: 1' and 'root: public'"))
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise SsccError(*_sorted([_located(mistake, node, name) for mistake in error.errors()])) from None
    manifest = manifest.found_at(name, node)
    if problems := _contradictions(manifest):
        raise SsccError(*_sorted(problems))
    return manifest


def _sorted(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            help_ = "name a manifest (.yaml) or a folder of files"
            raise SsccError(Problem("is a device, a socket or a pipe", str(path), help=help_))
        with path.open("rb") as file:
            data = file.read(MANIFEST_BYTES_MAX + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if data.startswith(b"\x7fELF"):
        raise SsccError(
            Problem("is an image, not a manifest", str(path), help=f"serve it: ssrun {path} --iface NAME")
        )
    if len(data) > MANIFEST_BYTES_MAX:
        raise SsccError(Problem(f"is larger than {MANIFEST_BYTES_MAX >> 20} MiB, which no manifest is", str(path)))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 text (byte {error.start})"
        raise SsccError(Problem(message, str(path), line, help="save it as UTF-8")) from None


def _parsed(text: str, name: str) -> tuple[Node, Any]:
    """The text's nodes, which know their places, and the data that they stand for."""
    try:
        node = yaml.YAML(typ="safe", pure=True).compose(text)
        _check_size(node, name)
        return node, _reader().load(text)
    except yaml.error.MarkedYAMLError as error:
        raise SsccError(_yaml_problem(error, name)) from None
    except (yaml.error.YAMLError, ValueError, RecursionError) as error:
        raise SsccError(Problem(f"not YAML: {str(error).splitlines()[0]}", name)) from None


def _reader() -> Any:
    """A YAML reader that leaves numbers and dates as they are written: who reads them knows what is meant."""

    class Constructor(yaml.constructor.SafeConstructor):
        pass

    for tag in TEXT_TAGS:
        Constructor.add_constructor(f"tag:yaml.org,2002:{tag}", Constructor.construct_yaml_str)
    reader = yaml.YAML(typ="safe", pure=True)
    reader.Constructor = Constructor
    return reader


def _check_size(node: Node | None, name: str) -> None:
    """SsccError where aliases make a small text large, or hold themselves."""
    sizes: dict[int, int] = {}

    def size(child: Node) -> int:
        known = sizes.get(id(child))
        if known == 0:  # it is inside of itself
            place = places.place_of(child)
            raise SsccError(Problem("holds itself by an alias", name, place.line, place.column, help="write it out"))
        if known is None:
            sizes[id(child)] = 0
            below = child.value if isinstance(child.value, list) else []
            pairs = [part for entry in below for part in (entry if isinstance(entry, tuple) else (entry,))]
            known = sizes[id(child)] = 1 + sum(map(size, pairs))
        return known

    if node is not None and size(node) > NODES_MAX:
        raise SsccError(Problem(f"its aliases stand for more than {NODES_MAX:,} values", name, help="use fewer"))


def _yaml_problem(error: Any, name: str) -> Problem:
    text = (error.problem or str(error)).splitlines()[0]
    mark = error.problem_mark or error.context_mark
    help_ = ""
    for pattern, message, what_to_do in YAML_PHRASES:
        match = re.search(pattern, text)
        if match is not None:
            mark = error.context_mark if "began here" in message and error.context_mark else mark
            text, help_ = match.expand(message), what_to_do
            break
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return Problem(text, name, line, column, help=help_)


def _located(error: Any, node: Node, name: str) -> Problem:
    """A mistake that pydantic has found, at its place."""
    steps = tuple(error["loc"])
    of_key = steps[-1:] == (places.KEY,) or error["type"] == "extra_forbidden"
    steps = tuple(step for step in steps if step != places.KEY)
    message, help_ = phrase(error)
    return Problem(message, name, *places.place_of(places.node_at(node, steps, key=of_key)), help=help_)


def _key_of(error: Any) -> str:
    """Where a mistake is, in the manifest's words: `redirects.from`. Which entry of a list it is, its line says."""
    steps = error["loc"][:-2] if error["loc"][-1:] == (places.KEY,) else error["loc"]  # a message names its key
    return ".".join(str(step) for step in steps if not isinstance(step, int))


def _kind(value: Any) -> str:
    """What somebody wrote."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return "nothing" if value is None else f"'{value}'"


def _example(error: Any) -> str:
    """How a key is written."""
    examples = [EXAMPLES[str(step)] for step in error["loc"] if str(step) in EXAMPLES]
    return f'write such as "{examples[-1]}"' if examples else ""


def phrase(error: Any) -> tuple[str, str]:
    """What is wrong and what to do, of one of a ValidationError's errors()."""
    error_type = error["type"]
    for prefix, make in PHRASES:
        if error_type.startswith(prefix):
            return make(error)
    message, _, help_ = error["msg"].removeprefix("Value error, ").partition("; ")
    return f"{_key_of(error)}: {message}", help_


def _missing(error: Any) -> tuple[str, str]:
    key = str(error["loc"][-1])
    return f"'{key}' is missing", "write 'version: 1'" if key == "version" else _example(error)


def _none_of(error: Any) -> tuple[str, str]:
    value = error["input"]
    choices = re.findall(r"'([^']*)'|(\d+)", error["ctx"]["expected"])
    names = [text or number for text, number in choices]
    if len(names) == 1:
        return f"{_key_of(error)}: {_kind(value)} is not known here", f"write '{error['loc'][-1]}: {names[0]}'"
    near = difflib.get_close_matches(str(value), [text for text, _ in choices if text], 1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    return f"{_key_of(error)}: {_kind(value)} is none of those known", f"{guess}known: {', '.join(names)}"


def _wrong_kind(error: Any) -> tuple[str, str]:
    key, value, last = _key_of(error), error["input"], error["loc"][-1]
    wanted = {"list_type": "a list", "string_type": "one text"}.get(error["type"], "a mapping")
    if isinstance(last, int):
        return f"{key}: each entry is {wanted}, not {_kind(value)}", _example(error)
    help_ = _example(error)
    if wanted == "a list" and isinstance(value, str):
        help_ = (
            f"write 'root: {value}', or 'roots: [{{path: {value}}}]'"
            if last == "roots"
            else f"write '{last}: [{value}]'"
        )
    return f"{key}: {wanted} is meant here, not {_kind(value)}", help_


def _out_of_bounds(error: Any) -> tuple[str, str]:
    bounds = error["ctx"]
    is_small = "ge" in bounds
    help_ = f"write at least {bounds['ge']}" if is_small else f"write at most {bounds['le']}"
    return f"{_key_of(error)}: {error['input']} is too {'small' if is_small else 'large'}", help_


def _unknown_key(error: Any) -> tuple[str, str]:
    *above, key = error["loc"]
    known = _known_keys(tuple(above))
    near = difflib.get_close_matches(str(key), known, 1)
    guess = SYNONYMS.get(str(key).lower()) or (near[0] if near else None)
    if guess in known:
        return f"unknown key '{key}'", f"did you mean '{guess}'?"
    return f"unknown key '{key}'", f"known here: {', '.join(sorted(known))}"


# By the beginnings of pydantic's names for mistakes.
PHRASES: tuple[tuple[str, Callable[[Any], tuple[str, str]]], ...] = (
    ("extra_forbidden", _unknown_key),
    ("missing", _missing),
    ("literal_error", _none_of),
    *((error_type, _wrong_kind) for error_type in ("list_type", "dict_type", "model_", "string_type")),
    ("bool_", lambda error: (f"{_key_of(error)}: {_kind(error['input'])} is neither true nor false", "")),
    ("int_", lambda error: (f"{_key_of(error)}: {_kind(error['input'])} is no whole number", "")),
    ("greater_than_equal", _out_of_bounds),
    ("less_than_equal", _out_of_bounds),
    ("too_short", lambda error: (f"{_key_of(error)}: the list is empty", "leave it out, or name something")),
)


MODELS: dict[str, type[BaseModel]] = {
    "redirects": Redirect,
    "responses": Fixed,
    "roots": Root,
    "rules": Rule,
    "sites": Site,
}


def _known_keys(steps: tuple[int | str, ...]) -> list[str]:
    """Keys of the model that a place is in."""
    model: type[BaseModel] = Manifest
    for step in steps:
        field = model.model_fields.get(str(step))
        inside = (field.annotation, *get_args(field.annotation)) if field is not None else ()
        models = [argument for argument in inside if isinstance(argument, type) and issubclass(argument, BaseModel)]
        model = MODELS.get(str(step)) or (models[0] if models else model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _contradictions(manifest: Manifest) -> list[Problem]:
    """Mistakes that no key shows by itself."""
    problems = []
    sites = manifest.all_sites()
    if not sites:
        place = ("root",) if "root" in manifest.model_fields_set else ()
        help_ = "write 'root: public', or a list of 'roots'"
        problems.append(manifest.problem("nothing to serve", *place, help=help_))
    for site in sites:
        if not site.serves:
            problems.append(site.problem("this site serves nothing", help="give it a root, redirects or responses"))
        problems += _responses(site)
        problems += _cors(site)
    return problems + _hosts(sites)


def _hosts(sites: list[Site]) -> list[Problem]:
    """Hosts that two sites have."""
    problems = []
    owners: dict[str, Site] = {}
    for site in sites:
        for number, name in enumerate(site.names):
            if owners.setdefault(name, site) is not site:
                said = site.spelt("hosts", number) or name
                text = (
                    f"{said} is another site's already" if name else "another site answers for any other host already"
                )
                problems.append(site.problem(text, "hosts", number, help="give this one other hosts"))
    return problems


def _responses(site: Site) -> list[Problem]:
    problems = []
    for path, fixed in site.responses.items():
        if fixed.body is not None and fixed.file is not None:
            text = f"{path}: a body and a file"
            problems.append(site.problem(text, "responses", path, "file", help="keep one"))
        if fixed.status == 204 and (fixed.body is not None or fixed.file is not None):
            place = "body" if fixed.body is not None else "file"
            problems.append(site.problem(f"{path}: a 204 has no body", "responses", path, place, help="take it out"))
    return problems


def _cors(site: Site) -> list[Problem]:
    rules = [(rule.cors, ("rules", number, "cors")) for number, rule in enumerate(site.rules)]
    return [
        site.problem(
            "cookies are for one origin by name, not for '*'", *place, help="set 'origin', or leave 'credentials' out"
        )
        for cors, place in [(site.cors, ("cors",)), *rules]
        if cors is not None and cors.credentials and cors.origin == "*"
    ]
