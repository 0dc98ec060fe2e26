"""A documentation package as it lies on the machine: hidden files, links to other packages and all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import sscc
from tests.e2e.pages import PACKAGES, documentation
from tests.e2e.real_sites import OUTSIDE, check, served, wrong


@pytest.fixture
def site() -> Path:
    folder = documentation()
    if folder is None:
        pytest.skip(f"needs an HTML documentation package: {' or '.join(PACKAGES)}")
    return folder


def test_a_documentation_package_is_served_as_it_is(site: Path, tmp_path: Path) -> None:
    """With the option that the error names."""
    told = sscc("check", site, status=1).stderr
    assert f"leave them out with '{' '.join(OUTSIDE)}'" in told
    assert check(site, tmp_path / "site.img", *OUTSIDE).files > 400


def test_what_its_links_lead_to_is_served_from_a_folder_above(site: Path, tmp_path: Path) -> None:
    """No link leaves that, and nothing else in it is served."""
    (tmp_path / "share.yaml").write_text(
        f"version: 1\nroots: [{{path: {site.parents[2]}, include: [{site.relative_to(site.parents[2])}/**]}}]\n"
    )
    sscc("build", "-q", "--no-cache", tmp_path / "share.yaml", "-o", tmp_path / "share.img")
    below = str(site.relative_to(site.parents[2]))
    files = {f"{below}/{name}": path for name, path in served(site).items()}
    linked = {f"{below}/{path.relative_to(site)}": path for path in site.rglob("*") if path.is_symlink()}
    assert linked
    assert wrong(tmp_path / "share.img", files | linked) == []
