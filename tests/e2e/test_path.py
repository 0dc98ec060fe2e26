"""Linux's TCP as witness and as rival, over an emulated link."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import mean

import pytest

from tests.e2e.pages import sha256
from tests.host import build
from tests.net import needs, ssrun
from tests.path.path import Link, emulated
from tests.path.yardstick import Cell, Files, fetch, linux, measure

pytestmark = [pytest.mark.alone, needs("curl", "gcc"), pytest.mark.timeout(300)]

SIZES = (0, 1, 1000, 20_000, 150_000, 1_000_000)
FAIR_LINK = Link(delay_ms=20, jitter_ms=0.4, rate_mbit=20, queue_bytes=100_000)  # jitter: see test_fairness.py
FAIR_SECONDS = 20
FAIR_ROUNDS = 4


def link_of(seed: int) -> Link:
    """What a seed stands for: all kinds of mischief at once."""
    rng = random.Random(seed)
    return Link(
        seed=seed,
        delay_ms=rng.choice([1, 5, 20]),
        jitter_ms=rng.choice([0, 1, 5]),
        rate_mbit=rng.choice([10, 100]),
        queue_bytes=rng.choice([20_000, 250_000]),
        loss=rng.choice([0, 0.01, 0.03]),
        duplicate=rng.choice([0, 0.02]),
        corrupt=rng.choice([0, 0.02]),
        reorder=rng.choice([0, 0.05, 0.2]),
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_kernel_as_client_of_a_network_that_misleads(tmp_path: Path, seed: int) -> None:
    """The simulation's second client: it shares no code with the first, nor with the core."""
    folder, got = tmp_path / "files", tmp_path / "got"
    folder.mkdir()
    got.mkdir()
    rng = random.Random(seed)
    for size in SIZES:
        (folder / str(size)).write_bytes(rng.randbytes(size))
    image = build(folder, tmp_path / "site.img")
    with (
        emulated(link_of(seed)) as (server, client),
        ssrun(image, server, client, "--iface", "srv0", *(["--pacing"] if seed % 2 else [])) as running,
    ):
        for host in running.hosts:
            urls = [f"http://{host}/{size}" for size in SIZES]
            client.run("curl", "-gfsS", "--parallel", "--output-dir", got, "--remote-name-all", *urls, timeout_s=120)
            for size in SIZES:
                assert sha256(got / str(size)) == sha256(folder / str(size))
                (got / str(size)).unlink()
        running.stop()
    assert running.stopped["counters"].get("tcp_timeout_retransmit") is None


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files.make(tmp_path_factory.mktemp("path"), 100 << 20)


def share_of_ours(files: Files, options: tuple[str, ...]) -> float:
    """Of what two flows of ours and two of Linux CUBIC fetch side by side."""
    with (
        emulated(FAIR_LINK) as (server, client),
        ssrun(files.image, server, client, "--iface", "srv0", *options),
        linux(server, files.file, 8080),
    ):
        got = fetch(client, [80, 8080, 80, 8080], FAIR_SECONDS)
    assert sum(got) > 0.85 * FAIR_LINK.rate_mbit
    return (got[0] + got[2]) / sum(got)


@pytest.mark.parametrize(("options", "least"), [((), 0.36), (("--pacing",), 0.38)], ids=["bursts", "paced"])
def test_a_bottleneck_is_shared_with_linux(files: Files, options: tuple[str, ...], least: float) -> None:
    """The mean share is 43 to 45 %, and luck moves one of 20 s by 5 %: so it is the mean of some that counts, of as few
    as will do. tests/sim/test_fairness.py is exact."""
    shares: list[float] = []
    while not shares or not least <= mean(shares) <= 1 - least:
        assert len(shares) < FAIR_ROUNDS, shares
        shares.append(share_of_ours(files, options))


def test_goodput_under_loss_is_that_of_linux(files: Files) -> None:
    """One cell of the yardstick, wide margins; `make yardstick` measures all of them."""
    ours, theirs = measure(Cell.of(0.01, 20), files, 8)
    assert ours > 0.75 * theirs, (ours, theirs)
