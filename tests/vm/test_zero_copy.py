"""AF_XDP in zero-copy mode, on drivers that have it: those of cards that QEMU emulates."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.net import needs, needs_root
from tests.vm import guest_link, machine
from tests.vm.guest_link import IGB, KERNELS, NIC, OURS, TAP, VIRTIO, Card, Guest

pytestmark = [needs_root, needs("ip", "curl", "nft", "ping")]

LIMIT_S = 280  # of a guest's life: a minute where nothing else runs
LOSS_PERCENT = 5
FILES = 90  # more than the small arena holds, of two workers each
LARGE = f"{FILES - 1}.bin"


@dataclass
class Scene:
    """A guest, the site that it serves, and the last run of ssrun."""

    guest: Guest
    folder: Path
    counters: dict[str, int]

    @contextlib.contextmanager
    def serving(self, *options: str) -> Iterator[dict[str, Any]]:
        """ssrun in the guest, whose frames must leave from where they lie."""
        event = self.guest.start(self.folder / "site.img", "--backend", "afxdp", *options)
        assert (event["xdp"], event["zero_copy"]) == ("native", True), event
        yield event
        self.counters = self.guest.stop()
        assert self.counters.get("arena_stalls", 0) == 0

    def fetch(self, address: str) -> None:
        """All files with one curl, byte by byte."""
        got, config = self.folder / "got", self.folder / "curl"
        files = sorted((self.folder / "site").iterdir())
        lines = (f'url = "http://{address}/{file.name}"\noutput = "{got}/{file.name}"\n' for file in files)
        config.write_text("".join(lines))
        self.guest.outside.run("rm", "-rf", got)
        got.mkdir()
        # Requests that fill a frame.
        command = (
            "curl",
            "-sS",
            "--fail",
            "--parallel",
            "--parallel-max",
            "8",
            "--max-time",
            "60",
            "-H",
            f"Cookie: {'c' * 1200}",
        )
        self.guest.outside.run(*command, "-K", config, timeout_s=90)
        assert [file.name for file in files if (got / file.name).read_bytes() != file.read_bytes()] == []

    def ping(self) -> None:
        """The kernel is there as ever, for frames of any length."""
        self.guest.outside.run("ping", "-c", "3", "-i", "0.2", "-w", "20", "-s", "1400", KERNELS)

    @contextlib.contextmanager
    def loss(self) -> Iterator[None]:
        """The link loses packets, each way."""
        drop = f"numgen random mod 100 < {LOSS_PERCENT} drop"
        for hook in ("ingress", "egress"):
            chain = f"add chain netdev loss {hook} {{ type filter hook {hook} device {TAP} priority 0; }}"
            self.guest.outside.run("nft", f"add table netdev loss; {chain}; add rule netdev loss {hook} {drop}")
        yield
        self.guest.outside.run("nft", "delete table netdev loss")

    def received_by(self) -> list[int]:
        """Frames that each queue has given to its socket."""
        shown = self.guest.sh(f"ethtool -S {NIC}")
        return [int(count) for count in re.findall(r"\brx\d+_xdp_redirects: (\d+)", shown)]


def shared_address(scene: Scene, card: Card) -> None:
    """All queues, one worker each; then on a link that loses packets, and over its reset."""
    with scene.serving() as event:
        assert event["workers"] == 2
        scene.fetch(KERNELS)
        scene.ping()
        with scene.loss():
            scene.fetch(KERNELS)
        reset_amid_a_download(scene)
        scene.ping()
    assert scene.counters["tcp_retransmit_segments"] > 0


def reset_amid_a_download(scene: Scene) -> None:
    got = scene.folder / "large"
    command = (
        "curl",
        "-sS",
        "--fail",
        "--limit-rate",
        "50k",
        "--max-time",
        "60",
        "-o",
        got,
        f"http://{KERNELS}/{LARGE}",
    )
    with scene.guest.outside.popen(*command, stderr=subprocess.PIPE) as download:
        scene.guest.sh(f"ip link set {NIC} down; sleep 0.5; ip link set {NIC} up")
        scene.guest.wait_for_the_link()
        _, error = download.communicate(timeout=90)
    assert download.returncode == 0, error
    assert got.read_bytes() == (scene.folder / "site" / LARGE).read_bytes()
    scene.fetch(KERNELS)


def own_address_and_small_arena(scene: Scene, card: Card) -> None:
    with scene.serving("--address", f"{OURS}/24", "--arena", "5M") as event:
        assert event["mode"] == "own-address"
        scene.fetch(OURS)
        scene.ping()
    assert scene.counters["arena_evictions"] > 0


def busy_poll(scene: Scene, card: Card) -> None:
    """Nobody sleeps, which would wake a driver that waits for buffers."""
    with scene.serving("--busy-poll"):
        scene.fetch(KERNELS)
        scene.ping()


SCENES = (shared_address, own_address_and_small_arena, busy_poll)


def play(folder: Path, card: Card) -> None:
    machine.build_site(folder, FILES)
    with guest_link.guest(folder, card, LIMIT_S) as guest:
        scene = Scene(guest, folder, {})
        for each in SCENES:
            each(scene, card)
        complaints = re.findall(r".*(?:BUG|WARNING|Oops|Call Trace).*", guest.sh("dmesg"))
        assert complaints == []


def lacking() -> str | None:
    return guest_link.missing()


@pytest.mark.long
def test_virtio_net(tmp_path: Path) -> None:
    if lack := lacking():
        pytest.skip(lack)
    play(tmp_path, VIRTIO)


@pytest.mark.long
def test_igb(tmp_path: Path) -> None:
    if os.environ.get("SANDSTORM_VM") != "all":
        pytest.skip("another minute of an emulated machine: make vm")
    if lack := lacking():
        pytest.skip(lack)
    play(tmp_path, IGB)
