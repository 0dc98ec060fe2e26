"""Frames longer than a slot of the packet port's receive ring: a local client's kernel leaves its segments joined, and many
requests at once, or a body, come in one frame."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.host import build
from tests.net import serving

SEND = """
import json, socket, sys
host, count = sys.argv[1], int(sys.argv[2])
request = b"GET /a.txt HTTP/1.1\\r\\nHost: a\\r\\nX-Padding: " + b"x" * 100 + b"\\r\\n\\r\\n"
last = request.replace(b"\\r\\n\\r\\n", b"\\r\\nConnection: close\\r\\n\\r\\n")
data = b""
with socket.create_connection((host, 80), timeout=10) as connection:
    connection.sendall(request * (count - 1) + last)
    while piece := connection.recv(65536):
        data += piece
print(json.dumps([data.count(b"HTTP/1.1 200 OK"), data.count(b"the text")]))
"""
REQUESTS = 80


@pytest.mark.parametrize("backend", ["packet", "tap"])
def test_many_requests_in_one_frame(backend: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.txt").write_text("the text")
    image = build(tmp_path / "site", tmp_path / "site.img")
    with serving(image, backend) as running:
        done = running.client.run(sys.executable, "-c", SEND, running.hosts[0], str(REQUESTS))
        assert json.loads(done.stdout) == [REQUESTS, REQUESTS]
        assert running.stop() == 0
    counters = running.stopped["counters"]
    assert counters["http_requests"] == REQUESTS
    assert counters["port_rx_bytes"] / counters["tcp_rx_data"] > 2048  # so some were long
    assert "port_rx_dropped" not in counters
