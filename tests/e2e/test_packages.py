"""What is installed from packages serves: the wheel and the source distribution for an ordinary user, and the Debian package in a
Debian that has nothing else. `make packages` makes them, as the tests have no network."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host import build
from tests.net import needs, unpacked
from tests.sockets import Command

ROOT = Path(__file__).resolve().parents[2]
MADE = ROOT / ".cache" / "packages"
NOBODY = 65534
# An ordinary user; but the Python that runs this, and what is made here, may be for root alone to read.
READ = "-all,+dac_read_search"
USER = ("--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
ORDINARY = ("setpriv", *USER, "--bounding-set", READ, "--inh-caps", READ, "--ambient-caps", READ)
PAGE = b"<title>small</title>"

pytestmark = [pytest.mark.long, pytest.mark.slow]


def made(pattern: str) -> Path:
    """What `make packages` has made of this source, or why there is nothing."""
    found = sorted(MADE.glob(pattern))
    if not found:
        why = (MADE / "lacking").read_text().strip() if (MADE / "lacking").exists() else "`make packages` makes it"
        pytest.skip(f"no {pattern}: {why}")
    stamp = (MADE / "stamp").stat().st_mtime
    for folder in ("runtime", "compiler"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".so", ".pyc") and path.stat().st_mtime > stamp:
                pytest.skip(f"{pattern} is older than {path.relative_to(ROOT)}; `make packages` makes it anew")
    return found[0]


@pytest.fixture
def home() -> Iterator[Path]:
    """An ordinary user's folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


@contextlib.contextmanager
def serving(*words: str | Path, **how: Any) -> Iterator[Command]:
    process = subprocess.Popen([*words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)
    assert process.stdout is not None
    line = process.stdout.readline()
    command = Command(process, json.loads(line) if line else {})
    try:
        assert line, process.communicate()[1]
        yield command
    finally:
        if process.poll() is None:
            command.end()


def page(command: Command) -> bytes:
    with command.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(1 << 16), b"")).partition(b"\r\n\r\n")[2]


@needs("setpriv")
@pytest.mark.parametrize("pattern", ["sandstorm-*.whl", "sandstorm-*.tar.gz"])
def test_an_ordinary_user_installs_it_and_serves(pattern: str, home: Path) -> None:
    """As README says: `pip install .` makes of the source what the source distribution has."""
    package, wheels = made(pattern), made("wheels")
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", "TMPDIR": str(home)}
    how: dict[str, Any] = {"cwd": home, "env": env}

    def run(*words: str | Path) -> str:
        done = subprocess.run([*ORDINARY, *words], capture_output=True, text=True, check=False, timeout=280, **how)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "venv")
    run("venv/bin/pip", "install", "-q", "--no-cache-dir", "--no-index", "--find-links", wheels, package)
    assert re.fullmatch(r"ssrun, version [\d.]+\n", run("venv/bin/ssrun", "--version"))
    (home / "public").mkdir()
    (home / "public" / "index.html").write_bytes(PAGE)
    run("venv/bin/sscc", "build", "-q", "--no-cache", "public", "-o", "site.img")
    with serving(*ORDINARY, "venv/bin/ssrun", "site.img", "--listen", "127.0.0.1:0", **how) as command:
        assert f"\nUid:\t{NOBODY}\t" in Path(f"/proc/{command.process.pid}/status").read_text()
        assert page(command) == PAGE


@pytest.fixture(scope="module")
def debian() -> Iterator[Path]:
    """A Debian of its own with the package installed, for the length of the module."""
    tar, deb = made("root.tar"), made("sandstorm_*.deb")
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        subprocess.run(["tar", "-C", folder, "--exclude=./dev/*", "-xf", tar], check=True)
        shutil.copy(deb, folder / "tmp" / "sandstorm.deb")
        for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
            os.mknod(folder / "dev" / name, 0o020666, os.makedev(1, minor))
            (folder / "dev" / name).chmod(0o666)
        inside(folder, "dpkg", "-i", "/tmp/sandstorm.deb")
        yield folder
    finally:
        shutil.rmtree(folder)


def words_inside(root: Path, *words: str) -> list[str | Path]:
    """A command in there, with a /proc. words: perhaps with an option of chroot's before them."""
    script = 'mount -t proc proc "$1/proc"; cd "$1"; shift; exec chroot "$@"'
    option, rest = (words[:1], words[1:]) if words[0].startswith("--") else ((), words)
    return ["unshare", "--mount", "sh", "-c", script, "_", root, *option, ".", *rest]


def inside(root: Path, *words: str) -> str:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    command = words_inside(root, *words)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs("unshare", "chroot", "tar")
def test_the_debian_package_is_all_it_takes(debian: Path) -> None:
    for command in ("sscc", "ssrun", "sskv"):
        assert re.fullmatch(rf"{command}, version [\d.]+\n", inside(debian, command, "--version"))
        assert (debian / f"usr/share/man/man1/{command}.1.gz").is_file()
        assert (debian / f"usr/share/bash-completion/completions/{command}").is_file()
    assert inside(debian, "dpkg", "--verify", "sandstorm") == ""
    assert inside(debian, "dpkg", "--audit") == ""
    assert "License: BSD-2-Clause" in (debian / "usr/share/doc/sandstorm/copyright").read_text()


@needs("unshare", "chroot", "tar")
def test_what_the_debian_package_installs_serves(debian: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(PAGE)
    shutil.copy(build(tmp_path, tmp_path / "site.img"), debian / "var/lib/sandstorm/site.img")
    (debian / "var/lib/sandstorm/site.img").chmod(0o644)
    (debian / "etc/sandstorm/site.toml").write_text('image = "/var/lib/sandstorm/site.img"\nlisten = "127.0.0.1:0"\n')
    assert inside(debian, "ssrun", "check", "--config", "/etc/sandstorm/site.toml").endswith(": good\n")
    words = ("/usr/bin/ssrun", "--config", "/etc/sandstorm/site.toml")
    with serving(*words_inside(debian, f"--userspec={NOBODY}:{NOBODY}", *words)) as command:
        assert page(command) == PAGE
        assert command.end() == 0


@needs("unshare", "chroot", "tar")
def test_systemd_takes_the_unit_of_the_debian_package(debian: Path) -> None:
    assert "/opt/" not in (debian / "usr/lib/systemd/system/ssrun@.service").read_text()
    assert inside(debian, "systemd-analyze", "verify", "ssrun@site.service") == ""
    assert inside(debian, "systemd-analyze", "verify", "ssrun@site.socket") == ""
    inside(debian, "systemd-analyze", "security", "--offline=yes", "--threshold=30", "ssrun@site.service")


# What happens in a Debian that systemd has started: a line each with what it was, and its status or what it said.
LOOK = """#!/bin/sh
exec >/said 2>&1
main() { systemctl show -p MainPID --value ssrun@site; }
pages() { python3 -c "import urllib.request as u; print(u.urlopen('http://198.51.100.2/', timeout=10).read())"; }
systemctl start ssrun@site; echo "start $?"
echo "page $(pages)"
systemctl reload ssrun@site; echo "reload $?"
first=$(main)
ssrun upgrade >/dev/null; echo "upgrade $?"
[ "$first" = "$(main)" ] && echo "name $(cat /proc/$first/comm)"
kill -9 $(cat /proc/$first/task/$first/children)
echo "page $(pages)"
sleep 12 # longer than the watchdog waits
echo "watchdog $(systemctl is-active ssrun@site) $(systemctl show -p NRestarts --value ssrun@site)"
kill -9 $first
for i in $(seq 60); do sleep 1; systemctl is-active -q ssrun@site && break; done
echo "restarted $(systemctl show -p NRestarts --value ssrun@site) $(pages)"
systemctl stop ssrun@site; echo "stop $? $(systemctl show -p Result --value ssrun@site)"
grep -c sand0 /proc/net/dev
systemctl poweroff >/dev/null 2>&1
"""
LOOK_UNIT = """[Service]
Type=oneshot
ExecStart=/look
TimeoutStartSec=240
[Install]
WantedBy=multi-user.target
"""
SAID = f"""start 0
page {PAGE!r}
reload 0
upgrade 0
name ssrun
page {PAGE!r}
watchdog active 0
restarted 1 {PAGE!r}
stop 0 success
0
"""


class Container:
    """Such a Debian, which systemd can start: a copy, with a TAP device that anybody may open, as on any Debian."""

    def __init__(self, nspawn: str, debian: Path, folder: Path) -> None:
        self.root, tun = folder / "root", folder / "tun"
        subprocess.run(["cp", "-a", debian, self.root], check=True)
        os.mknod(tun, 0o020666, os.makedev(10, 200))
        tun.chmod(0o666)
        # The tests have a /sys of their own over the machine's, once or more often, in which there are no control groups.
        self.command = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'while [ -z "$(ls /sys/fs/cgroup)" ] && umount /sys; do :; done; exec "$@"',
            "_",
            nspawn,
            "-q",
            "-D",
            str(self.root),
        ]
        self.command += ["--register=no", "--keep-unit", "--private-network"]
        self.command += ["--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_PERFMON", "--system-call-filter=bpf"]
        self.command += [f"--bind={tun}:/dev/net/tun"]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in it, or with -b all of it, to the end."""
        command = [*self.command, *words]
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}
        return subprocess.run(command, check=False, timeout=280, **how)


@pytest.fixture
def container(debian: Path) -> Iterator[Container]:
    nspawn = unpacked("systemd-nspawn", "--version")
    if nspawn is None:
        pytest.skip("needs systemd-nspawn")
    folder = Path(tempfile.mkdtemp())
    try:
        made = Container(nspawn, debian, folder)
        tried = made.run("true")
        if tried.returncode != 0:
            pytest.skip(f"no container can be started: {tried.stderr.strip()}")
        yield made
    finally:
        shutil.rmtree(folder)


@needs("unshare", "chroot", "tar")
def test_the_unit_serves_under_systemd(container: Container, tmp_path: Path) -> None:
    """From its start to its stop, with all that can happen in between."""
    root = container.root
    (tmp_path / "index.html").write_bytes(PAGE)
    shutil.copy(build(tmp_path, tmp_path / "site.img"), root / "var/lib/sandstorm/site.img")
    (root / "var/lib/sandstorm/site.img").chmod(0o644)
    config = 'image = "/var/lib/sandstorm/site.img"\niface = "tap:sand0"\naddress = ["198.51.100.2/24"]\n'
    (root / "etc/sandstorm/site.toml").write_text(config)
    units = root / "etc/systemd/system"
    (units / "ssrun@site.service.d").mkdir(parents=True)
    (units / "ssrun@site.service.d/soon.conf").write_text("[Service]\nWatchdogSec=5\n")
    (root / "look").write_text(LOOK)
    (root / "look").chmod(0o755)
    (units / "look.service").write_text(LOOK_UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/look.service").symlink_to("/etc/systemd/system/look.service")
    done = container.run("-b")
    if not (root / "said").exists():
        pytest.skip(f"systemd does not come up in a container: {(done.stdout + done.stderr).strip()[-200:]!r}")
    assert (root / "said").read_text() == SAID


@needs("unshare", "chroot", "tar")
def test_nothing_is_left_of_the_debian_package(debian: Path) -> None:
    """The last of the module."""
    inside(debian, "dpkg", "--purge", "sandstorm")
    assert not (debian / "usr/lib/sandstorm").exists()
    assert not (debian / "usr/bin/ssrun").exists()
