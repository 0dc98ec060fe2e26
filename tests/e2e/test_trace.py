"""`ssrun trace` of a real client, on each port and of the kernel's TCP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_restart import kill_server
from tests.host import build
from tests.net import BACKENDS, Running, heed_signals, needs, serving

pytestmark = needs("curl")
FILE_BYTES = 300_000
NAME = f"trace-{os.getpid()}"
END_S = 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "file").write_bytes(os.urandom(FILE_BYTES))
    return build(folder, tmp_path_factory.mktemp("image") / "file.img")


@contextmanager
def tracing(running: Running, client: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Once it has begun."""
    command = [sys.executable, "-m", "ssrun.cli", "trace", client, "--name", NAME, "--json", *options]
    process = running.server.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_signals)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr and process.stderr.read()
        assert json.loads(line)["event"] == "begin"
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it writes to its end. Not by communicate, which does not know of what was read with the first line."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, said = process.stdout.read(), process.stderr.read()
    process.wait(END_S)
    return output, said


def interrupted(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What it has shown, told to end."""
    process.send_signal(signal.SIGINT)
    output, said = ended(process)
    assert (process.returncode, said) == (0, "")
    *shown, end = map(json.loads, output.splitlines())
    assert end == {"event": "end", "segments": len(shown), "missed": 0}
    return shown


def own_address(running: Running, host: str) -> str:
    """A client's, as it speaks to a host."""
    (route,) = json.loads(running.client.run("ip", "-j", "route", "get", host.strip("[]")).stdout)
    return str(route["prefsrc"])


def fetch(running: Running, host: str, *options: str) -> None:
    running.client.run("curl", "-gfsS", "-m", "20", "-o", "/dev/null", *options, f"http://{host}/file")


def covered(shown: list[dict[str, Any]]) -> int:
    """How far the bytes that were sent reach without a gap."""
    end = 1
    for seq, len_bytes in sorted((each["seq"], each["len_bytes"]) for each in shown if each["direction"] == "sent"):
        if seq <= end:
            end = max(end, seq + len_bytes)
    return end - 1


@pytest.mark.parametrize("number", [0, 1], ids=["v4", "v6"])
@pytest.mark.parametrize("backend", [*BACKENDS, "sockets"])
def test_a_client_s_segments_are_shown(image: Path, backend: str, number: int) -> None:
    """All of a connection from its SYN on, in both directions, and of no other client."""
    with serving(image, backend, "--name", NAME) as running:
        host = running.hosts[number]
        address = own_address(running, host)
        with tracing(running, address) as process:
            fetch(running, host, "-H", "Connection: close")
            fetch(running, running.hosts[1 - number])
            shown = interrupted(process)
    assert {each["client"].rpartition(":")[0].strip("[]") for each in shown} == {address}
    first, second, third = shown[:3]
    assert (first["direction"], first["flags"], first["seq"], first["time_s"]) == ("received", ["SYN"], 0, 0)
    assert {"mss", "sack_permitted", "timestamps", "window_scale"} <= first["options"].keys()
    assert (second["direction"], second["flags"], second["seq"], second["ack"]) == ("sent", ["SYN", "ACK"], 0, 1)
    assert (third["direction"], third["flags"], third["seq"], third["ack"]) == ("received", ["ACK"], 1, 1)
    assert third["window_is_scaled"]
    assert len({each["client"] for each in shown}) == 1
    assert covered(shown) > FILE_BYTES
    assert {"sent", "received"} == {each["direction"] for each in shown if "FIN" in each["flags"]}
    times = [each["time_s"] for each in shown]
    assert times == sorted(times)


def test_it_ends_by_itself(image: Path) -> None:
    with serving(image, "tap", "--name", NAME) as running:
        address = own_address(running, running.hosts[0])
        with tracing(running, address, "--count", "3") as process:
            fetch(running, running.hosts[0])
            output, _ = ended(process)
            assert process.returncode == 0
            assert json.loads(output.splitlines()[-1]) == {"event": "end", "segments": 3, "missed": 0}
        with tracing(running, address, "--seconds", "0.1") as process:
            output, _ = ended(process)
            assert process.returncode == 0
            assert json.loads(output) == {"event": "end", "segments": 0, "missed": 0}


def test_one_port_alone_and_one_at_a_time(image: Path) -> None:
    with serving(image, "packet", "--name", NAME) as running:
        host = running.hosts[0]
        address = own_address(running, host)
        with tracing(running, f"{address}:40123") as process:
            fetch(running, host)
            fetch(running, host, "--local-port", "40123")
            command = [sys.executable, "-m", "ssrun.cli", "trace", address, "--name", NAME]
            other = running.server.run(*command, check=False)
            assert (other.returncode, other.stdout) == (1, "")
            assert other.stderr == f"ssrun: {NAME}: somebody traces a client here; one can be traced at a time\n"
            shown = interrupted(process)
        assert {each["client"] for each in shown} == {f"{address}:40123"}
        with tracing(running, address) as process:  # the one before has ended
            interrupted(process)


@pytest.mark.parametrize("backend", ["tap", "afxdp"])
def test_another_server_process_is_traced_on(image: Path, backend: str) -> None:
    with serving(image, backend, "--name", NAME) as running:
        host = running.hosts[0]
        address = own_address(running, host)
        with tracing(running, address) as process:
            fetch(running, host, "--local-port", "40001")
            kill_server(running)
            fetch(running, host, "--local-port", "40002")
            shown = interrupted(process)
    for port in (40001, 40002):
        assert covered([each for each in shown if each["client"] == f"{address}:{port}"]) > FILE_BYTES


def test_what_it_looked_at_has_ended(image: Path) -> None:
    with (
        serving(image, "tap", "--name", NAME) as running,
        tracing(running, own_address(running, running.hosts[0])) as process,
    ):
        assert running.stop() == 0
        output, said = ended(process)
    assert process.returncode == 1
    assert said.startswith(f"ssrun: {NAME}: ")
    assert "Traceback" not in said
    assert json.loads(output)["event"] == "end"
