"""A packet image as something to serve."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ssimage._sandstorm import lib
from ssimage.loader import ImageFile

from .handover import HandedImage
from .reload import ImageLoader, Served, fault_line
from .report import Service
from .server import WEB


def open_image(path: Path, verify_content: bool, handed: HandedImage | None = None) -> ImageFile:
    """An image to be served; what is to be said when it is cut short meanwhile is said. Raises ImageError.

    handed: it has been served from before, and so has been verified.
    """
    lib.fault_guard(fault_line("ssrun", path, others=False))
    if handed is not None:
        return ImageFile(path, verify_content=False, handed=(handed.fd, tuple(handed.source)))
    return ImageFile(path, verify_content=verify_content)


def loader(verify_content: bool) -> ImageLoader:
    """Opens those that take its place."""
    return partial(ImageFile, verify_content=verify_content)


class Web(Service):
    """A packet image over HTTP."""

    name = "ssrun"
    app = WEB
    goes_on_in_another_build = True

    def __init__(self, image: ImageFile, load: ImageLoader | None = None, why_not: str = "") -> None:
        """The image must stay open. load: opens another in its place; or why_not: no other can be served, and why."""
        self.frames = image
        self.image = image
        self.load = load
        self.why_not = why_not

    def reloading(self) -> tuple[Served, ImageLoader] | str:
        return (self, self.load) if self.load is not None else self.why_not or super().reloading()

    def replace(self, image: ImageFile) -> None:
        """From now on this one is served."""
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

    def written_s(self) -> float | None:
        return self.image.written_s

    def check(self) -> None:
        self.image.check_unchanged()

    def requests(self, counters: dict[str, int]) -> int:
        return counters.get("http_requests", 0)
