"""Builds the fuzz targets and runs them: fuzz.py [--seconds N] [--target NAME] [--input FILE] [--keep].

A target is packet, connection, enemy, http, image or records. The corpora beside this file hold what is known to matter, under names that
say what it is, and under a hash a few that runs have found. New finds go to .cache/fuzz; --keep chooses among them. A
crash leaves its input there, and the command that runs it again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs as a program

from tests.core import CSRC, core_sources

OUT = ROOT / ".cache" / "fuzz"
TARGETS = {
    "packet": 4096,
    "connection": 1201,
    "enemy": 513,
    "http": 1024,
    "image": 512,
    "records": 330,
}  # and the longest input, bytes
LIBRARY = ("harness", "client")
HASH = re.compile("[0-9a-f]{40}")  # how libFuzzer names what it finds
KEPT = 10  # of those in a corpus

SANITIZE = "-fsanitize=fuzzer,address,undefined"
FLAGS = ["-std=gnu11", "-g", "-O1", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", SANITIZE]


def lacking() -> str:
    """What is missing on this machine; empty if nothing is."""
    if shutil.which("clang") is None:
        return "clang"
    probe = ["clang", SANITIZE, "-x", "c", "-", "-o", "/dev/null"]
    program = "int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return d[0] + n > 5; }"
    done = subprocess.run(probe, input=program, text=True, capture_output=True, check=False)
    return "" if done.returncode == 0 else "clang's sanitizer and fuzzer runtimes, libclang-rt-14-dev"


def image_source() -> str:
    """A small image's sections as C arrays."""
    from tests.host import SECTIONS  # noqa: PLC0415, as fuzzing needs no extension
    from tests.model import ModelImage, Page  # noqa: PLC0415, likewise

    pages = {"/a": Page(b"hello", encodings={1: b"packed"}), "/big": Page(bytes(range(251)) * 280)}
    pages["/r"] = Page(b"moved", location=b"/a")
    pages["/m/*"] = Page(b"moved", location=b"https://o.example/", hands_path_on=True)
    pages["/p/*"] = Page(b"prefix", options=b"Access-Control-Allow-Origin: *\r\n")
    sections = ModelImage(pages, sites={"b.example *.b.example": {"/": Page(b"b"), "/*": Page(b"any")}}).sections
    text, fields = '#include "harness.h"\n', ""
    for name in SECTIONS:
        words = ",".join(map(str, sections[name]))
        text += f"static const uint8_t {name}[] __attribute__((aligned(64))) = {{{words}}};\n"
        fields += f".{name} = {name}, .{name}_bytes = {len(sections[name])},\n"
    return f"{text}const struct image_sections fuzz_image = {{{fields}}};\n"


def build() -> None:
    """All targets, into .cache/fuzz."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "fuzz_image.c").write_text(image_source())
    shared = [*core_sources(), OUT / "fuzz_image.c", *(HERE / f"{name}.c" for name in LIBRARY)]
    compiler = ["clang", *FLAGS, f"-I{CSRC}", f"-I{HERE}"]
    # The timer wheel's walk over empty buckets would drown all other comparisons.
    quiet = {"timer_wheel": ["-fno-sanitize-coverage=trace-cmp"]}
    run_all([[*compiler, *quiet.get(path.stem, []), "-c", path, "-o", OUT / f"{path.stem}.o"] for path in shared])
    objects = [OUT / f"{path.stem}.o" for path in shared]
    run_all([[*compiler, *objects, HERE / f"{target}.c", "-o", OUT / target] for target in TARGETS])


def run_all(commands: list[list[str | Path]]) -> None:
    """As many at once as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(pool.map(lambda command: subprocess.run(command, check=False).returncode, commands))
    if any(done):
        raise SystemExit("fuzz: a target does not compile")


def run(target: str, seconds: int, found: Path) -> int:
    """Replays the corpora and fuzzes for so long; new finds go to found. libFuzzer's status."""
    found.mkdir(exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={TARGETS[target]}", "-timeout=20", "-rss_limit_mb=4096"]
    options += [f"-artifact_prefix={OUT}/{target}-", "-print_final_stats=1", "-print_funcs=0"]
    if target == "http":
        options.append(f"-dict={HERE / 'http.dict'}")
    # The kernel hands the most memory that a process has had on to what it becomes, by which libFuzzer would take tests that used
    # much for its own use; a child of a small shell begins anew.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    command = [*shell, OUT / target, *options, found, HERE / "corpus" / target]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    stats = dict(re.findall(r"^stat::(\w+): +(\d+)", done.stderr, re.MULTILINE))
    if done.returncode == 0:
        print(f"{target}: {stats['number_of_executed_units']} inputs, {stats['new_units_added']} new", flush=True)
    else:
        left = max(OUT.glob(f"{target}-*-*"), key=lambda path: path.stat().st_mtime, default=OUT)
        again = f"tests/fuzz/fuzz.py --target {target} --input {left.relative_to(ROOT)}"
        print(f"{done.stderr}\nagain: {Path(sys.executable).name} {again}", flush=True)
    return done.returncode


def keep(target: str, found: Path) -> None:
    """Of what runs have found, puts the few inputs into the corpus that add most to the named ones there."""
    corpus, scratch = HERE / "corpus" / target, OUT / f"{target}-kept"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(corpus, scratch, ignore=lambda _, names: [name for name in names if HASH.fullmatch(name)])
    named = {path.name for path in scratch.iterdir()}
    found.mkdir(exist_ok=True)
    options = ["-set_cover_merge=1", "-use_counters=0", f"-max_len={TARGETS[target]}"]
    subprocess.run([OUT / target, *options, scratch, corpus, found], check=True, capture_output=True)
    # Written in this order: what adds most first.
    new = sorted((path for path in scratch.iterdir() if path.name not in named), key=lambda p: p.stat().st_mtime_ns)
    for path in corpus.iterdir():
        if path.name not in named:
            path.unlink()
    for path in new[:KEPT]:
        shutil.copy(path, corpus)


def main() -> None:
    """Builds and runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--input", type=Path, help="only this input, of --target")
    parser.add_argument(
        "--keep", action="store_true", help="put the best of what was found into the corpora, and end"
    )
    arguments = parser.parse_args()
    if missing := lacking():
        raise SystemExit(f"fuzz: needs {missing}")
    build()
    targets = [arguments.target] if arguments.target else list(TARGETS)
    if arguments.keep:
        for target in targets:
            keep(target, OUT / f"{target}-found")
    elif arguments.input:
        os.execv(OUT / targets[0], [targets[0], str(arguments.input.resolve())])
    else:
        sys.exit(max(run(target, arguments.seconds, OUT / f"{target}-found") for target in targets))


if __name__ == "__main__":
    main()
