"""Round trips of gets beside memcached, in one run: half, 99 and 99.9 of a hundred are answered within ...

    python tests/bench/kv_latency.py [--seconds 3] [--repeats 3]

One server after the other on core 0, the same client (kv_latency.c) on core 1, in namespaces over veth or a TAP device;
repeats are interleaved, and the median of each number is printed. memcached has one thread and sleeps when there is
nothing to do; so does sskv, unless it says busy-poll.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # so that it runs as a program

from tests.net import SERVER4, Namespace, another_server, namespace, pin, ssrun, veth_pair

MEMCACHED = ROOT / ".cache" / "servers" / "usr" / "bin" / "memcached"
PORT = 11211
KEYS = 1000
SIZES = (100, 10_000)
CONNECTIONS = (1, 16)
OURS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sskv TAP": ("tap", ()),
    "sskv AF_PACKET": ("packet", ()),
    "sskv AF_XDP": ("afxdp", ()),
    "sskv AF_XDP busy-poll": ("afxdp", ("--busy-poll",)),
}
NUMBERS = ("p50_us", "p99_us", "p999_us", "requests_s")
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]


def value(key: int, size_bytes: int) -> bytes:
    """As kv_latency.c has it."""
    alphabet = bytes(range(ord("a"), ord("z") + 1))
    return (alphabet * (size_bytes // 26 + 2))[key % 26 : key % 26 + size_bytes]


@contextlib.contextmanager
def memcached(size_bytes: int) -> Iterator[tuple[Namespace, str]]:
    """memcached over veth, with all values in it."""
    command = ["taskset", "-c", "0", MEMCACHED, "-u", "root", "-t", "1", "-m", "256", "-l", SERVER4, "-p", str(PORT)]
    with veth_pair() as (server, client), another_server(server, client, *command, port=PORT):
        stored = b"".join(
            b"set key%d 0 0 %d\r\n%b\r\n" % (key, size_bytes, value(key, size_bytes)) for key in range(KEYS)
        )
        script = "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])))\n"
        script += "f=s.makefile('rwb')\nf.write(sys.stdin.buffer.read())\nf.flush()\ns.shutdown(1)\n"
        script += "print(f.read().count(b'STORED'))"
        with client.popen(sys.executable, "-c", script, SERVER4, PORT, stdin=-1, stdout=-1) as loader:
            assert loader.stdin is not None
            assert loader.stdout is not None
            loader.stdin.buffer.write(stored)
            loader.stdin.close()
            assert int(loader.stdout.read()) == KEYS
        yield client, SERVER4


@contextlib.contextmanager
def sskv(folder: Path, backend: str, options: tuple[str, ...]) -> Iterator[tuple[Namespace, str]]:
    """sskv over one of its ports."""
    with contextlib.ExitStack() as stack:
        if backend == "tap":
            server = client = stack.enter_context(namespace("tap"))
            where = ["--iface", "tap:kv0"]
        else:
            server, client = stack.enter_context(veth_pair())
            where = ["--iface", "srv0", "--backend", backend]
        running = stack.enter_context(ssrun(folder, server, client, *where, *options, module="ssrun.kv"))
        pin(running.process.pid, 0)
        yield client, running.hosts[0].rsplit(":", 1)[0]


def measured(client: Namespace, program: Path, host: str, connections: int, seconds: float, size: int) -> Any:
    """One run of the client."""
    words = [host, PORT, connections, seconds, KEYS, size]
    done = client.run("taskset", "-c", "1", program, *map(str, words), timeout_s=seconds + 30)
    return json.loads(done.stdout)


def make_folder(folder: Path, size_bytes: int) -> Path:
    """The values as files."""
    made = folder / str(size_bytes)
    made.mkdir()
    for key in range(KEYS):
        (made / f"key{key}").write_bytes(value(key, size_bytes))
    return made


def table(readings: dict[tuple[str, int, int], list[Any]]) -> str:
    """Medians, a row for each system."""
    rows = []
    for size in SIZES:
        for connections in CONNECTIONS:
            rows.append(f"\n{size:,} bytes, {connections} connection{'s' if connections > 1 else ''}\n")
            rows.append(f"{'':24}{'p50':>10}{'p99':>10}{'p99.9 us':>10}{'gets/s':>12}\n")
            for system in dict.fromkeys(name for name, _, _ in readings):
                found = readings[system, size, connections]
                cells = [statistics.median(reading[name] for reading in found) for name in NUMBERS]
                rows.append(f"{system:24}{cells[0]:10.1f}{cells[1]:10.1f}{cells[2]:10.1f}{cells[3]:12,.0f}\n")
    return "".join(rows)


def main() -> None:
    """Runs all in turn and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if not MEMCACHED.exists():
        raise SystemExit("kv_latency: needs memcached; .ci/setup unpacks it")
    version = subprocess.run([MEMCACHED, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    # Whatever else runs on these cores is what the slowest answers show.
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    readings: dict[tuple[str, int, int], list[Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "kv_latency"
        subprocess.run(["gcc", *FLAGS, "-o", program, HERE / "kv_latency.c"], check=True)
        folders = {size: make_folder(Path(folder), size) for size in SIZES}
        for _ in range(arguments.repeats):
            for size in SIZES:
                for system in (version, *OURS):
                    opener = memcached(size) if system == version else sskv(folders[size], *OURS[system])
                    with opener as (client, host):
                        for connections in CONNECTIONS:
                            reading = measured(client, program, host, connections, arguments.seconds, size)
                            readings.setdefault((system, size, connections), []).append(reading)
                            print(system, size, connections, reading, file=sys.stderr, flush=True)
    print(f"{platform.release()}, {arguments.repeats} times {arguments.seconds:g} s, medians; {load} before")
    print(table(readings), end="")


if __name__ == "__main__":
    main()
