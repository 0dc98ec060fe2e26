"""A page with fifty assets in a browser: styles, scripts, modules, pictures, fonts and data, then all of it once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.assets import FONTS, TYPEFACES, make_site
from tests.e2e.browser import browser
from tests.host import build
from tests.net import needs, serving

pytestmark = needs("chromium")

MANIFEST = """version: 1
root: files
headers: {Cache-Control: no-cache}
encodings: {make: [br, gzip]}
"""


def fonts() -> list[Path]:
    found = sorted(FONTS.rglob("*.ttf"))
    if not found:
        pytest.skip("needs a TrueType font")
    return (found * TYPEFACES)[:TYPEFACES]


@pytest.mark.parametrize(("backend", "family"), [("packet", 0), ("afxdp", 1), ("sockets", 1)])
def test_a_page_with_fifty_assets_and_its_reload(tmp_path: Path, backend: str, family: int) -> None:
    files = make_site(tmp_path / "files", fonts())
    (tmp_path / "site.yaml").write_text(MANIFEST)
    assert files == 52
    with serving(build(tmp_path / "site.yaml", tmp_path / "site.img"), backend) as running:
        origin = f"http://{running.hosts[family]}"
        with browser(running, origin, tmp_path / "profile") as tab:
            tab.loaded("Page.navigate", url=f"{origin}/")
            assert tab.value("window.wrong") == "nothing"
            assert tab.failures() == []
            tab.loaded("Page.reload")
            assert tab.value("window.wrong") == "nothing"
            assert tab.failures() == []
        running.stop()
    counters = running.stopped["counters"]
    # Each file comes once; whatever is needed again is only asked about.
    assert counters["http_status_2xx"] == files
    assert counters["http_status_3xx"] >= files
    assert counters.get("http_status_4xx", 0) <= 1  # its icon
