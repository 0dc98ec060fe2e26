"""A page with fifty assets of every kind a browser loads, and scripts in it that say what arrived."""

from __future__ import annotations

import json
import random
import struct
import zlib
from pathlib import Path

from tests.e2e.pages import sha256

FONTS = Path("/usr/share/fonts")
STYLES = SCRIPTS = MODULES = PICTURES = DATA = 9
TYPEFACES = 5

PAGE = """<!DOCTYPE html>
<meta charset="utf-8"><title>Fifty</title>
{styles}
{text}
{pictures}
<script>window.ran = [];</script>
{scripts}
<script type="module" src="/check.js"></script>
"""

# What is wrong with what was loaded, as a promise of a text.
CHECK = """
import "/module/0.js";
const digests = DIGESTS, wrong = [];
const expect = (name, got, wanted) => { if (got !== wanted) wrong.push(`${name}: ${got}`); };
async function digest(path) {
  const body = await (await fetch(path)).arrayBuffer();
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  return Array.from(sum, byte => byte.toString(16).padStart(2, "0")).join("");
}
async function check() {
  await Promise.all(Array.from({length: TYPEFACES}, (_, i) => document.fonts.load(`12px face${i}`)));
  expect("fonts", Array.from(document.fonts).filter(face => face.status === "loaded").length, TYPEFACES);
  for (const [i, element] of document.querySelectorAll("p.text").entries())
    expect(`style ${i}`, getComputedStyle(element).width, `${300 + i}px`);
  for (const [i, element] of document.querySelectorAll("img").entries()) {
    await element.decode();
    expect(`picture ${i}`, `${element.naturalWidth} ${element.naturalHeight}`, `${20 + i} ${30 + i}`);
  }
  expect("scripts", window.ran.join(), Array.from({length: SCRIPTS}, (_, i) => i).join());
  expect("modules", window.modules, MODULES);
  let total = 0;
  for (const answer of await Promise.all(Array.from({length: DATA}, (_, i) => fetch(`/data/${i}.json`))))
    total += (await answer.json()).number;
  expect("data", total, DATA * (DATA - 1) / 2);
  for (const [path, wanted] of Object.entries(digests)) expect(path, await digest(path), wanted);
  return wrong.join("; ") || "nothing";
}
window.wrong = check();
"""


def picture(width: int, height: int, seed: int) -> bytes:
    """A PNG of noise."""
    noise = random.Random(seed)
    rows = b"".join(b"\0" + noise.randbytes(3 * width) for _ in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def put(root: Path, path: str, data: bytes | str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data.encode() if isinstance(data, str) else data)


def write_assets(root: Path, fonts: list[Path]) -> list[str]:
    """All of them; their paths in URLs."""
    filler = "/* " + "filler " * 400 + "*/\n"  # enough to be compressed
    for i in range(STYLES):
        face = f'@font-face {{ font-family: face{i}; src: url("/font/{i}.ttf"); }}\n' if i < TYPEFACES else ""
        put(root, f"style/{i}.css", f"{filler}{face}#text{i} {{ width: {300 + i}px; font-family: face{i}; }}\n")
    for i in range(TYPEFACES):
        put(root, f"font/{i}.ttf", fonts[i].read_bytes())
    for i in range(SCRIPTS):
        put(root, f"script/{i}.js", f"{filler}window.ran.push({i});\n")
    for i in range(MODULES):
        then = f'import "/module/{i + 1}.js";\n' if i + 1 < MODULES else ""
        put(root, f"module/{i}.js", f"{filler}{then}window.modules = (window.modules ?? 0) + 1;\n")
    for i in range(PICTURES):
        put(root, f"picture/{i}.png", picture(20 + i, 30 + i, i))
    for i in range(DATA):
        put(root, f"data/{i}.json", json.dumps({"number": i, "filler": filler}))
    return [f"/{path.relative_to(root).as_posix()}" for path in sorted(root.rglob("*")) if path.is_file()]


def make_site(root: Path, fonts: list[Path]) -> int:
    """The page and its fifty assets; how many files in all."""
    paths = write_assets(root, fonts)
    digests = {path: sha256(root / path[1:]) for path in paths}
    constants = f"const TYPEFACES = {TYPEFACES}, SCRIPTS = {SCRIPTS}, MODULES = {MODULES}, DATA = {DATA};\n"
    put(root, "check.js", constants + CHECK.replace("DIGESTS", json.dumps(digests)))
    parts = {
        "styles": "".join(f'<link rel="stylesheet" href="/style/{i}.css">\n' for i in range(STYLES)),
        "text": "".join(f'<p class="text" id="text{i}">text</p>\n' for i in range(STYLES)),
        "pictures": "".join(f'<img src="/picture/{i}.png" alt="">\n' for i in range(PICTURES)),
        "scripts": "".join(f'<script src="/script/{i}.js"></script>\n' for i in range(SCRIPTS)),
    }
    put(root, "index.html", PAGE.format(**parts))
    return len(paths) + 2
