"""What goes wrong, in words for the person who can mend it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from ssimage.console import printable

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """One mistake and where it is.

    A message may say what to do behind its last semicolon; that is its help then.

    Attributes:
        line, column: They count from 1; 0: the whole file, the whole line.
        length: How many characters from there on are meant; 0: unknown.
        help: What to do about it, or what was meant.
        severity: A warning ends nothing, unless --strict says so; a note never does.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    length: int = 0
    help: str = ""
    severity: Severity = "error"

    def __post_init__(self) -> None:
        """Splits a message that has all."""
        message, semicolon, help_ = self.message.rpartition("; ")
        if semicolon and not self.help:
            object.__setattr__(self, "message", message)
            object.__setattr__(self, "help", help_)

    @property
    def place(self) -> str:
        """`file:line:column`, as editors and compilers have it; empty: nowhere."""
        place = printable(self.file)
        if self.line:
            place += f":{self.line}:{self.column}" if self.column else f":{self.line}"
        return place

    @property
    def text(self) -> str:
        """What is wrong and what to do, without the place, in one line."""
        return printable(f"{self.message}; {self.help}" if self.help else self.message)

    def __str__(self) -> str:
        """Writes all of it in one line."""
        return f"{self.place}: {self.text}" if self.file else self.text

    def document(self) -> dict[str, Any]:
        """Gives the problem as --json prints it."""
        where = {"file": printable(self.file) or None, "line": self.line or None, "column": self.column or None}
        return {"severity": self.severity, "message": printable(self.message), "help": printable(self.help), **where}


class SsccError(Exception):
    """Ends a command with status 1 and a message for each problem."""

    def __init__(self, *problems: Problem | str) -> None:
        """Problems in the order in which they are reported."""
        self.problems = [Problem(problem) if isinstance(problem, str) else problem for problem in problems]
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Report:
    """What is found wrong while a site is looked through: one for all phases, so that all of it is reported at once.

    Attributes:
        problems: What was found, in that order.
    """

    def __init__(self, *, strict: bool = False) -> None:
        """strict: warnings are errors."""
        self.strict = strict
        self.problems: list[Problem] = []

    def add(self, *problems: Problem) -> None:
        """Takes problems of each severity."""
        self.problems += problems

    def warn(self, problem: Problem) -> None:
        """Takes a problem as a warning, whatever it says of itself."""
        self.problems.append(replace(problem, severity="warning"))

    def note(self, problem: Problem) -> None:
        """Takes a problem as something to know, which is no mistake."""
        self.problems.append(replace(problem, severity="note"))

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Takes what is raised inside, and goes on behind it."""
        try:
            yield
        except ChangedError:
            raise
        except SsccError as error:
            self.add(*error.problems)

    @property
    def failed(self) -> bool:
        """Is there anything that ends the command?"""
        ending = ("error", "warning") if self.strict else ("error",)
        return any(problem.severity in ending for problem in self.problems)

    def sorted(self) -> list[Problem]:
        """Sorts problems by their places, the files in the order in which they were first named; each once."""
        files = list(dict.fromkeys(problem.file for problem in self.problems))
        unique = dict.fromkeys(self.problems)
        return sorted(unique, key=lambda problem: (files.index(problem.file), problem.line, problem.column))

    def finish(self) -> None:
        """Raises SsccError with everything if there is an error among it."""
        if self.failed:
            raise SsccError(*self.sorted())


def unreadable(file: object, error: OSError) -> SsccError:
    """What to raise for a file that can't be read. file: its path."""
    return SsccError(Problem(f"can't be read: {error.strerror}", str(file)))


class ChangedError(SsccError):
    """A file is not what it was a moment ago, or what was remembered of it."""

    def __init__(self, file: object) -> None:
        """file: its path."""
        super().__init__(Problem("changed while it was read; build again when it is quiet", str(file)))
        self.file = file

    def __reduce__(self) -> tuple[type[ChangedError], tuple[object]]:
        """Says how the error goes from one process to another."""
        return ChangedError, (self.file,)
