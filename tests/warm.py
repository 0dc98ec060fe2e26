"""Runs `python -m MODULE ...` in a process of its own, forked from one that has imported what it needs: most of the time
of a short command goes into its imports, and the tests have hundreds of them.

The command has its own arguments, environment, folder and streams, and nothing of the test's process. What it can't have is
an environment that Python itself reads when it starts: with one of those, and wherever a test sends signals or looks at
how a process starts, it is a fresh one.

As a program: python tests/warm.py FD, the server that forks. It ends when the socket FD is closed.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

PACKAGES = ("ssimage", "sscc", "ssrun")
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_")
REQUEST_BYTES = 1 << 18
TIMEOUT_S = 120


class Server:
    """The process that forks, from its first use until the end of the tests."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # In a session of its own, so that Ctrl-C ends the tests and their fixtures have the commands for cleaning up.
            words = [sys.executable, __file__, str(theirs.fileno())]
            subprocess.run(words, pass_fds=[theirs.fileno()], start_new_session=True, check=True)

    def run(self, module: str, words: list[str], env: dict[str, str], folder: str, *streams: int) -> int:
        """The exit status of a command to its end, negative after a signal, as subprocess has it."""
        request = json.dumps([module, words, env, folder]).encode("utf-8", "surrogateescape")
        assert len(request) < REQUEST_BYTES, "too long a command line"
        answer, theirs = os.pipe()
        try:
            socket.send_fds(self.ours, [request], [*streams, theirs])
        finally:
            os.close(theirs)
        with os.fdopen(answer) as status:
            return int(status.read())


SERVERS: dict[int, Server] = {}  # by process, as a fork of ours must not share one


def run(
    module: str, *words: str | bytes | Path, env: dict[str, str] | None = None, cwd: str | Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A command to its end, and what it wrote. It reads nothing."""
    env = dict(os.environ) if env is None else env
    names = {name for name in env.keys() | os.environ.keys() if name.startswith(READ_AT_START)}
    command = [sys.executable, "-m", module, *map(os.fsdecode, words)]
    if any(env.get(name) != os.environ.get(name) for name in names):
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=env, cwd=cwd, timeout=TIMEOUT_S
        )
    server = SERVERS.get(os.getpid())
    if server is None:
        server = SERVERS[os.getpid()] = Server()
    with open(os.devnull) as nothing, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        files = (nothing, output, errors)
        status = server.run(
            module, command[3:], env, os.fspath(cwd or os.getcwd()), *(file.fileno() for file in files)
        )
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(command, status, *texts)


def warm_up() -> None:
    """Imports all that a command may import, but runs nothing: the command's own module is run again as the program."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not found.name.endswith(".__main__"):
                importlib.import_module(found.name)
    for name in ("concurrent.futures.process", "lz4.frame", "rich.progress"):
        importlib.import_module(name)
    for module in [*sys.modules.values()]:
        vars(module)  # which runs one that waits for its first use
    gc.freeze()


def become(module: str, words: list[str], env: dict[str, str], folder: str, streams: list[int]) -> None:
    """Makes a forked process what `python -m MODULE WORDS` is when it begins."""
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = [module, *words]  # runpy names the file
    sys.path[0] = folder
    mode: dict[str, Any] = {"encoding": sys.stdout.encoding, "closefd": False}
    sys.stdin = sys.__stdin__ = os.fdopen(0, **mode)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", errors=sys.stdout.errors, **mode)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", errors="backslashreplace", buffering=1, **mode)  # type: ignore[misc]
    sys.modules.pop(module, None)


def serve(requests: socket.socket) -> tuple[str, list[str], dict[str, str], str, list[int]]:
    """Forks for each request, and says how each ended. Returns in a new process only: what that is to become."""
    running: dict[int, tuple[int, int]] = {}  # by what tells its end: the process, and where that is to be written
    with selectors.DefaultSelector() as events:
        events.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fd in running:
                    events.unregister(key.fd)
                    process, answer = running.pop(key.fd)
                    _, status = os.waitpid(process, 0)
                    os.write(answer, str(os.waitstatus_to_exitcode(status)).encode())
                    os.close(answer)
                    os.close(key.fd)
                    continue
                request, fds, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 4)
                if not request:
                    os._exit(0)
                *streams, answer = fds
                process = os.fork()
                if process == 0:
                    # What is another's would keep it waiting.
                    for fd in (requests.detach(), answer, *running, *(other for _, other in running.values())):
                        os.close(fd)
                    module, words, env, folder = json.loads(request.decode("utf-8", "surrogateescape"))
                    return module, words, env, folder, streams
                for fd in streams:
                    os.close(fd)
                ends = os.pidfd_open(process)
                running[ends] = (process, answer)
                events.register(ends, selectors.EVENT_READ)


def run_to_the_end(module: str) -> int:
    """The exit status of a command, as the interpreter has it; which then would spend most of a short command's time on freeing
    what it shares with us."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    asking = socket.socket(fileno=int(sys.argv[1]))
    if os.fork() != 0:  # no child of the test's process, which may count its own
        os._exit(0)
    warm_up()
    name, *rest = serve(asking)
    become(name, *rest)
    os._exit(run_to_the_end(name))
