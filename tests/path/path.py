"""Two namespaces with an emulated link between them: rate, queue, delay, loss and mischief, by link.c."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.net import CLIENT4, CLIENT6, SERVER4, SERVER6, Namespace, namespace, run

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parents[1] / ".cache" / "link"
MILLION = 1_000_000


@dataclass(frozen=True)
class Link:
    """What it does to frames, each way. The chances are of a single frame."""

    seed: int = 1
    delay_ms: float = 10.0
    jitter_ms: float = 0.0
    rate_mbit: float = 100.0
    queue_bytes: int = 250_000
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0

    def words(self) -> list[str]:
        """link.c's arguments behind the devices."""
        numbers = [self.seed, self.delay_ms * 1000, self.jitter_ms * 1000, self.rate_mbit * 1000, self.queue_bytes]
        numbers += [chance * MILLION for chance in (self.loss, self.duplicate, self.corrupt, self.reorder)]
        return [str(round(number)) for number in numbers]


@cache
def program() -> Path:
    """link.c, compiled."""
    PROGRAM.parent.mkdir(exist_ok=True)
    run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", PROGRAM, HERE / "link.c")
    return PROGRAM


@contextlib.contextmanager
def emulated(link: Link) -> Iterator[tuple[Namespace, Namespace]]:
    """A server's namespace with `srv0` and a client's with `cli0`, the link between them."""
    with namespace("server") as server, namespace("client") as client:
        command = [str(program()), server.name, "srv0", client.name, "cli0", *link.words()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for space, device, v4, v6 in ((server, "srv0", SERVER4, SERVER6), (client, "cli0", CLIENT4, CLIENT6)):
                space.ip("addr", "add", f"{v4}/24", "dev", device)
                space.ip("addr", "add", f"{v6}/64", "dev", device, "nodad")
                space.ip("link", "set", device, "up")
            yield server, client
        finally:
            process.kill()
            process.communicate()
