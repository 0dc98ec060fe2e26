"""Asks for the files of test_reload.py over and over, until its standard input ends, and says what it has seen: a program.

python versions.py HOST FILES CLIENTS
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import threading
from collections import Counter

LINE = re.compile(rb"version (\d+) file (\d+) line (\d+)\n")


def version_of(data: bytes, number: int) -> int | None:
    """Which version the whole of a file is; None: it is not one."""
    first = LINE.match(data)
    if first is None:
        return None
    version = int(first[1])
    lines = range(40 + 60 * number)
    wanted = b"".join(b"version %d file %d line %d\n" % (version, number, line) for line in lines)
    return version if data == wanted else None


class Client(threading.Thread):
    """One connection after the other, some requests on each."""

    def __init__(self, host: str, files: int, over: threading.Event) -> None:
        super().__init__()
        self.host, self.files, self.over = host, files, over
        self.versions: Counter[int] = Counter()
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.over.is_set():
            connection = http.client.HTTPConnection(self.host, timeout=30)
            try:
                for _ in range(20):
                    for number in range(self.files):
                        self.ask(connection, number)
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(repr(error))
            connection.close()

    def ask(self, connection: http.client.HTTPConnection, number: int) -> None:
        connection.request("GET", f"/{number}.txt")
        answer = connection.getresponse()
        data = answer.read()
        version = version_of(data, number) if answer.status == 200 else None
        if version is None:
            self.wrong.append(f"/{number}.txt: {answer.status}, {len(data)} bytes: {data[:80]!r}")
        else:
            self.versions[version] += 1


def main() -> None:
    host, files, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    over = threading.Event()
    all_of_them = [Client(host, files, over) for _ in range(clients)]
    for client in all_of_them:
        client.start()
    print("begun", flush=True)
    sys.stdin.read()
    over.set()
    seen: Counter[int] = Counter()
    for client in all_of_them:
        client.join()
        seen += client.versions
    print(json.dumps({"versions": seen, "wrong": [text for client in all_of_them for text in client.wrong][:10]}))


main()
