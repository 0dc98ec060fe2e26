"""What both commands take on their command lines."""

from __future__ import annotations

import re
from typing import Any

import click

SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(?:([KMGTPE])(I?))?B?\s*\Z")
PREFIXES = " KMGTPE"
SIZE_MAX = 1 << 62


class Size(click.ParamType[int]):
    """Bytes, as 4096, 512M, 10GB (powers of ten) or 512MiB (of two)."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """A number of bytes."""
        match = SIZE.match(str(value).upper())
        if match is None:
            self.fail(f"{value!r} is no size; write one such as 10GB, 512M or 512MiB", param, ctx)
        size = float(match[1]) * (1024 if match[3] else 1000) ** PREFIXES.index(match[2] or " ")
        if size >= SIZE_MAX:
            self.fail(f"{str(value)[:20]!r}... is more than any machine has; write 512M or 2G", param, ctx)
        return int(size)
