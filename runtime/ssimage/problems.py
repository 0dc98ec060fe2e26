"""What goes wrong, in words for the person who can mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .console import printable

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
