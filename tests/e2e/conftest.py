"""What several modules serve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.pages import CHECK_HTML, CHECK_PAGE, PACKAGES, documentation, files_below, sha256
from tests.host import build
from tests.net import run


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's folder with its links followed, as links out of it are refused."""
    source = documentation()
    if source is None:
        pytest.skip(f"needs an HTML documentation package: {' or '.join(PACKAGES)}")
    target = tmp_path_factory.mktemp("site") / "html"
    run("cp", "-rL", source, target)
    for path in target.rglob(".*"):  # which are not served
        path.unlink()
    digests = {name: sha256(path) for name, path in files_below(target).items()}
    (target / CHECK_PAGE).write_text(CHECK_HTML.replace("DIGESTS", json.dumps(digests)))
    return target


@pytest.fixture(scope="session")
def site_image(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(site, tmp_path_factory.mktemp("image") / "site.img")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small page; modules that serve more have an image of their own."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "index.html").write_text("<title>small</title>")
    return build(folder, tmp_path_factory.mktemp("image") / "small.img")
