"""Boots a kernel with the user's netmap module in QEMU, with this checkout inside, and runs guest.py there.

NETMAP_KO=netmap.ko KERNEL=vmlinuz [MODULES=/lib/modules/VERSION] [E1000_KO=e1000.ko] python -m tests.vm.vm [PATTERN]

PATTERN: a regular expression for the cases to be run.

E1000_KO is a driver with netmap in it; without one netmap takes the kernel's own over in its generic way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.vm import machine

MODULES = (*machine.ROOT_MODULES, "veth", "e1000")
LOOK_S = 0.2  # between looks for results
BOOT_S = 3600  # for all cases, emulated, on a busy machine


def missing() -> str | None:
    """What there isn't, so that nothing can be run; or None."""
    for name in ("NETMAP_KO", "KERNEL"):
        if not os.environ.get(name):
            return f"{name} is unset: it names {'a netmap.ko' if name == 'NETMAP_KO' else 'its kernel'}"
    return machine.missing()


def missing_driver() -> str | None:
    """The same, with netmap's own driver of an e1000."""
    if not os.environ.get("E1000_KO"):
        return "E1000_KO is unset: it names an e1000.ko with netmap in it"
    return missing()


def modules() -> machine.Modules:
    """Of the user's kernel."""
    found = machine.Modules(Path(os.environ["MODULES"]) if os.environ.get("MODULES") else None)
    for name in MODULES:
        if name != "e1000" or not os.environ.get("E1000_KO"):
            found.add(name)
    return found


def netmap_modules(parameters: str) -> tuple[dict[str, bytes], str]:
    """The user's own, and what loads them."""
    more = {"netmap.ko": machine.unpacked(Path(os.environ["NETMAP_KO"]).read_bytes())}
    load = f"/bin/busybox insmod /modules/netmap.ko {parameters}"
    if own_e1000 := os.environ.get("E1000_KO"):
        more["e1000-netmap.ko"] = machine.unpacked(Path(own_e1000).read_bytes())
        load += "\n/bin/busybox insmod /modules/e1000-netmap.ko"
    return more, load


def initramfs(folder: Path, parameters: str, only: str) -> bytes:
    """What the guest boots from."""
    command = f'{machine.HERE / "guest.py"} {folder} "{only}"'
    return machine.initramfs(modules(), *netmap_modules(parameters), command, "/dev/ttyS1")


def run(folder: Path, only: str = "", parameters: str = "buf_num=32768") -> Iterator[dict[str, Any]]:
    """Boots with what lies in folder; what the guest said, an object a line. The console is kept in folder."""
    (folder / "kernel").write_bytes(machine.kernel(Path(os.environ["KERNEL"])))
    (folder / "initramfs").write_bytes(initramfs(folder, parameters, only))
    results = folder / "results"
    devices = ["-serial", f"file:{results}"]
    for number in (0, 1):  # linked by a hub
        mac = f"02:00:00:00:01:0{number}"
        devices += [
            "-netdev",
            f"hubport,id=h{number},hubid=0",
            "-device",
            f"e1000,netdev=h{number},mac={mac},romfile=",
        ]
    command, environment = machine.qemu_command(folder, devices)
    results.touch()
    deadline = time.monotonic() + BOOT_S
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as emulator:
        try:
            with results.open(errors="replace") as lines:
                line = ""
                while emulator.poll() is None and time.monotonic() < deadline:
                    line += lines.readline()
                    if line.endswith("\n"):
                        yield json.loads(line)
                        line = ""
                    else:
                        time.sleep(LOOK_S)
                for rest in (line + lines.read()).splitlines():
                    yield json.loads(rest)
        finally:
            emulator.kill()
        if emulator.returncode != 0:
            raise SystemExit(f"{machine.QEMU}: {emulator.stderr.read() if emulator.stderr else ''}")


def main() -> None:
    """Runs and prints."""
    lacking = missing()
    if lacking:
        raise SystemExit(f"skipped: {lacking}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        machine.build_site(folder)
        failed = False
        for result in run(folder, *sys.argv[1:]):
            print(json.dumps(result), flush=True)
            failed |= not result["passed"]
        print((folder / "console").read_text(errors="replace")[-4000:])
    sys.exit(failed)


if __name__ == "__main__":
    main()
