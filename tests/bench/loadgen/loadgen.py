"""Runs loadgen, a load that is made frame by frame, in a network namespace, and tells what came of it."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from runtime.ffi_build import afxdp
from tests.bench import cpu
from tests.net import SERVER4, Namespace

ROOT = Path(__file__).resolve().parents[3]

HERE = Path(__file__).resolve().parent
CSRC = ROOT / "runtime" / "csrc"
PROGRAM = ROOT / ".cache" / "loadgen"
FLAGS = ["-std=gnu11", "-O3", "-flto=auto", "-g", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
PORTS = ("packet.c", "vnet.c", "afxdp.c", "filter.c", "region.c")
ADDRESS4 = "10.213.0.10"  # beside those of tests/net.py
MARKS = ("measuring", "measured")  # on its stderr
MAC = "02:00:00:00:00:10"  # not the interface's: the kernel then drops at once what it gets too


T = TypeVar("T")


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
        cpu.compile_to(PROGRAM, words)
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
    spent: tuple[cpu.Spent, ...]  # of each core's time, while it was measured
    samples: tuple[Any, ...]  # what the caller read when measuring began and when it ended

    @property
    def cores(self) -> tuple[float, ...]:
        """Busy, of each."""
        return tuple(core.busy for core in self.spent)

    @property
    def retransmitted(self) -> int:
        """Segments of the client's that went out again."""
        return sum(value for name, value in self.values.items() if name.startswith("retransmitted_"))


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


def marked(command: subprocess.Popen[str], limit_s: float, sample: Callable[[], T]) -> tuple[str, list[T]]:
    """Runs loadgen to its end: what it printed, and a sample for each of its marks."""
    samples = []
    watchdog = threading.Timer(limit_s, command.kill)
    watchdog.start()
    try:
        assert command.stderr is not None
        for mark in MARKS:
            line = command.stderr.readline()
            if line.strip() != mark:
                raise AssertionError(f"loadgen: {line}{command.communicate()[1]}")
            samples.append(sample())
        output, error = command.communicate()
    finally:
        watchdog.cancel()
        command.kill()
        command.wait()
    if command.returncode != 0:
        raise AssertionError(f"loadgen: {command.returncode}\n{output}{error}")
    return output, samples


def loadgen(
    client: Namespace,
    *paths: str,
    core: int | None = None,
    sample: Callable[[], Any] = lambda: None,
    **options: Any,
) -> Result:
    """A load on a server from a namespace's cli0; paths are PATH or PATH=FILE, options those of the program. The cores'
    business and the samples are of what is measured, without the warm-up."""
    usual = {"interface": "cli0", "address": ADDRESS4, "mac": MAC, "server": SERVER4, "seconds": 2.0}
    options = usual | options | {"path": list(paths), "marks": True}
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    limit_s = float(options["seconds"]) + float(options.get("warmup", 1)) + 20
    command = client.popen(*pinned, program(), *words_of(options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, samples = marked(command, limit_s, lambda: (cpu.read(), sample()))
    values = json.loads(output)
    return Result(
        requests=values["requests"],
        requests_s=values["requests_s"],
        bytes=values["bytes"],
        seconds=values["seconds"],
        cpu_seconds=values["cpu_seconds"],
        errors={name: count for name, count in values["errors"].items() if count > 0},
        latency_us=values["latency_us"],
        values=values,
        spent=cpu.spent(samples[0][0], samples[1][0]),
        samples=tuple(own for _, own in samples),
    )


@dataclass(frozen=True)
class WrkResult:
    """What wrk printed."""

    requests: int
    requests_s: float
    bytes_s: float
    latency_us: dict[str, float]
    errors: str  # its line about them, or nothing
    cores: tuple[float, ...]  # busy, of each, from its start to its end


SCALES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000}


def wrk_value(text: str, unit: str = "") -> float:
    """A number of wrk's: 1.23GB as bytes, 4.56ms as us."""
    found = re.fullmatch(rf"([\d.]+)(\w*?){unit}", text)
    if found is None:
        raise ValueError(text)
    return round(float(found[1]) * SCALES[found[2]], 3)


def wrk_result(text: str, cores: tuple[float, ...] = ()) -> WrkResult:
    """Of what it printed."""
    requests, rate = re.search(r"(\d+) requests in", text), re.search(r"Requests/sec:\s+([\d.]+)", text)
    transfer = re.search(r"Transfer/sec:\s+([\d.]+\w+)", text)
    if requests is None or rate is None or transfer is None:
        raise RuntimeError(text)
    errors = re.search(r"(Socket errors|Non-2xx).*", text)
    latency = {
        f"p{share}": wrk_value(value) for share, value in re.findall(r"^ +(\d+)% +(\S+) *$", text, re.MULTILINE)
    }
    bytes_s = wrk_value(transfer[1], "B")
    return WrkResult(int(requests[1]), float(rate[1]), bytes_s, latency, errors[0] if errors else "", cores)


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
    words = ["wrk", "--latency", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    # With its port: without, wrk asks /etc/services, which a bare system has not.
    words += [*(["-H", "Connection: close"] if close else []), f"http://{SERVER4}:80{path}"]
    before = cpu.read()
    text = client.run(*pinned, *words, timeout_s=seconds + 30).stdout
    return wrk_result(text, tuple(core.busy for core in cpu.spent(before, cpu.read())))
