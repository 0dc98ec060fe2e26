"""What stops ssrun, in one line for the operator."""

from __future__ import annotations


class SsrunError(Exception):
    """The message says what to do."""


class GoneError(SsrunError):
    """Nobody is there who could be asked, or not any more."""


class InterfaceGoneError(SsrunError):
    """What we served on is not there any more."""

    def __init__(self, name: str) -> None:
        """name: of the interface, as it was called last."""
        self.interface = name
        super().__init__(
            f"{name}: the interface is gone; start it again when that is back, as --wait-for-interface does by itself"
        )
