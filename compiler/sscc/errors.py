"""What goes wrong, in words for the person who can mend it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from ssimage.problems import Problem, Severity

__all__ = ["ChangedError", "Problem", "Report", "Severity", "SsccError", "unreadable"]


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
