"""What an operator tells a running ssrun, several of them on one host, and one that may not do all it should."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.net import BACKENDS, Namespace, namespace, needs, serving, ssrun, ssrun_command, veth_pair

pytestmark = needs("curl", "setpriv")

OWN = ("--address", "10.213.0.77/24")
WAYS = {
    "tap": ("--iface", "tap:sand0"),
    "shared packet": ("--iface", "srv0", "--backend", "packet"),
    "shared afxdp": ("--iface", "srv0", "--backend", "afxdp"),
    "own packet": ("--iface", "srv0", "--backend", "packet", *OWN),
    "own afxdp": ("--iface", "srv0", "--backend", "afxdp", *OWN),
}


def line_of(space: Namespace, image: Path, *options: str) -> str:
    """What ssrun says that does not start."""
    done = space.run(*ssrun_command(image, *options), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_second_one_that_would_serve_the_same_is_told_which_is_there(image: Path, way: str) -> None:
    with veth_pair() as (server, client), ssrun(image, server, client, *WAYS[way]) as running:
        said = line_of(server, image, *WAYS[way])
        assert f"ssrun (pid {running.process.pid})" in said
        assert "already" in said
        assert running.stop() == 0
    with veth_pair() as (server, client):  # and after a SIGKILL nothing is left of it
        for _ in range(2):
            with ssrun(image, server, client, *WAYS[way]) as running:
                running.process.kill()
                running.process.wait()


def test_af_xdp_and_another_port_of_the_interface(image: Path) -> None:
    with veth_pair() as (server, client), ssrun(image, server, client, *WAYS["shared afxdp"]) as running:
        said = line_of(server, image, *WAYS["shared afxdp"], "--port", "81")
        assert said.startswith(f"ssrun: ssrun (pid {running.process.pid}) serves srv0 through AF_XDP already")


def test_two_that_serve_different_things_are_no_matter(image: Path) -> None:
    with (
        veth_pair() as (server, client),
        ssrun(image, server, client, *WAYS["own packet"]),
        ssrun(image, server, client, "--iface", "srv0", "--address", "10.213.0.78/24"),
        ssrun(image, server, client, *WAYS["shared packet"]),
        ssrun(image, server, client, *WAYS["shared packet"], "--port", "81"),
    ):
        for place in ("10.213.0.77", "10.213.0.78", "10.213.0.1", "10.213.0.1:81"):
            assert "small" in client.run("curl", "-sS", f"http://{place}/").stdout


SQUAT = """
import socket, sys, time
sock = socket.socket(socket.AF_UNIX)
sock.bind("\\0sandstorm/tap/sand0")
sock.listen()
print(flush=True)
time.sleep(60)
"""


def test_a_stranger_who_takes_the_lock_s_name_keeps_nobody_from_serving(image: Path) -> None:
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set", "-all")
    with namespace("squat") as space:
        squatter = space.popen(*nobody, "/usr/bin/python3", "-c", SQUAT, stdout=subprocess.PIPE)
        try:
            assert squatter.stdout is not None
            assert squatter.stdout.readline() == "\n"
            with ssrun(image, space, space, *WAYS["tap"]) as running:
                assert running.stop() == 0
        finally:
            squatter.kill()
            squatter.communicate()


@pytest.mark.parametrize("backend", BACKENDS)
def test_signals_are_answered(image: Path, backend: str) -> None:
    with serving(image, backend) as running:
        assert running.process.stdout is not None
        assert "small" in running.client.run("curl", "-sS", f"http://{running.hosts[0]}/").stdout
        for number, event in ((signal.SIGHUP, "reloaded"), (signal.SIGUSR1, "counters")):
            running.process.send_signal(number)
            said = json.loads(running.process.stdout.readline())
            assert said["event"] == event
        assert said["counters"]["http_requests"] == 1
        assert "small" in running.client.run("curl", "-sS", f"http://{running.hosts[0]}/").stdout
        assert running.stop() == 0
    assert running.stopped["counters"]["http_requests"] == 2


def test_signals_are_answered_for_people(image: Path) -> None:
    with namespace("people") as space:
        command = [word for word in ssrun_command(image, *WAYS["tap"]) if word != "--json"]
        process = space.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        while not (line := process.stdout.readline()).startswith("serving http://["):
            pass
        space.run("curl", "-gfsS", line.split()[1])  # so that frames have been received
        process.send_signal(signal.SIGHUP)
        assert process.stderr.readline().startswith(f"ssrun: note: the file is the same as before: {image}: ")
        process.send_signal(signal.SIGUSR1)
        name, value = process.stdout.readline().split()
        assert name == "eth_rx_frames"
        assert int(value) > 0
        process.terminate()
        output, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (0, "")
    assert output.splitlines()[-1].startswith("stopped: 1 requests")


def test_it_outlives_its_terminal(image: Path) -> None:
    """SIGHUP, and nowhere to write to any more."""
    with namespace("terminal") as space:
        master, slave = pty.openpty()
        command = ["setsid", "--ctty", *ssrun_command(image, *WAYS["tap"])]
        process = space.popen(*command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        with os.fdopen(master) as terminal:
            host = json.loads(terminal.readline())["urls"][0]
        for _ in range(3):
            assert "small" in space.run("curl", "-sS", host).stdout
            process.send_signal(signal.SIGUSR1)
        process.terminate()
        assert process.wait(20) == 0


SLOW_TO_LOAD = """
import time
from ssimage import loader
from ssrun import cli
loader.ImageFile = lambda *_, **__: (print("loading", flush=True), time.sleep(30))
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_before_it_serves_it_ends_as_ever(image: Path, tmp_path: Path, number: signal.Signals) -> None:
    """While it reads a large image, for which a sleep stands here."""
    with namespace("early") as space:
        words = [sys.executable, "-c", SLOW_TO_LOAD, str(image), *WAYS["tap"]]
        process = space.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(number)
        output, error = process.communicate(timeout=20)
    assert (process.returncode, output, error) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_half_file_is_left(image: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Of the profile, which is written at the end, and of the capture."""
    outputs = ("--profile", str(tmp_path / "profile.json"), "--pcapng", str(tmp_path / "seen.pcapng"))
    with serving(image, "tap", *outputs) as running:
        assert "small" in running.client.run("curl", "-sS", f"http://{running.hosts[0]}/").stdout
        running.process.send_signal(number)
        with contextlib.suppress(ProcessLookupError):
            for _ in range(20):
                running.process.send_signal(number)
        assert running.stop() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["profile.json", "seen.pcapng"]
    assert json.loads((tmp_path / "profile.json").read_bytes())["routes"][0]["requests"] == 1


LACKING = [
    ("tap", "-net_admin", "CAP_NET_ADMIN"),
    ("shared packet", "-net_raw", "CAP_NET_RAW"),
    ("shared packet", "-net_bind_service", "CAP_NET_BIND_SERVICE"),
    ("own packet", "-net_raw", "CAP_NET_RAW"),
    ("shared afxdp", "-net_admin", "CAP_NET_ADMIN"),
    ("own afxdp", "-net_raw", "CAP_NET_RAW"),
    ("shared afxdp", "-bpf,-sys_admin", "CAP_BPF"),
    ("shared afxdp", "-ipc_lock", "CAP_IPC_LOCK"),
]


@pytest.mark.parametrize(("way", "dropped", "missing"), LACKING)
def test_what_it_may_not_do_is_told_by_name(image: Path, way: str, dropped: str, missing: str) -> None:
    with veth_pair() as (server, _):
        bounded = ("prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set", dropped)
        done = server.run(*bounded, *ssrun_command(image, *WAYS[way]), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr
    others = {name for _, _, name in LACKING} - {missing, "CAP_IPC_LOCK"}
    assert not any(other in done.stderr for other in others), done.stderr


def test_who_may_not_open_the_tun_device_is_told_its_mode(image: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own /dev/net/tun is another one, for root; and root is not asked for it."""
    locked = "mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 200 && "
    # The Python here may be for root alone to read.
    held = "+net_admin,+dac_read_search"
    locked += f'exec setpriv --reuid 65534 --clear-groups --inh-caps {held} --ambient-caps {held} "$@"'
    with namespace("tun") as space:
        words = [
            sys.executable,
            "-c",
            "import ssrun.ports.tap as p, ssrun.ports.privileges as q; print(q.tun_hint())",
        ]
        done = space.run("unshare", "-m", "sh", "-c", locked, "_", *words, check=False)
    assert done.stdout.startswith("/dev/net/tun has mode crw-------, which keeps user 65534 out")
