"""What package managers fetch from an image: apt from a signed repository, pip from a simple index."""

from __future__ import annotations

import base64
import hashlib
import lzma
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from gzip import compress
from pathlib import Path

import pytest

from tests.e2e.pages import sha256
from tests.host import build
from tests.net import Running, needs, run, serving

BIG_BYTES = 400_000

apt_tools = needs("apt-get", "dpkg-deb", "dpkg-scanpackages", "gpg", "gpg-agent", "gpgconf", "gpgv")


def make_deb(pool: Path, name: str, content: bytes, depends: str = "") -> None:
    """A package with one file."""
    tree = pool / name
    target = tree / "usr" / "share" / name / "content"
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    (tree / "DEBIAN").mkdir()
    lines = [f"Package: {name}", "Version: 1.0", "Architecture: all", "Maintainer: nobody", "Description: for a test"]
    (tree / "DEBIAN" / "control").write_text("\n".join([*lines, *([f"Depends: {depends}"] if depends else []), ""]))
    run("dpkg-deb", "--root-owner-group", "--build", tree, pool / f"{name}_1.0_all.deb")
    shutil.rmtree(tree)


def write_indexes(root: Path) -> None:
    """Packages with its compressed forms, also by hash, and the Release that names them all."""
    folder = root / "dists" / "stable" / "main" / "binary-all"
    folder.mkdir(parents=True)
    scan = subprocess.run(["dpkg-scanpackages", "-m", "pool"], cwd=root, capture_output=True, check=True).stdout
    forms = {"Packages": scan, "Packages.gz": compress(scan, mtime=0), "Packages.xz": lzma.compress(scan)}
    lines = ["Suite: stable", "Codename: stable", "Components: main", "Architectures: all", "Acquire-By-Hash: yes"]
    lines += ["Date: Sun, 06 Nov 1994 08:49:37 UTC", "SHA256:"]
    (folder / "by-hash" / "SHA256").mkdir(parents=True)
    for name, data in forms.items():
        digest = hashlib.sha256(data).hexdigest()
        (folder / name).write_bytes(data)
        (folder / "by-hash" / "SHA256" / digest).write_bytes(data)
        lines.append(f" {digest} {len(data)} main/binary-all/{name}")
    (root / "dists" / "stable" / "Release").write_text("\n".join([*lines, ""]))


def sign(root: Path) -> None:
    """InRelease, and the key beside the repository."""
    release = root / "dists" / "stable" / "Release"
    # A short path, as gpg's agent has a socket there.
    with tempfile.TemporaryDirectory() as home:
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
        try:
            run(*gpg, "--quick-generate-key", "test@repository.example", "ed25519", "sign", "never")
            run(*gpg, "--clearsign", "-o", release.with_name("InRelease"), release)
            run(*gpg, "--export", "-o", root / "key.gpg")
        finally:
            run("gpgconf", "--homedir", home, "--kill", "gpg-agent")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian repository of two packages, one of which needs the other."""
    root = tmp_path_factory.mktemp("debian")
    pool = root / "pool"
    pool.mkdir()
    make_deb(pool, "sand-library", random.Random(0).randbytes(BIG_BYTES))
    make_deb(pool, "sand-tool", b"tool\n", depends="sand-library (>= 1.0)")
    write_indexes(root)
    sign(root)
    return root


@pytest.fixture(scope="module", params=["packet", "sockets"])
def apt_server(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with serving(build(repository, tmp_path_factory.mktemp("image") / "debian.img"), request.param) as running:
        yield running


class Apt:
    """apt-get with a root of its own: neither its lists nor its packages are the machine's."""

    CONFIG = """
Dir "{root}"; Dir::State::status "{root}/var/lib/dpkg/status"; Dir::Log "{root}/log"; RootDir "/";
APT::Architecture "amd64"; APT::Sandbox::User "root"; APT::Install-Recommends "false";
Acquire::Languages "none"; Acquire::http::Proxy "DIRECT"; Acquire::Retries "0"; Debug::Acquire::http "true";
Acquire::CompressionTypes::Order {{ "{form}"; }};
DPkg::Options {{ "--root={root}"; "--log=/dev/null"; }};
#clear DPkg::Pre-Install-Pkgs; #clear DPkg::Pre-Invoke; #clear DPkg::Post-Invoke; #clear APT::Update::Post-Invoke;
"""

    def __init__(self, running: Running, root: Path, repository: Path, form: str = "xz", family: int = 0) -> None:
        self.running = running
        self.root = root
        for name in ("etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
            (root / name).mkdir(parents=True)
        for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "log"):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        self.url = f"http://{running.hosts[family]}/"
        source = f"deb [signed-by={repository}/key.gpg] {self.url} stable main\n"
        (root / "etc/apt/sources.list").write_text(source)
        (root / "apt.conf").write_text(self.CONFIG.format(root=root, form=form))

    def __call__(self, *words: str) -> str:
        """Runs it; what it printed, with the heads of requests and answers."""
        clean = ["env", "-i", f"PATH={os.environ['PATH']}", f"APT_CONFIG={self.root}/apt.conf", "LC_ALL=C"]
        clean += ["DEBIAN_FRONTEND=noninteractive"]
        done = self.running.client.run(*clean, "apt-get", "-y", *words)
        return done.stdout + done.stderr

    def installed(self, name: str) -> str:
        return sha256(self.root / "usr" / "share" / name / "content")


def statuses(output: str) -> list[int]:
    return [int(status) for status in re.findall(r"HTTP/1\.1 (\d{3}) ", output)]


@apt_tools
@pytest.mark.parametrize(("form", "family"), [("xz", 0), ("gz", 1)])
def test_apt_installs_from_a_signed_repository(
    apt_server: Running, repository: Path, tmp_path: Path, form: str, family: int
) -> None:
    apt = Apt(apt_server, tmp_path, repository, form, family)
    output = apt("update")
    assert statuses(output) == [200, 200]
    index = repository / "dists/stable/main/binary-all" / f"Packages.{form}"
    assert f"/by-hash/SHA256/{sha256(index)} HTTP/1.1" in output
    again = apt("update")
    assert statuses(again) == [304]
    assert "Hit:1 " in again
    output = apt("install", "sand-tool")
    assert statuses(output) == [200, 200]
    assert apt.installed("sand-tool") == hashlib.sha256(b"tool\n").hexdigest()
    assert apt.installed("sand-library") == hashlib.sha256(random.Random(0).randbytes(BIG_BYTES)).hexdigest()


@apt_tools
def test_apt_resumes_half_a_package(apt_server: Running, repository: Path, tmp_path: Path) -> None:
    """By If-Range with the partial file's date."""
    apt = Apt(apt_server, tmp_path, repository)
    apt("update")
    deb = repository / "pool" / "sand-library_1.0_all.deb"
    partial = tmp_path / "var/cache/apt/archives/partial" / deb.name
    partial.write_bytes(deb.read_bytes()[:123_456])
    os.utime(partial, (int(deb.stat().st_mtime), int(deb.stat().st_mtime)))
    output = apt("install", "--download-only", "sand-library")
    assert "Range: bytes=123456-" in output
    assert statuses(output) == [206]
    assert sha256(tmp_path / "var/cache/apt/archives" / deb.name) == sha256(deb)


@apt_tools
def test_apt_refuses_what_was_changed(repository: Path, tmp_path: Path) -> None:
    """So the clients above do compare."""
    changed = tmp_path / "changed"
    shutil.copytree(repository, changed)
    deb = changed / "pool" / "sand-tool_1.0_all.deb"
    deb.write_bytes(deb.read_bytes()[:-1] + b"?")
    with serving(build(changed, tmp_path / "changed.img"), "tap") as running:
        apt = Apt(running, tmp_path / "root", repository)
        apt("update")
        with pytest.raises(AssertionError, match="Hash Sum mismatch"):
            apt("install", "sand-tool")


def make_wheel(folder: Path, name: str, source: bytes, requires: str = "") -> Path:
    """A wheel of one module, by hand."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + (
        f"Requires-Dist: {requires}\n" if requires else ""
    )
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{info}/RECORD,,"]
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(data)}")
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in (files | {f"{info}/RECORD": "\n".join(record).encode()}).items():
            archive.writestr(path, data)
    return wheel


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simple repository (PEP 503) with links that carry hashes."""
    root = tmp_path_factory.mktemp("pypi")
    big = b"DATA = '" + random.Random(1).randbytes(BIG_BYTES).hex().encode() + b"'\n"
    wheels = [
        make_wheel(root / "packages", "sand_library", big),
        make_wheel(root / "packages", "sand_tool", b"import sand_library\n", requires="sand-library>=1"),
    ]
    names = [wheel.name.split("-")[0].replace("_", "-") for wheel in wheels]
    for name, wheel in zip(names, wheels, strict=True):
        page = root / "simple" / name / "index.html"
        page.parent.mkdir(parents=True)
        link = f'<a href="../../packages/{wheel.name}#sha256={sha256(wheel)}">{wheel.name}</a>'
        page.write_text(f"<!DOCTYPE html><title>{name}</title>{link}")
    links = "".join(f'<a href="/simple/{name}/">{name}</a>' for name in names)
    (root / "simple" / "index.html").write_text(f"<!DOCTYPE html><title>Simple index</title>{links}")
    return root


def pip(running: Running, *words: str | Path) -> None:
    """This Python's pip, without anything that the machine tells it, and the index as the only source."""
    clean = [
        "env",
        "-i",
        f"PATH={os.environ['PATH']}",
        "PIP_CONFIG_FILE=/dev/null",
        "PIP_DISABLE_PIP_VERSION_CHECK=1",
    ]
    source = [
        "--index-url",
        f"http://{running.hosts[0]}/simple/",
        "--trusted-host",
        running.hosts[0],
        "--retries",
        "0",
    ]
    running.client.run(*clean, sys.executable, "-m", "pip", words[0], *source, *words[1:])


def test_pip_installs_from_a_simple_index(index: Path, tmp_path: Path) -> None:
    with serving(build(index, tmp_path / "pypi.img"), "tap") as running:
        cache = ["--cache-dir", tmp_path / "cache"]
        pip(running, "install", *cache, "--target", tmp_path / "site", "sand-tool")
        pip(running, "download", *cache, "--dest", tmp_path / "wheels", "sand-tool")
        running.stop()
    for name in ("sand_library", "sand_tool"):
        wheel = f"{name}-1.0-py3-none-any.whl"
        assert sha256(tmp_path / "wheels" / wheel) == sha256(index / "packages" / wheel)
        with zipfile.ZipFile(index / "packages" / wheel) as archive:
            assert (tmp_path / "site" / f"{name}.py").read_bytes() == archive.read(f"{name}.py")
    counters = running.stopped["counters"]
    assert counters["http_status_2xx"] == 4  # two pages and two wheels,
    assert counters["http_status_3xx"] == 4  # which pip has in its cache the second time and asks for again
