"""Each script of this folder, against the core in memory. runner.py says how to read one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host import Image
from tests.model import ModelImage, Page
from tests.scripts.runner import Runner, ScriptError, scripts

BIG = bytes(range(251)) * 4000
BODIES = {"/a": b"hello", "/big": BIG[:100_000], "/huge": BIG}


@pytest.fixture(scope="module")
def image() -> Image:
    return Image(ModelImage({path: Page(body) for path, body in BODIES.items()}).sections)


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.stem)
def test_script(image: Image, script: Path) -> None:
    Runner(image, script.read_text()).run()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("+0 > S. 0 ack 2", "it said S. 0 ack 1"),
        ("+0 > . 0 ack 1", "it said S. "),
        ("+100 > S. 0 ack 1", "it said so at 0 ms, not 100"),
        ("+100 > none", "should have said nothing"),
        ("+0 < . 1 ack 1", "what no line took"),
        ("counter tcp_tx_syn_ack 2", "it is 1"),
    ],
)
def test_a_script_can_fail(image: Image, line: str, complaint: str) -> None:
    with pytest.raises(ScriptError, match=complaint):
        Runner(image, f"0 < S 0 <mss 1460>\n{line}\n").run()
