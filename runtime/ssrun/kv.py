"""The command `sskv`: serves a read-only key-value store to memcached's clients."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssimage import console
from ssimage._sandstorm import lib
from ssimage.lazy import lazy

from .options import serving_options, settings
from .settings import Limits, Options

if TYPE_CHECKING:
    from . import serve as serving
    from . import store as stores
else:  # For --help they are not needed.
    serving = lazy("ssrun.serve")
    stores = lazy("ssrun.store")

PORT = 11211
KEEP_ALIVE_S = 3600.0  # memcached's clients keep connections, and it closes none
MTU_BYTES = 1500


def run(path: Path, mtu_bytes: int, options: Options, limits: Limits, as_json: bool) -> None:
    """Opens everything, serves, and closes everything. Raises SsrunError."""
    items = stores.read(path)
    with closing(stores.Store(items, mtu_bytes)) as store:
        count = len(items)
        del items  # the frames hold all of it
        serving.serve(stores.KeyValue(path, store, count), options, limits, as_json)


@click.command(cls=console.Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=click.Path(path_type=Path, readable=False))
@serving_options(port=PORT, keep_alive_s=KEEP_ALIVE_S)
@click.option(
    "--mtu",
    type=click.IntRange(lib.KV_MTU_BYTES_MIN, lib.KV_MTU_BYTES_MAX),
    default=MTU_BYTES,
    show_default=True,
    help="What the frames are made for.",
)
def main(source: Path, mtu: int, as_json: bool, **values: Any) -> None:
    """Serves SOURCE, a JSON object of texts or a folder, to memcached's clients: get, version and quit."""
    options, limits = settings(values)
    serving.exit_on_error("sskv", lambda: run(source, mtu, options, limits, as_json))


if __name__ == "__main__":
    main()
