"""Prints a Debian package's copyright file: our licence, and whose what lies beside us is, from its own metadata.

python runtime/packaging/copyright.py LICENSE FOLDER
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

HEAD = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: sandstorm\n"


def _license(distribution: Distribution) -> str:
    """What a distribution is licensed under, in a word or a few."""
    metadata = distribution.metadata
    named = metadata.get("License-Expression") or metadata.get("License") or ""
    classifiers = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier", []) if "License ::" in text]
    first = named.strip().splitlines()[0] if named.strip() else ""
    return first if 0 < len(first) < 60 else ", ".join(classifiers) or "see its files"


def _indented(text: str) -> str:
    """As a field of several lines has it."""
    return "\n".join(f" {line}" if line.strip() else " ." for line in text.strip().splitlines())


def main(license_file: Path, folder: Path) -> None:
    """Prints all of it."""
    ours = license_file.read_text()
    holders = [line.strip() for line in ours.splitlines() if line.lower().startswith("copyright")]
    print(HEAD)
    print(f"Files: *\nCopyright: {holders[0]}\nLicense: BSD-2-Clause\n{_indented(ours)}")
    for found in sorted(distributions(path=[str(folder)]), key=lambda each: each.metadata["Name"].lower()):
        name = found.metadata["Name"]
        if name == "sandstorm":
            continue
        holder = found.metadata.get("Author") or found.metadata.get("Author-email") or f"the authors of {name}"
        print(
            f"\nFiles: usr/lib/sandstorm/*/{name}*\nCopyright: {holder.splitlines()[0]}\nLicense: {_license(found)}"
        )
        print(
            f"Comment: {name} {found.version}; its licence lies in usr/lib/sandstorm/{name}-{found.version}.dist-info"
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
