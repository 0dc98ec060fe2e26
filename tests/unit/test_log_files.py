"""Where lines of the access log go, and what may happen to that place: nothing of it keeps ssrun from serving."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssrun import log_sinks
from ssrun.log_formats import FORMATS
from ssrun.log_sinks import File, Journal, Syslog

from tests import warm
from tests.host import build
from tests.net import until
from tests.sockets import DEADLINE_S, Command, listening

PAGE = b"<title>small</title>"
LOCAL = ("--listen", "127.0.0.1:0", "--workers", "1")
LINE = re.compile(r'127\.0\.0\.1 - - \[[^]]+\] "GET (\S+) HTTP/1\.1" (\d+) \d+ "-" "-"')


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_bytes(PAGE)
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def ask(command: Command, *targets: str) -> None:
    for target in targets:
        with command.connect() as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            assert b"".join(iter(lambda c=connection: c.recv(65536), b"")).startswith(b"HTTP/1.1 ")


def lines(path: Path, count: int) -> list[str]:
    """So many, as soon as they are there."""

    def have() -> bool:
        return path.exists() and path.read_bytes().count(b"\n") >= count

    assert until(have), path.read_bytes() if path.exists() else "there is no file"
    found = path.read_text().splitlines()
    assert len(found) == count
    return found


def targets(path: Path, count: int) -> list[str]:
    found = [LINE.fullmatch(line) for line in lines(path, count)]
    return [match[1] if match else "?" for match in found]


def counters(command: Command) -> dict[str, int]:
    command.process.send_signal(signal.SIGUSR1)
    return dict(command.line()["counters"])


def never() -> bool:
    return False


def test_each_answer_is_a_line(image: Path, log: Path) -> None:
    with listening(image, *LOCAL, "--access-log", str(log)) as command:
        ask(command, "/?1", "/nothing")
        assert targets(log, 2) == ["/?1", "/nothing"]
        assert log.stat().st_mode & 0o777 == 0o640
    assert command.stopped["counters"]["log_lines"] == 2


def test_what_is_open_at_the_end_is_written_too(image: Path, log: Path) -> None:
    with listening(image, *LOCAL, "--access-log", str(log)) as command:
        ask(command, *(f"/?{number}" for number in range(20)))
        assert command.end() == 0
    assert targets(log, 20) == [f"/?{number}" for number in range(20)]


@pytest.mark.parametrize("name", FORMATS)
def test_formats(image: Path, log: Path, name: str) -> None:
    with listening(image, *LOCAL, "--access-log", str(log), "--access-log-format", name) as command:
        ask(command, "/?x")
        (line,) = lines(log, 1)
    if name in ("json", "caddy"):
        document = json.loads(line)
        assert document["status"] == 200
        assert document.get("request_uri") == "/?x" or document["request"]["uri"] == "/?x"
    else:
        assert line.startswith("127.0.0.1 - - [")
        assert ('"GET /?x HTTP/1.1" 200 20' in line) == line.endswith(" 20" if name == "common" else '"-"')


def test_a_pattern_and_one_of_so_many(image: Path, log: Path) -> None:
    options = ("--access-log", str(log), "--access-log-format", "$status ${request_uri}", "--access-log-sample", "5")
    with listening(image, *LOCAL, *options) as command:
        ask(command, *(f"/?{number}" for number in range(10)), "/no", "/no")
        assert lines(log, 4) == ["200 /?4", "200 /?9", "404 /no", "404 /no"]
    assert command.stopped["counters"]["log_sampled_out"] == 8


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--access-log-format", "json"), "--access-log-format is for an access log; give --access-log PATH too"),
        (("--access-log", ""), "it is empty"),
        (("--access-log", "syslog:nowhere"), "is no syslog"),
        (("--access-log", "a", "--access-log-format", "nginx"), "is no format; write one of common, combined, json"),
        (("--access-log", "a", "--access-log-format", "$x"), "there is no such variable; there are $args, "),
        (("--access-log", "a", "--access-log-format", "$status\n"), "it has a control character"),
    ],
)
def test_wrong_options(image: Path, options: tuple[str, ...], text: str) -> None:
    done = warm.run("ssrun.cli", image, *LOCAL, *options)
    assert done.returncode == 2, done.stderr
    assert text in " ".join(done.stderr.split())


@pytest.mark.parametrize("where", [".", "no/such/folder/access.log"])
def test_a_place_that_can_not_be_written_to_is_told_at_the_start(image: Path, tmp_path: Path, where: str) -> None:
    done = warm.run("ssrun.cli", image, *LOCAL, "--access-log", tmp_path / where)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "can't be written to" in done.stderr


@pytest.mark.parametrize("is_told", [True, False])
def test_a_log_that_is_rotated(image: Path, log: Path, is_told: bool) -> None:
    """With SIGUSR2; and by somebody who forgets to send it."""
    with listening(image, *LOCAL, "--access-log", str(log)) as command:
        ask(command, "/?1")
        assert targets(log, 1) == ["/?1"]
        old = log.rename(log.with_suffix(".1"))
        if is_told:
            command.process.send_signal(signal.SIGUSR2)
        assert until(log.exists)
        event = command.line()
        assert (event["event"], event["change"]) == ("access-log", "reopened")
        ask(command, "/?2", "/?3")
        assert targets(log, 2) == ["/?2", "/?3"]
        assert targets(old, 1) == ["/?1"]


def test_it_is_truncated_in_place(image: Path, log: Path) -> None:
    """As logrotate's copytruncate does."""
    with listening(image, *LOCAL, "--access-log", str(log)) as command:
        ask(command, "/?1")
        assert targets(log, 1) == ["/?1"]
        os.truncate(log, 0)
        ask(command, "/?2")
        assert targets(log, 1) == ["/?2"]


def test_without_a_log_the_signal_changes_nothing(image: Path) -> None:
    with listening(image, *LOCAL) as command:
        command.process.send_signal(signal.SIGUSR2)
        ask(command, "/")
        assert command.end() == 0


def test_no_folder_to_reopen_in(image: Path, tmp_path: Path) -> None:
    """It goes on where it was."""
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "access.log"
    with listening(image, *LOCAL, "--access-log", str(log)) as command:
        moved = (tmp_path / "logs").rename(tmp_path / "old")
        command.process.send_signal(signal.SIGUSR2)
        event = command.line()
        assert (event["change"], "can't be opened anew" in event["text"]) == ("failed", True)
        ask(command, "/?1")
        assert targets(moved / "access.log", 1) == ["/?1"]


def test_a_disk_that_is_full(image: Path) -> None:
    with listening(image, *LOCAL, "--access-log", "/dev/full") as command:
        ask(command, "/", "/")
        event = command.line()
        assert event["change"] == "failed"
        assert "No space left on device; lines of the access log are lost, serving goes on" in event["text"]
        ask(command, "/")
        assert command.end() == 0
    assert command.stopped["counters"]["log_lines_lost"] == 3


def test_a_pipe_without_a_reader_and_with_one(image: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with listening(image, *LOCAL, "--access-log", str(fifo)) as command:
        assert "nobody reads from it yet" in command.event["warnings"][0]
        ask(command, "/?1")
        until(lambda: counters(command).get("log_lines_lost") == 1)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        ask(command, "/?2")
        with open(reader) as file:
            assert until(lambda: bool(select.select([file], [], [], 0)[0]))
            assert LINE.fullmatch(file.readline().rstrip("\n"))
        event = command.line()
        assert (event["change"], "1 lines are lost" in event["text"]) == ("recovered", True)
        ask(command, "/?3")
        assert command.line()["change"] == "failed"


def test_who_reads_too_slowly_has_lines_dropped_and_nobody_waits(image: Path, tmp_path: Path) -> None:
    """The pipe is full, then the ring; answers go on, and the end does not wait for the reader."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    options = ("--access-log", str(fifo), "--max-connections", "10", "--access-log-format", "json")
    with listening(image, *LOCAL, *options) as command:
        sent = 0
        while sent < 20_000:
            with command.connect() as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 99 + b"GET / HTTP/1.0\r\n\r\n")
                while connection.recv(1 << 20):
                    pass
            sent += 100
        assert command.end() == 0
    os.close(reader)
    found = command.stopped["counters"]
    assert found["http_requests"] == sent
    assert found["log_dropped"] > 0
    assert found["log_dropped"] + found["log_lines"] == sent


def test_standard_output(image: Path) -> None:
    with listening(image, *LOCAL, "--access-log", "-", "--access-log-format", "json") as command:
        ask(command, "/?1")
        assert command.line()["request_uri"] == "/?1"


class Datagrams:
    """What comes at a socket."""

    def __init__(self, family: int, address: object) -> None:
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind(address)  # type: ignore[arg-type]
        self.sock.settimeout(DEADLINE_S)

    def next(self) -> bytes:
        return self.sock.recv(65536)


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[Callable[[], Datagrams]]:
    opened: list[Datagrams] = []

    def open_() -> Datagrams:
        (tmp_path / "socket").unlink(missing_ok=True)
        opened.append(Datagrams(socket.AF_UNIX, str(tmp_path / "socket")))
        return opened[-1]

    yield open_
    for each in opened:
        each.sock.close()


SYSLOG = rb"<190>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d %sssrun\[\d+\]: (.*)"


def test_syslog_of_this_host(image: Path, tmp_path: Path, datagrams: Callable[[], Datagrams]) -> None:
    there = datagrams()
    with listening(image, *LOCAL, "--access-log", f"syslog:{tmp_path}/socket") as command:
        ask(command, "/?1")
        found = re.fullmatch(SYSLOG % b"", there.next())
        assert found is not None
        assert LINE.fullmatch(found[1].decode())


def test_syslog_elsewhere(image: Path) -> None:
    there = Datagrams(socket.AF_INET, ("127.0.0.1", 0))
    port = there.sock.getsockname()[1]
    with listening(image, *LOCAL, "--access-log", f"syslog:127.0.0.1:{port}") as command:
        ask(command, "/?1")
        assert re.fullmatch(SYSLOG % rb"\S+ ", there.next())
        there.sock.close()
        ask(command, "/?2", "/?3", "/?4")  # nobody is there: it serves
        assert command.end() == 0


def test_journald_that_is_started_anew(tmp_path: Path, datagrams: Callable[[], Datagrams]) -> None:
    there = datagrams()
    journal = Journal(str(tmp_path / "socket"))
    journal.open()
    assert journal.write(b"one\ntwo\n", never) is None
    assert there.next() == b"PRIORITY=6\nSYSLOG_IDENTIFIER=ssrun\nMESSAGE=one\n"
    there.next()
    there.sock.close()
    loss = journal.write(b"three\nfour\n", never)
    assert loss is not None
    assert loss.lines == 2
    there = datagrams()
    assert journal.write(b"five\n", never) is None
    assert there.next().endswith(b"MESSAGE=five\n")
    journal.close()


@pytest.mark.parametrize(
    ("where", "address"),
    [
        ("", "/dev/log"),
        ("/x", "/x"),
        ("192.0.2.1", ("192.0.2.1", 514)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[2001:db8::1]", ("2001:db8::1", 514)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
    ],
)
def test_addresses_of_syslog(where: str, address: object) -> None:
    assert Syslog(where).address == address


def test_a_line_that_was_torn_ends_before_the_next(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk is full in the middle of a line; later there is room again."""
    file = File(log)
    file.open()
    write, room = os.write, [6]

    def full(fd: int, data: memoryview) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        count = write(fd, data[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(log_sinks.os, "write", full)
    loss = file.write(b"one\ntwo\nthree\n", never)
    assert loss is not None
    assert loss.lines == 2
    loss = file.write(b"four\n", never)
    assert loss is not None
    assert loss.lines == 1
    room[0] = 100
    assert file.write(b"five\nsix\n", never) is None
    assert log.read_bytes() == b"one\ntw\nfive\nsix\n"
    file.close()


def test_two_write_to_one_file(image: Path, log: Path) -> None:
    """Each line is whole."""
    with (
        listening(image, *LOCAL, "--access-log", str(log)) as one,
        listening(image, *LOCAL, "--access-log", str(log)) as other,
    ):
        numbers = range(200)
        threads = [
            threading.Thread(target=ask, args=(command, *(f"/?{who}{number}" for number in numbers)))
            for command, who in ((one, "a"), (other, "b"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(targets(log, 400)) == sorted(f"/?{who}{number}" for who in "ab" for number in numbers)
