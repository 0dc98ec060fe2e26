"""What other commands serve with: the one module of ssrun that they import."""

from __future__ import annotations

from .addresses import Interface4or6
from .errors import SsrunError
from .options import Address
from .ports.kept_tap import KeptTap
from .ports.tap import tap_addresses
from .reload import Answer, Reloaded
from .serve import serve
from .settings import Limits, Options
from .web import Web

__all__ = [
    "Address",
    "Answer",
    "Interface4or6",
    "KeptTap",
    "Limits",
    "Options",
    "Reloaded",
    "SsrunError",
    "Web",
    "serve",
    "tap_addresses",
]
