"""sskv to clients that nobody here wrote, and beside memcached, byte for byte."""

from __future__ import annotations

import json
import random
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.net import (
    SERVER4,
    WAYS,
    Running,
    another_server,
    namespace,
    run,
    serving,
    unpacked,
    veth_pair,
)

CLIENT = Path(__file__).with_name("kv_client.py")
MEMCACHED = unpacked("memcached", "--version")
PORT = 11211
MODULE = "ssrun.kv"


def values() -> dict[str, bytes]:
    chance = random.Random(7)
    sizes = [0, 1, 7, 100, *range(1395, 1412), 5000, 100_000, 900_000]
    return {f"key:{size}": chance.randbytes(size) for size in sizes} | {"lines": b"END\r\nVALUE x 0 1\r\n"}


VALUES = values()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("store")
    for key, value in VALUES.items():
        (made / key).write_bytes(value)
    return made


@pytest.fixture(params=WAYS)
def running(request: pytest.FixtureRequest, folder: Path) -> Iterator[Running]:
    with serving(folder, request.param, module=MODULE, port=PORT) as found:
        yield found


def client(at: Running, mode: str, given: Any, path: Path, host: str | None = None) -> Any:
    """What kv_client.py prints."""
    path.write_text(json.dumps(given))
    address = (host or at.hosts[0]).rsplit(":", 1)[0].strip("[]")
    return json.loads(at.client.run(sys.executable, CLIENT, mode, address, str(PORT), path).stdout)


def test_pymemcache_gets_every_value(running: Running, tmp_path: Path) -> None:
    expected: dict[str, str | None] = {key: value.decode("latin-1") for key, value in VALUES.items()}
    assert len(running.hosts) == 2
    for host in running.hosts:  # IPv4 and IPv6
        found = client(running, "get", [*VALUES, "none"], tmp_path / "keys", host)
        assert found["singly"] == expected | {"none": None}
        assert found["together"] == expected
        assert "read-only" in found["refused"]
        assert found["again"] == expected[next(iter(VALUES))]
        assert found["version"] == "sandstorm"
    assert running.stop() == 0
    counters = running.stopped["counters"]
    assert counters["kv_refused_writes"] == 2
    assert counters["kv_misses"] == 4
    assert not {name for name in counters if name.startswith("kv_bad")}


def test_what_was_sent_is_in_a_capture(folder: Path, tmp_path: Path) -> None:
    """`--pcapng`, with tshark as the judge: it knows memcached's protocol."""
    path = tmp_path / "x.pcapng"
    with serving(folder, "packet", "--pcapng", str(path), module=MODULE) as running:
        found = client(running, "get", ["key:5000"], tmp_path / "keys")
        assert found["singly"] == {"key:5000": VALUES["key:5000"].decode("latin-1")}
        assert running.stop() == 0
    counters = running.stopped["counters"]
    assert counters["capture_frames"] == counters["port_rx_frames"] + counters["port_tx_frames"]
    fields = ["-T", "fields", "-e", "memcache.key", "-e", "memcache.value.length"]
    told = run("tshark", "-n", "-r", path, "-Y", "memcache.value.length", *fields).stdout
    assert "key:5000\t5000" in told.splitlines()


RAW: list[list[str]] = [
    ["get lines\r\n"],
    list("get key:7 lines key:100\r\n"),
    ["get key:7\r\nget none\r\nget key:1 key:0\nversion\r\n" * 50],
    ["get key:5000 ", "key:1400 none\r", "\nget", " key:100000\r\n"],
    ["get " + "key:7 none " * 600 + "\r\n"],
    ["get key:900000\r\n" * 3],
    ["\r\n\n  get   lines  \r\nGET lines\r\nstat\r\nget\r\nget \r\n"],
    ["get " + "k" * 250 + "\r\nget " + "k" * 251 + "\r\n"],
    ["get lines " + "k" * 251 + " lines\r\n"],
    ["get a\tb lines\r\nget lines\rx\r\nget lines\r\r\n\r\r\n"],
    ["get \x80\xff\x7f\r\n\xff\r\n"],
]


@pytest.mark.skipif(MEMCACHED is None, reason="needs memcached, which .ci/setup unpacks, and its libraries")
def test_beside_memcached_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    """But for its version."""
    requests = [[*pieces, "quit\r\n"] for pieces in RAW]
    with veth_pair() as (server, space):
        command = [MEMCACHED, "-u", "root", "-l", SERVER4, "-p", str(PORT)]
        with another_server(server, space, *command, port=PORT) as other:
            given = {key: value.decode("latin-1") for key, value in VALUES.items()}
            assert all(client(other, "set", given, tmp_path / "set").values())
            theirs = client(other, "raw", requests, tmp_path / "raw")
    for backend in WAYS:
        with serving(folder, backend, module=MODULE, port=PORT) as running:
            ours = client(running, "raw", requests, tmp_path / "raw")
        for pieces, our, their in zip(RAW, ours, theirs, strict=True):
            assert our == re.sub(r"VERSION [\d.]+", "VERSION sandstorm", their), (backend, pieces)


def test_what_is_no_request_ends_in_a_line(running: Running, tmp_path: Path) -> None:
    """What the server itself ends: a line too long, a write; and noise, which it does not mind."""
    chance = random.Random(3)
    noise = [[chance.randbytes(400).decode("latin-1"), "\nquit\r\n"] for _ in range(20)]
    ended = [["x" * 10_000], ["get " + "a" * 9000], ["set a 0 0 7\r\nget a\r\n\r\n"], ["delete lines\r\n"]]
    *told, too_long, no_end, stored, deleted = client(running, "raw", [*noise, *ended], tmp_path / "raw")
    assert all(answer.replace("ERROR\r\n", "") == "" for answer in told)
    assert too_long == no_end == "CLIENT_ERROR line too long\r\n"
    assert stored == deleted == "SERVER_ERROR the store is read-only\r\n"
    assert running.stop(signal.SIGINT) == 0
    counters = running.stopped["counters"]
    assert counters["kv_bad_lines"] == counters["kv_refused_writes"] == 2
    assert counters["kv_bad_commands"] >= 20


def test_wrong_usage_gets_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"a": 1}')
    (tmp_path / "good.json").write_text('{"a": "1"}')
    for words, status, said in (
        (["none.json", "--iface", "tap:kv0"], 1, "sskv: none.json: can't be read"),
        (["bad.json", "--iface", "tap:kv0"], 1, "sskv: bad.json: no JSON object of texts"),
        (["good.json", "--iface", "nosuch0"], 1, "sskv: no interface nosuch0"),
        (["good.json"], 2, "--iface"),
        (["good.json", "--iface", "tap:kv0", "--mtu", "100"], 2, "--mtu"),
    ):
        with namespace("usage") as space:
            done = space.run(sys.executable, "-m", MODULE, *words, check=False, cwd=tmp_path)
        assert done.returncode == status
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_the_command_is_installed() -> None:
    done = run(Path(sys.executable).with_name("sskv"), "--help")
    assert "memcached" in done.stdout
