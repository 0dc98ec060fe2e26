"""Each server that the benchmarks compare serves the same files, as often as one asks, on connections that are kept."""

from __future__ import annotations

import pytest

from tests.bench import cpu, light, peers
from tests.bench.figures import Bench
from tests.bench.loadgen.loadgen import loadgen
from tests.bench.systems import (
    NGINX,
    PEER_WAYS,
    PEERS,
    PEERS_SINGLE,
    SERVER_CORE,
    SUPERFRAMES,
    Site,
    System,
    make_site,
    present,
    serve,
)
from tests.net import needs

pytestmark = [pytest.mark.alone, needs("nginx", "wrk", "gcc"), pytest.mark.timeout(120)]

SIZES = (100, 22_000, 1_000_000)
LIMIT = 1_000  # of nginx, as it comes: requests on a connection; of lighttpd 100


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), SIZES)


def there(system: System) -> System:
    """Or the test is skipped."""
    if not present((system,)):
        pytest.skip(f"needs {system.server}")
    return system


@pytest.mark.parametrize("system", PEERS, ids=lambda system: str(system.name))
def test_a_peer_serves_all_files_and_keeps_connections(system: System, site: Site) -> None:
    with serve(there(system), site) as serving:
        found = [
            loadgen(serving.client, site.target(size), connections=1, check_every=1, seconds=1, warmup=0.2)
            for size in SIZES
        ]
    for result in found:
        assert result.errors == {}
        assert result.values["checked"] == result.requests > 0
        ended = result.requests // peers.KEPT_REQUESTS + 1 if system.server == "lighttpd" else 0
        assert result.values["opened"] <= ended
    assert found[0].requests > LIMIT


@pytest.mark.parametrize("system", [*PEER_WAYS, *PEERS_SINGLE], ids=lambda system: str(system.name))
def test_a_peer_answers_wrk_in_all_its_ways(system: System, site: Site) -> None:
    with serve(there(system), site) as serving:
        row = Bench(site, 1, 1).wrk(serving, SIZES[1], 8)
    assert row["requests_s"] > 0
    assert row["errors"] == {}


@pytest.mark.parametrize("system", [NGINX, SUPERFRAMES], ids=lambda system: str(system.name))
def test_a_light_load_is_read_by_all_counters(system: System, site: Site) -> None:
    """What is a server's own is among what its core was busy with, and the loop on that core tells of it too. That the core is
    quiet, is said here: on a busy one the loop tells nothing."""
    bench, point = Bench(site, 0.5, 1), light.Point(SIZES[0], share=0.1, rate_s=1_000)
    with serve(system, site) as serving:
        row = light.counted(bench, serving, point)
        with cpu.spare(SERVER_CORE) as loop:
            assert light.idle_share(loop) <= 1
            taken_us = light.taken_us(bench, serving, point, loop, idle=0)
            assert light.taken_us(bench, serving, point, loop, idle=1) is None
    assert row["errors"] == {}
    assert 0 < row["threads_us"] <= row["counted_us"]
    assert row["core_us"] > 0
    assert taken_us is not None
    assert taken_us > 0


def test_what_is_missing_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    peers.program.cache_clear()
    monkeypatch.setattr(peers, "unpacked", lambda name, *_: None if name == "lighttpd" else name)
    try:
        assert [system.name for system in present(PEERS)] == ["nginx", "h2o"]
        assert peers.version("lighttpd") == peers.MISSING
    finally:
        peers.program.cache_clear()
