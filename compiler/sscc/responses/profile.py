"""Profiles that `ssrun --profile` has written: copies to build in, and what to lay in front."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ssimage.loader import ENCODING_NAMES
from ssimage.profile import VERSION

from ..errors import Problem, SsccError, unreadable
from ..manifest.model import COPIES_MAX
from .builder import Route


class Entry(BaseModel):
    """What was seen of one variant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    path: str
    prefix: bool
    encoding: str
    requests: int = Field(ge=0)
    copies: int = Field(ge=0)


class Profile(BaseModel):
    """A profile's file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    build_id: str
    routes: list[Entry]


def load(path: Path) -> Profile:
    """Raises SsccError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        profile = Profile.model_validate(document)
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError, ValidationError):
        raise SsccError(Problem("is no profile; make one with `ssrun --profile FILE`", str(path))) from None
    if profile.version != VERSION:
        raise SsccError(Problem("is of another version; make it anew with this ssrun", str(path)))
    return profile


def apply(profile: Profile, path: Path, hosts: Sequence[list[str]], routes: list[Route]) -> None:
    """Sets copies and the order of routes by what a profile says of them; what is no longer there is passed over.

    path: the profile's. hosts: the names of each site. Raises SsccError if nothing of it is there.
    """
    sites = {name: number for number, names in enumerate(hosts) for name in names}
    seen = {}
    for entry in profile.routes:
        if entry.host in sites:
            seen[(sites[entry.host], os.fsencode(entry.path), entry.prefix, entry.encoding)] = entry
    matches = 0
    for route in routes:
        for number, variant in enumerate(route.variants):
            key = (route.site, route.path, route.prefix, ENCODING_NAMES[variant.encoding])
            if (known := seen.get(key)) is None:
                continue
            matches += 1
            route.requests = max(route.requests, known.requests)
            complete = route.variants[number] = variant.complete()
            complete.get = complete.get._replace(copies=min(COPIES_MAX, max(complete.get.copies, known.copies)))
    if profile.routes and not matches:
        text = f"is of another site: of its {len(profile.routes)} paths none is in this one"
        what_to_do = "make one with `ssrun --profile FILE` while this site is served"
        raise SsccError(Problem(text, str(path), help=what_to_do))
