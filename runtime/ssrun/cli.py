"""The command `ssrun`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from ssimage import console
from ssimage._sandstorm import lib
from ssimage.lazy import lazy

from . import config
from .commands import Commands, add_to
from .errors import SsrunError
from .options import serving_options, settings
from .settings import Limits, Options

if TYPE_CHECKING:
    from ssimage import loader

    from . import profile, web
    from . import serve as serving
else:  # For --help they are not needed.
    loader = lazy("ssimage.loader")
    profile = lazy("ssrun.profile")
    serving = lazy("ssrun.serve")
    web = lazy("ssrun.web")


def run(
    image_path: Path,
    options: Options,
    limits: Limits,
    as_json: bool,
    verify_content: bool,
    profile_path: Path | None,
) -> None:
    """Opens everything, serves, and closes everything. Raises SsrunError or ImageError."""
    if profile_path is not None and options.wait_for_interface:
        raise click.UsageError("--wait-for-interface would begin the profile anew: leave that or --profile out")
    if profile_path is not None and not profile_path.absolute().parent.is_dir():
        raise SsrunError(f"{profile_path}: no such folder; the profile is to be written there")
    line = console.printable(f"ssrun: {image_path}: cut short or not readable any more; {loader.IN_PLACE}")
    lib.fault_guard(line.encode(sys.stderr.encoding, "backslashreplace") + b"\n")
    with loader.ImageFile(image_path, verify_content=verify_content) as image:

        def write_profile(server: profile.Measured) -> None:
            if profile_path is not None:
                profile.write(profile_path, profile.document(image, server))

        serving.serve(web.Web(image), options, limits, as_json, write_profile)


def _refuse(file: config.ConfigFile) -> NoReturn:
    """Says all that is wrong with a configuration, and ends as after a wrong command line."""
    for problem in file.problems:
        console.say(f"ssrun: {problem}", err=True)
    sys.exit(2)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image", metavar="IMAGE", required=False, type=click.Path(path_type=Path, readable=False))
@config.config_option(_refuse)
@serving_options(port=80, keep_alive_s=65.0)
@click.option(
    "--profile",
    "profile_path",
    type=click.Path(path_type=Path),
    help="At the end write here what was asked for, for `sscc build --profile`.",
)
@click.option("--no-verify-content", is_flag=True, help="Don't hash the whole image at start.")
def main(
    image: Path | None, profile_path: Path | None, no_verify_content: bool, as_json: bool, **values: Any
) -> None:
    """Serves the packet image IMAGE; or one of the commands below. An image with such a name is ./NAME."""
    if image is None:
        raise click.UsageError("say what to serve: ssrun IMAGE, or `image` in the file of --config")
    with config.telling_origins(click.get_current_context()):
        options, limits = settings(values)
    serving.exit_on_error("ssrun", lambda: run(image, options, limits, as_json, not no_verify_content, profile_path))


config.from_environment(main)
add_to(main)

if __name__ == "__main__":
    main()
