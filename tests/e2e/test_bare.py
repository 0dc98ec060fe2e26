"""`make bare`, but for the system that it makes: what it needs, and that nothing is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.net import START_S, needs, until

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "bare"
# In the place of mmdebstrap: it begins with a system, and does not end. Its last argument is the folder.
STUB = (
    '#!/bin/bash\nmkdir -p "${@: -1}/usr"\nmount -t tmpfs none "${@: -1}/usr"\ntouch "${@: -1}/usr/file"\nsleep 600\n'
)

pytestmark = needs("unshare", "flock", "git", "setpriv")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "clone" / ".ci").mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "clone" / ".ci")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mmdebstrap").write_text(STUB)
    (tmp_path / "bin" / "mmdebstrap").chmod(0o755)
    return tmp_path / "clone"


def start(clone: Path) -> subprocess.Popen[str]:
    env = os.environ | {"PATH": f"{clone.parent}/bin:{os.environ['PATH']}"}
    return subprocess.Popen(
        [clone / ".ci" / "bare", "true"],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        # A shell can't trap what was ignored when it began, as SIGINT is in what runs in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_one_that_is_stopped(clone: Path, number: int) -> None:
    root = clone / ".cache" / "bare"
    (root / "left by one that was killed").mkdir(parents=True)
    with start(clone) as process:
        assert until(lambda: (root / "usr").is_dir() and len(list(root.iterdir())) == 1, START_S)
        assert not (root / "usr" / "file").exists()  # its mounts are its own
        second = start(clone)
        assert second.communicate()[1].endswith("bare: another one runs; wait for it\n")
        assert second.returncode == 1
        process.send_signal(number)
        assert process.wait(START_S) == 128 + number
    assert not root.exists()


def test_what_is_missing_is_named(clone: Path) -> None:
    env = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", "bash", "-s"],
        input=SCRIPT.read_text(), env=env, capture_output=True, text=True, check=False, cwd="/",  # where anybody may be
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "bare: needs root, to make a system and mount in it; try: sudo make bare",
    )
    (clone.parent / "bin" / "mmdebstrap").unlink()
    tools = clone.parent / "bin"
    for tool in ("bash", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    done = subprocess.run(
        [tools / "bash", clone / ".ci" / "bare"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "bare: mmdebstrap is missing; try: apt-get install mmdebstrap util-linux\n",
    )
