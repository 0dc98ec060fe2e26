"""The same requests to nginx, h2o, Caddy and ssrun, byte for byte, side by side."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from pathlib import Path

import brotli
import pytest
import zstandard

from tests.e2e.exchanges import CASES
from tests.host import build
from tests.net import Running, another_server, nginx_command, run, serving, unpacked, veth_pair

ROOT = Path(__file__).resolve().parents[2]
MODIFIED_S = 784111777
CODED = b"text\n" * 400
FIELDS = ("Content-Range", "Content-Length", "Content-Encoding", "Allow", "Location", "Vary")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each of them serves."""
    made = tmp_path_factory.mktemp("files")
    files = {
        "a.txt": b"0123456789" * 5,
        "other.txt": b"9876543210" * 5,
        "copied.txt": b"0123456789" * 5,
        "empty.txt": b"",
        "sub/index.html": b"<title>sub</title>",
        "c/t.txt": CODED,
        "c/t.txt.gz": gzip.compress(CODED, mtime=0),
        "c/t.txt.br": brotli.compress(CODED),
        "c/t.txt.zst": zstandard.compress(CODED),
    }
    for name, data in files.items():
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_bytes(data)
        os.utime(made / name, (MODIFIED_S, MODIFIED_S))
    os.utime(made / "copied.txt", (MODIFIED_S + 60, MODIFIED_S + 60))
    return made


# Each with what was compressed beforehand, where it can, and a second's patience.
NGINX_HTTP = """
types { text/plain txt; text/html html; }
gzip_static on; gzip_vary on;
client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s;
"""
H2O = """
listen: {{host: 0.0.0.0, port: 80}}
user: root
num-threads: 1
http1-request-timeout: 1
hosts:
  default:
    paths:
      /: {{file.dir: "{root}"}}
      /c: {{file.dir: "{root}/c", file.send-compressed: ON}}
"""
CADDY = """
{{
    admin off
    auto_https off
    servers {{
        timeouts {{
            read_header 1s
            read_body 1s
            idle 1s
        }}
    }}
}}
:80 {{
    root * {root}
    file_server {{
        precompressed zstd br gzip
    }}
}}
"""
OPTIONS = ("--request-timeout", "1", "--keep-alive", "1")
VERSIONS = {"nginx": "-v", "h2o": "-v", "caddy": "version"}


def program(name: str) -> str:
    """Where a server is: installed, or unpacked by .ci/setup."""
    found = unpacked(name, VERSIONS[name])
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def command(name: str, root: Path, scratch: Path) -> list[str]:
    """What starts a server of a folder."""
    if name == "nginx":
        return nginx_command(root, scratch, http=NGINX_HTTP)
    config = scratch / f"{name}.conf"
    config.write_text({"h2o": H2O, "caddy": CADDY}[name].format(root=root))
    if name == "h2o":
        return [program("h2o"), "-c", str(config)]
    own = [f"{variable}={scratch}" for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")]
    return ["env", *own, program("caddy"), "run", "--adapter", "caddyfile", "--config", str(config)]


def summary(answer: str, shown: tuple[str, ...]) -> str:
    """Status and fields; a length only where it is not of an error's page, and of several parts their number."""
    if not answer.startswith("HTTP/1."):
        return "a body"
    head, _, body = answer.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    status = first.split()[1]
    fields = {line.partition(":")[0].title(): line.partition(":")[2].strip() for line in lines}
    if fields.get("Content-Type", "").startswith("multipart/byteranges"):
        fields["Content-Length"] = f"{len(re.findall('(?i)content-range:', body))} parts"
    if status[0] != "2":
        fields.pop("Content-Length", None)
    if "Vary" in fields:
        fields["Vary"] = fields["Vary"].title()
    return " ".join([status, *(f"{name}={fields[name]}" for name in shown if name in fields)])


def summaries(name: str, data: str) -> str:
    """Of every answer on a connection."""
    shown = ("Accept-Ranges",) if name.startswith("Accept-Ranges") else FIELDS
    pieces = re.split(r"(?=HTTP/1\.[01] \d{3} )", data)
    return "; ".join(summary(piece, shown) for piece in pieces if piece) or "nothing"


def answers(server: Running, scratch: Path) -> dict[str, str]:
    def ask(requests: list[str]) -> list[str]:
        (scratch / "requests.json").write_text(json.dumps(requests))
        script = Path(__file__).with_name("raw.py")
        done = server.client.run(sys.executable, script, server.hosts[0], scratch / "requests.json")
        found: list[str] = json.loads(done.stdout)
        return found

    (plain,) = ask([CASES["get"].request])
    tag = next(line[6:] for line in plain.split("\r\n") if line.lower().startswith("etag: "))
    found = ask([case.request.replace("TAG", tag) for case in CASES.values()])
    return {name: summaries(name, data) for name, data in zip(CASES, found, strict=True)}


@pytest.mark.parametrize("server", VERSIONS)
def test_another_server_answers_as_the_table_says(folder: Path, tmp_path: Path, server: str) -> None:
    program(server)
    with veth_pair() as spaces, another_server(*spaces, *command(server, folder, tmp_path)) as running:
        found = answers(running, tmp_path)
    assert found == {name: case.theirs.get(server, case.ours) for name, case in CASES.items()}


@pytest.mark.parametrize("way", ["tap", "sockets"])
def test_ours_answers_as_the_table_says(folder: Path, tmp_path: Path, way: str) -> None:
    with serving(build(folder, tmp_path / "x.img"), way, *OPTIONS) as running:
        found = answers(running, tmp_path)
    assert found == {name: case.ours for name, case in CASES.items()}


def test_a_server_that_lacks_a_library_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, status in (("whole", 0), ("lacking", 127)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert unpacked("whole", "--version") == str(tmp_path / "whole")
    assert unpacked("lacking", "--version") is unpacked("absent", "--version") is None


def test_every_difference_has_its_reason() -> None:
    for name, case in CASES.items():
        assert bool(case.theirs) == (len(case.why) > 5), name
        assert case.ours not in case.theirs.values(), name
        assert set(case.theirs) <= set(VERSIONS), name


@pytest.mark.parametrize("server", VERSIONS)
def test_http_md_says_which_version_was_measured(server: str) -> None:
    done = run(program(server), VERSIONS[server])
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    assert found is not None
    assert f"{server.title() if server == 'caddy' else server} {found[0]}" in (ROOT / "docs" / "http.md").read_text()
