"""What others make of the access log: GoAccess and lnav read each line of it, whatever a client has said."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.host import build
from tests.net import unpacked, until
from tests.sockets import listening

REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/7.88.1\r\nReferer: http://x/y?z\r\n",
    b"GET /nothing?a=%20b HTTP/1.1\r\nHost: a\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-3\r\n",
    b'GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: " 200 0 "-" "\\\x1b[2J\xc3\xa9\xff\t\r\n',
    b"GET /" + b"x" * 700 + b" HTTP/1.1\r\nHost: a\r\n",
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<title>small</title>")
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


def logged(image: Path, log: Path, name: str) -> list[bytes]:
    """A log in a format that has a name; the statuses in it."""
    options = ("--listen", "127.0.0.1:0", "--workers", "1", "--access-log", str(log), "--access-log-format", name)
    statuses = []
    with listening(image, *options) as command:
        for request in REQUESTS:
            with command.connect() as connection:
                connection.sendall(request + b"Connection: close\r\n\r\n")
                statuses.append(b"".join(iter(lambda c=connection: c.recv(65536), b""))[9:12])  # type: ignore[misc]
        assert until(lambda: log.read_bytes().count(b"\n") == len(REQUESTS))
    return statuses


def program(name: str, *version: str) -> str:
    found = unpacked(name, *version)
    if found is None:
        pytest.skip(f"needs {name}, which .ci/setup unpacks")
    return found


@pytest.mark.parametrize("name", ["common", "combined", "caddy"])
def test_goaccess_reads_each_line(image: Path, tmp_path: Path, name: str) -> None:
    goaccess = program("goaccess", "--version")
    statuses = logged(image, tmp_path / "log", name)
    options = (f"--log-format={name.upper()}", "--no-global-config", "-o", str(tmp_path / "out.json"))
    subprocess.run([goaccess, str(tmp_path / "log"), *options], check=True, capture_output=True, timeout=60)
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["general"]["valid_requests"], report["general"]["failed_requests"]) == (len(REQUESTS), 0)
    kinds = {each["data"][0]: each["hits"]["count"] for each in report["status_codes"]["data"]}
    assert kinds == {kind: sum(status[:1] == kind.encode() for status in statuses) for kind in kinds}


@pytest.mark.parametrize("name", ["common", "combined"])
def test_lnav_reads_each_line(image: Path, tmp_path: Path, name: str) -> None:
    lnav = program("lnav", "-V")
    statuses = logged(image, tmp_path / "log", name)
    query = ";select c_ip, sc_status from access_log"
    command = [lnav, "-n", "-c", query, "-c", ":write-csv-to -", str(tmp_path / "log")]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environment)
    rows = [line.split(",") for line in done.stdout.splitlines() if line.startswith("127.0.0.1,")]
    assert [row[1].encode() for row in rows] == statuses
