"""What goes wrong, in words for the person who can mend it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake and where it is. line and column count from 1; 0: the whole file, the whole line."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """`file:line:column: message`, as editors and compilers have it."""
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}" if self.column else f":{self.line}"
        return f"{place}: {self.message}" if place else self.message


class SsccError(Exception):
    """Ends a command with status 1, a line for each problem."""

    def __init__(self, *problems: Problem | str) -> None:
        """Problems in the order in which they are told."""
        self.problems = [Problem(problem) if isinstance(problem, str) else problem for problem in problems]
        super().__init__("\n".join(str(problem) for problem in self.problems))


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
        """For its way from one process to another."""
        return ChangedError, (self.file,)
