"""An image's file as untrusted input, when it is opened and while it is served."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from random import Random

import lz4.frame
import pytest
from elftools.elf.elffile import ELFFile
from ssimage import loader
from ssimage.loader import ImageError, ImageFile

from tests.host import build
from tests.net import needs, run

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "runtime" / "csrc"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("hello")
    (folder / "large").write_bytes(Random(1).randbytes(3_000_000))
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


def refused(path: Path) -> str:
    """The one line."""
    with pytest.raises(ImageError) as caught:
        ImageFile(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tables_are_not_the_file(image: Path, tmp_path: Path) -> None:
    """Whoever writes to the file once it is open changes nothing of what was checked."""
    path = shutil.copy(image, tmp_path / "x.img")
    with ImageFile(path) as opened:
        names = [name for name in opened.table if name != "slots"]
        before = {name: opened.bytes_of(name) for name in names}
        count, header = opened.header.response_count, bytes(loader.ffi.buffer(opened.header))
        size = path.stat().st_size
        path.write_bytes(b"\xff" * size)
        assert {name: opened.bytes_of(name) for name in names} == before
        assert bytes(loader.ffi.buffer(opened.header)) == header
        assert opened.image.responses[count - 1].status > 0
        os.truncate(path, 0)
        assert {name: opened.bytes_of(name) for name in names} == before
        with pytest.raises(ImageError, match="became shorter"):
            opened.computed_build_id()


def test_a_change_in_place_is_seen_and_a_replacement_is_none(image: Path, tmp_path: Path) -> None:
    path = shutil.copy(image, tmp_path / "x.img")
    with ImageFile(path) as opened:
        opened.check_unchanged()
        shutil.copy(image, tmp_path / "new.img")
        os.replace(tmp_path / "new.img", path)
        opened.check_unchanged()
    with ImageFile(path) as opened:
        shutil.copyfile(image, path)  # the same bytes, but the file was cut short and written
        with pytest.raises(ImageError, match="mv"):
            opened.check_unchanged()


def parts(path: Path) -> list[tuple[int, int]]:
    """Where the file has something: first byte and the one behind the last."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        found = [(0, 64), (elf["e_shoff"], elf["e_shoff"] + 64 * elf["e_shnum"])]
        found += [
            (section["sh_offset"], section["sh_offset"] + section["sh_size"]) for section in elf.iter_sections()
        ]
    return sorted(found)


@pytest.mark.long
def test_padding_is_zeros(image: Path, tmp_path: Path) -> None:
    """Each byte that is in no section; and none stand behind the last."""
    data = image.read_bytes()
    found = parts(image)
    padding = [at for (_, end), (begin, _) in zip(found, found[1:], strict=False) for at in range(end, begin)]
    assert len(padding) > 4000
    path = tmp_path / "x.img"
    for at in [*Random(1).sample(padding, 20), padding[0], padding[-1]]:
        path.write_bytes(data[:at] + b"\1" + data[at + 1 :])
        assert "between its sections" in refused(path)
        done = run(sys.executable, "-m", "sscc.cli", "verify", path, check=False)
        assert done.returncode == 1
        assert "between its sections" in done.stderr
    path.write_bytes(data + b"\1")
    assert "between its sections" in refused(path)
    path.write_bytes(data + bytes(5000))
    assert "between its sections" in refused(path)


def test_sections_do_not_overlap(image: Path, tmp_path: Path) -> None:
    data = bytearray(image.read_bytes())
    with image.open("rb") as file:
        elf = ELFFile(file)
        index = elf.get_section_index(".sandstorm.frames")
        at = elf["e_shoff"] + 64 * index + 24  # sh_offset
        other = elf.get_section_by_name(".sandstorm.slots")["sh_offset"]
    data[at : at + 8] = struct.pack("<Q", other)
    path = tmp_path / "x.img"
    path.write_bytes(data)
    assert "overlap" in refused(path)


@pytest.mark.parametrize(("make", "why"), [(os.mkfifo, "not a regular file"), (os.mkdir, "a folder, not an image")])
def test_what_is_no_file_is_refused(make: object, why: str, tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    make(path)  # type: ignore[operator]
    assert why in refused(path)


@pytest.mark.parametrize("told", [True, False])
def test_what_unpacks_to_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Whether the frame says so in its header or not; of 40 MB a few hundred KB are on the disk."""
    path = tmp_path / "x.img.lz4"
    path.write_bytes(lz4.frame.compress(bytes(40 << 20), store_size=told))
    assert path.stat().st_size < 400_000
    memory = tmp_path / "meminfo"
    monkeypatch.setattr(loader, "MEMORY", memory)
    memory.write_text("MemTotal: 90000000 kB\nMemAvailable: 20480 kB\n")
    written = 0
    write = os.write

    def counted(fd: int, data: memoryview) -> int:
        nonlocal written
        written += len(data)
        return write(fd, data)

    monkeypatch.setattr(os, "write", counted)
    assert "20 MB" in refused(path)
    assert written <= (0 if told else 20 << 20)
    memory.write_text("MemAvailable: 81920 kB\n")
    assert "not a packet image" in refused(path)
    assert written >= 40 << 20


def test_tables_are_sealed(image: Path) -> None:
    """Whoever is given them can neither write to them nor map them to write."""
    with ImageFile(image) as file:
        with pytest.raises(PermissionError):
            os.pwrite(file.tables_fd, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(file.tables_fd, file.tables_bytes)
        with pytest.raises(PermissionError):
            os.truncate(file.tables_fd, 0)
        descriptor, size = file.tables_fd, file.tables_bytes
        place = file.table_place("header")
        assert os.pread(descriptor, place.size_bytes, place.offset) == file.bytes_of("header")
        assert place.offset + place.size_bytes <= size
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_an_unpacked_image_can_not_be_changed(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.img.lz4"
    path.write_bytes(lz4.frame.compress(image.read_bytes(), content_checksum=True))
    with ImageFile(path) as opened:
        for change in (lambda: os.truncate(opened.fd, 0), lambda: os.pwrite(opened.fd, b"x", 0)):
            with pytest.raises(PermissionError):
                change()


def of_version(image: Path, path: Path, version: int, section: str) -> Path:
    """An image as another version has it: its number in note and header, and one section under another name."""
    data = bytearray(image.read_bytes())
    with image.open("rb") as file:
        elf = ELFFile(file)
        note = elf.get_section_by_name(".note.sandstorm")["sh_offset"]
        header = elf.get_section_by_name(".sandstorm.header")["sh_offset"]
        size_bytes = elf.get_section_by_name(".note.sandstorm")["sh_size"]
    data[note + size_bytes - 4 : note + size_bytes] = struct.pack("<I", version)
    data[header : header + 4] = struct.pack("<I", version)
    at = data.index(f"\0.sandstorm.{section}\0".encode())
    data[at + len(".sandstorm.") + 1] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("version", "which"), [(6, "version 6, older"), (8, "version 8, newer"), (1 << 31, "newer")])
@pytest.mark.parametrize("section", ["patches", "routes"])
def test_an_image_of_another_version_is_told(
    image: Path, tmp_path: Path, version: int, which: str, section: str
) -> None:
    """By both commands, and before what else differs: it may have other sections."""
    path = of_version(image, tmp_path / "x.img", version, section)
    why = refused(path)
    assert which in why
    assert "build it again" in why
    assert "the version that built it" in why
    for command in (
        ("ssrun.cli", path, "--iface", "none0"),
        ("sscc.cli", "inspect", path),
        ("sscc.cli", "verify", path),
    ):
        done = run(sys.executable, "-m", *command, check=False)
        assert done.returncode != 0
        assert which in done.stderr
        assert "Traceback" not in done.stderr


@needs("valgrind", "gcc")
def test_the_work_is_in_proportion(tmp_path: Path) -> None:
    """Twice as many responses that each have all frames: twice the instructions, and not four times."""
    program = tmp_path / "image_open"
    sources = [Path(__file__).with_name("image_open.c"), *(CSRC / "image").glob("*.c")]
    run("gcc", "-O2", f"-I{CSRC}", *sources, "-o", program)
    counts = []
    for count in (4000, 8000):
        words = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program), str(count)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert "no error" in done.stdout
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert found is not None
        counts.append(int(found[1]))
    assert counts[1] < 3 * counts[0]


FAULT = """
import mmap, os, sys
from ssimage._sandstorm import ffi, lib
lib.fault_guard(b"cut short; use mv\\n")
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 8192)
    os.ftruncate(file.fileno(), 0)
    print(mapped[5000])
"""


def test_a_page_that_is_gone_ends_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(8192))
    done = run(sys.executable, "-c", FAULT, path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "cut short; use mv\n")
