"""`sscc serve`: a folder served in one step, and again when its files change."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net import Namespace, heed_signals, namespace, until

ADDRESS = "198.51.100.2"
MEMORY = Path("/dev/shm")


STARTED: list[subprocess.Popen[str]] = []  # by this test


@pytest.fixture
def host() -> Iterator[Namespace]:
    with namespace("serve") as space:
        yield space
        for process in STARTED:
            process.kill()
            process.wait()
        STARTED.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "index.html").write_text("one")
    return tmp_path / "public"


def leftovers() -> set[Path]:
    return set(MEMORY.glob("sscc-serve-*"))


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """What one of these leaves for a moment would be another's trace."""
    with (Path(tempfile.gettempdir()) / "sandstorm-test-serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Serving:
    """The command, running."""

    def __init__(self, host: Namespace, source: Path, *words: str) -> None:
        self.host = host
        self.before = leftovers()
        self.log = source.parent / "log"
        command = [sys.executable, "-m", "sscc.cli", "serve", str(source), "--address", f"{ADDRESS}/24", *words]
        with self.log.open("w") as log:
            self.process = host.popen(*command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=heed_signals)
        STARTED.append(self.process)

    def page(self, path: str = "/") -> str:
        return self.host.run("curl", "-s", "--max-time", "2", f"http://{ADDRESS}{path}", check=False).stdout

    def shows(self, text: str) -> bool:
        return until(lambda: self.page() == text, 20)

    def says(self, text: str) -> bool:
        return until(lambda: text in self.log.read_text(), 20)

    def is_gone(self) -> bool:
        """Without a trace."""
        return "sscc0" not in self.host.ip("link") and leftovers() <= self.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_folder_and_its_changes(host: Namespace, folder: Path, number: int) -> None:
    serving = Serving(host, folder)
    assert serving.shows("one"), serving.log.read_text()
    index = host.ip("-o", "link", "show", "sscc0").partition(":")[0]
    (folder / "index.html").write_text("two")
    assert serving.shows("two"), serving.log.read_text()
    # As editors do it; and a folder that was not there.
    (folder / "new").mkdir()
    (folder / "new" / "page.html").write_text("page")
    (folder / ".x").write_text("three")
    (folder / ".x").rename(folder / "index.html")
    assert serving.shows("three"), serving.log.read_text()
    assert until(lambda: serving.page("/new/page.html") == "page", 20), serving.log.read_text()
    assert host.ip("-o", "link", "show", "sscc0").partition(":")[0] == index  # the same device all the time
    serving.process.send_signal(number)
    assert serving.process.wait(20) == 0, serving.log.read_text()
    assert serving.is_gone()


def test_who_is_in_the_middle_of_something_notices_nothing(host: Namespace, folder: Path, tmp_path: Path) -> None:
    """A download goes on while pages change; the same process and device serve all of them, and no image is left in memory."""
    big = bytes(range(251)) * 60_000
    (folder / "big").write_bytes(big)
    serving = Serving(host, folder)
    assert serving.shows("one"), serving.log.read_text()
    words = ("-sS", "--limit-rate", "1000000", "-o", str(tmp_path / "big"), f"http://{ADDRESS}/big")
    download = host.popen("curl", *words, stderr=subprocess.PIPE)
    during = 0
    for number in range(4):
        (folder / "index.html").write_text(f"page {number}")
        assert serving.shows(f"page {number}"), serving.log.read_text()
        during += download.poll() is None
    assert during >= 1
    _, error = download.communicate(timeout=60)
    assert (download.returncode, error) == (0, "")
    assert (tmp_path / "big").read_bytes() == big
    assert until(lambda: list(MEMORY.glob("sscc-serve-*/*.img")) == [])
    log = serving.log.read_text()
    assert (log.count(f"http://{ADDRESS}/"), log.count("note: serving")) == (1, 4), log
    serving.process.terminate()
    assert serving.process.wait(20) == 0
    assert serving.is_gone()


def test_another_mtu_takes_a_new_beginning(host: Namespace, folder: Path) -> None:
    source = folder.parent / "site.yaml"
    source.write_text("version: 1\nroot: public\n")
    serving = Serving(host, source)
    assert serving.shows("one"), serving.log.read_text()
    source.write_text("version: 1\nroot: public\nmtu: 1400\nresponses: {/a: {body: b}}\n")
    assert until(lambda: serving.page("/a") == "b", 20), serving.log.read_text()
    assert serving.log.read_text().count(f"http://{ADDRESS}/") == 2
    (folder / "index.html").write_text("two")
    assert serving.shows("two"), serving.log.read_text()
    serving.process.terminate()
    assert serving.process.wait(20) == 0
    assert serving.is_gone()


def test_what_is_left_out_of_a_folder(host: Namespace, folder: Path) -> None:
    """By the options that errors of a build name."""
    (folder / "gone").symlink_to("nothing")
    (folder / "draft.html").write_text("draft")
    serving = Serving(host, folder, "--symlinks", "skip-outside", "--exclude", "draft.*")
    assert serving.shows("one"), serving.log.read_text()
    assert "draft" not in serving.page("/draft.html")
    serving.process.terminate()
    assert serving.process.wait(20) == 0


def test_what_is_wrong_is_told_and_the_old_site_served(host: Namespace, folder: Path) -> None:
    source = folder.parent / "site.yaml"
    source.write_text("version: 1\nroot: public\n")
    serving = Serving(host, source)
    assert serving.shows("one"), serving.log.read_text()
    source.write_text("version: 1\nrot: public\n")
    assert serving.says("site.yaml:2:1: error: unknown key 'rot'")
    assert serving.shows("one")
    source.write_text("version: 1\nroot: public\nresponses: {/a: {body: b}}\n")
    assert until(lambda: serving.page("/a") == "b", 20), serving.log.read_text()
    serving.process.terminate()
    assert serving.process.wait(20) == 0


def test_one_that_is_killed_leaves_nothing_for_long(host: Namespace, folder: Path) -> None:
    """The device goes with it, and the next one removes what it left in memory."""
    serving = Serving(host, folder)
    assert serving.shows("one"), serving.log.read_text()
    serving.process.kill()
    serving.process.wait(20)
    assert until(lambda: "sscc0" not in host.ip("link"))
    again = Serving(host, folder, "--no-watch")
    again.before = serving.before
    assert again.shows("one"), again.log.read_text()
    again.process.terminate()
    assert again.process.wait(20) == 0
    assert again.is_gone()


def test_what_can_not_be_served(host: Namespace, folder: Path) -> None:
    command = [sys.executable, "-m", "sscc.cli", "serve"]
    wrong = host.run(*command, str(folder), "--iface", "eth0", check=False)
    assert (wrong.returncode, "--iface tap:eth0" in wrong.stderr) == (2, True)
    for name in ("x" * 16, "\udcff" * 16):
        named = host.run(*command, str(folder), "--iface", f"tap:{name}", check=False)
        assert (named.returncode, "Traceback" in named.stderr, "no interface name" in named.stderr) == (
            1,
            False,
            True,
        )
    missing = host.run(*command, str(folder / "none"), check=False)
    assert (missing.returncode, "no such file or folder" in missing.stderr) == (1, True)
    serving = Serving(host, folder)
    assert serving.shows("one")  # and a second one would take some of its frames
    taken = host.run(*command, str(folder), check=False)
    serving.process.terminate()
    assert serving.process.wait(20) == 0
    assert taken.returncode == 1
    assert taken.stderr.startswith("sscc: error: tap:sscc0 can't be made: ")
    assert "choose another with --iface" in taken.stderr
