"""How fast one that serves does: of two answers to `stat` and the time between them."""

from __future__ import annotations

import re
from typing import Any

DROPPED = re.compile(r"\w+_drop_\w+|\w+_dropped")
STATUS = re.compile(r"http_status_(\dxx)")
# What the kernel's sockets and our ports call the same.
RECEIVED = ("port_rx_bytes", "sockets_rx_bytes")
SENT = ("port_tx_bytes", "sockets_tx_bytes")
DIGITS = 3  # of a rate


def is_another(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Has it been started again in between?"""
    return (before["pid"], before["started_s"]) != (now["pid"], now["started_s"])


def document(name: str, before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """What there is to show, and for programs. before: None: nothing is known of how fast."""
    counters: dict[str, int] = now["counters"]
    interval_s = max(now["clock_s"] - before["clock_s"], 1e-3) if before is not None else None

    def rate(more: int) -> float | None:
        """Of what has come to a counter. While another server process takes them over they may be less."""
        return round(max(0, more) / interval_s, DIGITS) if interval_s is not None else None

    earlier: dict[str, int] = before["counters"] if before is not None else {}
    rates = {counter: rate(value - earlier.get(counter, 0)) for counter, value in counters.items()}

    def total(names: tuple[str, ...]) -> float | None:
        return round(sum((rates.get(name) or 0.0 for name in names), 0.0), DIGITS) if interval_s is not None else None

    passed_on = ("command", "pid", "server_pid", "state", "urls", "where", "what", "connections", "older_images")
    shown = {key: now[key] for key in (*passed_on, "is_reloading", "requests")}
    return {
        "event": "stat",
        "name": name,
        **shown,
        **{key: now[key] for key in ("image", "store") if key in now},
        "image_served_s": round(now["clock_s"] - now["image_since_s"], DIGITS),
        "image_age_s": round(now["image_age_s"], DIGITS) if now["image_age_s"] is not None else None,
        "serving_s": _since(now["clock_s"], now["serving_since_s"]),
        "interval_s": round(interval_s, DIGITS) if interval_s is not None else None,
        "requests_per_s": rate(now["requests"] - (before["requests"] if before is not None else 0)),
        "rx_bytes_per_s": total(RECEIVED),
        "tx_bytes_per_s": total(SENT),
        "retransmissions_per_s": total(("tcp_retransmit_segments",)),
        "dropped_per_s": total(tuple(drops(now))),
        "counters": counters,
        "counters_per_s": {counter: value for counter, value in rates.items() if value},
    }


def _since(clock_s: float, since_s: float | None) -> float | None:
    return round(clock_s - since_s, DIGITS) if since_s is not None else None


def statuses(shown: dict[str, Any]) -> dict[str, str]:
    """The counters of answers by hundreds of their status that are not zero."""
    return {found[1]: counter for counter in shown["counters"] if (found := STATUS.fullmatch(counter))}


def drops(shown: dict[str, Any]) -> list[str]:
    """The counters of what was dropped that are not zero."""
    return [counter for counter in shown["counters"] if DROPPED.fullmatch(counter)]
