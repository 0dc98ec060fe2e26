"""`ssrun --listen`: the command, as an ordinary user starts it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssrun import cli
from ssrun.addresses import Endpoint, parse_endpoint
from ssrun.options import NOT_WITH_LISTEN

from tests import warm
from tests.host import build
from tests.net import needs, needs_root, until
from tests.sockets import DEADLINE_S, Command, cpu_ticks, listening

# An ordinary user; but what is served here, and the Python that runs this, may be for root alone to read.
READ = "-all,+dac_read_search"
USER = ("--reuid", "65534", "--regid", "65534", "--clear-groups")
NOBODY = ("setpriv", *USER, "--bounding-set", READ, "--inh-caps", READ, "--ambient-caps", READ)
PAGE = b"<title>small</title>"
LARGE_BYTES = 40_000_000
GET = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
KEPT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LOCAL = ("--listen", "127.0.0.1:0")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_bytes(PAGE)
    (folder / "large.bin").write_bytes(os.urandom(1_000_000) * (LARGE_BYTES // 1_000_000))
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


@pytest.fixture
def running(image: Path) -> Iterator[Command]:
    with listening(image, *LOCAL) as command:
        yield command


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 20), b""))


def fetch(command: Command, path: bytes = b"/", number: int = 0) -> bytes:
    with command.connect(number) as connection:
        connection.sendall(GET % path)
        return everything(connection).partition(b"\r\n\r\n")[2]


def refused(image: Path, *options: str, status: int) -> str:
    """What it says when it does not start."""
    done = warm.run("ssrun.cli", image, *options)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_it_serves_and_ends(running: Command, image: Path) -> None:
    assert running.event["backend"] == "sockets"
    assert running.event["image"]["path"] == str(image)
    assert running.event["listen"] == [f"127.0.0.1:{running.addresses[0][1]}"]
    assert running.event["workers"] == min(64, len(os.sched_getaffinity(0)))
    assert fetch(running) == PAGE
    running.process.send_signal(signal.SIGUSR1)
    counters = running.line()
    assert (counters["event"], counters["counters"]["http_requests"]) == ("counters", 1)
    assert running.end() == 0
    assert running.stopped["event"] == "stopped"
    assert running.stopped["counters"]["http_status_2xx"] == 1
    assert running.stopped["counters"]["sockets_accepted"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_the_middle_of_an_answer(running: Command, number: int) -> None:
    with running.connect() as connection:
        connection.sendall(GET % b"/large.bin")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert running.end(number) == 0


def test_for_people(image: Path) -> None:
    words = [sys.executable, "-m", "ssrun.cli", str(image), *LOCAL, "--workers", "2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.terminate()
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert lines[0].startswith(f"{image}: ")
    assert lines[1].startswith("127.0.0.1:")
    assert lines[1].endswith(": the kernel's TCP, 2 workers\n")
    assert lines[2].startswith("serving http://127.0.0.1:")
    assert (output, errors) == ("stopped: 0 requests on 0 connections, 0 bytes sent\n", "")


@needs_root
@needs("setpriv")
def test_an_ordinary_user_needs_nothing(image: Path) -> None:
    with listening(image, "--listen", "localhost:0", front=NOBODY) as command:
        status = Path(f"/proc/{command.process.pid}/status").read_text()
        assert "\nCapEff:\t0000000000000004\n" in status
        assert len({port for _, port in command.addresses}) == 1  # of both families
        for number in range(len(command.addresses)):
            assert fetch(command, number=number) == PAGE


@needs_root
@needs("setpriv")
def test_a_port_that_is_not_everybody_s(image: Path) -> None:
    with pytest.raises(AssertionError) as error, listening(image, "--listen", "127.0.0.1:81", front=NOBODY):
        pass
    assert "ssrun: 127.0.0.1:81: only root, or who has CAP_NET_BIND_SERVICE, may listen on ports below 1024; " in str(
        error.value
    )
    assert "choose a higher one, as 127.0.0.1:8080\n" in str(error.value)


def test_all_addresses_of_both_families(image: Path) -> None:
    with listening(image, "--listen", ":0") as command:
        port = command.addresses[0][1]
        assert command.event["listen"] == [f"0.0.0.0:{port}", f"[::]:{port}"]
        assert command.addresses == [("127.0.0.1", port), ("::1", port)]
        assert [fetch(command, number=number) for number in (0, 1)] == [PAGE, PAGE]


def test_several(image: Path) -> None:
    with listening(image, *LOCAL, "--listen", "[::1]:0", *LOCAL) as command:
        assert len(set(command.addresses)) == 3
        assert [fetch(command, number=number) for number in range(3)] == [PAGE] * 3


@pytest.mark.parametrize("address", ["127.0.0.1", ""])
def test_a_port_that_is_taken(image: Path, running: Command, address: str) -> None:
    """By another one too, that would share it: both have SO_REUSEPORT."""
    port = running.addresses[0][1]
    line = refused(image, "--listen", f"{address}:{port}", status=1)
    shown = f"{address or '0.0.0.0'}:{port}"
    assert line == (
        f"ssrun: {shown}: the port is taken; choose another, or look who has it: ss -ltnp 'sport = :{port}'"
    )
    assert fetch(running) == PAGE


def test_two_that_serve_different_things(image: Path, running: Command) -> None:
    with listening(image, *LOCAL) as other:
        assert fetch(other) == fetch(running) == PAGE


def test_connections_of_one_that_has_ended_are_no_obstacle(image: Path, running: Command) -> None:
    with running.connect() as connection:
        connection.sendall(GET % b"/")
        everything(connection)  # we ended first: TIME-WAIT is ours
    assert running.end() == 0
    with listening(image, "--listen", f"127.0.0.1:{running.addresses[0][1]}") as again:
        assert fetch(again) == PAGE


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ((), 2, "say where to serve: --iface NAME for an interface, or --listen ADDR:PORT for the kernel's TCP"),
        (("--listen", ":8080", "--iface", "eth0"), 2, "--iface and --listen are two ways to serve: leave one out"),
        (("--listen", "8080"), 2, "'8080' is no address and port; write 127.0.0.1:8080, [::1]:8080"),
        (("--listen", "::1:8080"), 2, "'::1:8080' is no address and port"),
        (("--listen", "example.org:80"), 2, "'example.org:80' is no address and port"),
        (("--listen", "127.0.0.1:65536"), 2, "is no address and port"),
        (("--listen", "192.0.2.1:8080"), 1, "192.0.2.1:8080: this host has no such address; `ip addr` shows"),
        (("--listen", ":1080", "--listen", "[::1]:1080"), 1, "--listen [::1]:1080 is what --listen :1080 listens on"),
        (("--listen", "127.0.0.1:1080") * 2, 1, "--listen 127.0.0.1:1080 is what --listen 127.0.0.1:1080 listens"),
        (LOCAL * 65, 1, "at most 64 addresses can be listened on"),
    ],
)
def test_what_makes_no_sense_is_told(image: Path, options: tuple[str, ...], status: int, says: str) -> None:
    assert says in refused(image, *options, status=status)


@pytest.mark.parametrize(
    "options",
    [
        ("--address", "192.0.2.1/24"),
        ("--host-address", "192.0.2.1/24"),
        ("--port", "80"),
        ("--backend", "auto"),
        ("--superframe", "44"),
        ("--congestion", "cubic"),
        ("--pacing",),
        ("--arena", "1G"),
        ("--resident",),
        ("--tx", "memcpy"),
        ("--pcapng", "x"),
        ("--pcapng-snaplen", "128"),
        ("--pcapng-buffer", "64M"),
        ("--no-address-check",),
        ("--wait-for-interface",),
        ("--wake", "power"),
        ("--busy-poll",),
    ],
    ids=lambda options: options[0],
)
def test_what_is_the_kernel_s_is_refused(image: Path, options: tuple[str, ...]) -> None:
    line = refused(image, *LOCAL, *options, status=2)
    assert line == f"Error: {options[0]} is for --iface; with --listen the kernel's TCP does that: leave it out"


def test_each_option_has_been_thought_of() -> None:
    """Whoever adds one says whether it makes sense over sockets."""
    both = {
        "access_log",
        "access_log_format",
        "access_log_sample",
        "metrics",
        "config",
        "image",
        "listen",
        "workers",
        "as_json",
        "version",
        "profile_path",
        "no_verify_content",
        "max_connections",
        "name",
    }
    both |= {"keep_alive", "request_timeout", "send_timeout", "drain_timeout", "swap_timeout"}
    assert {parameter.name for parameter in cli.main.params} == both | {"iface"} | NOT_WITH_LISTEN.keys()


@pytest.mark.parametrize(
    ("text", "endpoint", "shown"),
    [
        ("127.0.0.1:80", Endpoint("127.0.0.1", 80), "127.0.0.1:80"),
        ("[2001:DB8::0]:65535", Endpoint("2001:db8::", 65535), "[2001:db8::]:65535"),
        ("[fe80::1%eth0]:80", Endpoint("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
        ("localhost:8080", Endpoint("localhost", 8080), "localhost:8080"),
        (":0", Endpoint("", 0), ":0"),
    ],
)
def test_where_to_listen(text: str, endpoint: Endpoint, shown: str) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == shown


@pytest.mark.parametrize(
    "text", ["", ":", "80", "a:80", "127.0.0.1", "127.0.0.1:-1", "127.0.0.1:+1", "[::1]", "::1:80"]
)
def test_where_not_to_listen(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_endpoint(text)


def test_a_store_too(tmp_path: Path) -> None:
    """`sskv` serves as `ssrun` does."""
    (tmp_path / "store.json").write_text(json.dumps({"key": "value", "large": "x" * 100_000}))
    with listening(tmp_path / "store.json", *LOCAL, module="ssrun.kv") as command, command.connect() as connection:
        connection.sendall(b"get key large none\r\nquit\r\n")
        large = b"VALUE large 0 100000\r\n" + b"x" * 100_000
        assert everything(connection) == b"VALUE key 0 5\r\nvalue\r\n" + large + b"\r\nEND\r\n"
        assert command.end() == 0


def test_a_profile(image: Path, tmp_path: Path) -> None:
    with listening(image, *LOCAL, "--profile", str(tmp_path / "profile.json")) as command:
        for _ in range(3):
            fetch(command)
        assert command.end() == 0
    profile = json.loads((tmp_path / "profile.json").read_text())
    # The file's answer is that of its folder.
    assert {(route["path"], route["requests"], route["copies"]) for route in profile["routes"]} == {
        ("/", 3, 0),
        ("/index.html", 3, 0),
    }


@pytest.mark.parametrize("how", ["longer", "cut short"])
def test_an_image_that_is_written_to_ends_it(image: Path, tmp_path: Path, how: str) -> None:
    copy = tmp_path / "copy.img"
    copy.write_bytes(image.read_bytes())
    with listening(copy, *LOCAL) as command:
        with command.connect() as connection, contextlib.suppress(ConnectionError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            connection.sendall(GET % b"/large.bin")
            connection.recv(1000)
            os.truncate(copy, copy.stat().st_size + (4096 if how == "longer" else -LARGE_BYTES // 2))
            if how == "cut short":
                everything(connection)
            command.process.wait(DEADLINE_S)
        assert command.end() == 1
        assert "put a new image in its place with mv, and start ssrun again" in command.said
        assert command.said.count("\n") == 1


def test_a_large_answer_to_several_slow_readers(running: Command, image: Path) -> None:
    expected = hashlib.sha256(fetch(running, b"/large.bin")).hexdigest()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(running.connect()) for _ in range(8)]
        digests = {connection: hashlib.sha256() for connection in connections}
        for connection in connections:
            connection.sendall(GET % b"/large.bin")
        heads = dict.fromkeys(connections, b"")
        open_ = list(connections)
        while open_:
            for connection in list(open_):
                piece = connection.recv(100_000)
                if not piece:
                    open_.remove(connection)
                elif not heads[connection].endswith(b"\r\n\r\n"):
                    head, mark, rest = (heads[connection] + piece).partition(b"\r\n\r\n")
                    heads[connection] = head + mark
                    digests[connection].update(rest)
                else:
                    digests[connection].update(piece)
        assert {digest.hexdigest() for digest in digests.values()} == {expected}


def test_ten_thousand_connections_one_after_the_other(running: Command) -> None:
    """In the end there is nothing left of them."""
    fds = Path(f"/proc/{running.process.pid}/fd")
    before = len(list(fds.iterdir()))
    for number in range(10_000):
        with socket.create_connection(running.addresses[0]) as connection:
            if number % 4:
                connection.sendall(KEPT)
                assert connection.recv(1000).endswith(PAGE)
    assert until(lambda: len(list(fds.iterdir())) == before)
    running.end()
    counters = running.stopped["counters"]
    assert counters["sockets_accepted"] == counters["tcp_opened"] == counters["tcp_closed"] == 10_000
    assert counters["http_requests"] == 7_500


def test_a_thousand_connections_at_once(image: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with listening(image, *LOCAL) as command, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(command.connect()) for _ in range(1000)]
        for _ in range(2):
            for connection in connections:
                connection.sendall(KEPT)
            for connection in connections:
                data = b""
                while not data.endswith(PAGE):
                    data += connection.recv(1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes(image: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))

    with listening(image, *LOCAL, "--workers", "1", preexec_fn=limit) as command:
        assert command.event["max_connections"] < 200
        (warning,) = command.event["warnings"]
        assert warning.startswith(f"only {command.event['max_connections']} connections for each worker")
        with contextlib.ExitStack() as stack:  # the longest idle ones make room, and nobody waits
            for _ in range(300):
                connection = stack.enter_context(command.connect())
                connection.sendall(KEPT)
                assert connection.recv(1000).endswith(PAGE)
        command.end()
        assert "sockets_paused_descriptors" not in command.stopped["counters"]


def test_no_more_files_may_be_open(image: Path) -> None:
    """Accepting waits until there is one again; nothing spins, and it is told."""
    with listening(image, *LOCAL, "--workers", "1") as command, contextlib.ExitStack() as stack:
        fds = Path(f"/proc/{command.process.pid}/fd")
        first = stack.enter_context(command.connect())
        first.sendall(KEPT)
        assert first.recv(1000).endswith(PAGE)
        most = max(int(fd.name) for fd in fds.iterdir()) + 1
        resource.prlimit(command.process.pid, resource.RLIMIT_NOFILE, (most, most))
        waiting = stack.enter_context(command.connect())
        waiting.sendall(KEPT)
        told = command.line()
        assert (told["event"], told["reason"]) == ("connections-wait", "descriptors")
        first.sendall(KEPT)  # who is there is served
        assert first.recv(1000).endswith(PAGE)
        before = cpu_ticks(command.process.pid)
        waiting.settimeout(1)
        with pytest.raises(TimeoutError):
            waiting.recv(1000)
        assert cpu_ticks(command.process.pid) - before < os.sysconf("SC_CLK_TCK") / 2
        first.close()
        waiting.settimeout(DEADLINE_S)
        assert waiting.recv(1000).endswith(PAGE)
        command.end()
        assert 1 <= command.stopped["counters"]["sockets_paused_descriptors"] < 1000


def test_it_sleeps_when_there_is_nothing_to_do(running: Command) -> None:
    """With connections open."""
    with running.connect() as connection:
        connection.sendall(KEPT)
        assert connection.recv(1000).endswith(PAGE)
        before = switches(running.process.pid)
        connection.settimeout(2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert switches(running.process.pid) - before < 100


def switches(pid: int) -> int:
    """How often threads have slept."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    lines = [line for task in tasks for line in (task / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
