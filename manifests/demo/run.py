"""`make demo`: builds the example site, serves it over a TAP device, fetches it, and stays up for a browser.

Root is used where there is root. Without, everything happens in a user and network namespace of its own, where the
kernel allows that. DEMO_ONCE=1 ends after the first look, with status 0 or 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
IMAGE = HERE.parent.parent / "build" / "demo.img"
PUBLIC = HERE / "public"
INSIDE = "SANDSTORM_DEMO_INSIDE"
console = Console(highlight=False)


def enter_namespace() -> None:
    """Starts again in a namespace of our own; does not return."""
    unshare = shutil.which("unshare")
    probe = [unshare or "unshare", "-Urn", "true"]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        sys.exit("demo: needs root, or a kernel that lets users make namespaces; try: sudo make demo")
    os.environ[INSIDE] = "1"
    os.execv(unshare, [unshare, "-Urn", sys.executable, *sys.argv])


def build() -> dict[str, Any]:
    """Builds the image; the compiler's summary."""
    command = [sys.executable, "-m", "sscc.cli", "build", str(HERE / "site.yaml"), "-o", str(IMAGE), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(1)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def fetch_all(url: str) -> tuple[int, int, float]:
    """Fetches every file of the site and compares it; files, bytes and seconds."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    files = size_bytes = 0
    start = time.perf_counter()
    for path in sorted(PUBLIC.rglob("*")):
        if not path.is_file():
            continue
        with opener.open(url + path.relative_to(PUBLIC).as_posix(), timeout=10) as answer:
            body = answer.read()
        if hashlib.sha256(body).digest() != hashlib.sha256(path.read_bytes()).digest():
            raise RuntimeError(f"{path.name} came back different")
        files += 1
        size_bytes += len(body)
    return files, size_bytes, time.perf_counter() - start


def show(summary: dict[str, Any], fetched: tuple[int, int, float], urls: list[str]) -> None:
    """The result, and what to open."""
    files, size_bytes, seconds = fetched
    table = Table(title="Fetched and compared, byte for byte", title_justify="left")
    for name in ("files", "bytes", "time", "frames in the image", "slots (with copies)"):
        table.add_column(name, justify="right")
    row = (files, size_bytes, f"{seconds * 1000:.1f} ms", summary["frames"], summary["slots"])
    table.add_row(*map(str, row))
    console.print(table)
    for url in urls:
        console.print(f"serving {url}", markup=False)


def serve(summary: dict[str, Any]) -> int:
    """Runs ssrun until Ctrl-C, or once."""
    command = [sys.executable, "-m", "ssrun.cli", str(IMAGE), "--iface", "tap:sandstorm0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            return 1
        urls = json.loads(line)["urls"]
        show(summary, fetch_all(urls[0]), urls)
        if os.environ.get("DEMO_ONCE"):
            return 0
        if os.environ.get(INSIDE):
            console.print(f"a browser must be inside: nsenter -t {os.getpid()} -U -n --preserve-credentials firefox")
        console.print("Ctrl-C ends it")
        process.wait()
    except KeyboardInterrupt:
        console.print()
    except (OSError, RuntimeError) as error:
        console.print(f"demo: {error}")
        return 1
    finally:
        process.terminate()
        process.wait()
    return 0


def main() -> None:
    """Everything, in order."""
    if os.geteuid() != 0 and INSIDE not in os.environ:
        enter_namespace()
    sys.exit(serve(build()))


if __name__ == "__main__":
    main()
