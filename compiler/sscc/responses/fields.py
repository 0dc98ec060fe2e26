"""Header fields, and what else a manifest says of an answer."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from ..manifest.model import Block, Cors, Rule, Site
from .heads import Fields, Headers

COOKIES = "\n"  # between values of Set-Cookie, each of which has a line of its own (RFC 6265 section 3)


@dataclass(eq=False)
class PathSettings:
    """What a manifest says of a path's answers."""

    fields: Fields
    cors: Cors | None
    copies: int
    hot: bool

    @functools.cached_property
    def key(self) -> tuple[Any, ...]:
        """A key that is equal where the answers of a file are."""
        return tuple(self.fields), self.cors and self.cors.model_dump_json(), self.copies

    @property
    def all_fields(self) -> Fields:
        """The fields, those of CORS among them."""
        return [*self.fields, *cors_fields(self.cors)]


def cors_fields(cors: Cors | None) -> Fields:
    """What pages of other origins may do, as header fields."""
    if cors is None:
        return []
    fields = [("Access-Control-Allow-Origin", cors.origin)]
    if cors.credentials:
        fields.append(("Access-Control-Allow-Credentials", "true"))
    if cors.expose:
        fields.append(("Access-Control-Expose-Headers", ", ".join(cors.expose)))
    return fields


class _Fields:
    """Header fields by their names in any case; the later wins."""

    def __init__(self) -> None:
        self.by_name: dict[str, tuple[str, str]] = {}

    def join(self, blocks: list[Block]) -> None:
        """What blocks of one path say, in their order: values of a name are one list (RFC 9110 section 5.2)."""
        values_by_name: dict[str, list[str]] = {}
        for block in {block.place: block for block in blocks}.values():
            for name in block.taken_away:
                values_by_name.pop(name.lower(), None)
                self.by_name.pop(name.lower(), None)
            for name, value in block.fields:
                self.by_name[name.lower()] = (name, "")
                values_by_name.setdefault(name.lower(), []).append(value)
        for key, values in values_by_name.items():
            self.by_name[key] = (self.by_name[key][0], (COOKIES if key == "set-cookie" else ", ").join(values))

    def update(self, headers: Headers, cache: str | None = None) -> None:
        """cache: Cache-Control, unless headers have it."""
        fields: dict[str, str | None] = {} if cache is None else {"Cache-Control": cache}
        for name, value in [*fields.items(), *headers.items()]:
            if value is None:
                self.by_name.pop(name.lower(), None)
            else:
                self.by_name[name.lower()] = (name, value)

    def sorted(self) -> Fields:
        fields = [self.by_name[name] for name in sorted(self.by_name)]
        return [(name, item) for name, value in fields for item in value.split(COOKIES)]


def path_settings(site: Site, rules: list[Rule], more: Headers) -> PathSettings:
    """What a site says of an answer. rules: those for its path; more: fields of this one."""
    fields = _Fields()
    fields.update(site.headers, site.cache)
    fields.join([rule for rule in rules if isinstance(rule, Block)])  # imports go before the site's own
    settings = PathSettings([], site.cors, site.copies, False)
    for rule in rules:
        fields.update(rule.headers, rule.cache)
        settings.cors = rule.cors or settings.cors
        settings.copies = rule.copies or settings.copies
        settings.hot = settings.hot or rule.hot
    fields.update(more)
    settings.fields = fields.sorted()
    return settings
