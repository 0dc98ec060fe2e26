"""The build cache: what a second build need not do, shown by what it counts; and that it is never trusted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sscc import build as building
from sscc.errors import SsccError
from sscc.sources.cache import HEADER, RACY_NS, Cache, DigestIndex, default_folder, header, stamp, stat_is_stable

from tests import warm
from tests.commands import in_lines

MANIFEST = "version: 1\nroot: site\nencodings: {make: [br, gzip, zstd], min_gain_percent: 5}\n"
TEXTS, NOISES = 12, 3
CODINGS = 3


def arguments(source: Path, target: Path, *words: str | Path) -> list[str]:
    return ["build", str(source), "-o", str(target), "--json", *map(str, words)]


def command(source: Path, target: Path, *words: str | Path) -> list[str]:
    return [sys.executable, "-m", "sscc.cli", *arguments(source, target, *words)]


def build(source: Path, target: Path, *words: str | Path, stderr: str = "") -> Any:
    done = warm.run("sscc.cli", *arguments(source, target, *words))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" if not stderr else stderr in done.stderr
    return json.loads(done.stdout)


def work(summary: Any) -> tuple[int, int, int]:
    return summary["files_hashed"], summary["variants_made"], summary["variants_reused"]


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site whose files are old enough to be remembered."""
    top = tmp_path_factory.mktemp("settled")
    random_bytes = random.Random(1).randbytes
    (top / "site").mkdir()
    for number in range(TEXTS):
        (top / "site" / f"{number}.txt").write_text(f"line {number} " * 200)
    for number in range(NOISES):
        (top / "site" / f"noise{number}.js").write_bytes(random_bytes(2000))
    (top / "site.yaml").write_text(MANIFEST)
    time.sleep(RACY_NS / 1e9 + 0.2)
    return top


@pytest.fixture
def tree(settled: Path, tmp_path: Path) -> Path:
    """The same files elsewhere."""
    (tmp_path / "site").mkdir()
    for path in (settled / "site").iterdir():
        shutil.copy2(path, tmp_path / "site" / path.name)
    shutil.copy(settled / "site.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def cache(settled: Path, tmp_path: Path) -> Path:
    """A cache that a build of settled has filled."""
    folder = tmp_path / "cache"
    first = build(settled / "site.yaml", tmp_path / "first.img", "--cache", folder)
    assert work(first) == (TEXTS + NOISES, (TEXTS + NOISES) * CODINGS, 0)
    return folder


def entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "1").rglob("*") if path.is_file() and path.parent.name != "trees"]


def test_nothing_is_done_twice(settled: Path, cache: Path, tmp_path: Path) -> None:
    """And the image is that of a build without a cache."""
    again = build(settled / "site.yaml", tmp_path / "again.img", "--cache", cache)
    assert work(again) == (0, 0, (TEXTS + NOISES) * CODINGS)
    without = build(settled / "site.yaml", tmp_path / "without.img", "--no-cache")
    assert work(without) == (TEXTS + NOISES, (TEXTS + NOISES) * CODINGS, 0)
    images = {(tmp_path / name).read_bytes() for name in ("first.img", "again.img", "without.img")}
    assert len(images) == 1
    assert not list(cache.glob("build-*"))


def test_one_changed_file_is_the_only_one_that_is_done_again(settled: Path, cache: Path, tmp_path: Path) -> None:
    changed = settled / "site" / "3.txt"
    before = changed.read_bytes()
    try:
        changed.write_bytes(before[::-1])
        again = build(settled / "site.yaml", tmp_path / "again.img", "--cache", cache)
        assert work(again) == (1, CODINGS, (TEXTS + NOISES - 1) * CODINGS)
        # Of the same size and time as before: only the inode's own time tells.
        changed.write_bytes(before)
        os.utime(changed, ns=(1, 1))
        last = build(settled / "site.yaml", tmp_path / "last.img", "--cache", cache)
        assert work(last) == (1, 0, (TEXTS + NOISES) * CODINGS)
    finally:
        changed.write_bytes(before)


def test_another_checkout_shares_variants(cache: Path, tree: Path) -> None:
    """By content: another path, other inodes. Its files are hashed, nothing is compressed."""
    other = build(tree / "site.yaml", tree / "other.img", "--cache", cache)
    assert work(other) == (TEXTS + NOISES, 0, (TEXTS + NOISES) * CODINGS)


def test_what_does_not_pay_is_remembered_as_a_size(settled: Path, cache: Path, tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in entries(cache)]
    assert sizes.count(HEADER.size) == NOISES * CODINGS
    # Another threshold asks for the bytes.
    (settled / "all.yaml").write_text(MANIFEST.replace("min_gain_percent: 5", "min_gain_percent: 0"))
    build(settled / "all.yaml", tmp_path / "all.img", "--cache", cache)
    (settled / "none.yaml").write_text(MANIFEST.replace("min_gain_percent: 5", "min_gain_percent: 100"))
    none = build(settled / "none.yaml", tmp_path / "none.img", "--cache", cache)
    assert none["variants_made"] == 0
    assert none["variants"] == TEXTS + NOISES


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "magic", "longer"])
def test_a_damaged_entry_is_made_again(settled: Path, cache: Path, tmp_path: Path, damage: str) -> None:
    for path in entries(cache):
        data = path.read_bytes()
        path.unlink()
        if damage == "flip":
            data = data[:-1] + bytes([data[-1] ^ 1])
        elif damage == "truncate":
            data = data[:-1]
        elif damage == "empty":
            data = b""
        elif damage == "magic":
            data = b"X" + data[1:]
        else:
            data += b"X"
        path.write_bytes(data)
    again = build(settled / "site.yaml", tmp_path / "again.img", "--cache", cache)
    assert (
        again["variants_made"] >= TEXTS * CODINGS
    )  # a flipped bit of a size alone can't be seen, nor does it matter
    assert (tmp_path / "again.img").read_bytes() == (tmp_path / "first.img").read_bytes()
    last = build(settled / "site.yaml", tmp_path / "last.img", "--cache", cache)
    assert last["variants_made"] == 0


@pytest.mark.parametrize("damage", ["no JSON", "other JSON", "half"])
def test_a_damaged_memory_is_no_memory(settled: Path, cache: Path, tmp_path: Path, damage: str) -> None:
    (path,) = (cache / "1" / "trees").iterdir()
    text = path.read_bytes().partition(b"\n")[2]
    new = {"no JSON": b"{", "other JSON": b"[]", "half": text[: len(text) // 2]}[damage]
    path.write_bytes(hashlib.sha256(new).hexdigest().encode() + b"\n" + new)
    again = build(settled / "site.yaml", tmp_path / "again.img", "--cache", cache)
    assert work(again) == (TEXTS + NOISES, 0, (TEXTS + NOISES) * CODINGS)
    path.write_bytes(text.replace(b"3.txt", b"4.txt"))
    again = build(settled / "site.yaml", tmp_path / "again.img", "--cache", cache)
    assert again["files_hashed"] == TEXTS + NOISES


@pytest.mark.parametrize("make", ["[br, gzip, zstd]", "[]"], ids=["while compressing", "while framing"])
def test_a_digest_that_is_wrong_after_all_is_forgotten(settled: Path, cache: Path, tmp_path: Path, make: str) -> None:
    """As if a file system had lied about a file's times: the build fails, and the next one mends it."""
    (path,) = (cache / "1" / "trees").iterdir()
    document = json.loads(path.read_bytes().partition(b"\n")[2])
    document["files"]["site/noise0.js"][-1] = hashlib.sha256(b"other").hexdigest()
    text = json.dumps(document).encode()
    path.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    source = settled / "one.yaml"
    source.write_text(MANIFEST.replace("[br, gzip, zstd]", make))
    done = warm.run("sscc.cli", *arguments(source, tmp_path / "again.img", "--cache", cache))
    assert done.returncode == 1
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["file"].endswith("noise0.js")
    assert (problem["message"], problem["help"]) == ("changed while it was read", "build again when it is quiet")
    assert not (tmp_path / "again.img").exists()
    assert not list(tmp_path.glob(".again.img*"))
    assert build(source, tmp_path / "again.img", "--cache", cache)["files_hashed"] == TEXTS + NOISES


def test_a_precompressed_file_is_decoded_once(tree: Path) -> None:
    subprocess.run(["gzip", "-nk", tree / "site" / "1.txt"], check=True)
    time.sleep(RACY_NS / 1e9 + 0.2)
    files = TEXTS + NOISES + 1
    source = tree / "site"
    assert build(source, tree / "a.img", "--cache", tree / "cache")["files_hashed"] == files
    again = build(source, tree / "b.img", "--cache", tree / "cache")
    assert again["files_hashed"] == 0
    (path,) = (tree / "cache" / "1" / "trees").iterdir()
    assert b'"inner": {"gzip:' in path.read_bytes()
    (source / "1.txt").write_text("other")
    done = warm.run("sscc.cli", *arguments(source, tree / "c.img", "--cache", tree / "cache"))
    assert "does not hold what 1.txt holds" in done.stdout


def test_files_written_just_now_are_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    info = path.stat()
    assert not stat_is_stable(info, info.st_ctime_ns)
    assert not stat_is_stable(info, info.st_ctime_ns + RACY_NS)
    assert stat_is_stable(info, info.st_ctime_ns + RACY_NS + 1)
    digests = DigestIndex(tmp_path / "digests")
    digests.record("x", stamp(info), "00")
    digests.save()
    assert DigestIndex(tmp_path / "digests").digest("x", path) == "00"
    os.utime(path, (1, 1))
    assert DigestIndex(tmp_path / "digests").digest("x", path) is None
    assert DigestIndex(tmp_path / "digests").digest("y", path) is None
    path.unlink()
    assert DigestIndex(tmp_path / "digests").digest("x", path) is None


def test_two_builds_at_once(settled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    targets = [tmp_path / f"{number}.img" for number in range(3)]
    builds = [
        subprocess.Popen(command(settled / "site.yaml", target, "--cache", folder, "--cache-size", "1KB"))
        for target in targets
    ]
    assert [each.wait() for each in builds] == [0, 0, 0]
    assert len({target.read_bytes() for target in targets}) == 1


def test_no_cache_where_there_is_no_place_for_one(settled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    note = "sscc: note: "
    done = build(settled / "site.yaml", tmp_path / "x.img", "--cache", tmp_path / "file" / "cache", stderr=note)
    assert done["variants_made"] == (TEXTS + NOISES) * CODINGS
    with pytest.raises(SsccError, match="say --no-cache"):
        Cache.open(tmp_path / "file", 1)


def test_sizes_are_written_as_people_write_them(settled: Path, tmp_path: Path) -> None:
    done = warm.run("sscc.cli", *arguments(settled / "site.yaml", tmp_path / "x.img", "--cache-size", "much"))
    assert (done.returncode, "'much' is no size; write one such as 10GB" in done.stderr) == (2, True)


def test_the_cache_is_where_xdg_says(settled: Path, tmp_path: Path) -> None:
    for environment, folder in (({"XDG_CACHE_HOME": "xdg"}, "xdg"), ({"XDG_CACHE_HOME": ""}, "home/.cache")):
        variables = os.environ | {"HOME": str(tmp_path / "home")}
        variables |= {name: value and str(tmp_path / value) for name, value in environment.items()}
        words = arguments(settled / "site.yaml", tmp_path / "x.img")
        assert warm.run("sscc.cli", *words, env=variables).returncode == 0
        assert (tmp_path / folder / "sandstorm" / "1").is_dir()


def test_nobody_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", classmethod(lambda _: (_ for _ in ()).throw(RuntimeError)))
    with pytest.raises(SsccError, match="no home folder to cache in; name a folder with --cache"):
        default_folder()


def kept(cache: Cache, number: int, scratch: Path, used_s: int) -> None:
    data = bytes([number]) * 10_000
    made = scratch / f"made{number}"
    made.write_bytes(header(len(data), hashlib.sha256(data).digest()) + data)
    cache.keep(str(number), "recipe", made)
    made.unlink()
    os.utime(cache._path(str(number), "recipe"), (used_s, used_s))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache", 30_000)
    with cache.scratch() as name:
        scratch = Path(name)
        for number in range(4):
            kept(cache, number, scratch, 1000 + number)
        entry = cache.find("0", "recipe", scratch / "0")  # so it is the latest now
        assert entry is not None
        assert entry.content is not None
        cache.trim()
        left = [number for number in range(4) if cache.find(str(number), "recipe", scratch / f"again{number}")]
        assert left == [0, 3]
        # What a build has linked stays when another removes the entry.
        Cache.open(tmp_path / "cache", 0).trim()
        assert cache.find("0", "recipe", scratch / "gone") is None
        assert (scratch / "0").read_bytes()[entry.content.offset_bytes :] == bytes(10_000)


def test_what_ended_builds_have_left_goes_too(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache", 30_000)
    old, new = cache.folder / "build-old", cache.folder / "build-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "x").write_bytes(b"x")
    os.utime(old, (1, 1))
    cache.trim()
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("pages", [1, 4, 30])
def test_a_full_cache_is_gone_on_without(settled: Path, tmp_path: Path, pages: int) -> None:
    """Wherever it comes to its end: a disk that holds some pages, in a namespace of its own."""
    plain = build(settled / "site.yaml", tmp_path / "plain.img", "--no-cache")
    (tmp_path / "cache").mkdir()
    words = command(settled / "site.yaml", tmp_path / "x.img", "--cache", tmp_path / "cache")
    mounting = f'mount -t tmpfs -o size={pages * 4096} none {tmp_path}/cache && exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounting, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["build_id"] == plain["build_id"]
    said = "".join(problem["message"] for problem in summary["problems"]) + done.stderr
    assert "No space left on device" in said
    assert "cache" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_no_room_for_temporary_files_is_told(settled: Path, tmp_path: Path) -> None:
    """And where there is none for the cache either, both are."""
    small, full = tmp_path / "small", tmp_path / "full"
    small.mkdir()
    full.mkdir()
    mounting = (
        f'mount -t tmpfs -o size=4096 none {small} && mount -t tmpfs -o size=4096 none {full} && exec "$0" "$@"'
    )
    for cache in (("--no-cache",), ("--cache", full)):
        words = [word for word in command(settled / "site.yaml", tmp_path / "x.img", *cache) if word != "--json"]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mounting, *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"TMPDIR": str(small)},
        )
        assert done.returncode == 1
        assert f"{small}: can't be written: No space left on device; make room, or name" in in_lines(done.stderr)
        assert (f"{full}: warning: the cache can't be written: No space" in done.stderr) == (len(cache) == 2)
        assert not list(tmp_path.glob("*.img"))


def test_an_error_of_another_disk_is_no_error_of_the_cache(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device", "/elsewhere")

    monkeypatch.setattr("sscc.sources.encode.prepare", failing)
    with pytest.raises(OSError, match="elsewhere"):
        building.build(tree / "site.yaml", tree / "x.img", lambda *_: None, Cache.open(tree / "cache", 1 << 30))
