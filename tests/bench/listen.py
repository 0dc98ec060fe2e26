"""`ssrun --listen` beside nginx, one worker each, with wrk as the client over the loopback, in pairs:

    python tests/bench/listen.py [--seconds 3] [--repeats 5] [--sizes 1024,22528]

Each pair asks one after the other and is printed as ratios, as the machine may be busy with other things: requests per second, and the
processor time of the server for a request. nginx has what suits it best: sendfile, tcp_nopush, open_file_cache, no log, and
no limit of requests on a connection. It needs wrk and nginx, no root and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # so that it runs as a program

from tests.host import build
from tests.net import unpacked
from tests.sockets import cpu_ticks

CONNECTIONS = 64
START_S = 20
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 16384; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    open_file_cache max=1000 inactive=600s; open_file_cache_valid 600s; default_type application/octet-stream;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{ listen 127.0.0.1:{port} reuseport; root {root}; }}
}}
"""


@dataclass
class Reading:
    """What one server did in one of wrk's runs."""

    per_second: float
    cpu_us: float  # of a request


class Server:
    """A process that listens."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command[0]} does not listen")
            time.sleep(0.1)

    def cpu_s(self) -> float:
        """User and system time of all its threads."""
        return cpu_ticks(self.process.pid) / os.sysconf("SC_CLK_TCK")

    def read(self, path: str, seconds: int, *fields: str) -> Reading:
        before = self.cpu_s()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", *fields, f"http://127.0.0.1:{self.port}/{path}"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        count, rate = re.search(r"(\d+) requests in", shown), re.search(r"Requests/sec:\s+([\d.]+)", shown)
        assert count is not None
        assert rate is not None
        assert "Non-2xx" not in shown
        return Reading(float(rate[1]), (self.cpu_s() - before) * 1e6 / int(count[1]))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def servers(sizes: list[int]) -> Iterator[tuple[Server, Server]]:
    """Ours and nginx, with a file of each size."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "site").mkdir()
        for size in sizes:
            (folder / "site" / str(size)).write_bytes(os.urandom(size))
        image = build(folder / "site", folder / "site.img")
        folder.chmod(0o755)
        ports = free_port(), free_port()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=ports[1], root=folder / "site"))
        options = ["--listen", f"127.0.0.1:{ports[0]}", "--workers", "1"]
        commands = (
            [sys.executable, "-m", "ssrun.cli", str(image), *options],
            [unpacked("nginx", "-v") or "nginx", "-c", str(folder / "nginx.conf")],
        )
        started = []
        for command, port in zip(commands, ports, strict=True):
            server = Server(command, port)
            stack.callback(server.process.wait)
            stack.callback(server.process.terminate)
            started.append(server)
        yield started[0], started[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", default="1024,22528")
    words = parser.parse_args()
    sizes = [int(size) for size in words.sizes.split(",")]
    with servers(sizes) as (ours, nginx):
        for kept, fields in (("kept", ()), ("closed", ("-H", "Connection: close"))):
            for size in sizes:
                pairs = [
                    (ours.read(str(size), words.seconds, *fields), nginx.read(str(size), words.seconds, *fields))
                    for _ in range(words.repeats)
                ]
                rates = [our.per_second / their.per_second for our, their in pairs]
                costs = [our.cpu_us / their.cpu_us for our, their in pairs]
                print(
                    f"{size:>9} bytes, {kept}: {statistics.median(rates):.2f} times nginx's requests "
                    f"({min(rates):.2f} to {max(rates):.2f}), {statistics.median(costs):.2f} times its processor time "
                    f"({min(costs):.2f} to {max(costs):.2f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
