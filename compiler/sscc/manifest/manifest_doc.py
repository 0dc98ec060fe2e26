"""The tables of docs/manifest.md, from the model: `python -m sscc.manifest.manifest_doc docs/manifest.md`.

A key, its default and what it is come from the model, whose descriptions `sscc schema` gives to editors too. Which
section of the page has more about a key is said here.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from . import model

TABLE = re.compile(r"(<!-- table of (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
LINKS = {
    "Manifest.sites": "#hosts",
    "Site.hosts": "#hosts",
    "Site.roots": "#roots",
    "Site.mime": "#media-types",
    "Site.headers": "#rules",
    "Site.cors": "#other-origins",
    "Site.rules": "#rules",
    "Site.redirects": "#redirects",
    "Site.rewrites": "#where-there-are-files",
    "Site.fallback": "#where-there-are-files",
    "Site.responses": "#fixed-responses",
    "Site.error_pages": "http.md#errors",
    "Site.imports": "#folders-made-for-other-servers",
    "Root.symlinks": "#roots",
    "Rule.cors": "#other-origins",
    "Redirect.force": "#where-there-are-files",
    "Fixed.force": "#where-there-are-files",
}


def _flow(value: Any) -> str:
    """A value as YAML has it in a line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./-]+", value) else json.dumps(value)
    return json.dumps(value)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined or field.default is None:
        return ""
    return f"`{_flow(field.default)}`"


def _rows(table: type[BaseModel], prefix: str = "") -> list[str]:
    inherited = set().union(*(base.model_fields for base in table.__bases__ if issubclass(base, BaseModel)))
    rows = []
    for name, field in table.model_fields.items():
        if name in inherited:
            continue
        if isinstance(field.default, BaseModel):  # one level of keys is shown with those above it
            rows += _rows(type(field.default), f"{name}.")
            continue
        key = f"`{prefix}{field.alias or name}`"
        link = LINKS.get(f"{table.__name__}.{name}")
        # What is quoted there is code here.
        text = re.sub(r"(\{.*\})|'([^']*)'", lambda match: f"`{match[1] or match[2]}`", field.description or "")
        assert text, f"{table.__name__}.{name} has no description"
        rows.append(f"| {f'[{key}]({link})' if link else key} | {_default(field)} | {text} |")
    return rows


def updated(document: str) -> str:
    """A document with its tables written anew."""

    def table(match: re.Match[str]) -> str:
        rows = _rows(getattr(model, match[2]))
        return "".join([match[1], "\n".join(["| key | default | |", "|---|---|---|", *rows]), "\n", match[3]])

    return TABLE.sub(table, document)


def main() -> None:
    """Rewrites the file named on the command line."""
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text()))


if __name__ == "__main__":
    main()
