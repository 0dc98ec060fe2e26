"""The command `ssrun`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from ssimage import console
from ssimage._sandstorm import lib
from ssimage.loader import IN_PLACE, ImageFile

from . import profile
from .errors import SsrunError
from .ports.open import Options
from .serve import Service, exit_on_error, serve, serving_options, settings
from .server import WEB, Limits, Server


class Web(Service):
    """A packet image over HTTP."""

    name = "ssrun"
    app = WEB

    def __init__(self, image: ImageFile) -> None:
        """The image must stay open."""
        self.frames = image
        self.image = image

    def url(self, host: str, port: int) -> str:
        return f"http://{host}{'' if port == 80 else f':{port}'}/"

    def headline(self) -> str:
        header = self.image.header
        return f"{self.image.path}: {header.route_count} routes in {header.frame_count} frames"

    def event(self) -> dict[str, Any]:
        header = self.image.header
        return {
            "image": {
                "path": str(self.image.path),
                "build_id": self.image.build_id.hex(),
                "routes": header.route_count,
                "frames": header.frame_count,
                "slots": header.slot_count,
                "bytes": header.slot_count * header.slot_bytes,
            }
        }

    def check(self) -> None:
        self.image.check_unchanged()

    def requests(self, counters: dict[str, int]) -> int:
        return counters["http_requests"]


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
    line = console.printable(f"ssrun: {image_path}: cut short or not readable any more; {IN_PLACE}")
    lib.fault_guard(line.encode(sys.stderr.encoding, "backslashreplace") + b"\n")
    with ImageFile(image_path, verify_content=verify_content) as image:

        def write_profile(server: Server) -> None:
            if profile_path is not None:
                profile.write(profile_path, profile.document(image, server.stacks))

        serve(Web(image), options, limits, as_json, write_profile)


@click.command(cls=console.Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image", type=click.Path(path_type=Path, readable=False))
@serving_options(port=80, keep_alive_s=65.0)
@click.option(
    "--profile",
    "profile_path",
    type=click.Path(path_type=Path),
    help="At the end write here what was asked for, for `sscc build --profile`.",
)
@click.option("--no-verify-content", is_flag=True, help="Don't hash the whole image at start.")
def main(image: Path, profile_path: Path | None, no_verify_content: bool, as_json: bool, **values: Any) -> None:
    """Serves the packet image IMAGE."""
    options, limits = settings(values)
    exit_on_error("ssrun", lambda: run(image, options, limits, as_json, not no_verify_content, profile_path))


if __name__ == "__main__":
    main()
