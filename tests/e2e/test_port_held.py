"""The served port in shared mode: what ssrun keeps from the kernel's sockets, and what it leaves to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net import SERVER4, SERVER6, Namespace, needs, serving, ssrun, until, veth_pair

pytestmark = needs("curl", "setpriv")

SHARED = pytest.mark.parametrize("backend", ["packet", "afxdp"])
# It closes first, so that TIME-WAIT is on its side.
SERVE_ONE = f"""
import socket
with socket.create_server(("{SERVER4}", 80)) as listener:
    listener.accept()[0].close()
"""
BE_SERVED = f"""
import socket
with socket.create_connection(("{SERVER4}", 80)) as connection:
    connection.recv(1)
"""
LISTEN = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((sys.argv[1], 80))
    sock.listen()
"""


def time_waits(space: Namespace) -> bool:
    return any(line.split()[3] == "06" for line in space.run("cat", "/proc/net/tcp").stdout.splitlines())


def can_listen(space: Namespace, address: str) -> bool:
    """On port 80, as servers do it."""
    done = space.run("python3", "-c", LISTEN, address, check=False)
    assert done.returncode == 0 or "Address already in use" in done.stderr, done.stderr
    return done.returncode == 0


@SHARED
def test_time_wait_of_a_server_that_has_ended_is_no_obstacle(image: Path, backend: str) -> None:
    with veth_pair() as (server, client):
        other = server.popen("python3", "-c", SERVE_ONE)
        assert until(lambda: client.run("python3", "-c", BE_SERVED, check=False).returncode == 0)
        assert other.wait(10) == 0
        assert time_waits(server)
        with ssrun(image, server, client, "--iface", "srv0", "--backend", backend) as running:
            assert "small" in client.run("curl", "-sS", f"http://{SERVER4}/").stdout
            assert running.stop() == 0


@SHARED
def test_the_port_is_held_at_the_served_addresses_only(image: Path, backend: str) -> None:
    with veth_pair() as (server, client):
        server.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
        server.ip("addr", "add", "10.214.0.1/24", "dev", "other0")
        server.ip("link", "set", "other0", "up")
        with ssrun(image, server, client, "--iface", "srv0", "--backend", backend) as running:
            assert [can_listen(server, each) for each in ("10.214.0.1", "127.0.0.1", "::1")] == [True] * 3
            assert [can_listen(server, each) for each in (SERVER4, SERVER6, "0.0.0.0", "::")] == [False] * 4
            assert "small" in client.run("curl", "-sS", f"http://{SERVER4}/").stdout
            assert running.stop() == 0
        assert all(can_listen(server, each) for each in (SERVER4, SERVER6))


@contextlib.contextmanager
def without_bpf(space: Namespace) -> Iterator[None]:
    """What the namespace starts may load no BPF program, as before Linux 6.6."""
    popen = space.popen
    bounded = ("setpriv", "--bounding-set", "-bpf,-sys_admin,-perfmon")
    space.popen = lambda *command, **how: popen(*bounded, *command, **how)  # type: ignore[method-assign]
    try:
        yield
    finally:
        space.popen = popen  # type: ignore[method-assign]


COULD_NOT_CONNECT = 7  # curl's
RESET = (COULD_NOT_CONNECT, 55, 56)  # before it is connected, when it sends and when it receives


def refused(space: Namespace, host: str) -> int:
    """curl's status: it is told at once, by RST, and not after the time that a lost SYN takes."""
    return space.run("curl", "-sS", "-m", "5", f"http://{host}/", check=False).returncode


@SHARED
def test_the_host_itself_is_refused_at_once(image: Path, backend: str) -> None:
    with serving(image, backend) as running:
        for host in (SERVER4, f"[{SERVER6}]"):
            assert refused(running.server, host) == COULD_NOT_CONNECT
            assert "small" in running.client.run("curl", "-sS", f"http://{host}/").stdout
        assert any("tap:NAME" in note for note in running.event["warnings"])
        assert running.stop() == 0


def test_the_host_itself_is_reset_at_once_where_the_kernel_sees_all(image: Path) -> None:
    """Without tcx the held sockets must listen, or the kernel would answer everybody with RST."""
    with (
        veth_pair() as (server, client),
        without_bpf(server),
        ssrun(image, server, client, "--iface", "srv0", "--backend", "packet") as running,
    ):
        assert running.event["tcx"] is False
        for host in (SERVER4, f"[{SERVER6}]"):
            for _ in range(5):
                assert refused(server, host) in RESET
            assert "small" in client.run("curl", "-sS", f"http://{host}/").stdout
        assert not can_listen(server, SERVER4)
        assert until(lambda: not time_waits(server))
        assert running.stop() == 0
