"""Names of all kinds: those that a terminal would obey, and those that are as long as may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import sscc, sscc_text

ESCAPE = "\x1b[2Jclear"
LINE = "a\nsscc: error: forged"
BYTE = "x\udcff"
ODD = {ESCAPE: r"\x1b[2Jclear", LINE: r"a\nsscc: error: forged", BYTE: r"x\xff"}


@pytest.fixture
def odd(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of odd names, and its image."""
    folder = tmp_path / "odd"
    for name in ODD:
        (folder / f"of {name}").mkdir(parents=True)
        (folder / f"of {name}" / name).write_text(name.encode("utf-8", "surrogateescape").hex())
    sscc("build", "--no-cache", folder, "-o", tmp_path / "odd.img")
    return folder, tmp_path / "odd.img"


def is_harmless(text: str) -> bool:
    """Does nothing in it reach the terminal but lines?"""
    return all(line.isprintable() for line in text.split("\n")) and "\nsscc: error: forged" not in text


@pytest.mark.long
def test_names_are_escaped_whoever_tells_them(
    odd: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    folder, image = odd
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("x")
    sscc("build", "--no-cache", tmp_path / "other", "-o", tmp_path / "other.img")
    told = [
        sscc_text("inspect", image),
        sscc_text("inspect", "--tree", image),
        sscc_text("diff", image, tmp_path / "other.img", status=1),
        sscc_text("diff", tmp_path / "other.img", image, status=1),
        sscc_text("verify", image, "--manifest", tmp_path / "other", status=1),
    ]
    sscc("extract", image, "-o", tmp_path / "out")
    for name, escaped in ODD.items():
        route = f"/of {name}/{name}".replace("\udcff", r"\xff")
        told += [sscc_text(command, image, route) for command in ("inspect", "explain")]
        assert sscc_text("explain", image, f"/of {escaped}/{escaped}") == told[-1], "as it was shown"
        assert all(f"of {escaped}" in text for text in told[:5]), name
        path = tmp_path / "out" / f"of {name}" / name
        assert path.read_text() == (folder / f"of {name}" / name).read_text()
    told.append(sscc_text("extract", image, "-o", tmp_path / "out", status=1))
    assert all(is_harmless(text) for text in told)


def test_hidden_names_and_links_are_escaped(tmp_path: Path) -> None:
    (tmp_path / f".{LINE}").write_text("")
    (tmp_path / ESCAPE).symlink_to(LINE)
    told = sscc_text("check", tmp_path, status=1)
    assert ODD[LINE] in told
    assert ODD[ESCAPE] in told
    assert is_harmless(told)


@pytest.mark.parametrize("length_bytes", [240, 246, 255])
def test_a_name_as_long_as_may_be_is_built_and_extracted(tmp_path: Path, length_bytes: int) -> None:
    """And an image may have one."""
    name = "n" * length_bytes
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / name).write_text("long")
    sscc("build", "--no-cache", tmp_path / "site", "-o", tmp_path / name)
    for _ in range(2):
        sscc("extract", "--force", tmp_path / name, "-o", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    sscc("build", "--no-cache", tmp_path / "site", "-o", tmp_path / name)
