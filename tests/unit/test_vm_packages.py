"""What is unpacked for a guest: where it can't be had, that is said, and nothing is left half done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import packages

MIRROR = "http://192.0.2.80/debian/"  # nobody is asked: apt-get is played


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and an apt-get that does what the test says."""
    for name, path in (("CACHE", ""), ("READY", "ready"), ("LACKING", "lacking")):
        monkeypatch.setattr(packages, name, tmp_path / "vm" / path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path / "vm"


def play(cache: Path, what: str) -> None:
    """indextargets names a mirror; with all else apt-get does this."""
    program = cache.parent / "bin" / "apt-get"
    program.write_text(f'#!/bin/sh\n[ "$1" = indextargets ] && echo {MIRROR} {packages.codename()} && exit\n{what}\n')
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("what", "why", "limit_s"),
    [
        ("echo 'E: no such suite' >&2; exit 100", "apt-get: E: no such suite", 60),
        ("sleep 600 & wait", "apt-get took too long", 1),
        ("exit 0", "apt-cache", 60),  # and then there is no kernel
    ],
)
def test_a_reason_is_told(cache: Path, what: str, why: str, limit_s: float) -> None:
    play(cache, what)
    with pytest.raises(packages.LackingError, match=why):
        packages.fetch(limit_s)
    assert why in packages.LACKING.read_text()
    assert why in str(packages.lacking())
    assert sorted(path.name for path in cache.iterdir()) == ["lacking", "lock"]


def test_who_never_fetched_is_told_how(cache: Path) -> None:
    assert packages.lacking() == "no kernel and QEMU for a guest (nobody has fetched them); `make vm` fetches them"


def test_a_machine_without_such_a_source_is_told(cache: Path) -> None:
    play(cache, "exit 0")
    program = cache.parent / "bin" / "apt-get"
    program.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(packages.LackingError, match=f"apt has no source of {packages.codename()}"):
        packages.fetch(60)


def test_what_is_there_is_not_fetched_again(cache: Path) -> None:
    play(cache, "exit 1")
    cache.mkdir()
    packages.READY.touch()
    packages.fetch(60)
    assert packages.lacking() is None
