"""A machine that QEMU emulates, with a kernel of its own and this checkout inside.

Its root is this machine's, read-only over 9p, below a file system in memory: what it writes is gone with it.
"""

from __future__ import annotations

import gzip
import lzma
import random
import re
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from tests.vm import packages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
QEMU = "qemu-system-x86_64"
ROOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")  # what its root needs

INIT = """#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
{more}
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /host
/bin/busybox mount -t tmpfs tmpfs /scratch
/bin/busybox mkdir /scratch/upper /scratch/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work overlay /new
for each in proc sys dev; do /bin/busybox mount --move /$each /new/$each; done
exec /bin/busybox switch_root /new /bin/sh -c '
mount -t tmpfs tmpfs /run
PATH=/usr/sbin:/usr/bin:/sbin:/bin {python} {command} <{channel} >{channel} 2>/dev/ttyS0
exec {busybox} poweroff -f'
"""


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


def initramfs(modules: Modules, more: dict[str, bytes], load: str, command: str, channel: str) -> bytes:
    """What it boots from. more: modules that `load`, a line of the shell, loads; command: what Python runs in the end, in quotes
    already, with a device as its input and output."""
    busybox = packages.tool("busybox")
    assert busybox is not None
    files = dict.fromkeys(("bin", "proc", "sys", "dev", "host", "scratch", "new", "modules"), (0o040755, b""))
    files["bin/busybox"] = (0o100755, busybox.read_bytes())
    files["bin/sh"] = (0o120777, b"busybox")
    for name, data in modules.found.items():
        files[f"modules/{name}.ko"] = (0o100644, data)
    files["modules/order"] = (0o100644, "\n".join(f"{name}.ko" for name in modules.found).encode())
    for name, data in more.items():
        files[f"modules/{name}"] = (0o100644, data)
    words = {"python": ROOT / ".venv" / "bin" / "python", "busybox": busybox, "channel": channel, "command": command}
    files["init"] = (0o100755, INIT.format(more=load, **words).encode())
    return cpio(files)


def missing() -> str | None:
    """What no machine can be without; or None."""
    for name, package in ((QEMU, "qemu-system-x86"), ("busybox", "busybox-static")):
        if packages.tool(name) is None:
            return f"no {name}: install {package}, or let `make vm` fetch it"
    return None


@dataclass(frozen=True)
class Emulation:
    """How a machine is emulated."""

    processors: int = 2
    boot_s: float = 90  # a quarter of that where nothing else runs
    accelerator: str = "tcg"
    parameters: str = ""  # more of the kernel's
    options: tuple[str, ...] = ()


USUAL = Emulation()


def qemu_command(
    folder: Path, devices: Iterable[str], emulation: Emulation = USUAL
) -> tuple[list[str], dict[str, str]]:
    """QEMU's command, and its environment: the kernel and the initramfs lie in folder, where the console goes too."""
    found = packages.qemu()
    assert found is not None
    command, environment = found
    command += ["-accel", emulation.accelerator, "-cpu", "max", "-smp", str(emulation.processors), "-m", "1536"]
    command += ["-display", "none", "-no-reboot", "-nodefaults", "-monitor", "none", "-vga", "none"]
    command += ["-kernel", str(folder / "kernel"), "-initrd", str(folder / "initramfs")]
    # Processors that share the host's with others seem to have clocks that differ: not compared, nor waited for.
    parameters = f"console=ttyS0 panic=-1 oops=panic loglevel=5 tsc=reliable no_timer_check {emulation.parameters}"
    command += ["-append", parameters]
    command += ["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"]
    command += ["-serial", f"file:{folder / 'console'}", *devices, *emulation.options]
    return command, environment


def build_site(folder: Path, files: int = 60) -> None:
    """A small site and its image, for the guest to serve and to compare with."""
    site = folder / "site"
    site.mkdir()
    for number in range(files):
        (site / f"{number}.bin").write_bytes(random.Random(number).randbytes(number * number * 40))
    image = folder / "site.img"
    subprocess.run([sys.executable, "-m", "sscc.cli", "build", "-q", str(site), "-o", str(image)], check=True)
