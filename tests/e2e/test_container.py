"""The container file: no engine runs it here. It is read, what it names is there, and both ways of running it are tried with the rights
that they have in a container. (Its steps in a clean Debian: `make bare BARE="$(python tests/e2e/test_container.py)"`.)"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # so that it runs as a program
from ssrun import cli, config

from tests import warm
from tests.net import Namespace, needs, ssrun, veth_pair

FILE = ROOT / "runtime" / "packaging" / "Containerfile"
TEXT = FILE.read_text()
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT"}
# What engines leave to root in a container unless told otherwise (podman's; Docker's are these and three more).
DEFAULT = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service", "setfcap", "setgid", "setpcap"),
    *("setuid", "sys_chroot"),
)


def steps() -> list[tuple[str, str]]:
    """Instructions with what stands behind each, lines joined."""
    lines = re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines) if word]


def named(instruction: str) -> list[str]:
    return [rest for word, rest in steps() if word == instruction]


def variables() -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S*)", " ".join(named("ENV"))))


def ways() -> list[str]:
    """How it is run, from its own head."""
    return re.findall(r"^podman run .*$", re.sub(r"\\\n#? *", "", TEXT.replace("#     ", "")), re.MULTILINE)


def test_it_is_of_known_instructions_and_of_debian_alone() -> None:
    assert {word for word, _ in steps()} <= INSTRUCTIONS
    assert {rest.split()[0] for rest in named("FROM")} == {"debian:bookworm-slim"}
    assert json.loads(named("ENTRYPOINT")[0]) == ["ssrun"]


def test_it_copies_what_the_package_is_made_of() -> None:
    copied = {name for rest in named("COPY") for name in rest.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    wanted = re.search(r"cp -r (.*) \"\$scratch/\"", (ROOT / "runtime" / "packaging" / "dist").read_text())
    assert wanted is not None
    assert copied >= {*wanted[1].split(), "CHANGELOG.md"}


def test_it_builds_with_what_setup_installs_for_that() -> None:
    to_build = re.search(r"^packages=\((.*?)\)", (ROOT / ".ci" / "setup").read_text(), re.MULTILINE | re.DOTALL)
    assert to_build is not None
    installed = re.search(r"--no-install-recommends (.*)", named("RUN")[0])
    assert installed is not None
    assert set(installed[1].split()) == {*to_build[1].split(), "dpkg-dev"}


def test_its_variables_are_options(tmp_path: Path) -> None:
    known = {config.variable_of(parameter) for parameter in cli.main.params}
    said = variables().keys() | set(re.findall(r"-e (\w+)=", TEXT))
    assert said <= known
    done = warm.run("ssrun.cli", "check", "--json", env=os.environ | variables())
    problems = [
        problem["message"] for problem in json.loads(done.stdout)["problems"] if problem["severity"] == "error"
    ]
    assert problems == ["/srv/site.img: can't be read: No such file or directory"]


@contextlib.contextmanager
def contained(space: Namespace, way: str, *front: str) -> Iterator[None]:
    """What the namespace starts has the variables and the capabilities of a way to run the container."""
    popen: Any = space.popen
    values = variables() | dict(re.findall(r"-e (\w+)=(\S*)", way))
    values.pop("SSRUN_IMAGE")
    env = [f"{name}={value.replace('eth0', 'srv0')}" for name, value in values.items()]
    held = [] if "--cap-drop all" in way else [*DEFAULT, *re.findall(r"--cap-add (\w+)", way.lower())]
    sets = ",".join(["-all", *(f"+{name}" for name in [*held, "dac_read_search"])])  # to read what is root's here
    words = ["env", *env, "setpriv", *front, "--bounding-set", sets, "--inh-caps", sets]
    space.popen = lambda *command, **how: popen(*words, *command, **how)  # type: ignore[method-assign]
    try:
        yield
    finally:
        space.popen = popen  # type: ignore[method-assign]


def test_there_are_two_ways() -> None:
    assert ["--cap-drop all" in way for way in ways()] == [True, False]


@needs("setpriv", "curl")
def test_without_a_right_it_serves_through_the_kernel(image: Path) -> None:
    user = named("USER")[0].partition(":")[0]
    front = ("--reuid", user, "--regid", user, "--clear-groups", "--ambient-caps", "-all,+dac_read_search")
    with (
        veth_pair() as (server, client),
        contained(server, ways()[0], *front),
        ssrun(image, server, client) as running,
    ):
        assert running.event["backend"] == "sockets"
        assert running.event["listen"][0] == "0.0.0.0:8080"
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        assert f"\nUid:\t{user}\t{user}" in status
        assert "small" in server.run("curl", "-sS", "-m", "5", "http://127.0.0.1:8080/").stdout
        assert running.stop() == 0


@needs("setpriv", "curl")
@pytest.mark.parametrize("backend", ["packet", "afxdp"])
def test_with_its_rights_it_serves_an_interface(image: Path, backend: str) -> None:
    options = ("--backend", backend)
    with (
        veth_pair() as (server, client),
        contained(server, ways()[1]),
        ssrun(image, server, client, *options) as running,
    ):
        assert running.event["backend"] == backend
        for host in running.hosts:
            assert "small" in client.run("curl", "-sS", "-m", "5", f"http://{host}/").stdout
        assert running.stop() == 0


if __name__ == "__main__":
    print("set -ex;", "; ".join(re.sub(r"^--mount=\S+ ", "", rest) for rest in named("RUN")), "; ssrun --version")
