"""What operators call one that serves."""

from __future__ import annotations

import re

NAME_MAX = 64
NAME = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:-]*\Z")


def check_name(name: str) -> str | None:
    """Why nothing can be called this; None: it can."""
    if len(name) > NAME_MAX:
        return f"a name has {NAME_MAX} characters at most"
    if NAME.match(name) is None:
        return "a name is of letters, digits and . _ : -, and begins with a letter, a digit or a colon"
    return None


def derived_name(*parts: str) -> str:
    """A name made of what there is to tell one from the others: the interface, an address, the port."""
    text = "-".join(part for part in parts if part)
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", text).strip("-.")[:NAME_MAX] or "ssrun"
