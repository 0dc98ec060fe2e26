"""The command `sscc`."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssimage.console import printable
from ssimage.lazy import lazy

from ..errors import Report, SsccError
from ..manifest.choice import Choice, Symlinks
from ..target import STDOUT, check_stdout, replacing
from .failures import Commands, command, documents, fail, reporting
from .parameters import ADDRESS, BYTES, EXCLUDE, OUTPUT, PATH, STRICT, SYMLINKS
from .progress import Bar

if TYPE_CHECKING:
    from rich import filesize

    from .. import build as building
    from .. import terminal
    from ..image.writer import Summary
    from ..inspect import diff, explain, inspect, pcap, verify
    from ..inspect import extract as extracting
    from ..inspect import reader as reading
    from ..manifest import model
    from ..sources import cache as caching
    from . import diagnostics, serving
else:  # No command needs all of them, and --help none.
    filesize = lazy("rich.filesize")
    building = lazy("sscc.build")
    terminal = lazy("sscc.terminal")
    diff = lazy("sscc.inspect.diff")
    explain = lazy("sscc.inspect.explain")
    inspect = lazy("sscc.inspect.inspect")
    pcap = lazy("sscc.inspect.pcap")
    verify = lazy("sscc.inspect.verify")
    extracting = lazy("sscc.inspect.extract")
    reading = lazy("sscc.inspect.reader")
    model = lazy("sscc.manifest.model")
    caching = lazy("sscc.sources.cache")
    diagnostics = lazy("sscc.cli.diagnostics")
    serving = lazy("sscc.cli.serving")

TROUBLE = 2  # the exit status of diff(1) and its like


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sandstorm")
def main() -> None:
    """Compiles sites into packet images, and looks into them."""


def _show(summary: Summary, target: Path) -> None:
    copies = summary.slots / max(summary.frames, 1)
    cached = f", {summary.variants_reused:,} from the cache" if summary.variants_reused else ""
    to_stderr = target == STDOUT
    click.echo("stdout" if to_stderr else f"{target}", err=to_stderr)
    for name, value in (
        ("files", f"{summary.files:,} ({summary.files_hashed:,} hashed)"),
        ("routes", f"{summary.routes:,}"),
        ("variants", f"{summary.variants:,} ({summary.variants_made:,} compressed{cached})"),
        ("frames", f"{summary.frames:,}"),
        ("copies", f"{copies:.3g} a frame, {summary.slots:,} slots"),
        ("shared", f"{summary.shared_frames:,} frames, {filesize.decimal(summary.shared_bytes)} saved"),
        ("content", filesize.decimal(summary.content_bytes)),
        ("image", filesize.decimal(summary.image_bytes)),
        ("build-id", summary.build_id[:16]),
    ):
        click.echo(f" {name:8}  {value}", err=to_stderr)


def _cache(folder: Path | None, max_bytes: int) -> caching.Cache | None:
    """The build cache, or None where there can't be one: the build then takes longer, and that is said."""
    try:
        return caching.Cache.open(folder if folder is not None else caching.default_folder(), max_bytes)
    except SsccError as error:
        for problem in error.problems:
            click.echo(f"sscc: note: {problem}", err=True)
        return None


@main.command()
@click.argument("source", type=PATH)
@click.option(
    "-o", "--output", type=OUTPUT, required=True, help="The image, compressed if it ends in .lz4; -: stdout."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing if all goes well.")
@click.option("--cache", "cache_folder", type=PATH, help="Folder of the build cache.  [default: ~/.cache/sandstorm]")
@click.option("--no-cache", is_flag=True, help="Neither use nor fill the build cache.")
@click.option("--cache-size", type=BYTES, default="10GB", show_default=True, help="The build cache's size at most.")
@click.option("--profile", type=PATH, help="What `ssrun --profile` wrote: copies and order by what was asked for.")
@EXCLUDE
@SYMLINKS
@STRICT
@command
def build(
    source: Path,
    output: Path,
    as_json: bool,
    quiet: bool,
    cache_folder: Path | None,
    no_cache: bool,
    cache_size: int,
    profile: Path | None,
    exclude: tuple[str, ...],
    symlinks: Symlinks | None,
    strict: bool,
) -> None:
    """Builds an image from SOURCE, a manifest (.yaml) or a folder."""
    gc.disable()  # looking through what lives to the end anyway takes a tenth of the time
    cache = None if no_cache else _cache(cache_folder, cache_size)
    report = Report(strict=strict)
    with reporting(report), Bar() as progress:
        summary = building.build(source, output, progress, cache, profile, report, Choice(exclude, symlinks))
    if as_json:
        click.echo(json.dumps(vars(summary) | documents(report.sorted())), err=output == STDOUT)
        return
    diagnostics.show(problem for problem in report.sorted() if not (quiet and problem.severity == "note"))
    if not quiet:
        _show(summary, output)


@main.command()
@click.argument("source", type=PATH)
@click.option("--iface", default="tap:sscc0", show_default=True, metavar="tap:NAME", help="The TAP device to make.")
@click.option("--address", "addresses", type=ADDRESS, multiple=True, help="To serve at (repeatable).")
@click.option("--host-address", "host_addresses", type=ADDRESS, multiple=True, help="This host's on the device.")
@click.option("--port", type=click.IntRange(1, 65535), default=80, show_default=True, help="TCP port to serve.")
@click.option("--no-watch", is_flag=True, help="Don't build again when files change.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line, as ssrun's.")
@EXCLUDE
@SYMLINKS
@STRICT
@command
def serve(
    source: Path,
    iface: str,
    no_watch: bool,
    as_json: bool,
    exclude: tuple[str, ...],
    symlinks: Symlinks | None,
    strict: bool,
    **values: Any,
) -> None:
    """Builds SOURCE into memory and serves it to this host, and again whenever its files change."""
    if not iface.startswith("tap:"):
        raise click.UsageError(f"sscc serve makes a device of its own: write --iface tap:{iface}")
    options, choice = serving.options(iface, **values), Choice(exclude, symlinks)
    serving.serve(source, options, choice, watch=not no_watch, strict=strict, as_json=as_json)


@main.command()
@click.argument("source", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print what is wrong as JSON.")
@EXCLUDE
@SYMLINKS
@STRICT
@command
def check(source: Path, as_json: bool, exclude: tuple[str, ...], symlinks: Symlinks | None, strict: bool) -> None:
    """Checks SOURCE, a manifest or a folder, and the files it names, without building."""
    report = Report(strict=strict)
    with reporting(report):
        building.check(source, report, Choice(exclude, symlinks))
    if as_json:
        click.echo(json.dumps(documents(report.sorted()), indent=1))
        return
    diagnostics.show(report.sorted())
    click.echo(f"{source}: good")


@main.command()
@command
def schema() -> None:
    """Prints the JSON Schema of manifests, for editors."""
    document = model.Manifest.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    click.echo(json.dumps(document, indent=2))


def _find(reader: reading.Reader, route: str) -> reading.ReadRoute:
    names = [(candidate, (candidate.text, candidate.name)) for candidate in reader.routes()]
    named = [candidate for candidate, texts in names if route in (*texts, *map(printable, texts))]
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
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.option("--tree", "as_tree", is_flag=True, help="Paths as a tree with their sizes.")
@click.option("--limit", default=40, show_default=True, help="Routes to list at most, of the tree in a folder.")
@command
def inspect_command(image_file: Path, route: str | None, as_json: bool, as_tree: bool, limit: int) -> None:
    """Shows what IMAGE holds, or how it answers for one ROUTE."""
    if as_tree and (as_json or route is not None):
        raise click.UsageError("--tree is of all routes, and for people: leave out ROUTE and --json")
    with reading.open_image(image_file) as file:
        reader = reading.Reader(file)
        routes = reader.routes() if route is None else [_find(reader, route)]
        if as_json:
            click.echo(json.dumps(inspect.document(reader, routes), indent=1))
        elif as_tree:
            inspect.show_tree(reader, terminal.Console(), routes, limit)
        elif route is None:
            inspect.show_summary(reader, terminal.Console(), routes, limit)
        else:
            inspect.show_route(reader, terminal.Console(), routes[0])


@main.command(name="verify")
@click.argument("image_file", metavar="IMAGE", type=PATH)
@click.option("--manifest", type=PATH, help="Compare with this manifest or folder too.")
@EXCLUDE
@SYMLINKS
@command
def verify_command(
    image_file: Path, manifest: Path | None, exclude: tuple[str, ...], symlinks: Symlinks | None
) -> None:
    """Checks IMAGE against itself: its build-id, every frame, every checksum."""
    with reading.open_image(image_file) as file:
        reader = reading.Reader(file)
        problems = verify.image(reader)
        if manifest is not None:
            with Bar() as progress:
                problems += verify.source(reader, manifest, progress, Choice(exclude, symlinks))
        if problems:
            raise SsccError(*(f"{image_file}: {problem}" for problem in problems))
        header = file.header
        click.echo(f"{image_file}: good ({header.route_count} routes, {header.frame_count} frames)")


@main.command(name="explain")
@click.argument("image_file", metavar="IMAGE", type=PATH)
@click.argument("route")
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
@command
def explain_command(image_file: Path, route: str, as_json: bool) -> None:
    """Predicts what a request for ROUTE costs: frames, bytes on the wire and in memory, requests per second."""
    with reading.open_image(image_file) as file:
        reader = reading.Reader(file)
        routed = _find(reader, route)
        if as_json:
            click.echo(json.dumps(explain.document(reader, routed), indent=1))
        else:
            explain.show(reader, terminal.Console(), routed)


@main.command(name="diff")
@click.argument("old_file", metavar="OLD", type=PATH)
@click.argument("new_file", metavar="NEW", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@command
def diff_command(old_file: Path, new_file: Path, as_json: bool) -> None:
    """Shows what clients would see differently: routes, heads and bodies of two images.

    The exit status is 0 without a difference, 1 with some, and 2 when there was trouble.
    """
    try:
        with reading.open_image(old_file) as old, reading.open_image(new_file) as new, Bar() as progress:
            difference = diff.compare(reading.Reader(old), reading.Reader(new), progress)
    except (SsccError, OSError) as error:
        fail(error if isinstance(error, SsccError) else SsccError(str(error)), TROUBLE)
    if as_json:
        click.echo(json.dumps(difference.document(), indent=1))
    elif difference:
        diff.show(difference, terminal.Console())
    sys.exit(int(bool(difference)))


@main.command(name="pcap")
@click.argument("image_file", metavar="IMAGE", type=PATH)
@click.argument("route", required=False)
@click.option("-o", "--output", type=OUTPUT, required=True, help="The capture to write; -: stdout.")
@command
def pcap_command(image_file: Path, route: str | None, output: Path) -> None:
    """Writes IMAGE's frames, or those of one ROUTE, as a capture for Wireshark."""
    if output == STDOUT:
        check_stdout()
    with reading.open_image(image_file) as file:
        reader = reading.Reader(file)
        only = _find(reader, route) if route is not None else None
        with replacing(output) as target:
            count = pcap.write(reader, target, only)
    click.echo(f"{'stdout' if output == STDOUT else output}: {count} frames", err=output == STDOUT)


@main.command(name="extract")
@click.argument("image_file", metavar="IMAGE", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The folder to write the files to.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@command
def extract_command(image_file: Path, output: Path, force: bool) -> None:
    """Writes IMAGE's files to a folder."""
    with reading.open_image(image_file, verify_content=True) as file:
        count, size_bytes = extracting.extract(reading.Reader(file), output, force=force)
    click.echo(f"{output}: {count} files, {filesize.decimal(size_bytes)}")
