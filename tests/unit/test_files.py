"""Small files: read by several processes, and their answers made by C, with the same bytes as one by one."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sscc import build
from sscc.errors import SsccError
from sscc.image import bulk, writer
from sscc.image.bulk import BODY_BYTES_MAX, FILES_MAX
from sscc.image.framer import BATCH_BYTES
from sscc.sources import scan
from sscc.sources.cache import Cache
from sscc.sources.scan import CHUNK_FILES, EXTENT_BYTES, SMALL_BYTES, Scanner, _Scan
from sscc.sources.source import stamp

SETTLED_S = 1_700_000_000
TYPES = ("html", "css", "txt", "bin", "js", "json", "tar.gz")

MANIFEST = """
version: 1
mtu: {mtu}
families: [{families}]
sites:
  - hosts: [one.example]
    root: site
    listing: true
    clean_urls: true
    encodings: {{make: [gzip, zstd], min_bytes: 100}}
    rules:
      - {{match: "/a/**", headers: {{X-A: "Content-Length: 5"}}, cache: 1h}}
      - {{match: "/b/**", copies: 3, hot: true}}
      - {{match: "/**/*7.txt", mime: "text/x-seven", cors: {{expose: [X-A]}}}}
      - {{match: "/c/**", copies: 64}}
      - {{match: "/*", headers: {{X-Long: "{long}"}}}}
    redirects: [{{from: /old/*, to: /a/}}]
    rewrites: {{/app/*: /a/0.html}}
    responses: {{/gone: {{status: 410, body: none}}, /fixed: {{file: site/a/3.txt}}}}
  - hosts: ["*"]
    roots: [{{path: other}}, {{path: site/a, at: /copy}}]
    server: false
    copies: 2
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Folders of files of all sizes, equal ones among them, and times of all kinds."""
    chance = random.Random(1)
    top = tmp_path / "site"
    sizes = (9, 10, 99, 100, 999, 1000, 1400, 5000, 9999, 10_000, BODY_BYTES_MAX, BODY_BYTES_MAX + 1)
    for folder in ("a", "b", "c", "d/e"):
        (top / folder).mkdir(parents=True)
        for number in range(60):
            path = top / folder / f"{number}.{chance.choice(TYPES)}"
            size_bytes = chance.choice(sizes)
            data = chance.randbytes(size_bytes) if number % 3 else b"equal" * chance.choice([1, 2])
            path.write_bytes(data)
            time_s = SETTLED_S if number % 4 else chance.choice([0, -1, 1, 951_782_400, 4_102_444_799])
            os.utime(path, (time_s, time_s))
    for number in (0, 3):
        for folder in ("a", "b", ""):
            (top / folder / f"{number}.html").write_bytes(b"page")
            (top / folder / f"{number}.txt").write_bytes(b"page")
    (tmp_path / "other").mkdir()
    for number, data in enumerate((b"1", b"22", b"", b"9" * 9, b"9" * 10)):
        (tmp_path / "other" / f"{number}.txt").write_bytes(data)
    (top / "index.html").write_bytes(b"index")
    (top / "b" / "index.html").write_bytes(b"index of b")
    return tmp_path


def built(source: Path, target: Path, cache: Cache | None = None) -> dict[str, object]:
    """What is said of a build of target."""
    summary = vars(build.build(source, target, lambda *_: None, cache))
    return {name: value for name, value in summary.items() if name != "files_hashed"}


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BODY_BYTES_MAX", -1)


@pytest.mark.parametrize(("mtu", "families"), [(1500, "ipv4, ipv6"), (640, "ipv6"), (9000, "ipv4"), (1280, "ipv4")])
def test_answers_made_together_are_those_made_one_by_one(
    site: Path, monkeypatch: pytest.MonkeyPatch, mtu: int, families: str
) -> None:
    manifest = site / "site.yaml"
    manifest.write_text(MANIFEST.format(mtu=mtu, families=families, long="l" * 700))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "4200000000")
    together = built(manifest, site / "together.img")
    one_by_one(monkeypatch)
    assert built(manifest, site / "one.img") == together
    assert (site / "one.img").read_bytes() == (site / "together.img").read_bytes()


def test_more_than_wait_at_once_and_more_than_a_batch_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    count = 4 * FILES_MAX + 7
    for number in range(count):
        (tree / f"{number}.txt").write_bytes(b"%d" % (1000 + number) * (700 + number % 50))  # three frames
        os.utime(tree / f"{number}.txt", (SETTLED_S + number, SETTLED_S + number))
    cuts: list[int] = []
    cut = bulk.Files.cut

    def counting(self: bulk.Files, *numbers: int) -> int:
        cuts.append(cut(self, *numbers))
        return cuts[-1]

    monkeypatch.setattr(bulk.Files, "cut", counting)
    together = built(tree, tmp_path / "together.img")
    assert count - 20 < sum(cuts) < count
    assert len(cuts) > 4
    assert (tmp_path / "together.img").stat().st_size > 3 * BATCH_BYTES
    cuts.clear()
    one_by_one(monkeypatch)
    assert built(tree, tmp_path / "one.img") == together
    assert not cuts
    assert (tmp_path / "one.img").read_bytes() == (tmp_path / "together.img").read_bytes()


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files for several chunks, to be read by three processes, and old enough that changes show."""
    monkeypatch.setattr(scan, "FORK_FILES", 1)
    monkeypatch.setattr("sscc.sources.cache.RACY_NS", -1 << 60)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    found = []
    for number in range(4 * CHUNK_FILES + 7):
        found.append(tmp_path / str(number))
        found[-1].write_bytes(b"%d" % number)
    return found


def no_process_is_left() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def test_several_processes_see_what_there_is(wanted: list[Path]) -> None:
    """What can't be read is left to others; what is large is not read, what was just written not remembered."""
    gone, loop, folder, pipe, large, largest, empty = range(5, 12)
    for number in (gone, folder, pipe):
        wanted[number].unlink()
    to_a_loop(wanted[loop])
    wanted[folder].mkdir()
    os.mkfifo(wanted[pipe])
    wanted[large].write_bytes(bytes(SMALL_BYTES + 1))
    wanted[largest].write_bytes(bytes(SMALL_BYTES))
    wanted[empty].write_bytes(b"")
    told: list[tuple[int, int]] = []
    scans = list(Scanner(64 << 20, lambda *how: told.append(how)).scan([str(path) for path in wanted]))
    assert no_process_is_left()
    assert told[-1] == (len(wanted), len(wanted))
    assert len(scans) == len(wanted)
    for number, (path, file_scan) in enumerate(zip(wanted, scans, strict=True)):
        if number in (gone, loop, folder, pipe):
            assert file_scan is None
            continue
        assert file_scan is not None
        assert file_scan.stamp == stamp(path.stat())
        data = None if number == large else path.read_bytes()
        assert file_scan.data == data
        assert file_scan.sha256 == (None if data is None else hashlib.sha256(data).hexdigest())
        assert file_scan.stat_is_stable == (number != large)


def test_there_are_no_more_processes_than_they_have_chunks(
    wanted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    forked = []
    fork = _Scan._fork
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    monkeypatch.setattr(_Scan, "_fork", lambda self: forked.append(fork(self)) or forked[-1])
    scans = list(Scanner(64 << 20, lambda *_: None).scan([str(path) for path in wanted]))
    assert None not in scans
    assert len(forked) == -(-len(wanted) // CHUNK_FILES) - 1


def test_looks_are_told_while_others_look(wanted: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the files' order, however late others are."""
    file_scan, here = _Scan._scan, os.getpid()
    wait_here, go_on = os.pipe()

    def slow(self: _Scan, chunk: int) -> None:
        if os.getpid() != here and chunk > 0:
            os.read(wait_here, 1)
        file_scan(self, chunk)

    monkeypatch.setattr(_Scan, "_scan", slow)
    scans = Scanner(64 << 20, lambda *_: None).scan([str(path) for path in wanted])
    first = next(scans)
    assert not no_process_is_left()
    os.write(go_on, bytes(len(wanted)))
    assert first is not None
    assert first.sha256 == hashlib.sha256(wanted[0].read_bytes()).hexdigest()
    assert [file_scan is not None and file_scan.data for file_scan in scans] == [
        path.read_bytes() for path in wanted[1:]
    ]
    assert no_process_is_left()
    os.close(wait_here)
    os.close(go_on)


def test_what_was_just_written_is_not_settled(wanted: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sscc.sources.cache.RACY_NS", 1 << 60)
    scans = list(Scanner(64 << 20, lambda *_: None).scan([str(path) for path in wanted]))
    assert all(
        file_scan is not None and file_scan.data is not None and not file_scan.stat_is_stable for file_scan in scans
    )


@pytest.mark.parametrize("extents", [0, 1, 3, 40])
def test_there_is_room_for_so_much(wanted: list[Path], extents: int) -> None:
    """Of all files that a looker looks at, in whichever site. All are hashed."""
    scanner = Scanner(extents * EXTENT_BYTES, lambda *_: None)
    kept_bytes = 0
    for _ in range(2):
        for path in wanted[: len(wanted) // 2]:
            path.write_bytes(path.name.encode() * 8000)
        for path, file_scan in zip(wanted, scanner.scan([str(path) for path in wanted]), strict=True):
            assert file_scan is not None
            assert file_scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            if file_scan.data is not None:
                assert file_scan.data == path.read_bytes()
                kept_bytes += len(file_scan.data)
    total = 2 * sum(path.stat().st_size for path in wanted)
    assert total > 4 * EXTENT_BYTES
    assert kept_bytes == total if extents == 40 else kept_bytes <= extents * EXTENT_BYTES
    # Each process may end with an extent in which it has only just begun, and leaves room for less than a file in the others.
    filled = min(extents, 3) - len(os.sched_getaffinity(0))  # 40 is more than all
    assert kept_bytes >= max(filled * (EXTENT_BYTES - SMALL_BYTES), extents > 0)


def test_a_file_that_grows_while_it_is_read_is_not_taken(wanted: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fstat = os.fstat

    def growing(fd: int) -> os.stat_result:
        info = fstat(fd)
        with Path(f"/proc/self/fd/{fd}").open("ab") as file:
            file.write(b"more")
        return info

    monkeypatch.setattr(os, "fstat", growing)
    assert list(Scanner(1 << 30, lambda *_: None).scan([str(path) for path in wanted])) == [None] * len(wanted)


def test_a_file_that_has_more_or_less_than_it_says_is_not_taken() -> None:
    """Some of the kernel's own say 0 or a page."""
    paths = ["/proc/self/status", "/proc/version", "/sys/kernel/uevent_seqnum", __file__]
    wrong = [Path(path).stat().st_size != len(Path(path).read_bytes()) for path in paths]
    assert wrong == [True] * 3 + [False]
    assert [file_scan is None for file_scan in Scanner(1 << 30, lambda *_: None).scan(paths)] == wrong


def test_the_others_end_where_one_fails(wanted: list[Path]) -> None:
    def failing(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Scanner(0, failing).scan([str(path) for path in wanted]))
    assert no_process_is_left()


def test_what_another_process_has_not_done_is_done_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[Path]
) -> None:
    """As if it had been ended for lack of memory."""
    tree = tmp_path
    before = built(tree, tmp_path.parent / "before.img")
    monkeypatch.setattr(_Scan, "_scan", lambda *_: None)
    assert built(tree, tmp_path.parent / "after.img") == before


def test_a_process_that_is_killed_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[Path]
) -> None:
    """What it had begun is done here."""
    before = built(tmp_path, tmp_path.parent / "before.img")
    read, here = _Scan._read, os.getpid()

    def killed(self: _Scan, number: int, fd: int, began_ns: int) -> None:
        read(self, number, fd, began_ns)
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(_Scan, "_read", killed)
    assert built(tmp_path, tmp_path.parent / "after.img") == before
    assert no_process_is_left()
    assert (tmp_path.parent / "after.img").read_bytes() == (tmp_path.parent / "before.img").read_bytes()


def to_a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def to_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "can't be read: No such file or directory"),
    "no file": (to_a_pipe, "neither a file nor a folder (a device, socket or pipe); exclude it"),
    "unreadable": (to_a_loop, "can't be read: Too many levels of symbolic links"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_another_when_a_process_reads_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[Path], change: str
) -> None:
    """And the old image stays as it was, with nothing beside it."""
    images = tmp_path.parent / f"{tmp_path.name}-images"
    images.mkdir()
    (images / "x.img").write_bytes(b"old")
    make, expected = CHANGES[change]
    scans = _Scan.scans

    def late(self: _Scan) -> Any:
        make(wanted[300])
        return scans(self)

    monkeypatch.setattr(_Scan, "scans", late)
    with pytest.raises(SsccError) as raised:
        built(tmp_path, images / "x.img")
    assert str(raised.value) == f"{wanted[300]}: {expected}"
    assert no_process_is_left()
    assert [each.name for each in images.iterdir()] == ["x.img"]
    assert (images / "x.img").read_bytes() == b"old"


@pytest.mark.parametrize("made", [b"", b"longer" * 10])
def test_a_file_that_changes_before_it_is_looked_at_is_what_it_is_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[Path], made: bytes
) -> None:
    scans = _Scan.scans

    def late(self: _Scan) -> Any:
        wanted[300].write_bytes(made)
        os.utime(wanted[300], (SETTLED_S, SETTLED_S))  # what is newer than the build is said to be as old
        return scans(self)

    monkeypatch.setattr(_Scan, "scans", late)
    before = built(tmp_path, tmp_path.parent / "before.img")
    monkeypatch.undo()
    assert built(tmp_path, tmp_path.parent / "after.img") == before
    assert (tmp_path.parent / "after.img").read_bytes() == (tmp_path.parent / "before.img").read_bytes()


@pytest.mark.parametrize("module", ["sources.scan._Scan._scan", "image.framer.Framer.add_files"])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, module: str) -> None:
    """Of a terminal, which sends it to all processes; while files are read, and while they are cut."""
    tree, images, scratch = (tmp_path / name for name in ("tree", "images", "scratch"))
    for folder in (tree, images, scratch):
        folder.mkdir()
    for number in range(4 * CHUNK_FILES):
        (tree / f"{number}.txt").write_bytes(b"%d" % number)
    folder, file, kind, function = module.split(".")
    program = f"""
import os, signal, sys
from sscc.cli.commands import main
from sscc.{folder} import {file}
from sscc.sources import scan
scan.FORK_FILES = 1
os.sched_getaffinity = lambda _: {{0, 1, 2}}
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
here = os.getpid()
def interrupted(*_):
    if os.getpid() == here:
        os.killpg(0, signal.SIGINT)
    signal.pause()
{file}.{kind}.{function} = interrupted
main()
"""
    command = [sys.executable, "-c", program, "build", "--no-cache", str(tree), "-o", str(images / "x.img")]
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen(command, start_new_session=True, env=environment, stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(60) != 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert list(images.iterdir()) == []
    assert list(scratch.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
