"""The server: the process that runs workers, with few rights. We, who open all that it uses, are its supervisor."""

from __future__ import annotations

import os
import pwd
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssimage._sandstorm import ffi, lib

from .errors import SsrunError

FORKED = ("afxdp", "packet", "tap")  # backends whose workers use nothing that two processes can't share
NOBODY = "nobody"
NOBODY_ID = 65534  # where it has no name
START_S = 10.0  # until the server must have begun
END_S = 5.0  # after its workers have been told to end
ANY_CPU = -1


@dataclass(frozen=True)
class User:
    """Whose the server is."""

    name: str
    uid: int
    gid: int


def user_named(name: str) -> User:
    """Raises SsrunError if there is none of that name."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise SsrunError(
            f"--user {name}: there is no such user; make one (`useradd --system {name}`), or name another"
        ) from None
    return User(name, entry.pw_uid, entry.pw_gid)


def user_name() -> str:
    """Whose we are; a number where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def server_user(name: str | None) -> User | None:
    """Whose the server is to be; None: ours, as we may not choose. name: as it was asked for. Raises SsrunError."""
    if os.geteuid() == 0:
        try:
            return user_named(name or NOBODY)
        except SsrunError:
            if name is not None:
                raise
            return User(NOBODY, NOBODY_ID, NOBODY_ID)
    if name is not None and user_named(name).uid != os.geteuid():
        raise SsrunError(f"--user {name}: only root may start a server as somebody else; leave --user out")
    return None


# Bits of what it is kept from, as they are told.
CONFINED = {"files": lib.SERVER_FILES_CONFINED, "calls": lib.SERVER_CALLS_CONFINED}
NOT_CONFINED = {
    "files": "this kernel has no Landlock: the process that serves could open what its user may",
    "calls": "this kernel filters no system calls (seccomp): the process that serves could make any",
}


@dataclass(frozen=True)
class Exit:
    """How the server has ended."""

    status: int  # as waitpid gives it

    @property
    def by_signal(self) -> bool:
        """Has it crashed, or been killed? Else it has said why it ends."""
        return os.WIFSIGNALED(self.status)

    def __str__(self) -> str:
        """Says it in words."""
        if os.WIFSIGNALED(self.status):
            return f"was killed by {signal.Signals(os.WTERMSIG(self.status)).name}"
        return f"ended with status {os.waitstatus_to_exitcode(self.status)}"


class ServerProcess:
    """One server, from its fork to its end."""

    def __init__(self, workers: list[Any], cpus: list[int | None], user: User | None) -> None:
        """Forks it; its workers run when this returns. workers: struct worker *. Raises SsrunError."""
        self._sock: socket.socket | None = None
        self.ended: Exit | None = None
        self.confined = 0  # SERVER_*_CONFINED
        places = ffi.new("int32_t[]", [ANY_CPU if cpu is None else cpu for cpu in cpus])
        pointers = ffi.new("struct worker *[]", workers)
        options = ffi.new(
            "struct server_options *",
            {
                "workers": pointers,
                "cpus": places,
                "worker_count": len(workers),
                "change_user": user is not None,
                "uid": user.uid if user else 0,
                "gid": user.gid if user else 0,
            },
        )
        fd = ffi.new("int *")
        self.pid = int(lib.server_fork(options, fd))
        if self.pid < 0:
            raise SsrunError(f"the server process can't be started: {os.strerror(-self.pid)}")
        self._sock = socket.socket(fileno=fd[0])
        self._await_start()

    def _await_start(self) -> None:
        assert self._sock is not None
        self._sock.settimeout(START_S)
        try:
            news = self._receive()
        except TimeoutError:
            self._reap(kill=True)
            raise SsrunError(f"the server process has not begun within {START_S:g} s; start again") from None
        if news is None or news.kind != lib.SERVER_READY:
            ended = self._reap(kill=False)
            why = f"can't give up its rights: {os.strerror(-news.result)}" if news is not None else str(ended)
            raise SsrunError(f"the server process {why}")
        self._sock.setblocking(False)
        self.confined = int(news.confined)

    def _receive(self) -> Any:
        """struct server_news *; None at the end."""
        assert self._sock is not None
        news = ffi.new("struct server_news *")
        try:
            got = self._sock.recv_into(ffi.buffer(news))
        except ConnectionError:
            return None
        return news if got == ffi.sizeof("struct server_news") else None

    def confined_by(self) -> list[str]:
        """What it is kept from: words of CONFINED."""
        return [name for name, bit in CONFINED.items() if self.confined & bit]

    def fileno(self) -> int:
        """What can be read when there is news."""
        assert self._sock is not None
        return self._sock.fileno()

    def news(self, worker_ended: Callable[[int], None]) -> Exit | None:
        """Takes what it has told; worker_ended gets the result of a worker. How it has ended, if it has."""
        while True:
            try:
                news = self._receive()
            except BlockingIOError:
                return None
            if news is None:
                return self._reap(kill=False)
            if news.kind == lib.SERVER_WORKER_ENDED:
                worker_ended(int(news.result))

    def await_end(self) -> Exit:
        """Waits until it has ended, as its workers have been told to; one that does not is killed."""
        assert self._sock is not None
        self._sock.settimeout(END_S)
        try:
            while self._receive() is not None:
                pass
        except TimeoutError:
            return self._reap(kill=True)
        return self._reap(kill=False)

    def _reap(self, *, kill: bool) -> Exit:
        """Waits for its last moment; nothing is left of it then. kill: as it does not come to that by itself."""
        assert self._sock is not None
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self._sock.close()
        self._sock = None
        self.ended = Exit(status)
        return self.ended
