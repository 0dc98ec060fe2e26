"""Work that is given to several processes: the same results as in one, and their errors as lines."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import pytest
from sscc import build
from sscc.errors import ChangedError, Problem, Report, SsccError
from sscc.sources import encode
from sscc.sources.encode import BATCH_BYTES, Job, Work

FILES = 4


def nothing(*_: object) -> None:
    """Progress of no interest."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Each file is a batch of its own."""
    folder = tmp_path / "site"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.txt").write_text(f"{number:07} " * (BATCH_BYTES // 8))
    return folder


def test_several_processes_do_what_one_does(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "site.yaml"
    manifest.write_text("version: 1\nroot: site\nencodings: {make: [gzip, zstd]}\n")
    many = build.build(manifest, tmp_path / "many.img", nothing)
    monkeypatch.setattr(encode, "BATCH_BYTES", 1 << 40)
    one = build.build(manifest, tmp_path / "one.img", nothing)
    assert vars(many) == vars(one)
    assert (many.files_hashed, many.variants_made) == (FILES, 2 * FILES)
    assert (tmp_path / "many.img").read_bytes() == (tmp_path / "one.img").read_bytes()


def test_an_error_comes_from_another_process_as_it_was(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = encode.prepare

    def late(*words: Any) -> Work:
        (site / "2.txt").unlink()
        return prepare(*words)

    monkeypatch.setattr(encode, "prepare", late)
    with pytest.raises(SsccError, match=r"2\.txt: can't be read: No such file"):
        build.build(site, tmp_path / "x.img", nothing, report=Report(strict=True))
    assert not list(tmp_path.glob("*x.img*"))


def test_a_warning_comes_from_another_process_too(site: Path, tmp_path: Path) -> None:
    (site / "2.txt.gz").write_bytes(gzip.compress(b"other"))
    report = Report()
    build.build(site, tmp_path / "x.img", nothing, report=report)
    assert [problem.message for problem in report.problems] == ["does not hold what 2.txt holds, and is not used"]


def test_errors_survive_being_passed_on() -> None:
    for error in (SsccError(Problem("is wrong", "a", 1, 2)), ChangedError(Path("a"))):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)


def test_the_largest_are_begun_first() -> None:
    jobs = [
        Job(number, Path("x"), size_bytes, None, {}, [], 5)
        for number, size_bytes in enumerate((1, 5 << 20, 2, 9 << 20))
    ]
    assert [[job.number for job in batch] for batch in encode._batches(jobs)] == [[3], [1], [2, 0]]
    assert encode._batches([]) == []
    small = [Job(number, Path("x"), 1, None, {}, [], 5) for number in range(1000)]
    assert [len(batch) for batch in encode._batches(small)] == [256, 256, 256, 232]


def test_no_process_is_asked_for_little(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in site.iterdir():
        path.write_text("small")
    monkeypatch.setattr(encode, "futures", None)
    plan = build.plan(site, site.parent, nothing)
    assert plan.work == Work(files_hashed=FILES)
