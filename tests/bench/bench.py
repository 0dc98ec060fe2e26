"""The project's figures, beside those of nginx, h2o and lighttpd, in one run: `make bench`. Writes docs/benchmarks.

    python tests/bench/bench.py [--seconds S] [--repeats N] [--output FOLDER]

Needs root, for network namespaces, and two cores: the servers are on the first, the load on the second. Whose work the
cores do is told by perf (Debian: linux-perf); without it the page says that those figures are missing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs as a program
from tests.bench import asked, figures, light, memory, page, plots, shares
from tests.bench.systems import ROOT, machine, make_site

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
        start = time.monotonic()
        for name in names:
            print(name, flush=True)
            results[name] = FIGURES[name](bench, results)
            if len(names) == len(FIGURES):
                results["minutes"] = round((time.monotonic() - start) / 60)
            file.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Measures, draws and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="of each point")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--only", choices=FIGURES, action="append", help="measure this one again and keep the others")
    parser.add_argument("--draw", action="store_true", help="measure nothing: draw and write what results.json has")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for network namespaces")
    if (os.cpu_count() or 1) < 2:
        sys.exit("bench: needs two cores, one for the servers and one for the load")
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "results.json"
    results: Results = json.loads(file.read_text()) if arguments.draw or arguments.only else {}
    if not arguments.draw:
        measure(results, arguments.only or list(FIGURES), arguments.seconds, arguments.repeats, file)
    plots.draw(results, arguments.output)
    (arguments.output / "README.md").write_text(page.text(results))


if __name__ == "__main__":
    main()
