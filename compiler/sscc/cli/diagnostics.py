"""Problems as people read them: the place, what is wrong, the line of the source with a caret, what to do."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click
from ssimage.console import printable

from ..errors import Problem

SOURCE_BYTES_MAX = 1 << 20  # of a file whose lines are shown
LINE_CHARACTERS_MAX = 160
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


class Lines:
    """The lines of files, each read once."""

    def __init__(self) -> None:
        """Begins with no line read."""
        self.known: dict[str, list[str]] = {}

    def line(self, file: str, number: int) -> str | None:
        """Gives a line of a file, counted from 1; None if it can't be had."""
        if file not in self.known:
            self.known[file] = []
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if Path(file).is_file():  # a pipe would wait
                    with Path(file).open("rb") as source:
                        self.known[file] = source.read(SOURCE_BYTES_MAX).decode("utf-8-sig").splitlines()
        lines = self.known[file]
        return lines[number - 1] if 0 < number <= len(lines) else None


def _excerpt(problem: Problem, text: str) -> list[str]:
    """The line, and below it what is meant."""
    number = str(problem.line)
    shown = printable(text.replace("\t", " ")).rstrip()
    if len(shown) > LINE_CHARACTERS_MAX:
        shown = shown[:LINE_CHARACTERS_MAX] + " …"
    lines = [f"  {number} | {shown}"]
    at = problem.column - 1
    if 0 <= at < len(shown):
        caret = "^" * max(1, min(problem.length, len(shown) - at))
        lines.append(f"  {' ' * len(number)} | {' ' * at}{click.style(caret, fg=COLOURS[problem.severity])}")
    return lines


def render(problem: Problem, lines: Lines) -> str:
    """Writes one problem, in one line or more. Colours are taken out again where they can't be shown."""
    severity = click.style(f"{problem.severity}:", fg=COLOURS[problem.severity], bold=True)
    place = click.style(f"{problem.place or 'sscc'}:", bold=True)
    made = [f"{place} {severity} {printable(problem.message)}"]
    text = lines.line(problem.file, problem.line) if problem.line else None
    if text is not None:
        made += _excerpt(problem, text)
    if problem.help:
        made.append(f"  {click.style('help:', bold=True)} {printable(problem.help)}")
    return "\n".join(made)


def _summary(problems: list[Problem]) -> str:
    """`2 errors, 1 warning`."""
    counts = Counter(problem.severity for problem in problems)
    return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in sorted(counts.items()))


def show(problems: Iterable[Problem]) -> None:
    """Shows all problems on stderr."""
    shown = list(problems)
    lines = Lines()
    colour = False if os.environ.get("NO_COLOR") else None  # https://no-color.org; None: if it is a terminal
    for problem in shown:
        click.echo(render(problem, lines), err=True, color=colour)
    if len(shown) > 1:
        click.echo(f"sscc: {_summary(shown)}", err=True)
