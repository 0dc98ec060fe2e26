"""Sends requests as they are, each over a connection of its own: raw.py HOST FILE. FILE holds a JSON list of texts.

Prints a JSON list of what came back until the server closed, as Latin-1 text.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path


def ask(host: str, request: str) -> str:
    """One request's answer."""
    data = b""
    with socket.create_connection((host, 80), timeout=10) as connection:
        connection.sendall(request.encode("latin-1"))
        try:
            while piece := connection.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
    return data.decode("latin-1")


print(json.dumps([ask(sys.argv[1], request) for request in json.loads(Path(sys.argv[2]).read_text())]))
