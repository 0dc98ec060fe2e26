"""The project's figures, beside nginx's, in one run: `make bench`. Writes docs/benchmarks.

    python tests/bench/bench.py [--seconds S] [--repeats N] [--output FOLDER]

Needs root, for network namespaces, and two cores: the servers are on the first, the load on the second.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import figures
import memory
import page
import plots
from systems import ROOT, machine, make_site


def measure(seconds: float, repeats: int) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as folder:
        bench = figures.Bench(make_site(Path(folder)), seconds, repeats)
        bench.site = figures.best_sendfile(bench)
        results: dict[str, Any] = {
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "machine": machine(),
            "seconds": seconds,
            "repeats": repeats,
            "sendfile": bench.site.sendfile,
        }
        results["throughput"] = run("throughput", lambda: figures.throughput(bench))
        results["sizes"] = run("sizes", lambda: figures.sizes(bench))
        results["equal_load"] = run("equal load", lambda: figures.equal_load(bench, results["sizes"]))
        results["workers"] = run("workers", lambda: figures.workers(bench))
        results["memory"] = run("memory", lambda: figures.memory(bench))
        results["trace"] = run("traces", lambda: figures.trace(bench))
    results["in_memory_workers"] = run("in memory, workers", memory.workers)
    results["in_memory"] = run("in memory", lambda: memory.matrix(repeats))
    return results


def run(name: str, figure: Any) -> Any:
    """Says what it is at."""
    print(name, flush=True)
    return figure()


def main() -> None:
    """Measures, draws and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each point")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--draw", action="store_true", help="only draw and write again what results.json has")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for network namespaces")
    if (os.cpu_count() or 1) < 2:
        sys.exit("bench: needs two cores, one for the servers and one for the load")
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "results.json"
    results = json.loads(file.read_text()) if arguments.draw else measure(arguments.seconds, arguments.repeats)
    file.write_text(json.dumps(results, indent=1) + "\n")
    plots.draw(results, arguments.output)
    (arguments.output / "README.md").write_text(page.text(results))


if __name__ == "__main__":
    main()
