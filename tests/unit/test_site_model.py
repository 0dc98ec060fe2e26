"""Random manifests built by `sscc`, random requests to the core, compared with a slow reading of the manifest.

The reading looks at the manifest when a request comes, as a general server would, where the compiler expands patterns
beforehand: they share no code and no way of working.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tests.commands import sscc_here
from tests.host import Client, Host, Image

FILES = ["/index.html", "/a.html", "/d/index.html", "/d/b.html", "/d/e/c.txt", "/d e/f.html", "/g/h/i.html"]
HOSTS = ["a.example", "*.a.example", "b.example", "*.b.a.example"]
ASKED_HOSTS = ["a.example", "A.example:80", "x.a.example", "b.a.example", "x.b.a.example", "b.example", "c.example"]
FROM = ["/r", "/r/s", "/t/*", "/t/u/*", "/v/:x", "/w/:x/:y", "/z/*", "/d/b.html/x", "/g/*"]
TO = [
    "/a.html",
    "/d/",
    "/elsewhere?q#f",
    "https://o.example/x",
    "/:x",
    "/:x.html",
    "/d/:x",
    "/:x/:y",
    "/:splat",
    "/d/:splat",
]
PATHS = [
    "/",
    "/none",
    "/a",
    "/d",
    "/d/e",
    "/d/e/",
    "/d%20e/",
    "/g",
    "/g/h/",
    "/t",
    "/z/index.html",
    "/z/d/b.html",
    "/z/none",
]
PATHS += [
    "/v/a",
    "/v/a.html",
    "/v/d",
    "/v/b.html",
    "/w/d/b.html",
    "/t/u/index.html",
    "/t/u/x/",
    "/z/d/",
    "/z/",
    "/g/h/x",
]


@dataclass
class Site:
    """One site as it was drawn."""

    hosts: list[str]
    files: dict[str, str]
    redirects: list[dict[str, Any]] = field(default_factory=list)
    rewrites: dict[str, str] = field(default_factory=dict)
    responses: dict[str, dict[str, Any]] = field(default_factory=dict)
    fallback: str | None = None
    clean_urls: bool = False

    def document(self, root: str) -> dict[str, Any]:
        """For the manifest."""
        made = {"hosts": self.hosts, "root": root, "clean_urls": self.clean_urls, "responses": self.responses}
        made |= {"redirects": self.redirects, "rewrites": self.rewrites}
        return made | ({"fallback": self.fallback} if self.fallback else {})


Answer = tuple[int, str]  # status; the body, or a redirect's Location


def names_of(target: str) -> set[str]:
    return set(re.findall(r":(\w+)", target.replace("https:", "")))


def is_moved_tree(line: dict[str, Any]) -> bool:
    """Is it redirected whole, whether there is a target or not?"""
    return line["from"].endswith("/*") and names_of(line["from"]) == set() and names_of(line["to"]) == {"splat"}


def is_taken_away(site: Site, path: str, *, by_redirects: bool) -> bool:
    """Is a file in a tree whose answer says force?"""
    trees = [source for source, fixed in site.responses.items() if fixed.get("force")]
    trees += [line["from"] for line in site.redirects if line.get("force") and by_redirects]
    return any(tree.endswith("/*") and path.startswith(tree[:-1]) for tree in trees)


def own(site: Site, path: str, *, by_redirects: bool = True) -> Answer | None:
    """What files and folders answer. by_redirects: but for those that redirects take away, too."""
    if is_taken_away(site, path, by_redirects=by_redirects):
        return None
    if path in site.files:
        return 200, site.files[path]
    if path + "index.html" in site.files and path.endswith("/"):
        return 200, site.files[path + "index.html"]
    return None


def implied(site: Site, path: str, *, by_redirects: bool = True) -> Answer | None:
    """What gives way to what is said."""
    if is_taken_away(site, path, by_redirects=by_redirects):
        return None
    if path + "/index.html" in site.files:
        return 301, path.replace(" ", "%20") + "/"
    if site.clean_urls and path + ".html" in site.files and not path.endswith("/"):
        return 200, site.files[path + ".html"]
    return None


def before_lines(site: Site, path: str) -> Answer | None:
    """What a target of a line may be."""
    if path in site.responses:
        fixed = site.responses[path]
        return fixed["status"], fixed.get("body", "")
    found = own(site, path, by_redirects=False) or implied(site, path, by_redirects=False)
    return found or ((403, "no") if path + "/*" in site.responses else None)


def values(pattern: str, path: str) -> dict[str, str] | None:
    """A path as a pattern's names."""
    expression = re.sub(r":(\w+)", r"(?P<\1>[^/]+)", pattern.removesuffix("*")) + (
        "(?P<splat>.*)" if pattern.endswith("*") else ""
    )
    match = re.fullmatch(expression, path)
    return None if match is None else match.groupdict()


def by_pattern(site: Site, path: str) -> Answer | None:
    """Redirects with names: to what there is."""
    for line in site.redirects:
        found = values(line["from"], path)
        if not names_of(line["to"]) or found is None or is_moved_tree(line):
            continue
        target = re.sub(r":(\w+)", lambda match, found=found: found[match[1]], line["to"])
        answer = before_lines(site, target)
        if answer is not None and answer[0] // 100 != 3 and target != path:
            return line["status"], target.replace(" ", "%20")
    return None


def said(site: Site, path: str, splat: str = "") -> Answer | None:
    """Redirects and rewrites of just this path, or of this tree ("/t/*"). splat: what is behind the tree's."""
    for line in site.redirects:
        if line["from"] == path and (not names_of(line["to"]) or is_moved_tree(line)):
            return line["status"], line["to"].replace(":splat", splat.replace(" ", "%20"))
    if path in site.rewrites:
        return before_lines(site, site.rewrites[path])
    if path == "/*" and site.fallback:
        return before_lines(site, site.fallback)
    return None


def answer(site: Site, path: str) -> Answer:
    """What must come."""
    is_fixed = path in site.responses or (path + "/*" in site.responses and implied(site, path) is None)
    found = own(site, path) or (before_lines(site, path) if is_fixed else None)
    found = found or in_order(site, path) or implied(site, path)
    tree = path
    while found is None and "/" in tree:
        tree = tree[: tree.rindex("/")]
        found = site.responses.get(tree + "/*") and (403, "no")
        found = found or said(site, tree + "/*", path[len(tree) + 1 :])
    return found or (404, "")


def in_order(site: Site, path: str) -> Answer | None:
    """The first redirect that speaks of a path, a tree's speaking of its folder too; then rewrites."""
    for number in range(len(site.redirects)):
        one = Site(site.hosts, site.files, [site.redirects[number]], {}, site.responses, None, site.clean_urls)
        bare = said(one, path + "/*") if implied(site, path) is None else None
        found = said(one, path) or by_pattern(one, path) or bare
        if found:
            return found
    two = Site(site.hosts, site.files, [], site.rewrites, site.responses, None, site.clean_urls)
    bare = said(two, path + "/*") if path and implied(site, path) is None else None
    return said(two, path) or bare


def site_for(sites: list[Site], host: str) -> Site | None:
    """The name, then the longest wildcard, then the site without names."""
    name = host.lower().partition(":")[0]
    labels = name.split(".")
    for wanted in [name, *("*." + ".".join(labels[at:]) for at in range(1, len(labels)))]:
        for site in sites:
            if wanted in site.hosts:
                return site
    return next((site for site in sites if not site.hosts), None)


def draw_redirect(draw: Any, source: str, named: set[str]) -> dict[str, Any]:
    """A target has all names of its source or none; without any it stands for one path, or for a tree."""
    fitting = [to for to in TO if set(re.findall(r":(\w+)", to)) in (named, set())]
    fitting = [to for to in fitting if ":" in to.replace("https:", "") or not named - {"splat"}]
    status = draw(st.sampled_from([301, 302, 308]))
    line = {"from": source, "to": draw(st.sampled_from(fitting)), "status": status}
    return line | {"force": draw(st.booleans())}


def draw_line(draw: Any, site: Site, source: str, names: list[str]) -> None:
    """Says something of one path or pattern, where what is drawn can be said of it."""
    kind = draw(st.sampled_from(["redirect", "redirect", "redirect", "rewrite", "fixed"]))
    named = set(re.findall(r":(\w+)", source)) | ({"splat"} if source.endswith("*") else set())
    if kind == "redirect":
        site.redirects.append(draw_redirect(draw, source, named))
    elif kind == "rewrite" and not named - {"splat"}:
        site.rewrites[source] = draw(st.sampled_from(names))
    elif kind == "fixed" and not named:
        site.responses[source] = {"status": draw(st.sampled_from([200, 410])), "body": "fixed"}
    elif kind == "fixed" and named == {"splat"}:
        site.responses[source] = {"status": 403, "body": "no", "force": draw(st.booleans())}


@st.composite
def drawn_site(draw: Any, hosts: list[str]) -> Site:
    names = draw(st.lists(st.sampled_from(FILES), min_size=1, unique=True))
    site = Site(hosts, {name: f"{'/'.join(hosts)}{name}" for name in names})
    site.clean_urls = draw(st.booleans())
    sources = draw(st.lists(st.sampled_from(FROM), max_size=5, unique=True))
    for source in sources:
        draw_line(draw, site, source, names)
    if draw(st.booleans()):
        site.fallback = draw(st.sampled_from(names))
    # What is taken away is a mistake as a target.
    site.rewrites = {source: target for source, target in site.rewrites.items() if answers(site, target)}
    site.fallback = site.fallback if site.fallback and answers(site, site.fallback) else None
    site.redirects = [line for line in site.redirects if not is_idle(site, line)]
    return site


def is_idle(site: Site, line: dict[str, Any]) -> bool:
    """Names without a single target are a mistake, told by sscc: test_language.py."""
    targets = [*FILES, *(path.rpartition("/")[0] + "/" for path in FILES), *(path[:-5] for path in FILES)]
    targets += [path for path in FROM if path[-1] != "*"]
    wanted = [values(line["to"].replace(":splat", "*"), target) for target in targets if answers(site, target)]
    return bool(names_of(line["to"])) and not is_moved_tree(line) and not any(found is not None for found in wanted)


def answers(site: Site, path: str) -> bool:
    found = before_lines(site, path)
    return found is not None and found[0] // 100 != 3


@st.composite
def drawn_sites(draw: Any) -> list[Site]:
    names = draw(st.permutations(HOSTS))
    count = draw(st.integers(1, 3))
    groups: list[list[str]] = [[names[number]] for number in range(count)]
    groups[-1].append(names[3])
    if draw(st.booleans()):
        groups[0] = []
    return [draw(drawn_site(hosts)) for hosts in groups]


def built(sites: list[Site], folder: Path) -> Image:
    """By the compiler, from files."""
    documents = []
    for number, site in enumerate(sites):
        for name, text in site.files.items():
            path = folder / str(number) / name[1:]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        documents.append(site.document(str(number)))
    with (folder / "site.yaml").open("w") as file:
        YAML().dump({"version": 1, "sites": documents}, file)
    note((folder / "site.yaml").read_text())
    sscc_here("build", folder / "site.yaml", "-o", folder / "x.img")
    return Image.read(folder / "x.img")


def got(host: Host, port: int, name: str, path: str) -> Answer:
    client = Client(host, port=port)
    client.connect()
    client.request(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
    head, _, body = client.drain().decode().partition("\r\n\r\n")
    status = int(head.split()[1])
    location = re.search(r"\r\nLocation: *(\S+)", head)
    return status, location[1] if location else body if status != 404 else ""


@pytest.mark.long
@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(sites=drawn_sites(), data=st.data())
def test_a_manifest_is_answered_as_it_reads(sites: list[Site], data: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = Host(built(sites, Path(folder)))
    for port in range(40000, 40040):
        name = data.draw(st.sampled_from(ASKED_HOSTS))
        path = data.draw(
            st.sampled_from([*PATHS, *FILES, *(each.replace(":", "").replace("*", "k") for each in FROM)])
        )
        site = site_for(sites, name)
        expected = (421, None) if site is None else answer(site, path.replace("%20", " "))
        found = got(host, port, name, path.replace(" ", "%20"))
        assert found[0] == expected[0], (name, path, found, expected)
        assert expected[1] in (None, found[1]), (name, path, found, expected)
