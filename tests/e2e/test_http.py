"""Download managers that resume and fetch in parts, and the same requests to nginx and to ssrun side by side."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from host import build
from net import SERVER4, Running, needs, needs_root, serving, veth_pair
from pages import sha256

pytestmark = [pytest.mark.e2e, needs_root, needs("ip", "curl", "wget")]

BIG_BYTES = 50_000_000
SMALL = b"0123456789" * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    (made / "big.bin").write_bytes(os.urandom(BIG_BYTES))
    (made / "a.txt").write_bytes(SMALL)
    (made / "empty.txt").write_bytes(b"")
    for name in ("a.txt", "empty.txt"):
        os.utime(made / name, (784111777, 784111777))
    os.chmod(made, 0o755)
    return made


@pytest.fixture(scope="module")
def image(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


@pytest.fixture(scope="module", params=["tap", "packet"])
def running(request: pytest.FixtureRequest, image: Path) -> Iterator[Running]:
    with serving(image, request.param) as server:
        yield server


def test_curl_takes_ranges(running: Running, folder: Path, tmp_path: Path) -> None:
    data = (folder / "big.bin").read_bytes()
    for host in running.hosts:
        for text, wanted in (
            ("0-0", data[:1]),
            ("1427-1429", data[1427:1430]),
            ("1000000-30000000", data[1_000_000:30_000_001]),
            ("-12345", data[-12345:]),
            ("49999999-", data[-1:]),
        ):
            got = tmp_path / "got"
            running.client.run("curl", "-gfsS", "-r", text, "-o", got, f"http://{host}/big.bin")
            assert got.read_bytes() == wanted, text


@pytest.mark.parametrize("have", [1, 1428, 12_345_678, BIG_BYTES - 1])
def test_curl_and_wget_resume(running: Running, folder: Path, tmp_path: Path, have: int) -> None:
    data = (folder / "big.bin").read_bytes()
    url = f"http://{running.hosts[0]}/big.bin"
    for tool in (("curl", "-fsS", "-C", "-", "-O"), ("wget", "-q", "--no-proxy", "-c")):
        partial = tmp_path / tool[0] / "big.bin"
        partial.parent.mkdir()
        partial.write_bytes(data[:have])
        # The tools write where they are.
        running.client.run("sh", "-c", f"cd {partial.parent} && {' '.join(tool)} {url}", timeout_s=120)
        assert sha256(partial) == sha256(folder / "big.bin"), tool


@needs("aria2c")
def test_aria2c_fetches_in_sixteen_parts(running: Running, folder: Path, tmp_path: Path) -> None:
    options = ["-q", "-x16", "-s16", "-k1M", "--no-conf=true", "--file-allocation=none", "-d", str(tmp_path)]
    running.client.run("aria2c", *options, f"http://{running.hosts[0]}/big.bin", timeout_s=120)
    assert sha256(tmp_path / "big.bin") == sha256(folder / "big.bin")


NGINX = """
user root; daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    types {{ text/plain txt; }}
    server {{ listen 80; root {root}; }}
}}
"""


@contextlib.contextmanager
def nginx(root: Path, folder: Path) -> Iterator[Running]:
    """nginx over veth."""
    with veth_pair() as (server, client):
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, root=root))
        process = server.popen("nginx", "-c", config, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        try:
            yield Running(process, {}, server, client, [SERVER4])
        finally:
            process.terminate()
            process.wait()


FIELDS = ("Content-Range", "Content-Length", "Accept-Ranges", "Allow")
DATE, BEFORE, AFTER = (f"Sun, 06 Nov 1994 08:49:{second} GMT" for second in (37, 36, 38))
# What is asked for: method, target, further fields; TAG is the server's own entity tag of /a.txt.
CASES: dict[str, tuple[str, ...]] = {
    "get": ("GET", "/a.txt"),
    "head": ("HEAD", "/a.txt"),
    "not found": ("GET", "/none"),
    "query": ("GET", "/a.txt?x"),
    "absolute form": ("GET", "http://b/a.txt"),
    "above the root": ("GET", "/../a.txt"),
    "post": ("POST", "/a.txt", "Content-Length: 0"),
    "unknown method": ("BREW", "/a.txt"),
    "options": ("OPTIONS", "/a.txt"),
    "options of the server": ("OPTIONS", "*"),
    "range": ("GET", "/a.txt", "Range: bytes=0-9"),
    "range to the end": ("GET", "/a.txt", "Range: bytes=40-"),
    "suffix": ("GET", "/a.txt", "Range: bytes=-5"),
    "suffix longer than the file": ("GET", "/a.txt", "Range: bytes=-500"),
    "suffix of nothing": ("GET", "/a.txt", "Range: bytes=-0"),
    "range beyond the end": ("GET", "/a.txt", "Range: bytes=40-1000"),
    "range behind the end": ("GET", "/a.txt", "Range: bytes=50-"),
    "range reversed": ("GET", "/a.txt", "Range: bytes=9-0"),
    "range malformed": ("GET", "/a.txt", "Range: bytes=x"),
    "range of another unit": ("GET", "/a.txt", "Range: lines=0-1"),
    "range of a HEAD": ("HEAD", "/a.txt", "Range: bytes=0-9"),
    "range of an empty file": ("GET", "/empty.txt", "Range: bytes=0-"),
    "two ranges": ("GET", "/a.txt", "Range: bytes=0-0,5-5"),
    "two ranges, one behind the end": ("GET", "/a.txt", "Range: bytes=0-0,50-"),
    "ranges of more than the file": ("GET", "/a.txt", "Range: bytes=0-,0-"),
    "seventeen ranges": ("GET", "/a.txt", "Range: bytes=" + ",".join(["0-0"] * 17)),
    "if-range, tag": ("GET", "/a.txt", "Range: bytes=0-9", "If-Range: TAG"),
    "if-range, weak tag": ("GET", "/a.txt", "Range: bytes=0-9", "If-Range: W/TAG"),
    "if-range, other tag": ("GET", "/a.txt", "Range: bytes=0-9", 'If-Range: "x"'),
    "if-range, date": ("GET", "/a.txt", "Range: bytes=0-9", f"If-Range: {DATE}"),
    "if-range, later date": ("GET", "/a.txt", "Range: bytes=0-9", f"If-Range: {AFTER}"),
    "if-match": ("GET", "/a.txt", "If-Match: TAG"),
    "if-match, weak": ("GET", "/a.txt", "If-Match: W/TAG"),
    "if-match, other": ("GET", "/a.txt", 'If-Match: "x"'),
    "if-match, any": ("GET", "/a.txt", "If-Match: *"),
    "if-unmodified-since, before": ("GET", "/a.txt", f"If-Unmodified-Since: {BEFORE}"),
    "if-unmodified-since, same": ("GET", "/a.txt", f"If-Unmodified-Since: {DATE}"),
    "if-match before if-unmodified-since": ("GET", "/a.txt", "If-Match: TAG", f"If-Unmodified-Since: {BEFORE}"),
    "if-none-match": ("GET", "/a.txt", "If-None-Match: TAG"),
    "if-none-match, weak": ("GET", "/a.txt", "If-None-Match: W/TAG"),
    "if-none-match, list": ("GET", "/a.txt", 'If-None-Match: "x", TAG'),
    "if-none-match, any": ("GET", "/a.txt", "If-None-Match: *"),
    "if-modified-since, same": ("GET", "/a.txt", f"If-Modified-Since: {DATE}"),
    "if-modified-since, after": ("GET", "/a.txt", f"If-Modified-Since: {AFTER}"),
    "if-modified-since, before": ("GET", "/a.txt", f"If-Modified-Since: {BEFORE}"),
    "if-none-match before if-modified-since": (
        "GET", "/a.txt", 'If-None-Match: "x"', f"If-Modified-Since: {DATE}",
    ),
    "304 before 206": ("GET", "/a.txt", "If-None-Match: TAG", "Range: bytes=0-9"),
    "identity refused": ("GET", "/a.txt", "Accept-Encoding: identity;q=0"),
    "unknown expectation": ("GET", "/a.txt", "Expect: x"),
}  # fmt: skip
ALLOW = "Allow=GET, HEAD, OPTIONS"
WHOLE = "200 Content-Length=50 Accept-Ranges=bytes"
# Where the two differ: nginx's answer, ours, and why.
DIFFERENCES: dict[str, tuple[str, str, str]] = {
    "post": ("405", f"405 {ALLOW}", "RFC 9110 section 15.5.6: a 405 must say Allow"),
    "unknown method": ("405", "501", "RFC 9110 section 9.1: 501 for a method that is not recognized"),
    "options": ("405", f"204 {ALLOW}", "RFC 9110 section 9.3.7: clients may ask what is allowed"),
    "options of the server": ("400", f"204 {ALLOW}", "RFC 9110 section 9.3.7: the asterisk is the server"),
    "range reversed": ("416 Content-Range=bytes */50", WHOLE, "RFC 9110 section 14.2: invalid, may be ignored"),
    "range malformed": ("416 Content-Range=bytes */50", WHOLE, "RFC 9110 section 14.2: invalid, may be ignored"),
    "range of a HEAD": (
        "206 Content-Range=bytes 0-9/50 Content-Length=10",
        WHOLE,
        "RFC 9110 section 14.2: Range must be ignored with methods other than GET",
    ),
    "two ranges": (
        "206 Content-Length=196",
        "206 Content-Length=290 Accept-Ranges=bytes",
        "the same parts; our part headers and boundary are wider",
    ),
    "seventeen ranges": (
        "206 Content-Length=1456",
        WHOLE,
        "RFC 9110 section 14.2: so many small ones may be ignored",
    ),
    "if-match before if-unmodified-since": (
        "412",
        WHOLE,
        "RFC 9110 section 13.2.2: If-Unmodified-Since is not looked at beside If-Match",
    ),
    "if-modified-since, after": (WHOLE, "304", "RFC 9110 section 13.1.3; nginx compares exactly by default"),
    "identity refused": (WHOLE, "406", "RFC 9110 section 12.5.3 allows both; who refuses the file is told so"),
    "unknown expectation": (WHOLE, "417", "RFC 9110 section 10.1.1 allows both; what is not done is not passed over"),
}
for each, shown in {
    "range": "0-9/50 Content-Length=10",
    "range to the end": "40-49/50 Content-Length=10",
    "suffix": "45-49/50 Content-Length=5",
    "suffix longer than the file": "0-49/50 Content-Length=50",
    "range beyond the end": "40-49/50 Content-Length=10",
    "two ranges, one behind the end": "0-0/50 Content-Length=1",
    "if-range, tag": "0-9/50 Content-Length=10",
    "if-range, date": "0-9/50 Content-Length=10",
}.items():
    theirs_is = f"206 Content-Range=bytes {shown}"
    DIFFERENCES[each] = (theirs_is, f"{theirs_is} Accept-Ranges=bytes", "nginx has Accept-Ranges on a 200 only")


def summary(answer: str) -> str:
    """Status and the listed fields, but for an error page's length."""
    head = answer.partition("\r\n\r\n")[0].split("\r\n")
    status = head[0].split()[1] if head[0] else "nothing"
    fields = {line.partition(":")[0]: line.partition(":")[2].strip() for line in head[1:]}
    shown = [name for name in FIELDS if name in fields and (name != "Content-Length" or status < "400")]
    return " ".join([status, *(f"{name}={fields[name]}" for name in shown)])


def answers(server: Running, scratch: Path) -> dict[str, str]:
    def ask(requests: list[str]) -> list[str]:
        (scratch / "requests.json").write_text(json.dumps(requests))
        script = Path(__file__).with_name("raw.py")
        done = server.client.run(sys.executable, script, server.hosts[0], scratch / "requests.json")
        found: list[str] = json.loads(done.stdout)
        return found

    def text(method: str, target: str, *fields: str) -> str:
        return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", "Connection: close", *fields, "", ""])

    (plain,) = ask([text("GET", "/a.txt")])
    tag = next(line.split(": ")[1] for line in plain.split("\r\n") if line.startswith("ETag: "))
    found = ask([text(*words).replace("TAG", tag) for words in CASES.values()])
    return {name: summary(answer) for name, answer in zip(CASES, found, strict=True)}


@needs("nginx")
def test_side_by_side_with_nginx(folder: Path, image: Path, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    with nginx(folder, tmp_path) as server:
        theirs = answers(server, tmp_path)
    with serving(image, "tap") as server:
        ours = answers(server, tmp_path)
    found = {name: (theirs[name], ours[name]) for name in CASES if theirs[name] != ours[name]}
    assert found == {name: entry[:2] for name, entry in DIFFERENCES.items()}
    assert all(len(why) > 10 for _, _, why in DIFFERENCES.values())
