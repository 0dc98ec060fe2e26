"""Kernel clients in numbers: crowd.py HOST crowd COUNT holds COUNT connections and asks twice on each; crowd.py HOST
sequence COUNT opens one after the other. Ends with an error at the first that fails."""

from __future__ import annotations

import multiprocessing
import resource
import select
import socket
import sys
import threading

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
WAIT_S = 60
PROCESSES = 5


def whole(answer: bytes) -> bool:
    """All that Content-Length promises is there."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return len(body) == int(length.split(b":")[1])


def answers(sockets: dict[int, socket.socket]) -> None:
    """Asks on all, and reads until every answer is whole."""
    poll = select.epoll()
    waiting = {}
    for number, connection in sockets.items():
        connection.sendall(GET)
        poll.register(number, select.EPOLLIN)
        waiting[number] = b""
    while waiting:
        events = poll.poll(WAIT_S)
        assert events, f"{len(waiting)} wait for an answer"
        for number, _ in events:
            data = sockets[number].recv(65536)
            assert data, "closed without an answer"
            waiting[number] += data
            if whole(waiting[number]):
                del waiting[number]
                poll.unregister(number)
    poll.close()


def hold(host: str, count: int, together: threading.Barrier) -> None:
    """One process's part of the crowd."""
    sockets = {}
    for _ in range(count):
        connection = socket.create_connection((host, 80), WAIT_S)
        sockets[connection.fileno()] = connection
    for _ in range(2):
        together.wait(WAIT_S)
        answers(sockets)
    together.wait(WAIT_S)


def crowd(host: str, count: int) -> None:
    """In several processes, as each may have so many files only."""
    together = multiprocessing.Barrier(PROCESSES)
    parts = [
        multiprocessing.Process(target=hold, args=(host, count // PROCESSES, together)) for _ in range(PROCESSES)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    assert [part.exitcode for part in parts] == [0] * PROCESSES
    print(f"{count} served twice")


def sequence(host: str, count: int) -> None:
    for _ in range(count):
        with socket.create_connection((host, 80), WAIT_S) as connection:
            connection.sendall(CLOSE)
            answer = b""
            while data := connection.recv(65536):
                answer += data
            assert whole(answer), answer
    print(f"{count} served")


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    {"crowd": crowd, "sequence": sequence}[sys.argv[2]](sys.argv[1], int(sys.argv[3]))
