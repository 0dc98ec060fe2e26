"""Boots a kernel with the user's netmap module in QEMU, with this checkout inside, and runs guest.py there.

NETMAP_KO=netmap.ko KERNEL=vmlinuz [MODULES=/lib/modules/VERSION] [E1000_KO=e1000.ko] python tests/vm/vm.py [PATTERN]

PATTERN: a regular expression for the cases to be run.

The guest's root is this machine's, read-only over 9p, below a file system in memory: what it writes is gone with it.
E1000_KO is a driver with netmap in it; without one netmap takes the kernel's own over in its generic way.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUSYBOX = Path("/bin/busybox")
QEMU = "qemu-system-x86_64"
MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "veth", "e1000"]
LOOK_S = 0.2  # between looks for results
BOOT_S = 3600  # for all cases, emulated, on a busy machine

INIT = """#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox insmod /modules/netmap.ko {parameters}
[ -f /modules/e1000-netmap.ko ] && /bin/busybox insmod /modules/e1000-netmap.ko
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /host
/bin/busybox mount -t tmpfs tmpfs /scratch
/bin/busybox mkdir /scratch/upper /scratch/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work overlay /new
for each in proc sys dev; do /bin/busybox mount --move /$each /new/$each; done
exec /bin/busybox switch_root /new /bin/sh -c '
mount -t tmpfs tmpfs /run
PATH=/usr/sbin:/usr/bin:/sbin:/bin {python} {guest} {folder} {only} >/dev/ttyS1 2>/dev/ttyS0 </dev/null
exec /bin/busybox poweroff -f'
"""


def missing() -> str | None:
    """What there isn't, so that nothing can be run; or None."""
    for name in ("NETMAP_KO", "KERNEL"):
        if not os.environ.get(name):
            return f"{name} is unset: it names {'a netmap.ko' if name == 'NETMAP_KO' else 'its kernel'}"
    if shutil.which(QEMU) is None:
        return f"no {QEMU}: install qemu-system-x86"
    if not BUSYBOX.exists():
        return f"no {BUSYBOX}: install busybox-static"
    return None


def unpacked(data: bytes) -> bytes:
    """What a kernel or a module may be packed with, taken off."""
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def kernel(path: Path) -> bytes:
    """An uncompressed kernel, which an emulator would unpack for a minute; the file as it is if it can't be found."""
    data = path.read_bytes()
    if data[0x202:0x206] < b"HdrS" and data[:4] == b"\x7fELF":
        return data
    setup_sectors = data[0x1F1] or 4
    offset, size = struct.unpack_from("<II", data, 0x248)
    at = (setup_sectors + 1) * 512 + offset
    inner = unpacked(data[at : at + size])
    return inner if inner.startswith(b"\x7fELF") else data


@dataclass
class Modules:
    """Modules in the order in which they are loaded."""

    folder: Path | None
    found: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str) -> None:
        """A module after those that it needs; one that can't be found is taken to be in the kernel."""
        names = {name, name.replace("_", "-"), name.replace("-", "_")}
        paths = [path for each in names for path in (self.folder or HERE).rglob(f"{each}.ko*")]
        if not paths or name in self.found:
            return
        data = unpacked(paths[0].read_bytes())
        needs = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in needs[1].decode().split(",") if needs else []:
            if other:
                self.add(other)
        self.found[name] = data


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An initramfs: modes and contents by name; parents first."""
    out = bytearray()
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + "".join(f"{value:08x}" for value in fields).encode() + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(folder: Path, parameters: str, only: str) -> bytes:
    """What the guest boots from."""
    modules = Modules(Path(os.environ["MODULES"]) if os.environ.get("MODULES") else None)
    own_e1000 = os.environ.get("E1000_KO")
    for name in MODULES:
        if name != "e1000" or not own_e1000:
            modules.add(name)
    files = dict.fromkeys(("bin", "proc", "sys", "dev", "host", "scratch", "new", "modules"), (0o040755, b""))
    files["bin/busybox"] = (0o100755, BUSYBOX.read_bytes())
    files["bin/sh"] = (0o120777, b"busybox")
    for name, data in modules.found.items():
        files[f"modules/{name}.ko"] = (0o100644, data)
    files["modules/order"] = (0o100644, "\n".join(f"{name}.ko" for name in modules.found).encode())
    files["modules/netmap.ko"] = (0o100644, unpacked(Path(os.environ["NETMAP_KO"]).read_bytes()))
    if own_e1000:
        files["modules/e1000-netmap.ko"] = (0o100644, unpacked(Path(own_e1000).read_bytes()))
    python = ROOT / ".venv" / "bin" / "python"
    # Within quotes already.
    words = {"python": python, "guest": HERE / "guest.py", "folder": folder, "only": f'"{only}"'}
    script = INIT.format(parameters=parameters, **words)
    files["init"] = (0o100755, script.encode())
    return cpio(files)


def run(folder: Path, only: str = "", parameters: str = "buf_num=32768") -> Iterator[dict[str, Any]]:
    """Boots with what lies in folder; what the guest said, an object a line. The console is kept in folder."""
    (folder / "kernel").write_bytes(kernel(Path(os.environ["KERNEL"])))
    (folder / "initramfs").write_bytes(initramfs(folder, parameters, only))
    results, console = folder / "results", folder / "console"
    command = [QEMU, "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1536", "-nographic", "-no-reboot"]
    command += ["-kernel", str(folder / "kernel"), "-initrd", str(folder / "initramfs")]
    command += ["-append", "console=ttyS0 panic=-1 oops=panic loglevel=5"]
    command += ["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"]
    for number in (0, 1):  # linked by a hub
        mac = f"02:00:00:00:01:0{number}"
        command += ["-netdev", f"hubport,id=h{number},hubid=0", "-device", f"e1000,netdev=h{number},mac={mac}"]
    command += ["-serial", f"file:{console}", "-serial", f"file:{results}", "-monitor", "none"]
    results.touch()
    deadline = time.monotonic() + BOOT_S
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as machine:
        try:
            with results.open(errors="replace") as lines:
                line = ""
                while machine.poll() is None and time.monotonic() < deadline:
                    line += lines.readline()
                    if line.endswith("\n"):
                        yield json.loads(line)
                        line = ""
                    else:
                        time.sleep(LOOK_S)
                for rest in (line + lines.read()).splitlines():
                    yield json.loads(rest)
        finally:
            machine.kill()
        if machine.returncode != 0:
            raise SystemExit(f"{QEMU}: {machine.stderr.read() if machine.stderr else ''}")


def build_site(folder: Path, files: int = 60) -> None:
    """A small site and its image, for the guest to serve and to compare with."""
    site = folder / "site"
    site.mkdir()
    for number in range(files):
        (site / f"{number}.bin").write_bytes(random.Random(number).randbytes(number * number * 40))
    image = folder / "site.img"
    subprocess.run([sys.executable, "-m", "sscc.cli", "build", "-q", str(site), "-o", str(image)], check=True)


def main() -> None:
    """Runs and prints."""
    lacking = missing()
    if lacking:
        raise SystemExit(f"skipped: {lacking}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_site(folder)
        failed = False
        for result in run(folder, *sys.argv[1:]):
            print(json.dumps(result), flush=True)
            failed |= not result["passed"]
        print((folder / "console").read_text(errors="replace")[-4000:])
    sys.exit(failed)


if __name__ == "__main__":
    main()
