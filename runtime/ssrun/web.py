"""A packet image as something to serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ssimage import console
from ssimage._sandstorm import lib
from ssimage.loader import IN_PLACE, ImageFile

from .report import Service
from .server import WEB


def open_image(path: Path, verify_content: bool) -> ImageFile:
    """An image to be served; what is to be said when it is cut short meanwhile is said. Raises ImageError."""
    line = console.printable(f"ssrun: {path}: cut short or not readable any more; {IN_PLACE}")
    lib.fault_guard(line.encode(sys.stderr.encoding, "backslashreplace") + b"\n")
    return ImageFile(path, verify_content=verify_content)


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
