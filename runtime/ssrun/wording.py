"""What is said in the same words by one that serves and by a command that asks it."""

from __future__ import annotations


def being_finished(answers: int) -> str:
    """How many answers still go on."""
    return "1 answer is being finished" if answers == 1 else f"{answers} answers are being finished"


def not_zero(counters: dict[str, int]) -> dict[str, int]:
    """The counters that there is something to say of."""
    return {name: value for name, value in counters.items() if value}
