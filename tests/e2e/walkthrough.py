"""Runs the pages of docs/ that are to be followed: every command in a `console` block, in the page's order, in namespaces of the
test's own, and compares what it prints with what the page shows.

A line that begins with `$ ` is a command, `^C` stops the one that goes on, and what follows is the output. `...` stands for what
differs from one machine to the next: for a part of a line, or in a line of its own for any number of lines. What a page says about
a block stands above it, in a comment that no reader sees:

    <!-- terminal: elsewhere -->    where it runs: `here`, `second` (on the same machine), or `elsewhere`, on another one
    <!-- goes on -->                its last command goes on, until ^C or the end of the page
    <!-- file: site.yaml -->        it is no command but what the file holds, relative to the folder that the page is followed in
    <!-- status: 1 -->              of its last command, where that is not 0
    <!-- first: command -->         what the reader has done already
    <!-- not run: why -->
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.net import START_S, Namespace, until

BLOCK = re.compile(r"^((?:<!-- [^\n]* -->\n)*)```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"<!-- (terminal|goes on|status|first|file|not run)(?:: (.*?))? -->")
DONE = re.compile(r"^\x01(\d+)\n", re.MULTILINE)
# Pages use sudo, and what `make setup` installs; the tests run as root, and beside it. Into a pipe curl would tell its progress.
PROFILE = f"""sudo() {{ "$@"; }}
export HOME=$PWD/home PATH={Path(sys.executable).parent}:$PATH LC_ALL=C.UTF-8 COLUMNS=100
mkdir -p home work; echo no-progress-meter > home/.curlrc; cd work
"""


@dataclass
class Step:
    """A command of a page, or ^C."""

    line: int  # of the page, for messages
    terminal: str
    command: str
    expected: str
    goes_on: bool
    status: int


@dataclass
class File:
    """What a file of a page holds."""

    line: int
    name: str
    text: str


def steps(page: Path) -> Iterator[Step | File]:
    """What is to be done, in order."""
    text = page.read_text()
    for block in BLOCK.finditer(text):
        comments, language, body = block.groups()
        said = dict(DIRECTIVE.findall(comments))
        assert len(said) == comments.count("<!--"), f"{page.name}: {comments!r}"
        line = text.count("\n", 0, block.start(3)) + 1
        if "first" in said:
            yield Step(line, "here", said["first"], "", False, 0)
        if "file" in said:
            yield File(line, said["file"], body)
        elif language == "console" and "not run" not in said:
            yield from commands(body, line, said)


def commands(body: str, line: int, said: dict[str, str]) -> Iterator[Step]:
    """Those of a block."""
    parts = re.split(r"^(?=\$ |\^C$)", body, flags=re.MULTILINE)
    assert parts.pop(0) == "", f"line {line}: output before a command"
    for number, part in enumerate(parts):
        command = re.match(r"(?:[^\n]*\\\n)*[^\n]*\n", part)
        assert command is not None
        last = number == len(parts) - 1
        words = command[0].removeprefix("$ ").strip()
        status = int(said.get("status", 0)) if last else 0
        terminal = said.get("terminal", "here")
        yield Step(line, terminal, words, part[command.end() :], last and "goes on" in said, status)
        line += part.count("\n")


def is_like(expected: str, shown: str) -> bool:
    """Whether an output is what a page says."""
    pattern = ""
    for line in expected.strip("\n").splitlines():
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*?".join(map(re.escape, line.rstrip().split("..."))) + r"[ ]*\n"
    return re.fullmatch(pattern, shown.strip("\n") + "\n" if shown.strip("\n") else "") is not None


class Terminal:
    """A shell in a namespace."""

    def __init__(self, space: Namespace, folder: Path) -> None:
        self.shell = space.popen(
            "bash", "--norc", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=folder, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        self.output = ""
        self.seen = 0  # of the output, has been compared
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.busy = False
        self._write(f"{PROFILE}printf '\\001%d\\n' $?\n")
        # Else what the profile runs could be taken for what goes on.
        assert until(lambda: DONE.search(self.output) is not None, START_S), self.output

    def _read(self) -> None:
        assert self.shell.stdout is not None
        while data := os.read(self.shell.stdout.fileno(), 65536):
            self.output += data.decode().replace("\r", "")

    def _write(self, text: str) -> None:
        assert self.shell.stdin is not None
        self.shell.stdin.write(text)
        self.shell.stdin.flush()

    def say(self, step: Step) -> None:
        """Runs a step and compares."""
        if step.command == "^C":
            assert self.busy, f"line {step.line}: nothing goes on in {step.terminal}"
            self._interrupt(f"line {step.line}")
        else:
            assert not self.busy, f"line {step.line}: another command goes on in {step.terminal}"
            self.output, self.seen = "", 0
            self._write(f"{step.command}\nprintf '\\001%d\\n' $?\n")
        self.busy = step.goes_on
        where = f"line {step.line}: $ {step.command}"
        if step.goes_on:
            assert until(lambda: is_like(step.expected, self.output), START_S), f"{where}\n{self.output}"
            self.seen = len(self.output)
            return
        until(lambda: DONE.search(self.output) is not None, 60)
        ended = DONE.search(self.output)
        assert ended is not None, f"{where} does not end\n{self.output}"
        shown = self.output[self.seen : ended.start()]
        assert is_like(step.expected, shown), f"{where}\nshows\n{shown}\nthe page says\n{step.expected}"
        assert int(ended[1]) == step.status, f"{where}: status {ended[1]}\n{shown}"

    def _interrupt(self, where: str) -> None:
        """As the terminal does: all that runs in the shell, not the shell."""
        children = Path(f"/proc/{self.shell.pid}/task/{self.shell.pid}/children").read_text().split()
        assert children, f"{where}: what should go on has ended\n{self.output}"
        for child in children:
            os.kill(int(child), signal.SIGINT)

    def end(self) -> None:
        if self.busy:
            self._interrupt("the end of the page")
            until(lambda: DONE.search(self.output) is not None, START_S)
        assert self.shell.stdin is not None
        self.shell.stdin.close()
        try:
            self.shell.wait(START_S)
        except subprocess.TimeoutExpired:
            self.shell.kill()
            self.shell.wait()
        self.reader.join()


def follow(page: Path, folder: Path, here: Namespace, elsewhere: Namespace) -> int:
    """Does what a page says; how many commands that were."""
    terminals: dict[str, Terminal] = {}
    count = 0
    try:
        for step in steps(page):
            if isinstance(step, File):
                path = folder / "work" / step.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(step.text)
                continue
            if step.terminal not in terminals:
                terminals[step.terminal] = Terminal(elsewhere if step.terminal == "elsewhere" else here, folder)
            terminals[step.terminal].say(step)
            count += 1
    finally:
        for terminal in terminals.values():
            terminal.end()
    return count
