"""Instructions of the whole system for a request, beside nginx: python -m tests.vm.bench --help

A guest with one processor serves, the load is outside; a plugin of QEMU's counts each instruction by place (count.c). Writes
docs/benchmarks/whole-system.json, whole-system.md and its pictures: what was not read stays as it was.

The e1000 has netmap's own driver, of modules that the user names as for tests/vm/vm.py: NETMAP_KO, E1000_KO, KERNEL, MODULES.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
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
from tests.vm import guest_link, machine, vm, whole_system
from tests.vm.guest_link import E1000, IGB, KERNELS, NIC, VIRTIO_SINGLE, Card, Guest

HERE = Path(__file__).resolve().parent
LIMIT_S = 3600
CONNECTIONS = 16
SIZES = (1000, 22_000, 100_000, 1_000_000)
# The path, a connection for all requests or for each, and how many at once.
CELLS = {
    "1 KB, kept": ("/1000", "kept", CONNECTIONS),
    "1 KB, close": ("/1000", "close", CONNECTIONS),
    "22 KB, kept": ("/22000", "kept", CONNECTIONS),
    "22 KB, close": ("/22000", "close", CONNECTIONS),
    "22 KB, one connection": ("/22000", "kept", 1),
    "1 KB, 64 connections": ("/1000", "kept", 64),
    "22 KB, 64 connections": ("/22000", "kept", 64),
    "100 KB, kept": ("/100000", "kept", CONNECTIONS),
    "1 MB, kept": ("/1000000", "kept", CONNECTIONS),
}
ANSWERS_EACH = 40  # of a connection at least, so that those under way at the end are few
SECONDS_MAX = 40
HASTE = -10  # of the load and QEMU's own loop: on a busy machine, too, it is the guest that is waited for
LOOP = 100_000_000
MAPS = 'cat $(grep -l -s -E "/nginx|/_sandstorm" /proc/[0-9]*/maps)'
IDLE = re.compile(
    r"do_idle|.*cpu_?idle.*|default_idle.*|arch_cpu_idle.*|tick_nohz_.*|menu_.*|teo_.*|pv_native_safe_halt|native_safe_halt"
    r"|ct_idle_.*|nohz_.*|schedule_idle|acpi_(idle|safe_halt).*|rcu_.*idle.*|quiet_vmstat|flush_smp_call_function_queue"
    r"|hrtimer_(next_event|get_next_event).*|get_next_timer_interrupt.*|__get_next_timer_interrupt|tmigr_.*"
)
# Of the kernel: its folders lie one after the other. The first names are one of those that a folder begins with.
NETWORK = (
    ("sock_show_fdinfo", "sockfs_listxattr", "sockfs_security_xattr_set"),
    ("pci_mmcfg_read", "__noinstr_text_start"),
)
FILES = (("generic_file_open", "vfs_fallocate", "do_truncate"), ("ipc_init_ids", "ipcget"))
SYSTEM_CALL = re.compile(
    r"entry_SYSCALL_64.*|do_syscall_64|syscall_.*|x64_sys_call|__(x64|do|se)_sys_.*|__get_user_.*|__put_user_.*|_copy_(from|to)_user"
    r"|rep_movs_alternative|copy_user_.*"
)
PLACE = struct.Struct("<QQ")
USER_END = 1 << 47

NGINX_HTTP = "sendfile on; tcp_nopush on; open_file_cache max=1000; keepalive_requests 1000000;"


@dataclass
class Counts:
    """Instructions, by whose they are."""

    server: int = 0
    driver: int = 0
    network: int = 0
    calls: int = 0  # system calls, and files
    rest: int = 0  # interrupts, the scheduler, memory
    idle: int = 0
    functions: Counter[str] = field(default_factory=Counter)

    @property
    def all(self) -> int:
        """Without the idle task's."""
        return self.server + self.driver + self.network + self.calls + self.rest

    def by(self, requests: float) -> dict[str, int]:
        named = {"all": self.all, "idle": self.idle}
        named |= {name: getattr(self, name) for name in whole_system.PARTS}
        return {name: round(count / requests) for name, count in named.items()}


@dataclass
class Table:
    """The plugin's table, and what the kernel calls its places."""

    table: Path
    starts: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    kernel_end: int = 0  # behind it are modules and BPF programs
    network: range = range(0)
    files: range = range(0)

    def read(self) -> dict[int, int]:
        return {address: count for address, count in PLACE.iter_unpack(self.table.read_bytes()) if count}

    def learn_names(self, kallsyms: Path) -> None:
        found = [line.split() for line in kallsyms.read_text().splitlines()]
        symbols = sorted((int(words[0], 16), words[2]) for words in found if words[1] in "tTwW")
        self.kernel_end = next(int(words[0], 16) for words in found if words[2] == "_end")
        self.starts = [address for address, _ in symbols]
        self.names = [name for _, name in symbols]
        places = {name: address for address, name in reversed(symbols)}
        self.network, self.files = (self.folder(places, *ends) for ends in (NETWORK, FILES))

    @staticmethod
    def folder(places: dict[str, int], first: tuple[str, ...], behind: tuple[str, ...]) -> range:
        """Where the functions of one of the kernel's folders are."""
        start, end = (min(places[name] for name in names if name in places) for names in (first, behind))
        return range(start, end)

    def part(self, address: int, name: str) -> str:
        """Whose an instruction is."""
        if address < USER_END:
            return "server"
        if IDLE.fullmatch(name):
            return "idle"
        if address >= self.kernel_end:
            return "driver"
        if address in self.network:
            return "network"
        return "calls" if address in self.files or SYSTEM_CALL.fullmatch(name) else "rest"

    def learn_server(self, maps: str) -> None:
        """What a process calls its places, of /proc/PID/maps: those of a kernel's before lie all behind them."""
        found = []
        for start, offset, path in re.findall(r"^(\w+)-\w+ r-xp (\w+) \S+ \d+ +(/\S+)$", maps, re.MULTILINE):
            base = int(start, 16) - int(offset, 16)
            said = subprocess.run(["nm", "--defined-only", path], capture_output=True, text=True, check=False).stdout
            found += [
                (base + int(words[0], 16), words[2])
                for words in map(str.split, said.splitlines())
                if len(words) == 3 and words[1] in "tTwW"
            ]
            found.append((int(start, 16), Path(path).name))
        at = bisect.bisect_left(self.starts, USER_END)
        found = [(0, "?"), *sorted(found)]
        self.starts[:at] = [address for address, _ in found]
        self.names[:at] = [name for _, name in found]

    def name(self, address: int) -> str:
        at = bisect.bisect_right(self.starts, address) - 1
        if self.starts[at] < self.kernel_end <= address:
            return "BPF programs"
        return self.names[at]

    def since(self, before: dict[int, int]) -> Counts:
        counts = Counts()
        for address, executed in self.read().items():
            more = executed - before.get(address, 0)
            name = self.name(address)
            part = self.part(address, name)
            setattr(counts, part, getattr(counts, part) + more)
            counts.functions[name] += more
        return counts


@dataclass
class Bench:
    """A guest, whose instructions are counted."""

    guest: Guest
    table: Table
    folder: Path
    options: argparse.Namespace

    def measure(self, path: str, how: str, connections: int) -> dict[str, int]:
        """Of a request, after some that are not counted, which say how long it takes to see enough."""
        closing = ("-H", "Connection: close") if how == "close" else ()
        answer_bytes = self.compare(path, *closing)
        a_second = self.load(path, connections, 1, *closing) / answer_bytes
        seconds = max(self.options.seconds, round(min(SECONDS_MAX, ANSWERS_EACH * connections / max(a_second, 1))))
        before = self.table.read()
        requests = self.load(path, connections, seconds, *closing) / answer_bytes
        counts = self.table.since(before)
        counted = counts.by(requests)
        print(f"    {path} {how} {connections}: {counted} of {requests:.0f} requests", flush=True)
        for name, count in counts.functions.most_common(self.options.functions):
            print(f"        {round(count / requests):7,} {name}", flush=True)
        return counted

    def compare(self, path: str, *options: str) -> int:
        """What comes is the file. How many bytes the answer is, with its head."""
        got = self.folder / "got"
        command = ("curl", "-sS", "--fail", "--max-time", "30", "-o", got, "-w", "%{size_header} %{size_download}")
        said = self.guest.outside.run(*command, *options, f"http://{KERNELS}{path}").stdout
        assert got.read_bytes() == (self.folder / "site" / path[1:]).read_bytes()
        return sum(map(int, said.split()))

    def load(self, path: str, connections: int, seconds: int, *options: str) -> int:
        """So many bytes came in answers: with what has come of those that are under way at the end."""
        wrk = ("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", self.folder / "bytes.lua")
        command = ("nice", "-n", str(HASTE), *wrk, *options, f"http://{KERNELS}{path}")
        said = self.guest.outside.run(*command).stdout
        received = re.search(r"^(\d+) bytes came$", said, re.MULTILINE)
        assert received is not None, said
        assert not re.search(r"Non-2xx|Socket errors", said), said
        return int(received[1])

    def stop(self) -> None:
        counters = self.guest.stop()
        if self.options.functions:
            shown = {name: count for name, count in counters.items() if re.match(r"loop|port|web_requests", name)}
            print(f"    all in all: {shown}", flush=True)

    def cells(self) -> dict[str, dict[str, int]]:
        return {name: self.measure(*CELLS[name]) for name in self.options.cell or CELLS}

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
        bench.stop()


@contextmanager
def netmap(bench: Bench, *options: str) -> Iterator[None]:
    event = bench.guest.start(bench.folder / "site.img", "--workers", "1", "--backend", "netmap", *options)
    assert str(event["sending"]).startswith("in place"), event
    bench.guest.wait_for_the_link()
    try:
        yield
    finally:
        bench.stop()
        bench.guest.wait_for_the_link()


NGINXES: dict[str, Callable[[Bench], object]] = {
    "nginx, TSO": lambda bench: nginx(bench, tso=True),
    "nginx, frame by frame": lambda bench: nginx(bench, tso=False),
}
PACKET: dict[str, Callable[[Bench], object]] = {
    "ssrun, AF_PACKET": lambda bench: ssrun(bench, "--backend", "packet"),
}
AFXDP: dict[str, Callable[[Bench], object]] = {
    "ssrun, AF_XDP zero-copy": lambda bench: ssrun(bench, "--backend", "afxdp"),
    "ssrun, AF_XDP zero-copy, memcpy": lambda bench: ssrun(bench, "--backend", "afxdp", "--tx", "memcpy"),
}
NETMAP: dict[str, Callable[[Bench], object]] = {
    "ssrun, netmap": netmap,
    "ssrun, netmap, memcpy": lambda bench: netmap(bench, "--tx", "memcpy"),
}
SYSTEMS = NGINXES | AFXDP | NETMAP | PACKET


def boot_netmap(folder: Path, card: Card) -> None:
    """What a guest with the user's modules boots from."""
    guest_link.write_boot_files(folder, Path(os.environ["KERNEL"]), vm.modules(), *vm.netmap_modules("buf_num=32768"))


@dataclass(frozen=True)
class Place:
    """A card, and what serves there."""

    card: Card
    systems: dict[str, Callable[[Bench], object]]
    boot: Callable[[Path, Card], None] = guest_link.boot_files
    missing: Callable[[], str | None] = guest_link.missing


PLACES = {
    "virtio-net": Place(VIRTIO_SINGLE, NGINXES | AFXDP | PACKET),
    "igb": Place(IGB, NGINXES | AFXDP | PACKET),
    "e1000": Place(E1000, NGINXES | NETMAP | PACKET, boot_netmap, vm.missing_driver),
}

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
    (folder / "bytes.lua").write_text('done = function(said) print(string.format("%d bytes came", said.bytes)) end\n')
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
    os.setpriority(os.PRIO_PROCESS, guest.emulator.pid, HASTE)  # of that thread
    guest.sh(f"ethtool -L {NIC} combined 1 || true; sleep 3")
    guest.wait_for_the_link()


def run(place: Place, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All systems on one card; what was read after each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        table = Table(folder / "table")
        with guest_link.guest(folder, place.card, LIMIT_S, emulation(folder), place.boot) as guest:
            settle(guest, table, folder)
            bench = Bench(guest, table, folder, options)
            loop = bench.check()
            print(f"  a loop of {LOOP} reads {loop}", flush=True)
            yield {"loop": loop, "kernel": guest.sh("uname -r").strip()}
            for system, serving in place.systems.items():
                if system in (options.system or place.systems):
                    print(f"  {system}", flush=True)
                    with serving(bench):  # type: ignore[attr-defined]
                        if options.functions:
                            table.learn_server(guest.sh(MAPS))
                        yield {system: bench.cells()}


def merge(card: dict[str, Any], read: dict[str, Any]) -> None:
    """What was read takes the place of what was read before, cell by cell."""
    for name, value in read.items():
        card[name] = card.get(name, {}) | value if isinstance(value, dict) else value


def draw(results: dict[str, Any]) -> None:
    """A picture for each card."""
    for name, card in results["cards"].items():
        rows = whole_system.systems(card)
        base = rows[whole_system.PEER]
        bars = [
            {"system": system, "request": cell.replace(", ", "\n"), "share": cells[cell]["all"] / base[cell]["all"]}
            for system, cells in rows.items()
            for cell in base
            if cell in cells
        ]
        path = whole_system.FOLDER / f"whole-system-{name}.svg"
        label = "instructions, as a share of nginx's with TSO"
        plots.bars(path, f"{name}: the whole system", bars, "request", lambda row: row["share"], label)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--card", choices=PLACES, action="append")
    parser.add_argument("--system", choices=SYSTEMS, action="append")
    parser.add_argument("--cell", choices=CELLS, action="append")
    parser.add_argument("--seconds", type=int, default=4, help="of load for each cell at least")
    parser.add_argument("--functions", type=int, default=0, help="print so many functions, those that take most")
    parser.add_argument("--print", action="store_true", help="write nothing")
    options = parser.parse_args()
    results = json.loads(whole_system.RESULTS.read_text())
    results |= {"loop_instructions": LOOP, "seconds": options.seconds, "connections": CONNECTIONS}
    for name in options.card or PLACES:
        print(name, flush=True)
        if lacking := PLACES[name].missing():
            print(f"  not read, and what was read before stays: {lacking}", flush=True)
            continue
        for read in run(PLACES[name], options):
            merge(results["cards"].setdefault(name, {}), read)
            if not options.print and whole_system.PEER in results["cards"][name]:
                whole_system.write(results)
                draw(results)


if __name__ == "__main__":
    main()
