"""What cores were busy with, by counters in nanoseconds, and by a loop that takes what is left.

Ticks (/proc/stat's user, system, softirq) are samples: a process that wakes with the clock is met by each, or by none.
Three things count exactly, and a fourth judges them:

- a core's idle time, without the interrupts and softirqs that came meanwhile (/proc/timer_list): what is left of the
  clock, the core was busy;
- its threads' time, ksoftirqd's among it (cpuacct); an interrupt or softirq that comes while a thread runs counts for the thread;
- so what was busy and is no thread's are the interrupts and softirqs that came while the core was idle;
- a loop of the lowest priority on the same core (spare.c): what it is not given, something else took.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("spare.c")
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # /proc/stat's unit
TIMER_LIST = Path("/proc/timer_list")
# Of all threads together: in cgroup 2 the root's cpu.stat are ticks again.
CPUACCT = Path("/sys/fs/cgroup/cpuacct/cpuacct.usage_percpu")


def idle_of_stat(text: str) -> list[int]:
    """Each core's idle time in /proc/stat: the same counters as timer_list's and up to date, but cut to whole ticks."""
    return [sum(map(int, line.split()[4:6])) * TICK_NS for line in re.findall(r"^cpu\d.*", text, re.MULTILINE)]


def idle_of_timer_list(text: str) -> list[int]:
    """In ns, as of the last time that a core woke."""
    found = []
    for part in re.split(r"^cpu: \d+$", text, flags=re.MULTILINE)[1:]:
        found.append(sum(map(int, re.findall(r"\.(?:idle|iowait)_sleeptime\s*: (\d+)", part))))
    return found


def exact_idle_ns() -> list[int]:
    """timer_list's; nothing where the kernel doesn't show it."""
    with contextlib.suppress(OSError):
        return idle_of_timer_list(TIMER_LIST.read_text())
    return []


def idle_ns() -> tuple[int, ...]:
    """Each core's. Neither source is ever ahead, so the greater one is the better."""
    ticks, exact = idle_of_stat(Path("/proc/stat").read_text()), exact_idle_ns()
    return tuple(map(max, exact, ticks)) if len(exact) == len(ticks) else tuple(ticks)


def idle_source() -> str:
    """Where it is from, for the page."""
    if exact_idle_ns():
        return f"{TIMER_LIST}, in ns"
    return f"/proc/stat, in steps of {TICK_NS // 1_000_000} ms, as {TIMER_LIST} can't be read there"


def threads_ns() -> tuple[int, ...] | None:
    """What all threads have had of each core; None where the kernel has no such count."""
    try:
        return tuple(map(int, CPUACCT.read_text().split()))
    except OSError:
        return None


def run_ns(task: Path) -> int:
    """What a thread, as a folder in /proc, has had."""
    return int((task / "schedstat").read_text().split()[0])


@functools.cache
def softirq_threads() -> tuple[Path, ...]:
    """ksoftirqd of each core; it takes softirqs where there are too many at once."""
    found = {}
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            name = re.fullmatch(r"ksoftirqd/(\d+)", comm.read_text().strip())
            if name:
                found[int(name[1])] = comm.parent
    return tuple(found[core] for core in sorted(found))


@dataclass(frozen=True)
class Reading:
    """The counters at a moment, of all cores."""

    at_ns: int
    idle_ns: tuple[int, ...]
    threads_ns: tuple[int, ...] | None
    ksoftirqd_ns: tuple[int, ...]


def read() -> Reading:
    """Those of now."""
    ksoftirqd = tuple(map(run_ns, softirq_threads()))
    return Reading(time.monotonic_ns(), idle_ns(), threads_ns(), ksoftirqd)


@dataclass(frozen=True)
class Spent:
    """A core's time between two readings, in ns."""

    elapsed_ns: int
    busy_ns: int
    idle_softirq_ns: int | None  # interrupts and softirqs that came while it was idle; None: unknown
    ksoftirqd_ns: int | None

    @property
    def busy(self) -> float:
        return self.busy_ns / max(1, self.elapsed_ns)


def spent(before: Reading, after: Reading) -> tuple[Spent, ...]:
    """Each core's."""
    elapsed_ns = after.at_ns - before.at_ns
    found = []
    for core, (then, now) in enumerate(zip(before.idle_ns, after.idle_ns, strict=True)):
        busy_ns = min(elapsed_ns, max(0, elapsed_ns - (now - then)))
        outside = softirqd = None
        if before.threads_ns is not None and after.threads_ns is not None:
            outside = max(0, busy_ns - (after.threads_ns[core] - before.threads_ns[core]))
        if core < len(before.ksoftirqd_ns):
            softirqd = after.ksoftirqd_ns[core] - before.ksoftirqd_ns[core]
        found.append(Spent(elapsed_ns, busy_ns, outside, softirqd))
    return tuple(found)


def compile_to(target: Path, words: list[str]) -> None:
    """gcc's output in a program's place at once: another process may run it, or compile it too."""
    own = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        subprocess.run(["gcc", *words, "-o", str(own)], check=True)
        own.replace(target)
    finally:
        own.unlink(missing_ok=True)


@functools.cache
def program() -> Path:
    """spare.c, compiled where that is needed."""
    target = ROOT / ".cache" / "spare"
    if not target.exists() or target.stat().st_mtime < SOURCE.stat().st_mtime:
        target.parent.mkdir(exist_ok=True)
        words = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
        compile_to(target, [*words, str(SOURCE)])
    return target


@dataclass(frozen=True)
class Spare:
    """The loop, running."""

    core: int
    shared: mmap.mmap

    def left_ns(self) -> int:
        """What it has been given so far."""
        return int.from_bytes(self.shared[:8], "little")


@contextlib.contextmanager
def spare(core: int) -> Iterator[Spare]:
    """The loop on a core, for the length of a with: from then on the core never sleeps."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        process = subprocess.Popen([program(), str(core), file.name])
        try:
            with mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ) as shared:
                loop = Spare(core, shared)
                while loop.left_ns() == 0:
                    if process.poll() is not None:
                        raise RuntimeError(f"{program()} has ended: {process.returncode}")
                    time.sleep(0.01)
                yield loop
        finally:
            process.kill()
            process.wait()
