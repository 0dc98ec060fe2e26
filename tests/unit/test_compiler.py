"""sscc through its command line, with readelf, pyelftools and tshark as witnesses."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import socket
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import brotli
import lz4.frame
import pytest
from elftools.elf.elffile import ELFFile
from sscc.responses.heads import http_date
from sscc.sources.source import matches
from wcmatch import glob

from tests import warm
from tests.commands import in_lines, sscc
from tests.host import Image
from tests.net import needs, run

SEGMENT = 1428


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_text("<title>home</title>")
    (folder / "sub" / "index.html").write_text("<title>sub</title>")
    (folder / "style.css").write_text("body { color: black }\n" * 200)
    (folder / "a b.txt").write_text("space")
    (folder / "empty").write_bytes(b"")
    for size in (1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 300_000):
        (folder / f"{size}.bin").write_bytes(bytes(i * 7 % 251 for i in range(size)))
    for path in folder.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return folder


@pytest.fixture
def image(site: Path, tmp_path: Path) -> Path:
    sscc("build", site, "-o", tmp_path / "site.img")
    return tmp_path / "site.img"


def inspect(image: Path, *route: str) -> Any:
    return json.loads(sscc("inspect", image, *route, "--json").stdout)


def manifest(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return path


def test_routes_of_a_folder(image: Path) -> None:
    routes = {route["path"]: route["variants"][0] for route in inspect(image)["routes_list"]}
    assert routes["/sub"]["status"] == 301
    assert "\r\nLocation: /sub/\r\n" in routes["/sub"]["head"]
    assert routes["/"]["etag"] == routes["/index.html"]["etag"]
    assert set(routes) >= {"/", "/a b.txt", "/empty", "/sub/", "/sub/index.html", "/style.css"}
    head = routes["/style.css"]["head"]
    assert head.startswith("HTTP/1.1 200 OK\r\nDate:")
    assert "Content-Type: text/css; charset=utf-8\r\n" in head
    assert "Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n" in head


@needs("readelf")
def test_readelf_and_pyelftools_read_it(image: Path) -> None:
    done = run("readelf", "-aW", image)
    assert done.stderr == ""
    assert "arning" not in done.stdout
    with image.open("rb") as file:
        elf = ELFFile(file)
        slots = elf.get_section_by_name(".sandstorm.slots")
        assert slots is not None
        assert slots["sh_offset"] % 4096 == 0
    assert Image.read(image).error == 0


def test_the_same_input_gives_the_same_bytes(site: Path, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "deep"
    shutil.copytree(site, other)
    for seed in range(2):  # of sets' order
        sscc("build", other, "-o", tmp_path / "again.img", env={"PYTHONHASHSEED": str(seed)})
        assert (tmp_path / "again.img").read_bytes() == image.read_bytes()


def test_source_date_epoch(site: Path, tmp_path: Path) -> None:
    sscc("build", site, "-o", tmp_path / "old.img", env={"SOURCE_DATE_EPOCH": "86400"})
    head = inspect(tmp_path / "old.img", "/empty")["routes_list"][0]["variants"][0]["head"]
    assert "Last-Modified: Fri, 02 Jan 1970 00:00:00 GMT\r\n" in head


def test_a_file_from_the_future_is_of_now(site: Path, tmp_path: Path) -> None:
    """RFC 9110 section 8.8.2.1: Last-Modified is never later than Date."""
    os.utime(site / "empty", (4_000_000_000, 4_000_000_000))
    before = int(time.time())
    sscc("build", site, "-o", tmp_path / "x.img")
    variant = inspect(tmp_path / "x.img", "/empty")["routes_list"][0]["variants"][0]
    assert before <= variant["last_modified_s"] <= time.time()


def test_extract_gives_the_files_back(site: Path, image: Path, tmp_path: Path) -> None:
    sscc("extract", image, "-o", tmp_path / "out")
    names = {path.relative_to(site) for path in site.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()} == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (site / name).read_bytes()
    done = sscc("extract", image, "-o", tmp_path / "out", status=1)
    assert "--force" in done.stderr
    sscc("extract", image, "-o", tmp_path / "out", "--force")


def test_lz4_images_are_frames_and_are_read(image: Path, site: Path, tmp_path: Path) -> None:
    packed = tmp_path / "site.img.lz4"
    sscc("build", site, "-o", packed)
    assert lz4.frame.decompress(packed.read_bytes()) == image.read_bytes()
    sscc("verify", packed)
    packed.write_bytes(packed.read_bytes()[:-100])
    assert "LZ4" in sscc("verify", packed, status=1).stderr


def test_verify_sees_every_kind_of_damage(image: Path, tmp_path: Path) -> None:
    sscc("verify", image)
    data = image.read_bytes()
    for at in (4096 + 128 + 300, 4096 + 62 + 10, len(data) // 2):
        bad = tmp_path / "bad.img"
        bad.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert "bad.img: " in sscc("verify", bad, status=1).stderr


def test_verify_against_the_source(image: Path, site: Path) -> None:
    sscc("verify", image, "--manifest", site)
    (site / "a b.txt").write_text("other")
    (site / "new").write_text("new")
    (site / "empty").unlink()
    errors = sscc("verify", image, "--manifest", site, status=1).stderr
    assert "/a b.txt: differs" in errors
    assert "/new: in the source, but not in the image" in errors
    assert "/empty: in the image, but no longer in the source" in errors


@needs("tshark")
@pytest.mark.parametrize("families", ["[ipv4, ipv6]", "[ipv6]"])
def test_pcap_is_clean(site: Path, tmp_path: Path, families: str) -> None:
    source = manifest(tmp_path, f"version: 1\nroot: site\nfamilies: {families}\n")
    sscc("build", source, "-o", tmp_path / "x.img")
    sscc("pcap", tmp_path / "x.img", "-o", tmp_path / "x.pcap")
    options = ["-r", tmp_path / "x.pcap", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    bad = "tcp.checksum.status != 1 || (ip && ip.checksum.status != 1) || _ws.expert.severity >= 0x00600000"
    assert run("tshark", "-n", *options, "-Y", bad).stdout == ""
    bodies = run(
        "tshark", "-n", *options, "-Y", "http.response.code == 200", "-T", "fields", "-e", "http.content_length"
    )
    assert {int(line) for line in bodies.stdout.split() if line} >= {1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 300_000}


def test_variants(site: Path, tmp_path: Path) -> None:
    text = (site / "style.css").read_bytes()
    (site / "style.css.gz").write_bytes(gzip.compress(text, mtime=0))
    source = manifest(tmp_path, "version: 1\nroot: site\nencodings: {make: [br, gzip, zstd]}\n")
    sscc("build", source, "-o", tmp_path / "x.img")
    variants = inspect(tmp_path / "x.img", "/style.css")["routes_list"][0]["variants"]
    assert {variant["encoding"] for variant in variants} == {"identity", "gzip", "br", "zstd"}
    assert [variant["bytes"] for variant in variants] == sorted(variant["bytes"] for variant in variants)
    assert len({variant["etag"] for variant in variants}) == 4
    for variant in variants:
        assert "\r\nVary: Accept-Encoding\r\n" in variant["head"]
        assert "\r\nVary: Accept-Encoding\r\n" in variant["partial_head"]
        coding = "Content-Encoding: " + variant["encoding"] + "\r\n"
        assert (coding in variant["partial_head"]) == (variant["encoding"] != "identity")
    sizes = {variant["encoding"]: variant["bytes"] for variant in variants}
    assert sizes["gzip"] == len(gzip.compress(text, mtime=0))
    assert sizes["br"] == len(brotli.compress(text))
    # Too small, or not worth it.
    assert len(inspect(tmp_path / "x.img", "/a b.txt")["routes_list"][0]["variants"]) == 1
    sscc("verify", tmp_path / "x.img", "--manifest", source)


@pytest.mark.long
def test_a_wrong_precompressed_file_is_told(site: Path, tmp_path: Path) -> None:
    (site / "style.css.gz").write_bytes(gzip.compress(b"other"))
    for data, expected in (
        (gzip.compress(b"other"), "does not hold what style.css holds"),
        (b"no", "is no gzip stream"),
    ):
        (site / "style.css.gz").write_bytes(data)
        done = sscc("build", "--strict", site, "-o", tmp_path / "x.img", status=1)
        assert f"style.css.gz: warning: {expected}, and is not used" in done.stderr
        assert not (tmp_path / "x.img").exists()
        for cache in (("--no-cache",), ("--cache", tmp_path / "cache"), ("--cache", tmp_path / "cache")):
            done = sscc("build", site, *cache, "-o", tmp_path / "y.img")
            assert f"style.css.gz: warning: {expected}, and is not used" in done.stderr
            routes = {route["path"]: route for route in inspect(tmp_path / "y.img")["routes_list"]}
            assert [each["encoding"] for each in routes["/style.css"]["variants"]] == ["identity"]
            assert "/style.css.gz" in routes, "a file as any other"
    made = manifest(
        tmp_path, "version: 1\nroot: site\nencodings: {make: [gzip], min_bytes: 1, min_gain_percent: 0}\n"
    )
    (site / "style.css").write_text("a {}\n" * 100)
    sscc("build", made, "--no-cache", "-o", tmp_path / "y.img")
    routes = {route["path"]: route for route in inspect(tmp_path / "y.img")["routes_list"]}
    assert [each["encoding"] for each in routes["/style.css"]["variants"]] == ["gzip", "identity"], (
        "it is made instead"
    )


def test_the_manifest_s_say(site: Path, tmp_path: Path) -> None:
    (tmp_path / "lost.html").write_text("lost")
    text = """
version: 1
roots:
  - path: site
    at: /files
    exclude: ["*.bin"]
mime: {".css": text/x-style}
headers: {X-All: all}
rules:
  - match: "/files/sub/**"
    headers: {Cache-Control: max-age=60, X-All: sub}
    copies: 3
  - match: "/files/empty"
    mime: application/x-nothing
error_pages: {404: lost.html}
mtu: 9000
copies: 2
server: false
"""
    sscc("build", manifest(tmp_path, text), "-o", tmp_path / "x.img")
    document = inspect(tmp_path / "x.img")
    routes = {route["path"]: route["variants"][0] for route in document["routes_list"]}
    assert document["segment_bytes"] == 9000 - 72
    assert "/files/1.bin" not in routes
    assert routes["/files/sub/"]["copies"] == 3
    assert "Cache-Control: max-age=60\r\nX-All: sub\r\n" in routes["/files/sub/"]["head"]
    assert routes["/files/empty"]["copies"] == 2
    assert "Content-Type: application/x-nothing\r\n" in routes["/files/empty"]["head"]
    assert "Content-Type: text/x-style; charset=utf-8\r\n" in routes["/files/style.css"]["head"]
    assert "Server" not in routes["/files/empty"]["head"]
    sscc("verify", tmp_path / "x.img", "--manifest", tmp_path / "site.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 1\nroot: site\ncopis: 15\n", ":3:1: unknown key 'copis'; did you mean 'copies'?"),
        ("root: site\n", "'version' is missing; write 'version: 1'"),
        ("version: 2\nroot: site\n", ":1:10: version"),
        ("version: 1\nroot: [site\n", ":"),
        ("version: 1\nroot: site\nroot: site\n", ":3:1: "),
        ("version: 1\n", "nothing to serve"),
        ("- a\n", "a manifest is a mapping"),
        ("version: 1\nroot: site\nmtu: big\n", ":3:6: mtu: "),
        ("version: 1\nroot: site\nmtu: 100\n", ":3:6: mtu: "),
        ("version: 1\nroot: site\nfamilies: [ipv5]\n", "did you mean 'ipv"),
        ("version: 1\nroot: site\nheaders: {Content-Length: '1'}\n", "set by sscc itself"),
        ("version: 1\nroot: site\nheaders: {'X Y': '1'}\n", "no header field name"),
        ('version: 1\nroot: site\nheaders: {X: "a\\r\\nb"}\n', "without line breaks"),
        ("version: 1\nroots: [{path: site, at: x}]\n", "write '/x'"),
        ("version: 1\nroot: nowhere\n", "no such folder"),
        ("version: 1\nroots: [{path: site}, {path: site}]\n", "two files for /"),
        ("version: 1\nroots: [{path: site, include: ['*.nothing']}]\n", "no file to serve"),
        ("version: 1\nroot: site\nerror_pages: {404: none.html}\n", "none.html: error page 404 can't be read"),
        ("version: 1\nroot: site\nerror_pages: {200: none.html}\n", "error_pages"),
        ("\tversion: 1\n", "site.yaml:1:"),
    ],
)
def test_wrong_manifests(site: Path, tmp_path: Path, text: str, expected: str) -> None:
    done = sscc("build", manifest(tmp_path, text), "-o", tmp_path / "x.img", status=1)
    assert expected in in_lines(done.stderr)
    assert ": error: " in done.stderr
    assert not list(tmp_path.glob("*.img*"))
    assert not list(tmp_path.glob(".x.img*"))


def test_all_mistakes_are_told_at_once(site: Path, tmp_path: Path) -> None:
    done = sscc("check", manifest(tmp_path, "version: 1\nroot: site\nmtu: x\ncopys: 1\nindex: 5\n"), status=1)
    assert len(in_lines(done.stderr).splitlines()) == 3


def test_wrong_sources(site: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.img"
    assert "no such file or folder" in sscc("build", tmp_path / "none", "-o", target, status=1).stderr
    assert "no such folder" in sscc("build", site, "-o", tmp_path / "none" / "x.img", status=1).stderr
    (site / "loop").symlink_to(site)
    assert "back to a folder above" in sscc("build", site, "-o", target, status=1).stderr
    (site / "loop").unlink()
    (site / "self").symlink_to("self")
    assert "self -> self (leads to itself)" in sscc("build", site, "-o", target, status=1).stderr
    (site / "self").unlink()
    (site / "out").symlink_to("/etc/hostname")
    assert "leaves the root" in sscc("build", site, "-o", target, status=1).stderr
    (site / "out").unlink()
    (site / "in").symlink_to("style.css")
    os.mkfifo(site / "pipe")
    assert "neither a file nor a folder" in sscc("build", site, "-o", target, status=1).stderr
    (site / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(site / "sock"))
        assert "neither a file nor a folder" in sscc("build", site, "-o", target, status=1).stderr
    (site / "sock").unlink()
    assert not target.exists()
    sscc("build", site, "-o", target)
    assert {route["path"] for route in inspect(target)["routes_list"]} >= {"/in", "/style.css"}


def test_equal_files_share_frames(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.bin").write_bytes(bytes(100_000))
        os.utime(folder / f"{name}.bin", (1_000_000_000, 1_000_000_000))
    done = json.loads(sscc("build", folder, "-o", tmp_path / "x.img", "--json").stdout)
    assert done["shared_frames"] >= 2 * 70
    assert done["routes"] == 3


def test_the_head_of_a_206_is_the_200_s_with_its_range(image: Path) -> None:
    """RFC 9110 section 15.3.7; patched fields are as wide as the largest numbers of the file."""
    for route in inspect(image)["routes_list"]:
        for variant in route["variants"]:
            if variant["status"] != 200:
                assert variant["partial_head"] is None
                continue
            size = variant["bytes"]
            heads = [variant[name].removesuffix("\r\n\r\n").split("\r\n") for name in ("head", "partial_head")]
            assert heads[1].pop(0) == "HTTP/1.1 206 Partial Content"
            assert heads[0].pop(0) == "HTTP/1.1 200 OK"
            fields = [{line.split(":")[0]: line.split(":", 1)[1] for line in lines} for lines in heads]
            # With one blank in front, or two so that the place is even.
            range_bytes = len("bytes -/") + 3 * len(str(size))
            assert len(fields[1].pop("Content-Range")) in (1 + range_bytes, 2 + range_bytes)
            assert len(fields[1].pop("Content-Length")) > len(str(size + 200 * len(variant["part_head"])))
            assert fields[0].pop("Content-Length").strip() == str(size)
            assert "Accept-Ranges" in fields[0]
            stripped = [{name: value.strip() for name, value in each.items()} for each in fields]
            assert stripped[0] == stripped[1]


def test_no_value_has_blanks_behind_it(image: Path) -> None:
    """Nor where it is wider than what is in it: some clients take such blanks for a part of it."""
    heads = [
        value
        for route in inspect(image)["routes_list"]
        for variant in route["variants"]
        for name, value in variant.items()
        if name.endswith("head") and value
    ]
    assert any("Content-Range:" in head for head in heads)
    assert [line for head in heads for line in head.split("\r\n") if line != line.rstrip()] == []


def test_part_headers_are_shared(tmp_path: Path) -> None:
    """One for each media type and class of sizes, whatever the number of files."""
    folder = tmp_path / "site"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(str(number) * (number + 1))
        (folder / f"{number}.css").write_text(str(number) * (number + 1))
    sscc("build", folder, "-o", tmp_path / "x.img")
    image = Image.read(tmp_path / "x.img").image
    parts = {image.variants[i].part_response for i in range(image.header.variant_count)}
    assert len(parts) == 2


def test_heads_without_a_body_are_shared(tmp_path: Path) -> None:
    """One 304 for all, and a head of a 206 for each media type and number of digits of a size. Files whose time
    is not sent have heads of their own."""
    folder = tmp_path / "site"
    folder.mkdir()
    for number in range(30):
        for suffix in ("txt", "css"):
            file = folder / f"{number}.{suffix}"
            file.write_text(str(number) * (number + 1))
            os.utime(file, (1_000_000_000 + number, 1_000_000_000 + number))
    (folder / "early.txt").write_text("early")
    os.utime(folder / "early.txt", (-86_400, -86_400))
    sscc("build", folder, "-o", tmp_path / "x.img")
    image = Image.read(tmp_path / "x.img").image
    variants = image.variants[0 : image.header.variant_count]
    assert len({variant.not_modified_response for variant in variants}) == 1 + 1
    assert len({variant.partial_response for variant in variants}) == 2 * 2 + 1  # of 1 to 60 bytes
    for route in inspect(tmp_path / "x.img")["routes_list"]:
        (variant,) = route["variants"]
        answers = {each["answer"]: each for each in variant["answers"]}
        get = dict(answers["GET"]["headers"])
        for name in ("304", "206"):
            said = dict(answers[name]["headers"])
            assert (said["ETag"], said.get("Last-Modified")) == (get["ETag"], get.get("Last-Modified"))
            assert ("Last-Modified" in answers[name]["patched"]) == (route["path"] != "/early.txt")


STATUSES = (400, 404, 405, 406, 408, 412, 414, 416, 417, 421, 431, 501, 503, 505)


def test_every_error_has_a_page(site: Path, tmp_path: Path) -> None:
    """Each can be the manifest's."""
    for status in STATUSES:
        (tmp_path / f"{status}.html").write_text(f"<h1>page {status}</h1>")
    pages = ", ".join(f"{status}: {status}.html" for status in STATUSES)
    sscc("build", manifest(tmp_path, f"version: 1\nroot: site\nerror_pages: {{{pages}}}\n"), "-o", tmp_path / "x.img")
    image = Image.read(tmp_path / "x.img")
    errors = image.image.errors[0 : image.header.error_count]
    assert sorted(error.status for error in errors) == [204, *STATUSES]
    for error in errors:
        get = image.image.responses[error.get_response]
        slot = image.image.frames[get.first_frame].slot * image.header.slot_bytes + 128
        stream = image.data["slots"][slot : slot + get.stream_bytes]
        assert get.status == error.status
        assert stream.startswith(b"HTTP/1.1 %d " % error.status)
        assert stream[get.head_bytes :] == (b"" if error.status == 204 else b"<h1>page %d</h1>" % error.status)
        assert (b"\r\nAllow: GET, HEAD, OPTIONS\r\n" in stream) == (error.status in (204, 405))
    assert b"HTTP/1.1 414 URI Too Long\r\n" in image.data["slots"]


def test_schema_is_one(tmp_path: Path) -> None:
    schema = json.loads(sscc("schema").stdout)
    assert schema["properties"]["roots"]["items"]
    assert schema["additionalProperties"] is False


@pytest.mark.long
def test_damaged_images_get_one_line(image: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    digest = int(hashlib.sha256(data).hexdigest(), 16)
    bad = tmp_path / "bad.img"
    cases = [b"", b"\x7fELF", data[:100], data[:5000], data[: len(data) // 2], b"x" * 10000]
    for number in range(12):
        at = (digest >> number) % 64 if number < 6 else len(data) - 1 - (digest >> number) % 900
        cases.append(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    for case in cases:
        bad.write_bytes(case)
        done = warm.run("sscc.cli", "verify", bad)
        assert done.returncode in (0, 1)
        assert "Traceback" not in done.stderr
        if done.returncode:
            assert ": error: " in done.stderr
    assert sscc("inspect", tmp_path / "none.img", status=1).stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["a", "a b.git", ".git", "x.html", ".x", "..x", "[a]", "deep/er/x.html", "d/.git/x"])
@pytest.mark.parametrize(
    "pattern", ["**", "*", "*.html", "**/.git/**", "**/*.html", "d/**", "[a]", "[[]a[]]", r"\[a\]", "?", "deep/*/x*"]
)
def test_globs_are_wcmatch_s(pattern: str, name: str) -> None:
    """Whatever is done to find out sooner."""
    expected = glob.globmatch(name, pattern, flags=glob.GLOBSTAR | glob.DOTGLOB)
    assert matches(name, pattern) == expected


def test_dates_are_what_email_writes() -> None:
    for second in (0, 1, 951_782_400, 1_709_164_800, 1_735_689_599, 2**31, 2**35, -1):
        assert http_date(second) == format_datetime(datetime.fromtimestamp(second, UTC), usegmt=True)


def test_provenance_is_json_as_json_writes_it(image: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    for name in ('"sources": []', "back\\slash", "\u00e9\U0001f600", "x\udcff"):
        (tmp_path / "odd" / name).write_text(name.encode("utf-8", "surrogateescape").hex())
    sscc("build", tmp_path / "odd", "-o", tmp_path / "odd.img")
    (tmp_path / "moved.yaml").write_text("version: 1\nredirects: [{from: /a, to: /b}]\n")
    sscc("build", tmp_path / "moved.yaml", "-o", tmp_path / "moved.img")
    for each, count in ((image, 10), (tmp_path / "odd.img", 4), (tmp_path / "moved.img", 0)):
        with each.open("rb") as file:
            text = ELFFile(file).get_section_by_name(".sandstorm.json").data().decode()
        assert len(json.loads(text)["sources"]) == count
        assert text == json.dumps(json.loads(text), sort_keys=True, indent=1)


def test_names_in_messages_are_as_they_were_given(site: Path, tmp_path: Path) -> None:
    """Below the current folder without `./`."""
    for name in "ab":
        os.mkfifo(site / "sub" / name)
    for folder, source, before in ((site, ".", ""), (tmp_path, "site", "site/"), (tmp_path, "./site/", "site/")):
        done = warm.run("sscc.cli", "check", source, cwd=folder)
        assert done.returncode == 1
        assert in_lines(done.stderr).splitlines() == [
            f"{before}sub/a: neither a file nor a folder (a device, socket or pipe); exclude it",
            f"{before}sub/b: neither a file nor a folder (a device, socket or pipe); exclude it",
        ]
