"""What a package has beside the commands: manual pages and completion, made from the commands."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from tests.net import needs

ROOT = Path(__file__).resolve().parents[2]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def load() -> ModuleType:
    """It is a program of the packages', and of no package itself."""
    spec = importlib.util.spec_from_file_location("share", ROOT / "runtime" / "packaging" / "share.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHARE = load()
PAGES = SHARE.pages("9.9", "2026-01-02")
COMMANDS = {
    whole: command for name, top in SHARE.COMMANDS.items() for whole, command in SHARE.each_command(name, top)
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("share")
    env = os.environ | {"SOURCE_DATE_EPOCH": "1767312000"}
    program = ROOT / "runtime" / "packaging" / "share.py"
    subprocess.run([sys.executable, program, folder], check=True, env=env, timeout=100)
    return folder


def test_each_command_has_a_page_with_all_its_options() -> None:
    assert len(COMMANDS) > 14
    assert len(PAGES) == len(COMMANDS)
    for name, command in COMMANDS.items():
        text = PAGES[f"man/man1/{name.replace(' ', '-')}.1"].replace("\\", "")
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else []:
                assert f"fB{option}fR" in text, (name, option)
            if parameter.envvar:
                assert f"fB{parameter.envvar}fR" in text, (name, parameter.envvar)


def test_the_same_source_makes_the_same_pages(shared: Path) -> None:
    assert '"2026\\-01\\-02"' not in (shared / "man/man1/ssrun.1").read_text()
    assert (shared / "man/man1/ssrun.1").read_text().startswith('.TH "SSRUN" 1 "2026-01-02" "Sandstorm ')


@needs("mandoc")
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_finds_no_fault(name: str, shared: Path) -> None:
    done = subprocess.run(["mandoc", "-T", "lint", shared / name], capture_output=True, text=True, check=False)
    # A page that another one names may be installed nowhere here; and those below are names of ours.
    said = [line for line in done.stdout.splitlines() if "STYLE: referenced manual not found" not in line]
    assert said == []


@needs("man")
@pytest.mark.parametrize("name", PAGES)
def test_man_shows_it(name: str, shared: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-l", shared / name],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MANWIDTH": "80", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    plain = re.sub(r".\x08", "", done.stdout)
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{heading}\n" in plain
    assert "\\" not in plain


def test_roff_takes_what_a_help_text_may_hold() -> None:
    assert SHARE.roff(".x-y `a b` \\ it's ^ ~") == "\\&.x\\-y \\fBa b\\fR \\e it\\(aqs \\(ha \\(ti"
    assert SHARE.roff("'x") == "\\(aqx"


BASH = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
compopt() { printf 'compopt %s\\n' "$*"; }
_ssrun_completion ssrun
printf '%s\\n' "${COMPREPLY[@]}"
"""
# What a completion would show is printed instead.
ZSH = """
compdef() { :; }
_describe() { local name=$3; print -rl -- "${(@)${(@P)name}%%:*}"; }
compadd() { local name=$@[-1]; print -rl -- "${(@P)name}"; }
_path_files() { print "files"; }
script=$1; shift
words=("$@") CURRENT=$#
source $script
_ssrun_completion
"""


def completed(shell: str, shared: Path, folder: Path, *words: str) -> set[str]:
    """What a shell offers behind these words, the last of which is not whole."""
    script = shared / SHARE.COMPLETION[shell].format("ssrun")
    if shell == "bash":
        command: list[str | Path] = ["bash", "-c", BASH, "_", script, *words]
    elif shell == "zsh":
        command = ["zsh", "-f", "-c", ZSH, "_", script, *words]
    else:
        command = ["fish", "--no-config", "-c", f"source {script}; complete -C '{' '.join(words)}'"]
    env = {"PATH": PATH, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=env, timeout=60)
    assert done.stderr == ""
    return {line.partition("\t")[0].strip() for line in done.stdout.splitlines() if line.strip()}


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=needs(shell)) for shell in ("bash", "zsh", "fish")])
def test_a_shell_completes(shell: str, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "site.img").write_text("")
    (tmp_path / "side.txt").write_text("")
    (tmp_path / "bad.toml").write_text("port = 0")

    def offered(*words: str) -> set[str]:
        return completed(shell, shared, tmp_path, "ssrun", *words)

    assert offered("--max-c") == {"--max-connections"}
    assert offered("site.img", "--backend", "af") == {"afxdp"}
    assert {"list", "check", "drain", "site.img"} <= offered("")
    assert offered("dr") == {"drain"}
    assert offered("sit") == {"site.img"}
    assert offered("check", "--max-c") == {"--max-connections"}
    assert offered("--config", "bad.toml", "--wak") == {"--wake"}  # a file that is wrong is no matter meanwhile
    assert offered("drain", "no") == set()


@needs("bash")
def test_files_that_are_no_images_are_completed_where_there_are_no_others(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "old.lz4").write_text("")
    assert {"compopt -o", "default"} == completed("bash", shared, tmp_path, "ssrun", "ol")


@pytest.mark.parametrize("name", ["sscc", "ssrun", "sskv"])
@pytest.mark.parametrize("shell", [pytest.param(shell, marks=needs(shell)) for shell in ("bash", "zsh", "fish")])
def test_a_shell_reads_it(shell: str, name: str, shared: Path) -> None:
    done = subprocess.run(
        [shell, "-n", shared / SHARE.COMPLETION[shell].format(name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
