"""What a run showed of its image: which answers were asked for, and how many slots their frames held at once.

`sscc build --profile` reads it: copies are built in, and what is asked for most lies in front.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from ssimage._sandstorm import lib
from ssimage.loader import ENCODING_NAMES, ImageFile, frame_count
from ssimage.output import replacing
from ssimage.profile import VERSION

from .errors import SsrunError


class Measured(Protocol):
    """What has served, over all workers."""

    def response_uses(self, response: int) -> int:
        """How often a response has been begun."""

    def frame_high_water(self, frame: int) -> int:
        """The most slots that a frame has held at once."""


def _measured(image: Any, server: Measured, variant: Any) -> dict[str, int]:
    """Measures one variant over all workers: requests in all, slots of the worker that held the most."""
    response = image.responses[variant.get_response]
    frames = range(response.first_frame, response.first_frame + frame_count(image.header, response))
    copies = max(server.frame_high_water(frame) for frame in frames)
    return {"requests": server.response_uses(variant.get_response), "copies": copies}


def document(file: ImageFile, server: Measured) -> dict[str, Any]:
    """Every variant that was asked for. The server's workers must not run any more."""
    image = file.image
    hosts = file.hosts()
    routes = []
    for route in image.routes[0 : image.header.route_table_len]:
        for number in range(route.variant_count):
            variant = image.variants[route.first_variant + number]
            if server.response_uses(variant.get_response):
                path = os.fsdecode(file.string(route.path_offset, route.path_bytes))
                place = {
                    "host": hosts[route.site][0],
                    "path": path,
                    "prefix": bool(route.flags & lib.SSI_ROUTE_PREFIX),
                }
                encoding = {"encoding": ENCODING_NAMES[int(variant.encoding)]}
                routes.append(place | encoding | _measured(image, server, variant))
    routes.sort(key=lambda row: (-row["requests"], row["host"], row["path"], row["encoding"]))
    return {"version": VERSION, "build_id": file.build_id.hex(), "routes": routes}


def write(path: Path, document: dict[str, Any]) -> None:
    """Beside its name, and renamed. SsrunError if it can't be."""
    try:
        with replacing(path) as file:
            file.write(json.dumps(document, indent=1).encode() + b"\n")
    except OSError as error:
        raise SsrunError(f"{path}: the profile can't be written: {error.strerror}") from None
