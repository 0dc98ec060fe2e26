"""What nginx, h2o, Caddy and ssrun answer to the same requests, and why ours differs where it does."""

from __future__ import annotations

from typing import Any, NamedTuple

DATE, BEFORE, AFTER = (f"Sun, 06 Nov 1994 08:49:{second} GMT" for second in (37, 36, 38))
WHOLE = "200 Content-Length=50"
NOT_ALLOWED = "405 Allow=GET, HEAD, OPTIONS"
UNSATISFIABLE = "416 Content-Range=bytes */50"


class Case(NamedTuple):
    """A request, all that we answer, and what those answer that answer otherwise."""

    request: str
    ours: str
    why: str
    theirs: dict[str, str]


def case(request: str, ours: str, why: str = "", **theirs: str) -> Case:
    return Case(request, ours, why, theirs)


def text(line: str, *fields: str, host: str | None = "Host: a", close: bool = True, body: str = "") -> str:
    """A request; by default it asks for the connection's end."""
    first = [line, *([host] if host else []), *(["Connection: close"] if close else [])]
    return "\r\n".join([*first, *fields, "", body])


def of(method: str, target: str, *fields: str, **how: Any) -> str:
    return text(f"{method} {target} HTTP/1.1", *fields, **how)


def get(*fields: str, target: str = "/a.txt", **how: Any) -> str:
    return of("GET", target, *fields, **how)


def accept(codings: str, target: str = "/c/t.txt") -> str:
    return get(f"Accept-Encoding: {codings}", target=target)


NEXT = get()  # the last on its connection
# TAG is the server's own entity tag of /a.txt. Where several answers came on a connection, all are listed.
CASES: dict[str, Case] = {
    "get": case(get(), WHOLE),
    "head": case(of("HEAD", "/a.txt"), WHOLE),
    "not found": case(get(target="/none"), "404"),
    "post": case(
        of("POST", "/a.txt", "Content-Length: 0"),
        NOT_ALLOWED,
        "RFC 9110 section 15.5.6: a 405 must say Allow; this Caddy looks at no method",
        nginx="405",
        h2o="405 Allow=GET, HEAD",
        caddy=WHOLE,
    ),
    "put": case(
        of("PUT", "/a.txt", "Content-Length: 0"),
        NOT_ALLOWED,
        "as with POST",
        nginx="405",
        h2o="405 Allow=GET, HEAD",
        caddy=WHOLE,
    ),
    "unknown method": case(
        of("BREW", "/a.txt"),
        "501",
        "RFC 9110 section 9.1: 501 for a method that is not recognized",
        nginx="405",
        h2o="405 Allow=GET, HEAD",
        caddy=WHOLE,
    ),
    "registered method": case(
        of("PROPFIND", "/a.txt"), NOT_ALLOWED, "as with POST", nginx="405", h2o="405 Allow=GET, HEAD", caddy=WHOLE
    ),
    "method in lower case": case(
        of("get", "/a.txt"),
        "501",
        "RFC 9110 section 9.1: methods are case-sensitive, so it is unknown",
        nginx="400",
        h2o="405 Allow=GET, HEAD",
        caddy=WHOLE,
    ),
    "options": case(
        of("OPTIONS", "/a.txt"),
        "204 Allow=GET, HEAD, OPTIONS",
        "RFC 9110 section 9.3.7: clients may ask what is allowed",
        nginx="405",
        h2o="405 Allow=GET, HEAD",
        caddy=WHOLE,
    ),
    "options of the server": case(
        of("OPTIONS", "*"),
        "204 Allow=GET, HEAD, OPTIONS",
        "RFC 9110 section 9.3.7: the asterisk is the server",
        nginx="400",
        h2o="404",
        caddy="200 Content-Length=0",
    ),
    "trace": case(
        of("TRACE", "/a.txt"), NOT_ALLOWED, "as with POST", nginx="405", h2o="405 Allow=GET, HEAD", caddy=WHOLE
    ),
    "connect": case(
        of("CONNECT", "a:80", host="Host: a:80"), NOT_ALLOWED, "as with POST", nginx="400", h2o="404", caddy="404"
    ),
    # Targets
    "query": case(get(target="/a.txt?x"), WHOLE),
    "absolute form": case(
        get(target="http://a/a.txt"), WHOLE, "RFC 9112 section 3.2.2: a server must accept it", h2o="404"
    ),
    "absolute form, other Host": case(get(target="http://b/a.txt"), WHOLE, "as above", h2o="404"),
    "absolute form, https": case(
        get(target="https://a/a.txt"),
        "421",
        "RFC 9110 section 7.4: must be refused where it did not come over a secured connection",
        nginx=WHOLE,
        h2o="404",
        caddy=WHOLE,
    ),
    "fragment behind a query": case(
        get(target="/a.txt?a#x"),
        "400",
        "RFC 9112 section 3.2: no target has one",
        nginx=WHOLE,
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "percent-encoded": case(get(target="/%61.txt"), WHOLE),
    "dot-segments": case(get(target="/sub/../a.txt"), WHOLE),
    "dot-segments encoded": case(get(target="/sub/%2e%2e/a.txt"), WHOLE),
    "above the root": case(
        get(target="/../a.txt"),
        "400",
        "RFC 3986 section 5.2.4 lets such segments go; nginx and we refuse what no link leads to",
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "above the root encoded": case(get(target="/%2e%2e/a.txt"), "400", "as above", h2o=WHOLE, caddy=WHOLE),
    "double slash": case(get(target="/sub//index.html"), "200 Content-Length=18"),
    "double slash in front": case(get(target="//a.txt"), WHOLE),
    "double slash encoded": case(get(target="/sub/%2findex.html"), "200 Content-Length=18"),
    "encoded slash": case(get(target="/sub%2findex.html"), "200 Content-Length=18"),
    "bad percent-encoding": case(get(target="/%zz"), "400", "no URI by RFC 3986 section 2.1", h2o="404"),
    "encoded NUL": case(
        get(target="/a.txt%00"),
        "400",
        "no file's name has it; h2o takes the name to end there",
        h2o=WHOLE,
        caddy="500",
    ),
    "fragment": case(
        get(target="/a.txt#x"),
        "400",
        "RFC 9112 section 3.2: no target has one, and an invalid request line is a 400",
        nginx=WHOLE,
        h2o="404",
        caddy="404",
    ),
    "byte beyond ASCII": case(get(target="/\xff"), "404"),
    "space in the target": case(get(target="/a .txt"), "400"),
    "asterisk with GET": case(
        get(target="*"), "400", "RFC 9112 section 3.2.4: the asterisk is for OPTIONS only", h2o="404", caddy="404"
    ),
    "no slash": case(get(target="a.txt"), "400", "RFC 9112 section 3.2: an invalid request line is a 400", h2o=WHOLE),
    "folder": case(get(target="/sub/"), "200 Content-Length=18"),
    "folder without its slash": case(
        get(target="/sub"),
        "301 Location=/sub/",
        "RFC 9110 section 10.2.2 allows a path alone, which holds behind any proxy",
        nginx="301 Location=http://a/sub/",
        caddy="308 Location=/sub/",
    ),
    "folder without its slash, with a query": case(
        get(target="/sub?a=b"),
        "301 Location=/sub/?a=b",
        "a path as above; this Caddy loses the query",
        nginx="301 Location=http://a/sub/?a=b",
        caddy="308 Location=/sub/",
    ),
    "file with a slash": case(get(target="/a.txt/"), "404"),
    "redirect in absolute form": case(
        get(target="http://b/sub"),
        "301 Location=/sub/",
        "as above",
        nginx="301 Location=http://b/sub/",
        h2o="404",
        caddy="308 Location=/sub/",
    ),
    # Connections
    "HTTP/1.0": case(text("GET /a.txt HTTP/1.0", host=None, close=False), WHOLE),
    "HTTP/1.2": case(text("GET /a.txt HTTP/1.2"), WHOLE),
    "HTTP/2.0": case(text("GET /a.txt HTTP/2.0"), "505", "RFC 9110 section 15.6.6", h2o="400"),
    "HTTP/0.9": case(
        "GET /a.txt\r\n", "400", "HTTP/0.9 is obsolete, RFC 1945 was the last to have it", nginx="a body"
    ),
    "pipelining": case(
        get(close=False) + get(target="/none", close=False) + NEXT,
        "200 Content-Length=50; 404; 200 Content-Length=50",
    ),
    "empty line before": case("\r\n" + get(), WHOLE, "RFC 9112 section 2.2: it should be ignored", caddy="400"),
    "empty line behind": case(
        get("Content-Length: 2", close=False, body="ab\r\n") + NEXT,
        f"{WHOLE}; {WHOLE}",
        "RFC 9112 section 2.2: it should be ignored",
        caddy=f"{WHOLE}; 400",
    ),
    "empty line behind, then idle": case(get("Content-Length: 2", close=False, body="ab\r\n"), WHOLE),
    "idle after an answer": case(get(close=False), WHOLE),
    "half a request": case(
        "GET /a.txt HTTP/1.1\r\nHost: a\r\n",
        "408",
        "RFC 9110 section 15.5.9: the client is told",
        nginx="nothing",
        h2o="nothing",
        caddy="nothing",
    ),
    "half a body": case(
        of("POST", "/a.txt", "Content-Length: 10", body="hello"),
        NOT_ALLOWED,
        "the answer does not wait for the body; h2o's does",
        nginx="405",
        h2o="nothing",
        caddy=WHOLE,
    ),
    # Bodies
    "body of a GET": case(
        get("Content-Length: 5", close=False, body="hello") + NEXT, "200 Content-Length=50; 200 Content-Length=50"
    ),
    "body of a POST": case(
        of("POST", "/a.txt", "Content-Length: 5", close=False, body="hello") + NEXT,
        "405 Allow=GET, HEAD, OPTIONS; 200 Content-Length=50",
        "as with POST",
        nginx="405; 200 Content-Length=50",
        h2o="405 Allow=GET, HEAD; 200 Content-Length=50",
        caddy="200 Content-Length=50; 200 Content-Length=50",
    ),
    "chunked body": case(
        get("Transfer-Encoding: chunked", close=False, body="5\r\nhello\r\n0\r\n\r\n") + NEXT,
        WHOLE,
        "RFC 9112 section 9.6 lets a server close instead of reading on; files need no bodies",
        nginx="200 Content-Length=50; 200 Content-Length=50",
        h2o="200 Content-Length=50; 200 Content-Length=50",
        caddy="200 Content-Length=50; 200 Content-Length=50",
    ),
    "body of 65,536 bytes": case(
        get("Content-Length: 65536", close=False, body="a" * 65_536) + NEXT,
        "200 Content-Length=50; 200 Content-Length=50",
    ),
    "body of 100,000 bytes": case(
        get("Content-Length: 100000", close=False, body="a" * 100_000) + NEXT,
        WHOLE,
        "as above, beyond 64 KB",
        nginx="200 Content-Length=50; 200 Content-Length=50",
        h2o="200 Content-Length=50; 200 Content-Length=50",
        caddy="200 Content-Length=50; 200 Content-Length=50",
    ),
    "body that waits for 100": case(
        get("Content-Length: 5", "Expect: 100-continue", close=False),
        WHOLE,
        "RFC 9110 section 10.1.1: the final answer may come instead; the body is not wanted",
        nginx="100; 200 Content-Length=50",
        h2o="100",
    ),
    "100-continue without a body": case(
        get("Expect: 100-continue", close=False) + NEXT,
        "200 Content-Length=50; 200 Content-Length=50",
        "RFC 9110 section 10.1.1: 100 may be left out where there is no body",
        nginx="100; 200 Content-Length=50; 200 Content-Length=50",
    ),
    "unknown expectation": case(
        get("Expect: x"),
        "417",
        "RFC 9110 section 10.1.1 allows both; what is not done is not passed over",
        nginx=WHOLE,
        h2o=WHOLE,
    ),
    # Ranges
    "range": case(get("Range: bytes=0-9"), "206 Content-Range=bytes 0-9/50 Content-Length=10"),
    "range to the end": case(get("Range: bytes=40-"), "206 Content-Range=bytes 40-49/50 Content-Length=10"),
    "suffix": case(get("Range: bytes=-5"), "206 Content-Range=bytes 45-49/50 Content-Length=5"),
    "suffix longer than the file": case(
        get("Range: bytes=-500"), "206 Content-Range=bytes 0-49/50 Content-Length=50"
    ),
    "suffix of nothing": case(
        get("Range: bytes=-0"),
        UNSATISFIABLE,
        "RFC 9110 section 14.1.2: such a suffix cannot be satisfied",
        caddy="206 Content-Range=bytes 50-49/50 Content-Length=0",
    ),
    "range beyond the end": case(get("Range: bytes=40-1000"), "206 Content-Range=bytes 40-49/50 Content-Length=10"),
    "range behind the end": case(get("Range: bytes=50-"), UNSATISFIABLE),
    "range reversed": case(
        get("Range: bytes=9-0"),
        WHOLE,
        "RFC 9110 section 14.2: invalid, may be ignored",
        nginx=UNSATISFIABLE,
        h2o=UNSATISFIABLE,
        caddy="416",
    ),
    "range malformed": case(
        get("Range: bytes=x"),
        WHOLE,
        "RFC 9110 section 14.2: invalid, may be ignored",
        nginx=UNSATISFIABLE,
        h2o=UNSATISFIABLE,
        caddy="416",
    ),
    "range of another unit": case(
        get("Range: lines=0-1"),
        WHOLE,
        "RFC 9110 section 14.2: an unknown unit must be ignored",
        h2o=UNSATISFIABLE,
        caddy="416",
    ),
    "range unit in capitals": case(
        get("Range: BYTES=0-9"),
        "206 Content-Range=bytes 0-9/50 Content-Length=10",
        "RFC 9110 section 14.1: in any case",
        h2o=UNSATISFIABLE,
        caddy="416",
    ),
    "range of a HEAD": case(
        of("HEAD", "/a.txt", "Range: bytes=0-9"),
        WHOLE,
        "RFC 9110 section 14.2: Range must be ignored with methods other than GET",
        nginx="206 Content-Range=bytes 0-9/50 Content-Length=10",
        h2o="206 Content-Range=bytes 0-9/50 Content-Length=10",
        caddy="206 Content-Range=bytes 0-9/50 Content-Length=10",
    ),
    "range of an empty file": case(
        get("Range: bytes=0-", target="/empty.txt"),
        "200 Content-Length=0",
        "RFC 9110 section 14.2 lets a server ignore Range; all of nothing is what is asked for",
        h2o="416 Content-Range=bytes */0",
        caddy="416 Content-Range=bytes */0",
    ),
    "two ranges": case(get("Range: bytes=0-0,5-5"), "206 Content-Length=2 parts"),
    "two ranges, one behind the end": case(
        get("Range: bytes=0-0,50-"), "206 Content-Range=bytes 0-0/50 Content-Length=1"
    ),
    "ranges of more than the file": case(
        get("Range: bytes=0-,0-"),
        WHOLE,
        "RFC 9110 section 14.2: ranges that overlap may be ignored",
        h2o="206 Content-Length=2 parts",
    ),
    "seventeen ranges": case(
        get("Range: bytes=" + ",".join(f"{at}-{at}" for at in range(0, 34, 2))), "206 Content-Length=17 parts"
    ),
    "a range seventeen times": case(
        get("Range: bytes=" + ",".join(["0-0"] * 17)),
        "206 Content-Range=bytes 0-0/50 Content-Length=1",
        "RFC 9110 section 15.3.7.2: what overlaps may be one",
        nginx="206 Content-Length=17 parts",
        h2o="206 Content-Length=17 parts",
        caddy="206 Content-Length=17 parts",
    ),
    "if-range, tag": case(
        get("Range: bytes=0-9", "If-Range: TAG"), "206 Content-Range=bytes 0-9/50 Content-Length=10"
    ),
    "if-range, weak tag": case(
        get("Range: bytes=0-9", "If-Range: W/TAG"),
        WHOLE,
        "RFC 9110 section 13.1.5: the comparison is strong; h2o does not look at If-Range",
        h2o="206 Content-Range=bytes 0-9/50 Content-Length=10",
    ),
    "if-range, other tag": case(
        get("Range: bytes=0-9", 'If-Range: "x"'),
        WHOLE,
        "RFC 9110 section 13.1.5: the whole file, as the parts would be of another",
        h2o="206 Content-Range=bytes 0-9/50 Content-Length=10",
    ),
    "if-range, date": case(
        get("Range: bytes=0-9", f"If-Range: {DATE}"), "206 Content-Range=bytes 0-9/50 Content-Length=10"
    ),
    "if-range, later date": case(
        get("Range: bytes=0-9", f"If-Range: {AFTER}"),
        WHOLE,
        "RFC 9110 section 13.1.5: the date must match exactly",
        h2o="206 Content-Range=bytes 0-9/50 Content-Length=10",
    ),
    "a thousand ranges": case(
        get("Range: bytes=" + ",".join(["0-0"] * 1000), target="/c/t.txt"),
        "200 Content-Length=2000 Vary=Accept-Encoding",
        "as above",
        nginx="206 Content-Length=1000 parts Vary=Accept-Encoding",
        h2o="206 Content-Length=1000 parts Vary=Accept-Encoding",
        caddy="206 Content-Length=1000 parts",
    ),
    "Accept-Ranges of a 200": case(get(), "200 Accept-Ranges=bytes"),
    "Accept-Ranges of a 206": case(
        get("Range: bytes=0-9"),
        "206 Accept-Ranges=bytes",
        "RFC 9110 section 14.3 allows it on any answer",
        nginx="206",
        h2o="206",
    ),
    "Accept-Ranges of a 304": case(get("If-None-Match: TAG"), "304"),
    "Accept-Ranges of a 416": case(get("Range: bytes=50-"), "416"),
    "Accept-Ranges of a 404": case(get(target="/none"), "404"),
    # Conditions
    "if-match": case(get("If-Match: TAG"), WHOLE),
    "if-match, weak": case(
        get("If-Match: W/TAG"),
        "412",
        "RFC 9110 section 13.1.1: the comparison is strong; h2o does not look at If-Match",
        h2o=WHOLE,
    ),
    "if-match, other": case(get('If-Match: "x"'), "412", "RFC 9110 section 13.1.1", h2o=WHOLE),
    "if-match, any": case(get("If-Match: *"), WHOLE),
    "if-match, two lines": case(
        get("If-Match: TAG", 'If-Match: "x"'), WHOLE, "RFC 9110 section 5.3: lines make one list", nginx="400"
    ),
    "if-unmodified-since, before": case(
        get(f"If-Unmodified-Since: {BEFORE}"), "412", "RFC 9110 section 13.1.4; h2o does not look at it", h2o=WHOLE
    ),
    "if-unmodified-since, same": case(get(f"If-Unmodified-Since: {DATE}"), WHOLE),
    "if-match before if-unmodified-since": case(
        get("If-Match: TAG", f"If-Unmodified-Since: {BEFORE}"),
        WHOLE,
        "RFC 9110 section 13.2.2: If-Unmodified-Since is not looked at beside If-Match",
        nginx="412",
    ),
    "if-none-match": case(get("If-None-Match: TAG"), "304"),
    "if-none-match, weak": case(
        get("If-None-Match: W/TAG"),
        "304",
        "RFC 9110 section 13.1.2: the comparison is weak; h2o compares the whole field",
        h2o=WHOLE,
    ),
    "if-none-match, list": case(
        get('If-None-Match: "x", TAG'), "304", "RFC 9110 section 13.1.2: any tag of the list", h2o=WHOLE
    ),
    "if-none-match, two lines": case(
        get("If-None-Match: TAG", 'If-None-Match: "x"'),
        "304",
        "RFC 9110 section 5.3: lines make one list",
        nginx="400",
    ),
    "if-none-match, any": case(get("If-None-Match: *"), "304", "RFC 9110 section 13.1.2: any tag at all", h2o=WHOLE),
    "if-modified-since, same": case(get(f"If-Modified-Since: {DATE}"), "304"),
    "if-modified-since, after": case(
        get(f"If-Modified-Since: {AFTER}"),
        "304",
        "RFC 9110 section 13.1.3; nginx compares exactly by default",
        nginx=WHOLE,
    ),
    "if-modified-since, before": case(get(f"If-Modified-Since: {BEFORE}"), WHOLE),
    "if-modified-since in RFC 850's form": case(
        get("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT"),
        "304",
        "RFC 9110 section 5.6.7: all three forms must be accepted",
        h2o=WHOLE,
    ),
    "if-modified-since in asctime's form": case(
        get("If-Modified-Since: Sun Nov  6 08:49:37 1994"), "304", "as above", h2o=WHOLE
    ),
    "if-none-match before if-modified-since": case(get('If-None-Match: "x"', f"If-Modified-Since: {DATE}"), WHOLE),
    "304 before 206": case(get("If-None-Match: TAG", "Range: bytes=0-9"), "304"),
    "if-match, not found": case(get("If-Match: *", target="/none"), "404"),
    "tag of other content": case(
        get("If-None-Match: TAG", target="/other.txt"),
        WHOLE,
        "RFC 9110 section 8.8.3: a tag is of one content; theirs is of its time and size",
        nginx="304",
        h2o="304",
        caddy="304",
    ),
    "tag of the same content": case(
        get("If-None-Match: TAG", target="/copied.txt"),
        "304",
        "ours is of the content, so a copy has it too",
        nginx=WHOLE,
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    # Encodings
    "identity": case(
        get(target="/c/t.txt"),
        "200 Content-Length=2000 Vary=Accept-Encoding",
        "RFC 9110 section 12.5.5: the answer would be another with another Accept-Encoding",
        caddy="200 Content-Length=2000",
    ),
    "gzip": case(accept("gzip"), "200 Content-Length=40 Content-Encoding=gzip Vary=Accept-Encoding"),
    "brotli": case(
        accept("br"),
        "200 Content-Length=16 Content-Encoding=br Vary=Accept-Encoding",
        "nginx has gzip only",
        nginx="200 Content-Length=2000 Vary=Accept-Encoding",
    ),
    "zstd": case(
        accept("zstd"),
        "200 Content-Length=22 Content-Encoding=zstd Vary=Accept-Encoding",
        "nginx and h2o have none",
        nginx="200 Content-Length=2000 Vary=Accept-Encoding",
        h2o="200 Content-Length=2000 Vary=Accept-Encoding",
    ),
    "all codings": case(
        accept("gzip, br, zstd"),
        "200 Content-Length=16 Content-Encoding=br Vary=Accept-Encoding",
        "of equal weights we take the smallest, Caddy the first of its configuration",
        nginx="200 Content-Length=40 Content-Encoding=gzip Vary=Accept-Encoding",
        caddy="200 Content-Length=22 Content-Encoding=zstd Vary=Accept-Encoding",
    ),
    "gzip with a weight of nothing": case(
        accept("gzip;q=0"),
        "200 Content-Length=2000 Vary=Accept-Encoding",
        "as with identity",
        caddy="200 Content-Length=2000",
    ),
    "codings in two lines": case(
        get("Accept-Encoding: gzip", "Accept-Encoding: x", target="/c/t.txt"),
        "200 Content-Length=40 Content-Encoding=gzip Vary=Accept-Encoding",
    ),
    "any coding": case(
        accept("*"),
        "200 Content-Length=16 Content-Encoding=br Vary=Accept-Encoding",
        "RFC 9110 section 12.5.3: the asterisk is any coding that is not named",
        nginx="200 Content-Length=2000 Vary=Accept-Encoding",
        h2o="200 Content-Length=2000 Vary=Accept-Encoding",
        caddy="200 Content-Length=2000",
    ),
    "gzip before brotli": case(
        accept("gzip, br;q=0.5"), "200 Content-Length=40 Content-Encoding=gzip Vary=Accept-Encoding"
    ),
    "identity refused": case(
        accept("identity;q=0", "/a.txt"),
        "406 Vary=Accept-Encoding",
        "RFC 9110 section 12.5.3 allows both; who refuses the file is told so",
        nginx=WHOLE,
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "identity refused, gzip": case(
        accept("identity;q=0, gzip"), "200 Content-Length=40 Content-Encoding=gzip Vary=Accept-Encoding"
    ),
    "not modified, with variants": case(
        get(f"If-Modified-Since: {DATE}", target="/c/t.txt"),
        "304 Vary=Accept-Encoding",
        "RFC 9110 section 15.4.5: Vary goes with a 304 too",
        caddy="304",
    ),
    "range of gzip": case(
        get("Accept-Encoding: gzip", "Range: bytes=0-9", target="/c/t.txt"),
        "206 Content-Range=bytes 0-9/40 Content-Length=10 Content-Encoding=gzip Vary=Accept-Encoding",
        "RFC 9110 section 14.2: ranges are of the coded file; nginx has none there",
        nginx="200 Content-Length=40 Content-Encoding=gzip Vary=Accept-Encoding",
    ),
    "gzip, HEAD": case(
        of("HEAD", "/c/t.txt", "Accept-Encoding: gzip"),
        "200 Content-Length=40 Content-Encoding=gzip Vary=Accept-Encoding",
        "RFC 9110 section 9.3.2: as with GET",
        caddy="200 Content-Encoding=gzip Vary=Accept-Encoding",
    ),
    "x-gzip": case(
        accept("x-gzip"),
        "200 Content-Length=40 Content-Encoding=gzip Vary=Accept-Encoding",
        "RFC 9110 section 8.4.1.3: the same as gzip",
        nginx="200 Content-Length=2000 Vary=Accept-Encoding",
        h2o="200 Content-Length=2000 Vary=Accept-Encoding",
        caddy="200 Content-Length=2000",
    ),
    # Syntax
    "bare LF": case(
        get().replace("\r\n", "\n"),
        "400",
        "RFC 9112 section 2.2 allows both; what proxies read in different ways is refused",
        nginx=WHOLE,
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "bare CR in a field": case(get("X: a\rb"), "400"),
    "NUL in a field": case(get("X: a\0b"), "400"),
    "DEL in a field": case(get("X: a\x7fb"), "400", "RFC 9110 section 5.5: no part of a value", nginx=WHOLE),
    "control character in a field": case(get("X: a\x01b"), "400", "as above", nginx=WHOLE),
    "folded field": case(
        get("X: a\r\n b"),
        "400",
        "RFC 9112 section 5.2: a server must refuse it or put spaces in its place",
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "space before the colon": case(get("X : a"), "400"),
    "line without a colon": case(get("X"), "400", "no field by RFC 9112 section 5", nginx=WHOLE),
    "two spaces in the request line": case(
        text("GET  /a.txt HTTP/1.1"), "400", "RFC 9112 section 3: single spaces; readers may be lenient", nginx=WHOLE
    ),
    "no Host": case(get(host=None), "400", "RFC 9112 section 3.2: must be a 400", h2o=WHOLE),
    "two Hosts": case(get("Host: b"), "400", "RFC 9112 section 3.2: must be a 400", h2o=WHOLE),
    "empty Host": case(
        get(host="Host:"), WHOLE, "RFC 9112 section 3.2: empty where the target has no authority", nginx="400"
    ),
    "space in Host": case(
        get(host="Host: a b"), "400", "RFC 9112 section 3.2: a wrong Host must be a 400", h2o=WHOLE
    ),
    "bad percent-encoding in Host": case(
        get(host="Host: a%zz"),
        "400",
        "RFC 9112 section 3.2: a wrong Host must be a 400",
        nginx=WHOLE,
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "IPv6 address that is none in Host": case(
        get(host="Host: [4712::abcd::]"), "400", "as above", nginx=WHOLE, h2o=WHOLE, caddy=WHOLE
    ),
    "later IP literal in Host": case(get(host="Host: [v1.a]"), WHOLE),
    "Content-Length with zeros in front": case(
        get("Content-Length: 0000000000000000000000000000005", body="hello"),
        WHOLE,
        "RFC 9110 section 8.6: any number of digits",
        h2o="400",
    ),
    "Content-Length twice, the same": case(
        get("Content-Length: 0", "Content-Length: 0"),
        "400",
        "RFC 9110 section 8.6: may be refused",
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "Content-Length twice, different": case(
        get("Content-Length: 0", "Content-Length: 1", body="a"),
        "400",
        "RFC 9112 section 6.3: must be a 400",
        h2o=WHOLE,
    ),
    "Content-Length with a sign": case(get("Content-Length: +0"), "400"),
    "Content-Length with chunks": case(
        get("Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n"),
        "400",
        "RFC 9112 section 6.1: an attempt at smuggling, may be refused",
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "unknown transfer coding": case(
        get("Transfer-Encoding: x", body="0\r\n\r\n"),
        "400",
        "RFC 9112 section 6.3: where the last coding is not chunked it must be a 400",
        nginx="501",
        caddy="501",
    ),
    "TLS": case("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
    # Sizes
    "path of 3,000 bytes": case(get(target="/a" * 1_500), "404"),
    "path of 12,000 bytes": case(
        get(target="/a" * 6_000),
        "414",
        "RFC 9112 section 3: 414; h2o and Caddy ask the system for the file",
        h2o="403",
        caddy="500",
    ),
    "path of 40,000 bytes": case(get(target="/a" * 20_000), "414", "as above", h2o="403", caddy="500"),
    "field of 12,000 bytes": case(get("X: " + "a" * 12_000), WHOLE, "nginx's limit is 8 KB for a line", nginx="400"),
    "fields of 20,000 bytes": case(
        get(*(f"X-{i}: {'a' * 1000}" for i in range(20))),
        "431",
        "RFC 6585 section 5; the limit is ours",
        nginx=WHOLE,
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "fields of 80,000 bytes": case(
        get(*(f"X-{i}: {'a' * 1000}" for i in range(80))),
        "431",
        "as above; nginx says 400",
        nginx="400",
        h2o=WHOLE,
        caddy=WHOLE,
    ),
    "fields of 2,000,000 bytes": case(
        get(*(f"X-{i}: {'a' * 1000}" for i in range(2000))), "431", "as above", nginx="400", h2o="400"
    ),
    "two hundred fields": case(get(*(f"X-{i}: a" for i in range(200))), WHOLE, "h2o takes a hundred", h2o="400"),
}
