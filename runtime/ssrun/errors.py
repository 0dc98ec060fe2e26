"""What stops ssrun, in one line for the operator."""

from __future__ import annotations


class SsrunError(Exception):
    """The message says what to do."""
