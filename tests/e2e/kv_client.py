"""A client of memcached's protocol: kv_client.py get|set|raw HOST PORT FILE. Prints a JSON object or list.

get   pymemcache asks for each key of a JSON list, then for all at once, and tries to write.
set   pymemcache stores a JSON object of texts, Latin-1.
raw   FILE holds a JSON list of lists of texts, Latin-1: what is sent over a connection each, piece by piece. What came
      until the server closed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError

TIMEOUT_S = 10
PAUSE_S = 0.03  # so that each piece is a segment of its own

mode, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
given = json.loads(Path(sys.argv[4]).read_text())


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def get() -> dict[str, Any]:
    client = Client((host, port), timeout=TIMEOUT_S, no_delay=True)
    singly = {key: text(client.get(key)) for key in given}
    together = {key: text(value) for key, value in client.get_many(given).items()}
    refused = ""
    try:
        client.set("k", "v" * 5000, noreply=False)
    except MemcacheServerError as error:
        refused = str(error)
    again = text(client.get(given[0]))
    version = text(client.version())
    client.quit()
    return {"singly": singly, "together": together, "refused": refused, "again": again, "version": version}


def put() -> dict[str, bool]:
    client = Client((host, port), timeout=TIMEOUT_S)
    return {key: client.set(key, value.encode("latin-1"), noreply=False) for key, value in given.items()}


def raw(pieces: list[str]) -> str:
    data = b""
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):  # it may be refused before all is sent
            for piece in pieces:
                connection.sendall(piece.encode("latin-1"))
                time.sleep(PAUSE_S)
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(65536):
                data += more
    return data.decode("latin-1")


if mode == "raw":
    with ThreadPoolExecutor(32) as pool:
        print(json.dumps(list(pool.map(raw, given))))
else:
    print(json.dumps(get() if mode == "get" else put()))
