"""The command `sscc`."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from . import build as building
from . import extract as extracting
from . import image, inspect, pcap, verify
from .errors import SsccError
from .manifest import Manifest
from .reader import Reader, ReadRoute, open_image

PATH = click.Path(path_type=Path)


def fail(error: SsccError) -> NoReturn:
    """A line for each problem, and status 1."""
    for problem in error.problems:
        click.echo(f"sscc: {problem}", err=True)
    sys.exit(1)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Turns our errors, and those of the system that nobody caught, into lines."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except SsccError as error:
            fail(error)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, MemoryError) as error:
            fail(SsccError(str(error) or "out of memory"))

    return wrapped


class Bar:
    """A progress bar on stderr, if that is a terminal."""

    def __init__(self) -> None:
        """Nothing is shown before something moves."""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> building.Progress:
        """The function that moves it."""
        self.progress.start()
        return self.move

    def __exit__(self, *_: object) -> None:
        """Leaves the terminal as it was."""
        self.progress.stop()

    def move(self, phase: str, done: int, total: int) -> None:
        """Shows how far a phase is."""
        if phase not in self.tasks:
            self.tasks[phase] = self.progress.add_task(phase, total=total)
        self.progress.update(self.tasks[phase], completed=done)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sandstorm")
def main() -> None:
    """Compiles sites into packet images, and looks into them."""


def _show(summary: image.Summary, target: Path) -> None:
    table = Table(box=None, show_header=False)
    for name, value in (
        ("files", f"{summary.files:,}"),
        ("routes", f"{summary.routes:,}"),
        ("variants", f"{summary.variants:,}"),
        ("frames", f"{summary.frames:,}"),
        ("shared frames", f"{summary.shared_frames:,}"),
        ("slots", f"{summary.slots:,}"),
        ("content", decimal(summary.content_bytes)),
        ("image", decimal(summary.image_bytes)),
        ("build-id", summary.build_id[:16]),
    ):
        table.add_row(name, value)
    console = Console()
    console.print(f"{target}", highlight=False)
    console.print(table, highlight=False)


@main.command()
@click.argument("source", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The image; with .lz4 at its end it is compressed.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing if all goes well.")
@command
def build(source: Path, output: Path, as_json: bool, quiet: bool) -> None:
    """Builds an image from SOURCE, a manifest (.yaml) or a folder."""
    with Bar() as progress:
        summary = building.build(source, output, progress)
    if as_json:
        click.echo(json.dumps(vars(summary)))
    elif not quiet:
        _show(summary, output)


@main.command()
@click.argument("source", type=PATH)
@command
def check(source: Path) -> None:
    """Checks SOURCE, a manifest or a folder, and the files it names, without building."""
    building.check(source)
    click.echo(f"{source}: good")


@main.command()
def schema() -> None:
    """Prints the JSON Schema of manifests, for editors."""
    document = Manifest.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    click.echo(json.dumps(document, indent=2))


def _find(reader: Reader, route: str) -> ReadRoute:
    named = [each for each in reader.routes() if route in (each.text, each.name)]
    if len(named) == 1:
        return named[0]
    if named:
        raise SsccError(
            f"{reader.file.path}: several sites have {route}; say {' or '.join(each.name for each in named)}"
        )
    raise SsccError(f"{reader.file.path}: no route {route}; `sscc inspect` lists them")


@main.command(name="inspect")
@click.argument("image_file", metavar="IMAGE", type=PATH)
@click.argument("route", required=False)
@click.option("--json", "as_json", is_flag=True, help="All routes, as JSON.")
@click.option("--limit", default=40, show_default=True, help="Routes to list at most.")
@command
def inspect_command(image_file: Path, route: str | None, as_json: bool, limit: int) -> None:
    """Shows what IMAGE holds, or how it answers for one ROUTE."""
    with open_image(image_file) as file:
        reader = Reader(file)
        routes = reader.routes() if route is None else [_find(reader, route)]
        if as_json:
            document = inspect.summary(reader) | {"routes_list": [inspect.route(reader, each) for each in routes]}
            click.echo(json.dumps(document, indent=1))
        elif route is None:
            inspect.show_summary(reader, Console(), routes, limit)
        else:
            inspect.show_route(reader, Console(), routes[0])


@main.command(name="verify")
@click.argument("image_file", metavar="IMAGE", type=PATH)
@click.option("--manifest", type=PATH, help="Compare with this manifest or folder too.")
@command
def verify_command(image_file: Path, manifest: Path | None) -> None:
    """Checks IMAGE against itself: its build-id, every frame, every checksum."""
    with open_image(image_file) as file:
        reader = Reader(file)
        problems = verify.image(reader)
        if manifest is not None:
            with Bar() as progress:
                problems += verify.source(reader, manifest, progress)
        if problems:
            raise SsccError(*(f"{image_file}: {problem}" for problem in problems))
        header = file.header
        click.echo(f"{image_file}: good ({header.route_count} routes, {header.frame_count} frames)")


@main.command(name="pcap")
@click.argument("image_file", metavar="IMAGE", type=PATH)
@click.argument("route", required=False)
@click.option("-o", "--output", type=PATH, required=True, help="The capture to write.")
@command
def pcap_command(image_file: Path, route: str | None, output: Path) -> None:
    """Writes IMAGE's frames, or those of one ROUTE, as a capture for Wireshark."""
    with open_image(image_file) as file:
        reader = Reader(file)
        only = _find(reader, route) if route is not None else None
        with image.replacing(output) as target:
            count = pcap.write(reader, target, only)
    click.echo(f"{output}: {count} frames")


@main.command(name="extract")
@click.argument("image_file", metavar="IMAGE", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The folder to write the files to.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@command
def extract_command(image_file: Path, output: Path, force: bool) -> None:
    """Writes IMAGE's files to a folder."""
    with open_image(image_file, verify_content=True) as file:
        count, size_bytes = extracting.extract(Reader(file), output, force=force)
    click.echo(f"{output}: {count} files, {decimal(size_bytes)}")


if __name__ == "__main__":
    main()
