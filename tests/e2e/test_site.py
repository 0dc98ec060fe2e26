"""A real site that nobody here wrote, and files of every awkward size, fetched by real clients over every port."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.pages import CHECK_PAGE, chromium, compare, files_below, sha256
from tests.host import build
from tests.net import BACKENDS, DEVICES, WAYS, Running, needs, run, serving, tcpdump

pytestmark = needs("curl", "wget")

FAMILIES = [0, 1]


@pytest.fixture(scope="module", params=WAYS)
def running(request: pytest.FixtureRequest, site_image: Path) -> Iterator[Running]:
    with serving(site_image, request.param) as server:
        yield server


@pytest.mark.parametrize("family", FAMILIES)
def test_curl_fetches_the_whole_site(running: Running, site: Path, tmp_path: Path, family: int) -> None:
    config = tmp_path / "curl.conf"
    with config.open("w") as file:
        for name in files_below(site):
            file.write(f'url = "http://{running.hosts[family]}/{quote(name)}"\noutput = "{tmp_path}/got/{name}"\n')
    options = ["--globoff", "--fail-early", "-fsS", "--create-dirs", "--parallel", "--parallel-max", "16"]
    running.client.run("curl", *options, "-K", config, timeout_s=120)
    compare(site, tmp_path / "got")


@pytest.mark.parametrize("family", FAMILIES)
def test_wget_fetches_the_whole_site(running: Running, site: Path, tmp_path: Path, family: int) -> None:
    urls = tmp_path / "urls"
    urls.write_text("".join(f"http://{running.hosts[family]}/{quote(name)}\n" for name in files_below(site)))
    options = ["-q", "--no-proxy", "-x", "-nH", "--tries=3", "--timeout=10"]
    running.client.run("wget", *options, "-P", tmp_path / "got", "-i", urls, timeout_s=120)
    compare(site, tmp_path / "got")


@needs("chromium")
@pytest.mark.parametrize("family", FAMILIES)
def test_chromium_shows_a_page_with_its_assets(running: Running, site: Path, tmp_path: Path, family: int) -> None:
    dom = chromium(running, f"http://{running.hosts[family]}/", tmp_path)
    title = (site / "index.html").read_text(errors="replace").split("<title>")[1].split("</title>")[0].strip()
    assert title.split("&")[0] in dom
    assert "</html>" in dom


@needs("chromium")
@pytest.mark.parametrize("family", FAMILIES)
def test_chromium_fetches_the_whole_site(running: Running, site: Path, tmp_path: Path, family: int) -> None:
    """A script in the page fetches every file and compares its SHA-256."""
    dom = chromium(running, f"http://{running.hosts[family]}/{CHECK_PAGE}", tmp_path)
    assert f"{len(files_below(site)) - 1} files, wrong: none" in dom


S = 1428  # the image's segments
AWKWARD = sorted({0, 1, 2, S - 1, S, S + 1, 2 * S, 44 * S, 44 * S + 1, *range(S - 340, S - 200), 1_000_000})


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bodies of such sizes that among them are responses of one segment more or less a byte too; and 100 MB."""
    folder = tmp_path_factory.mktemp("sizes")
    block = os.urandom(1_000_003)
    for size in AWKWARD:
        (folder / f"{size}.bin").write_bytes(block[:size])
    with (folder / "100000000.bin").open("wb") as file:
        for _ in range(99):
            file.write(block)
        file.write(block[: 100_000_000 - 99 * len(block)])
    return folder


@pytest.mark.parametrize("backend", WAYS)
def test_awkward_sizes(sizes: Path, tmp_path: Path, backend: str) -> None:
    image = build(sizes, tmp_path / "sizes.img")
    with serving(image, backend) as running:
        for host in running.hosts:
            config = tmp_path / "curl.conf"
            names = list(files_below(sizes))
            config.write_text(
                "".join(f'url = "http://{host}/{name}"\noutput = "{tmp_path}/got/{name}"\n' for name in names)
            )
            running.client.run("curl", "-gfsS", "--create-dirs", "-K", config, timeout_s=120)
            for name in names:
                assert sha256(tmp_path / "got" / name) == sha256(sizes / name), name
        running.stop()
    assert running.stopped["counters"].get("arena_stalls") is None


MOVED = """
version: 1
sites:
  - hosts: [www.example.org]
    redirects: [{from: "/*", to: "http://example.org/:splat", status: 308}]
  - hosts: [example.org]
    root: ROOT
    redirects: [{from: "/old/*", to: "/:splat"}]
"""


@pytest.mark.parametrize("backend", ["tap", "sockets"])
def test_curl_follows_a_host_that_has_moved(tmp_path: Path, backend: str) -> None:
    """Path and query arrive as they were sent, and a long one in all its segments; curl is who reads Location."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a b.txt").write_text("here")
    (tmp_path / "moved.yaml").write_text(MOVED.replace("ROOT", str(tmp_path / "root")))
    image = build(tmp_path / "moved.yaml", tmp_path / "moved.img")
    with serving(image, backend) as running:
        names = [
            "--resolve",
            f"www.example.org:80:{running.hosts[0]}",
            "--resolve",
            f"example.org:80:{running.hosts[0]}",
        ]
        curl = ["curl", "-gsS", "--path-as-is", *names]
        shown = running.client.run(*curl, "-L", "-w", " %{url_effective}", "http://www.example.org/old/a%20b.txt?x=1")
        assert shown.stdout == "here http://example.org/a%20b.txt?x=1"
        long = "a" * 1700 + "?" + "q" * 1500
        for path in ("/%2f/evil.example?x", "//evil.example/%0d%0aSet-Cookie:x", "/\\evil.example", f"/{long}"):
            for method in ("-i", "-I"):
                options = ["-w", " %{redirect_url}", method, f"http://www.example.org{path}"]
                shown = running.client.run(*curl, *options)
                expected = path.replace("/%2f/", "/").replace("//", "/").replace("\\", "%5C")
                expected = expected.replace("%0d%0a", "%0D%0A") if "//" in path else expected
                assert shown.stdout.endswith(f" http://example.org{expected}")
                assert "\nSet-Cookie" not in shown.stdout


@needs("tcpdump", "tshark")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("superframe", ["44", "1"])
def test_tshark_finds_nothing_wrong(
    site: Path, site_image: Path, tmp_path: Path, backend: str, superframe: str
) -> None:
    """Frame by frame every checksum is on the wire and checked. A superframe's is finished by the kernel behind the
    capture, as with every server on a NIC with TSO, so there it can't be."""
    if backend == "afxdp" and superframe != "1":
        pytest.skip("AF_XDP sends frame by frame only")
    capture = tmp_path / "capture.pcap"
    names = sorted(files_below(site))[:200]
    with (
        serving(site_image, backend, "--superframe", superframe) as running,
        tcpdump(running.client, DEVICES[backend], capture, "port 80"),
    ):
        for host in running.hosts:
            config = tmp_path / "curl.conf"
            config.write_text(
                "".join(f'url = "http://{host}/{quote(name)}"\noutput = "/dev/null"\n' for name in names)
            )
            running.client.run("curl", "-gfsS", "-K", config)
    checks = "TRUE" if superframe == "1" else "FALSE"
    options = ["-o", f"tcp.check_checksum:{checks}", "-o", "ip.check_checksum:TRUE"]
    bad = "(tcp.checksum.status == 0 && tcp.srcport == 80) || ip.checksum.status == 0 || _ws.malformed"
    assert run("tshark", "-n", "-r", capture, *options, "-Y", bad).stdout == ""
    severe = "tcp.srcport == 80 && _ws.expert.severity >= 0x00800000"
    assert run("tshark", "-n", "-r", capture, *options, "-Y", severe).stdout == ""
    assert run("tshark", "-n", "-r", capture, "-Y", "http.response.code == 200").stdout.count("\n") >= 2 * len(names)
