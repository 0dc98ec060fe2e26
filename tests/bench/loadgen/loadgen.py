"""Runs loadgen, a load that is made frame by frame, in a network namespace, and tells what came of it."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.ffi_build import afxdp
from tests.net import SERVER4, Namespace

ROOT = Path(__file__).resolve().parents[3]

HERE = Path(__file__).resolve().parent
CSRC = ROOT / "runtime" / "csrc"
PROGRAM = ROOT / ".cache" / "loadgen"
FLAGS = ["-std=gnu11", "-O3", "-flto=auto", "-g", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
PORTS = ("packet.c", "vnet.c", "afxdp.c", "filter.c", "region.c")
ADDRESS4 = "10.213.0.10"  # beside those of tests/net.py
MAC = "02:00:00:00:00:10"  # not the interface's: the kernel then drops at once what it gets too


@functools.cache
def program() -> Path:
    """loadgen, compiled where that is needed."""
    sources = [*sorted(HERE.glob("*.c")), *(CSRC / "libnmio" / name for name in PORTS)]
    made_of = [
        *sources,
        *HERE.glob("*.h"),
        ROOT / "tests" / "clock.h",
        *CSRC.rglob("*.h"),
        CSRC / "libnmio" / "filter.bpf.c",
    ]
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > max(path.stat().st_mtime for path in made_of):
        return PROGRAM
    PROGRAM.parent.mkdir(exist_ok=True)
    xdp, macros, libraries = afxdp()
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(xdp)
        file.flush()
        words = [
            *FLAGS,
            *macros,
            f"-I{CSRC}",
            *map(str, sources),
            file.name,
            "-lm",
            *(f"-l{name}" for name in libraries),
        ]
        subprocess.run(["gcc", *words, "-o", str(PROGRAM)], check=True)
    return PROGRAM


@dataclass(frozen=True)
class Result:
    """What loadgen printed; `values` has all of it."""

    requests: int  # right answers
    requests_s: float
    bytes: int
    seconds: float
    cpu_seconds: float
    errors: dict[str, int]  # those that there were
    latency_us: dict[str, float]
    values: dict[str, Any]
    cores: tuple[float, ...] = ()  # busy, of each

    @property
    def retransmitted(self) -> int:
        """Segments of the client's that went out again."""
        return sum(value for name, value in self.values.items() if name.startswith("retransmitted_"))


def cpu_times() -> list[tuple[int, int]]:
    """Busy ticks and all ticks of each core."""
    found = []
    for line in Path("/proc/stat").read_text().splitlines():
        if re.match(r"cpu\d", line):
            ticks = [int(word) for word in line.split()[1:9]]
            found.append((sum(ticks) - ticks[3] - ticks[4], sum(ticks)))
    return found


def busy_since(before: list[tuple[int, int]]) -> tuple[float, ...]:
    """Each core's busy share."""
    pairs = zip(cpu_times(), before, strict=True)
    return tuple((now[0] - then[0]) / max(1, now[1] - then[1]) for now, then in pairs)


def words_of(options: dict[str, Any]) -> list[str]:
    """Options as words: check_every=1 is --check-every 1, close=True --close, a list several times."""
    words = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            if each is True:
                words.append(option)
            elif each is not None and each is not False:
                words += [option, str(each)]
    return words


def loadgen(client: Namespace, *paths: str, core: int | None = None, **options: Any) -> Result:
    """A load on a server from a namespace's cli0; paths are PATH or PATH=FILE, options those of the program. The cores'
    business is that of the whole run, warm-up included."""
    usual = {"interface": "cli0", "address": ADDRESS4, "mac": MAC, "server": SERVER4, "seconds": 2.0}
    options = usual | options | {"path": list(paths)}
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    limit_s = float(options["seconds"]) + float(options.get("warmup", 1)) + 20
    before = cpu_times()
    done = client.run(*pinned, program(), *words_of(options), timeout_s=limit_s)
    cores = busy_since(before)
    values = json.loads(done.stdout)
    return Result(
        requests=values["requests"],
        requests_s=values["requests_s"],
        bytes=values["bytes"],
        seconds=values["seconds"],
        cpu_seconds=values["cpu_seconds"],
        errors={name: count for name, count in values["errors"].items() if count > 0},
        latency_us=values["latency_us"],
        values=values,
        cores=cores,
    )


@dataclass(frozen=True)
class WrkResult:
    """What wrk printed."""

    requests: int
    requests_s: float
    errors: str  # its line about them, or nothing
    cores: tuple[float, ...]  # busy, of each


def wrk(
    client: Namespace,
    path: str,
    connections: int,
    seconds: float,
    *,
    threads: int = 1,
    core: int | None = None,
    close: bool = False,
) -> WrkResult:
    """The same load by the client's kernel, which takes whole seconds. close: a connection for each request."""
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    words = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    words += [*(["-H", "Connection: close"] if close else []), f"http://{SERVER4}{path}"]
    before = cpu_times()
    text = client.run(*pinned, *words, timeout_s=seconds + 30).stdout
    cores = busy_since(before)
    requests, rate = re.search(r"(\d+) requests in", text), re.search(r"Requests/sec:\s+([\d.]+)", text)
    if requests is None or rate is None:
        raise RuntimeError(text)
    errors = re.search(r"(Socket errors|Non-2xx).*", text)
    return WrkResult(int(requests[1]), float(rate[1]), errors[0] if errors else "", cores)
