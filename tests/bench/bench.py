"""The project's figures, beside those of nginx, h2o and lighttpd, in one run: `make bench`. Writes docs/benchmarks.

    python tests/bench/bench.py [--seconds S] [--repeats N] [--output FOLDER]

Needs root, for network namespaces, and two cores: the servers are on the first, the load on the second. Whose work the
cores do is told by perf (Debian: linux-perf); without it the page says that those figures are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs as a program
from tests.bench import page, plots
from tests.bench.measure import FIGURES, Results, measure
from tests.bench.systems import ROOT


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
