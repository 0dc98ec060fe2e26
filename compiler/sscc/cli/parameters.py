"""What commands take on their command lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from ssimage.lazy import lazy
from ssimage.parameters import Size

from ..manifest.choice import Symlinks
from ..target import STDOUT

if TYPE_CHECKING:
    from . import serving
else:  # What serves takes long to import.
    serving = lazy("sscc.cli.serving")


class Address(click.ParamType[Any]):
    """ADDR or ADDR/LEN, as ssrun takes it."""

    name = "ADDR/LEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return serving.address(value, param, ctx)


class Output(click.ParamType[Path]):
    """A file to write, or `-` for stdout. A file of that name is `./-`."""

    name = "file"

    def convert(self, value: Any, *_: object) -> Path:
        path = Path(value)
        return Path.cwd() / path if path == STDOUT and value != str(STDOUT) else path


PATH = click.Path(path_type=Path)
BYTES = Size()
ADDRESS = Address()
OUTPUT = Output()
STRICT = click.option("--strict", is_flag=True, help="Warnings are errors.")
EXCLUDE = click.option("--exclude", metavar="GLOB", multiple=True, help="Leave out files and folders like this.")
SYMLINKS = click.option("--symlinks", type=click.Choice(get_args(Symlinks)), help="As a root's `symlinks`, for all.")
