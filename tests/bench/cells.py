"""Tables in Markdown, of rows as results.json has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(list(head))]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)]) + "\n"


def names(rows: Iterable[Row], key: str) -> list[Any]:
    """A column's values, in the order in which they come."""
    return list(dict.fromkeys(row[key] for row in rows))


def pivot(rows: list[Row], key: str, label: Callable[[Any], str], cell: Callable[[Row, Row], str]) -> str:
    """A line for each value of key, a column for each system; cell is told the first system's row too."""
    systems = names(rows, "system")
    lines = []
    for value in names(rows, key):
        mine = {row["system"]: row for row in rows if row[key] == value}
        base = next(iter(mine.values()))
        lines.append([label(value), *(cell(mine[system], base) if system in mine else "-" for system in systems)])
    return table([key.replace("_", " "), *systems], lines)


def find(rows: Iterable[Row], **values: Any) -> Row:
    """The row that has these values."""
    return next(row for row in rows if all(row[key] == value for key, value in values.items()))


def seek(rows: Iterable[Row], **values: Any) -> Row | None:
    """The row that has these values, if there is one: results of an older bench lack some, and some keys."""
    return next((row for row in rows if has(row, **values)), None)


def has(row: Row, **values: Any) -> bool:
    """Whether a row has these values."""
    return all(key in row and row[key] == value for key, value in values.items())


def size(size_bytes: int) -> str:
    """1000 as "1 KB"."""
    for unit, scale in (("MB", 1_000_000), ("KB", 1_000)):
        if size_bytes >= scale:
            return f"{size_bytes // scale} {unit}"
    return f"{size_bytes} B"
