"""`sscc` as users run it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from click.testing import CliRunner, Result
from sscc.cli.commands import main

from tests import warm


def sscc(*words: str | Path, status: int = 0, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """In a process of its own. It must end with that status, and without a traceback."""
    done = warm.run("sscc.cli", *words, env=os.environ | (env or {}))
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def sscc_text(*words: str | Path, status: int = 0) -> str:
    """The same; all that it printed."""
    done = sscc(*words, status=status)
    return done.stdout + done.stderr


def sscc_here(*words: str | Path, status: int = 0) -> Result:
    """In this process, for modules that run it often."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == status, done.output
    return done


def in_lines(said: str) -> str:
    """What a command told on stderr, one line for each problem: `place: message; help`."""
    shown = re.sub(r"^(  +\d* \| .*|sscc: \d+ (error|warning)s?.*)\n", "", said, flags=re.MULTILINE)
    return re.sub(r"^(.*?): error: ", r"\1: ", shown.replace("\n  help: ", "; "), flags=re.MULTILINE)
