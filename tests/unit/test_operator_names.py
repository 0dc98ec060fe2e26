"""What scripts may rely on is called as it was: commands, options, keys of JSON, counters, the manifest's keys.

To rename one is a change for operators: write it down in CHANGELOG.md, and then

    python tests/unit/test_operator_names.py --update
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # so that it runs as a program
from sscc.cli import commands as sscc
from sscc.manifest.model import Manifest
from ssimage._sandstorm import ffi
from ssrun import cli as ssrun
from ssrun import kv as sskv
from ssrun import listen, segments
from ssrun.link import LINK_COUNTERS
from ssrun.server import PORT_COUNTERS, counter_names, wake_counters

from tests import warm
from tests.host import CLIENT_IP, Host, build
from tests.host import Image as ImageOfFile
from tests.sockets import Worker, listening
from tests.unit.test_kv import Image as Store

GOLDEN = ROOT / "tests" / "golden" / "names.json"
CAPTURE = ROOT / "runtime" / "ssrun" / "ports" / "capture.py"
REPORT = ROOT / "runtime" / "ssrun" / "report.py"


def options(command: click.Command, name: str) -> Iterator[str]:
    """Each command with each of its options, and what is an argument."""
    yield name
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from options(below, f"{name} {word}")
    for parameter in command.params:
        yield from (f"{name} {way if way.startswith('-') else way.upper()}" for way in parameter.opts)


def keys(value: Any, path: str = "") -> Iterator[str]:
    """The keys of a JSON document. What is a list has its elements' in [], what is a map of names that users choose its values' in *."""
    if isinstance(value, dict):
        for name, below in value.items():
            word = name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else "*"
            yield f"{path}.{word}" if path else word
            yield from keys(below, f"{path}.{word}" if path else word)
    elif isinstance(value, list):
        for below in value:
            yield from keys(below, f"{path}[]")


def manifest_keys(schema: dict[str, Any]) -> Iterator[str]:
    """As `sscc schema` has them."""
    for name, model in {"Manifest": schema, **schema["$defs"]}.items():
        yield from (f"{name}.{key}" for key in model.get("properties", {}))


def documents(folder: Path) -> Iterator[tuple[str, Any]]:
    """What each command prints for programs."""
    site, image, old = folder / "public", folder / "site.img", folder / "old.img"
    site.mkdir()
    (site / "index.html").write_text("<title>x</title>" * 100)
    build(site, old)
    (site / "index.html").write_text("<title>y</title>" * 100)
    (site / "other.html").write_text("z")
    done = warm.run("sscc.cli", "build", site, "-o", image, "--json")
    yield "sscc build", json.loads(done.stdout)
    (site / "_headers").write_text("/*\n  bad\n")
    yield "sscc check", json.loads(warm.run("sscc.cli", "check", site, "--json").stdout)
    yield "sscc inspect", json.loads(warm.run("sscc.cli", "inspect", image, "--json").stdout)
    yield "sscc explain", json.loads(warm.run("sscc.cli", "explain", image, "/", "--json").stdout)
    yield "sscc diff", json.loads(warm.run("sscc.cli", "diff", old, image, "--json").stdout)
    replay = ("--iface", f"pcap:{folder / 'in.pcap'}:{folder / 'out.pcap'}", "--address", f"{CLIENT_IP}/24", "--json")
    (folder / "in.pcap").write_bytes(
        bytes.fromhex("d4c3b2a1 0200 0400") + bytes(8) + bytes.fromhex("ffff0000 01000000")
    )
    profile = folder / "profile.json"
    for line in warm.run("ssrun.cli", image, *replay, "--profile", profile).stdout.splitlines():
        event = json.loads(line)
        event.pop("counters", None)
        yield f"ssrun {event['event']}", event
    yield "ssrun check", json.loads(warm.run("ssrun.cli", "check", "--json").stdout)
    env = {**os.environ, "RUNTIME_DIRECTORY": str(folder / "run")}
    with listening(image, "--listen", "127.0.0.1:0", env=env) as command:
        yield "ssrun --listen serving", command.event
        shown = json.loads(
            warm.run("ssrun.cli", "stat", "--count", "1", "--interval", "0.1", "--json", env=env).stdout
        )
        yield "ssrun stat", {**shown, "counters": {}, "counters_per_s": {}}
        options = segments.Options(1, 2, True, [(3, 4)], (5, 6), [7], True)
        segment = segments.Segment(("192.0.2.7", 1), ("192.0.2.1", 80), segments.ACK, 1, 1, 1, 1, options)
        yield "ssrun trace", segments.Teller().document(segment, 0, True, 0)
        yield "ssrun reload", json.loads(warm.run("ssrun.cli", "reload", old, "--json", env=env).stdout)
        yield "ssrun reloaded", command.line()
        warm.run("ssrun.cli", "reload", "/nothing", env=env)
        yield "ssrun reload-refused", command.line()
    (folder / "store.json").write_text('{"key": "value"}')
    for line in warm.run("ssrun.kv", folder / "store.json", *replay).stdout.splitlines():
        event = json.loads(line)
        event.pop("counters", None)
        yield f"sskv {event['event']}", event
    yield "ssrun --profile", json.loads(profile.read_text())


def names() -> dict[str, list[str]]:
    """Everything, sorted."""
    result: dict[str, set[str]] = {
        "options": {
            *options(sscc.main, "sscc"),
            *options(ssrun.main, "ssrun"),
            *options(sskv.main, "sskv"),
        },
        "events": set(re.findall(r'"event": "([\w-]+)"', REPORT.read_text())),
        "counters of ports": {f"port_{name}" for name in PORT_COUNTERS}
        | set(re.findall(r'"(capture_\w+)"', CAPTURE.read_text())),
        "counters of interfaces": set(LINK_COUNTERS),
        "counters of workers": set(wake_counters(ffi.new("struct wake *"))),
        "manifest": set(manifest_keys(Manifest.model_json_schema())),
    }
    with tempfile.TemporaryDirectory() as folder:
        found = list(documents(Path(folder)))
        web = Host(ImageOfFile.read(Path(folder) / "site.img"))  # which its stack lives in
        result["counters of ssrun"] = set(counter_names(web.view))
        with contextlib.closing(Worker(ImageOfFile.read(Path(folder) / "site.img"))) as sockets:
            result["counters of ssrun --listen"] = set(listen.counter_names(sockets.worker))
    store = Store({b"key": b"value"})
    kv = Host(store, config=store.config)  # type: ignore[arg-type]
    result["counters of sskv"] = set(counter_names(kv.view))
    for command, document in found:
        result.setdefault(f"JSON of {command}", set()).update(keys(document))
    return {kind: sorted(of) for kind, of in sorted(result.items())}


def as_text() -> str:
    return json.dumps(names(), indent=1) + "\n"


def test_names_are_those_that_operators_know() -> None:
    before, now = GOLDEN.read_text(), as_text()
    diff = difflib.unified_diff(before.splitlines(), now.splitlines(), "known", "now", n=0, lineterm="")
    if before != now:
        pytest.fail("\n".join([(__doc__ or "").partition("\n")[2], *diff]), pytrace=False)


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    GOLDEN.write_text(as_text())
