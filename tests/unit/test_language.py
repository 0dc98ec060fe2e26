"""What a manifest can say, as the core answers it: images built by `sscc` and asked in memory."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from tests.commands import in_lines
from tests.commands import sscc_here as sscc
from tests.host import Client, Host, Image

WHEN_S = 1_000_000_000


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A folder beside the manifest."""
    files = {
        "index.html": "home",
        "about.html": "about",
        "app/index.html": "app",
        "manual/intro.html": "intro",
        "manual/deep/er.html": "deeper",
        "2024/old post.html": "old post",
        "pool/a.deb": "a" * 3000,
        "pool/b&<c>.txt": "b",
        "fonts/f.woff2": "font",
    }
    for name, text in files.items():
        path = tmp_path / "public" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (WHEN_S, WHEN_S))
    return tmp_path / "public"


class Answer:
    """Status, fields by their names in lower case, body."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        self.status = int(head.split()[1])
        lines = [line.split(":", 1) for line in head.decode("latin-1").split("\r\n")[1:]]
        self.fields = {name.lower(): value.strip() for name, value in lines}
        self.cookies = [value.strip() for name, value in lines if name == "Set-Cookie"]
        assert len(lines) == len(self.fields) + max(0, len(self.cookies) - 1), "a field twice"


class Server:
    """A built image in memory."""

    def __init__(self, source: Path, image: Path) -> None:
        sscc("build", source, "-o", image)
        sscc("verify", image, "--manifest", source)
        self.image = image
        self.host = Host(Image.read(image))
        self.port = 40000

    def ask(self, target: str, method: str = "GET", host: str = "a", fields: str = "") -> Answer:
        self.port += 1
        client = Client(self.host, port=self.port)
        client.connect()
        client.request(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())
        data = client.drain()
        self.host.send(client.packet("R", seq=client.seq))
        return Answer(data)

    def location(self, target: str, host: str = "a") -> tuple[int, str | None]:
        answer = self.ask(target, host=host)
        return answer.status, answer.fields.get("location")


def served(public: Path, text: str) -> Server:
    source = public.parent / "site.yaml"
    source.write_text(f"version: 1\n{text}")
    return Server(source, public.parent / "site.img")


def mistakes(public: Path, text: str) -> list[str]:
    """What `sscc check` and `sscc build` both say."""
    source = public.parent / "site.yaml"
    source.write_text(f"version: 1\n{text}")
    said = sscc("check", source, status=1).stderr
    assert sscc("build", source, "-o", public.parent / "x.img", status=1).stderr == said
    assert not (public.parent / "x.img").exists()
    return [line.removeprefix(str(source)) for line in in_lines(said).splitlines()]


def test_slashes_in_a_row_are_one(public: Path) -> None:
    """UEFI clients ask so; unless the manifest says otherwise."""
    text = "root: public\nredirects: [{from: /old, to: /new}]\n"
    server = served(public, text)
    assert server.ask("//about.html").body == b"about"
    assert server.ask("/manual///deep//er.html").body == b"deeper"
    assert server.location("//manual//deep") == (404, None)
    assert server.location("//app") == (301, "/app/")
    assert server.location("//old") == (301, "/new")
    server = served(public, text + "merge_slashes: false\nresponses: {//about.html: {body: two}}\n")
    assert server.ask("//about.html").body == b"two"
    assert server.ask("/manual//intro.html").status == 404


def test_a_path_that_is_never_asked_for(public: Path) -> None:
    source = public.parent / "site.yaml"
    source.write_text("version: 1\nroot: public\nresponses: {//about.html: {body: two}}\n")
    done = sscc("check", source, status=1)
    assert "'//about.html' is never asked for" in done.stderr
    assert "merge_slashes: false" in done.stderr


def test_sites_by_host(public: Path) -> None:
    server = served(
        public,
        """
headers: {X-All: all}
sites:
  - hosts: [example.org, "*.Example.org"]
    root: public
  - hosts: ["app.example.org"]
    root: public/app
    headers: {X-Own: own}
    error_pages: {404: public/about.html}
  - hosts: [bücher.example, "[2001:db8::1]"]
    redirects: [{from: "/*", to: "https://example.org/"}]
""",
    )
    assert server.ask("/", host="example.org").body == b"home"
    assert server.ask("/", host="www.example.org:81").body == b"home"
    assert server.ask("/", host="app.example.org").body == b"app"
    assert server.ask("/x", host="app.example.org").body == b"about"
    assert server.ask("/", host="xn--bcher-kva.example").status == 301
    assert server.location("/any/thing", host="[2001:db8::1]") == (301, "https://example.org/")
    assert server.ask("/", host="other.org").status == 421
    assert server.ask("/", host="www.example.org").fields["x-all"] == "all"
    assert "x-all" not in server.ask("/", host="app.example.org").fields
    assert server.ask("/", host="app.example.org").fields["x-own"] == "own"
    listed = json.loads(sscc("inspect", server.image, "--json").stdout)["routes_list"]
    assert sum(route["path"] == "/" for route in listed) == 2
    assert "several sites have /" in sscc("inspect", server.image, "/", status=1).stderr
    assert "X-Own" in sscc("inspect", server.image, "app.example.org/").stdout
    out = public.parent / "out"
    sscc("extract", server.image, "-o", out)
    assert (out / "app.example.org" / "index.html").read_text() == "app"
    # Of two names the first in order is the folder's.
    assert (out / "any.example.org" / "about.html").read_text() == "about"


def test_a_site_beside_the_manifest_s_own(public: Path) -> None:
    server = served(public, "root: public\nsites: [{hosts: [b], root: public/app}]\n")
    assert server.ask("/", host="anything").body == b"home"
    assert server.ask("/", host="b").body == b"app"
    assert server.ask("/about.html", host="b").status == 404


def test_redirects(public: Path) -> None:
    server = served(
        public,
        """
root: public
redirects:
  - {from: /old, to: /about.html}
  - {from: "/sp%20ace", to: "/a?x=1&y=ü#z", status: 302}
  - {from: "/docs/*", to: "/manual/:splat", status: 308}
  - {from: "/blog/:year/:post", to: "/:year/:post?from=blog", status: 307}
  - {from: "/gone/*", to: "https://example.org/x", status: 303}
  - {from: /about.html, to: /about, force: true}
""",
    )
    assert server.location("/old") == (301, "/about.html")
    assert server.location("/old?query") == (301, "/about.html?query")
    assert server.location("/sp%20ace") == (302, "/a?x=1&y=%C3%BC#z")
    assert server.location("/docs/intro.html") == (308, "/manual/intro.html")
    assert server.location("/docs/deep/er.html") == (308, "/manual/deep/er.html")
    assert server.location("/docs/none/?a=b") == (308, "/manual/none/?a=b")
    assert server.location("/docs") == (308, "/manual/")
    assert server.location("/blog/2024/old%20post.html") == (307, "/2024/old%20post.html?from=blog")
    assert server.location("/blog/x/intro.html") == (404, None)
    for path in ("/gone", "/gone/", "/gone/a/b"):
        assert server.location(path) == (303, "https://example.org/x")
    assert server.location("/gon") == (404, None)
    assert server.location("/about.html") == (301, "/about")
    answer = server.ask("/old", "HEAD")
    assert (answer.status, answer.fields["location"], answer.body) == (301, "/about.html", b"")


def test_trees_that_have_moved(public: Path) -> None:
    """What a server on port 80 is most often for: https, one name, another host."""
    server = served(
        public,
        """
sites:
  - hosts: [example.org]
    root: public
    redirects:
      - {from: "/docs/*", to: "/manual/:splat"}
      - {from: "/*", to: "/manual/:splat", status: 302}
  - hosts: [www.example.org]
    redirects: [{from: "/*", to: "http://example.org/:splat"}]
  - hosts: [secure.example.org]
    redirects: [{from: "/*", to: "https://secure.example.org/:splat", status: 308}]
    responses: {"/.well-known/*": {status: 404}}
""",
    )
    assert server.location("/a/b?c", host="www.example.org") == (301, "http://example.org/a/b?c")
    assert server.location("/", host="www.example.org") == (301, "http://example.org/")
    assert server.location("/a%2fb?c", host="secure.example.org") == (308, "https://secure.example.org/a%2fb?c")
    assert server.location("/.well-known/x", host="secure.example.org") == (404, None)
    assert server.location("/docs/new?x", host="example.org") == (301, "/manual/new?x")
    # What is below its own tree leads there for what is there, or it would go on for ever.
    assert server.location("/intro.html", host="example.org") == (302, "/manual/intro.html")
    assert server.location("/none.html", host="example.org") == (404, None)
    assert server.location("/manual/none.html", host="example.org") == (404, None)
    page = server.ask("/a/b", host="www.example.org").body
    assert b"href" not in page  # a link that leads elsewhere than Location is none


def test_redirects_hand_the_query_on(public: Path) -> None:
    """As nginx and h2o do for a folder, and as who has links with parameters expects of redirects."""
    server = served(
        public,
        """
root: public
redirects:
  - {from: /old, to: /about.html}
  - {from: /own, to: "/a?x=1"}
  - {from: /none, to: "/a?"}
  - {from: /part, to: "/a#part", status: 302}
  - {from: /part-own, to: "/a?x=1#part"}
  - {from: "/docs/*", to: "/manual/:splat"}
  - {from: "/gone/*", to: "https://example.org/x"}
""",
    )
    for path, to in [
        ("/app?utm=1", "/app/?utm=1"),
        ("//app?utm=1", "/app/?utm=1"),
        ("/%61pp?a=%20b&c", "/app/?a=%20b&c"),
        ("/app?", "/app/"),
        ("/app?a?b", "/app/?a?b"),
        ("/old?utm=1", "/about.html?utm=1"),
        ("http://b/old?utm=1", "/about.html?utm=1"),
        ("/own?utm=1", "/a?x=1"),
        ("/none?utm=1", "/a?"),
        ("/part-own?utm=1", "/a?x=1#part"),
        ("/docs/intro.html?a", "/manual/intro.html?a"),
        ("/gone/x?a=b/../c//d", "https://example.org/x?a=b/../c//d"),
        ("/app?" + "q" * 511, "/app/?" + "q" * 511),
        ("/app?" + "q" * 512, "/app/"),  # longer ones are left out
    ]:
        for method in ("GET", "HEAD"):
            answer = server.ask(path, method)
            assert (answer.status, answer.fields["location"]) == (301, to), path
            assert (answer.body == b"") == (method == "HEAD")
            assert int(answer.fields["content-length"]) == len(answer.body) or method == "HEAD"
    assert server.location("/part?utm=1") == (302, "/a?utm=1#part")
    assert server.ask("/about.html?utm=1").body == b"about"
    assert server.ask("/app/?utm=1").body == b"app"
    assert server.ask("/nothing?utm=1").status == 404


def test_rewrites_and_fallback(public: Path) -> None:
    server = served(
        public,
        """
root: public
rewrites:
  /start: /index.html
  "/app/*": /app/
fallback: /about.html
""",
    )
    assert server.ask("/start").body == b"home"
    assert server.ask("/app/some/view").body == b"app"
    assert server.ask("/app/index.html").body == b"app"
    assert server.ask("/app").status == 301
    assert server.ask("/nothing/here").body == b"about"
    answer = server.ask("/x", fields="Range: bytes=1-3\r\n")
    assert (answer.status, answer.body) == (206, b"bou")
    etag = server.ask("/x").fields["etag"]
    assert server.ask("/y", fields=f"If-None-Match: {etag}\r\n").status == 304
    sscc("extract", server.image, "-o", public.parent / "out")
    assert (public.parent / "out" / "app" / "index.html").read_text() == "app"
    assert not (public.parent / "out" / "start").exists()


def test_fixed_responses(public: Path) -> None:
    server = served(
        public,
        """
root: public
headers: {X-All: all}
responses:
  /generate_204: {status: 204}
  /health: {body: "ok\\n", headers: {Cache-Control: no-store, X-All: null}}
  /robots.txt: {file: public/about.html, type: text/plain}
  "/private/*": {status: 403, body: "<p>no", type: text/html}
  /api: {status: 410}
""",
    )
    answer = server.ask("/generate_204")
    assert (answer.status, answer.body) == (204, b"")
    assert not {"content-length", "content-type"} & answer.fields.keys()
    assert server.ask("/generate_204", "HEAD").status == 204
    assert server.ask("/generate_204", "POST").status == 405
    answer = server.ask("/health")
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer.fields["content-type"] == "text/plain; charset=utf-8"
    assert answer.fields["cache-control"] == "no-store"
    assert "x-all" not in answer.fields
    assert "x-all" in server.ask("/generate_204").fields
    assert server.ask("/health", "HEAD").fields["content-length"] == "3"
    assert server.ask("/health", fields="If-None-Match: *\r\nRange: bytes=0-0\r\n").status == 200
    assert server.ask("/robots.txt").body == b"about"
    answer = server.ask("/private/a/b")
    assert (answer.status, answer.fields["content-type"], answer.body) == (403, "text/html", b"<p>no")
    answer = server.ask("/api")
    assert (answer.status, answer.fields["content-length"], answer.body) == (410, "0", b"")


def test_cache_and_header_rules(public: Path) -> None:
    server = served(
        public,
        """
root: public
cache: 300
headers: {X-Frame-Options: DENY}
rules:
  - {match: "/pool/**", cache: 30d}
  - {match: "/fonts/*", cache: immutable, headers: {x-frame-options: null}}
  - {match: /, headers: {x-frame-options: SAMEORIGIN}}
  - {match: /app/index.html, cache: no-cache}
redirects: [{from: /old, to: /new}]
""",
    )
    for path, cache, frame in (
        ("/about.html", "max-age=300", "DENY"),
        ("/pool/a.deb", "max-age=2592000", "DENY"),
        ("/fonts/f.woff2", "max-age=31536000, immutable", None),
        ("/", "max-age=300", "SAMEORIGIN"),
        ("/index.html", "max-age=300", "DENY"),
        ("/app/", "no-cache", "DENY"),
        ("/old", "max-age=300", "DENY"),
    ):
        fields = server.ask(path).fields
        assert (fields.get("cache-control"), fields.get("x-frame-options")) == (cache, frame), path
    etag = server.ask("/pool/a.deb").fields["etag"]
    answer = server.ask("/pool/a.deb", fields=f"If-None-Match: {etag}\r\n")
    assert (answer.status, answer.fields["cache-control"]) == (304, "max-age=2592000")


def test_cors(public: Path) -> None:
    """https://fetch.spec.whatwg.org/#http-cors-protocol"""
    server = served(
        public,
        """
root: public
rules:
  - {match: "/fonts/**", cors: {}}
  - match: "/app/**"
    cors: {origin: "https://b.example", headers: [Range, X-A], expose: [ETag], credentials: true, max_age_s: 5}
""",
    )
    answer = server.ask("/fonts/f.woff2")
    assert answer.fields["access-control-allow-origin"] == "*"
    etag = answer.fields["etag"]
    for fields, status in ((f"If-None-Match: {etag}\r\n", 304), ("Range: bytes=0-1\r\n", 206)):
        answer = server.ask("/fonts/f.woff2", fields=fields)
        assert (answer.status, answer.fields["access-control-allow-origin"]) == (status, "*")
    answer = server.ask("/app/")
    assert answer.fields["access-control-allow-origin"] == "https://b.example"
    assert answer.fields["access-control-expose-headers"] == "ETag"
    assert answer.fields["access-control-allow-credentials"] == "true"
    answer = server.ask("/app/", "OPTIONS", fields="Origin: https://b.example\r\n")
    assert answer.status == 204
    assert answer.fields["access-control-allow-methods"] == "GET, HEAD"
    assert answer.fields["access-control-allow-headers"] == "Range, X-A"
    assert answer.fields["access-control-max-age"] == "5"
    assert answer.fields["allow"] == "GET, HEAD, OPTIONS"
    for method in ("GET", "OPTIONS"):
        assert "access-control-allow-origin" not in server.ask("/about.html", method).fields


def test_cors_of_a_site_is_on_its_errors(public: Path) -> None:
    """A script may read why its request failed."""
    server = served(public, "root: public\ncors: {}\n")
    for path in ("/none", "/about.html", "/app"):
        assert server.ask(path).fields["access-control-allow-origin"] == "*"


def test_listings(public: Path) -> None:
    (public / "pool" / "a.deb.gz").write_bytes(gzip.compress(b"a" * 3000, mtime=0))
    server = served(public, "root: public\nlisting: true\nindex: [index.html]\n")
    assert server.ask("/").body == b"home"
    assert server.ask("/app/").body == b"app"
    assert server.location("/pool") == (301, "/pool/")
    answer = server.ask("/pool/")
    page = answer.body.decode()
    assert (answer.status, answer.fields["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.fields["last-modified"]
    assert "Index of /pool/" in page
    assert '<a href="./a.deb">a.deb</a><td>3.0 kB<td>2001-09-09 01:46' in page
    assert '<a href="./b&amp;%3Cc%3E.txt">b&amp;&lt;c&gt;.txt</a>' in page
    assert '<a href="../">' in page
    for reference in re.findall(r'href="\./([^"]*)"', page):
        assert server.ask("/pool/" + reference.replace("&amp;", "&")).status == 200
    assert '<a href="./deep/">deep/</a>' in server.ask("/manual/").body.decode()
    assert server.ask("/manual/deep/").status == 200


def test_clean_urls(public: Path) -> None:
    server = served(public, "root: public\nclean_urls: true\n")
    assert server.ask("/about").body == b"about"
    assert server.ask("/about.html").body == b"about"
    assert server.ask("/manual/intro").body == b"intro"
    assert server.ask("/index").body == b"home"
    assert server.ask("/app").status == 301


def test_hot_files_come_first(public: Path) -> None:
    server = served(public, "root: public\nrules: [{match: /manual/intro.html, hot: true}]\n")
    image = Image.read(server.image).image
    response = image.responses[0]
    slot = image.frames[response.first_frame].slot
    assert slot == 0
    assert b"intro" in bytes(Image.read(server.image).data["slots"][:2048])


HEADERS = """
# a comment
/*
  X-Frame-Options: DENY
  X-Robots-Tag: nosnippet
/app/*
  ! X-Frame-Options
  Cache-Control: no-cache
/*.deb
  X-Deb: yes
  Link: <a>
  Link: <b>
/manual/:page
  Content-Type: text/x-manual
"""
REDIRECTS = """
# a comment
/home /            # back
/news/*  /manual/:splat  302
/about.html /index.html 301!
/fonts/f.woff2 /nowhere
/zone/* /404.html 404
/*  /app/index.html  200
"""


def test_a_folder_as_netlify_and_cloudflare_have_it(public: Path) -> None:
    """https://docs.netlify.com/manage/routing/redirects/overview/, ending with an application's fallback."""
    (public / "_headers").write_text(HEADERS)
    (public / "_redirects").write_text(REDIRECTS)
    (public / "404.html").write_text("lost")
    server = Server(public, public.parent / "x.img")
    assert server.location("/home") == (301, "/")
    assert server.location("/news/intro.html") == (302, "/manual/intro.html")
    assert server.location("/about.html") == (301, "/index.html")
    assert server.ask("/fonts/f.woff2").body == b"font"
    answer = server.ask("/zone/x")
    assert (answer.status, answer.body) == (404, b"lost")
    assert server.ask("/some/view").body == b"app"
    for path in ("/_headers", "/_redirects"):
        assert server.ask(path).body == b"app"
    fields = server.ask("/pool/a.deb").fields
    assert (fields["x-frame-options"], fields["x-deb"], fields["link"]) == ("DENY", "yes", "<a>, <b>")
    fields = server.ask("/app/index.html").fields
    assert "x-frame-options" not in fields
    assert (fields["cache-control"], fields["x-robots-tag"]) == ("no-cache", "nosnippet")
    assert server.ask("/manual/intro.html").fields["content-type"] == "text/x-manual; charset=utf-8"
    assert server.ask("/manual/deep/er.html").fields["content-type"] == "text/html; charset=utf-8"


def test_a_folder_with_its_404_page(public: Path) -> None:
    (public / "404.html").write_text("lost")
    answer = Server(public, public.parent / "x.img").ask("/none")
    assert (answer.status, answer.body) == (404, b"lost")


def test_imports_beside_a_manifest(public: Path) -> None:
    (public / "_redirects").write_text(
        "https://b.example/x /about.html\nhttp://B.example./old/* https://c.example/:splat 302!\n"
    )
    (public / "_headers").write_text("https://b.example/about.html\n  X-A: b\n")
    server = served(public, "root: public\nhosts: [b.example]\nimports: [public/_redirects, public/_headers]\n")
    assert server.location("/x", host="b.example") == (301, "/about.html")
    assert server.location("/old/a?b", host="b.example") == (302, "https://c.example/a?b")
    assert server.ask("/about.html", host="b.example").fields["x-a"] == "b"


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("[]", "'c.example' is one host, and this site is for any"),
        ("[b.example]", "'c.example' is not the host of this site (b.example)"),
        ("['*.example']", "'c.example' is not the host of this site (*.example)"),
        (
            "[b.example, c.example]",
            "'c.example' is one of several hosts of this site, and a line here is for all of them",
        ),
    ],
)
def test_lines_for_a_host_that_is_not_the_site_s(public: Path, hosts: str, expected: str) -> None:
    """They were dropped without a word, or counted for other hosts too."""
    (public / "_redirects").write_text("/a /about.html\nhttp://c.example/y  /about.html\n")
    (public / "_headers").write_text("/*\n  X-A: a\nhttps://c.example/*\n  X-B: b\n")
    imports = "imports: [public/_redirects, public/_headers]"
    text = f"sites: [{{hosts: [z.example], root: public/app}}, {{hosts: {hosts}, root: public, {imports}}}]\n"
    said = sscc("check", _manifest(public, text), status=1).stderr
    assert said.count(expected) == 2
    assert said.count("give that host a site of its own") == 2
    assert f"{public.name}/_redirects:2:1: " in said
    assert f"{public.name}/_headers:3:1: " in said


def test_a_host_in_a_folder_without_a_manifest(public: Path) -> None:
    """Cloudflare's own example is one."""
    (public / "_headers").write_text("https://:project.pages.dev/*\n  X-Robots-Tag: noindex\n")
    said = in_lines(sscc("check", public, status=1).stderr)
    assert "_headers:1:1: ':project.pages.dev' is one host, and this site is for any; take it out, or" in said


def test_a_byte_order_mark_is_no_text(public: Path) -> None:
    """What Windows' editors put in front; and their ends of lines."""
    (public / "_redirects").write_bytes(b"\xef\xbb\xbf/a /about.html\r\n/b /app/ 302\r\n")
    (public / "_headers").write_bytes(b"\xef\xbb\xbf/about.html\r\n  X-A: a\r\n")
    server = Server(public, public.parent / "x.img")
    assert server.location("/a") == (301, "/about.html")
    assert server.location("/b") == (302, "/app/")
    assert server.ask("/about.html").fields["x-a"] == "a"


def test_blocks_for_one_path_join_their_fields(public: Path) -> None:
    """https://developers.cloudflare.com/pages/configuration/headers/: values of a name, whatever its case, are one list."""
    (public / "_headers").write_text("""
/*
  X-A: one
  x-a: two
  X-Frame-Options: DENY
  Set-Cookie: a=1
  Vary-By: all
/manual/*
  X-a: three
  ! x-frame-options
  Set-Cookie: b=2; Path=/
/manual/intro*
  X-A: four
/manual/intro.html
  ! X-A
  X-A: five
""")
    text = "root: public\nimports: [public/_headers]\nheaders: {x-A: site, X-B: site}\n"
    server = served(public, text + "rules: [{match: '/app/**', headers: {X-A: rule}}]\nclean_urls: true\n")
    assert server.ask("/about.html").fields["x-a"] == "one, two"
    assert server.ask("/about.html").fields["x-frame-options"] == "DENY"
    fields = server.ask("/manual/deep/er.html").fields
    assert (fields["x-a"], fields["x-b"], fields.get("x-frame-options")) == ("one, two, three", "site", None)
    assert server.ask("/manual/deep/er.html").cookies == ["a=1", "b=2; Path=/"]
    assert server.ask("/manual/intro.html").fields["x-a"] == "five"
    assert server.ask("/app/").fields["x-a"] == "rule"
    assert server.ask("/manual/intro.html").fields["vary-by"] == "all"


def test_a_field_twice_in_one_map(public: Path) -> None:
    said = mistakes(public, "root: public\nheaders: {X-A: a, x-a: b}\n")
    assert any("the field x-a is there already, as X-A" in line for line in said), said
    said = mistakes(public, "root: public\nresponses: {/x: {headers: {X-A: a, x-a: b}}}\n")
    assert any("the field x-a is there already, as X-A" in line for line in said), said


EVERYWHERE = """
root: public
clean_urls: true
headers: {Strict-Transport-Security: max-age=1, X-Frame-Options: DENY, Content-Disposition: inline, Link: </a>}
cache: 1h
error_pages: {404: public/about.html}
redirects: [{from: /old, to: /new}, {from: "/tree/*", to: "https://b/:splat"}]
responses: {/gone: {status: 410}}
rules:
  - {match: "/**", headers: {X-Rule: all, Allow: GET}}
  - {match: "/app/**", headers: {X-App: app}}
"""


def test_a_site_s_fields_are_on_whatever_it_answers(public: Path) -> None:
    """HSTS holds from every answer, and a page of an error can be framed as any other; what is of a page stays with it."""
    server = served(public, EVERYWHERE)
    etag = server.ask("/about.html").fields["etag"]
    asked = [
        ("/none", "GET", "", 404),
        ("/none", "HEAD", "", 404),
        ("/about.html", "PATCH", "", 405),
        ("/about.html", "GET", "If-Match: x\r\n", 412),
        ("/about.html", "GET", "Range: bytes=90-\r\n", 416),
        ("/about.html", "GET", "Expect: x\r\n", 417),
        ("/../x", "GET", "", 400),
    ]
    for path, method, fields, status in asked:
        answer = server.ask(path, method, fields=fields)
        assert answer.status == status
        assert answer.fields["strict-transport-security"] == "max-age=1"
        assert (answer.fields["x-frame-options"], answer.fields["x-rule"]) == ("DENY", "all")
        assert not {"content-disposition", "link", "cache-control", "x-app"} & answer.fields.keys()
    assert server.ask("/about.html", "PATCH").fields["allow"] == "GET, HEAD, OPTIONS"
    for path, status in [("/old", 301), ("/tree/x", 301), ("/app", 301), ("/gone", 410), ("/about", 200)]:
        answer = server.ask(path)
        assert answer.status == status
        assert answer.fields["strict-transport-security"] == "max-age=1"
        assert answer.fields["cache-control"] == "max-age=3600"
    answer = server.ask("/about.html", fields=f"If-None-Match: {etag}\r\n")
    assert (answer.status, answer.fields["strict-transport-security"], answer.fields["link"]) == (
        304,
        "max-age=1",
        "</a>",
    )
    assert answer.fields["cache-control"] == "max-age=3600"
    assert not {"content-disposition", "content-type", "content-length"} & answer.fields.keys()


def test_the_fields_of_a_folder_without_a_manifest_are_on_its_errors(public: Path) -> None:
    (public / "_headers").write_text("/*\n  X-A: a\n  Cache-Control: no-store\n/b/*\n  X-A: b\n")
    answer = Server(public, public.parent / "x.img").ask("/b/none")
    assert (answer.status, answer.fields["x-a"], answer.fields.get("cache-control")) == (404, "a", None)


def test_a_host_that_is_another_s_gets_no_field_of_a_site(public: Path) -> None:
    """HSTS would hold for that name."""
    server = served(public, "sites: [{hosts: [b], root: public, headers: {Strict-Transport-Security: max-age=1}}]\n")
    answer = server.ask("/", host="a")
    assert (answer.status, answer.fields.get("strict-transport-security")) == (421, None)


def test_a_block_without_fields(public: Path) -> None:
    (public / "_headers").write_text("/a\n/b\n  X-A: a\n")
    said = sscc("check", public).stderr
    assert "_headers:1:1: warning: there is no field for '/a'" in said
    assert "no field for '/b'" not in said


@pytest.mark.parametrize("name", ["Basic-Auth", "basic-auth", "Authorization", "Cookie"])
@pytest.mark.parametrize("text", ["headers: {NAME: 'a:b'}", "rules: [{match: '**', headers: {NAME: 'a:b'}}]"])
def test_secrets_are_not_sent_to_everybody(public: Path, name: str, text: str) -> None:
    said = sscc("check", _manifest(public, f"root: public\n{text.replace('NAME', name)}\n"), status=1).stderr
    assert f"{name} is ".lower() in said.lower()
    assert "every" in said


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("_redirects", "\n/a\n", ":2:1: there is no target in this line; a line is '/from /to 301'"),
        ("_redirects", "/a 301\n", ":1:1: there is no target in this line"),
        ("_redirects", "a /b\n", ":1:1: 'a' is no path"),
        ("_redirects", "/a /b 302 Country=au\n", ":1:11: 'Country=au' depends on who asks"),
        ("_redirects", "/a /b 302 Language=de,en\n", ":1:11: 'Language=de,en' depends on who asks"),
        ("_redirects", "/a /b 200 Role=admin\n", ":1:11: 'Role=admin' depends on who asks"),
        ("_redirects", "/a /b 200 Cookie=is_staff\n", ":1:11: 'Cookie=is_staff' depends on who asks"),
        ("_redirects", "/a /b 200! signed=SECRET\n", ":1:12: 'signed=SECRET' is for requests that are handed on"),
        ("_redirects", "/a id=:id /b/:id\n", ":1:4: 'id=:id' depends on the request's query"),
        ("_redirects", "/a /b 999\n", ":1:7: 999 is no status"),
        ("_redirects", "/a /b 30\n", ":1:7: '30' is neither a path nor a status"),
        ("_redirects", "/a /b.html 200\n", ":1:1: nothing is served at '/b.html'"),
        ("_redirects", "/a/* https://b.example/:splat 200\n", ":1:6: requests are not handed on to other hosts"),
        ("_redirects", "/a https://b.example/ 404\n", ":1:4: requests are not handed on to other hosts"),
        ("_redirects", "/a/* /.netlify/functions/:splat 200\n", ":1:6: functions are run by Netlify alone"),
        ("_redirects", "/blog/:x https://b.example/:x\n", ":1:1: where 'https://b.example/:x' leads"),
        ("_redirects", "/blog/* https://b.example:splat\n", ":1:1: ':splat' stands behind a slash"),
        ("_redirects", "/*/x /b\n", ":1:1: an asterisk is the whole last segment"),
        ("_headers", "X: y\n", ":1:1: 'X: y' is no path"),
        ("_headers", "  X: y\n/a\n", ":1:3: a field before any path"),
        ("_headers", "/a\n  X\n", ":2:3: 'X' is no field"),
        ("_headers", "/a\n  ETag: x\n", ":2:3: ETag is set by sscc itself"),
        ("_headers", "/a/*\n  X: :splat\n", ":2:3: the value of X depends"),
        ("_headers", "/a/*/b/*\n  X: y\n", ":1:1: '/a/*/b/*' has more than one asterisk"),
        ("_headers", "/a\n  X Y: z\n", ":2:3: 'X Y' is no header field name"),
        ("_headers", "/a\n  X: \u20ac\n", ":2:3: the value of X is no printable ASCII"),
        ("_headers", "/a\n  ! X: y\n", ":2:3: 'X: y' is no name of a field"),
        (
            "_headers",
            "/a\n  X: y\n  Basic-Auth: me:secret\n",
            ":3:3: Basic-Auth is Netlify's way to ask for a password",
        ),
    ],
)
def test_mistakes_in_imports(public: Path, name: str, text: str, expected: str) -> None:
    (public / name).write_text(text)
    assert f"{name}{expected}" in in_lines(sscc("check", public, status=1).stderr)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("root: public\nhosts: [a b]\n", ":3:9: hosts: 'a b' is no host name"),
        ("root: public\nhosts: ['a:80']\n", "no scheme, port or path"),
        ("root: public\nsites: [{root: public}]\n", "another site answers for any other host already"),
        ("root: public\nhosts: [a]\nsites: [{hosts: [A], root: public}]\n", ":4:18: A is another site's already"),
        ("root: public\nsites: [{hosts: [b]}]\n", ":3:9: this site serves nothing"),
        ("root: public\nsites: [{hots: [b]}]\n", "did you mean 'hosts'?"),
        ("root: public\nredirects: [{from: /a, to: b}]\n", ":3:28: redirects.to: 'b' is no target"),
        ("root: public\nredirects: [{from: a, to: /b}]\n", "write '/a'"),
        ("root: public\nredirects: [{from: /a?b, to: /b}]\n", "a path has no query"),
        ("root: public\nredirects: [{from: '/a*', to: /b}]\n", "the whole last segment"),
        ("root: public\nredirects: [{from: /a, to: /a}]\n", "redirects to itself"),
        (
            "root: public\nredirects: [{from: /about.html, to: /b}]\n",
            ":3:13: there is a file for /about.html already; say 'force: true'",
        ),
        ("root: public\nredirects: [{from: '/a/:x', to: '/b/:y'}]\n", "':y' is not in '/a/:x'"),
        ("root: public\nredirects: [{from: '/a/:x/:y', to: '/b/:y'}]\n", "':x' is not in '/b/:y'"),
        ("root: public\nredirects: [{from: '/a/:x', to: '/b'}]\n", "write '/path/*'"),
        ("root: public\nredirects: [{from: '/*', to: '/none/:splat'}]\n", "nothing in this site is like"),
        ("root: public\nrewrites: {'/a/*': '/none/:splat'}\n", "nothing in this site is like"),
        ("root: public\nredirects: [{from: '/a/:x', to: 'http://b/:x'}]\n", "only a tree can go there"),
        ("root: public\nredirects: [{from: '/a/*', to: '/b?x=:splat'}]\n", "names stand in the path of"),
        ("root: public\nredirects: [{from: '/a/*', to: '/b:splat'}]\n", "':splat' stands behind a slash"),
        ("root: public\nredirects: [{from: '/a/*', to: 'http://b:splat'}]\n", "':splat' stands behind a slash"),
        ("root: public\nredirects: [{from: '/a/*', to: 'http://:splat'}]\n", "':splat' stands behind a slash"),
        ("root: public\nredirects: [{from: '/a/*', to: 'http:///:splat'}]\n", "':splat' stands behind a slash"),
        ("root: public\nredirects: [{from: /a, to: 'http://'}]\n", "'http://' is no address"),
        ("root: public\nredirects: [{from: /a, to: 'https:///b'}]\n", "'https:///b' is no address"),
        ("root: public\nredirects: [{from: /a, to: 'http://[::1/'}]\n", "'http://[::1/' is no address"),
        ("root: public\nredirects: [{from: /a, to: '//'}]\n", "'//' is no address"),
        ("root: public\nredirects: [{from: '/a/*', to: '//:splat'}]\n", "':splat' stands behind a slash"),
        ("root: public\nredirects: [{from: '/a/*', to: 'http://b.:splat/x'}]\n", "':splat' stands behind a slash"),
        (f"root: public\nredirects: [{{from: '/{'a' * 255}/*', to: /b}}]\n", "longer than 255 bytes"),
        (
            "root: public\nrewrites: {/a: /abuot.html}\n",
            ":3:16: nothing is served at '/abuot.html'; did you mean '/about.html'?",
        ),
        ("root: public\nrewrites: {/a: 'http://b'}\n", "write '/http://b'"),
        ("root: public\nfallback: /none\n", ":3:11: nothing is served at '/none'"),
        ("root: public\nresponses: {/a: {status: 206}}\n", "206 is none that an answer has by itself"),
        ("root: public\nresponses: {/a: {body: x, file: y}}\n", ":3:33: /a: a body and a file; keep one"),
        ("root: public\nresponses: {/a: {status: 204, body: x}}\n", "a 204 has no body"),
        ("root: public\nresponses: {/a: {file: none}}\n", "can't be read: No such file"),
        ("root: public\nresponses: {/about.html: {body: x}}\n", "there is a file for /about.html already"),
        ("root: public\ncache: soon\n", ":3:8: cache: 'soon' is no time; write one such as"),
        ("root: public\ncors: {origin: a}\n", "'a' is no origin; write '*', or one such as"),
        ("root: public\ncors: {credentials: true}\n", "cookies are for one origin by name"),
        ("root: public\nimports: [x]\n", ":3:11: x: only files named"),
        ("root: public\nimports: [_headers]\n", "_headers: can't be read"),
    ],
)
def test_mistakes(public: Path, text: str, expected: str) -> None:
    said = mistakes(public, text)
    assert any(expected in line for line in said), said


FILES_BELOW = "files in /manual/* go before this: /manual/deep/er.html and 1 more; say 'force: true'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("responses: {'/manual/*': {status: 403}}", f":3:26: {FILES_BELOW}"),
        ("redirects: [{from: '/manual/*', to: /}]", f":3:13: {FILES_BELOW}"),
        ("redirects: [{from: '/manual/*', to: 'https://b/:splat'}]", f":3:13: {FILES_BELOW}"),
        ("responses: {'/*': {status: 403}}", "files in /* go before this: / and "),
        (
            "redirects: [{from: '/:a', to: '/manual/:a'}]\nresponses: {/intro.html: {status: 410}}",
            "there is a response for",
        ),
        ("responses: {/a: {}}\nredirects: [{from: /a, to: /about.html}]", "there is a response for /a already"),
    ],
)
def test_files_that_would_go_before_an_answer(public: Path, text: str, expected: str) -> None:
    """The manual's own example of a tree that is refused served what was in it."""
    said = mistakes(public, f"root: public\n{text}\n")
    assert any(expected in line for line in said), said


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("responses: {'/manual/*': {status: 403, force: FORCE}}", 403),
        ("redirects: [{from: '/manual/*', to: 'https://b/:splat', force: FORCE}]", 301),
        ("redirects: [{from: '/manual/*', to: /, force: FORCE}]", 301),
    ],
)
@pytest.mark.parametrize("forced", [True, False])
def test_what_becomes_of_files_in_a_tree(public: Path, text: str, status: int, forced: bool) -> None:
    (public / "manual" / "index.html").write_text("manual")
    (public / "manual" / "intro.html.gz").write_bytes(gzip.compress(b"intro", mtime=0))
    text = text.replace("FORCE", str(forced).lower())
    server = served(public, f"root: public\nlisting: true\nclean_urls: true\nindex: [index.html]\n{text}\n")
    image = server.image.read_bytes()
    files = ["/manual/", "/manual/index.html", "/manual/intro.html", "/manual/intro", "/manual/deep/er.html"]
    files += ["/manual/intro.html.gz", "/manual/deep/", "/manual//intro.html", "/manual/../manual/%69ntro.html"]
    for path in files:
        fields = "Accept-Encoding: gzip\r\nIf-None-Match: *\r\n" if path.endswith("o.html") else ""
        wanted = status if forced else 304 if fields else 200
        assert server.ask(path, fields=fields).status == wanted, path
        assert server.ask(path, "HEAD").status == (status if forced else 200)
    assert server.ask("/manual/none").status == status
    assert server.ask("/manual").status == (status if forced else 301)
    assert (b"manual/intro.html" in image) != forced  # neither in a listing nor in the list of sources
    assert (b"manual/deep" in image) != forced
    assert server.ask("/about.html").body == b"about"


def test_a_tree_that_is_refused_but_for_some_of_it(public: Path) -> None:
    server = served(
        public,
        """
root: public
rewrites: {/manual/open: /about.html}
responses:
  "/manual/*": {status: 403, force: true}
  /manual/why: {body: because}
  /about.html: {status: 410, force: false}
  /app/index.html: {status: 410, force: true}
""",
    )
    assert server.ask("/manual/open").body == b"about"
    assert server.ask("/manual/why").body == b"because"
    assert server.ask("/manual/intro.html").status == 403
    assert server.ask("/about.html").body == b"about"
    assert server.ask("/app/index.html").status == 410
    assert server.ask("/app/").body == b"app"


def test_a_forced_line_of_redirects_takes_files_away(public: Path) -> None:
    """Without the mark they go before it, as Netlify has it; one page of an application may be among them."""
    (public / "_redirects").write_text(
        "/manual/* https://b/:splat 301!\n/app/* /app/index.html 200!\n/2024/* /b/:splat\n"
    )
    (public / "app" / "secret.txt").write_text("secret")
    server = Server(public, public.parent / "x.img")
    assert server.location("/manual/intro.html") == (301, "https://b/intro.html")
    assert server.ask("/app/secret.txt").body == b"app"
    assert server.ask("/app/index.html").body == b"app"
    assert server.ask("/app/").body == b"app"
    assert server.ask("/2024/old%20post.html").body == b"old post"
    assert server.location("/2024/none") == (301, "/b/none")
    assert b"secret" not in server.image.read_bytes()


def redirects(*lines: str) -> str:
    """Each is `FROM TO`, or `FROM TO force`."""
    words = [line.split() for line in lines]
    made = (f"  - {{from: '{each[0]}', to: '{each[1]}'{', force: true' * (len(each) - 2)}}}" for each in words)
    return "root: public\nredirects:\n" + "\n".join(made) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            redirects("/a /app/", "/b /", "/%61 /manual/deep/er.html"),
            ":6:5: '/%61' has a line already, in line 4; keep one",
        ),
        (redirects("/a/* /app/", "/a/* https://b/:splat"), ":5:5: '/a/*' has a line already"),
        (redirects("/a/:x /manual/:x", "/a/:y /app/:y"), ":5:5: '/a/:y' has a line already"),
        (redirects("/a /app/") + "rewrites: {/a: /about.html}", ":5:16: '/a' has a line already"),
        (redirects("/* https://b/:splat force") + "fallback: /about.html", "'/*' has a line already"),
        (redirects("/../a /app/"), ":4:5: '/../a' is never asked for, as dots are resolved"),
        (redirects("/a/./b /app/"), "is never asked for"),
        (redirects("/a/%2e%2E/b/* /app/"), "is never asked for"),
        (redirects("/a/%00 /app/"), "is never asked for, as a path with NUL"),
        (redirects("//a /app/"), ":4:5: '//a' is never asked for, as slashes in a row are one"),
        ("root: public\nresponses: {/a: {}, /%61: {}}", ":3:21: '/%61' has a response already, as '/a'"),
        ("root: public\nresponses: {'/a/../b': {status: 410}}", ":3:24: '/a/../b' is never asked for"),
        ("root: public\nrewrites: {'/a/..': /about.html}", "'/a/..' is never asked for"),
    ],
)
def test_lines_that_never_count(public: Path, text: str, expected: str) -> None:
    said = mistakes(public, text)
    assert any(expected in line for line in said), said


TWO_HOSTS = """
sites:
  - hosts: [a.example]
    root: public
    redirects: [{from: "/x/*", to: "http://www.a.example/:splat"}, {from: "/", to: "https://a.example/", force: true}]
  - hosts: [www.a.example]
    redirects: [{from: "/*", to: "http://A.example:80/x/:splat"}]
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            redirects("/a /b", "/b /c?q", "/c /a#x", "/d /a"),
            ":4:5: redirects in a circle: /a -> /b -> /c -> /a; let one",
        ),
        (redirects("/old/* /new/:splat", "/new/* /old/:splat"), "/old/:splat -> /new/:splat -> /old/:splat"),
        (redirects("/old/* /new/x", "/new/* /old/"), "in a circle: /new/x -> /old/ -> /new/x"),
        (redirects("/app/ /app force"), ":4:5: redirects in a circle: /app/ -> /app -> /app/"),
        (redirects("/docs/* /docs/"), "in a circle: /docs/ -> /docs/"),
        (redirects("/docs/* /docs"), "in a circle: /docs -> /docs"),
        (
            "hosts: [c.example]\n" + redirects("/x/* http://c.example/x/y/:splat"),
            ": /x/:splat -> /x/y/:splat -> /x/y/y/:splat",
        ),
        ("hosts: [c.example]\n" + redirects("/a http://c.example/b", "/b http://C.EXAMPLE/%61"), ": /a -> /b -> /a"),
        (redirects("/* /:splat"), "'/*' leads to itself"),
        (TWO_HOSTS, "/x/:splat -> http://www.a.example/:splat -> /x/:splat"),
    ],
)
def test_redirects_in_a_circle(public: Path, text: str, expected: str) -> None:
    """Told once, with the way; what only leads there is not told."""
    said = mistakes(public, text)
    assert sum("in a circle" in line or "to itself" in line for line in said) == 1, said
    assert any(expected in line for line in said), said


def test_redirects_that_only_look_like_a_circle(public: Path) -> None:
    """https is another server's; a tree that leads to its own beginning comes to an end."""
    text = """
sites:
  - hosts: [a.example]
    root: public
    redirects:
      - {from: "/*", to: "https://a.example/:splat", force: false}
      - {from: "/old/*", to: "/:splat"}
      - {from: "/deep/*", to: "/manual/deep/:splat"}
      - {from: "/x/:y", to: "/manual/:y"}
      - {from: "/x/%3A", to: "/"}
      - {from: "/a", to: "/app"}
"""
    done = sscc("check", _manifest(public, text))
    assert (done.stderr, done.exit_code) == ("", 0)


def test_lines_of_redirects_for_one_path(public: Path) -> None:
    """The first counts, as Netlify has it, which is a warning where the second says something else."""
    lines = ["/a /app/", "/b /about.html", "/a /about.html", "/b /about.html", "/c?x=1 /app/", "/c#x /app/"]
    (public / "_redirects").write_text("\n".join(lines[:4]))
    said = sscc("check", public).stderr
    assert "_redirects:3:1: warning: '/a' has a line already, in line 1" in said
    assert said.count("warning") == 1
    (public / "_redirects").write_text("\n".join(lines))
    said = sscc("check", public, status=1).stderr
    assert "_redirects:5:1: error: '/c?x=1' is never asked for" in said
    assert "_redirects:6:1: error: '/c#x' is never asked for" in said


def test_a_line_for_a_folder_goes_before_the_tree_s(public: Path) -> None:
    for lines in (["/a/* https://b/:splat", "/a /app/"], ["/a /app/", "/a/* https://b/:splat"]):
        server = served(public, redirects(*lines))
        assert server.location("/a") == (301, "/app/")
        assert server.location("/a/") == (301, "https://b/")
    server = served(public, redirects("/a /app/") + "responses: {'/a/*': {status: 403}}")
    assert server.location("/a") == (301, "/app/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "rules: [{match: '*.deb', cache: 1d}]",
            ":3:17: warning: '*.deb' matches nothing; did you mean '/**/*.deb'?",
        ),
        ("rules: [{match: 'fonts/*', cache: 1d}]", "did you mean '/fonts/*'?"),
        ("rules: [{match: '/fonts', cache: 1d}]", "did you mean '/fonts/**'?"),
        ("rules: [{match: '/fonts/', cache: 1d}]", "did you mean '/fonts/**'?"),
        ("rules: [{match: '/*.woff2', cache: 1d}]", "did you mean '/**/*.woff2'?"),
        ("rules: [{match: '/manual/*/*/*', cache: 1d}]", "did you mean '/manual/**"),
        ("rules: [{match: '/abuot.html', cache: 1d}]", "did you mean '/about.html'?"),
        ("rules: [{match: '/qqqq/**', cache: 1d}]", ":3:17: warning: '/qqqq/**' matches nothing"),
        (
            "sites: [{hosts: [b], root: public/app, rules: [{match: '/about.html'}]}]",
            ":3:56: warning: '/about.html' matches",
        ),
        (
            "redirects: [{from: /old, to: /abuot.html}]",
            ":3:13: warning: nothing is served at '/abuot.html'; did you mean",
        ),
        ("redirects: [{from: /old, to: /app/none?x#y}]", "nothing is served at '/app/none?x#y'"),
        (
            "redirects: [{from: '/old/*', to: '/manul/:splat'}]",
            ":3:13: warning: nothing is served at '/manul/:splat'",
        ),
    ],
)
def test_what_is_said_of_nothing_is_a_warning(public: Path, text: str, expected: str) -> None:
    source = _manifest(public, f"root: public\n{text}\n")
    said = in_lines(sscc("check", source).stderr)
    assert expected in said, said
    assert said.count("warning") == 1
    sscc("build", source, "-o", public.parent / "x.img")
    sscc("build", "--strict", source, "-o", public.parent / "y.img", status=1)
    assert not (public.parent / "y.img").exists()


def test_files_of_other_servers_that_are_not_imported(public: Path) -> None:
    """What they say counts for nothing, and everybody can read it."""
    (public / "_redirects").write_text("/a /about.html\n")
    (public / "app" / "_headers").write_text("/a\n  X: y\n")
    said = in_lines(sscc("check", _manifest(public, "root: public\n")).stderr)
    assert (
        "public/_redirects: warning: is not imported, and served as a file; write 'imports: [public/_redirects]'"
        in said
    )
    assert "_headers" not in said
    text = "roots: [{path: public, exclude: [_redirects]}, {path: public/app, at: /x}]\n"
    said = sscc("check", _manifest(public, text)).stderr
    assert "public/app/_headers: warning: is not imported" in said
    assert "_redirects" not in said
    assert sscc("check", _manifest(public, "root: public\nimports: [public/_redirects]\n")).stderr == ""
    assert sscc("check", public).stderr == ""


def test_blocks_of_headers_for_nothing(public: Path) -> None:
    (public / "_headers").write_text("/manual*\n  X: y\n/manul/intro.html\n  X: y\n")
    said = in_lines(sscc("check", public).stderr)
    assert "_headers:3:1: warning: '/manul/intro.html' matches nothing; did you mean '/manual/intro.html'?" in said
    assert said.count("warning") == 1


def test_a_rule_of_several_sites_is_for_one_of_them(public: Path) -> None:
    text = """
rules: [{match: "/deep/*", cache: 1d}, {match: "/none", cache: 1d}]
redirects: [{from: /x, to: https://b/}]
sites: [{hosts: [b], root: public/manual}, {hosts: [c], root: public/app}]
"""
    said = sscc("check", _manifest(public, text)).stderr
    assert said.count("warning") == 1
    assert ":3:48: warning: '/none' matches nothing" in said


def test_fields_that_leave_no_room_for_a_path(public: Path) -> None:
    redirects = "redirects: [{from: '/old/*', to: '/new/:splat'}]\n"
    said = sscc(
        "build", _manifest(public, f"headers: {{X: {'x' * 2048}}}\n{redirects}"), "-o", public / "x", status=1
    )
    assert "no room for paths" in said.stderr


def _manifest(public: Path, text: str) -> Path:
    source = public.parent / "site.yaml"
    source.write_text(f"version: 1\n{text}")
    return source


def test_all_mistakes_of_all_sites_at_once(public: Path) -> None:
    text = """
sites:
  - {hosts: [a], root: none}
  - {hosts: [b], root: public, fallback: /x, rewrites: {/a: /y}}
  - {hosts: [c], root: public, imports: [d]}
"""
    assert len(mistakes(public, text)) == 4


def test_the_schema_knows_the_language() -> None:
    schema = json.loads(sscc("schema").stdout)
    assert {"sites", "redirects", "responses", "fallback", "cors"} <= schema["properties"].keys()
    assert set(schema["$defs"]["Redirect"]["required"]) == {"from", "to"}


MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.mark.parametrize("path", sorted(MANIFESTS.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_good(path: Path) -> None:
    """Where they lie, and without a warning."""
    done = sscc("check", path, "--strict")
    assert (done.stdout, done.stderr) == (f"{path}: good\n", "")
