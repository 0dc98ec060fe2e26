"""Instructions of the whole system for a request, beside nginx: python -m tests.vm.bench --help

A guest with one processor serves, the load is outside; a plugin of QEMU's counts each instruction by place (count.c). Writes
docs/benchmarks/whole-system.json and whole-system.md.
"""

from __future__ import annotations

import argparse
import bisect
import re
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import plots
from tests.net import NGINX
from tests.vm import guest_link, machine, whole_system
from tests.vm.guest_link import IGB, KERNELS, NIC, VIRTIO_SINGLE, Card, Guest

HERE = Path(__file__).resolve().parent
LIMIT_S = 3600
CONNECTIONS = 16
SIZES = (1000, 22_000)
# The path, a connection for all requests or for each, and how many at once.
CELLS = {
    "1 KB, kept": ("/1000", "kept", CONNECTIONS),
    "1 KB, close": ("/1000", "close", CONNECTIONS),
    "22 KB, kept": ("/22000", "kept", CONNECTIONS),
    "22 KB, close": ("/22000", "close", CONNECTIONS),
    "22 KB, one connection": ("/22000", "kept", 1),
}
LOOP = 100_000_000
IDLE = re.compile(
    r"do_idle|.*cpu_?idle.*|default_idle.*|arch_cpu_idle.*|tick_nohz_.*|menu_.*|teo_.*|pv_native_safe_halt|native_safe_halt"
    r"|ct_idle_.*|nohz_.*|schedule_idle|acpi_(idle|safe_halt).*|rcu_.*idle.*|quiet_vmstat|flush_smp_call_function_queue"
    r"|hrtimer_(next_event|get_next_event).*|get_next_timer_interrupt.*|__get_next_timer_interrupt|tmigr_.*"
)
PLACE = struct.Struct("<QQ")
USER_END = 1 << 47

NGINX_HTTP = "sendfile on; tcp_nopush on; open_file_cache max=1000; keepalive_requests 1000000;"


@dataclass
class Counts:
    """Instructions, by whose they are."""

    server: int = 0
    driver: int = 0
    kernel: int = 0
    idle: int = 0
    functions: Counter[str] = field(default_factory=Counter)  # of the kernel and its modules

    @property
    def all(self) -> int:
        """Without the idle task's."""
        return self.server + self.driver + self.kernel

    def by(self, requests: int) -> dict[str, int]:
        named = {
            "all": self.all,
            "server": self.server,
            "driver": self.driver,
            "kernel": self.kernel,
            "idle": self.idle,
        }
        return {name: round(count / requests) for name, count in named.items()}


@dataclass
class Table:
    """The plugin's table, and what the kernel calls its places."""

    table: Path
    starts: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    kernel_end: int = 0  # behind it are modules and BPF programs

    def read(self) -> dict[int, int]:
        return {address: count for address, count in PLACE.iter_unpack(self.table.read_bytes()) if count}

    def learn_names(self, kallsyms: Path) -> None:
        found = [line.split() for line in kallsyms.read_text().splitlines()]
        symbols = sorted((int(words[0], 16), words[2]) for words in found if words[1] in "tTwW")
        self.kernel_end = next(int(words[0], 16) for words in found if words[2] == "_end")
        self.starts = [address for address, _ in symbols]
        self.names = [name for _, name in symbols]

    def name(self, address: int) -> str:
        at = bisect.bisect_right(self.starts, address) - 1
        if self.starts[at] < self.kernel_end <= address:
            return "BPF programs"
        return self.names[at]

    def since(self, before: dict[int, int]) -> Counts:
        counts = Counts()
        for address, executed in self.read().items():
            more = executed - before.get(address, 0)
            if address < USER_END:
                counts.server += more
                continue
            counts.functions[self.name(address)] += more
            if IDLE.fullmatch(self.name(address)):
                counts.idle += more
            elif address >= self.kernel_end:
                counts.driver += more
            else:
                counts.kernel += more
        return counts


@dataclass
class Bench:
    """A guest, whose instructions are counted."""

    guest: Guest
    table: Table
    folder: Path
    options: argparse.Namespace

    def measure(self, path: str, how: str, connections: int) -> dict[str, int]:
        """Of a request, after some that are not counted."""
        self.load(path, how, connections, 1)
        self.compare(path)
        before = self.table.read()
        requests = self.load(path, how, connections, self.options.seconds)
        counts = self.table.since(before)
        counted = counts.by(requests)
        print(f"    {path} {how} {connections}: {counted} of {requests} requests", flush=True)
        for name, count in counts.functions.most_common(self.options.functions):
            print(f"        {round(count / requests):7,} {name}", flush=True)
        return counted

    def compare(self, path: str) -> None:
        """What comes is the file."""
        got = self.folder / "got"
        self.guest.outside.run("curl", "-sS", "--fail", "--max-time", "30", "-o", got, f"http://{KERNELS}{path}")
        assert got.read_bytes() == (self.folder / "site" / path[1:]).read_bytes()

    def load(self, path: str, how: str, connections: int, seconds: int) -> int:
        """So many requests. Those that are under way at the end, one a connection at most, are too few to count."""
        url = f"http://{KERNELS}{path}"
        closing = ("-H", "Connection: close") if how == "close" else ()
        said = self.guest.outside.run(
            "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", *closing, url
        ).stdout
        requests = re.search(r"(\d+) requests in", said)
        assert requests is not None, said
        assert not re.search(r"Non-2xx|Socket errors", said), said
        return int(requests[1])

    def cells(self) -> dict[str, dict[str, int]]:
        return {name: self.measure(*cell) for name, cell in CELLS.items()}

    def check(self) -> int:
        """What a loop of known length reads as: the difference of two, so that what starts them does not count."""
        lengths = (LOOP, 2 * LOOP)
        read = []
        for length in lengths:
            before = self.table.read()
            self.guest.sh(f"{self.folder / 'loop'} {length}")
            read.append(self.table.since(before).server)
        return read[1] - read[0]


def offloads(guest: Guest, on: bool) -> None:
    guest.sh(f"ethtool -K {NIC} tso {'on' if on else 'off'} gso {'on' if on else 'off'}")


@contextmanager
def nginx(bench: Bench, tso: bool) -> Iterator[None]:
    config = bench.folder / "nginx.conf"
    config.write_text(NGINX.format(folder="/run/nginx", root="/run/site", workers=1, main="", http=NGINX_HTTP))
    bench.guest.sh(f"mkdir -p /run/nginx; [ -d /run/site ] || cp -r {bench.folder / 'site'} /run/site")
    offloads(bench.guest, tso)
    bench.guest.sh(f"setsid nginx -c {config} </dev/null >/dev/null 2>&1 & sleep 1")
    try:
        yield
    finally:
        bench.guest.sh("kill $(cat /run/nginx/pid); sleep 1")
        offloads(bench.guest, True)


@contextmanager
def ssrun(bench: Bench, *options: str) -> Iterator[None]:
    event = bench.guest.start(bench.folder / "site.img", "--workers", "1", *options)
    assert event.get("zero_copy", True), event
    bench.guest.wait_for_the_link()
    try:
        yield
    finally:
        bench.guest.stop()


SYSTEMS: dict[str, Callable[[Bench], object]] = {
    "nginx, TSO": lambda bench: nginx(bench, tso=True),
    "nginx, frame by frame": lambda bench: nginx(bench, tso=False),
    "ssrun, AF_XDP zero-copy": lambda bench: ssrun(bench, "--backend", "afxdp"),
    "ssrun, AF_XDP zero-copy, memcpy": lambda bench: ssrun(bench, "--backend", "afxdp", "--tx", "memcpy"),
    "ssrun, AF_PACKET": lambda bench: ssrun(bench, "--backend", "packet"),
}
CARDS = {"virtio-net": VIRTIO_SINGLE, "igb": IGB}

LOOP_C = """
#include <stdlib.h>
int main(int argc, char **argv)
{
    long left = atol(argv[argc - 1]) / 2;
    __asm__ volatile("1: dec %0\\n jnz 1b" : "+r"(left));
    return 0;
}
"""


def prepare(folder: Path) -> None:
    """The site, the loop and the plugin."""
    site = folder / "site"
    site.mkdir()
    folder.chmod(0o755)
    for size in SIZES:
        (site / str(size)).write_bytes(bytes(range(250)) * (size // 250))
    image = folder / "site.img"
    subprocess.run([sys.executable, "-m", "sscc.cli", "build", "-q", str(site), "-o", str(image)], check=True)
    (folder / "loop.c").write_text(LOOP_C)
    subprocess.run(["gcc", "-O1", "-static", folder / "loop.c", "-o", folder / "loop"], check=True)
    plugin = ["gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", HERE / "count.c", "-o", folder / "count.so"]
    subprocess.run(plugin, check=True)
    (folder / "out").mkdir()


def emulation(folder: Path) -> machine.Emulation:
    return machine.Emulation(
        processors=1,
        boot_s=300,
        accelerator="tcg,thread=single",
        parameters="nokaslr norandmaps",
        options=(
            *("-M", "q35", "-bios", "qboot.rom", "-icount", "shift=0,sleep=on,align=off"),
            *("-plugin", f"{folder / 'count.so'},table={folder / 'table'}"),
            *("-virtfs", f"local,path={folder / 'out'},mount_tag=out,security_model=none"),
        ),
    )


def settle(guest: Guest, table: Table, folder: Path) -> None:
    """One queue, nothing in the background, and the kernel's names."""
    guest.sh("mkdir /run/out; mount -t 9p -o trans=virtio,version=9p2000.L out /run/out; cp /proc/kallsyms /run/out/")
    table.learn_names(folder / "out" / "kallsyms")
    guest.sh("echo 3600000 > /sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs")
    guest.sh(f"ethtool -L {NIC} combined 1 || true; sleep 3")
    guest.wait_for_the_link()


def run(card: Card, options: argparse.Namespace) -> dict[str, object]:
    """All systems on one card."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        table = Table(folder / "table")
        with guest_link.guest(folder, card, LIMIT_S, emulation(folder)) as guest:
            settle(guest, table, folder)
            bench = Bench(guest, table, folder, options)
            read: dict[str, object] = {"loop": bench.check(), "kernel": guest.sh("uname -r").strip()}
            print(f"  a loop of {LOOP} reads {read['loop']}", flush=True)
            for system in options.system or SYSTEMS:
                print(f"  {system}", flush=True)
                with SYSTEMS[system](bench):  # type: ignore[attr-defined]
                    read[system] = bench.cells()
            return read


def draw(results: dict[str, Any]) -> None:
    """A picture for each card."""
    for name, card in results["cards"].items():
        rows = [
            {"system": system, "request": cell, "instructions": read["all"]}
            for system, cells in whole_system.systems(card).items()
            for cell, read in cells.items()
        ]
        path = whole_system.FOLDER / f"whole-system-{name}.svg"
        plots.bars(
            path, f"{name}: the whole system", rows, "request", lambda row: row["instructions"], "instructions"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--card", choices=CARDS, action="append")
    parser.add_argument("--system", choices=SYSTEMS, action="append")
    parser.add_argument("--seconds", type=int, default=4, help="of load for each cell")
    parser.add_argument(
        "--functions", type=int, default=0, help="print so many of the kernel's functions, those that take most"
    )
    options = parser.parse_args()
    lacking = guest_link.missing()
    if lacking:
        sys.exit(f"no guest: {lacking}")
    results = {"loop_instructions": LOOP, "seconds": options.seconds, "connections": CONNECTIONS, "cards": {}}
    for name in options.card or CARDS:
        print(name, flush=True)
        results["cards"][name] = run(CARDS[name], options)
    if options.card or options.system:
        print("nothing is written: these are not all")
    else:
        whole_system.write(results)
        draw(results)


if __name__ == "__main__":
    main()
