"""What a file is said to be: by its name, and a text's charset by its bytes."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sscc.sources.charsets import TextScan, traits
from sscc.sources.scan import SMALL_BYTES

from tests.commands import sscc


def served(source: Path, tmp_path: Path, *words: str | Path) -> dict[str, str]:
    """The head of each path."""
    sscc("build", *(words or ("--no-cache",)), "-q", source, "-o", tmp_path / "x.img")
    document: Any = json.loads(sscc("inspect", tmp_path / "x.img", "--json").stdout)
    return {each["path"]: each["variants"][0]["head"] for each in document["routes_list"]}


def field(head: str, name: str) -> str | None:
    values = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith(f"{name}: ")]
    return values[0] if values else None


JAPANESE, FRENCH = "日本語のページ", "déjà vu"
META = '<!doctype html><meta charset="{}"><title>{}</title>'
HTTP_EQUIV = '<meta http-equiv="Content-Type" content="text/html; charset={}">{}'
NOTHING = None
TEXTS: dict[str, tuple[bytes, str | None]] = {
    "plain.txt": (b"hello", "utf-8"),
    "utf8.txt": (JAPANESE.encode(), "utf-8"),
    "latin1.txt": (FRENCH.encode("latin-1"), NOTHING),
    "sjis.txt": (JAPANESE.encode("shift_jis"), NOTHING),
    "jis.txt": (JAPANESE.encode("iso2022_jp"), NOTHING),
    "ansi.txt": (b"\x1b[31mred\x1b[0m", "utf-8"),
    "mark.txt": (b"\xef\xbb\xbf" + FRENCH.encode(), "utf-8"),
    "mark16.txt": (b"\xff\xfe" + FRENCH.encode("utf-16-le"), "utf-16le"),
    "mark16be.txt": (b"\xfe\xff" + FRENCH.encode("utf-16-be"), "utf-16be"),
    "empty.txt": (b"", "utf-8"),
    "utf8.html": (META.format("UTF-8", JAPANESE).encode(), "utf-8"),
    "sjis.html": (META.format("Shift_JIS", JAPANESE).encode("shift_jis"), "shift_jis"),
    "latin1.html": (HTTP_EQUIV.format("ISO-8859-1", FRENCH).encode("latin-1"), "iso-8859-1"),
    "ascii.html": (META.format("windows-1252", "only ASCII").encode(), "windows-1252"),
    "wrong.html": (META.format("utf-8", FRENCH).encode("latin-1"), NOTHING),
    "silent.html": (f"<title>{FRENCH}</title>".encode("latin-1"), NOTHING),
    "said16.html": (META.format("utf-16", FRENCH).encode(), "utf-8"),
    "comment.html": (b"<!-- <meta charset=latin1> -->" + FRENCH.encode(), "utf-8"),
    "late.html": (b" " * 1024 + META.format("latin1", "x").encode(), "utf-8"),
    "marked.html": (b"\xef\xbb\xbf" + META.format("latin1", "x").encode(), "utf-8"),
    "odd.html": (META.format("a\r\nX: y", FRENCH).encode(), "a"),
    "bad.html": (META.format("\x1b]", FRENCH).encode(), "utf-8"),
    "xml.html": (b'<?xml version="1.0" encoding="EUC-JP"?><html/>', "euc-jp"),
    "sheet.css": (b'@charset "koi8-r"; a {}', "koi8-r"),
    "page.js": (b"x = '<meta charset=koi8-r>'", "utf-8"),
    "latin1.js": (b"x = '<meta charset=utf-8>' + '\xe9'", NOTHING),
}
TYPES = {"txt": "text/plain", "html": "text/html", "css": "text/css", "js": "text/javascript"}


@pytest.mark.long
@pytest.mark.parametrize("size_bytes", [0, SMALL_BYTES + 1, 3 << 20])
def test_the_charset_is_what_the_bytes_say(tmp_path: Path, size_bytes: int) -> None:
    """Of small files and of those that are read piece by piece, with a cache and when it remembers."""
    site = tmp_path / "site"
    site.mkdir()
    for name, (data, _) in TEXTS.items():
        padding = b" \0" if "mark16." in name else b"\0 " if "mark16be" in name else b"  "
        (site / name).write_bytes(data + padding * (size_bytes // 2))
        os.utime(site / name, (1_700_000_000, 1_700_000_000))
    for words in (("--no-cache",), ("--cache", tmp_path / "cache"), ("--cache", tmp_path / "cache")):
        heads = served(site, tmp_path, *words)
        for name, (_, expected) in TEXTS.items():
            kind = TYPES[name.rpartition(".")[2]]
            wanted = kind if expected is None else f"{kind}; charset={expected}"
            assert field(heads[f"/{name}"], "Content-Type") == wanted, name
    sscc("verify", tmp_path / "x.img", "--manifest", site)


def test_the_manifest_s_charset_goes_first(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    for name in ("a.txt", "b.foo", "c.html"):
        (tmp_path / "site" / name).write_bytes(FRENCH.encode("latin-1"))
    (tmp_path / "site" / "d.foo").write_text(FRENCH)
    (tmp_path / "lost.html").write_bytes(META.format("latin1", FRENCH).encode("latin-1"))
    (tmp_path / "fixed.txt").write_bytes(FRENCH.encode("latin-1"))
    (tmp_path / "site.yaml").write_text("""
version: 1
root: site
mime: {".txt": "text/plain; charset=iso-8859-15", ".foo": text/x-foo}
rules: [{match: "/c.html", mime: 'text/html; Charset="latin1"'}]
responses: {/fixed: {file: fixed.txt, type: text/x-fixed}, /other: {file: fixed.txt}}
error_pages: {404: lost.html}
""")
    heads = served(tmp_path / "site.yaml", tmp_path)
    assert {path: field(head, "Content-Type") for path, head in heads.items()} == {
        "/a.txt": "text/plain; charset=iso-8859-15",
        "/b.foo": "text/x-foo",
        "/c.html": 'text/html; Charset="latin1"',
        "/d.foo": "text/x-foo; charset=utf-8",
        "/fixed": "text/x-fixed",
        "/other": "text/plain; charset=iso-8859-15",
    }
    document = json.loads(sscc("inspect", tmp_path / "x.img", "--json").stdout)
    (page,) = [each for each in document["errors"] if each["status"] == 404]
    assert field(page["answers"][0]["head"], "Content-Type") == "text/html; charset=latin1"


@given(st.binary() | st.text().map(str.encode) | st.text().map(lambda text: text.encode("utf-16")), st.integers(1, 9))
def test_read_piece_by_piece_is_the_same(data: bytes, size_bytes: int) -> None:
    """But for what is said at its beginning, of which the first piece has enough."""
    scan = TextScan()
    first = data[:2000]
    scan.read(first)
    for at in range(2000, len(data), size_bytes):
        scan.read(data[at : at + size_bytes])
    assert scan.finish() & 1 == traits(data) & 1 or data[:2] in (b"\xff\xfe", b"\xfe\xff")


def test_shifts_are_seen_across_pieces() -> None:
    for data in (b"a\x1b$B", b"\x1b(J", "é\x1b(".encode()):
        scan = TextScan()
        for at in range(len(data)):
            scan.read(data[at : at + 1])
        assert scan.finish() & 1 == traits(data) & 1 == 0


# By what insists on it: OpenSSL (X509_CRL_load_http and its like), podcast clients, apt and dnf, UEFI HTTP boot,
# players, and browsers.
EXPECTED = {
    **{"crl": "application/pkix-crl", "cer": "application/pkix-cert", "crt": "application/x-x509-ca-cert"},
    **{"p7c": "application/pkcs7-mime", "ors": "application/ocsp-response"},
    **{"atom": "application/atom+xml", "rss": "application/rss+xml", "ics": "text/calendar", "opml": "text/x-opml"},
    **{"ttf": "font/ttf", "otf": "font/otf", "woff2": "font/woff2"},
    **{"ogg": "audio/ogg", "opus": "audio/ogg", "m4a": "audio/mp4", "m4b": "audio/mp4", "mp3": "audio/mpeg"},
    **{"mkv": "video/x-matroska", "ts": "video/mp2t", "m4s": "video/iso.segment", "webm": "video/webm"},
    **{"m3u8": "application/vnd.apple.mpegurl", "mpd": "application/dash+xml", "vtt": "text/vtt"},
    **{"gz": "application/gzip", "xz": "application/x-xz", "zst": "application/zstd", "bz2": "application/x-bzip2"},
    **{"rpm": "application/x-rpm", "deb": "application/vnd.debian.binary-package", "whl": "application/zip"},
    **{
        "apk": "application/vnd.android.package-archive",
        "jar": "application/java-archive",
        "tgz": "application/gzip",
    },
    **{"efi": "application/efi", "iso": "application/vnd.efi.iso", "img": "application/vnd.efi.img"},
    **{"epub": "application/epub+zip", "xhtml": "application/xhtml+xml", "pdf": "application/pdf"},
    **{"log": "text/plain", "conf": "text/plain", "sha256": "text/plain", "md": "text/markdown", "csv": "text/csv"},
    **{"geojson": "application/geo+json", "json": "application/json", "map": "application/json"},
    **{"jsonld": "application/ld+json", "webmanifest": "application/manifest+json", "yaml": "application/yaml"},
    **{"wasm": "application/wasm", "mjs": "text/javascript", "cjs": "text/javascript", "js": "text/javascript"},
    **{
        "glb": "model/gltf-binary",
        "avif": "image/avif",
        "jxl": "image/jxl",
        "heic": "image/heic",
        "svg": "image/svg+xml",
    },
    **{"webp": "image/webp", "ico": "image/vnd.microsoft.icon", "png": "image/png", "css": "text/css"},
    **{"none-such": "application/octet-stream", "bin": "application/octet-stream", "xml": "application/xml"},
}


def test_types_by_extension(tmp_path: Path) -> None:
    """In upper case too. Only a text has a charset."""
    site = tmp_path / "site"
    site.mkdir()
    for extension in EXPECTED:
        (site / f"a.{extension}").write_text("text")
        (site / f"B.{extension.upper()}").write_text("TEXT")
    heads = served(site, tmp_path)
    for extension, kind in EXPECTED.items():
        wanted = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
        for path in (f"/a.{extension}", f"/B.{extension.upper()}"):
            assert field(heads[path], "Content-Type") == wanted


@pytest.mark.parametrize("padding", [0, SMALL_BYTES])
def test_a_compressed_drawing_is_sent_in_its_coding(tmp_path: Path, padding: int) -> None:
    """If it is one. An archive that is named like a coding stays as it is."""
    site = tmp_path / "site"
    site.mkdir()
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg"/>' + os.urandom(padding)
    (site / "a.svgz").write_bytes(gzip.compress(drawing))
    (site / "plain.svgz").write_bytes(drawing)
    (site / "a.tgz").write_bytes(gzip.compress(drawing))
    (tmp_path / "site.yaml").write_text("version: 1\nroot: site\nencodings: {make: [gzip, br], min_bytes: 1}\n")
    heads = served(tmp_path / "site.yaml", tmp_path)
    document: Any = json.loads(sscc("inspect", tmp_path / "x.img", "/a.svgz", "--json").stdout)
    (variant,) = document["routes_list"][0]["variants"]
    assert variant["encoding"] == "identity", "for clients that ask for no coding too"
    for head in (variant["head"], variant["partial_head"]):
        assert field(head, "Content-Type") == "image/svg+xml" or "Content-Range" in head
        assert field(head, "Content-Encoding") == "gzip"
    assert field(heads["/plain.svgz"], "Content-Type") == "image/svg+xml"
    assert field(heads["/a.tgz"], "Content-Type") == "application/gzip"
    assert field(heads["/a.tgz"], "Content-Encoding") is None


@pytest.mark.parametrize("time_s", [0, -5, 1, 86400])
def test_a_time_of_nothing_is_not_sent(tmp_path: Path, time_s: int) -> None:
    """Trees made to be the same everywhere have the epoch. One second later it is a time."""
    site = tmp_path / "site"
    site.mkdir()
    for name, size_bytes in (("a.txt", 9), ("b.txt", SMALL_BYTES + 1)):
        (site / name).write_bytes(b"x" * size_bytes)
        os.utime(site / name, (time_s, time_s))
    served(site, tmp_path)
    document: Any = json.loads(sscc("inspect", tmp_path / "x.img", "--json").stdout)
    for route in document["routes_list"]:
        (variant,) = route["variants"]
        assert variant["last_modified_s"] == (time_s if time_s > 0 else None)
        for answer in variant["answers"]:
            assert (answer["answer"] == "part") or ("Last-Modified: " in answer["head"]) == (time_s > 0)
    sscc("verify", tmp_path / "x.img", "--manifest", site)
