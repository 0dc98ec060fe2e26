"""Puts tests/ on the path, so that its modules are found from every folder below."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / part) for part in (".", "sim", "scripts", "fuzz", "path")]
