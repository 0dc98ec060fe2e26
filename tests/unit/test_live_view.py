"""`ssrun stat`: lines, objects and a view of how one that serves does; over --listen, as any user."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ssrun import control, live_view, rates

from tests.host import build
from tests.net import heed_signals
from tests.sockets import DEADLINE_S
from tests.unit.test_control import Place, get

SHOW, LEAVE, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"
INTERVAL = ("--interval", "0.1")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("hello")
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "run")


def answer(**changed: Any) -> dict[str, Any]:
    """As one that serves answers."""
    return {
        "command": "ssrun",
        "pid": 7,
        "server_pid": 8,
        "state": "serving",
        "urls": ["http://192.0.2.1/"],
        "where": "eth0",
        "what": "site.img: 3 routes in 184 frames",
        "connections": 2,
        "image": {"path": "site.img", "build_id": "0123456789abcdef0123"},
        "older_images": 0,
        "is_reloading": False,
        "clock_s": 100.0,
        "started_s": 10.0,
        "serving_since_s": 20.0,
        "image_since_s": 40.0,
        "image_age_s": 86400.0 * 3,
        "requests": 10,
        "counters": {"http_requests": 10, "http_status_2xx": 10, "port_tx_bytes": 1000},
        **changed,
    }


LATER = answer(
    clock_s=102.0,
    requests=30,
    counters={
        "http_requests": 30,
        "http_status_2xx": 28,
        "http_status_4xx": 2,
        "port_tx_bytes": 5000,
        "port_rx_bytes": 700,
        "tcp_drop_port": 4,
        "port_rx_dropped": 2,
        "tcp_retransmit_segments": 3,
        "loop_rounds": 40,
    },
)


def test_rates_are_of_two_answers_and_the_time_between() -> None:
    shown = rates.document("one", answer(), LATER)
    assert shown["interval_s"] == 2.0
    assert shown["requests_per_s"] == 10.0
    assert (shown["rx_bytes_per_s"], shown["tx_bytes_per_s"]) == (350.0, 2000.0)
    assert (shown["retransmissions_per_s"], shown["dropped_per_s"]) == (1.5, 3.0)
    assert shown["counters_per_s"]["http_status_2xx"] == 9.0
    assert (shown["serving_s"], shown["image_served_s"]) == (82.0, 62.0)
    assert rates.drops(shown) == ["tcp_drop_port", "port_rx_dropped"]
    assert rates.document("one", None, LATER)["requests_per_s"] is None


def test_counters_that_another_process_has_not_taken_over_yet_are_no_negative_rates() -> None:
    shown = rates.document("one", LATER, answer(clock_s=103.0))
    assert shown["requests_per_s"] == 0.0
    assert shown["counters_per_s"] == {}
    assert rates.document("one", LATER, LATER)["requests_per_s"] == 0.0


def test_one_that_was_started_again_is_another() -> None:
    assert not rates.is_another(answer(), LATER)
    assert rates.is_another(answer(), answer(pid=9))
    assert rates.is_another(answer(), answer(started_s=101.0))  # in a container all are process 1


def text(shown: dict[str, Any], width: int, noted: str = "") -> str:
    console = Console(width=width, no_color=True, highlight=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(live_view.made(shown, noted))
    return captured.get()


def test_the_view_shows_what_there_is() -> None:
    lines = text(rates.document("one", answer(), LATER), 100).splitlines()
    assert lines[0].rstrip() == "one: ssrun (pid 7), serving for 82 s"
    assert lines[1].rstrip() == "http://192.0.2.1/"
    assert lines[3].rstrip() == "build-id 0123456789abcdef, served for 62 s, written 3 days ago"
    table = {re.split(r"  +", line.strip())[0]: re.split(r"  +", line.strip())[1:] for line in lines[5:]}
    assert table["requests"] == ["10.0", "30"]
    assert table["4xx"] == ["1.0", "2"]
    assert table["sent"] == ["2.0 kB", "5.0 kB"]
    assert table["tcp_drop_port"] == ["2.0", "4"]
    assert table["connections open"] == ["2"]
    assert "spins" not in table  # never was one
    shown = rates.document("one", answer(), {**LATER, "older_images": 2, "is_reloading": True, "state": "draining"})
    said = text(shown, 100, "12:00:00 something")
    assert "images from before that clients are still sent: 2\n" in said.replace(" \n", "\n")
    assert "another image is being looked at" in said
    assert "draining" in said
    assert "12:00:00 something" in said


@pytest.mark.parametrize("width", [1, 8, 20, 40])
def test_a_narrow_terminal_has_the_same_lines(width: int) -> None:
    shown = rates.document("one", answer(), {**LATER, "what": "x" * 300})
    lines = text(shown, width).splitlines()
    assert len(lines) == len(text(shown, 200).splitlines())
    assert max(map(len, lines)) <= width


def test_names_move_no_cursor() -> None:
    shown = rates.document("one", answer(), {**LATER, "what": "a\x1b[2Jb\n", "urls": ["http://\x9b/"]})
    said = text(shown, 80)
    assert "a\\x1b[2Jb\\n" in said
    assert not set(said) & {"\x1b", "\x9b"}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (59.9, "59 s"), (600, "10 min"), (3600 * 5 + 60, "5 h 1 min"), (86400 * 9, "9 days")],
)
def test_times_are_short(seconds: float, said: str) -> None:
    assert live_view.duration(seconds) == said


def test_another_server_process_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([answer(), answer(clock_s=101.0, server_pid=9), answer(clock_s=102.0, server_pid=9)])
    monkeypatch.setattr(control, "ask", lambda *_: next(answers))
    seen: list[Any] = []

    class Output(live_view.Lines):
        def show(self, shown: dict[str, Any]) -> bool:
            return seen.append(shown["interval_s"]) is None

        def note(self, _: str, **fields: Any) -> bool:
            return seen.append((fields["event"], fields["pid"])) is None

    live_view.Watch(Path("one.sock"), 0, 2, Output(as_json=True)).run()
    assert seen == [None, ("server-replaced", 9), 1.0, 1.0]


def test_programs_get_objects(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one") as one:
        get(one)
        lines = place.ssrun("stat", "--count", "2", "--json", *INTERVAL).splitlines()
        assert len(lines) == 2
        for shown in map(json.loads, lines):
            assert (shown["event"], shown["name"], shown["pid"]) == ("stat", "one", one.process.pid)
            assert shown["image"] == one.event["image"]
            assert shown["requests"] == 1
            assert shown["requests_per_s"] == 0
            assert shown["interval_s"] > 0
            assert shown["serving_s"] > 0
            assert shown["image_age_s"] >= 0
            assert shown["counters"]["http_status_2xx"] == 1


def test_a_pipe_gets_lines(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one") as one:
        get(one)
        said = place.ssrun("stat", "one", "--count", "1", *INTERVAL)
        wanted = r"one: serving, \d connections, [\d.]+ requests/s, received .*/s, sent .*/s, 2xx [\d.]+/s, sent again 0/s, dropped 0/s\n"
        assert re.fullmatch(wanted, said), said
        assert place.ssrun("stat", "two", status=1).startswith("ssrun: nothing that runs is called two")
        assert place.ssrun("stat", "--interval", "0", status=2)


def test_one_is_found_by_where_it_serves(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one"):
        assert place.ssrun("counters", "127.0.0.1:0", "--json").startswith('{"counters"')
        with place.serving(image, "--name", "two"):
            said = place.ssrun("counters", "127.0.0.1:0", status=1)
            assert said == "ssrun: several serve on 127.0.0.1:0; say which: one, two\n"


@contextmanager
def watching(place: Place, *words: str, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """`ssrun stat`, until it is over."""
    command = [sys.executable, "-m", "ssrun.cli", "stat", *INTERVAL, *words]
    with subprocess.Popen(
        command,
        preexec_fn=heed_signals,  # noqa: PLW1509
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": place.env, **how},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_who_reads_no_more_ends_it(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one"), watching(place) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(image: Path, place: Place, number: int) -> None:
    with place.serving(image, "--name", "one"), watching(place) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, said) == (0, b"")


def test_one_that_ends_is_said(image: Path, place: Place) -> None:
    with place.serving(image, "--name", "one") as one, watching(place) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        one.end()
        _, said = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1
        assert said.decode().splitlines()[0].endswith("; waiting 5 s for another")
        assert said.decode().splitlines()[-1] == "ssrun: one has ended"
        assert b"Traceback" not in said


def test_one_that_is_started_again_is_said_and_shown_on(image: Path, place: Place) -> None:
    with watching_of(image, place, "--json") as (process, again):
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline())]
        process.send_signal(signal.SIGSTOP)  # so that it is not waited for longer than it waits
        again()
        process.send_signal(signal.SIGCONT)
        while seen[-1]["event"] != "restarted":
            seen.append(json.loads(process.stdout.readline()))
        shown = json.loads(process.stdout.readline())
        assert shown["event"] == "stat"
        assert shown["pid"] == seen[-1]["pid"] != seen[0]["pid"]
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0


@contextmanager
def watching_of(image: Path, place: Place, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """One that is looked at, and what ends it and starts another of that name."""
    now = place.serving(image, "--name", "one")
    others = [now]
    one = now.__enter__()

    def again() -> None:
        one.end()
        others.append(place.serving(image, "--name", "one"))
        others[-1].__enter__()

    try:
        with watching(place, *words) as process:
            yield process, again
    finally:
        for each in reversed(others):
            each.__exit__(None, None, None)


class Terminal:
    """What a command in a terminal writes."""

    def __init__(self, columns: int, rows: int) -> None:
        self.ours, self.theirs = os.openpty()
        self.resize(columns, rows)
        self.seen = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, wanted: bytes) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while wanted not in self.seen:
            assert time.monotonic() < end_s, self.seen
            self.seen += os.read(self.ours, 65536)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(80, 24)
    yield made
    os.close(made.ours)
    os.close(made.theirs)


def in_terminal(place: Place, terminal: Terminal, *words: str, **env: str) -> Any:
    kept = {
        name: value
        for name, value in place.env.items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    }
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.theirs)
    return watching(place, *words, env={**kept, "TERM": "xterm-256color", **env}, **streams)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminal_is_as_it_was(image: Path, place: Place, terminal: Terminal, number: int) -> None:
    before = termios.tcgetattr(terminal.theirs)
    with place.serving(image, "--name", "one"), in_terminal(place, terminal) as process:
        terminal.until(b"requests")
        assert terminal.seen.startswith(SHOW)
        process.send_signal(number)
        terminal.until(LEAVE)
        assert process.wait(DEADLINE_S) == 0
        terminal.until(CURSOR)
    assert termios.tcgetattr(terminal.theirs) == before
    assert b"Traceback" not in terminal.seen


def test_what_was_shown_last_stays(image: Path, place: Place, terminal: Terminal) -> None:
    with place.serving(image, "--name", "one"), in_terminal(place, terminal, "--count", "1") as process:
        terminal.until(LEAVE)
        terminal.seen = terminal.seen.partition(LEAVE)[2]
        terminal.until(b"rounds" if b"loop" in terminal.seen else b"segments sent again")
        assert process.wait(DEADLINE_S) == 0


def test_a_terminal_may_be_small_and_without_colours(image: Path, place: Place, terminal: Terminal) -> None:
    terminal.resize(12, 5)
    with place.serving(image, "--name", "one"), in_terminal(place, terminal, NO_COLOR="1") as process:
        terminal.until("…".encode())
        terminal.resize(80, 24)
        process.send_signal(signal.SIGWINCH)
        terminal.until(b"segments sent again")
        process.send_signal(signal.SIGINT)
        terminal.until(LEAVE)
        assert process.wait(DEADLINE_S) == 0
    assert not re.search(rb"\x1b\[[\d;]*3\d", terminal.seen)  # no colour


def test_a_terminal_that_can_only_print_gets_lines(image: Path, place: Place, terminal: Terminal) -> None:
    with place.serving(image, "--name", "one"), in_terminal(place, terminal, "--count", "1", TERM="dumb") as process:
        terminal.until(b"one: serving, ")
        assert process.wait(DEADLINE_S) == 0
    assert b"\x1b" not in terminal.seen
    assert b"serving for" not in terminal.seen


def test_a_view_says_what_happens_to_what_it_shows(image: Path, place: Place, terminal: Terminal) -> None:
    with place.serving(image, "--name", "one") as one, in_terminal(place, terminal) as process:
        terminal.until(b"requests")
        one.end()
        terminal.until(b"waiting 5 s for another")
        terminal.until(LEAVE)
        terminal.until(b"ssrun: one has ended")
        assert process.wait(DEADLINE_S) == 1


def test_it_can_be_suspended(image: Path, place: Place, terminal: Terminal) -> None:
    with place.serving(image, "--name", "one"), in_terminal(place, terminal) as process:
        terminal.until(b"requests")
        process.send_signal(signal.SIGTSTP)
        terminal.until(LEAVE)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        terminal.seen = b""
        process.send_signal(signal.SIGCONT)
        terminal.until(SHOW)
        terminal.until(b"requests")
        process.send_signal(signal.SIGINT)
        terminal.until(LEAVE)
        assert process.wait(DEADLINE_S) == 0
