"""`ssrun check`: what would keep `ssrun` from serving, without serving."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from ssrun import check, cli, listen
from ssrun.ports import privileges

from tests import warm
from tests.host import build

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SSRUN_")}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("hello")
    return build(folder, tmp_path_factory.mktemp("image") / "site.img")


def checked(*words: str | Path, status: int, env: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """What is found, for programs and for people: both say the same."""
    env = ENVIRONMENT | (env or {})
    done, shown = (warm.run("ssrun.cli", "check", *words, *more, env=env) for more in (["--json"], []))
    assert (done.returncode, done.stderr) == (status, "")
    problems = json.loads(done.stdout)["problems"]
    assert shown.returncode == status
    lines = shown.stderr.splitlines()
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert f" {problem['severity']}: {problem['message']}" in line
        assert problem["help"] in line
    assert shown.stdout.endswith(": good\n") == (status == 0)
    return [(problem["severity"], problem["message"]) for problem in problems]


def test_what_is_good(image: Path, tmp_path: Path) -> None:
    assert checked(image, "--listen", "127.0.0.1:0", status=0) == []
    path = tmp_path / "site.toml"
    path.write_text(f"image = '{image}'\nlisten = 'localhost:0'\njson = true\n")
    assert checked("--config", path, status=0) == []


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("lisen = ':80'\nport = 0\nimage = 'x.img'\n")
    assert checked("--config", path, status=1, env={"SSRUN_PROT": "1"}) == [
        ("error", "unknown option lisen"),
        ("error", "port: 0 is not in the range 1<=x<=65535"),
        ("error", "no option is called like the environment variable SSRUN_PROT"),
        ("error", f"{tmp_path}/x.img: can't be read: No such file or directory"),
    ]


def test_where_a_problem_is(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("\nport = 0\n")
    done = warm.run("ssrun.cli", "check", "--config", path, "--json", env=ENVIRONMENT)
    problem = json.loads(done.stdout)["problems"][0]
    assert (problem["file"], problem["line"]) == (str(path), 2)


def test_a_command_line_that_is_wrong_is_told_as_ever() -> None:
    done = warm.run("ssrun.cli", "check", "--prot", "80", env=ENVIRONMENT)
    assert done.returncode == 2
    assert "No such option '--prot'" in done.stderr


def test_options_that_do_not_go_together(image: Path) -> None:
    found = checked(image, "--listen", ":0", "--port", "81", status=1)
    assert [severity for severity, _ in found] == ["error"]
    assert found[0][1].startswith("--port is for --iface")


def test_neither_image_nor_place() -> None:
    assert [message[:21] for _, message in checked(status=1)] == ["say what to serve: ss", "say where to serve: -"]


def test_an_image_that_is_damaged_is_told(image: Path, tmp_path: Path) -> None:
    data = bytearray(image.read_bytes())
    data[4300] ^= 1
    (tmp_path / "bad.img").write_bytes(data)
    found = checked(tmp_path / "bad.img", "--listen", ":0", status=1)
    assert len(found) == 1
    assert found[0][1].startswith(f"{tmp_path}/bad.img: ")


def test_addresses_that_are_not_here(image: Path) -> None:
    found = checked(image, "--listen", "192.0.2.77:0", "--listen", "203.0.113.9:0", status=1)
    assert found == [
        ("error", "192.0.2.77:0: this host has no such address"),
        ("error", "203.0.113.9:0: this host has no such address"),
    ]


def test_a_port_that_is_taken_is_perhaps_the_one_that_is_to_be_started_again(image: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = checked(image, "--listen", f"127.0.0.1:{port}", status=0)
    assert found == [("warning", f"127.0.0.1:{port}: the port is taken")]


def test_an_address_twice_is_told(image: Path) -> None:
    assert len(checked(image, "--listen", "127.0.0.1:9", "--listen", ":9", status=1)) == 1


def test_it_listens_to_nobody(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects meanwhile is refused, not accepted and then reset."""

    def never(*_: Any) -> None:
        raise AssertionError("it listens")

    monkeypatch.setattr(socket.socket, "listen", never)
    assert listen.check([listen.Endpoint("127.0.0.1", 0)]) == []


def test_an_interface_that_is_not_there(image: Path) -> None:
    found = checked(image, "--iface", "never0", status=1)
    assert ("error", "no interface never0") in found
    found = checked(image, "--iface", "never0", "--wait-for-interface", status=int(os.geteuid() != 0))
    assert ("warning", "no interface never0") in found


def test_a_user_and_folders_that_are_not_there(image: Path, tmp_path: Path) -> None:
    words = ("--user", "no-such-user", "--pcapng", tmp_path / "no" / "x.pcapng", "--profile", tmp_path / "not" / "x")
    found = [message for _, message in checked(image, "--iface", "never0", *words, status=1)]
    assert found[0].startswith("--profile ")
    assert found[1].startswith("--user no-such-user")
    assert found[2].startswith("--pcapng ")


def test_a_capture_to_replay(image: Path, tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(b"")
    good = f"pcap:{tmp_path}/in.pcap:{tmp_path}/out.pcap"
    assert checked(image, "--iface", good, "--address", "192.0.2.1", status=0) == []
    assert len(checked(image, "--iface", f"pcap:{tmp_path}/no.pcap:/no/out.pcap", status=1)) == 3
    assert len(checked(image, "--iface", "pcap:x", status=1)) == 1


@pytest.mark.parametrize(
    ("row", "needed"),
    [
        ("`tap:NAME`", privileges.TAP),
        ("packet, `--address`", privileges.PACKET),
        ("packet, shared", privileges.PACKET_SHARED),
        ("packet, shared, with tcx", (*privileges.PACKET_SHARED, *privileges.TCX)),
        ("AF_XDP, `--address`", privileges.AFXDP),
        ("AF_XDP, shared", privileges.AFXDP_SHARED),
    ],
)
def test_the_rights_are_those_of_the_table(row: str, needed: tuple[str, ...]) -> None:
    """Which test_privileges.py shows to be those that it takes."""
    text = (ROOT / "docs" / "operations.md").read_text()
    found = re.search(rf"^\| {re.escape(row)} \| (.*?) \|", text, re.MULTILINE)
    assert found is not None
    assert set(re.findall(r"`(CAP_\w+)`", found[1])) == set(needed)


def test_a_right_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    monkeypatch.setattr(privileges, "STATUS", status)
    held = [name for name in privileges.CAPABILITIES if name != "CAP_NET_ADMIN"]
    status.write_text(f"CapEff:\t{sum(1 << privileges.CAPABILITIES[name] for name in held):016x}\n")
    looked = check.Check()
    looked.options(check.Options("tap:never0"), check.Limits(), None)
    assert "this process lacks CAP_NET_ADMIN" in [problem.message for problem in looked.problems]


def test_check_has_the_options_that_serving_has() -> None:
    serving = {parameter.name for parameter in cli.main.params} - {"version"}
    assert {parameter.name for parameter in cli.main.commands["check"].params} == serving
