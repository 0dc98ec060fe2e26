"""`ssrun stat`: how one that serves does, again and again: in a terminal a view, else lines."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text
from ssimage import console

from . import control, rates
from .errors import GoneError
from .interrupts import ended_by_signals

RETURN_S, RETURN_POLL_S = 5.0, 0.2  # one that is started again is waited for
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
# Rows of the view beside those of requests, bytes and what was dropped.
COUNTED = {
    "connections opened": "tcp_opened",
    "segments sent again": "tcp_retransmit_segments",
    "rounds": "loop_rounds",
    "spins": "loop_spins",
    "naps": "loop_naps",
    "sleeps": "loop_sleeps",
}


class Output(Protocol):
    """Where it is shown."""

    def start(self) -> None:
        """To be called again after `stop`."""

    def show(self, shown: dict[str, Any]) -> bool:
        """shown: as `rates.document` has it. False: nobody looks any more."""

    def note(self, text: str, **fields: Any) -> bool:
        """Something has happened; fields: the same for programs. False: as of `show`."""

    def stop(self) -> None:
        """What has shown it is as it was."""

    def left(self) -> None:
        """It is over by itself, and is stopped."""


def duration(seconds: float) -> str:
    """For people."""
    whole = max(0, int(seconds))
    if whole < 2 * MINUTE_S:
        return f"{whole} s"
    if whole < 2 * HOUR_S:
        return f"{whole // MINUTE_S} min"
    if whole < 2 * DAY_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S} min"
    return f"{whole // DAY_S} days"


def number(value: float | None) -> str:
    """A rate; "-": it is not known yet."""
    if value is None:
        return "-"
    return f"{value:.1f}" if 0 < value < 100 else f"{value:,.0f}"


def size(value: float | None) -> str:
    """The same of bytes."""
    return "-" if value is None else decimal(round(value))


def headline(shown: dict[str, Any]) -> list[str]:
    """What it is, what it serves, since when: the lines on top of the view."""
    since = f" for {duration(shown['serving_s'])}" if shown["serving_s"] is not None else ""
    lines = [f"{shown['name']}: {shown['command']} (pid {shown['pid']}), {shown['state']}{since}"]
    lines.append(" ".join(shown["urls"]) or shown["where"])
    lines.append(shown["what"])
    if "image" in shown:
        age = f", written {duration(shown['image_age_s'])} ago" if shown["image_age_s"] is not None else ""
        build_id = shown["image"]["build_id"][:16]
        lines.append(f"build-id {build_id}, served for {duration(shown['image_served_s'])}{age}")
    if shown["is_reloading"]:
        lines.append("another image is being looked at")
    if shown["older_images"]:
        lines.append(f"images from before that clients are still sent: {shown['older_images']}")
    return lines


def rows(shown: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What, how much of it a second, and how much in all."""
    counters, known = shown["counters"], shown["requests_per_s"] is not None

    def a_second(counter: str) -> float | None:
        return float(shown["counters_per_s"].get(counter, 0)) if known else None

    yield "requests", number(shown["requests_per_s"]), f"{shown['requests']:,}"
    for status, counter in rates.statuses(shown).items():
        yield f"  {status}", number(a_second(counter)), f"{counters[counter]:,}"
    for what, names, per_s in (
        ("received", rates.RECEIVED, "rx_bytes_per_s"),
        ("sent", rates.SENT, "tx_bytes_per_s"),
    ):
        yield what, size(shown[per_s]), size(sum(counters.get(name, 0) for name in names))
    yield "connections open", "", f"{shown['connections']:,}"
    for what, counter in COUNTED.items():
        if counter in counters or counter in ("tcp_opened", "tcp_retransmit_segments"):
            yield what, number(a_second(counter)), f"{counters.get(counter, 0):,}"
    for counter in rates.drops(shown):
        yield counter, number(a_second(counter)), f"{counters[counter]:,}"


def line(shown: dict[str, Any]) -> str:
    """All of it on a line, for people who keep it."""
    known = [f"{shown['name']}: {shown['state']}", f"{shown['connections']} connections"]
    known.append(f"{number(shown['requests_per_s'])} requests/s")
    known.append(f"received {size(shown['rx_bytes_per_s'])}/s")
    known.append(f"sent {size(shown['tx_bytes_per_s'])}/s")
    per_s = shown["counters_per_s"]
    known += [f"{status} {number(per_s.get(counter, 0))}/s" for status, counter in rates.statuses(shown).items()]
    known.append(f"sent again {number(shown['retransmissions_per_s'])}/s")
    dropped = [f"{counter} {number(per_s[counter])}/s" for counter in rates.drops(shown) if counter in per_s]
    known.append(f"dropped {' '.join(dropped) or '0/s'}")
    if shown["older_images"]:
        known.append(f"older images {shown['older_images']}")
    return ", ".join(known)


class Lines:
    """For a pipe or a file, and for programs."""

    def __init__(self, as_json: bool) -> None:
        """as_json: an object a line."""
        self.as_json = as_json

    def start(self) -> None:
        return

    def show(self, shown: dict[str, Any]) -> bool:
        if shown["interval_s"] is None:  # how fast is not known yet
            return True
        return console.write(json.dumps(shown) + "\n") if self.as_json else console.say(line(shown))

    def note(self, text: str, **fields: Any) -> bool:
        if self.as_json:
            return console.write(json.dumps({**fields, "text": text}) + "\n")
        return console.say(f"ssrun: note: {text}", err=True)

    def stop(self) -> None:
        return

    def left(self) -> None:
        return


class View:
    """For a terminal: the screen is ours, and is as it was when we have ended."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self.console = Console(highlight=False)
        self.live = self._live()
        self.shown: dict[str, Any] | None = None
        self.noted = ""

    def _live(self) -> Live:
        return Live(Text(), console=self.console, screen=True, auto_refresh=False)

    def start(self) -> None:
        self.live = self._live()
        self.live.start()
        self.draw()

    def draw(self) -> bool:
        """Once more, as it may be another size."""
        try:
            self.live.update(self._made(), refresh=True)
        except OSError:
            return False
        return True

    def _made(self) -> RenderableType:
        if self.shown is None:
            return Text(console.printable(self.noted))
        return made(self.shown, self.noted)

    def show(self, shown: dict[str, Any]) -> bool:
        self.shown = shown
        return self.draw()

    def note(self, text: str, **_: Any) -> bool:
        self.noted = f"{time.strftime('%H:%M:%S')} {text}"
        return self.draw()

    def stop(self) -> None:
        with suppress(OSError):  # the terminal has gone
            self.live.stop()

    def left(self) -> None:
        """What was shown last stays below the command."""
        with suppress(OSError):
            self.console.print(self._made())


def made(shown: dict[str, Any], noted: str = "") -> RenderableType:
    """The view, which any terminal has room for: what is too long is cut, what is too much is left out below."""

    def cut(text: str, style: str = "") -> Text:
        return Text(console.printable(text), style, no_wrap=True, overflow="ellipsis")

    first, *others = headline(shown)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    table.add_column("a second", justify="right", no_wrap=True, overflow="ellipsis")
    table.add_column("in all", justify="right", no_wrap=True, overflow="ellipsis")
    for what, per_s, total in rows(shown):
        table.add_row(cut(what, "red" if rates.DROPPED.fullmatch(what) else ""), per_s, total)
    notes = [cut(noted, "yellow")] if noted else []
    return Group(cut(first, "bold"), *map(cut, others), *notes, Text(), table)


class Waiting:
    """Signals of a terminal, which are served while we wait, as then nothing is half written."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.is_waiting = False
        self.due: list[Callable[[], object]] = []

    def on(self, number: int, do: Callable[[], object]) -> None:
        """Has something done when a signal comes."""

        def handle(*_: Any) -> None:
            self.due.append(do)
            if self.is_waiting:
                self._serve()

        signal.signal(number, handle)

    def _serve(self) -> None:
        while self.due:
            self.due.pop(0)()

    def wait(self, seconds: float) -> None:
        """Sleeps."""
        self.is_waiting = True
        self._serve()
        time.sleep(seconds)
        self.is_waiting = False


def is_terminal() -> bool:
    """Can a view be shown?"""
    return sys.stdout.isatty() and not Console().is_dumb_terminal


def _suspend(output: Output) -> None:
    """Ctrl-Z: the terminal is the shell's meanwhile."""
    output.stop()
    os.kill(os.getpid(), signal.SIGSTOP)
    output.start()


class Watch:
    """Of one that serves."""

    def __init__(self, path: Path, interval_s: float, count: int | None, output: Output) -> None:
        """path: of its socket. count: of how often its rates are shown; None: until we are told to end."""
        self.path = path
        self.name = path.name.removesuffix(control.SUFFIX)
        self.interval_s = interval_s
        self.count = count
        self.output = output
        self.waiting = Waiting()

    def run(self) -> None:
        """Returns when it has been shown so often, or when nobody looks any more. Raises SsrunError."""
        before = self._ask()
        is_seen = self.output.show(rates.document(self.name, None, before))
        times = 0
        while is_seen and (self.count is None or times < self.count):
            self.waiting.wait(self.interval_s)
            now = self._ask_again()
            if rates.is_another(before, now):
                what = f"{self.name} was started again (pid {now['pid']})"
                is_seen = self.output.note(what, event="restarted", name=self.name, pid=now["pid"])
                before = now
                continue
            if before["server_pid"] != now["server_pid"] and before["server_pid"] is not None:
                what = f"{self.name}: the server process was replaced; connections go on"
                self.output.note(what, event="server-replaced", name=self.name, pid=now["server_pid"])
            is_seen = self.output.show(rates.document(self.name, before, now))
            before = now
            times += 1

    def _ask(self) -> dict[str, Any]:
        return control.ask(self.path, {"command": "stat"})

    def _ask_again(self) -> dict[str, Any]:
        """As it may be started again in a moment. Raises SsrunError."""
        end_s: float | None = None
        while True:
            try:
                return self._ask()
            except GoneError as gone:
                if end_s is None:
                    end_s = time.monotonic() + RETURN_S
                    text = f"{gone}; waiting {RETURN_S:g} s for another"
                    self.output.note(text, event="ended", name=self.name)
                if time.monotonic() > end_s:
                    raise GoneError(f"{self.name} has ended") from None
                self.waiting.wait(RETURN_POLL_S)


def run(name: str | None, interval_s: float, count: int | None, as_json: bool) -> None:
    """Shows it until we are told to end. Raises SsrunError."""
    with ended_by_signals():
        output: Output = View() if not as_json and is_terminal() else Lines(as_json)
        watch = Watch(control.find(name), interval_s, count, output)
        if isinstance(output, View):
            watch.waiting.on(signal.SIGTSTP, lambda: _suspend(output))
            watch.waiting.on(signal.SIGWINCH, output.draw)
        try:
            output.start()
            watch.run()
        finally:
            output.stop()
        output.left()
