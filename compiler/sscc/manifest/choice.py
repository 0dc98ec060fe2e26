"""What a command line says beside a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Symlinks = Literal["follow-inside", "skip-outside", "skip", "refuse"]


@dataclass(frozen=True)
class Choice:
    """What is said of all roots beside the manifest.

    Attributes:
        exclude: Globs, as a root's own.
        symlinks: Instead of what roots say.
        own_files: What is written, or was built from: not served where it lies in a root.
    """

    exclude: tuple[str, ...] = ()
    symlinks: Symlinks | None = None
    own_files: tuple[Path, ...] = ()

    @property
    def words(self) -> list[str]:
        """Writes the choice as the words of a command line."""
        excluded = [word for pattern in self.exclude for word in ("--exclude", pattern)]
        return excluded + ([] if self.symlinks is None else ["--symlinks", self.symlinks])
