"""The servers of others that ssrun is held against, each at its best: what was tried is beside what was kept.

nginx is installed; h2o and lighttpd are unpacked by .ci/setup. One that is not there is left out, and the page says so."""

from __future__ import annotations

import functools
from pathlib import Path

from tests.net import nginx_command, run, unpacked

MAX_CONNECTIONS = 16_384
FOR_EVER_S = 3_600  # longer than any reading: no connection is ended by a peer
# Of lighttpd: it keeps the number in 16 bits, and of a larger one what is left in them.
KEPT_REQUESTS = 65_535
# What an argument must be so that a server says its version and ends.
VERSIONS = {"nginx": "-v", "h2o": "--version", "lighttpd": "-v"}
NAMES = tuple(VERSIONS)
MISSING = "missing"

# sendfile is better on for long files and off for short ones; both are measured.
NGINX_HTTP = """
    sendfile {sendfile};
    tcp_nopush on;
    open_file_cache max=1000;
    keepalive_requests 1000000000;
"""
# Equal in CPU of a request: each file as a route of its own (file.file), and no ETag. h2o reads files (pread), it has no
# sendfile; which files are open it keeps by itself.
H2O = """
user: root
listen: {{host: 0.0.0.0, port: 80}}
num-threads: 1
max-connections: {connections}
http1-request-timeout: {for_ever_s}
http1-upgrade-to-http2: OFF
error-log: /dev/null
file.send-compressed: OFF
hosts: {{default: {{paths: {{/: {{file.dir: "{root}"}}}}}}}}
"""
# Worse: writev in sendfile's place (by a quarter at 1 KB, seven times at 1 MB), no cache of stat, no ETag.
LIGHTTPD = """
server.document-root = "{root}"
server.port = 80
server.modules = ()
server.event-handler = "linux-sysepoll"
server.network-backend = "sendfile"
server.stat-cache-engine = "simple"
server.max-worker = 0
server.max-fds = {files}
server.max-connections = {connections}
server.max-keep-alive-requests = {kept_requests}
server.max-keep-alive-idle = {for_ever_s}
server.max-read-idle = {for_ever_s}
server.max-write-idle = {for_ever_s}
server.feature-flags = ("server.h2proto" => "disable")
server.errorlog = "/dev/null"
"""


@functools.cache
def program(name: str) -> str | None:
    """Where a peer is, if it runs here."""
    return unpacked(name, VERSIONS[name])


def version(name: str) -> str:
    """What it says it is."""
    found = program(name)
    if found is None:
        return MISSING
    done = run(found, VERSIONS[name])
    return (done.stdout + done.stderr).strip().splitlines()[0]


def command(name: str, root: Path, folder: Path, cores: list[int], sendfile: str) -> list[str]:
    """What serves the files below root, a worker on each of the cores (h2o and lighttpd have one); folder takes what a
    server writes."""
    found = program(name)
    if found is None:
        raise FileNotFoundError(f"{name} is missing: .ci/setup unpacks it")
    if name == "nginx":
        masks = " ".join(f"{1 << core:b}" for core in cores)
        main = f"worker_cpu_affinity {masks}; worker_rlimit_nofile {4 * MAX_CONNECTIONS};"
        return nginx_command(root, folder, workers=len(cores), main=main, http=NGINX_HTTP.format(sendfile=sendfile))
    config = folder / f"{name}.conf"
    values = {"root": root, "connections": MAX_CONNECTIONS, "files": 4 * MAX_CONNECTIONS, "for_ever_s": FOR_EVER_S}
    values["kept_requests"] = KEPT_REQUESTS
    config.write_text({"h2o": H2O, "lighttpd": LIGHTTPD}[name].format(**values))
    if name == "h2o":
        return [found, "-c", str(config)]
    return [found, "-D", "-m", str(Path(found).parents[1] / "lib" / "lighttpd"), "-f", str(config)]
