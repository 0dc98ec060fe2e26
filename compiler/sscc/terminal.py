"""What is shown by rich."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text
from ssimage.console import printable

__all__ = ["Console", "bar", "shown", "shown_head"]


def shown(text: str, style: str = "") -> Text:
    """A line; nothing in names and fields of an image may move a cursor or begin another."""
    return Text(printable(text), style)


def shown_head(head: str) -> Text:
    """The lines of a head."""
    return Text("\n").join(map(shown, head.strip("\r\n").split("\r\n")))


def bar() -> Progress:
    """A progress bar on stderr."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
