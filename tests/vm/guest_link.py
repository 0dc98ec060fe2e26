"""A guest behind a TAP device in a namespace: what the test asks of it, and what the clients outside see."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.net import Namespace, namespace
from tests.vm import machine, packages

SSRUN = machine.ROOT / ".venv" / "bin" / "ssrun"
TAP, NIC = "tap0", "eth0"
KERNELS, OURS, CLIENT = "192.0.2.1", "192.0.2.10", "192.0.2.2"
MAC = "02:00:00:00:02:01"


@dataclass(frozen=True)
class Card:
    """A network card as QEMU has it."""

    name: str
    module: str
    devices: tuple[str, ...]
    tap_queues: int = 1


VIRTIO = Card(
    "virtio-net",
    "virtio_net",
    # The rings are reached by addresses of the DMA API: without that the driver copies.
    ("-device", f"virtio-net-pci,netdev=n0,mac={MAC},mq=on,vectors=6,iommu_platform=on,disable-legacy=on,romfile="),
    tap_queues=2,
)
# With one processor; the same otherwise.
VIRTIO_SINGLE = Card(
    "virtio-net",
    "virtio_net",
    ("-device", f"virtio-net-pci,netdev=n0,mac={MAC},iommu_platform=on,disable-legacy=on,romfile="),
)
IGB = Card(
    "igb",
    "igb",
    (
        "-M",
        "q35",
        "-device",
        "pcie-root-port,id=p0,chassis=1,slot=1",
        "-device",
        f"igb,bus=p0,netdev=n0,mac={MAC},romfile=",
    ),
)
# netmap's own driver; the card cuts superframes itself.
E1000 = Card("e1000", "", ("-device", f"e1000,netdev=n0,mac={MAC},romfile="))


class GuestError(Exception):
    """The guest did not do what it was asked for."""


class Guest:
    """A guest that has booted."""

    def __init__(self, folder: Path, emulator: subprocess.Popen[str], outside: Namespace) -> None:
        self.folder, self.emulator, self.outside = folder, emulator, outside
        self.read()

    def console(self) -> str:
        return (self.folder / "console").read_text(errors="replace")[-3000:]

    def read(self) -> dict[str, Any]:
        assert self.emulator.stdout is not None
        line = self.emulator.stdout.readline()
        if not line:
            error = self.emulator.stderr.read() if self.emulator.stderr else ""
            raise GuestError(f"the guest has ended: {error}\n{self.console()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **what: Any) -> dict[str, Any]:
        assert self.emulator.stdin is not None
        self.emulator.stdin.write(json.dumps(what) + "\n")
        self.emulator.stdin.flush()
        return self.read()

    def sh(self, command: str) -> str:
        answer = self.ask(run=command)
        if answer["status"] != 0:
            raise GuestError(f"{command}: {answer}")
        return str(answer["out"])

    def start(self, image: Path, *options: str) -> dict[str, Any]:
        """ssrun in the guest; its first line."""
        answer = self.ask(
            start=[str(SSRUN), str(image), "--json", "--iface", NIC, "--max-connections", "1024", *options]
        )
        if not answer["line"]:
            raise GuestError(f"ssrun: {answer['err']}")
        serving: dict[str, Any] = json.loads(answer["line"])
        return serving

    def stop(self) -> dict[str, int]:
        """Its counters."""
        answer = self.ask(stop=True)
        if answer["status"] != 0:
            raise GuestError(f"ssrun: {answer}")
        counters: dict[str, int] = json.loads(answer["out"].splitlines()[-1])["counters"]
        return counters

    def wait_for_the_link(self) -> None:
        """Until frames pass, which takes seconds after what resets a card."""
        # One ping gives up when its neighbour has not been found for three seconds.
        pings = f"for i in $(seq 60); do ping -q -c 1 -w 1 {KERNELS} && exit; done; exit 1"
        self.outside.run("sh", "-c", pings, timeout_s=70)


def missing() -> str | None:
    """Why there can be no guest; or None."""
    return packages.lacking() or machine.missing()


def boot_files(folder: Path, card: Card) -> None:
    """The kernel and the initramfs, with what brings the card up."""
    vmlinuz, modules_folder = packages.kernel()
    modules = machine.Modules(modules_folder)
    for name in (*machine.ROOT_MODULES, card.module):
        modules.add(name)
    write_boot_files(folder, vmlinuz, modules, {}, "")


def write_boot_files(folder: Path, kernel: Path, modules: machine.Modules, more: dict[str, bytes], load: str) -> None:
    """The same of any kernel; more, load: as machine.initramfs has them."""
    command = f"-u {machine.HERE / 'agent.py'}"
    (folder / "kernel").write_bytes(machine.kernel(kernel))
    (folder / "initramfs").write_bytes(machine.initramfs(modules, more, load, command, "/dev/ttyS1"))


@contextlib.contextmanager
def emulator(command: list[str], environment: dict[str, str], outside: Namespace) -> Iterator[subprocess.Popen[str]]:
    """QEMU in a namespace, for the length of a with."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with outside.popen(*command, env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def limited(process: subprocess.Popen[str], limit_s: float) -> Iterator[None]:
    """Ends it if what is done takes longer."""
    limit = threading.Timer(limit_s, process.kill)
    limit.start()
    try:
        yield
    finally:
        limit.cancel()


@contextlib.contextmanager
def booted(folder: Path, card: Card, outside: Namespace, emulation: machine.Emulation) -> Iterator[Guest]:
    """A guest that answers; on a busy machine one of some dozen was seen to stand still on the way, so there is a second try."""
    tap = f"tap,id=n0,ifname={TAP},script=no,downscript=no,vhost=off,queues={card.tap_queues}"
    devices = ["-netdev", tap, *card.devices, "-chardev", "stdio,id=agent,signal=off", "-serial", "chardev:agent"]
    command, environment = machine.qemu_command(folder, devices, emulation)
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(emulator(command, environment, outside))
        try:
            with limited(process, emulation.boot_s):
                found = Guest(folder, process, outside)
        except GuestError:
            process = stack.enter_context(emulator(command, environment, outside))
            with limited(process, emulation.boot_s):
                found = Guest(folder, process, outside)
        yield found


@contextlib.contextmanager
def guest(
    folder: Path,
    card: Card,
    limit_s: float,
    emulation: machine.Emulation = machine.USUAL,
    boot: Callable[[Path, Card], None] = boot_files,
) -> Iterator[Guest]:
    """Boots it, with its card's other end in a namespace; until the end or, whatever happens, the limit."""
    boot(folder, card)
    with namespace("vm") as outside:
        queues = ["multi_queue"] if card.tap_queues > 1 else []
        outside.ip("tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr", *queues)
        outside.ip("addr", "add", f"{CLIENT}/24", "dev", TAP)
        outside.ip("link", "set", TAP, "up")
        with booted(folder, card, outside, emulation) as found, limited(found.emulator, limit_s):
            found.sh(f"ip addr add {KERNELS}/24 dev {NIC}; ip link set {NIC} up; ip link set lo up")
            found.wait_for_the_link()
            yield found
