"""A documentation site that nobody here wrote, and what fetches and compares it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.net import Running

PACKAGES = ("python3.11-doc", "debian-policy")


def documentation() -> Path | None:
    """The largest HTML folder of an installed documentation package."""
    folders = [Path("/usr/share/doc/python3.11/html"), Path("/usr/share/doc/debian-policy/policy.html")]
    return next((folder for folder in folders if folder.is_dir()), None)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_below(folder: Path) -> dict[str, Path]:
    """Regular files by their path below a folder."""
    found = {}
    for at, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(at) / name
            found[path.relative_to(folder).as_posix()] = path
    return found


CHECK_PAGE = "sandstorm-check.html"
CHECK_HTML = """<!DOCTYPE html><meta charset="utf-8"><p id="result">unfinished</p><script>
const digests = DIGESTS, wrong = [];
async function check(name) {
  const path = name.split("/").map(encodeURIComponent).join("/");
  const body = await (await fetch("/" + path)).arrayBuffer();
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  const hex = Array.from(sum, byte => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== digests[name]) wrong.push(name);
}
(async () => {
  const names = Object.keys(digests);
  for (let i = 0; i < names.length; i += 16) await Promise.all(names.slice(i, i + 16).map(check));
  document.getElementById("result").textContent = `${names.length} files, wrong: ${wrong.join(" ") || "none"}`;
})().catch(error => { document.getElementById("result").textContent = error; });
</script>"""


def compare(site: Path, fetched: Path) -> None:
    """Every file of the site is there and has the same SHA-256."""
    expected = {name: sha256(path) for name, path in files_below(site).items()}
    got = {name: sha256(fetched / name) for name in expected if (fetched / name).is_file()}
    assert len(expected) > 400
    assert got == expected


CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--virtual-time-budget=10000",
]


def chromium(running: Running, url: str, profile: Path, timeout_s: float = 120) -> str:
    """The DOM of a page when it has come to rest. The origin counts as secure, so that scripts may hash."""
    origin = "/".join(url.split("/")[:3])
    options = [f"--user-data-dir={profile}", f"--unsafely-treat-insecure-origin-as-secure={origin}"]
    running.client.settle()
    return running.client.run("chromium", *CHROMIUM, *options, "--dump-dom", url, timeout_s=timeout_s).stdout
