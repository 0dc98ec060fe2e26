"""The file that `ssrun --profile` writes and `sscc build --profile` reads."""

from __future__ import annotations

VERSION = 1
