"""What a guest needs and this Debian need not have: QEMU with an igb, and a kernel whose virtio-net sends in place.

python -m tests.vm.packages [SECONDS]

Both are unpacked into .cache/vm, once; nothing is installed. They come from where this machine has its packages from, by sources
and lists of their own. If that takes longer than SECONDS or can't be, .cache/vm/lacking says why, and tests tell it as they skip.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "vm"
READY, LACKING = CACHE / "ready", CACHE / "lacking"
KERNEL_SUITE = "trixie-backports"
TOOLS = ("qemu-system-x86", "busybox-static")
# Of the kernel's modules; the rest are hundreds of megabytes.
MODULES = (
    *("net/9p", "net/core", "fs/9p", "fs/netfs", "fs/overlayfs"),
    *("drivers/net", "drivers/virtio", "drivers/dca", "drivers/i2c/algos", "drivers/ptp", "drivers/pps"),
)


class LackingError(Exception):
    """Why there is no guest."""


class Apt:
    """apt with sources and lists of its own, which knows what is installed here; until a time."""

    def __init__(self, folder: Path, deadline: float) -> None:
        self.folder, self.deadline = folder, deadline
        sources = folder / "sources.list"
        for each in ("lists/partial", "archives/partial"):
            (folder / each).mkdir(parents=True)
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder,
            "Dir::Cache::archives": folder / "archives",
            "APT::Sandbox::User": "root",
            "Acquire::Retries": "1",
            "Debug::NoLocking": "true",  # nothing is written that another apt reads
        }
        self.options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        own = codename()
        where = sorted({uri for uri, suite in self.mirrors() if suite == own})
        if not where:
            raise LackingError(f"apt has no source of {own}")
        suites = dict.fromkeys((own, f"{own}-backports", KERNEL_SUITE))
        sources.write_text("".join(f"deb {uri} {suite} main\n" for uri in where for suite in suites))

    def run(self, *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
        words = [str(word) for word in command]
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise LackingError("it took too long")
        # What goes on behind a command, as apt's methods do, ends with it.
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=env, start_new_session=True
        ) as process:
            try:
                out, err = process.communicate(timeout=left_s)
            except subprocess.TimeoutExpired:
                raise LackingError(f"{words[0]} took too long") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
        if process.returncode != 0:
            raise LackingError(f"{words[0]}: {(err or out).strip().rpartition(chr(10))[2]}")
        return out

    def mirrors(self) -> list[tuple[str, str]]:
        """Where this machine has which suites from."""
        listed = self.run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
        return [(uri, suite) for uri, _, suite in (line.partition(" ") for line in listed.splitlines())]

    def get(self, *words: str) -> str:
        return self.run("apt-get", "-qq", *self.options, *words, cwd=self.folder)

    def unpack(self, archive: Path, target: Path, *only: str) -> None:
        """A package's files, or some of them."""
        if not only:
            self.run("dpkg-deb", "-x", archive, target)
            return
        target.mkdir(exist_ok=True)
        take = 'dpkg-deb --fsys-tarfile "$0" | tar -x -C "$1" --wildcards "${@:2}"'
        self.run("bash", "-o", "pipefail", "-c", take, archive, target, *only)


def codename() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None or shutil.which("apt-get") is None:
        raise LackingError("this is no Debian")
    return found[1]


def fetch_tools(apt: Apt) -> None:
    """QEMU and a static busybox, with those libraries that are not installed here."""
    apt.get("-t", f"{codename()}-backports", "-y", "--download-only", "--no-install-recommends", "install", *TOOLS)
    for archive in sorted((apt.folder / "archives").glob("*.deb")):
        apt.unpack(archive, CACHE / "tools")


def fetch_kernel(apt: Apt) -> None:
    """The newest, as it comes, and its modules."""
    shown = apt.run("apt-cache", *apt.options, "-t", KERNEL_SUITE, "depends", "linux-image-amd64")
    version = re.search(r"Depends: linux-image-(\d\S+-amd64)", shown)
    if version is None:
        raise LackingError(f"no kernel in {KERNEL_SUITE}")
    packages = [f"linux-{part}-{version[1]}" for part in ("binary", "modules")]
    apt.get("download", *packages)
    binary, modules = (next(apt.folder.glob(f"{name}_*.deb")) for name in packages)
    apt.unpack(binary, CACHE / "kernel", "*/vmlinuz*")
    apt.unpack(modules, CACHE / "kernel", *(f"*/kernel/{each}/*" for each in MODULES))


@contextlib.contextmanager
def turn(deadline: float) -> Iterator[None]:
    """One at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LackingError("another one unpacks them") from None
                time.sleep(0.2)
        yield


def fetch(limit_s: float) -> None:
    """Fetches what is not there. Raises LackingError."""
    deadline = time.monotonic() + limit_s
    with turn(deadline):
        if READY.exists():
            return
        for name in ("apt", "tools", "kernel"):
            shutil.rmtree(CACHE / name, ignore_errors=True)
        try:
            apt = Apt(CACHE / "apt", deadline)
            apt.get("update")
            fetch_tools(apt)
            fetch_kernel(apt)
            READY.touch()
            LACKING.unlink(missing_ok=True)
        except (LackingError, OSError) as error:
            with contextlib.suppress(OSError):
                LACKING.write_text(str(error))
            raise LackingError(str(error)) from None
        finally:
            shutil.rmtree(CACHE / "apt", ignore_errors=True)


def lacking() -> str | None:
    """Why there is no kernel for a guest; or None."""
    if READY.exists():
        return None
    why = LACKING.read_text() if LACKING.exists() else "nobody has fetched them"
    return f"no kernel and QEMU for a guest ({why}); `make vm` fetches them"


def tool(name: str) -> Path | None:
    """A program of those unpacked here, or else of this machine."""
    for folder in (CACHE / "tools" / "usr" / "bin", CACHE / "tools" / "bin"):
        if READY.exists() and (folder / name).exists():
            return folder / name
    found = shutil.which(name)
    return Path(found) if found else None


def qemu() -> tuple[list[str], dict[str, str]] | None:
    """QEMU's command with its options, and its environment."""
    program = tool("qemu-system-x86_64")
    if program is None:
        return None
    usr = program.parents[1]
    command = [str(program)]
    for firmware in ("usr/share/qemu", "usr/share/seabios"):
        command += ["-L", f"{usr.parent / firmware}"]
    libraries = [f"{CACHE}/tools/{prefix}lib/x86_64-linux-gnu" for prefix in ("usr/", "")]
    ours = usr.parent == CACHE / "tools"
    return command, dict(os.environ) | ({"LD_LIBRARY_PATH": ":".join(libraries)} if ours else {})


def kernel() -> tuple[Path, Path]:
    """The unpacked kernel and its modules' folder."""
    vmlinuz = next((CACHE / "kernel").rglob("vmlinuz*"))
    return vmlinuz, next((CACHE / "kernel").rglob("modules/*"))


def main() -> None:
    limit_s = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
    try:
        fetch(limit_s)
    except (LackingError, OSError) as error:
        sys.exit(f"no guest for tests/vm: {error}; tests with it will be skipped")


if __name__ == "__main__":
    main()
