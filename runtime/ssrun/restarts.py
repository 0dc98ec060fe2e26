"""When a server that has ended without a word is started again."""

from __future__ import annotations

QUIET_S = 10.0  # who has served for so long has not ended because it began
FIRST_S = 0.1
MOST_S = 30.0


class Backoff:
    """At once the first time; the later, the more often it ends soon after it has begun."""

    def __init__(self) -> None:
        """It has not ended yet."""
        self.soon = 0  # how often in a row

    def delay_s(self, lived_s: float) -> float:
        """How long to wait now; lived_s: how long it has served."""
        if lived_s >= QUIET_S:
            self.soon = 0
        delay_s = min(MOST_S, FIRST_S * 2 ** (self.soon - 1)) if self.soon else 0.0
        self.soon += 1
        return delay_s
