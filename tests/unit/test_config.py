"""`ssrun --config FILE` and SSRUN_*: whatever the command line can say, and what is said of mistakes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.core import ParameterSource
from ssrun import cli, config
from ssrun.options import settings

from tests import warm
from tests.host import build
from tests.sockets import listening

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SSRUN_")}
REPLAY = ("--iface", "tap:never0")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("hello")
    return build(folder, tmp_path_factory.mktemp("image") / "site.img")


def context_of(
    *words: str | Path, env: dict[str, str] | None = None, monkeypatch: pytest.MonkeyPatch | None = None
) -> click.Context:
    """What the command has been told."""
    if monkeypatch is not None:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
    return cli.main.make_context("ssrun", [str(word) for word in words])


def written(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text)
    return path


def complaint(path: Path, *words: str | Path, env: dict[str, str] | None = None) -> str:
    """What is said of a file, without its name and with the status of a wrong command line."""
    done = warm.run("ssrun.cli", "--config", path, *words, env=ENVIRONMENT | (env or {}))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.replace(f"ssrun: {path}", "FILE")


# A value that each type of option takes, as a file has it.
SAMPLES: dict[str, Any] = {
    "listen": ["127.0.0.1:8080", "[::1]:8080"],
    "address": ["192.0.2.10/24"],
    "host-address": "192.0.2.11/24",
    "backend": "packet",
    "congestion": "newreno",
    "tx": "memcpy",
    "wake": "power",
    "name": "docs",
    "arena": "512M",
    "pcapng-buffer": 64_000_000,
    "user": "www",
    "iface": "eth0",
    "keep-alive": 12.5,
    "access-log-format": "$status",
    "metrics": "127.0.0.1:9100",
}


def sample(key: str, parameter: click.Parameter) -> Any:
    if key in SAMPLES:
        return SAMPLES[key]
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return True
    if isinstance(parameter.type, click.Path):
        return f"some/{key}"
    return {"integer range": 7, "SECONDS": 7}.get(parameter.type.name, "7")


KEYS = config.parameters(cli.main)


@pytest.mark.parametrize("key", KEYS)
def test_a_file_can_say_what_the_command_line_can(key: str, tmp_path: Path) -> None:
    """Each option, those that will be added too, gets the same value from both."""
    value = sample(key, KEYS[key])
    path = written(tmp_path, f"{key} = {json.dumps(value)}\n")
    name = KEYS[key].name
    assert name is not None
    words: list[str] = []
    for each in value if isinstance(value, list) else [value]:
        type_: Any = KEYS[key].type
        text = str(tmp_path / each) if isinstance(type_, click.Path) else str(each)
        text = type_.beside(text, tmp_path) if hasattr(type_, "beside") else text
        words += [text] if key == "image" else [f"--{key}"] if value is True else [f"--{key}", text]
    by_file, by_words = context_of("--config", path), context_of(*words)
    assert by_file.get_parameter_source(name) is ParameterSource.DEFAULT_MAP
    assert by_file.params == by_words.params
    assert by_file.params[name] != context_of().params[name]


@pytest.mark.parametrize("key", KEYS)
def test_the_environment_can_say_it_too(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = sample(key, KEYS[key])
    text = " ".join(value) if isinstance(value, list) else str(value)
    variable = "SSRUN_" + key.upper().replace("-", "_")
    name = KEYS[key].name
    assert name is not None
    found = context_of(env={variable: text}, monkeypatch=monkeypatch)
    assert found.get_parameter_source(name) is ParameterSource.ENVIRONMENT
    assert found.params[name] != config.parameters(cli.main)[key].get_default(found)


def test_the_command_line_is_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, 'port = 1\nkeep-alive = 11\nname = "file"\nlisten = ["127.0.0.1:1", "127.0.0.1:2"]\n')
    env = {"SSRUN_KEEP_ALIVE": "12", "SSRUN_NAME": "environment", "SSRUN_CONFIG": str(path)}
    found = context_of("--name", "line", "--listen", ":3", env=env, monkeypatch=monkeypatch).params
    assert (found["port"], found["keep_alive"], found["name"]) == (1, 12.0, "line")
    assert [endpoint.port for endpoint in found["listen"]] == [3]  # a list is taken whole from one place
    assert found["send_timeout"] == 60.0


def test_a_site_is_served_by_its_file(image: Path, tmp_path: Path) -> None:
    path = written(tmp_path, f'image = "{os.path.relpath(image, tmp_path)}"\nlisten = "127.0.0.1:0"\njson = true\n')
    with listening(Path(f"--config={path}"), env=ENVIRONMENT) as command:
        assert command.event["image"]["path"].endswith("/site.img")
        with command.connect() as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.")


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("access-log", "x.log", "HERE/x.log"),
        ("access-log", "/x.log", "/x.log"),
        ("access-log", "-", "-"),
        ("access-log", "journald", "journald"),
        ("access-log", "syslog", "syslog"),
        ("access-log", "syslog:127.0.0.1:514", "syslog:127.0.0.1:514"),
        ("metrics", "unix:x.sock", "unix:HERE/x.sock"),
        ("metrics", "unix:/x.sock", "unix:/x.sock"),
        ("metrics", "127.0.0.1:9100", "127.0.0.1:9100"),
        ("pcapng", "x.pcapng", "HERE/x.pcapng"),
    ],
)
def test_paths_begin_where_the_file_is(key: str, value: str, place: str, tmp_path: Path) -> None:
    found = context_of("--config", written(tmp_path, f"{key} = '{value}'\n"))
    assert str(found.params[key.replace("-", "_")]) == place.replace("HERE", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = 80\nmax-conections = 3\n", "FILE:2: unknown option max-conections; did you mean max-connections?\n"),
        ("max_connections = 3\n", "FILE:1: unknown option max_connections; did you mean max-connections?\n"),
        ("--port = 3\n", "FILE:1: unknown option --port; did you mean port?\n"),
        ("zzz = 3\n", "FILE:1: unknown option zzz; `ssrun --help` lists what there is, without the --\n"),
        (
            "[server]\nport = 3\n",
            "FILE:1: there is no section server; write all options at the top of the file, in no section\n",
        ),
        ("config = 'x'\n", "FILE:1: config is for the command line only; leave it out\n"),
        (
            "\nport = 99999\n",
            "FILE:2: port: 99999 is not in the range 1<=x<=65535\n",
        ),
        ("port = 8.5\n", "FILE:1: port: '8.5' is not a valid integer range\n"),
        ("port = true\n", "FILE:1: port: a text or a number is meant; write it as on the command line, in quotes\n"),
        ("pacing = 'yes'\n", "FILE:1: pacing: this is switched on or off; write true or false\n"),
        ("port = [80, 81]\n", "FILE:1: port: one value is meant, not a list; write it without the brackets\n"),
        (
            "wake = 'powr'\n",
            "FILE:1: wake: 'powr' is not one of 'balanced', 'latency', 'power'\n",
        ),
        (
            "address = [\n  '192.0.2.0/24',\n]\n",
            "FILE:1: address: 192.0.2.0/24 is the network's own address; write one of 192.0.2.1 to 192.0.2.254\n",
        ),
        ('name = "a\\u0000b"\n', "FILE:1: name: a NUL character is in it; leave that out\n"),
        (
            "iface = eth0\n",
            'FILE:1:9: this is no TOML: invalid value; texts stand in quotes: iface = "eth0"\n',
        ),
        (
            "port: 80\n",
            "FILE:1:5: this is no TOML: expected '=' after a key in a key/value pair; write NAME = VALUE, as port = 8080 "
            'or iface = "eth0"\n',
        ),
        (
            "port = 1\nport = 2\n",
            "FILE:2:9: this is no TOML: cannot overwrite a value; name each option once; several values are a list: "
            "[..., ...]\n",
        ),
        ("name = '''a\nb\n", "FILE:2: this is no TOML: "),
        ("user = '''\nport = 1\n'''\nport = 0\n", "FILE:4: port: 0 is not in the range 1<=x<=65535\n"),
        ("name = " + "[" * 5000, "FILE: too deeply nested; write a NAME = VALUE a line\n"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: str, tmp_path: Path) -> None:
    said = complaint(written(tmp_path, text), "x.img", *REPLAY)
    assert said == line or (not line.endswith("\n") and said.startswith(line))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    said = complaint(written(tmp_path, "port = 0\nzzz = 1\npacing = 3\n"))
    assert [line.split(":")[1] for line in said.splitlines()] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "FILE: the configuration can't be read: No such file or directory\n"),
        (b"port = 80\nname = '\xff'\n", "FILE:2: bytes that are no text; save it as UTF-8\n"),
        (b"#" * (1 << 20) + b"#", "FILE: this is too large to be a configuration; name a TOML file\n"),
    ],
)
def test_what_is_no_file_of_options_is_told(content: bytes | None, line: str, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    if content is not None:
        path.write_bytes(content)
    assert complaint(path) == line


def test_a_folder_is_told(tmp_path: Path) -> None:
    assert complaint(tmp_path) == "FILE: the configuration can't be read: Is a directory\n"


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes("\ufeffport = 81\r\nname = 'x'\r\n".encode())
    assert context_of("--config", path).params["port"] == 81


def test_options_that_do_not_go_together_are_told_with_where_they_come_from(image: Path, tmp_path: Path) -> None:
    path = written(tmp_path, 'iface = "eth0"\n\nport = 81\n')
    said = complaint(path, image, "--listen", "127.0.0.1:0").splitlines()[-1]
    assert said == (f"Error: --iface and --listen are two ways to serve: leave one out (iface: from {path}:1)")
    path = written(tmp_path, "\nport = 81\n")
    said = complaint(path, image, "--listen", "127.0.0.1:0").splitlines()[-1]
    assert said == (
        f"Error: --port is for --iface; with --listen the kernel's TCP does that: leave it out (port: from {path}:2)"
    )
    path = written(tmp_path, "")
    said = complaint(path, image, *REPLAY, env={"SSRUN_PORT": "http"}).splitlines()[-1]
    assert said == (
        "Error: Invalid value for '--port': 'http' is not a valid integer range (port: from the environment's SSRUN_PORT)"
    )


def test_a_flag_that_is_off_in_the_file_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    """So a file for both ways of serving may say so."""
    found = context_of("--config", written(tmp_path, "pacing = false\nlisten = '127.0.0.1:1'\n"))
    with found:
        options, _ = settings(found.params)
    assert options.listen


def test_without_an_image_it_says_where_to_name_one(tmp_path: Path) -> None:
    said = complaint(written(tmp_path, "listen = '127.0.0.1:0'\n"))
    assert said.endswith("Error: say what to serve: ssrun IMAGE, or `image` in the file of --config\n")


def test_other_commands_take_nothing_from_it() -> None:
    """An `ssrun list` is not to answer in JSON because the service does."""
    env = ENVIRONMENT | {"SSRUN_JSON": "1", "SSRUN_NAME": "no/name"}
    done = warm.run("ssrun.cli", "list", env=env)
    assert done.returncode == 0, done.stderr


def test_unknown_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SSRUN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SSRUN_PROT", "8080")
    monkeypatch.setenv("SSRUN_CONFIG", "x")
    assert [str(problem) for problem in config.unknown_variables(cli.main)] == [
        "no option is called like the environment variable SSRUN_PROT; did you mean SSRUN_PORT?"
    ]
