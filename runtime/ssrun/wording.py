"""What is said in the same words by one that serves and by a command that asks it."""

from __future__ import annotations


def being_finished(answers: int) -> str:
    """How many answers still go on."""
    return "1 answer is being finished" if answers == 1 else f"{answers} answers are being finished"


def still_older(connections: int) -> str:
    """How many get what they began to get from an image before."""
    if connections == 1:
        return "1 connection is still sent what it began to get from one before"
    return f"{connections} connections are still sent what they began to get from one before"


def not_zero(counters: dict[str, int]) -> dict[str, int]:
    """The counters that there is something to say of."""
    return {name: value for name, value in counters.items() if value}
