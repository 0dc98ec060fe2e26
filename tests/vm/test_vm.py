"""ssrun over the real netmap, in a machine of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import machine, vm


@pytest.mark.timeout(vm.BOOT_S + 60)
def test_netmap(tmp_path: Path) -> None:
    lacking = vm.missing()
    if lacking:
        pytest.skip(lacking)
    machine.build_site(tmp_path)
    results = list(vm.run(tmp_path))
    console = (tmp_path / "console").read_text(errors="replace")[-3000:]
    assert results, console
    assert results[-1]["case"] == "the end", console
    for result in results:
        assert result["passed"], result
