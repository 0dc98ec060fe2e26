"""All figures by their names, and the file that keeps what was read."""

from __future__ import annotations

import datetime
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import asked, figures, light, memory, peers, shares
from tests.bench.systems import machine, make_site

WORKER_ROUNDS = 15
Results = dict[str, Any]
# In this order: equal_load wants to know what sizes found.
FIGURES: dict[str, Callable[[figures.Bench, Results], list[dict[str, Any]]]] = {
    "throughput": lambda bench, _: figures.throughput(bench),
    "sizes": lambda bench, _: figures.sizes(bench),
    "equal_load": lambda bench, results: figures.equal_load(bench, results["sizes"]),
    "light_load": lambda bench, _: light.light_load(bench),
    "by_wrk": lambda bench, _: asked.by_wrk(bench),
    "shares": lambda bench, _: shares.shares(bench),
    "packet_by_packet": lambda bench, _: shares.packet_by_packet(bench),
    "low_load": lambda bench, _: asked.low_load(bench),
    "idle": lambda bench, _: asked.idle(bench),
    "workers": lambda bench, _: figures.workers(bench),
    "memory": lambda bench, _: figures.memory(bench),
    "trace": lambda bench, _: figures.trace(bench),
    "in_memory_workers": lambda *_: memory.workers(WORKER_ROUNDS),
    "in_memory": lambda bench, _: memory.matrix(bench.repeats),
}


def measure(results: Results, names: list[str], seconds: float, repeats: int, file: Path) -> None:
    """Figures by their names, into results and, after each, into the file, so that a failure costs only its own."""
    with tempfile.TemporaryDirectory() as folder:
        bench = figures.Bench(make_site(Path(folder)), seconds, repeats)
        bench.site = figures.best_sendfile(bench)
        if len(names) == len(FIGURES):
            results |= {"machine": machine(), "seconds": seconds, "repeats": repeats, "again": []}
            results["date"] = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
            results["sendfile"] = bench.site.sendfile
        else:
            results["again"] = sorted({*results["again"], *names})
            results["machine"] = {name: peers.version(name) for name in peers.NAMES} | results["machine"]
        start = time.monotonic()
        for name in names:
            print(name, flush=True)
            results[name] = FIGURES[name](bench, results)
            if len(names) == len(FIGURES):
                results["minutes"] = round((time.monotonic() - start) / 60)
            file.write_text(json.dumps(results, indent=1) + "\n")
