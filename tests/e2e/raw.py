"""Sends requests as they are, each over a connection of its own: raw.py HOST FILE. FILE holds a JSON list of texts.

Prints a JSON list of what came back until the server closed, as Latin-1 text.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SILENCE_S = 6
STILL_OPEN = b"\r\nstill open"


def ask(request: str) -> str:
    """One request's answer."""
    data = b""
    with socket.create_connection((sys.argv[1], 80), timeout=SILENCE_S) as connection:
        with contextlib.suppress(ConnectionError):  # it may be refused before all is sent
            connection.sendall(request.encode("latin-1"))
        try:
            while piece := connection.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
        except TimeoutError:
            data += STILL_OPEN
    return data.decode("latin-1")


with ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(ask, json.loads(Path(sys.argv[2]).read_text())))))
