"""Where outputs are written to: nothing is replaced but a regular file."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.commands import in_lines
from tests.host import Image, build


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("hello")
    return folder


def refused(source: Path, target: Path) -> str:
    """Builds to where it can't be built; what sscc says."""
    done = warm.run("sscc.cli", "build", "-q", source, "-o", target)
    assert done.returncode == 1
    said = in_lines(done.stderr)
    assert said.count("\n") == 1
    return said


def test_a_link_is_followed_and_stays(site: Path, tmp_path: Path) -> None:
    release, current = tmp_path / "release-7.img", tmp_path / "current.img"
    release.write_bytes(b"the image before")
    current.symlink_to(release.name)
    build(site, current)
    assert os.readlink(current) == release.name
    assert Image.read(release).error == 0


def test_a_link_to_nothing_is_followed(site: Path, tmp_path: Path) -> None:
    current = tmp_path / "current.img"
    current.symlink_to("new.img")
    build(site, current)
    assert current.is_symlink()
    assert Image.read(tmp_path / "new.img").error == 0


def test_a_pipe_gets_the_image(site: Path, tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    build(site, pipe)
    reader.join(60)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert got == [build(site, tmp_path / "plain.img").read_bytes()]


@pytest.mark.parametrize("kind", ["device", "socket", "folder"])
def test_all_else_is_refused_and_stays(site: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "device":
        if os.geteuid() != 0:
            pytest.skip("only root can make a device")
        os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # like /dev/null
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(target))
    else:
        target.mkdir()
    before = target.stat()
    assert f"is a {kind}" in refused(site, target)
    assert target.stat() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site", "target"], "nothing is left beside it"


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "sscc.cli", *map(str, words)]


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*words), capture_output=True, check=False, **options)


def test_an_image_goes_to_stdout(site: Path, tmp_path: Path) -> None:
    """And nothing else does; what is said goes to stderr. What stdout is, is not taken in."""
    image = build(site, tmp_path / "plain.img").read_bytes()
    done = run("build", site, "-o", "-", "--no-cache")
    assert done.stdout == image
    assert b"files" in done.stderr
    done = run("build", site, "-o", "-", "--no-cache", "--json")
    assert done.stdout == image
    assert json.loads(done.stderr)["files"] == 1
    for _ in range(2):
        with (site / "own.img").open("ab") as file:
            file.truncate(0)
            subprocess.run(command("build", "-q", site, "-o", "-", "--no-cache"), stdout=file, check=True)
    assert (site / "own.img").read_bytes() == image
    assert sorted(path.name for path in site.iterdir()) == ["index.html", "own.img"]


def test_a_failed_build_writes_nothing_to_stdout(site: Path) -> None:
    os.mkfifo(site / "pipe")
    for words in ((), ("--json",)):
        done = run("build", site, "-o", "-", *words)
        assert done.returncode == 1
        assert done.stdout == b""
        assert b"neither a file nor a folder" in done.stderr


def test_a_capture_goes_to_stdout(site: Path, tmp_path: Path) -> None:
    image = build(site, tmp_path / "x.img")
    run("pcap", image, "-o", tmp_path / "x.pcap")
    done = run("pcap", image, "-o", "-")
    assert done.stdout == (tmp_path / "x.pcap").read_bytes()
    assert b"frames" in done.stderr


def test_a_terminal_gets_no_image(site: Path, tmp_path: Path) -> None:
    image = build(site, tmp_path / "x.img")
    ours, theirs = os.openpty()
    for words in (("build", site), ("pcap", image)):
        done = subprocess.run(command(*words, "-o", "-"), stdout=theirs, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 1
        assert b"stdout: error: is a terminal" in done.stderr
    done = subprocess.run(
        command("build", site, "-o", "-"), stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1), check=False
    )
    assert done.returncode == 1
    assert b"stdout: error: is closed" in done.stderr
    os.close(ours)
    os.close(theirs)


def test_who_does_not_read_all_of_it_is_told(site: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(command("build", site, "-o", "-"), stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    assert done.returncode == 1
    assert in_lines(done.stderr.decode()) == "stdout: can't be written: Broken pipe\n"


def test_a_file_may_be_named_so(site: Path, tmp_path: Path) -> None:
    run("build", site, "-o", "./-", cwd=tmp_path)
    assert Image.read(tmp_path / "-").error == 0


MANIFEST = "version: 1\nroot: site\nencodings: {make: [br], min_bytes: 1}\n"
WAITING = """
import os, signal, sys, time
for number in signal.SIGTERM, signal.SIGHUP:
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore them
from pathlib import Path
from sscc.cli import commands as cli
from sscc.image import writer
from sscc.sources import encode
here = sys.argv.pop(1)
def waiting(*_, **__):
    Path(here, str(os.getpid())).write_text("")
    time.sleep(600)
{place} = waiting
os.sched_getaffinity = lambda _: {{0, 1, 2}}
encode.BATCH_BYTES = 0
cli.main()
"""
PLACES = ("encode.Worker._compress", "writer.Writer.add_routes", "cli.building.plan")


@contextlib.contextmanager
def waiting(tmp_path: Path, place: str, *words: str | Path, processes: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """A build that waits there, with files of its own already."""
    (tmp_path / "site.yaml").write_text(MANIFEST)
    for name in ("a", "b", "c", "d"):
        (tmp_path / "site" / f"{name}.html").write_text(name * 3000)
    for name in ("here", "images", "scratch"):
        (tmp_path / name).mkdir(exist_ok=True)
    program = WAITING.format(place=place)
    words = (tmp_path / "here", "build", tmp_path / "site.yaml", "-o", tmp_path / "images" / "x.img", *words)
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        env=os.environ | {"TMPDIR": str(tmp_path / "scratch")},
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            while len(list((tmp_path / "here").iterdir())) < processes and process.poll() is None:
                time.sleep(0.01)
            yield process
            process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def gone(process: int) -> bool:
    """Has it ended, sooner or later?"""
    for _ in range(1000):
        if not Path(f"/proc/{process}").exists() or "\nState:\tZ" in Path(f"/proc/{process}/status").read_text():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_leaves_nothing(site: Path, tmp_path: Path, place: str, number: signal.Signals) -> None:
    """No file, and no process that goes on, though it went to one of them only."""
    with waiting(tmp_path, place, "--no-cache", processes=2 if "Worker" in place else 1) as process:
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        assert list((tmp_path / "images").iterdir()) == []
        assert list((tmp_path / "scratch").iterdir()) == []
        assert all(gone(int(each.name)) for each in (tmp_path / "here").iterdir())


@pytest.mark.parametrize("hook", ["after_in_parent", "after_in_child"])
def test_a_signal_as_processes_are_made(site: Path, tmp_path: Path, hook: str) -> None:
    """What is raised in what Python calls at a fork goes nowhere; the build ends all the same."""
    (tmp_path / "site.yaml").write_text(MANIFEST)
    for name in ("a", "b", "c", "d"):
        (tmp_path / "site" / f"{name}.html").write_text(name * 3000)
    program = f"os.register_at_fork({hook}=lambda: os.kill(os.getpid(), signal.SIGTERM))\ncli.main()"
    (tmp_path / "here").mkdir()
    program = WAITING.format(place="encode.Worker._compress").replace("cli.main()", program)
    words = [tmp_path / "here", "build", tmp_path / "site.yaml", "-o", tmp_path / "x.img", "--no-cache"]
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False, timeout=60)
    assert done.returncode == (143 if hook == "after_in_parent" else 1)
    assert b"Traceback" not in done.stderr
    assert all(gone(int(each.name)) for each in (tmp_path / "here").iterdir())


def test_a_signal_that_is_ignored_ends_nothing(site: Path, tmp_path: Path) -> None:
    """As under nohup."""
    ignoring = "import signal, sys; signal.signal(1, signal.SIG_IGN); from sscc.cli import commands as cli; from sscc.image import writer as image; import os\nf = image.Writer.finish\ndef hung(*a):\n os.kill(os.getpid(), 1)\n return f(*a)\nimage.Writer.finish = hung\ncli.main()"
    words = ["build", "--no-cache", str(site), "-o", str(tmp_path / "x.img")]
    subprocess.run([sys.executable, "-c", ignoring, *words], check=True)


@pytest.mark.parametrize("tmpfile", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_what_was_left_by_a_killed_build_is_removed_by_the_next(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmpfile: bool, cached: bool
) -> None:
    """But not what one that runs has; nor, of another image, anything."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python"), prepend=os.pathsep)
    (tmp_path / "python").mkdir()
    if not tmpfile:  # as on file systems that have no files without a name
        (tmp_path / "python" / "sitecustomize.py").write_text(
            "import os\nos.O_TMPFILE = os.O_DIRECTORY | os.O_WRONLY\n"
        )
    cache = ("--cache", tmp_path / "cache") if cached else ("--no-cache",)
    images, scratch = tmp_path / "images", tmp_path / "cache" if cached else tmp_path / "scratch"

    def left() -> list[str]:
        folders = [path.name for path in scratch.iterdir() if path.name != "1"]
        return sorted([*(path.name for path in images.iterdir()), *folders])

    with waiting(tmp_path, "writer.Writer.add_routes", *cache) as process:
        running = left()
        assert len(running) == (1 if tmpfile else 2)
        environment = os.environ | {"TMPDIR": str(tmp_path / "scratch")}
        run("build", tmp_path / "site.yaml", "-o", images / "x.img", *cache, env=environment)
        assert left() == sorted([*running, "x.img"])
        process.kill()
        process.wait(60)
        (images / f".sandstorm-{'0' * 16}-{'1' * 16}").write_text("of another image")
        assert len(left()) == len(running) + 2
        run("build", tmp_path / "site.yaml", "-o", images / "x.img", *cache, env=environment)
        assert left() == [f".sandstorm-{'0' * 16}-{'1' * 16}", "x.img"]


def test_processes_end_with_the_one_that_made_them(site: Path, tmp_path: Path) -> None:
    with waiting(tmp_path, "encode.Worker._compress", "--no-cache", processes=2) as process:
        process.kill()
        process.wait(60)
        assert all(gone(int(each.name)) for each in (tmp_path / "here").iterdir())


@pytest.mark.parametrize("limit", [8, 12, 16, 24])
def test_few_open_files_are_an_error_and_no_hang(site: Path, tmp_path: Path, limit: int) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    done = run("build", "--no-cache", site, "-o", tmp_path / "x.img", preexec_fn=limited, timeout=60)
    assert done.returncode == 1
    assert f"only {limit} files may be open at once; allow " in in_lines(done.stderr.decode())
    assert not list(tmp_path.glob("*.img"))


def test_a_low_limit_of_open_files_is_raised_where_it_may_be(site: Path, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 1024))

    assert run("build", "--no-cache", site, "-o", tmp_path / "x.img", preexec_fn=limited).returncode == 0


def test_a_full_disk_is_told_in_one_line(site: Path, tmp_path: Path) -> None:
    """And the image before is as it was."""
    images = tmp_path / "images"
    images.mkdir()
    (site / "large.bin").write_bytes(os.urandom(1 << 20))
    (images / "x.img").write_bytes(b"the image before")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))

    for name in ("x.img", "new.img", "new.img.lz4"):
        done = run("build", "--no-cache", site, "-o", images / name, preexec_fn=limited)
        assert done.returncode == 1
        assert f"{images / name}: can't be written: File too large; make room" in in_lines(done.stderr.decode())
    assert [path.name for path in images.iterdir()] == ["x.img"]
    assert (images / "x.img").read_bytes() == b"the image before"
